//! Volumes that TopoLVM has made: its logical volumes, without a tag of lvault, and objects with its fields only.

use std::fs;
use std::path::PathBuf;

use lvault_api::LogicalVolume;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use crate::data::{Tree, fill};
use crate::group::lvm;
use crate::process::{command, succeed};
use crate::world::{Engine, NODE, World};

mod thin {
    #[test]
    fn topolvms_volumes_and_snapshots_are_taken_over() {
        if super::Engine::LvmThin.is_possible() {
            super::taken_over(super::Engine::LvmThin);
        }
    }
}

mod thick {
    #[test]
    fn topolvms_volumes_are_taken_over() {
        if super::Engine::LvmThick.is_possible() {
            super::taken_over(super::Engine::LvmThick);
        }
    }
}

/// What TopoLVM writes, and nothing else. Its size is the one in its status.
fn object(world: &World, name: &str, more: &Value) -> String {
    let mut spec = json!({"name": name, "nodeName": NODE, "size": "64Mi", "deviceClass": "only"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let uid = world.create(json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
        "metadata": {"name": name, "finalizers": ["topolvm.io/logicalvolume"],
            "labels": {"app.kubernetes.io/created-by": "topolvm-controller"}},
        "spec": spec,
    }));
    let status = json!({"status": {"volumeID": uid, "code": 0, "currentSize": "64Mi"}});
    world.patch_status(name, &status).expect("TopoLVM's status");
    uid
}

/// Makes a logical volume with the commands of TopoLVM.
fn make(world: &World, uid: &str) {
    let group = world.group();
    let (pool, name) = (group.full_name("pool"), group.full_name(""));
    let bytes = (64 << 20).to_string() + "b";
    match world.engine {
        Engine::LvmThin => lvm(&["lvcreate", "-q", "-T", &pool, "-n", uid, "-V", &bytes, "-W", "y", "-y"]),
        _ => lvm(&["lvcreate", "-q", "-n", uid, "-L", &bytes, "-W", "y", "-y", name.trim_end_matches('/')]),
    };
}

/// Makes a filesystem on a volume and fills it, as kubelet and a pod do; answers with what is in it.
fn fill_volume(world: &World, uid: &str, seed: u64) -> Tree {
    let (device, point) = (world.group().device(uid), world.root().join("pod"));
    succeed(command("mkfs.ext4").arg("-q").arg(&device));
    fs::create_dir_all(&point).unwrap();
    mount(&device, &point, "ext4", MountFlags::empty(), None).unwrap();
    fill(&point, seed, 2);
    let tree = Tree::of(&point);
    unmount(&point, UnmountFlags::NOFOLLOW).unwrap();
    tree
}

fn tags(world: &World, uid: &str) -> String {
    lvm(&["lvs", "--noheadings", "-o", "lv_tags", &world.group().full_name(uid)]).trim().to_owned()
}

fn is_served(object: &LogicalVolume) -> bool {
    object.status.as_ref().is_some_and(|status| status.mount_path.is_some())
}

fn message(object: &LogicalVolume) -> String {
    object.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
}

fn taken_over(engine: Engine) {
    let mut world = World::new(engine);
    world.storage("main");
    let alone = world.api_alone();
    let plain = object(&world, "plain", &json!({}));
    make(&world, &plain);
    let before = fill_volume(&world, &plain, 70);
    let (snapshot, clone) = if engine == Engine::LvmThin {
        let made = ["ro", "rw"].map(|access| {
            let uid = object(&world, access, &json!({"source": "plain", "accessType": access}));
            let source = world.group().full_name(&plain);
            lvm(&["lvcreate", "-q", "-y", "-s", "-k", "n", "-n", &uid, &source]);
            let made = world.group().full_name(&uid);
            match access {
                "ro" => lvm(&["lvchange", "-q", "-p", "r", &made]),
                _ => lvm(&["lvchange", "-q", "-k", "n", "-a", "y", &made]),
            };
            uid
        });
        (Some(made[0].clone()), Some(made[1].clone()))
    } else {
        (None, None)
    };
    // One that is deleted before lvault has seen it, one without a filesystem, and one that is not there at all.
    let deleted = object(&world, "deleted", &json!({}));
    make(&world, &deleted);
    fill_volume(&world, &deleted, 71);
    world.delete("deleted");
    let raw = object(&world, "raw", &json!({}));
    make(&world, &raw);
    object(&world, "lost", &json!({}));
    drop(alone);
    world.start();

    let seen = world.wait("plain", "it is served", is_served);
    assert_eq!(seen.status.as_ref().and_then(|status| status.volume_id.clone()).as_ref(), Some(&plain));
    let path = PathBuf::from(world.ok(&["volume", "path", "plain"]));
    before.assert_same(&Tree::of(&path));
    assert!(tags(&world, &plain).contains("lvault.owner="), "{}", tags(&world, &plain));
    for name in ["ro", "rw"].iter().filter(|_| snapshot.is_some()) {
        let seen = world.wait(name, "it is served", is_served);
        before.assert_same(&Tree::of(&PathBuf::from(seen.status.unwrap().mount_path.unwrap())));
    }
    world.gone("deleted");
    assert!(!world.group().volumes().contains(&deleted), "it was left behind");
    let said = world.wait("raw", "why it is not taken over", |object| message(object).contains("neither ext4"));
    assert!(message(&said).contains(&raw), "{}", message(&said));
    assert_eq!(tags(&world, &raw), "", "it is left as it was");
    world.wait("lost", "that it is gone", |object| message(object).contains("is gone from its node"));

    // From here on they are volumes like any other.
    if let Some(clone) = &clone {
        world.ok(&["volume", "resize", "rw", "96Mi", "--wait", "--timeout", "60s"]);
        assert!(world.node().is_attached(clone));
    }
    world.ok(&["volume", "resize", "plain", "96Mi", "--wait", "--timeout", "60s"]);
    let uid = world.snapshot("s1", "plain", &["--wait", "--timeout", "60s"]);
    let repository = world.repository("main", "plain");
    before.assert_same(&repository.restored(&repository.only(&uid, 1), "plain"));
    // What was not taken over is nobody's to remove, and is in nobody's way.
    world.delete("raw");
    world.gone("raw");
    assert!(world.group().volumes().contains(&raw), "somebody else's volume was removed");
    lvm(&["lvremove", "-q", "-y", &world.group().full_name(&raw)]);
    world.finish();
}
