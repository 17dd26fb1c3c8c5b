//! The pool of the image engine: its room is not promised twice, it is made where it is needed, and given back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod support;

use std::fs::{self, File};
use std::time::Duration;

use lvault_core::Bytes;
use lvault_engines::{Access, Change, EngineError, Filesystem, ImageEngine, NewVolume, Options, Retry, VolumeEngine};
use support::{Kind, MIB, State, content, filled, id, remove, root_or_skip, snapshot};

const EXT4: Kind = Kind::Image(Filesystem::Ext4);

fn with_engine(test: impl FnOnce(&State, ImageEngine)) {
    with_options(|_| {}, test);
}

fn with_options(set: impl FnOnce(&mut Options), test: impl FnOnce(&State, ImageEngine)) {
    if !root_or_skip("the image engine") {
        return;
    }
    let mut state = State::new();
    set(&mut state.options);
    let engine = ImageEngine::open(state.path(), state.options.clone()).unwrap();
    test(&state, engine);
}

#[test]
fn volumes_promise_no_more_than_the_pool_has() {
    with_options(
        |options| options.pool_size = Some(Bytes(600 * MIB)),
        |_, engine| {
            let sized = |name: &str, size: u64| NewVolume { size: Bytes(size), ..EXT4.volume(name) };
            let before = engine.capacity().unwrap();
            assert!(before.available.0 > 400 * MIB && before.total.0 <= 600 * MIB, "{before:?}");
            engine.ensure_volume(&sized("a", 300 * MIB)).unwrap();
            let after = engine.capacity().unwrap();
            assert!(
                after.available.0 <= before.available.0 - 300 * MIB,
                "a sparse image is promised in full: {after:?}"
            );
            let error = engine.ensure_volume(&sized("b", 300 * MIB)).unwrap_err();
            let EngineError::NoSpace { asked, available, .. } = error else { panic!("{error}") };
            assert_eq!((asked, available), (Bytes(300 * MIB), after.available));
            assert!(engine.ensure_size(&id("a"), Bytes(600 * MIB)).is_err());
            // A snapshot promises nothing; a clone does.
            engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
            assert!(engine.ensure_snapshot(&snapshot("c", "a", Access::ReadWrite)).is_err());
            engine.ensure_volume(&sized("b", after.available.0 - 16 * MIB)).unwrap();
            assert_eq!(engine.list().unwrap().len(), 3);
            for name in ["a", "b", "s"] {
                remove(&engine, name);
            }
            // XFS frees what was removed a little later.
            support::eventually("all is free again", Duration::from_secs(5), || {
                engine.capacity().unwrap().available.0 + 8 * MIB > before.available.0
            });
        },
    );
}

/// Each of two requests would fit alone.
#[test]
fn two_at_once_do_not_get_the_same_room() {
    with_options(
        |options| options.pool_size = Some(Bytes(600 * MIB)),
        |_, engine| {
            for round in 0..5 {
                let names = [format!("a-{round}"), format!("b-{round}")];
                let made = std::thread::scope(|scope| {
                    let threads = names.each_ref().map(|name| {
                        let engine = &engine;
                        scope.spawn(move || {
                            engine.ensure_volume(&NewVolume { size: Bytes(320 * MIB), ..EXT4.volume(name) }).is_ok()
                        })
                    });
                    threads.map(|thread| thread.join().unwrap())
                });
                assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
                names.iter().for_each(|name| remove(&engine, name));
            }
        },
    );
}

#[test]
fn a_nearly_full_pool_takes_no_more_snapshots() {
    with_options(
        |options| options.pool_size = Some(Bytes(400 * MIB)),
        |state, engine| {
            filled(&engine, EXT4, "a", "kept");
            let fill = File::create(state.pool().join("fill")).unwrap();
            let room = rustix::fs::fstatvfs(&fill).unwrap();
            let length = room.f_bavail * room.f_frsize - 20 * MIB;
            rustix::fs::fallocate(&fill, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
            let error = engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap_err();
            assert!(matches!(error, EngineError::PoolNearlyFull { .. }), "{error}");
            assert_eq!(error.retry(), Retry::Never);
            drop(fill);
            fs::remove_file(state.pool().join("fill")).unwrap();
            assert_eq!(engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap(), Change::Changed);
        },
    );
}

#[test]
fn the_pool_is_given_back_only_when_nothing_uses_it() {
    with_engine(|state, engine| {
        filled(&engine, EXT4, "a", "kept");
        let error = engine.ensure_closed().unwrap_err();
        assert!(matches!(error, EngineError::Busy { .. }), "{error}");
        assert_eq!(content(&engine, "a"), "kept");
        engine.ensure_detached(&id("a")).unwrap();
        assert_eq!(engine.ensure_closed().unwrap(), Change::Changed);
        assert_eq!(engine.ensure_closed().unwrap(), Change::Unchanged);
        assert_eq!((state.mounts(), state.loops()), (Vec::new(), Vec::new()));
        assert!(matches!(engine.list().unwrap_err(), EngineError::PoolGone { .. }));
        engine.recover().unwrap();
        assert_eq!(content(&engine, "a"), "kept");
    });
}

#[test]
fn a_pool_that_cannot_be_made_says_why_and_leaves_nothing() {
    if !root_or_skip("the image engine") {
        return;
    }
    for (size, says) in [(100 * MIB, "300 MiB"), (u64::MAX, "does not fit")] {
        let state = State::new();
        let options = Options { pool_size: Some(Bytes(size)), ..Options::default() };
        let error = ImageEngine::open(state.path(), options).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!state.path().join("pool.xfs").exists());
    }
}

/// On a filesystem that can share blocks, no pool is made in it: here, on another engine's pool.
#[test]
fn a_filesystem_with_reflinks_is_the_pool_itself() {
    with_engine(|state, _engine| {
        let inner = state.pool().join("inner");
        let engine = ImageEngine::open(&inner, state.options.clone()).unwrap();
        assert!(!inner.join("pool.xfs").exists());
        filled(&engine, EXT4, "a", "kept");
        engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
        assert_eq!(content(&engine, "s"), "kept");
        assert!(engine.ensure_closed().is_err());
        let again = ImageEngine::open(&inner, state.options.clone()).unwrap();
        assert_eq!(again.recover().unwrap(), []);
        for name in ["a", "s"] {
            remove(&again, name);
        }
        assert_eq!(again.ensure_closed().unwrap(), Change::Unchanged);
    });
}
