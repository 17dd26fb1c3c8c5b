//! Locks of every owner, age and kind, and what is made of them.

use super::*;
use crate::{Location, Password, RepositoryPath, Silent};
use jiff::SignedDuration;
use tempfile::TempDir;

struct Bench {
    _folder: TempDir,
    repository: Repository,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Local { root: folder.path().to_owned() };
        let path = RepositoryPath::parse("r").unwrap();
        let repository = Repository::open_or_init(&location, &path, &Password::new("secret").unwrap()).unwrap();
        Self { _folder: folder, repository }
    }

    /// Puts a lock there as somebody else would.
    fn put(&self, user: &str, host: &str, pid: u32, minutes: i64, exclusive: bool) {
        let time = Timestamp::now() - SignedDuration::from_mins(minutes);
        let (hostname, username) = (host.to_owned(), user.to_owned());
        let file = LockFile { time, exclusive, hostname, username, pid: pid as i32, uid: 0, gid: 0 };
        let sealed = self.repository.seal().seal(&serde_json::to_vec(&file).unwrap()).unwrap();
        let name = file_name_of_lock(&Id::new(hash(&sealed)));
        self.repository.storage().write(&name, vec![sealed.into()], Put::Create).unwrap();
    }

    fn try_lock(&self, uid: &str) -> Result<Held, Fault> {
        self.repository.lock_patiently(&format!("lvault {uid} 1"), &Silent, Duration::ZERO)
    }

    fn owners(&self) -> Vec<String> {
        let locks = self.repository.locks().unwrap();
        let mut owners: Vec<_> = locks.iter().map(|lock| lock.owner.split(" on ").next().unwrap().to_owned()).collect();
        owners.sort();
        owners
    }
}

/// A process that is certainly gone.
const NOBODY: u32 = 0x7fff_fff0;

#[test]
fn a_lock_lasts_as_long_as_its_holder() {
    let bench = Bench::new();
    let held = bench.try_lock("a").unwrap();
    let reader = bench.repository.lock_for_reading(&Silent).unwrap();
    assert_eq!(bench.owners(), ["lvault", "lvault a 1"]);
    assert!(held.is_held().unwrap());
    let locks = bench.repository.locks().unwrap();
    assert!(locks.iter().all(|lock| !lock.is_stale && !lock.is_exclusive), "{locks:?}");
    drop((held, reader));
    assert!(bench.owners().is_empty());
}

#[test]
fn our_dead_locks_are_removed_and_nobody_elses() {
    let bench = Bench::new();
    let (me, host) = (std::process::id(), host_name());
    drop(bench.try_lock("z").unwrap());
    bench.put("lvault a 1", "elsewhere", 1, 0, false);
    bench.put("lvault b 1", &host, NOBODY, 0, false);
    bench.put("lvault c 1", "elsewhere", 1, 31, false);
    bench.put("lvault d 1", "elsewhere", 1, 29, false);
    bench.put("lvault e 1", &host, me, 0, false);
    bench.put("lvault f 1", &host, me, 1, false);
    bench.put("lvaulted", &host, NOBODY, 100, false);
    bench.put("root", &host, NOBODY, 100, false);
    let _held = bench.try_lock("a").unwrap();
    assert_eq!(bench.owners(), ["lvault a 1", "lvault d 1", "lvault e 1", "lvaulted", "root"]);
}

#[test]
fn an_exclusive_lock_is_respected_and_named() {
    for (host, pid, minutes, is_stale) in [("elsewhere", 7, 5, false), ("elsewhere", 7, 45, true)] {
        let bench = Bench::new();
        bench.put("root", host, pid, minutes, true);
        let Err(fault) = bench.try_lock("a").map(drop) else { panic!("the lock was ignored") };
        assert!(matches!(fault, Fault::Locked { is_stale: stale, .. } if stale == is_stale), "{fault}");
        let text = fault.to_string();
        assert!(text.contains("root on elsewhere, process 7") && text.contains(&format!("{minutes} min")), "{text}");
        assert_eq!(bench.owners(), ["root"], "the own lock was not taken back");
        assert_eq!(bench.repository.unlock(Unlock::Stale).unwrap().len(), usize::from(is_stale));
        bench.repository.unlock(Unlock::All).unwrap();
        bench.try_lock("a").unwrap();
    }
}

