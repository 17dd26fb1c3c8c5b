//! Storage that fails under a backup, and storage that is about to: the attempt says why, the objects show it, and nobody
//! is kept waiting.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use lvault_api::{LogicalVolume, Phase, conditions};

use crate::data::{Tree, fill};
use crate::group::lvm;
use crate::process::{Dice, command, succeed, until};
use crate::world::{Engine, Settings, World};

/// Executors at the gate have no lease; they are not to be taken for hung while a test does something else.
const PATIENT: Settings = Settings { lease: "50s", start_deadline: "120s", pool: "256m" };
const MIB: usize = 1 << 20;

mod thin {
    use super::*;

    #[test]
    fn a_pool_that_fills_up_fails_the_backup_and_tells_the_writer() {
        if Engine::LvmThin.is_possible() {
            pool_fills_up();
        }
    }

    #[test]
    fn a_nearly_full_pool_is_seen_and_refuses_snapshots() {
        if Engine::LvmThin.is_possible() {
            nearly_full();
        }
    }

    #[test]
    fn storage_that_cannot_be_used_is_said_at_the_first_start() {
        if Engine::LvmThin.is_possible() {
            unusable();
        }
    }

    #[test]
    fn a_failing_disk_is_named() {
        if Engine::LvmThin.is_possible() {
            failing_disk(Engine::LvmThin);
        }
    }

    #[test]
    fn a_disk_that_comes_and_goes_spoils_no_backup() {
        if Engine::LvmThin.is_possible() {
            coming_and_going(Engine::LvmThin);
        }
    }
}

mod thick {
    use super::*;

    #[test]
    fn a_snapshot_that_is_outrun_fails_the_backup() {
        if Engine::LvmThick.is_possible() {
            outrun();
        }
    }

    #[test]
    fn a_failing_disk_is_named() {
        if Engine::LvmThick.is_possible() {
            failing_disk(Engine::LvmThick);
        }
    }

    #[test]
    fn a_disk_that_comes_and_goes_spoils_no_backup() {
        if Engine::LvmThick.is_possible() {
            coming_and_going(Engine::LvmThick);
        }
    }
}

/// Writes noise into a file until it has this size or an error comes.
fn write(path: &Path, mebibytes: usize) -> io::Result<()> {
    let mut dice = Dice::of(7);
    let block: Vec<u8> = (0..MIB / 8).flat_map(|_| dice.next().to_le_bytes()).collect();
    let mut file = File::create(path)?;
    for _ in 0..mebibytes {
        file.write_all(&block)?;
        file.sync_data()?;
    }
    Ok(())
}

fn is_ill(object: &LogicalVolume, reason: &str) -> bool {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions::ailment(conditions).is_some_and(|ailment| ailment.reason.split(',').any(|one| one == reason))
}

/// The reasons of an object's events.
fn events(world: &World, name: &str) -> Vec<String> {
    let all = world.ask(async |client| Api::<Event>::all(client).list(&ListParams::default()).await).expect("events");
    let of_it = all.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
    of_it.filter_map(|event| event.reason).collect()
}

/// Each with one message that names what is wrong and what to do.
fn unusable() {
    let world = World::new(Engine::LvmThin);
    world.volume("data");
    let real = std::fs::read_to_string(world.group().config()).unwrap();
    let group = world.group().full_name("");
    let group = group.trim_end_matches('/');
    lvm(&["lvcreate", "-q", "-y", "-L", "64m", "-n", "plain", group]);
    let (file, state) = (world.root().join("other.yaml"), world.root().join("other"));
    let twice = real.replace("[{", "[{name: one, default: true, volume-group: vg1}, {");
    for (text, says) in [
        (real.replace(group, "gone"), &["the volume group gone", "vgcreate"][..]),
        (real.replace("name: pool", "name: none"), &["/none, which does not exist", "lvcreate --type thin-pool"]),
        (real.replace("name: pool", "name: plain"), &["/plain, but that is a volume of type linear"]),
        (twice, &["'only'", "'one' is the default already"]),
        (real.replace("name: only", "name: o/nly"), &["'o/nly' is no name", "line 1"]),
        (String::new(), &["device-classes"]),
    ] {
        std::fs::write(&file, &text).unwrap();
        let mut up = command(env!("CARGO_BIN_EXE_lvault"));
        up.arg("--state-dir").arg(&state).args(["up", "--engine", "lvm", "--lvmd-config"]).arg(&file);
        let output = up.env_remove("LVAULT_LOG").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).replace(['\n', '│'], " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!output.status.success(), "{text}");
        for part in says {
            assert!(said.contains(part), "{text}: '{part}' is not in: {said}");
        }
    }
    lvm(&["lvremove", "-q", "-y", &world.group().full_name("plain")]);
    world.finish();
}

