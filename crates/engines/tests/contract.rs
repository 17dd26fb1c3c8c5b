//! The contract of [`VolumeEngine`]: one body of tests, run against every engine and every filesystem it offers.
//!
//! An engine that can do less says so in its capabilities; nothing here asks which engine it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lvault_core::Bytes;
use lvault_engines::{Access, Change, EngineError, Filesystem, NewVolume, Retry, VolumeEngine, VolumeInfo};
use support::lvm::{Layout, device_mapper_or_skip, run_in_guest};
use support::{Kind, MIB, State, content, filled, has_capability, id, remove, root_or_skip, snapshot};

/// CAP_SYS_RESOURCE, without which ext4 does not grow while mounted.
const CAP_SYS_RESOURCE: u32 = 24;

fn with_engine(kind: Kind, test: impl FnOnce(&State, Kind, &dyn VolumeEngine)) {
    let possible = match kind {
        Kind::Directory => true,
        Kind::Image(_) => root_or_skip("the image engine"),
        Kind::Lvm(..) => device_mapper_or_skip(),
    };
    if !possible {
        return;
    }
    let state = State::new();
    let engine = state.open(kind).unwrap();
    test(&state, kind, engine.as_ref());
}

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod directory {
            $(#[test] fn $test() { super::with_engine(super::Kind::Directory, super::$test); })*
        }
        mod image_ext4 {
            $(#[test] fn $test() { super::with_engine(super::Kind::Image(super::Filesystem::Ext4), super::$test); })*
        }
        mod image_xfs {
            $(#[test] fn $test() { super::with_engine(super::Kind::Image(super::Filesystem::Xfs), super::$test); })*
        }
        mod lvm_thin_ext4 {
            use super::{Filesystem::Ext4, Kind, Layout::Thin};
            $(#[test] fn $test() { super::with_engine(Kind::Lvm(Thin, Ext4), super::$test); })*
        }
        mod lvm_thin_btrfs {
            use super::{Filesystem::Btrfs, Kind, Layout::Thin};
            $(#[test] fn $test() { super::with_engine(Kind::Lvm(Thin, Btrfs), super::$test); })*
        }
        mod lvm_thick_xfs {
            use super::{Filesystem::Xfs, Kind, Layout::Thick};
            $(#[test] fn $test() { super::with_engine(Kind::Lvm(Thick, Xfs), super::$test); })*
        }
    };
}

/// Where this machine has no device-mapper, the tests of LVM run again on a kernel that has it.
#[test]
fn in_guest_lvm_thin_ext4() {
    run_in_guest("lvm_thin_ext4::");
}

#[test]
fn in_guest_lvm_thin_btrfs() {
    run_in_guest("lvm_thin_btrfs::");
}

#[test]
fn in_guest_lvm_thick_xfs() {
    run_in_guest("lvm_thick_xfs::");
}

contract! {
    a_volume_lives_from_made_to_removed,
    a_name_that_is_taken_by_something_else_is_a_mismatch,
    impossible_sizes_are_refused_and_leave_nothing,
    what_does_not_exist_is_said_to_be_missing,
    a_snapshot_keeps_what_the_source_held,
    a_snapshot_outlives_its_source,
    a_clone_is_independent,
    read_only_is_enforced_where_promised,
    a_volume_grows_while_detached,
    a_volume_grows_while_attached,
    growth_is_refused_where_it_makes_no_sense,
    a_new_engine_finds_everything_as_it_was,
    a_size_is_enforced_where_promised,
    old_bytes_never_show_in_a_new_volume,
    many_at_once_make_each_volume_once,
    a_snapshot_under_writers_shows_one_instant_where_promised,
    writers_go_on_after_a_snapshot,
}

fn a_volume_lives_from_made_to_removed(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let a = id("a");
    assert_eq!(engine.observe(&a).unwrap(), None);
    assert_eq!(engine.ensure_volume(&kind.volume("a")).unwrap(), Change::Changed);
    assert_eq!(engine.ensure_volume(&kind.volume("a")).unwrap(), Change::Unchanged);
    let info = engine.observe(&a).unwrap().unwrap();
    assert!(info.size >= kind.size(), "{info:?}");
    assert_eq!((&info.origin, info.access, info.filesystem), (&None, Access::ReadWrite, kind.filesystem()));
    assert_eq!(info.attached, None);
    assert_eq!(engine.list().unwrap(), [info]);

    let folder = engine.ensure_attached(&a).unwrap();
    assert_eq!(engine.ensure_attached(&a).unwrap(), folder, "attached once");
    assert_eq!(engine.observe(&a).unwrap().unwrap().attached.as_ref(), Some(&folder));
    fs::write(folder.join("file"), "kept").unwrap();
    let refused = engine.ensure_absent(&a).unwrap_err();
    assert!(matches!(refused, EngineError::Attached { .. }), "{refused}");
    assert_eq!(refused.retry(), Retry::Later);
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "kept");

    assert_eq!(engine.ensure_detached(&a).unwrap(), Change::Changed);
    assert_eq!(engine.ensure_detached(&a).unwrap(), Change::Unchanged);
    assert_eq!(engine.observe(&a).unwrap().unwrap().attached, None);
    assert_eq!(content(engine, "a"), "kept");
    engine.ensure_detached(&a).unwrap();
    assert_eq!(engine.ensure_absent(&a).unwrap(), Change::Changed);
    assert_eq!(engine.ensure_absent(&a).unwrap(), Change::Unchanged);
    assert_eq!(engine.observe(&a).unwrap(), None);
    assert_eq!(engine.list().unwrap(), []);
}

fn a_name_that_is_taken_by_something_else_is_a_mismatch(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    engine.ensure_volume(&kind.volume("a")).unwrap();
    engine.ensure_volume(&kind.volume("b")).unwrap();
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    assert_eq!(engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap(), Change::Unchanged);
    let before = facts(engine);
    let larger = NewVolume { size: Bytes(kind.size().0 + MIB), ..kind.volume("a") };
    for outcome in [
        engine.ensure_volume(&larger),
        engine.ensure_volume(&kind.volume("s")),
        engine.ensure_snapshot(&snapshot("a", "b", Access::ReadOnly)),
        engine.ensure_snapshot(&snapshot("s", "b", Access::ReadOnly)),
        engine.ensure_snapshot(&snapshot("s", "a", Access::ReadWrite)),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, EngineError::Mismatch { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Never);
    }
    assert_eq!(facts(engine), before, "nothing was changed");
}

fn impossible_sizes_are_refused_and_leave_nothing(state: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let available = engine.capacity().unwrap().available;
    assert!(available.0 > 0 && available <= engine.capacity().unwrap().total);
    for size in [available.0 + (1 << 32), u64::MAX] {
        let error = engine.ensure_volume(&NewVolume { size: Bytes(size), ..kind.volume("a") }).unwrap_err();
        let EngineError::NoSpace { asked, available, .. } = &error else { panic!("{error}") };
        let text = error.to_string();
        assert!(text.contains(&asked.0.to_string()) && text.contains(&available.0.to_string()), "{text}");
        assert_eq!(error.retry(), Retry::Never);
    }
    let error = engine.ensure_volume(&NewVolume { size: Bytes(0), ..kind.volume("a") }).unwrap_err();
    assert!(matches!(error, EngineError::TooSmall { .. }), "{error}");
    if let Some(filesystem) = kind.filesystem() {
        let size = Bytes(filesystem.least_size().0 - 1);
        assert!(engine.ensure_volume(&NewVolume { size, ..kind.volume("a") }).is_err(), "below the least");
        let size = filesystem.least_size();
        engine.ensure_volume(&NewVolume { size, ..kind.volume("least") }).unwrap();
        content_fits(engine, "least");
        remove(engine, "least");
    }
    assert_eq!(engine.list().unwrap(), []);
    assert_eq!(state.hidden(), Vec::<std::path::PathBuf>::new());
}

fn content_fits(engine: &dyn VolumeEngine, name: &str) {
    let folder = engine.ensure_attached(&id(name)).unwrap();
    fs::write(folder.join("file"), vec![1; MIB as usize]).unwrap();
}

fn what_does_not_exist_is_said_to_be_missing(state: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let none = id("none");
    let is_missing = |error: EngineError| matches!(error, EngineError::NotFound { .. });
    assert!(is_missing(engine.ensure_attached(&none).unwrap_err()));
    assert!(is_missing(engine.ensure_size(&none, kind.size()).unwrap_err()));
    assert!(is_missing(engine.ensure_snapshot(&snapshot("s", "none", Access::ReadOnly)).unwrap_err()));
    assert_eq!(engine.ensure_detached(&none).unwrap(), Change::Unchanged);
    assert_eq!(engine.ensure_absent(&none).unwrap(), Change::Unchanged);
    assert_eq!(engine.list().unwrap(), []);
    assert_eq!(state.hidden(), Vec::<std::path::PathBuf>::new());
}

fn a_snapshot_keeps_what_the_source_held(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let folder = filled(engine, kind, "a", "before");
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/deep"), vec![7; 3 << 20]).unwrap();
    assert_eq!(engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap(), Change::Changed);
    fs::write(folder.join("file"), "after").unwrap();
    fs::remove_dir_all(folder.join("sub")).unwrap();
    let info = engine.observe(&id("s")).unwrap().unwrap();
    assert_eq!((info.origin, info.access, info.filesystem), (Some(id("a")), Access::ReadOnly, kind.filesystem()));
    assert_eq!(info.size, engine.observe(&id("a")).unwrap().unwrap().size);
    assert_eq!(content(engine, "s"), "before");
    let deep = fs::read(engine.ensure_attached(&id("s")).unwrap().join("sub/deep")).unwrap();
    assert!(deep.len() == 3 << 20 && deep.iter().all(|byte| *byte == 7));
    assert_eq!(content(engine, "a"), "after");
    // And of a source that is not attached.
    engine.ensure_detached(&id("a")).unwrap();
    engine.ensure_snapshot(&snapshot("t", "a", Access::ReadOnly)).unwrap();
    assert_eq!(content(engine, "t"), "after");
    // And of a snapshot.
    engine.ensure_snapshot(&snapshot("u", "s", Access::ReadOnly)).unwrap();
    assert_eq!(content(engine, "u"), "before");
}

fn a_snapshot_outlives_its_source(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    filled(engine, kind, "a", "kept");
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    remove(engine, "a");
    filled(engine, kind, "a", "another of the same name");
    assert_eq!(content(engine, "s"), "kept");
    assert_eq!(engine.observe(&id("s")).unwrap().unwrap().origin, Some(id("a")));
    remove(engine, "s");
    assert_eq!(content(engine, "a"), "another of the same name");
}

fn a_clone_is_independent(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    filled(engine, kind, "a", "source");
    engine.ensure_snapshot(&snapshot("c", "a", Access::ReadWrite)).unwrap();
    let folder = engine.ensure_attached(&id("c")).unwrap();
    assert_eq!(engine.observe(&id("c")).unwrap().unwrap().access, Access::ReadWrite);
    fs::write(folder.join("file"), "clone").unwrap();
    assert_eq!((content(engine, "a").as_str(), content(engine, "c").as_str()), ("source", "clone"));
    engine.ensure_detached(&id("c")).unwrap();
    let size = Bytes(kind.size().0 + 64 * MIB);
    let grown = engine.ensure_size(&id("c"), size);
    if engine.capabilities().independent_snapshots {
        assert_eq!(grown.unwrap(), Change::Changed);
    } else {
        assert_eq!(grown.unwrap_err().retry(), Retry::Never);
    }
    assert_eq!((content(engine, "a").as_str(), content(engine, "c").as_str()), ("source", "clone"));
}

fn read_only_is_enforced_where_promised(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    filled(engine, kind, "a", "before");
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    let folder = engine.ensure_attached(&id("s")).unwrap();
    let written = fs::write(folder.join("file"), "changed");
    assert_eq!(written.is_err(), engine.capabilities().enforces_read_only, "{written:?}");
}

/// What the filesystem of an attached volume says that it has, in all.
fn filesystem_size(engine: &dyn VolumeEngine, name: &str) -> u64 {
    let folder = engine.ensure_attached(&id(name)).unwrap();
    let room = rustix::fs::statvfs(&folder).unwrap();
    room.f_blocks * room.f_frsize
}

fn a_volume_grows_while_detached(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    filled(engine, kind, "a", "kept");
    let before = filesystem_size(engine, "a");
    engine.ensure_detached(&id("a")).unwrap();
    let size = Bytes(kind.size().0 + 100 * MIB);
    assert_eq!(engine.ensure_size(&id("a"), size).unwrap(), Change::Changed);
    assert_eq!(engine.ensure_size(&id("a"), size).unwrap(), Change::Unchanged);
    let info = engine.observe(&id("a")).unwrap().unwrap();
    assert!(info.size >= size && info.attached.is_none(), "{info:?}");
    assert_eq!(content(engine, "a"), "kept");
    if engine.capabilities().enforces_size {
        let grown = filesystem_size(engine, "a") - before;
        assert!(grown > 90 * MIB, "grown by {grown}");
    }
}

fn a_volume_grows_while_attached(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let folder = filled(engine, kind, "a", "kept");
    let before = filesystem_size(engine, "a");
    let size = Bytes(kind.size().0 + 100 * MIB);
    match engine.ensure_size(&id("a"), size) {
        Ok(change) => assert_eq!(change, Change::Changed),
        Err(error) => {
            // The kernel of ext4 asks for a capability that a container may lack; then, and only then, this is right.
            assert_eq!(kind.filesystem(), Some(Filesystem::Ext4), "{error}");
            assert!(matches!(error, EngineError::MissingCapability { .. }), "{error}");
            assert!(error.to_string().contains("CAP_SYS_RESOURCE") && !has_capability(CAP_SYS_RESOURCE), "{error}");
            assert_eq!(engine.observe(&id("a")).unwrap().unwrap().size, kind.size(), "as if never asked");
            let available = engine.capacity().unwrap().available;
            engine.ensure_detached(&id("a")).unwrap();
            assert_eq!(engine.ensure_size(&id("a"), size).unwrap(), Change::Changed, "it grows once detached");
            assert!(engine.capacity().unwrap().available.0 + 90 * MIB < available.0, "only now the room is taken");
        }
    }
    assert_eq!(engine.ensure_attached(&id("a")).unwrap(), folder);
    assert!(engine.observe(&id("a")).unwrap().unwrap().size >= size);
    assert_eq!(content(engine, "a"), "kept");
    if engine.capabilities().enforces_size {
        let grown = filesystem_size(engine, "a") - before;
        assert!(grown > 90 * MIB, "grown by {grown}");
    }
}

fn growth_is_refused_where_it_makes_no_sense(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    engine.ensure_volume(&kind.volume("a")).unwrap();
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    let (a, size) = (id("a"), kind.size());
    let before = facts(engine);
    assert_eq!(engine.ensure_size(&a, size).unwrap(), Change::Unchanged);
    let shrink = engine.ensure_size(&a, Bytes(size.0 - MIB)).unwrap_err();
    assert!(matches!(shrink, EngineError::Shrink { .. }), "{shrink}");
    let snapshot = engine.ensure_size(&id("s"), Bytes(size.0 + MIB)).unwrap_err();
    assert!(matches!(snapshot, EngineError::ReadOnly { .. }), "{snapshot}");
    if !engine.capabilities().independent_snapshots {
        let refused = engine.ensure_size(&a, Bytes(size.0 + 64 * MIB)).unwrap_err();
        assert_eq!(refused.retry(), Retry::Later, "{refused}");
        assert_eq!(facts(engine), before);
        remove(engine, "s");
    }
    let before = facts(engine);
    for too_much in [engine.capacity().unwrap().total.0 + size.0, u64::MAX] {
        let error = engine.ensure_size(&a, Bytes(too_much)).unwrap_err();
        assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
    }
    for error in [shrink, snapshot] {
        assert_eq!(error.retry(), Retry::Never);
    }
    assert_eq!(facts(engine), before);
}

/// Every volume, but for the space in use: a filesystem goes on writing by itself.
fn facts(engine: &dyn VolumeEngine) -> Vec<VolumeInfo> {
    let volumes = engine.list().unwrap();
    volumes.into_iter().map(|volume| VolumeInfo { used: None, ..volume }).collect()
}

fn a_new_engine_finds_everything_as_it_was(state: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let folder = filled(engine, kind, "a", "kept");
    engine.ensure_volume(&kind.volume("b")).unwrap();
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    let before = facts(engine);
    let again = state.open(kind).unwrap();
    assert_eq!(again.recover().unwrap(), [], "there was nothing to put right");
    assert_eq!(facts(&*again), before);
    assert_eq!(again.ensure_attached(&id("a")).unwrap(), folder, "still attached");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "kept");
    assert_eq!(again.ensure_volume(&kind.volume("b")).unwrap(), Change::Unchanged);
    assert_eq!(content(again.as_ref(), "s"), "kept");
}

fn a_size_is_enforced_where_promised(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let folder = filled(engine, kind, "a", "small");
    let mut file = fs::File::create(folder.join("large")).unwrap();
    let block = vec![1; MIB as usize];
    let megabytes = kind.size().0 / MIB + 1;
    let written = (0..megabytes).try_for_each(|_| file.write_all(&block)).and_then(|()| file.sync_all());
    assert_eq!(written.is_err(), engine.capabilities().enforces_size, "{written:?}");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "small");
}

/// L29: what was in a removed volume is in no new one, neither in files nor in the space that is free in it.
fn old_bytes_never_show_in_a_new_volume(state: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let secret: Vec<u8> = b"what nobody else may read. ".iter().copied().cycle().take(24 << 20).collect();
    let folder = filled(engine, kind, "a", "small");
    fs::write(folder.join("secret"), &secret).unwrap();
    remove(engine, "a");
    filled(engine, kind, "a", "another");
    let grown = Bytes(kind.size().0 + 64 * MIB);
    engine.ensure_detached(&id("a")).unwrap();
    engine.ensure_size(&id("a"), grown).unwrap();
    engine.ensure_attached(&id("a")).unwrap();
    engine.ensure_detached(&id("a")).unwrap();
    let storage = state.storage_of("a");
    assert_eq!(storage.len(), 1, "the volume is looked at");
    assert_eq!(files_with(&storage[0], b"what nobody else may read"), Vec::<String>::new());
}

/// A file, a device or a folder of files: what of it holds this.
fn files_with(path: &Path, needle: &[u8]) -> Vec<String> {
    const CHUNK: usize = 1 << 20;
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        return entries.flat_map(|path| files_with(&path, needle)).collect();
    }
    let (mut file, mut block, zeros) = (fs::File::open(path).unwrap(), vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let read = file.read(&mut block).unwrap();
        let is_empty = block[..read] == zeros[..read];
        match read {
            0 => return Vec::new(),
            _ if !is_empty && block[..read].windows(needle.len()).any(|window| window == needle) => {
                return vec![path.display().to_string()];
            }
            _ => {}
        }
    }
}

