//! An agent killed at any moment: after `recover` nothing half-made is visible, nothing is frozen or leaked, and every
//! volume that is listed is whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lvault_core::Bytes;
use lvault_engines::{Access, Filesystem, NewSnapshot, VolumeEngine};
use support::{Kind, MIB, SpawnQuietly, State, eventually, id, myself, root_or_skip, snapshot};

const CHILD: &str = "LVAULT_ENGINES_CRASH_CHILD";
const FOLDER: &str = "LVAULT_ENGINES_CRASH_FOLDER";
const ROUNDS: u32 = 20;

fn kind_named(name: &str) -> Kind {
    match name {
        "directory" => Kind::Directory,
        "ext4" => Kind::Image(Filesystem::Ext4),
        "xfs" => Kind::Image(Filesystem::Xfs),
        other => panic!("{other}"),
    }
}

/// Not a test by itself: what the killed process does. It goes on until it is killed.
#[test]
fn child() {
    let (Ok(kind), Ok(folder)) = (std::env::var(CHILD), std::env::var(FOLDER)) else { return };
    let kind = kind_named(&kind);
    let state = std::mem::ManuallyDrop::new(State::at(PathBuf::from(folder)));
    let engine = state.open(kind).unwrap();
    println!("started");
    for round in 0_u32.. {
        life(engine.as_ref(), kind, round);
    }
}

/// The whole life of a volume, its snapshot and its clone. The file says when all of it is written.
fn life(engine: &dyn VolumeEngine, kind: Kind, round: u32) {
    let name = |what: &str| format!("{what}-{round}");
    engine.ensure_volume(&kind.volume(&name("v"))).unwrap();
    let folder = engine.ensure_attached(&id(&name("v"))).unwrap();
    fs::write(folder.join("pair"), [b'x'; 100_000]).unwrap();
    fs::File::open(&folder).and_then(|folder| folder.sync_all()).unwrap();
    let cut = |what: &str, access| {
        let new: NewSnapshot = snapshot(&name(what), &name("v"), access);
        engine.ensure_snapshot(&new).unwrap();
    };
    cut("s", Access::ReadOnly);
    cut("c", Access::ReadWrite);
    engine.ensure_attached(&id(&name("s"))).unwrap();
    engine.ensure_size(&id(&name("c")), Bytes(kind.size().0 + 32 * MIB)).unwrap();
    engine.ensure_attached(&id(&name("c"))).unwrap();
    for what in ["s", "v"] {
        engine.ensure_detached(&id(&name(what))).unwrap();
        engine.ensure_absent(&id(&name(what))).unwrap();
    }
    engine.ensure_detached(&id(&name("c"))).unwrap();
    if round.is_multiple_of(2) {
        engine.ensure_absent(&id(&name("c"))).unwrap();
    }
}

fn kill_at_random_moments(kind_name: &str) {
    let kind = kind_named(kind_name);
    if kind != Kind::Directory && !root_or_skip("the image engine") {
        return;
    }
    // One is enough to repeat a run: LVAULT_SEED=n.
    let seed = std::env::var("LVAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut put_right = 0;
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let state = State::new();
        // The pool is made beforehand, so that the moments fall into what volumes go through.
        drop(state.open(kind).unwrap());
        let longest = if kind == Kind::Directory { 60 } else { 700 };
        let moment = Duration::from_micros((random >> 33) % (longest * 1000));
        let mut child = myself("child").env(CHILD, kind_name).env(FOLDER, state.path()).spawn_quietly();
        std::thread::sleep(Duration::from_millis(10) + moment);
        child.kill().unwrap();
        child.wait().unwrap();
        put_right += check(&state, kind, &format!("seed {seed}, round {round}, killed after {moment:?}"));
    }
    println!("{kind_name}: {ROUNDS} kills, {put_right} things put right");
}

/// Everything that has to hold after the kill; answers how much `recover` had to do.
fn check(state: &State, kind: Kind, at: &str) -> usize {
    let engine = state.open(kind).unwrap();
    // Programs that the killed process had started end by themselves; until then their volume may be busy.
    let started = Instant::now();
    let recovered = engine.recover().unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{at}: recovery took {:?}", started.elapsed());
    assert_eq!(state.hidden(), Vec::<PathBuf>::new(), "{at}: half-made or half-removed volumes are left");
    let volumes = engine.list().unwrap();
    assert_eq!(state.volume_folders(), volumes.len(), "{at}: a volume is there that is not whole");
    for volume in &volumes {
        let mut folder = None;
        eventually(&format!("{at}: {} is attached", volume.id), Duration::from_secs(5), || {
            folder = engine.ensure_attached(&volume.id).ok();
            folder.is_some()
        });
        let folder = folder.unwrap();
        let pair = fs::read(folder.join("pair")).unwrap_or_default();
        if volume.origin.is_some() {
            assert_eq!(pair.len(), 100_000, "{at}: {} lacks what the source held at the cut", volume.id);
        }
        if volume.access == Access::ReadWrite {
            let started = Instant::now();
            fs::write(folder.join("written-after"), "x").unwrap();
            fs::File::open(folder.join("written-after")).unwrap().sync_all().unwrap();
            assert!(started.elapsed() < Duration::from_secs(2), "{at}: {} stood still", volume.id);
        }
    }
    let again: Vec<_> = engine.recover().unwrap();
    assert_eq!(again, [], "{at}: the second recovery finds nothing to do");
    for volume in volumes {
        engine.ensure_detached(&volume.id).unwrap();
        engine.ensure_absent(&volume.id).unwrap();
    }
    engine.ensure_closed().unwrap();
    assert_eq!((state.mounts(), state.loops()), (Vec::new(), Vec::new()), "{at}: leaked");
    recovered.len()
}

#[test]
fn directory_agent_killed() {
    kill_at_random_moments("directory");
}

#[test]
fn image_ext4_agent_killed() {
    kill_at_random_moments("ext4");
}

#[test]
fn image_xfs_agent_killed() {
    kill_at_random_moments("xfs");
}
