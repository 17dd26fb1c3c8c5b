//! A snapshot that cannot be mounted: a reason a user understands, peace afterwards, and a retry from the same moment.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use lvault_api::Phase;
use rustix::mount::{UnmountFlags, unmount};

use crate::data::{Tree, fill};
use crate::group::lvm;
use crate::world::{Engine, World};

on_each_engine!(a_mount_failure_is_final_until_a_retry);

/// How much of an image is overwritten: the superblock and more.
const HEAD: usize = 128 << 10;

/// Makes the unmounted local snapshot one that cannot be mounted; answers with what puts it right again.
fn spoil(world: &World, uid: &str) -> Box<dyn FnOnce()> {
    let volume = world.node().volume(uid);
    match world.engine {
        Engine::Directory => {
            fs::remove_file(volume.join("attached")).unwrap();
            fs::rename(volume.join("data"), volume.join("away")).unwrap();
            Box::new(move || fs::rename(volume.join("away"), volume.join("data")).unwrap())
        }
        Engine::Image => {
            unmount(world.node().mount_point(uid), UnmountFlags::NOFOLLOW).unwrap();
            let image = File::options().read(true).write(true).open(volume.join("image")).unwrap();
            let mut head = vec![0; HEAD];
            image.read_exact_at(&mut head, 0).unwrap();
            image.write_all_at(&vec![0; HEAD], 0).unwrap();
            image.sync_all().unwrap();
            Box::new(move || image.write_all_at(&head, 0).unwrap())
        }
        Engine::LvmThin | Engine::LvmThick => {
            unmount(world.node().mount_point(uid), UnmountFlags::NOFOLLOW).unwrap();
            let name = world.group().full_name(uid);
            let permit = move |access: &str| drop(lvm(&["lvchange", "-q", "-p", access, &name]));
            permit("rw");
            let mut head = vec![0; HEAD];
            let device = File::options().read(true).write(true).open(&volume).unwrap();
            device.read_exact_at(&mut head, 0).unwrap();
            device.write_all_at(&vec![0; HEAD], 0).unwrap();
            device.sync_all().unwrap();
            drop(device);
            permit("r");
            Box::new(move || {
                permit("rw");
                let device = File::options().write(true).open(&volume).unwrap();
                device.write_all_at(&head, 0).unwrap();
                device.sync_all().unwrap();
                drop(device);
                permit("r");
            })
        }
    }
}

fn a_mount_failure_is_final_until_a_retry(engine: Engine) {
    let mut world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 14, 1);
    let before = Tree::of(&data);
    // Cut and mounted, and waiting for a storage that is not there yet.
    let uid = world.create(serde_json::json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "s1"},
        "spec": {"name": "s1", "nodeName": crate::world::NODE, "size": "64Mi", "source": "data", "accessType": "ro",
            "onlineSnapshot": {"storage": {"name": "main", "namespace": "default"}}},
    }));
    crate::process::until("it is mounted", || world.node().is_attached(&uid).then_some(()));
    let local = world.node().identity(&uid).unwrap();
    world.kill();
    let mend = spoil(&world, &uid);
    world.start();

    let failed = world.phase("s1", 1, Phase::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.code, "MountFailed");
    let (what, remedy) = match engine {
        Engine::Directory => ("the folder with the files is missing", "snapshot retry"),
        Engine::Image | Engine::LvmThin | Engine::LvmThick => {
            ("wrong fs type, bad option, bad superblock", "snapshot retry")
        }
    };
    assert!(error.message.contains(what) && error.message.contains(remedy), "{}", error.message);
    assert!(world.ok(&["why", "s1"]).contains(what), "{}", world.ok(&["why", "s1"]));
    assert_eq!(world.history.phases(&uid), [(1, Phase::Pending), (1, Phase::Failed)]);

    world.storage("main");
    world.kill();
    world.start();
    let version = kube::ResourceExt::resource_version(&world.touch("s1", "while failed")).unwrap();
    world.assert_left_alone("s1", &version);
    assert_eq!(world.repository("main", "data").commits(), 0);

    mend();
    assert_eq!(world.node().identity(&uid), Some(local), "the local snapshot is another one");
    // What is written now is not of that moment.
    fill(&data.join("a"), 15, 1);
    world.ok(&["snapshot", "retry", "s1", "--wait", "--timeout", "60s"]);
    let done = world.phase("s1", 2, Phase::Succeeded);
    let repository = world.repository("main", "data");
    let only = repository.only(&uid, 2);
    assert_eq!(done.snapshot_id.as_ref(), Some(&only));
    before.assert_same(&repository.restored(&only, "data"));
    let cuts = world.effects("s1").iter().filter(|effect| effect.starts_with("CutSnapshot")).count();
    assert_eq!(cuts, 1, "it was cut again: {:?}", world.effects("s1"));
    world.node().settle(&uid);
    world.finish();
}
