//! Damage is found: by the verification, by the restore, by the check; each names it, none panics, none calls it whole.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{ReadData, Repository, RestoreError, Retry, Silent, SnapshotId, VerifyDepth, VerifyError};
use std::path::{Path, PathBuf};
use support::{Bench, PASSWORD, PATH, noise, password, path, write};

struct Damaged {
    bench: Bench,
    repository: Repository,
    snapshot: SnapshotId,
    targets: usize,
}

impl Damaged {
    fn new() -> Self {
        let bench = Bench::new();
        std::fs::create_dir(bench.volume().join("folder")).unwrap();
        write(bench.volume().join("folder/big"), noise(1, 3 << 20));
        write(bench.volume().join("folder/small"), noise(2, 1000));
        write(bench.volume().join("text"), "text ".repeat(10_000));
        let repository = bench.repository();
        let snapshot = bench.back_up(&repository, "a", 1).unwrap().snapshot;
        Self { bench, repository, snapshot, targets: 0 }
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.bench.repository_folder().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    fn verify(&self, depth: VerifyDepth) -> Result<(), VerifyError> {
        self.repository.verify(&self.snapshot, depth, &Silent).map(|_| ())
    }

    fn restore(&mut self) -> Result<(), RestoreError> {
        self.targets += 1;
        let target = self.bench.empty(&format!("target {}", self.targets));
        let restored = self.repository.restore(&self.snapshot, &target, &Silent).map(|_| ());
        std::fs::remove_dir_all(target).unwrap();
        restored
    }

    /// The two packs: of data, which is the larger one, and of trees.
    fn packs(&self) -> [PathBuf; 2] {
        let mut packs = self.files("data");
        packs.sort_by_key(|pack| std::cmp::Reverse(std::fs::metadata(pack).unwrap().len()));
        packs.try_into().unwrap()
    }
}

/// Puts a damaged file in a file's place while `during` runs.
fn with_damage(path: &Path, damaged: Option<&[u8]>, during: impl FnOnce()) {
    let whole = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    if let Some(damaged) = damaged {
        write(path, damaged);
    }
    during();
    write(path, whole);
}

fn flipped(path: &Path, at: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    bytes
}

#[test]
fn a_flipped_bit_of_data_is_found() {
    let mut damaged = Damaged::new();
    let [data, trees] = damaged.packs();
    let length = std::fs::metadata(&data).unwrap().len() as usize;
    // The end of a pack is its header, which only a check reads: nothing is restored through it.
    for at in (0..length - 300).step_by(length / 12) {
        with_damage(&data, Some(&flipped(&data, at)), || {
            damaged.verify(VerifyDepth::Structure).unwrap();
            let err = damaged.verify(VerifyDepth::Data).unwrap_err();
            assert!(matches!(err, VerifyError::Damaged { .. }), "at {at}: {err:?}");
            assert_eq!(err.retry(), Retry::Never);
            let err = damaged.restore().unwrap_err();
            assert!(matches!(&err, RestoreError::Incomplete { count: 1.., .. }), "at {at}: {err:?}");
            assert!(!damaged.repository.check(ReadData::Everything, &Silent).unwrap().is_clean(), "at {at}");
        });
    }
    for at in [0, 20, 100] {
        with_damage(&trees, Some(&flipped(&trees, at)), || {
            assert!(damaged.verify(VerifyDepth::Structure).is_err(), "at {at}");
            assert!(damaged.restore().is_err(), "at {at}");
        });
    }
    damaged.verify(VerifyDepth::Data).unwrap();
    damaged.restore().unwrap();
}

#[test]
fn a_failed_restore_names_the_files() {
    let mut damaged = Damaged::new();
    let [data, _] = damaged.packs();
    with_damage(&data, None, || {
        let err = damaged.restore().unwrap_err();
        let RestoreError::Incomplete { failures, count, .. } = err else { panic!("{err:?}") };
        assert_eq!(count, 3, "{failures:?}");
        let mut named: Vec<_> = failures.iter().map(|it| it.path.to_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!(named, ["folder/big", "folder/small", "text"]);
        assert!(failures[0].reason.contains("cannot read"), "{failures:?}");
    });
}

#[test]
fn a_missing_or_short_pack_is_found_without_reading_data() {
    let mut damaged = Damaged::new();
    for pack in damaged.packs() {
        let short = std::fs::read(&pack).unwrap()[..50].to_vec();
        for instead in [None, Some(short.as_slice())] {
            with_damage(&pack, instead, || {
                let err = damaged.verify(VerifyDepth::Structure).unwrap_err();
                assert!(matches!(&err, VerifyError::Damaged { defects, .. } if defects[0].contains("pack")), "{err:?}");
                assert!(damaged.restore().is_err());
                assert!(!damaged.repository.check(ReadData::Nothing, &Silent).unwrap().is_clean());
            });
        }
    }
    damaged.restore().unwrap();
}

#[test]
fn a_damaged_index_or_snapshot_is_an_error_and_no_panic() {
    let mut damaged = Damaged::new();
    for folder in ["index", "snapshots"] {
        for file in damaged.files(folder) {
            let middle = std::fs::metadata(&file).unwrap().len() as usize / 2;
            for instead in [flipped(&file, middle), Vec::new(), vec![0; 10]] {
                with_damage(&file, Some(&instead), || {
                    let err = damaged.verify(VerifyDepth::Structure).unwrap_err();
                    assert!(err.to_string().contains("damaged"), "{folder}: {err}");
                    assert!(damaged.restore().is_err(), "{folder}");
                });
            }
            with_damage(&file, None, || {
                assert!(damaged.verify(VerifyDepth::Structure).is_err(), "{folder}");
                assert!(damaged.restore().is_err(), "{folder}");
            });
        }
    }
    damaged.verify(VerifyDepth::Data).unwrap();
}

#[test]
fn a_backup_over_a_damaged_index_commits_nothing() {
    let damaged = Damaged::new();
    let index = damaged.files("index")[0].clone();
    with_damage(&index, Some(b"garbage"), || {
        assert!(damaged.bench.back_up(&damaged.repository, "b", 1).is_err());
    });
    assert_eq!(damaged.repository.snapshots().unwrap().len(), 1);
}

#[test]
fn an_open_repository_notices_that_its_storage_is_gone() {
    let damaged = Damaged::new();
    let hidden = damaged.bench.folder.path().join("hidden");
    std::fs::rename(damaged.bench.storage(), &hidden).unwrap();
    let err = damaged.bench.back_up(&damaged.repository, "b", 1).unwrap_err();
    assert_eq!(err.retry(), Retry::AfterRemedy, "{err}");
    assert!(damaged.verify(VerifyDepth::Structure).is_err());
    std::fs::rename(&hidden, damaged.bench.storage()).unwrap();
    let opened = Repository::open(&damaged.bench.location(), &path(PATH), &password(PASSWORD)).unwrap();
    assert_eq!(opened.snapshots().unwrap().len(), 1);
}

/// The way that docs/repositories.md tells.
#[test]
fn a_lost_pack_is_repaired_by_hand() {
    let damaged = Damaged::new();
    let [data, _] = damaged.packs();
    std::fs::remove_file(data).unwrap();
    let repair = support::restic(&damaged.bench.repository_folder(), &["rebuild-index"]);
    assert!(repair.status.success(), "{repair:?}");
    let report = damaged.bench.back_up(&damaged.repository, "b", 1).unwrap();
    assert_eq!(report.read_bytes, report.total_bytes, "what the parent misses is read again");
    damaged.repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    damaged.verify(VerifyDepth::Data).unwrap();
    damaged.bench.assert_restic_is_content();
}
