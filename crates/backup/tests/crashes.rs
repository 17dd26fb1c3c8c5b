//! Processes killed at random moments, and storages that run full: never half a snapshot, never two, never a dead end.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{BackUpError, Key, Location, ReadData, Repository, RestoreError, Silent, VerifyDepth};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::kill::{self, Kills};
use support::quota::Quota;
use support::{Bench, Mount, PASSWORD, PATH, command, inventory, is_root, noise, password, path, restic, write};

/// Not a test by itself: backs the volume of a bench up, as a process that can be killed.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_backs_up() {
    let folder = kill::folder();
    let location = Location::Local { root: folder.join("storage") };
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let mut what = Bench::new().what("killed", 1);
    what.root = folder.join("volume");
    kill::begin();
    match repository.back_up(&what, Arc::new(Silent)) {
        Ok(_) | Err(BackUpError::AlreadyCommitted { .. }) => {}
        Err(err) => panic!("{err}"),
    }
}

/// Not a test by itself: restores the only snapshot of a bench.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_restores() {
    let folder = kill::folder();
    let location = Location::Local { root: folder.join("storage") };
    let repository = Repository::open(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let snapshot = repository.snapshots().unwrap().remove(0).id;
    kill::begin();
    repository.restore(&snapshot, &folder.join("target"), &Silent).unwrap();
}

fn fill(bench: &Bench) {
    fill_with(bench, 0);
}

fn fill_with(bench: &Bench, seed: u64) {
    for folder in 0..10 {
        let path = bench.volume().join(folder.to_string());
        std::fs::create_dir(&path).unwrap();
        for file in 0..20 {
            write(path.join(file.to_string()), noise(seed + folder * 100 + file, 100_000));
        }
    }
    write(bench.volume().join("big"), noise(seed + 12_345, 30 << 20));
}

/// As usual.
const KILLS: u32 = 20;

