//! A disk that comes and goes beneath the volume group (dm-flakey): whatever is asked of the engine meanwhile ends as done
//! or with an error that says who complained, nothing half-made is shown, and once the disk is back a repeat does it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]
#![expect(clippy::disallowed_methods, reason = "tests look at the machine with its own programs")]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lvault_core::Bytes;
use lvault_engines::{Access, EngineError, Filesystem, LvmEngine, VolumeEngine};
use support::disk::{BadDisk, Down};
use support::lvm::{Layout, device_mapper_or_skip, run_in_guest};
use support::{Kind, MIB, State, content, filled, id, run, snapshot};

#[test]
fn in_guest_lvm_flakey() {
    run_in_guest("on_lvm::");
}

/// Where the disk begins to fail: everywhere, or behind LVM's own records, which lie in its first MiB.
const ALL: u64 = 0;
const DATA: u64 = 2048;

/// What is asked of the engine, in this order.
const OPERATIONS: [Operation; 5] =
    [Operation::Create, Operation::Grow, Operation::Attach, Operation::Snapshot, Operation::Remove];
/// What LVM itself can do once more on a disk that has lied to it. Of a thick snapshot it says that a person is needed.
const AFTER_LIES: [Operation; 4] = [Operation::Create, Operation::Grow, Operation::Attach, Operation::Remove];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// Of `b`, which is not there.
    Create,
    /// Of `a`, which is attached.
    Grow,
    /// Of `c`, which is not attached.
    Attach,
    /// Of `a`, as `s`.
    Snapshot,
    /// Of `d`, which is not attached.
    Remove,
}

/// A volume group on a disk that can fail, and the volumes that the operations are about.
struct Ground {
    engine: LvmEngine,
    state: State,
    disk: BadDisk,
    _folder: tempfile::TempDir,
    kind: Kind,
}

impl Ground {
    fn new(layout: Layout) -> Ground {
        let folder = tempfile::tempdir().unwrap();
        let disk = BadDisk::new(folder.path());
        let state = State::new();
        let engine = state.open_lvm_on(&disk.path(), layout, "600m").unwrap();
        let kind = Kind::Lvm(layout, Filesystem::Ext4);
        filled(&engine, kind, "a", "kept");
        for name in ["c", "d"] {
            filled(&engine, kind, name, "kept");
            engine.ensure_detached(&id(name)).unwrap();
        }
        run("sync", &[]);
        Ground { engine, state, disk, _folder: folder, kind }
    }

    fn is_thin(&self) -> bool {
        matches!(self.kind, Kind::Lvm(Layout::Thin, _))
    }

    fn larger(&self) -> Bytes {
        Bytes(self.kind.size().0 + 32 * MIB)
    }

    fn perform(&self, operation: Operation) -> Result<(), EngineError> {
        match operation {
            Operation::Create => self.engine.ensure_volume(&self.kind.volume("b")).map(drop),
            Operation::Grow => self.engine.ensure_size(&id("a"), self.larger()).map(drop),
            Operation::Attach => self.engine.ensure_attached(&id("c")).map(drop),
            Operation::Snapshot => self.engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).map(drop),
            Operation::Remove => self.engine.ensure_absent(&id("d")).map(drop),
        }
    }

    /// Whether the engine shows it as done.
    fn shows(&self, operation: Operation) -> Result<bool, EngineError> {
        let there = |name: &str| self.engine.observe(&id(name));
        Ok(match operation {
            Operation::Create => there("b")?.is_some(),
            Operation::Grow => there("a")?.is_some_and(|a| a.size >= self.larger()),
            Operation::Attach => there("c")?.is_some_and(|c| c.attached.is_some()),
            Operation::Snapshot => there("s")?.is_some(),
            Operation::Remove => there("d")?.is_none(),
        })
    }

    /// What was done is whole: read from the disk, not from what the kernel remembers.
    fn check(&self, operation: Operation) {
        let engine = &self.engine;
        match operation {
            Operation::Create => {
                let folder = engine.ensure_attached(&id("b")).unwrap();
                fs::write(folder.join("file"), "written").unwrap();
                engine.ensure_detached(&id("b")).unwrap();
                let device = self.state.with_group(|group| group.device("b"));
                let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&device).output().unwrap();
                assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
                assert_eq!(content(engine, "b"), "written");
            }
            Operation::Grow => {
                let folder = engine.ensure_attached(&id("a")).unwrap();
                let space = rustix::fs::statvfs(&folder).unwrap();
                assert!(space.f_blocks * space.f_frsize > self.kind.size().0, "the filesystem has not grown");
            }
            Operation::Attach => assert_eq!(content(engine, "c"), "kept"),
            Operation::Snapshot => {
                assert_eq!(content(engine, "s"), "kept");
                engine.ensure_detached(&id("s")).unwrap();
            }
            Operation::Remove => {
                let names =
                    self.state.with_group(|group| group.lvm(&["lvs", "--noheadings", "-o", "lv_name", &group.name]));
                assert!(!names.split_whitespace().any(|name| name == "d"), "{names}");
            }
        }
    }

    /// The disk is back. What the kernel has given up meanwhile is given back as its administrator does: a filesystem by
    /// mounting it anew, a pool by making it active anew.
    fn is_back(&self) {
        self.disk.works();
        self.engine.recover().unwrap();
        for name in ["s", "c", "b", "a"] {
            self.engine.ensure_detached(&id(name)).unwrap();
        }
        self.state.with_group(|group| {
            if self.is_thin() {
                group.lvm(&["vgchange", "-q", "-an", &group.name]);
                group.lvm(&["vgchange", "-q", "-ay", &group.name]);
            }
            // The kernel lets an ext4 that has met errors grow only once it was checked.
            let checked = Command::new("e2fsck").args(["-f", "-p"]).arg(group.device("a")).output().unwrap();
            assert!(checked.status.code().is_some_and(|code| code <= 1), "{checked:?}");
        });
        self.engine.recover().unwrap();
        assert_eq!(content(&self.engine, "a"), "kept");
    }

    /// Says who complains: the disk, a volume on it, or the words of a tool that was run.
    fn check_error(&self, error: &EngineError, what: &str) {
        let mut said = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            said = format!("{said}: {next}");
            cause = next.source();
        }
        let group = self.state.with_group(|group| group.name.clone());
        let named = [self.disk.path().display().to_string(), group.clone(), group.replace('-', "--")];
        let by_tool = said.contains(" said: ");
        assert!(by_tool || named.iter().any(|name| said.contains(name)), "{what}: it names no device: {said}");
        println!("{what}: {said}");
    }
}

