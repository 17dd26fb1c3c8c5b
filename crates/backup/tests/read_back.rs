//! How much of a snapshot's data is read back: as much as is asked for, and another part for each snapshot.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{Percent, Progress, ReadData, Repository, Silent, SnapshotId, VerifyDepth, VerifyError};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Bench, noise, write};

const FILES: u64 = 600;

#[derive(Default)]
struct Counted {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for Counted {
    fn total(&self, _: u64, blobs: u64) {
        self.total.store(blobs, Ordering::Relaxed);
    }
    fn file_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Flips a bit in every 16 bytes of all packs but those of trees, which are the smallest.
fn spoil_all_data(repository: &Path) {
    for folder in std::fs::read_dir(repository.join("data")).unwrap() {
        for pack in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            let mut content = std::fs::read(&path).unwrap();
            if content.len() > 200_000 {
                content.iter_mut().step_by(16).for_each(|byte| *byte ^= 1);
                write(&path, content);
            }
        }
    }
}

/// How many parts do not read back.
fn defects(repository: &Repository, snapshot: &SnapshotId, depth: VerifyDepth) -> u64 {
    let counted = Counted::default();
    let found = match repository.verify(snapshot, depth, &counted) {
        Ok(verified) => {
            assert_eq!(verified.blobs, FILES);
            0
        }
        Err(VerifyError::Damaged { count, .. }) => count,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(counted.done.into_inner(), counted.total.into_inner(), "what was announced is what was read");
    found
}

#[test]
fn of_the_data_as_much_is_read_as_is_asked_for() {
    let bench = Bench::new();
    for number in 0..FILES {
        write(bench.volume().join(format!("file{number}")), noise(number, 500));
    }
    let repository = bench.repository();
    let one = bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let other = bench.back_up(&repository, "b", 1).unwrap().snapshot;
    let ten = VerifyDepth::Sample(Percent::new(10).unwrap());
    for (depth, fewest, most) in [(VerifyDepth::Structure, 0, 0), (ten, 20, 110), (VerifyDepth::Data, FILES, FILES)] {
        let verified = repository.verify(&one, depth, &Silent).unwrap();
        assert!((fewest..=most).contains(&verified.blobs_read), "{depth:?}: {verified:?}");
        assert_eq!(verified, repository.verify(&one, depth, &Silent).unwrap(), "it can be repeated");
    }

    // With every part of every file damaged, each read is a defect: they count what was really read.
    let reads = [&one, &other].map(|snapshot| repository.verify(snapshot, ten, &Silent).unwrap().blobs_read);
    spoil_all_data(&bench.repository_folder());
    for (snapshot, reads) in [&one, &other].into_iter().zip(reads) {
        assert_eq!(defects(&repository, snapshot, VerifyDepth::Structure), 0);
        assert_eq!(defects(&repository, snapshot, ten), reads);
        assert_eq!(defects(&repository, snapshot, VerifyDepth::Data), FILES);
    }
    assert!(!repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
}

#[test]
fn a_share_is_never_nothing_and_never_everything() {
    assert_eq!([0, 100, 255].map(Percent::new), [None; 3]);
    assert_eq!([1, 99].map(|share| Percent::new(share).unwrap().get()), [1, 99]);
    let depths = [0, 1, 99, 100, 255].map(VerifyDepth::of_percent);
    let share = |percent| VerifyDepth::Sample(Percent::new(percent).unwrap());
    assert_eq!(depths, [VerifyDepth::Structure, share(1), share(99), VerifyDepth::Data, VerifyDepth::Data]);
    assert_eq!([0, 100].map(ReadData::of_percent), [ReadData::Nothing, ReadData::Everything]);
}
