//! The second snapshot: its parent is found, what is unchanged is not read, and no key gets two snapshots.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use jiff::{SignedDuration, Timestamp};
use lvault_backup::{
    BackUpError, ChangeDetection, Host, Key, ReadData, RepositoryError, Retry, Silent, SourcePath, Tag, VerifyDepth,
};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use support::{Bench, inventory, noise, restic, set_time, write};

/// Swaps a file's bytes and leaves size and times alone: whoever reads the file notices, whoever trusts them does not.
fn change_behind_the_back(bench: &Bench, name: &str) {
    use std::os::unix::fs::MetadataExt;
    let path = bench.volume().join(name);
    let stat = std::fs::metadata(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"!", 0).unwrap();
    set_time(&path, stat.mtime(), stat.mtime_nsec());
}

#[test]
fn unchanged_files_are_not_read() {
    let bench = Bench::new();
    for number in 0..10 {
        write(bench.volume().join(number.to_string()), noise(number, 100_000));
    }
    let repository = bench.repository();
    let first = bench.back_up(&repository, "a", 1).unwrap();
    assert_eq!((first.parent.clone(), first.read_bytes, first.changed_files), (None, 1_000_000, 10));
    assert!(first.added_bytes > 1_000_000, "noise does not compress: {first:?}");

    let second = bench.back_up(&repository, "b", 1).unwrap();
    assert_eq!(second.parent, Some(first.snapshot));
    assert_eq!((second.read_bytes, second.changed_files, second.total_bytes), (0, 0, 1_000_000));
    assert!((100..4096).contains(&second.added_bytes), "{second:?}");

    write(bench.volume().join("3"), noise(77, 100_000));
    let third = bench.back_up(&repository, "c", 1).unwrap();
    assert_eq!(third.parent, Some(second.snapshot));
    assert_eq!((third.read_bytes, third.changed_files, third.files), (100_000, 1, 10));
    repository.verify(&third.snapshot, VerifyDepth::Data, &Silent).unwrap();
    let target = bench.empty("target");
    repository.restore(&third.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
    bench.assert_restic_is_content();
}

#[test]
fn the_change_time_betrays_a_change_that_the_modification_time_hides() {
    for (detection, read) in [
        (ChangeDetection::ModificationTime, 0),
        (ChangeDetection::ChangeTime, 1000),
        (ChangeDetection::ReadEverything, 1000),
    ] {
        let bench = Bench::new();
        write(bench.volume().join("file"), noise(1, 1000));
        let repository = bench.repository();
        bench.back_up(&repository, "a", 1).unwrap();
        change_behind_the_back(&bench, "file");
        let mut what = bench.what("b", 1);
        what.change_detection = detection;
        let report = repository.back_up(&what, Arc::new(Silent)).unwrap();
        assert_eq!(report.read_bytes, read, "{detection:?}");
    }
}

/// Two changes within one step of the clock have one time, and a snapshot may have been cut between them.
#[test]
fn what_was_changed_about_the_moment_of_the_snapshot_is_read_again() {
    for (detection, seconds, read) in [
        (ChangeDetection::ModificationTime, 0, 1000),
        (ChangeDetection::ModificationTime, 3600, 0),
        (ChangeDetection::ChangeTime, 0, 1000),
        (ChangeDetection::ChangeTime, 3600, 0),
    ] {
        let bench = Bench::new();
        write(bench.volume().join("file"), noise(1, 1000));
        let repository = bench.repository();
        let mut what = bench.what("a", 1);
        what.time = Timestamp::now() + SignedDuration::from_secs(seconds);
        what.change_detection = detection;
        repository.back_up(&what, Arc::new(Silent)).unwrap();
        if detection == ChangeDetection::ModificationTime {
            change_behind_the_back(&bench, "file");
        }
        let mut next = bench.what("b", 1);
        next.change_detection = detection;
        let report = repository.back_up(&next, Arc::new(Silent)).unwrap();
        assert_eq!(report.read_bytes, read, "{detection:?}, {seconds} s later");
    }
}

#[test]
fn another_host_or_path_has_another_parent() {
    let bench = Bench::new();
    write(bench.volume().join("file"), "content");
    let repository = bench.repository();
    bench.back_up(&repository, "a", 1).unwrap();
    let mut what = bench.what("b", 1);
    what.host = Host::new("volume-2").unwrap();
    assert_eq!(repository.back_up(&what, Arc::new(Silent)).unwrap().parent, None);
}

#[test]
fn a_key_gets_one_snapshot() {
    let bench = Bench::new();
    write(bench.volume().join("file"), "content");
    let repository = bench.repository();
    assert_eq!(repository.snapshots().unwrap(), []);
    let key = Key::new("uid-1", 1).unwrap();
    assert_eq!(repository.find(&key).unwrap(), None);
    let mut what = bench.what("uid-1", 1);
    what.tags = vec![Tag::new("schedule=daily").unwrap()];
    let report = repository.back_up(&what, Arc::new(Silent)).unwrap();

    let found = repository.find(&key).unwrap().unwrap();
    assert_eq!((&found.id, found.key.as_ref(), found.host.as_str()), (&report.snapshot, Some(&key), "volume-1"));
    assert_eq!(found.paths, ["/data"]);
    assert_eq!(found.time, what.time);
    assert!(found.tags.contains(&"schedule=daily".to_owned()), "{found:?}");

    // It is not even tried: the volume may be gone by now.
    std::fs::remove_dir_all(bench.volume()).unwrap();
    let err = bench.back_up(&repository, "uid-1", 1).unwrap_err();
    assert!(matches!(&err, BackUpError::AlreadyCommitted { snapshot, .. } if *snapshot == report.snapshot), "{err}");
    assert_eq!(err.retry(), Retry::Never);
    assert_eq!(repository.snapshots().unwrap().len(), 1);
}

#[test]
fn keys_match_exactly_and_forgetting_is_idempotent() {
    let bench = Bench::new();
    write(bench.volume().join("file"), "content");
    let repository = bench.repository();
    for (uid, attempt) in [("a", 1), ("a", 2), ("a", 12), ("ab", 1)] {
        assert_eq!(repository.find(&Key::new(uid, attempt).unwrap()).unwrap(), None, "{uid} {attempt}");
        let report = bench.back_up(&repository, uid, attempt).unwrap();
        let found = repository.find(&Key::new(uid, attempt).unwrap()).unwrap().unwrap();
        assert_eq!(found.id, report.snapshot, "{uid} {attempt}");
    }
    assert_eq!(repository.find(&Key::new("b", 1).unwrap()).unwrap(), None);
    assert_eq!(repository.forget("b").unwrap(), []);
    assert_eq!(repository.forget("a").unwrap().len(), 3);
    assert_eq!(repository.forget("a").unwrap(), []);
    assert_eq!(repository.snapshots().unwrap().len(), 1);
    assert!(repository.find(&Key::new("ab", 1).unwrap()).unwrap().is_some());
    assert!(repository.forget("a,lvault-uid=ab").is_err());
    bench.assert_restic_is_content();
}

#[test]
fn a_snapshot_is_found_by_its_id_and_never_by_nothing() {
    let bench = Bench::new();
    write(bench.volume().join("file"), "content");
    let repository = bench.repository();
    let mut ids = Vec::new();
    for uid in 0..17 {
        ids.push(bench.back_up(&repository, &uid.to_string(), 1).unwrap().snapshot);
    }
    for id in &ids {
        assert_eq!(&repository.snapshot(id.as_str()).unwrap().id, id);
        assert_eq!(&repository.snapshot(&id.as_str()[..32].to_uppercase()).unwrap().id, id);
    }
    // Of 17 ids, two begin with the same digit.
    let ambiguous = ('0'..='9').chain('a'..='f').map(|digit| repository.snapshot(&digit.to_string()));
    assert!(ambiguous.into_iter().any(|found| matches!(found, Err(RepositoryError::Ambiguous { count: 2.., .. }))));
    for no_id in ["", "latest", "latest~1", " ", "xyz", &"0".repeat(65)] {
        assert!(matches!(repository.snapshot(no_id), Err(RepositoryError::NotAnId { .. })), "{no_id:?}");
    }
    let unknown = "0123456789".repeat(6);
    assert!(matches!(repository.snapshot(&unknown), Err(RepositoryError::NotFound { .. })));
}

#[test]
fn restic_and_we_work_in_one_repository() {
    let bench = Bench::new();
    for number in 0..5 {
        write(bench.volume().join(number.to_string()), noise(number, 200_000));
    }
    let repository = bench.repository();
    bench.back_up(&repository, "a", 1).unwrap();
    let ours = bench.back_up(&repository, "b", 1).unwrap();
    let first = repository.snapshots().unwrap()[0].id.clone();
    let output = restic(&bench.repository_folder(), &["forget", "--prune", first.as_str()]);
    assert!(output.status.success(), "{output:?}");
    write(bench.volume().join("5"), noise(5, 200_000));
    let next = bench.back_up(&repository, "c", 1).unwrap();
    assert_eq!((next.parent.as_ref(), next.read_bytes), (Some(&ours.snapshot), 200_000));
    repository.verify(&next.snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert!(repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
    bench.assert_restic_is_content();
}

#[test]
fn a_repository_that_restic_made_is_used_as_it_is() {
    let bench = Bench::new();
    write(bench.volume().join("file"), noise(1, 100_000));
    let folder = bench.repository_folder();
    std::fs::create_dir_all(&folder).unwrap();
    assert!(restic(&folder, &["init", "--repository-version", "2"]).status.success());
    let repository = bench.repository();
    let report = bench.back_up(&repository, "a", 1).unwrap();
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    bench.assert_restic_is_content();
}

/// Runs plain restic in the middle of a backup, once.
struct Meanwhile {
    folder: std::path::PathBuf,
    output: std::sync::OnceLock<std::process::Output>,
}

impl lvault_backup::Progress for Meanwhile {
    fn bytes(&self, _: u64) {
        self.output.get_or_init(|| restic(&self.folder, &["prune"]));
    }
}

#[test]
fn restic_prunes_nothing_while_a_backup_runs() {
    let bench = Bench::new();
    write(bench.volume().join("file"), noise(1, 3 << 20));
    let repository = bench.repository();
    let meanwhile = Arc::new(Meanwhile { folder: bench.repository_folder(), output: Default::default() });
    let report = repository.back_up(&bench.what("a", 1), meanwhile.clone()).unwrap();
    let output = meanwhile.output.get().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("locked"), "{output:?}");
    assert!(said.contains("lvault a 1"), "{output:?}");
    assert!(restic(&bench.repository_folder(), &["prune"]).status.success(), "the lock was left");
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
}

/// The index is not trusted about packs that are not there.
/// With packs of trees lost too, there is no parent; without these alone, the files' parts are what is gone.
#[test]
fn what_a_lost_pack_held_is_stored_again() {
    for (longer_than, has_parent) in [(0, false), (100_000, true)] {
        let bench = Bench::new();
        for number in 0..4 {
            write(bench.volume().join(number.to_string()), noise(number, 300_000));
        }
        let repository = bench.repository();
        let first = bench.back_up(&repository, "a", 1).unwrap();
        let data = bench.repository_folder().join("data");
        let packs = std::fs::read_dir(data).unwrap().flat_map(|it| std::fs::read_dir(it.unwrap().path()).unwrap());
        let packs = packs.map(|pack| pack.unwrap()).filter(|pack| pack.metadata().unwrap().len() > longer_than);
        packs.for_each(|pack| std::fs::remove_file(pack.path()).unwrap());
        assert!(repository.verify(&first.snapshot, VerifyDepth::Structure, &Silent).is_err());
        let second = bench.back_up(&repository, "b", 1).unwrap();
        assert_eq!((second.parent.is_some(), second.read_bytes), (has_parent, 1_200_000));
        repository.verify(&second.snapshot, VerifyDepth::Data, &Silent).unwrap();
        repository.verify(&first.snapshot, VerifyDepth::Data, &Silent).unwrap();
    }
}

/// Its nodes hold names of users, which mean somebody else elsewhere.
#[test]
fn of_a_parent_by_restic_contents_are_taken_and_nodes_are_not() {
    let bench = Bench::new();
    write(bench.volume().join("file"), noise(1, 1000));
    let (repository, volume) = (bench.repository(), bench.volume());
    let long_after = ["backup", "--host", "volume-1", "--time", "2100-01-01 00:00:00", volume.to_str().unwrap()];
    let made = restic(&bench.repository_folder(), &long_after);
    assert!(made.status.success(), "{made:?}");
    let [theirs] = repository.snapshots().unwrap().try_into().unwrap();
    let mut trees = Vec::new();
    for (uid, change_detection, read) in
        [("a", ChangeDetection::ChangeTime, 0), ("b", ChangeDetection::ReadEverything, 1000)]
    {
        let mut what = bench.what(uid, 1);
        what.as_path = SourcePath::new(volume.to_str().unwrap()).unwrap();
        what.change_detection = change_detection;
        let report = repository.back_up(&what, Arc::new(Silent)).unwrap();
        assert_eq!(report.read_bytes, read, "{report:?}");
        assert!(uid == "b" || report.parent.as_ref() == Some(&theirs.id), "{report:?}");
        let shown = restic(&bench.repository_folder(), &["cat", "snapshot", report.snapshot.as_str()]).stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        trees.push(shown["tree"].as_str().unwrap().to_owned());
    }
    assert_eq!(trees[0], trees[1]);
}