#[test]
fn what_cannot_be_read_counts_as_exclusive() {
    let bench = Bench::new();
    let name = file_name_of_lock(&Id::new([7; 32]));
    bench.repository.storage().write(&name, vec!["garbage".into()], Put::Create).unwrap();
    assert!(matches!(bench.try_lock("a").map(drop), Err(Fault::Locked { is_stale: false, .. })));
    assert_eq!(bench.repository.unlock(Unlock::Stale).unwrap(), []);
    assert_eq!(bench.repository.unlock(Unlock::All).unwrap().len(), 1);
}

#[test]
fn a_renewed_lock_is_another_file_and_a_removed_one_stays_removed() {
    let bench = Bench::new();
    let held = bench.try_lock("a").unwrap();
    let before = lock(&held.current).id;
    renew(&held.locks, &held.current, "lvault a 1", false);
    assert_ne!(lock(&held.current).id, before);
    assert_eq!(bench.owners(), ["lvault a 1"]);
    assert!(held.is_held().unwrap());
    bench.repository.unlock(Unlock::All).unwrap();
    renew(&held.locks, &held.current, "lvault a 1", false);
    assert!(bench.owners().is_empty());
    assert!(!held.is_held().unwrap());
}

#[test]
fn a_lock_that_was_not_renewed_is_not_counted_on() {
    let bench = Bench::new();
    let held = bench.try_lock("a").unwrap();
    if let Some(past) = Instant::now().checked_sub(TRUSTED) {
        lock(&held.current).renewed = past;
        assert!(!held.is_held().unwrap());
    }
}

fn lock_all(bench: &Bench) -> Result<Held, Fault> {
    bench.repository.lock_for_removing(&Silent, Duration::ZERO)
}

#[test]
fn whoever_removes_waits_for_everybody_and_everybody_for_it() {
    let bench = Bench::new();
    let held = bench.try_lock("a").unwrap();
    let Err(Fault::Locked { is_stale: false, lock }) = lock_all(&bench).map(drop) else {
        panic!("a backup was passed")
    };
    assert!(lock.contains("lvault a 1"), "{lock}");
    assert_eq!(bench.owners(), ["lvault a 1"]);
    drop(held);
    let exclusive = lock_all(&bench).unwrap();
    for locked in [bench.try_lock("a").map(drop), lock_all(&bench).map(drop)] {
        let Err(Fault::Locked { is_stale: false, lock }) = locked else { panic!("a prune was passed") };
        assert!(lock.contains("an exclusive lock of lvault prune"), "{lock}");
    }
    drop(exclusive);
    bench.try_lock("a").unwrap();
}

#[test]
fn a_dead_prune_stands_in_nobodys_way() {
    let (me, host) = (std::process::id(), host_name());
    for (host, pid, minutes) in [(host.as_str(), NOBODY, 0), ("elsewhere", 1, 31), (host.as_str(), me, 10)] {
        let bench = Bench::new();
        bench.put("lvault prune", host, pid, minutes, true);
        drop(bench.try_lock("a").unwrap());
        bench.put("lvault prune", host, pid, minutes, true);
        drop(lock_all(&bench).unwrap());
        assert!(bench.owners().is_empty());
    }
}

#[test]
fn readers_of_an_attempt_clear_up_after_it_and_so_does_its_end() {
    let bench = Bench::new();
    let fill = || {
        for user in ["lvault a 1", "lvault a 2", "lvault ab 1", "lvault", "root"] {
            bench.put(user, "elsewhere", 1, 0, false);
        }
    };
    fill();
    let key = Key::new("a", 1).unwrap();
    let reader = bench.repository.clone().acting_for(&key).lock_for_reading(&Silent).unwrap();
    assert_eq!(bench.owners(), ["lvault", "lvault a 1", "lvault a 2", "lvault ab 1", "root"]);
    drop(reader);
    assert_eq!(bench.owners(), ["lvault", "lvault a 2", "lvault ab 1", "root"], "the dead one's is gone with ours");
    bench.repository.forget("a").unwrap();
    assert_eq!(bench.owners(), ["lvault", "lvault ab 1", "root"]);
}
