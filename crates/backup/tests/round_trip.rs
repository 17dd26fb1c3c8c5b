//! Everything that goes in comes out again: through this crate's restore, and through plain restic's.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{Key, Progress, RestoreError, Silent, SnapshotId, Step, VerifyDepth};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use support::{Bench, Entry, fill_with_everything, inventory, noise, restic, set_mode, set_time, write};

#[test]
fn every_kind_of_file_survives() {
    let bench = Bench::new();
    fill_with_everything(&bench.volume());
    let before = inventory(&bench.volume());
    let repository = bench.repository();
    let report = bench.back_up(&repository, "all", 1).unwrap();
    assert_eq!(inventory(&bench.volume()), before, "the backup changed the volume");
    let verified = repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert!(verified.bytes > 3 << 20 && verified.trees > 10, "{verified:?}");

    let target = bench.empty("target");
    let restored = repository.restore(&report.snapshot, &target, &Silent).unwrap();
    assert!(!restored.was_complete);
    assert_same(&before, &inventory(&target));
    assert_eq!(restored.size.files, report.files);
    assert_eq!(restored.size.folders + 1, report.folders);
    for sparse in ["contents/all hole", "contents/sparse"] {
        let stat = std::fs::metadata(target.join(sparse)).unwrap();
        assert!(stat.blocks() * 512 < stat.len() / 4, "{sparse} takes {} blocks", stat.blocks());
    }

    bench.assert_restic_is_content();
    assert_restic_restores_the_same(&bench, &report.snapshot, before);
}

fn assert_same(expected: &BTreeMap<std::path::PathBuf, Entry>, found: &BTreeMap<std::path::PathBuf, Entry>) {
    for (path, entry) in expected {
        assert_eq!(found.get(path), Some(entry), "{path:?}");
    }
    assert_eq!(expected.len(), found.len(), "there is more than there was");
}

