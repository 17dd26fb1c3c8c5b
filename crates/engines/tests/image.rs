//! What holds for the image engine alone: mounts and loop devices are recognised, never guessed, and never leaked, and
//! growths and freezes that were cut short are put right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};
use lvault_engines::{
    Access, Change, EngineError, Filesystem, ImageEngine, Recovered, Retry, VolumeEngine, VolumeInfo,
};
use rustix::fs::{FlockOperation, flock};
use support::{Kind, MIB, State, content, filled, id, mounts_below, root_or_skip, run, shell, snapshot};

const EXT4: Kind = Kind::Image(Filesystem::Ext4);
const XFS: Kind = Kind::Image(Filesystem::Xfs);

fn with_engine(test: impl FnOnce(&State, ImageEngine)) {
    if !root_or_skip("the image engine") {
        return;
    }
    let state = State::new();
    let engine = ImageEngine::open(state.path(), state.options.clone()).unwrap();
    test(&state, engine);
}

fn image(state: &State, name: &str) -> PathBuf {
    state.pool().join("volumes").join(name).join("image")
}

fn attached(engine: &ImageEngine, name: &str) -> Option<PathBuf> {
    engine.observe(&id(name)).unwrap().unwrap().attached
}

fn umount(point: &Path) {
    run("umount", &[point.as_os_str()]);
}

/// L20: a folder at the mount point, and a foreign filesystem there, are not the volume.
#[test]
fn what_is_at_the_mount_point_is_not_taken_for_the_volume() {
    with_engine(|state, engine| {
        let folder = filled(&engine, EXT4, "a", "kept");
        umount(&folder);
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(attached(&engine, "a"), None, "an empty folder");
        assert_eq!(engine.ensure_detached(&id("a")).unwrap(), Change::Unchanged);

        fs::create_dir_all(&folder).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "foreign"].map(OsStr::new).into_iter().chain([folder.as_os_str()]).collect::<Vec<_>>(),
        );
        assert_eq!(attached(&engine, "a"), None, "a foreign filesystem");
        let error = engine.ensure_attached(&id("a")).unwrap_err();
        assert!(matches!(error, EngineError::Foreign { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Never);
        assert_eq!(engine.ensure_detached(&id("a")).unwrap(), Change::Unchanged, "and left alone");
        assert_eq!(engine.recover().unwrap(), []);
        assert_eq!(mounts_below(&folder).len(), 1);
        umount(&folder);

        // An image of somebody else, mounted by a loop device as ours are.
        let foreign = state.path().join("foreign.ext4");
        fs::write(&foreign, "").unwrap();
        File::options().write(true).open(&foreign).unwrap().set_len(32 * MIB).unwrap();
        run("mkfs.ext4", &[OsStr::new("-q"), foreign.as_os_str()]);
        run("mount", &[OsStr::new("-o"), OsStr::new("loop"), foreign.as_os_str(), folder.as_os_str()]);
        assert_eq!(attached(&engine, "a"), None, "a foreign image");
        assert!(engine.ensure_attached(&id("a")).is_err());
        assert_eq!(engine.recover().unwrap(), []);
        umount(&folder);
        assert_eq!(content(&engine, "a"), "kept");
    });
}

#[test]
fn a_volume_that_is_mounted_elsewhere_is_not_removed() {
    with_engine(|state, engine| {
        let folder = filled(&engine, EXT4, "a", "kept");
        let elsewhere = state.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        run("mount", &[OsStr::new("--bind"), folder.as_os_str(), elsewhere.as_os_str()]);
        assert_eq!(engine.ensure_detached(&id("a")).unwrap(), Change::Changed);
        assert_eq!(attached(&engine, "a"), None);
        let error = engine.ensure_absent(&id("a")).unwrap_err();
        assert!(error.to_string().contains("elsewhere"), "{error}");
        // And a snapshot is cut frozen there too.
        fs::write(elsewhere.join("file"), "written elsewhere").unwrap();
        engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
        assert_eq!(content(&engine, "s"), "written elsewhere");
        umount(&elsewhere);
        assert_eq!(engine.ensure_absent(&id("a")).unwrap(), Change::Changed);
    });
}