fn each_operation(layout: Layout, how: Down, from: u64, operations: &[Operation], all_fail: bool) {
    if !device_mapper_or_skip() {
        return;
    }
    let ground = Ground::new(layout);
    for &operation in operations {
        let what = format!("{layout:?}, {how:?} from {from}, {operation:?}");
        ground.disk.comes_and_goes_from(from, 0, 3600, how);
        let outcome = ground.perform(operation);
        let shown = ground.shows(operation);
        match &outcome {
            Ok(()) => println!("{what}: done"),
            Err(error) => ground.check_error(error, &what),
        }
        if let Err(error) = &shown {
            ground.check_error(error, &format!("{what}, the look after it"));
        }
        let changes_the_disk = operation != Operation::Attach;
        assert!(outcome.is_err() || !(all_fail && changes_the_disk), "{what}: it says that it is done");
        // What could not be told to the pool is told to it later: a removal may fail after its volume has gone.
        let half_made = outcome.is_err() && matches!(shown, Ok(true)) && operation != Operation::Remove;
        assert!(!half_made, "{what}: it failed, and is shown as done: {outcome:?}");
        ground.is_back();
        if matches!((&outcome, &shown), (Ok(()), Ok(true))) && changes_the_disk {
            assert!(ground.shows(operation).unwrap(), "{what}: it was shown as done, and is not");
            ground.check(operation);
        }
        ground.perform(operation).unwrap_or_else(|error| panic!("{what}: not done by a repeat: {error}"));
        assert!(ground.shows(operation).unwrap(), "{what}: not there after a repeat");
        ground.check(operation);
    }
}

mod on_lvm {
    use super::*;

    #[test]
    fn thick_on_a_disk_that_is_away() {
        each_operation(Layout::Thick, Down::Everything, ALL, &OPERATIONS, true);
    }

    #[test]
    fn thin_on_a_disk_that_is_away() {
        each_operation(Layout::Thin, Down::Everything, ALL, &OPERATIONS, true);
    }

    #[test]
    fn thin_on_a_disk_that_loses_its_data() {
        each_operation(Layout::Thin, Down::Everything, DATA, &OPERATIONS, false);
    }

    #[test]
    fn thick_on_a_disk_that_cannot_be_written() {
        each_operation(Layout::Thick, Down::Writes, ALL, &OPERATIONS, true);
    }

    #[test]
    fn thick_on_a_disk_that_lies() {
        each_operation(Layout::Thick, Down::Lies, ALL, &AFTER_LIES, false);
    }

    #[test]
    fn thick_on_a_disk_that_lies_about_data() {
        each_operation(Layout::Thick, Down::Lies, DATA, &AFTER_LIES, false);
    }

    /// A second of work, a second of errors: whatever is done at last is whole.
    #[test]
    fn what_is_repeated_through_intervals_gets_done() {
        if !device_mapper_or_skip() {
            return;
        }
        let ground = Ground::new(Layout::Thick);
        let mut errors = 0;
        ground.disk.comes_and_goes_from(ALL, 1, 1, Down::Everything);
        for operation in [Operation::Create, Operation::Attach, Operation::Remove] {
            let began = Instant::now();
            while let Err(error) = ground.perform(operation) {
                errors += 1;
                ground.check_error(&error, &format!("{operation:?}"));
                assert!(began.elapsed() < Duration::from_secs(60), "{operation:?} never got through");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        println!("{errors} errors on the way");
        ground.is_back();
        for operation in [Operation::Create, Operation::Attach, Operation::Remove] {
            ground.perform(operation).unwrap();
            ground.check(operation);
        }
    }
}
