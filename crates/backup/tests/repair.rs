//! Damaged packs are taken out of the index; the next backup stores again what the volume still has, and old snapshots are
//! whole again.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    CauseKind, Fault, Location, PackId, Prune, PruneError, ReadData, RepairError, Repository, Silent, SnapshotId,
    Unlock, VerifyDepth,
};
use lvault_faults::s3::Mishap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::bucket::Bucket;
use support::kill::{self, Kills};
use support::{Bench, PASSWORD, PATH, command, inventory, noise, password, path, write};

const ALL: Prune = Prune { max_unused: 0, time: Duration::from_secs(120), patience: Duration::from_secs(5) };

fn packs(storage: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(storage.join(PATH).join("data")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

fn flip(file: &Path, at: usize) {
    let mut content = std::fs::read(file).unwrap();
    content[at] ^= 0x40;
    write(file, content);
}

/// Sixty files in two folders, and one in several parts.
fn fill(volume: &Path) {
    for (number, folder) in ["one", "two"].into_iter().enumerate() {
        std::fs::create_dir(volume.join(folder)).unwrap();
        for file in 0..30 {
            write(volume.join(folder).join(file.to_string()), noise(100 * number as u64 + file, 70_000));
        }
    }
    write(volume.join("big"), noise(5000, 20 << 20));
}

/// A bit in every pack: of data, and of trees.
fn spoil(storage: &Path) -> Vec<PathBuf> {
    let packs = packs(storage);
    packs.iter().for_each(|pack| flip(pack, 50));
    packs
}

fn broken(repository: &Repository) -> Vec<PackId> {
    repository.check(ReadData::Everything, &Silent).unwrap().broken_packs
}

fn assert_restores(bench: &Bench, repository: &Repository, snapshot: &SnapshotId, name: &str) {
    let target = bench.empty(name);
    repository.restore(snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
}

#[test]
fn the_backup_after_a_repair_makes_old_snapshots_whole() {
    let bench = Bench::new();
    fill(&bench.volume());
    let repository = bench.repository();
    let old = bench.back_up(&repository, "old", 1).unwrap().snapshot;
    let spoiled = spoil(&bench.storage());
    let found = repository.check(ReadData::Everything, &Silent).unwrap();
    assert_eq!(found.broken_packs.len(), spoiled.len());
    assert!(found.damages.iter().any(|damage| damage.snapshots == [old.clone()]), "{found:?}");
    let report = repository.repair(&found.broken_packs, &Silent).unwrap();
    assert_eq!((report.packs, report.lost), (spoiled.len() as u64, spoiled.len() as u64), "{report:?}");
    assert!(report.saved > 50, "{report:?}");
    assert!(spoiled.iter().all(|pack| pack.exists()), "no pack is removed");
    assert!(repository.verify(&old, VerifyDepth::Structure, &Silent).is_err(), "something is missing as yet");
    let refused = repository.prune(&ALL, &Silent).unwrap_err();
    assert!(matches!(refused, PruneError::Missing { .. } | PruneError::Repository { .. }), "{refused}");

    let new = bench.back_up(&repository, "new", 1).unwrap();
    assert!(new.added_bytes < 12 << 20, "what was whole is not stored again: {new:?}");
    repository.verify(&new.snapshot, VerifyDepth::Data, &Silent).unwrap();
    bench.assert_restic_is_content();
    assert_restores(&bench, &repository, &old, "target");
    assert!(repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
    repository.prune(&ALL, &Silent).unwrap();
    assert!(spoiled.iter().all(|pack| !pack.exists()), "nothing in them is used");
    bench.assert_restic_is_content();
    assert_restores(&bench, &repository, &old, "another target");
}

#[test]
fn what_the_volume_has_no_more_is_named_by_the_check() {
    let bench = Bench::new();
    fill(&bench.volume());
    let repository = bench.repository();
    let old = bench.back_up(&repository, "old", 1).unwrap().snapshot;
    let largest = packs(&bench.storage()).into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    // A hundred thousand bytes hold all of one small file, or a piece of the big one.
    let mut content = std::fs::read(&largest).unwrap();
    content.iter_mut().skip(1000).take(150_000).for_each(|byte| *byte ^= 1);
    write(&largest, content);
    let concerned = repository.check(ReadData::Everything, &Silent).unwrap().damages.remove(0).files;
    assert!(!concerned.is_empty());
    for file in &concerned {
        std::fs::remove_file(bench.volume().join(file.strip_prefix("/data").unwrap())).unwrap();
    }
    let report = repository.repair(&broken(&repository), &Silent).unwrap();
    assert!(report.lost >= 1, "{report:?}");
    let new = bench.back_up(&repository, "new", 1).unwrap().snapshot;
    assert_restores(&bench, &repository, &new, "target");
    let found = repository.check(ReadData::Everything, &Silent).unwrap();
    let [damage] = found.damages.as_slice() else { panic!("{found:?}") };
    assert_eq!((&damage.snapshots, &damage.files), (&vec![old], &concerned));
    assert!(damage.what.contains("in no index"), "{damage:?}");
    assert!(matches!(repository.prune(&ALL, &Silent), Err(PruneError::Missing { .. })));
    repository.forget("old").unwrap();
    repository.prune(&ALL, &Silent).unwrap();
    bench.assert_restic_is_content();
}

/// A link that leads to itself cannot be read, by nobody.
#[test]
fn a_pack_that_the_storage_cannot_read_is_not_damaged() {
    let bench = Bench::new();
    fill(&bench.volume());
    let repository = bench.repository();
    let old = bench.back_up(&repository, "old", 1).unwrap().snapshot;
    let spoiled = spoil(&bench.storage());
    let damaged = broken(&repository);
    let indexes = || std::fs::read_dir(bench.repository_folder().join("index")).unwrap().count();
    let (before, away) = (indexes(), bench.folder.path().join("away"));
    std::fs::rename(&spoiled[0], &away).unwrap();
    std::os::unix::fs::symlink(&spoiled[0], &spoiled[0]).unwrap();
    let refused = repository.repair(&damaged, &Silent).unwrap_err();
    assert!(matches!(refused, RepairError::Repository { fault: Fault::Storage(_), .. }), "{refused:?}");
    assert_eq!((indexes(), broken_again(&bench, &spoiled[0], &away)), (before, damaged.len()));
    repository.repair(&damaged, &Silent).unwrap();
    bench.back_up(&repository, "new", 1).unwrap();
    assert_restores(&bench, &repository, &old, "target");
}

/// Puts a pack back, and counts what is broken.
fn broken_again(bench: &Bench, pack: &Path, away: &Path) -> usize {
    std::fs::remove_file(pack).unwrap();
    std::fs::rename(away, pack).unwrap();
    broken(&bench.repository()).len()
}

#[test]
fn in_a_bucket_a_server_that_does_not_answer_is_no_damage() {
    let bucket = Bucket::new();
    fill(&bucket.bench.volume());
    let patient = bucket.remote();
    let options = lvault_backup::RemoteOptions { patience: Duration::from_secs(2), ..patient.options.clone() };
    let location = Location::Remote(lvault_backup::Remote { options, ..patient });
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let old = bucket.bench.back_up(&repository, "old", 1).unwrap().snapshot;
    let uploaded = |request: &lvault_faults::s3::Request| request.path.contains("/data/data/");
    let first = bucket.proxy.log().into_iter().find(|(it, _)| it.method == "PUT" && uploaded(it)).unwrap().0.path;
    let pack = first.split('?').next().unwrap().to_owned();
    let of_pack = {
        let pack = pack.clone();
        move |method: &str, path: &str| method == "GET" && path.starts_with(&pack)
    };
    // From here on this pack comes with a flipped bit whenever it is read.
    let (flips, refuses) = (of_pack.clone(), of_pack);
    let flip =
        move |request: &lvault_faults::s3::Request| flips(&request.method, &request.path).then_some(Mishap::Flip);
    bucket.proxy.plan(flip.clone());
    let damaged = broken(&repository);
    assert_eq!(damaged.len(), 1);
    assert!(pack.ends_with(&damaged[0].to_string()));
    for (mishap, kind) in [
        (Mishap::Refuse(503, "SlowDown"), CauseKind::Busy),
        (Mishap::Refuse(403, "AccessDenied"), CauseKind::Denied),
        (Mishap::Drop, CauseKind::Interrupted),
    ] {
        let refuses = refuses.clone();
        bucket.proxy.plan(move |request| refuses(&request.method, &request.path).then_some(mishap));
        let refused = repository.repair(&damaged, &Silent).unwrap_err();
        let RepairError::Repository { fault: Fault::Storage(fault), .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(fault.kind(), kind, "{refused}");
        let changes = bucket.proxy.log().into_iter().filter(|(it, _)| {
            (it.method == "PUT" || it.method == "DELETE") && (it.path.contains("/index/") || uploaded(it))
        });
        assert_eq!(changes.count(), 0, "{mishap:?}: nothing is changed");
    }
    bucket.proxy.plan(flip);
    let report = repository.repair(&damaged, &Silent).unwrap();
    assert_eq!(report.packs, 1, "{report:?}");
    let new = bucket.bench.back_up(&repository, "new", 1).unwrap().snapshot;
    for snapshot in [&old, &new] {
        repository.verify(snapshot, VerifyDepth::Data, &Silent).unwrap();
    }
    assert!(broken(&repository).is_empty());
    bucket.assert_restic_is_content();
}

/// Not a test by itself: repairs the repository of a bench, as a process that can be killed.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_repairs() {
    let location = Location::Local { root: kill::folder().join("storage") };
    let repository = Repository::open(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let damaged = broken(&repository);
    kill::begin();
    repository.repair(&damaged, &Silent).unwrap();
}

fn copy(from: &Path, to: &Path) {
    assert!(command("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// As usual.
const KILLS: u32 = 15;

#[test]
fn a_killed_repair_loses_nothing() {
    let bench = Bench::new();
    fill(&bench.volume());
    let repository = bench.repository();
    let old = bench.back_up(&repository, "old", 1).unwrap().snapshot;
    spoil(&bench.storage());
    let saved = bench.folder.path().join("saved");
    copy(&bench.storage(), &saved);
    let reset = || {
        std::fs::remove_dir_all(bench.storage()).unwrap();
        copy(&saved, &bench.storage());
    };
    let mut kills = Kills::of(&bench, "child_repairs", KILLS, reset);
    let mut changed = 0;
    for number in 0..kills.count {
        reset();
        kills.kill(&bench, number);
        changed += u32::from(packs(&bench.storage()).len() != packs(&saved).len());
        assert!(repository.locks().unwrap().iter().all(|lock| lock.is_stale));
        repository.unlock(Unlock::Stale).unwrap();
        repository.repair(&broken(&repository), &Silent).unwrap();
        let new = bench.back_up(&repository, "new", 1).unwrap();
        assert!(new.added_bytes < 12 << 20, "what was whole is not stored again: {new:?}");
        for snapshot in [&old, &new.snapshot] {
            repository.verify(snapshot, VerifyDepth::Data, &Silent).unwrap();
        }
    }
    let Kills { killed, count, .. } = kills;
    eprintln!("{killed} of {count} were killed in the middle, {changed} after they had written something");
    assert!(killed > 3 && changed > 1, "{killed} killed, {changed} of them after a change");
    bench.assert_restic_is_content();
    assert_restores(&bench, &repository, &old, "target");
}
