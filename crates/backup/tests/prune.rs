//! Prunes as processes that are killed, on full storages, and in turns with plain restic.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    BackUpError, Fault, Location, Prune, PruneError, ReadData, Repository, Silent, Unfinished, Unlock, VerifyDepth,
};
use std::time::Duration;
use support::kill::{self, Kills};
use support::{Bench, Mount, PASSWORD, PATH, command, inventory, is_root, noise, password, path, restic, write};

const ALL: Prune = Prune { max_unused: 0, time: Duration::from_secs(120), patience: Duration::from_secs(5) };

/// Not a test by itself: prunes the repository of a bench, as a process that can be killed.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_prunes() {
    let location = Location::Local { root: kill::folder().join("storage") };
    let repository = Repository::open(&location, &path(PATH), &password(PASSWORD)).unwrap();
    // The parent copies and kills from here on.
    kill::begin();
    repository.prune(&ALL, &Silent).unwrap();
}

/// Three snapshots, the second of which is forgotten; most packs hold parts of several.
fn litter(bench: &Bench, repository: &Repository) {
    for (number, uid) in ["a", "b", "c"].into_iter().enumerate() {
        let number = number as u64;
        for file in 0..40 {
            if number == 0 || file % 3 == number {
                write(bench.volume().join(file.to_string()), noise(number * 1000 + file, 300_000));
            }
        }
        write(bench.volume().join("big"), noise(number, 20 << 20));
        bench.back_up(repository, uid, 1).unwrap();
    }
    repository.forget("a").unwrap();
    repository.forget("b").unwrap();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    assert!(command("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// As usual; each costs about two seconds.
const KILLS: u32 = 25;

#[test]
fn a_killed_prune_leaves_everything_whole() {
    let bench = Bench::new();
    let repository = bench.repository();
    litter(&bench, &repository);
    let (kept, saved) = (repository.snapshots().unwrap().remove(0).id, bench.folder.path().join("saved"));
    copy(&bench.storage(), &saved);
    let reset = || {
        std::fs::remove_dir_all(bench.storage()).unwrap();
        copy(&saved, &bench.storage());
    };
    let mut kills = Kills::of(&bench, "child_prunes", KILLS, reset);
    let mut changed = 0;
    for number in 0..kills.count {
        reset();
        kills.kill(&bench, number);
        changed += u32::from(repository.space(&Silent).unwrap().total != space_of(&saved));
        assert!(repository.locks().unwrap().iter().all(|lock| lock.is_stale));
        repository.unlock(Unlock::Stale).unwrap();
        bench.assert_restic_is_content();
        repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
    }
    let Kills { killed, count, .. } = kills;
    eprintln!("{killed} of {count} were killed in the middle, {changed} after they had changed something");
    assert!(killed > 5 && changed > 2, "{killed} killed, {changed} of them after a change");
    let report = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!(report.after.reclaimable, 0);
    let target = bench.empty("target");
    repository.restore(&kept, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
}

/// Bytes of all packs below a storage.
fn space_of(storage: &std::path::Path) -> u64 {
    let folders = std::fs::read_dir(storage.join(PATH).join("data")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn the_successor_of_a_killed_prune_finds_the_way_free() {
    let bench = Bench::new();
    let repository = bench.repository();
    litter(&bench, &repository);
    let mut child = kill::start(&bench, "child_prunes");
    while repository.locks().unwrap().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let locks = repository.locks().unwrap();
    assert!(locks.iter().any(|lock| lock.is_exclusive && lock.is_stale), "{locks:?}");
    bench.back_up(&repository, "d", 1).unwrap();
    assert_eq!(repository.locks().unwrap(), []);
    repository.prune(&ALL, &Silent).unwrap();
    bench.assert_restic_is_content();
}

#[test]
fn a_prune_waits_for_a_backup_and_is_refused_by_name_after_its_patience() {
    let bench = Bench::new();
    let repository = bench.repository();
    litter(&bench, &repository);
    // restic holds its lock while it waits for its input.
    let mut reader = command("restic")
        .args(["--no-cache", "-r"])
        .arg(bench.repository_folder())
        .args(["backup", "--stdin"])
        .env("RESTIC_PASSWORD", PASSWORD)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while repository.locks().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = repository.space(&Silent).unwrap();
    let refused = repository.prune(&Prune { patience: Duration::from_secs(1), ..ALL }, &Silent).unwrap_err();
    assert!(
        matches!(&refused, PruneError::Repository { fault: Fault::Locked { is_stale: false, .. }, .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains(&format!("process {}", reader.id())), "{refused}");
    assert_eq!(repository.space(&Silent).unwrap(), before);
    let (waiting, theirs) = (repository.clone(), ALL);
    let pruning =
        std::thread::spawn(move || waiting.prune(&Prune { patience: Duration::from_secs(60), ..theirs }, &Silent));
    std::thread::sleep(Duration::from_millis(1500));
    std::io::Write::write_all(&mut reader.stdin.take().unwrap(), b"something").unwrap();
    assert!(reader.wait().unwrap().success());
    let report = pruning.join().unwrap().unwrap();
    assert!(report.packs_removed + report.packs_repacked > 0, "{report:?}");
    bench.assert_restic_is_content();
}

#[test]
fn restic_and_lvault_prune_and_back_up_in_turns() {
    let bench = Bench::new();
    let repository = bench.repository();
    litter(&bench, &repository);
    let theirs = |arguments: &[&str]| {
        let output = restic(&bench.repository_folder(), arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let ours = |uid: &str, seed| {
        for file in [3_u64, 7, 8] {
            write(bench.volume().join(file.to_string()), noise(seed + file, 300_000));
        }
        bench.back_up(&repository, uid, 1).unwrap()
    };
    let whole = |snapshots: usize| {
        let found = repository.snapshots().unwrap();
        assert_eq!(found.len(), snapshots);
        for snapshot in found {
            repository.verify(&snapshot.id, VerifyDepth::Data, &Silent).unwrap();
        }
        assert!(repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
        bench.assert_restic_is_content();
    };
    let volume = bench.volume();
    let volume = volume.to_str().unwrap();
    ours("d", 5000);
    let before = repository.snapshots().unwrap().remove(0).id;
    theirs(&["forget", before.as_str(), "--prune", "--max-unused", "0"]);
    whole(1);
    ours("e", 6000);
    theirs(&["backup", volume, "--tag", "foreign"]);
    whole(3);
    repository.forget("d").unwrap();
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().after.reclaimable, 0);
    whole(2);
    ours("f", 7000);
    theirs(&["backup", volume, "--tag", "foreign"]);
    theirs(&["forget", "--tag", "foreign", "--keep-last", "1", "--prune", "--max-unused", "0"]);
    let space = repository.space(&Silent).unwrap();
    assert_eq!(space.reclaimable, 0, "restic and lvault agree about what is needed");
    ours("g", 8000);
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().after.reclaimable, 0);
    theirs(&["backup", volume, "--tag", "foreign"]);
    whole(5);
}

#[test]
fn a_full_storage_is_pruned() {
    if !is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    let bench = Bench::new();
    let _mount = Mount::tmpfs(&bench.storage(), "size=64m");
    let repository = bench.repository();
    let mut kept = None;
    for number in 0.. {
        write(bench.volume().join("big"), noise(number, 10 << 20));
        write(bench.volume().join("small"), noise(100 + number, 200_000));
        match bench.back_up(&repository, &number.to_string(), 1) {
            Ok(report) => kept = Some(report.snapshot),
            Err(err) => {
                assert!(matches!(err, BackUpError::Repository { .. }), "{err}");
                break;
            }
        }
    }
    // Not one more block is free.
    let ballast = bench.storage().join("ballast");
    let mut filled = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut filled, &[1; 4096]).is_ok() {}
    let refused = repository.prune(&ALL, &Silent).unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    let snapshots = repository.snapshots().unwrap();
    let kept = kept.unwrap();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.id != kept) {
        repository.forget(snapshot.key.as_ref().unwrap().uid()).unwrap();
    }
    let report = repository.prune(&ALL, &Silent).unwrap();
    assert!(report.after.total < report.before.total / 2, "{report:?}");
    eprintln!("{report:?}");
    assert!(matches!(report.unfinished, None | Some(Unfinished::Full)));
    repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
    bench.assert_restic_is_content();
    bench.back_up(&repository, "again", 1).unwrap();
}

/// A needed blob that is damaged keeps its pack, and everything else goes on.
#[test]
fn a_damaged_pack_is_kept_and_named() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::new();
    let repository = bench.repository();
    for file in 0..20 {
        write(bench.volume().join(file.to_string()), noise(file, 50_000));
    }
    bench.back_up(&repository, "a", 1).unwrap();
    for file in 0..10 {
        write(bench.volume().join(file.to_string()), noise(1000 + file, 50_000));
    }
    bench.back_up(&repository, "b", 1).unwrap();
    repository.forget("a").unwrap();
    let folders = std::fs::read_dir(bench.repository_folder().join("data")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let largest = files.map(|file| file.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&largest).unwrap();
    for at in (0..largest.metadata().unwrap().len()).step_by(10_000) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    let report = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!((report.damaged.len(), report.packs_repacked), (1, 0), "{report:?}");
    assert!(report.damaged[0].contains(largest.file_name().unwrap().to_str().unwrap()), "{report:?}");
    assert!(largest.exists());
}