#[test]
fn a_volume_deleted_by_hand_while_mounted_is_unmounted_by_recover_or_removal() {
    with_engine(|state, engine| {
        for (round, by_recover) in [("a", true), ("b", false)] {
            let folder = filled(&engine, EXT4, round, "lost");
            fs::remove_dir_all(state.pool().join("volumes").join(round)).unwrap();
            assert_eq!(engine.observe(&id(round)).unwrap(), None);
            if by_recover {
                assert_eq!(engine.recover().unwrap(), [Recovered::StaleMount(folder.clone())]);
            } else {
                engine.ensure_absent(&id(round)).unwrap();
            }
            assert_eq!(mounts_below(&folder), Vec::<PathBuf>::new());
            assert!(!folder.exists(), "the mount point is gone too");
            support::eventually("the loop device goes", Duration::from_secs(2), || state.loops().len() == 1);
        }
        // A new volume under the name of one whose mount is still there.
        let folder = filled(&engine, EXT4, "c", "lost");
        fs::remove_dir_all(state.pool().join("volumes/c")).unwrap();
        engine.ensure_volume(&EXT4.volume("c")).unwrap();
        assert_eq!(attached(&engine, "c"), None, "the former volume is mounted, not this one");
        assert_eq!(engine.ensure_attached(&id("c")).unwrap(), folder);
        assert!(!folder.join("file").exists(), "the new one is empty");
        assert_eq!(mounts_below(&folder).len(), 1);
    });
}

#[test]
fn a_damaged_filesystem_fails_finally_and_leaves_no_loop_device() {
    with_engine(|state, engine| {
        engine.ensure_volume(&EXT4.volume("a")).unwrap();
        let file = File::options().write(true).open(image(state, "a")).unwrap();
        file.write_all_at(&[0; 65536], 0).unwrap();
        let error = engine.ensure_attached(&id("a")).unwrap_err();
        assert!(matches!(error, EngineError::Tool { program: "mount", .. }), "{error}");
        assert_eq!(error.retry(), Retry::Never, "{error}");
        assert!(error.to_string().contains("volume a"), "{error}");
        support::eventually("no loop device is left", Duration::from_secs(2), || state.loops().len() == 1);
        assert_eq!(state.mounts(), [state.pool()]);
        let grow = engine.ensure_size(&id("a"), Bytes(100 * MIB)).unwrap_err();
        assert!(grow.to_string().contains("e2fsck"), "{grow}");
        assert_eq!(engine.ensure_absent(&id("a")).unwrap(), Change::Changed, "it can still be removed");
    });
}

#[test]
fn a_volume_with_a_damaged_record_says_so_and_can_be_removed() {
    with_engine(|state, engine| {
        engine.ensure_volume(&EXT4.volume("a")).unwrap();
        engine.ensure_volume(&EXT4.volume("b")).unwrap();
        fs::write(state.pool().join("volumes/a/meta.json"), "{\"version\":").unwrap();
        let error = engine.observe(&id("a")).unwrap_err();
        assert!(error.to_string().contains("volumes/a/meta.json"), "{error}");
        assert!(engine.ensure_volume(&EXT4.volume("a")).is_err(), "not made anew over it");
        assert_eq!(engine.list().unwrap().len(), 1);
        assert_eq!(engine.ensure_absent(&id("a")).unwrap(), Change::Changed);
        assert_eq!(engine.observe(&id("a")).unwrap(), None);
    });
}

#[test]
fn a_busy_volume_names_who_uses_it_and_goes_once_they_are_done() {
    with_engine(|_, engine| {
        let folder = filled(&engine, EXT4, "a", "open");
        let open = File::open(folder.join("file")).unwrap();
        let error = engine.ensure_detached(&id("a")).unwrap_err();
        assert_eq!(error.retry(), Retry::Later);
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(attached(&engine, "a"), Some(folder));
        drop(open);
        assert_eq!(engine.ensure_detached(&id("a")).unwrap(), Change::Changed);
    });
}

/// A reboot takes all mounts and loop devices away, and a crash of the machine the marks of what was going on.
#[test]
fn after_a_reboot_everything_is_attached_again() {
    with_engine(|state, engine| {
        let folder = filled(&engine, EXT4, "a", "kept");
        filled(&engine, XFS, "x", "kept too");
        engine.ensure_snapshot(&snapshot("s", "x", Access::ReadOnly)).unwrap();
        engine.ensure_attached(&id("s")).unwrap();
        let before = engine.list().unwrap();
        for mount in state.mounts().iter().rev() {
            umount(mount);
        }
        let gone = engine.observe(&id("a")).unwrap_err();
        assert!(matches!(gone, EngineError::PoolGone { .. }), "an unmounted pool is not an empty one: {gone}");
        assert!(engine.list().is_err() && engine.capacity().is_err() && engine.ensure_absent(&id("a")).is_err());
        assert!(engine.ensure_volume(&EXT4.volume("new")).is_err());
        assert_eq!(engine.recover().unwrap(), [Recovered::PoolMounted(state.pool())]);

        umount(&state.pool());
        let engine = ImageEngine::open(state.path(), state.options.clone()).unwrap();
        let after = engine.list().unwrap();
        assert!(after.iter().all(|volume| volume.attached.is_none()), "{after:?}");
        assert_eq!(engine.ensure_attached(&id("a")).unwrap(), folder);
        for (name, held) in [("a", "kept"), ("x", "kept too"), ("s", "kept too")] {
            assert_eq!(content(&engine, name), held);
        }
        // What is allocated beyond the end of a file that is being written goes away with the unmount.
        let known = |volumes: Vec<VolumeInfo>| {
            volumes.into_iter().map(|it| VolumeInfo { used: None, ..it }).collect::<Vec<_>>()
        };
        assert_eq!(known(engine.list().unwrap()), known(before));
    });
}