/// restic 0.14 restores no sockets and no link targets that are not UTF-8; everything else has to be the same.
fn assert_restic_restores_the_same(
    bench: &Bench,
    snapshot: &SnapshotId,
    mut expected: BTreeMap<std::path::PathBuf, Entry>,
) {
    let target = bench.empty("by restic");
    let output =
        restic(&bench.repository_folder(), &["restore", snapshot.as_str(), "--target", target.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let mut found = inventory(&target.join("data"));
    for lost in ["links/socket", "links/odd target"] {
        expected.remove(Path::new(lost)).unwrap();
        found.remove(Path::new(lost));
    }
    assert_same(&expected, &found);
}

#[test]
fn paths_longer_than_the_kernel_takes_survive() {
    let bench = Bench::new();
    let name = "d".repeat(200);
    let mut folder = std::fs::File::open(bench.volume()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&folder, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        folder = rustix::fs::openat(&folder, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let mode = rustix::fs::Mode::RUSR;
    let bottom: std::fs::File = rustix::fs::openat(&folder, "bottom", flags, mode).unwrap().into();
    std::os::unix::fs::FileExt::write_all_at(&bottom, b"down here", 0).unwrap();
    drop((folder, bottom));

    let repository = bench.repository();
    let report = bench.back_up(&repository, "deep", 1).unwrap();
    assert_eq!((report.files, report.folders), (1, 41));
    let restored = repository.restore(&report.snapshot, &bench.empty("target"), &Silent).unwrap();
    assert_eq!((restored.size.files, restored.size.folders, restored.size.bytes), (1, 40, 9));
}

#[test]
fn an_empty_volume_is_a_snapshot_of_its_root() {
    let bench = Bench::new();
    set_mode(&bench.volume(), 0o751);
    set_time(&bench.volume(), 12, 34);
    let repository = bench.repository();
    let report = bench.back_up(&repository, "empty", 1).unwrap();
    assert_eq!((report.files, report.folders, report.total_bytes), (0, 1, 0));
    let target = bench.empty("target");
    repository.restore(&report.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
    bench.assert_restic_is_content();
}

#[test]
fn a_restore_takes_only_an_empty_target_or_its_own_remains() {
    let bench = Bench::new();
    std::fs::create_dir(bench.volume().join("inner")).unwrap();
    write(bench.volume().join("inner/file"), "content");
    write(bench.volume().join("other"), "more");
    let repository = bench.repository();
    let snapshot = bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let original = inventory(&bench.volume());

    let foreign = bench.empty("foreign");
    write(foreign.join("precious"), "data");
    let err = repository.restore(&snapshot, &foreign, &Silent).unwrap_err();
    assert!(matches!(&err, RestoreError::NotEmpty { found, .. } if found == "precious"), "{err}");
    assert_eq!(std::fs::read(foreign.join("precious")).unwrap(), b"data");

    let target = bench.empty("target");
    std::fs::create_dir(target.join("lost+found")).unwrap();
    repository.restore(&snapshot, &target, &Silent).unwrap();
    std::fs::remove_dir(target.join("lost+found")).unwrap();
    set_time_like(&target, &bench.volume());
    assert_eq!(inventory(&target), original);

    let again = repository.restore(&snapshot, &target, &Silent).unwrap();
    assert!(again.was_complete);
    write(target.join("inner/file"), "c0ntent");
    let err = repository.restore(&snapshot, &target, &Silent).unwrap_err();
    assert!(matches!(err, RestoreError::NotEmpty { .. }), "{err}");

    // What a restore leaves that was killed in the middle.
    let cut_off = bench.empty("cut off");
    write(cut_off.join(format!(".lvault-restoring-{snapshot}")), "");
    std::fs::create_dir(cut_off.join("inner")).unwrap();
    write(cut_off.join("inner/file"), "con");
    repository.restore(&snapshot, &cut_off, &Silent).unwrap();
    assert_eq!(inventory(&cut_off), original);

    let err = repository.restore(&snapshot, &bench.folder.path().join("nowhere"), &Silent).unwrap_err();
    assert!(matches!(err, RestoreError::Target { .. }), "{err}");
}

fn set_time_like(path: &Path, other: &Path) {
    let stat = std::fs::metadata(other).unwrap();
    set_time(path, stat.mtime(), stat.mtime_nsec());
}

#[test]
fn a_snapshot_of_plain_restic_is_restored_too() {
    let bench = Bench::new();
    write(bench.volume().join("file"), "by restic");
    let repository = bench.repository();
    let volume = bench.volume();
    let output = restic(&bench.repository_folder(), &["backup", volume.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let snapshots = repository.snapshots().unwrap();
    let [snapshot] = snapshots.as_slice() else { panic!("{snapshots:?}") };
    assert_eq!(snapshot.key, None);
    let target = bench.empty("target");
    repository.restore(&snapshot.id, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&volume));
    assert_eq!(repository.find(&Key::new("x", 1).unwrap()).unwrap(), None);
}

#[derive(Default)]
struct Counts {
    steps: Mutex<Vec<Step>>,
    total: Mutex<(u64, u64)>,
    bytes: AtomicU64,
    files: AtomicU64,
}

impl Progress for Counts {
    fn step(&self, step: Step) {
        self.steps.lock().unwrap().push(step);
        self.bytes.store(0, Ordering::Relaxed);
        self.files.store(0, Ordering::Relaxed);
    }
    fn total(&self, bytes: u64, files: u64) {
        *self.total.lock().unwrap() = (bytes, files);
    }
    fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn file_done(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn progress_adds_up_to_the_total() {
    let bench = Bench::new();
    for number in 0..20 {
        write(bench.volume().join(number.to_string()), noise(number, 50_000));
    }
    std::os::unix::fs::symlink("0", bench.volume().join("link")).unwrap();
    let repository = bench.repository();
    let mut snapshot = None;
    for attempt in 1..=2 {
        let counts = Arc::new(Counts::default());
        let report = repository.back_up(&bench.what("p", attempt), counts.clone()).unwrap();
        assert_eq!(counts.bytes.load(Ordering::Relaxed), 1_000_000, "attempt {attempt}");
        assert_eq!(counts.files.load(Ordering::Relaxed), 21, "attempt {attempt}");
        assert_eq!(*counts.total.lock().unwrap(), (1_000_000, 21), "attempt {attempt}");
        snapshot = Some(report.snapshot);
    }
    let counts = Counts::default();
    repository.restore(&snapshot.unwrap(), &bench.empty("target"), &counts).unwrap();
    assert_eq!(counts.bytes.load(Ordering::Relaxed), 1_000_000);
    assert_eq!(counts.files.load(Ordering::Relaxed), 21);
    assert_eq!(*counts.steps.lock().unwrap(), [Step::Restoring, Step::Verifying]);
}

/// One file of a snapshot goes onto a file or a device that holds something similar: only what differs is written.
#[test]
fn a_file_is_restored_in_place() {
    let bench = Bench::new();
    let mut image = noise(1, 40 << 20);
    image[3 << 20..20 << 20].fill(0);
    image.extend_from_slice(b"and an odd end");
    std::fs::create_dir(bench.volume().join("images")).unwrap();
    write(bench.volume().join("images/disk"), &image);
    let repository = bench.repository();
    let snapshot = bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let size = image.len() as u64;
    let target = bench.folder.path().join("disk");
    let restore = |target: &Path| repository.restore_file(&snapshot, Path::new("images/disk"), target, &Silent);

    let report = restore(&target).unwrap();
    assert_eq!((report.bytes, report.written_bytes), (size, size - (17 << 20)));
    assert!(std::fs::read(&target).unwrap() == image);
    assert_eq!(restore(&target).unwrap().written_bytes, 0);
    let mut changed = image.clone();
    changed[1_000_000] ^= 1;
    changed[10 << 20..(10 << 20) + 8192].fill(7);
    changed.extend_from_slice(b"too long");
    write(&target, &changed);
    assert_eq!(restore(&target).unwrap().written_bytes, 3 * 4096);
    assert!(std::fs::read(&target).unwrap() == image);
    let stat = std::fs::metadata(&target).unwrap();
    assert!(stat.blocks() * 512 < size, "zeros were written");

    assert!(repository.restore_file(&snapshot, Path::new("images"), &target, &Silent).is_err());
    assert!(repository.restore_file(&snapshot, Path::new("images/none"), &target, &Silent).is_err());
    if support::is_root() {
        onto_a_device(&bench, &image, restore);
    }
}

fn onto_a_device(
    bench: &Bench,
    image: &[u8],
    restore: impl Fn(&Path) -> Result<lvault_backup::FileReport, RestoreError>,
) {
    for (size, fits) in [(64 << 20, true), (1 << 20, false)] {
        let backing = bench.folder.path().join(format!("backing {size}"));
        write(&backing, vec![9; size]);
        let output = support::command("losetup").args(["--find", "--show"]).arg(&backing).output().unwrap();
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        if device.is_empty() {
            eprintln!("SKIPPED: no loop device is to be had");
            return;
        }
        let restored = restore(Path::new(&device));
        let status = support::command("losetup").args(["--detach", &device]).status();
        assert!(status.unwrap().success());
        match restored {
            Ok(_) => assert!(fits && std::fs::read(&backing).unwrap()[..image.len()] == *image),
            Err(err) => assert!(!fits && err.to_string().contains("device is smaller"), "{err}"),
        }
    }
}