#[test]
fn a_killed_backup_leaves_no_snapshot_or_the_whole_one() {
    let bench = Bench::new();
    fill(&bench);
    let repository = bench.repository();
    // A repository with another snapshot in it, so that there is something that can be harmed.
    write(bench.volume().join("other"), noise(77, 3 << 20));
    let other = bench.back_up(&repository, "other", 1).unwrap().snapshot;
    std::fs::remove_dir_all(bench.volume()).unwrap();
    std::fs::create_dir(bench.volume()).unwrap();
    fill_with(&bench, 1_000_000);
    let saved = bench.folder.path().join("saved");
    copy(&bench.storage(), &saved);
    let reset = || {
        std::fs::remove_dir_all(bench.storage()).unwrap();
        copy(&saved, &bench.storage());
    };
    let key = Key::new("killed", 1).unwrap();
    let mut kills = Kills::of(&bench, "child_backs_up", KILLS, reset);
    let (mut committed, mut partial) = (0, 0);
    for number in 0..kills.count {
        // Every other one goes on with what the one before has left.
        if number % 2 == 0 {
            reset();
        }
        kills.kill(&bench, number);
        assert!(repository.locks().unwrap().iter().all(|lock| lock.is_stale));
        let snapshots = repository.snapshots().unwrap();
        assert!(snapshots.len() <= 2 && snapshots.iter().any(|it| it.id == other), "{snapshots:?}");
        partial += u32::from(packs(&bench).len() > packs_in(&saved).len() && snapshots.len() == 1);
        repository.verify(&other, VerifyDepth::Data, &Silent).unwrap();
        if let Some(found) = repository.find(&key).unwrap() {
            committed += 1;
            repository.verify(&found.id, VerifyDepth::Data, &Silent).unwrap();
            assert_eq!(repository.forget("killed").unwrap(), [found.id]);
        }
    }
    let Kills { killed, count, .. } = kills;
    eprintln!(
        "{killed} of {count} were killed in the middle, {partial} with a part uploaded; {committed} had committed"
    );
    assert!(killed > count / 4 && partial > 1, "{killed} were killed in the middle, {partial} with a part uploaded");
    assert!(kill::start(&bench, "child_backs_up").wait().unwrap().success());
    let found = repository.find(&key).unwrap().unwrap();
    repository.verify(&found.id, VerifyDepth::Data, &Silent).unwrap();
    assert_eq!(repository.snapshots().unwrap().len(), 2);
    assert!(repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
    assert_eq!(repository.locks().unwrap(), [], "the dead ones' locks were left");
    bench.assert_restic_is_content();
}

fn copy(from: &Path, to: &Path) {
    assert!(command("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// The sizes of all packs.
fn packs(bench: &Bench) -> Vec<u64> {
    packs_in(&bench.storage())
}

fn packs_in(storage: &Path) -> Vec<u64> {
    let folders = std::fs::read_dir(storage.join(PATH).join("data")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let files = files.map(|file| file.unwrap()).filter(|file| file.file_name().len() == 64);
    files.map(|file| file.metadata().unwrap().len()).collect()
}

#[test]
fn what_a_killed_backup_has_uploaded_is_not_uploaded_again() {
    const TOTAL: u64 = 12 * (20 << 20);
    let bench = Bench::new();
    for number in 0..12 {
        write(bench.volume().join(number.to_string()), noise(number + 1, 20 << 20));
    }
    let repository = bench.repository();
    let mut child = kill::start(&bench, "child_backs_up");
    while packs(&bench).len() < 8 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let uploaded: u64 = packs(&bench).iter().sum();
    let report = bench.back_up(&repository, "killed", 1).unwrap();
    // At most the two packs that are written at a time were on disk and not in the index; headers are the rest.
    let again = (uploaded + report.added_bytes).saturating_sub(TOTAL);
    eprintln!("{uploaded} bytes were uploaded before the kill, {again} of them again");
    assert!(again < uploaded / 100 + 2 * (17 << 20), "{again} of {uploaded} bytes were uploaded again");
    assert!(report.added_bytes < TOTAL - uploaded + 2 * (17 << 20), "{report:?}");
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert_eq!(repository.locks().unwrap(), []);
    bench.assert_restic_is_content();
}

#[test]
fn a_killed_restore_is_begun_anew() {
    let bench = Bench::new();
    fill(&bench);
    let repository = bench.repository();
    bench.back_up(&repository, "a", 1).unwrap();
    let target = bench.empty("target");
    let expected = inventory(&bench.volume());
    let reset = || {
        std::fs::remove_dir_all(&target).unwrap();
        std::fs::create_dir(&target).unwrap();
    };
    let mut kills = Kills::of(&bench, "child_restores", KILLS, reset);
    let mut partial = 0;
    for number in 0..kills.count {
        // Every other one finds what the one before has left.
        if number % 2 == 0 {
            reset();
        }
        kills.kill(&bench, number);
        partial += u32::from(target.read_dir().unwrap().next().is_some() && inventory(&target) != expected);
        if number % 4 == 3 {
            assert!(kill::start(&bench, "child_restores").wait().unwrap().success());
            assert_eq!(inventory(&target), expected);
        }
    }
    let Kills { killed, count, .. } = kills;
    eprintln!("{killed} of {count} were killed in the middle, {partial} with a part restored");
    assert!(killed > count / 4 && partial > 1, "{killed} were killed in the middle, {partial} with a part restored");
    assert!(kill::start(&bench, "child_restores").wait().unwrap().success());
    assert_eq!(inventory(&target), expected);
}

/// Staging files of killed writers vanish when they are old enough that nobody can still be writing them.
#[test]
fn what_killed_writers_leave_is_swept() {
    let bench = Bench::new();
    write(bench.volume().join("file"), "content");
    let repository = bench.repository();
    let folder = bench.repository_folder().join("data/ab");
    std::fs::create_dir_all(&folder).unwrap();
    let id = "ab".repeat(32);
    let (old, young, foreign) = (folder.join(format!("{id}#1")), folder.join(format!("{id}#2")), folder.join("note#1"));
    for file in [&old, &young, &foreign] {
        write(file, "partial");
    }
    support::set_time(&old, 1_000_000_000, 0);
    support::set_time(&foreign, 1_000_000_000, 0);
    bench.back_up(&repository, "a", 1).unwrap();
    assert!(!old.exists());
    assert!(young.exists() && foreign.exists());
}

#[test]
fn a_full_storage_is_named_and_works_again_after_the_remedy() {
    if !is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    let bench = Bench::new();
    fill(&bench);
    let mount = Mount::tmpfs(&bench.storage(), "size=16m");
    let repository = bench.repository();
    let err = bench.back_up(&repository, "a", 1).unwrap_err();
    let text = err.to_string();
    assert!(text.contains("No space left") && text.contains("make room"), "{text}");
    assert!(text.contains(bench.storage().to_str().unwrap()), "{text}");
    assert_eq!(err.retry(), lvault_backup::Retry::AfterRemedy);
    assert_eq!(repository.snapshots().unwrap(), []);
    mount.remount("size=200m");
    let report = bench.back_up(&repository, "a", 1).unwrap();
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    bench.assert_restic_is_content();
}

/// A quota is another error than a full disk (EDQUOT), and there is room for everybody else.
#[test]
fn a_quota_that_is_used_up_is_named_and_works_again_after_the_remedy() {
    let bench = Bench::new();
    let Some(quota) = Quota::new(bench.folder.path()) else { return };
    fill(&bench);
    let location = Location::Local { root: quota.folder() };
    let open = || Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    quota.limit("16M");
    let repository = open();
    let err = bench.back_up(&repository, "a", 1).unwrap_err();
    let text = err.to_string();
    assert!(text.to_lowercase().contains("quota exceeded") && text.contains("make room"), "{text}");
    assert!(text.contains(quota.folder().to_str().unwrap()), "{text}");
    assert_eq!(err.retry(), lvault_backup::Retry::AfterRemedy);
    assert_eq!(open().snapshots().unwrap(), []);
    quota.limit("none");
    let report = bench.back_up(&repository, "a", 1).unwrap();
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    let checked = restic(&quota.folder().join(PATH), &["check", "--read-data"]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("no errors were found"), "{checked:?}");
}

#[test]
fn a_storage_that_turns_read_only_is_named() {
    if !is_root() {
        eprintln!("SKIPPED: only root can remount");
        return;
    }
    let bench = Bench::new();
    fill(&bench);
    let mount = Mount::tmpfs(&bench.storage(), "size=200m");
    let repository = bench.repository();
    mount.remount("ro");
    let text = bench.back_up(&repository, "a", 1).unwrap_err().to_string();
    assert!(text.contains("make the storage writable"), "{text}");
    assert!(repository.forget("a").unwrap().is_empty());
    mount.remount("rw");
    bench.back_up(&repository, "a", 1).unwrap();
}

#[test]
fn a_full_target_ends_the_restore() {
    if !is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    let bench = Bench::new();
    fill(&bench);
    let repository = bench.repository();
    let snapshot = bench.back_up(&repository, "a", 1).unwrap().snapshot;
    assert_eq!(repository.size_of(&snapshot).unwrap().bytes, 200 * 100_000 + (30 << 20));
    let target = bench.empty("target");
    let _mount = Mount::tmpfs(&target, "size=16m");
    let err = repository.restore(&snapshot, &target, &Silent).unwrap_err();
    assert!(matches!(&err, RestoreError::Target { cause, .. } if cause.text.contains("No space")), "{err:?}");
}