#[test]
fn a_loop_device_left_by_hand_is_released_by_recover_and_by_removal() {
    with_engine(|state, engine| {
        let attach = |name: &str| {
            engine.ensure_volume(&EXT4.volume(name)).unwrap();
            run("losetup", &[OsStr::new("--find"), image(state, name).as_os_str()]);
        };
        attach("a");
        let recovered = engine.recover().unwrap();
        assert!(matches!(recovered.as_slice(), [Recovered::StaleLoop(_)]), "{recovered:?}");
        support::eventually("it is gone", Duration::from_secs(2), || state.loops().len() == 1);
        attach("b");
        engine.ensure_absent(&id("b")).unwrap();
        assert_eq!(state.loops().len(), 1, "only the pool's is left");
    });
}

/// A tool that outlives a killed agent holds the volume's lock as its stdin.
#[test]
fn a_tool_of_a_former_run_keeps_others_away() {
    with_engine(|state, engine| {
        engine.ensure_volume(&EXT4.volume("a")).unwrap();
        let lock = File::options().write(true).read(true).open(state.pool().join("volumes/a/lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut tool = shell("exec sleep 30").stdin(lock.try_clone().unwrap()).spawn().unwrap();
        drop(lock);
        let larger = Bytes(100 * MIB);
        for outcome in [
            engine.ensure_attached(&id("a")).map(|_| ()),
            engine.ensure_size(&id("a"), larger).map(|_| ()),
            engine.ensure_absent(&id("a")).map(|_| ()),
            engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).map(|_| ()),
        ] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, EngineError::Busy { .. }), "{error}");
        }
        tool.kill().unwrap();
        tool.wait().unwrap();
        assert_eq!(engine.ensure_size(&id("a"), larger).unwrap(), Change::Changed);
    });
}

#[test]
fn growth_that_was_cut_short_is_finished_by_a_repeat() {
    with_engine(|state, engine| {
        for kind in [EXT4, XFS] {
            let name = kind.filesystem().unwrap().name();
            let size = |folder: &Path| rustix::fs::statvfs(folder).map(|room| room.f_blocks * room.f_frsize).unwrap();
            let before = size(&filled(&engine, kind, name, "kept"));
            engine.ensure_detached(&id(name)).unwrap();
            // As a crash leaves it after the image was lengthened.
            let target = kind.size().0 + 100 * MIB;
            let path = state.pool().join("volumes").join(name).join("meta.json");
            let record = fs::read_to_string(&path).unwrap();
            fs::write(&path, record.replacen('}', &format!(",\"growingTo\":{target}}}"), 1)).unwrap();
            File::options().write(true).open(image(state, name)).unwrap().set_len(target).unwrap();
            assert_eq!(engine.observe(&id(name)).unwrap().unwrap().size, kind.size(), "not before it is done");
            let wanted = Bytes(kind.size().0 + MIB);
            assert_eq!(engine.ensure_size(&id(name), wanted).unwrap(), Change::Changed);
            assert_eq!(engine.observe(&id(name)).unwrap().unwrap().size, Bytes(target), "it is not taken back");
            let folder = engine.ensure_attached(&id(name)).unwrap();
            assert!(size(&folder) > before + 90 * MIB, "{} of {before}", size(&folder));
            assert_eq!(content(&engine, name), "kept");
        }
    });
}

/// Snapshots of snapshots, clones of clones and their source, all attached at once: XFS knows each by the same UUID.
#[test]
fn a_whole_family_is_attached_at_once() {
    with_engine(|_, engine| {
        for kind in [EXT4, XFS] {
            let name = |suffix: &str| format!("{}-{suffix}", kind.filesystem().unwrap().name());
            filled(&engine, kind, &name("source"), "kept");
            for (new, of, access) in [
                ("snapshot", "source", Access::ReadOnly),
                ("clone", "source", Access::ReadWrite),
                ("clone-of-snapshot", "snapshot", Access::ReadWrite),
                ("snapshot-of-clone", "clone-of-snapshot", Access::ReadOnly),
            ] {
                engine.ensure_snapshot(&snapshot(&name(new), &name(of), access)).unwrap();
                assert_eq!(content(&engine, &name(new)), "kept");
            }
        }
        let attached: Vec<VolumeId> = engine
            .list()
            .unwrap()
            .into_iter()
            .filter(|volume| volume.attached.is_some())
            .map(|volume| volume.id)
            .collect();
        assert_eq!(attached.len(), 10, "{attached:?}");
    });
}