fn many_at_once_make_each_volume_once(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let changed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..9)
            .map(|number| {
                scope.spawn(move || {
                    let name = NAMES[number % NAMES.len()];
                    let made = engine.ensure_volume(&kind.volume(name)).unwrap();
                    engine.ensure_attached(&id(name)).unwrap();
                    let copy = format!("{name}-snapshot");
                    let cut = engine.ensure_snapshot(&snapshot(&copy, name, Access::ReadOnly)).unwrap();
                    engine.ensure_attached(&id(&copy)).unwrap();
                    [made, cut].into_iter().filter(|change| *change == Change::Changed).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(changed, 2 * NAMES.len());
    let list = engine.list().unwrap();
    assert_eq!(list.len(), 2 * NAMES.len());
    assert!(list.iter().all(|volume| volume.attached.is_some()), "{list:?}");
}

/// A writer counts in two files, one after the other: at any instant the first is equal to the second or one ahead.
fn a_snapshot_under_writers_shows_one_instant_where_promised(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let folder = filled(engine, kind, "a", "");
    let (stop, in_guest) = (AtomicBool::new(false), support::lvm::is_in_guest());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in 1_u64.. {
                fs::write(folder.join("first"), format!("{count:020}")).unwrap();
                fs::write(folder.join("second"), format!("{count:020}")).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if in_guest {
                    // It has one CPU: the rest of it is for the snapshots.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        support::eventually("the writer writes", Duration::from_secs(5), || folder.join("second").exists());
        for round in 0..5 {
            std::thread::sleep(Duration::from_millis(20));
            let name = format!("s-{round}");
            let cut = engine.ensure_snapshot(&snapshot(&name, "a", Access::ReadOnly));
            if cut.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            cut.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    for round in 0..5 {
        let folder = engine.ensure_attached(&id(&format!("s-{round}"))).unwrap();
        let counted = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let (first, second) = (counted("first"), counted("second"));
        if !engine.capabilities().atomic_snapshots {
            continue;
        }
        // A file that is being rewritten is empty for a moment.
        match (first.parse::<u64>(), second.parse::<u64>()) {
            (Ok(first), Ok(second)) => assert!(first == second || first == second + 1, "{first} and {second}"),
            (Err(_), Ok(_)) => assert_eq!(first, ""),
            (Ok(_), Err(_)) => assert_eq!(second, ""),
            (Err(_), Err(_)) => panic!("both are half-written: '{first}' and '{second}'"),
        }
    }
}

fn writers_go_on_after_a_snapshot(_: &State, kind: Kind, engine: &dyn VolumeEngine) {
    let folder = filled(engine, kind, "a", "before");
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    let failed = engine.ensure_snapshot(&snapshot("s", "a", Access::ReadWrite));
    assert!(failed.is_err());
    let started = Instant::now();
    fs::write(folder.join("file"), "after").unwrap();
    fs::File::open(folder.join("file")).unwrap().sync_all().unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(fs::metadata(folder.join("file")).unwrap().size(), 5);
}
