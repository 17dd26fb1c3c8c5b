//! A prune that ends before each of its changes, and what is left then.

use super::*;
use crate::storage::Storage;
use crate::{
    BackUp, ChangeDetection, Host, Key, Location, OnReadError, Password, ReadData, RepositoryPath, Silent, SnapshotId,
    SourcePath, Unlock, VerifyDepth,
};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

mod repair;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["storage", "volume"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repository(&self, storage: &str) -> Repository {
        let location = Location::Local { root: self.at(storage) };
        let (path, password) = (RepositoryPath::parse("r").unwrap(), Password::new("secret").unwrap());
        Repository::open_or_init(&location, &path, &password).unwrap()
    }

    fn write(&self, name: &str, seed: u64) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let noise = (0..20_000 / 8).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        std::fs::write(self.at("volume").join(name), noise.collect::<Vec<u8>>()).unwrap();
    }

    fn back_up(&self, repository: &Repository, uid: &str) -> SnapshotId {
        let what = BackUp {
            root: self.at("volume"),
            as_path: SourcePath::new("/data").unwrap(),
            host: Host::new("host").unwrap(),
            key: Key::new(uid, 1).unwrap(),
            tags: Vec::new(),
            time: Timestamp::now(),
            change_detection: ChangeDetection::ChangeTime,
            on_read_error: OnReadError::Fail,
        };
        repository.back_up(&what, Arc::new(Silent)).unwrap().snapshot
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn pack_bytes(repository: &Repository) -> u64 {
    list_ids(repository.storage(), FileType::Pack).unwrap().iter().map(|(_, size)| size).sum()
}

/// One snapshot that shares half of its files with forgotten ones, which have packs of their own beside; a pack that no
/// index names; and more small index files than are left alone.
fn littered(bench: &Bench) -> (Repository, SnapshotId) {
    let repository = bench.repository("storage");
    for number in 0..10 {
        bench.write(&number.to_string(), number);
    }
    bench.back_up(&repository, "first");
    for number in 0..5 {
        bench.write(&number.to_string(), 100 + number);
    }
    bench.back_up(&repository, "second");
    for number in 0..u64::try_from(indexes::MANY).unwrap() {
        bench.write("0", 200 + number);
        bench.back_up(&repository, &format!("more-{number}"));
    }
    bench.write("1", 300);
    let kept = bench.back_up(&repository, "kept");
    let stray = Id::random();
    repository
        .storage()
        .write(&file_name(FileType::Pack, &stray), vec!["stray".into()], crate::storage::Put::Create)
        .unwrap();
    for uid in ["first", "second"] {
        repository.forget(uid).unwrap();
    }
    for number in 0..indexes::MANY {
        repository.forget(&format!("more-{number}")).unwrap();
    }
    (repository, kept)
}

const ALL: Prune = Prune { max_unused: 0, time: Duration::from_secs(60), patience: Duration::ZERO };

#[test]
fn nothing_is_left_that_nobody_needs() {
    let bench = Bench::new();
    let (repository, kept) = littered(&bench);
    let space = repository.space(&Silent).unwrap();
    let report = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!(report.before, space);
    assert!(report.packs_removed > 10 && report.packs_repacked >= 2 && report.bytes_written > 0, "{report:?}");
    assert_eq!((report.after.reclaimable, report.unfinished, report.damaged.len()), (0, None, 0), "{report:?}");
    assert_eq!(report.after.total, pack_bytes(&repository));
    assert!((200_000..215_000).contains(&report.after.total), "{report:?}");
    repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
    let check = repository.check(ReadData::Everything, &Silent).unwrap();
    assert_eq!((check.damages, check.warnings), (vec![], vec![]));
    let indexes = list_ids(repository.storage(), FileType::Index).unwrap().len();
    assert!(indexes <= 2, "{indexes} index files");
    let again = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!((again.before, again.packs_removed, again.packs_repacked), (report.after, 0, 0));
    assert!(repository.locks().unwrap().is_empty());
    assert_eq!(bench.back_up(&repository, "kept-2").as_str().len(), 64);
}

#[test]
fn a_prune_that_ends_before_any_of_its_changes_leaves_everything_whole() {
    let bench = Bench::new();
    let (original, kept) = littered(&bench);
    let mut changes = 0_usize;
    loop {
        let name = format!("storage-{changes}");
        copy(&bench.at("storage"), &bench.at(&name));
        // Opening each copy by its password would take longer than everything else.
        let location = Location::Local { root: bench.at(&name) };
        let storage = Storage::of_repository(&location, &RepositoryPath::parse("r").unwrap()).unwrap();
        let (repository, left) = (original.copied_to(storage), Cell::new(changes));
        let hook = || match left.replace(left.get().saturating_sub(1)) {
            0 => Err(Fault::system("the end")),
            _ => Ok(()),
        };
        let ended = repository.prune_hooked(&ALL, &Silent, Some(&hook));
        let check = repository.check(ReadData::Everything, &Silent).unwrap();
        assert_eq!(check.damages, [], "after {changes} changes");
        repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
        // What a restic that trusts the index would find there is there.
        let indexed = repository.indexed().unwrap();
        let packs: HashMap<Id, u64> = list_ids(repository.storage(), FileType::Pack).unwrap().into_iter().collect();
        assert!(indexed.packs().iter().all(|pack| packs.contains_key(pack)), "after {changes} changes");
        let report = repository.prune(&ALL, &Silent).unwrap();
        assert_eq!((report.after.reclaimable, report.after.total), (0, pack_bytes(&repository)));
        repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
        std::fs::remove_dir_all(bench.at(&name)).unwrap();
        if ended.is_ok() {
            break;
        }
        changes += 1;
    }
    assert!(changes > 30, "only {changes} changes");
}

#[test]
fn nothing_is_removed_when_something_that_is_needed_is_missing_or_unreadable() {
    let bench = Bench::new();
    let (repository, _) = littered(&bench);
    let files = |tpe| list_ids(repository.storage(), tpe).unwrap().into_iter().map(move |(id, _)| file_name(tpe, &id));
    let before = pack_bytes(&repository);
    for name in files(FileType::Index).chain(files(FileType::Snapshot)) {
        let content = repository.storage().read(&name).unwrap();
        let mut broken = content.to_vec();
        broken[40] ^= 1;
        repository.storage().write(&name, vec![broken.into()], crate::storage::Put::Overwrite).unwrap();
        let error = repository.prune(&ALL, &Silent).unwrap_err();
        assert!(matches!(error, PruneError::Repository { fault: Fault::Damaged { .. }, .. }), "{error}");
        repository.storage().write(&name, vec![content], crate::storage::Put::Overwrite).unwrap();
    }
    let mut missing = 0;
    for name in files(FileType::Index).collect::<Vec<_>>() {
        let content = repository.storage().read(&name).unwrap();
        repository.storage().delete(&name).unwrap();
        if let Err(error) = repository.plan(0, &Silent).map(drop) {
            missing += 1;
            assert!(matches!(error, End::Missing { .. }), "{error:?}");
            let told = repository.prune(&ALL, &Silent).unwrap_err();
            assert!(told.to_string().contains("lacks"), "{told}");
            assert_eq!(told.retry(), Retry::AfterRemedy);
        }
        repository.storage().write(&name, vec![content], crate::storage::Put::Overwrite).unwrap();
    }
    assert!(missing >= 2, "{missing}");
    assert_eq!(pack_bytes(&repository), before);
    repository.prune(&ALL, &Silent).unwrap();
}

/// Names of packs, and what they hold.
type Packs = Vec<(String, Bytes)>;

/// Two snapshots of the same content, each with packs of its own: those of the first were away while the second was made.
fn stored_twice(bench: &Bench) -> (Repository, [SnapshotId; 2], [Packs; 2]) {
    let repository = bench.repository("storage");
    for number in 0..5 {
        bench.write(&number.to_string(), number);
    }
    let first = bench.back_up(&repository, "first");
    let (storage, name) = (repository.storage(), |id: &Id| file_name(FileType::Pack, id));
    let packs = || list_ids(storage, FileType::Pack).unwrap().into_iter().map(|(id, _)| name(&id));
    let read = |name: String| (name.clone(), storage.read(&name).unwrap());
    let of_first: Vec<_> = packs().map(read).collect();
    of_first.iter().for_each(|(name, _)| storage.delete(name).unwrap());
    let second = bench.back_up(&repository, "second");
    let of_second: Vec<_> = packs().map(read).collect();
    assert!(!of_second.is_empty(), "everything was stored again");
    for (name, content) in &of_first {
        storage.write(name, vec![content.clone()], crate::storage::Put::Create).unwrap();
    }
    (repository, [first, second], [of_first, of_second])
}

#[test]
fn of_what_stands_in_two_packs_the_whole_copy_is_kept() {
    let cut = |repository: &Repository, packs: &[(String, Bytes)]| {
        for (name, content) in packs {
            let half = content.slice(..content.len() / 2);
            repository.storage().write(name, vec![half], crate::storage::Put::Overwrite).unwrap();
        }
    };
    for generation in 0..2 {
        let bench = Bench::new();
        let (repository, snapshots, packs) = stored_twice(&bench);
        cut(&repository, &packs[generation]);
        repository.prune(&ALL, &Silent).unwrap();
        for snapshot in &snapshots {
            repository.verify(snapshot, VerifyDepth::Data, &Silent).unwrap();
        }
    }
    let bench = Bench::new();
    let (repository, _, packs) = stored_twice(&bench);
    // Of the trees nothing is cut: whoever cannot read them ends before.
    let of_data =
        |packs: &Packs| -> Packs { packs.iter().filter(|(_, content)| content.len() > 50_000).cloned().collect() };
    packs.iter().for_each(|packs| cut(&repository, &of_data(packs)));
    let before = pack_bytes(&repository);
    let told = repository.prune(&ALL, &Silent).unwrap_err().to_string();
    assert!(told.contains("lacks"), "{told}");
    assert_eq!(pack_bytes(&repository), before, "nothing is removed");
}

#[test]
fn a_pack_is_removed_only_under_a_lock_that_is_held() {
    let bench = Bench::new();
    let (repository, kept) = littered(&bench);
    let before = pack_bytes(&repository);
    let lock = repository.lock_for_removing(&Silent, Duration::ZERO).unwrap();
    let pruning = Pruning { repository: &repository, progress: &Silent, lock, looked: Cell::new(None), hook: None };
    repository.unlock(Unlock::All).unwrap();
    assert!(matches!(pruning.run(&ALL), Err(End::LostLock)));
    assert_eq!(pack_bytes(&repository), before);
    repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
}

/// Asks for the end once this many packs are done with.
struct Ends {
    after: usize,
    done: AtomicUsize,
}

impl Progress for Ends {
    fn file_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn should_stop(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.after
    }
}

#[test]
fn a_prune_that_is_asked_to_end_does_so_before_its_next_change() {
    let bench = Bench::new();
    let (repository, kept) = littered(&bench);
    for after in [1, 3] {
        let before = list_ids(repository.storage(), FileType::Pack).unwrap().len();
        let asked = Ends { after, done: AtomicUsize::new(0) };
        let ended = repository.prune(&ALL, &asked);
        assert!(matches!(ended, Err(PruneError::Stopped { .. })), "{ended:?}");
        let removed = before - list_ids(repository.storage(), FileType::Pack).unwrap().len();
        assert!(removed > 0, "it had begun");
        assert_eq!(repository.check(ReadData::Everything, &Silent).unwrap().damages, []);
    }
    repository.verify(&kept, VerifyDepth::Data, &Silent).unwrap();
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().after.reclaimable, 0);
}