fn fsfreeze(flag: &str, point: &Path) {
    run("fsfreeze", &[OsStr::new(flag), point.as_os_str()]);
}

/// Both the agent and its guard were killed: only the note in the volume's folder says that the freeze is ours.
#[test]
fn recover_thaws_what_it_has_frozen_and_nothing_else() {
    with_engine(|state, engine| {
        let folder = filled(&engine, EXT4, "a", "kept");
        let note = state.pool().join("volumes/a/frozen");
        fs::write(&note, "").unwrap();
        fsfreeze("--freeze", &folder);
        assert_eq!(engine.recover().unwrap(), [Recovered::Thawed(id("a"))]);
        fs::write(folder.join("file"), "after").unwrap();
        assert!(!note.exists());

        fsfreeze("--freeze", &folder);
        assert_eq!(engine.recover().unwrap(), [], "somebody else's freeze");
        fsfreeze("--unfreeze", &folder);
        // A note without a freeze: the guard has thawed before it died.
        fs::write(&note, "").unwrap();
        assert_eq!(engine.recover().unwrap(), []);
        assert!(!note.exists());
    });
}

#[test]
fn a_source_frozen_by_somebody_else_gives_no_snapshot_now_and_leaves_nothing() {
    with_engine(|state, engine| {
        let folder = filled(&engine, EXT4, "a", "kept");
        fsfreeze("--freeze", &folder);
        // Writing out a frozen filesystem waits for nothing: it is clean.
        let error = engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap_err();
        assert!(matches!(error, EngineError::Freeze { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!((engine.observe(&id("s")).unwrap(), state.hidden()), (None, Vec::new()));
        fsfreeze("--unfreeze", &folder);
        assert_eq!(engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap(), Change::Changed);
    });
}

/// The machine crashed, and what was written last stands in the source's journal only.
#[test]
fn a_snapshot_of_a_source_that_was_never_unmounted_is_recovered_and_the_source_untouched() {
    with_engine(|state, engine| {
        for kind in [EXT4, XFS] {
            let name = kind.filesystem().unwrap().name();
            let folder = filled(&engine, kind, name, "first");
            fs::create_dir(folder.join("latest")).unwrap();
            fs::write(folder.join("latest/file"), "in the journal").unwrap();
            for name in ["file", "latest/file"] {
                File::open(folder.join(name)).unwrap().sync_all().unwrap();
            }
            let (live, crashed) = (image(state, name), state.pool().join(format!("crashed-{name}")));
            run("cp", &[OsStr::new("--reflink=always"), live.as_os_str(), crashed.as_os_str()]);
            engine.ensure_detached(&id(name)).unwrap();
            run("cp", &[OsStr::new("--reflink=always"), crashed.as_os_str(), live.as_os_str()]);

            let cut = format!("{name}-cut");
            engine.ensure_snapshot(&snapshot(&cut, name, Access::ReadOnly)).unwrap();
            let folder = engine.ensure_attached(&id(&cut)).unwrap();
            assert_eq!(fs::read_to_string(folder.join("latest/file")).unwrap(), "in the journal", "{name}");
            run("cmp", &[crashed.as_os_str(), live.as_os_str()]);
            assert_eq!(content(&engine, name), "first");
        }
    });
}

/// Without the note, nobody would know after a crash that the freeze is ours.
#[test]
fn a_freeze_is_noted_before_it_begins_and_no_longer_than_it_lasts() {
    with_engine(|state, engine| {
        filled(&engine, EXT4, "a", "kept");
        let note = state.pool().join("volumes/a/frozen");
        let done = std::sync::atomic::AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut seen = false;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    seen |= note.exists();
                    std::thread::sleep(Duration::from_micros(200));
                }
                seen
            });
            let cuts: Vec<_> = (0..5)
                .map(|round| {
                    let cut = engine.ensure_snapshot(&snapshot(&format!("s-{round}"), "a", Access::ReadOnly));
                    (cut.ok(), note.exists())
                })
                .collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(cuts, [(Some(Change::Changed), false); 5]);
            watcher.join().unwrap()
        });
        assert!(seen);
    });
}