fn pool_fills_up() {
    let mut world = World::with(Engine::LvmThin, PATIENT);
    world.ok(&["volume", "create", "data", "--size", "400Mi", "--wait", "--timeout", "60s"]);
    let data = std::path::PathBuf::from(world.ok(&["volume", "path", "data"]));
    fill(&data, 60, 1);
    world.storage("main");
    world.close_gate();
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor_at_gate(&uid);

    let began = Instant::now();
    let error = write(&data.join("much"), 300).expect_err("more than the pool has");
    assert!(matches!(error.raw_os_error(), Some(5 | 28 | 30)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60), "the writer was kept waiting: {:?}", began.elapsed());

    world.wait("s1", "the pool is seen to have failed", |object| is_ill(object, "PoolFailed"));
    world.open_gate();
    executor.process.go_on();
    let failed = world.phase("s1", 1, Phase::Failed).error.expect("a reason");
    assert_eq!(failed.code, "PoolFailed", "{}", failed.message);
    assert!(failed.message.contains("out_of_data"), "{}", failed.message);
    world.node().settle_keeping(&uid);
    assert_eq!(world.repository("main", "data").commits(), 0);
    assert!(world.ok(&["why", "data"]).contains("out_of_data"), "{}", world.ok(&["why", "data"]));
    world.finish();
}

fn nearly_full() {
    let mut world = World::with(Engine::LvmThin, PATIENT);
    let data = world.volume("data");
    fill(&data, 61, 1);
    let before = Tree::of(&data);
    world.storage("main");
    let (pool, filler) = (world.group().full_name("pool"), world.group().full_name("filler"));
    lvm(&["lvcreate", "-q", "-y", "-V", "300m", "-T", &pool, "-n", "filler"]);
    let device = OpenOptions::new().write(true).open(world.group().device("filler")).unwrap();
    for megabyte in 0..232 {
        device.write_all_at(&[1; MIB], (megabyte * MIB) as u64).unwrap();
    }
    device.sync_all().unwrap();
    drop(device);
    // A new agent looks at once.
    world.terminate();
    world.start();
    world.wait("data", "its pool is seen to be nearly full", |object| is_ill(object, "PoolNearlyFull"));
    let uid = world.snapshot("s1", "data", &[]);
    let failed = world.phase("s1", 1, Phase::Failed).error.expect("a reason");
    assert!(failed.message.contains("nearly full") && failed.message.contains("lvextend"), "{}", failed.message);
    let version = world.version("data");
    world.assert_left_alone("data", &version);

    lvm(&["lvremove", "-q", "-y", &filler]);
    world.terminate();
    world.start();
    world.wait("data", "its pool is well again", |object| {
        object.status.as_ref().is_some_and(|status| conditions::holds(&status.conditions, conditions::HEALTHY))
    });
    world.ok(&["snapshot", "retry", "s1", "--wait", "--timeout", "60s"]);
    let repository = world.repository("main", "data");
    before.assert_same(&repository.restored(&repository.only(&uid, 2), "data"));
    let told = events(&world, "data");
    let count = |reason: &str| told.iter().filter(|one| *one == reason).count();
    assert_eq!((count("StorageProblem"), count("StorageRecovered")), (1, 1), "{told:?}");
    world.finish();
}

fn outrun() {
    let mut world = World::with(Engine::LvmThick, PATIENT);
    let data = world.volume("data");
    fill(&data, 62, 1);
    world.storage("main");
    world.close_gate();
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor_at_gate(&uid);
    // Its exception store has 32 MiB.
    write(&data.join("much"), 40).expect("the source goes on");
    world.open_gate();
    executor.process.go_on();
    let failed = world.phase("s1", 1, Phase::Failed).error.expect("a reason");
    assert_eq!(failed.code, "SnapshotOverflow", "{}", failed.message);
    let device = world.group().device(&uid).display().to_string();
    for part in ["exception store", &device] {
        assert!(failed.message.contains(part), "{part}: {}", failed.message);
    }
    assert_eq!(world.repository("main", "data").commits(), 0);
    // The attempt keeps its snapshot for a retry, which has to say the same: that moment is lost.
    world.node().settle_keeping(&uid);
    world.ok(&["snapshot", "retry", "s1"]);
    let again = world.phase("s1", 2, Phase::Failed).error.expect("a reason");
    assert!(again.message.contains("exception store"), "{}", again.message);
    let after = Tree::of(&data);
    let second = world.snapshot("s2", "data", &["--wait", "--timeout", "60s"]);
    let repository = world.repository("main", "data");
    after.assert_same(&repository.restored(&repository.only(&second, 1), "data"));
    world.finish();
}