#[test]
fn small_packs_are_joined_once_they_fill_one_or_are_many() {
    let count = |repository: &Repository| list_ids(repository.storage(), FileType::Pack).unwrap().len();
    let bench = Bench::new();
    let repository = bench.repository("storage");
    for number in 0..plan::MANY_PACKS - 1 {
        bench.write(&number.to_string(), 1000 + number as u64);
        bench.back_up(&repository, &number.to_string());
    }
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().packs_repacked, 0, "they are few, and small");
    assert_eq!(count(&repository), 2 * (plan::MANY_PACKS - 1));
    bench.write("last", 1);
    let last = bench.back_up(&repository, "last");
    let report = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!((report.packs_repacked, count(&repository)), (2 * plan::MANY_PACKS as u64, 2), "{report:?}");
    assert_eq!((report.after.total, report.after.reclaimable), (pack_bytes(&repository), 0));
    repository.verify(&last, VerifyDepth::Data, &Silent).unwrap();
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().packs_repacked, 0, "and not again");

    let bench = Bench::new();
    let repository = bench.repository("storage");
    let grow = |seed: u8| {
        let name = bench.at("volume").join(seed.to_string());
        let noise =
            (0..3_000_000_u32 / 32).flat_map(|at| crate::seal::hash(&[&at.to_be_bytes()[..], &[seed]].concat()));
        std::fs::write(name, noise.collect::<Vec<u8>>()).unwrap();
        bench.back_up(&repository, &seed.to_string())
    };
    (0..5).for_each(|seed| drop(grow(seed)));
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().packs_repacked, 0, "15 MB do not fill a pack");
    let last = grow(5);
    let report = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!((report.packs_repacked, report.packs_removed), (6, 0), "{report:?}");
    repository.verify(&last, VerifyDepth::Data, &Silent).unwrap();
    assert_eq!(repository.prune(&ALL, &Silent).unwrap().packs_repacked, 0);
    assert!(repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
}

#[test]
fn as_much_may_stay_unused_as_was_said_and_time_ends_the_rest() {
    let bench = Bench::new();
    let (repository, _) = littered(&bench);
    let late = repository.prune(&Prune { time: Duration::ZERO, ..ALL }, &Silent).unwrap();
    assert_eq!((late.unfinished, late.packs_repacked), (Some(Unfinished::Time), 0));
    assert!(late.packs_removed > 10 && late.after.reclaimable > 0, "{late:?}");
    assert_eq!(late.after.total, pack_bytes(&repository));
    let lax = repository.prune(&Prune { max_unused: 100, ..ALL }, &Silent).unwrap();
    assert_eq!((lax.packs_repacked, lax.after), (0, late.after));
    let space = repository.space(&Silent).unwrap();
    assert_eq!(space, lax.after);
    let strict = repository.prune(&ALL, &Silent).unwrap();
    assert_eq!((strict.before, strict.after.reclaimable), (space, 0));
}
