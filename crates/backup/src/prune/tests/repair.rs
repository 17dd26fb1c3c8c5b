//! Repairs that end before each of their changes, that lose their lock, and that find other copies.

use super::super::repair::RepairReport;
use super::*;
use crate::check::PackId;
use rustic_core::repofile::BlobType;
use std::collections::HashSet;

/// Flips a bit of a stored file.
fn flip(repository: &Repository, name: &str, at: usize) {
    let mut content = repository.storage().read(name).unwrap().to_vec();
    content[at] ^= 1;
    repository.storage().write(name, vec![content.into()], crate::storage::Put::Overwrite).unwrap();
}

fn broken(repository: &Repository) -> Vec<PackId> {
    repository.check(ReadData::Everything, &Silent).unwrap().broken_packs
}

/// Everything that can be read through the index.
fn readable(repository: &Repository) -> HashSet<(bool, Id)> {
    let indexed = repository.indexed().unwrap();
    let of = |kind| indexed.list(kind).iter().map(move |(id, _)| (kind, *id));
    let all = of(BlobType::Data).chain(of(BlobType::Tree));
    all.filter(|(kind, id)| indexed.read(*kind, id).is_ok()).map(|(kind, id)| (kind == BlobType::Tree, id)).collect()
}

/// Two snapshots, and a bit flipped in the first blob of each of the first one's packs.
fn spoiled(bench: &Bench) -> (Repository, [SnapshotId; 2]) {
    let repository = bench.repository("storage");
    for number in 0..6 {
        bench.write(&number.to_string(), number);
    }
    let first = bench.back_up(&repository, "first");
    let packs: Vec<Id> =
        list_ids(repository.storage(), FileType::Pack).unwrap().into_iter().map(|(id, _)| id).collect();
    bench.write("0", 100);
    let second = bench.back_up(&repository, "second");
    assert_eq!(packs.len(), 2, "one of data, one of trees");
    packs.iter().for_each(|pack| flip(&repository, &file_name(FileType::Pack, pack), 20));
    (repository, [first, second])
}

#[test]
fn a_repair_that_ends_before_any_of_its_changes_leaves_everything_readable_that_was() {
    let bench = Bench::new();
    let (original, snapshots) = spoiled(&bench);
    let (damaged, before) = (broken(&original), readable(&original));
    assert_eq!(damaged.len(), 2);
    let (mut changes, mut partly) = (0_usize, 0);
    loop {
        let name = format!("storage-{changes}");
        copy(&bench.at("storage"), &bench.at(&name));
        let location = Location::Local { root: bench.at(&name) };
        let storage = Storage::of_repository(&location, &RepositoryPath::parse("r").unwrap()).unwrap();
        let (repository, left) = (original.copied_to(storage), Cell::new(changes));
        let hook = || match left.replace(left.get().saturating_sub(1)) {
            0 => Err(Fault::system("the end")),
            _ => Ok(()),
        };
        let ended = repository.repair_hooked(&damaged, &Silent, Some(&hook));
        assert_eq!(readable(&repository), before, "after {changes} changes");
        assert!(repository.locks().unwrap().is_empty());
        let again = repository.repair(&damaged, &Silent).unwrap();
        assert_eq!((again.whole, readable(&repository)), (0, before.clone()));
        partly += u32::from(again.packs < 2);
        assert_eq!(broken(&repository), [], "what is damaged is in the index no more");
        // The volume still has everything but the first content of `0`.
        let third = bench.back_up(&repository, "third");
        for whole in [&snapshots[1], &third] {
            repository.verify(whole, VerifyDepth::Data, &Silent).unwrap();
        }
        std::fs::remove_dir_all(bench.at(&name)).unwrap();
        if let Ok(report) = ended {
            let saved = u64::try_from(damaged.len() * 3 - 2).unwrap();
            assert!(report.packs == 2 && report.lost == 2 && report.saved >= saved, "{report:?}");
            break;
        }
        changes += 1;
    }
    assert!(changes >= 5 && partly >= 1, "{changes} changes, {partly} began again in the middle");
}

#[test]
fn the_index_is_changed_only_under_a_lock_that_is_held() {
    let bench = Bench::new();
    let (repository, _) = spoiled(&bench);
    let files = || (list_ids(repository.storage(), FileType::Index).unwrap(), pack_bytes(&repository));
    let (damaged, before) = (broken(&repository), files());
    let lock = repository.lock_for_removing(&Silent, Duration::ZERO).unwrap();
    let repairing = Pruning { repository: &repository, progress: &Silent, lock, looked: Cell::new(None), hook: None };
    repository.unlock(Unlock::All).unwrap();
    assert!(matches!(repairing.repair(&damaged), Err(End::LostLock)));
    assert_eq!(files(), before);
}

#[test]
fn what_has_another_whole_copy_is_not_lost() {
    let spoil = |repository: &Repository, packs: &Packs| {
        packs.iter().for_each(|(name, _)| flip(repository, name, 20));
    };
    for generation in 0..2 {
        let bench = Bench::new();
        let (repository, snapshots, packs) = stored_twice(&bench);
        spoil(&repository, &packs[generation]);
        let damaged = broken(&repository);
        let report = repository.repair(&damaged, &Silent).unwrap();
        let packs = packs[generation].len() as u64;
        assert_eq!(report, RepairReport { packs, whole: 0, saved: 0, lost: 0 }, "generation {generation}");
        for one in &snapshots {
            repository.verify(one, VerifyDepth::Data, &Silent).unwrap();
        }
    }
    // The same blob is damaged in one copy, and another one in the other: together they are whole.
    let bench = Bench::new();
    let (repository, snapshots, packs) = stored_twice(&bench);
    spoil(&repository, &packs[0]);
    for (name, content) in packs[1].iter().filter(|(_, content)| content.len() > 50_000) {
        flip(&repository, name, content.len() / 2);
    }
    let damaged = broken(&repository);
    let report = repository.repair(&damaged, &Silent).unwrap();
    assert!(report.packs == damaged.len() as u64 && report.saved > 0 && report.lost == 0, "{report:?}");
    for one in &snapshots {
        repository.verify(one, VerifyDepth::Data, &Silent).unwrap();
    }
}

#[test]
fn a_pack_that_is_whole_or_unknown_is_left_alone() {
    let bench = Bench::new();
    let (repository, [_, second]) = spoiled(&bench);
    let damaged = broken(&repository);
    damaged.iter().for_each(|pack| flip(&repository, &file_name(FileType::Pack, &pack.0), 20));
    let indexes = list_ids(repository.storage(), FileType::Index).unwrap();
    let report = repository.repair(&[damaged.clone(), vec![PackId(Id::random())]].concat(), &Silent).unwrap();
    assert_eq!(report, RepairReport { whole: 2, ..RepairReport::default() });
    assert_eq!(list_ids(repository.storage(), FileType::Index).unwrap(), indexes);
    repository.verify(&second, VerifyDepth::Data, &Silent).unwrap();
}