/// Nothing writes to the volume any more. A new ext4 goes on for a while, from some seconds after the mount on, with clearing its tables: where
/// such a write meets a disk that is away, a thin pool cannot note what it has given out, and has failed for good.
fn bring_to_rest(data: &Path) {
    succeed(command("mount").args(["-o", "remount,noinit_itable"]).arg(data));
    succeed(&mut command("sync"));
}

fn failing_disk(engine: Engine) {
    let mut world = World::with(engine, PATIENT);
    let data = world.volume("data");
    fill(&data, 63, 2);
    bring_to_rest(&data);
    let before = Tree::of(&data);
    world.storage("main");
    world.close_gate();
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor_at_gate(&uid);
    world.open_gate();
    world.group().disk_fails();
    executor.process.go_on();
    let failed = world.phase("s1", 1, Phase::Failed).error.expect("a reason");
    let device = world.group().device(&uid).display().to_string();
    assert!(failed.message.contains(&device), "{}: {}", failed.code, failed.message);
    assert_eq!(world.repository("main", "data").commits(), 0);

    world.group().disk_works();
    world.node().settle_keeping(&uid);
    world.ok(&["snapshot", "retry", "s1"]);
    let ended = world.ended("s1", 2);
    match ended.error {
        None => {
            let repository = world.repository("main", "data");
            before.assert_same(&repository.restored(&repository.only(&uid, 2), "data"));
        }
        // Where the source was written to meanwhile, the store of a thick snapshot was not, and so it is lost.
        Some(error) => {
            assert!(engine == Engine::LvmThick && error.message.contains("exception store"), "{}", error.message);
        }
    }
    world.finish();
}

/// Attempts while the disk comes and goes: each ends with the device named, or with the right content.
fn coming_and_going(engine: Engine) {
    const TRIES: i32 = 4;
    let mut world = World::with(engine, PATIENT);
    let data = world.volume("data");
    fill(&data, 64, 24);
    bring_to_rest(&data);
    let before = Tree::of(&data);
    world.storage("main");
    world.close_gate();
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor_at_gate(&uid);
    world.open_gate();
    // The first attempt begins when the disk has just gone, for longer than it takes.
    world.group().disk_comes_and_goes(1, 600, false);
    until("the disk is down", || world.group().disk_is_down().then_some(()));
    executor.process.go_on();
    let failed = world.phase("s1", 1, Phase::Failed).error.expect("a reason");
    let device = world.group().device(&uid).display().to_string();
    assert!(failed.message.contains(&device), "{}: {}", failed.code, failed.message);
    assert_eq!(world.repository("main", "data").commits(), 0);

    world.group().disk_comes_and_goes(2, 1, false);
    let mut said = vec![failed.message];
    for attempt in 2.. {
        if attempt == TRIES {
            world.group().disk_works();
        }
        assert!(attempt <= TRIES + 1, "it does not succeed on a disk that works: {said:#?}");
        world.ok(&["snapshot", "retry", "s1"]);
        let ended = world.ended("s1", attempt);
        if ended.phase == Phase::Succeeded {
            let number = u32::try_from(attempt).unwrap();
            let repository = world.repository("main", "data");
            before.assert_same(&repository.restored(&repository.only(&uid, number), "data"));
            assert_eq!(repository.snapshots().len(), 1, "what failed has committed nothing");
            repository.check();
            break;
        }
        let error = ended.error.expect("a reason");
        if engine == Engine::LvmThick && error.message.contains("exception store") {
            // Where the source was written to meanwhile, the store was not: that moment is lost, and said to be.
            break;
        }
        assert!(!error.message.is_empty(), "a reason");
        said.push(error.message);
    }
    world.group().disk_works();
    eprintln!("on the way: {said:#?}");
    world.finish();
}
