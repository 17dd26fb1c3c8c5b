//! restic's locks: files that say who uses a repository, so that nobody removes data that another is about to refer to.
//!
//! Whoever reads or adds holds a shared lock; whoever removes data holds an exclusive one. A lock is a file of its own: it is
//! written first, then the others are looked at, and whoever finds a conflict takes its own away again. A holder writes its
//! lock anew every five minutes; one that is half an hour old is stale.
//!
//! What holds for lvault's own locks: no holder commits, and none removes data, when its lock has vanished or was not renewed. So a lock of
//! lvault may be removed when it is stale, when its process is gone from this host, or when it belongs to the same attempt
//! as the one that asks, whose earlier executors are fenced off. Locks of others are never removed unasked.

use crate::backend::{file_name_of_lock, lock};
use crate::fault::Fault;
use crate::labels::Key;
use crate::progress::Progress;
use crate::repository::{Repository, RepositoryError};
use crate::seal::{Seal, hash};
use crate::storage::{Put, Storage};
use jiff::Timestamp;
use rustic_core::Id;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A lock is written anew this often.
const RENEW: Duration = Duration::from_secs(5 * 60);
/// A lock that is older is stale, for restic too.
const STALE: Duration = Duration::from_secs(30 * 60);
/// A holder that could not renew its lock for so long does not count on it any more.
const TRUSTED: Duration = Duration::from_secs(25 * 60);
/// So long a lock of somebody else is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What locks of lvault carry in front of their attempt, where restic writes the name of the user.
pub(crate) const OURS: &str = "lvault";

/// The same with an attempt.
pub(crate) fn user_of(key: &Key) -> String {
    format!("{OURS} {} {}", key.uid(), key.attempt())
}

/// The same for whoever removes data.
const REMOVING: &str = "lvault prune";

/// Whether others may use the repository meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Others who read or add may.
    Shared,
    /// Nobody may.
    Exclusive,
}

/// A lock file, as restic writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LockFile {
    time: Timestamp,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

/// Who uses a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    /// The name of the lock's file.
    pub id: String,
    /// Who holds it: user, host and process. For lvault's own, the user is `lvault` and the attempt.
    pub owner: String,
    /// Whether nobody else may use the repository.
    pub is_exclusive: bool,
    /// When it was last renewed, by its holder's clock; `None` for a file that is no lock.
    pub renewed: Option<Timestamp>,
    /// Whether its holder is gone: not renewed for half an hour, or the process is gone from this host.
    pub is_stale: bool,
}

impl fmt::Display for LockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_exclusive { "an exclusive lock" } else { "a lock" };
        write!(f, "{kind} of {}", self.owner)?;
        if let Some(renewed) = self.renewed {
            let age = Timestamp::now().duration_since(renewed).as_secs().max(0);
            write!(f, ", last renewed {} min ago", age / 60)?;
        }
        if self.is_stale { f.write_str(", whose holder is gone") } else { Ok(()) }
    }
}

/// Which locks to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlock {
    /// Those whose holder is gone.
    Stale,
    /// All of them. Whoever holds one may lose what it does.
    All,
}

/// One lock of the repository, as it was read.
struct Found {
    id: Id,
    file: Option<LockFile>,
}

impl Found {
    fn is_exclusive(&self) -> bool {
        // What cannot be read might be exclusive.
        self.file.as_ref().is_none_or(|file| file.exclusive)
    }

    fn is_stale(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let age = Timestamp::now().duration_since(file.time);
        age.unsigned_abs() > STALE && !age.is_negative() || is_dead(file)
    }

    /// Whether it is lvault's, and nobody commits or removes anything under it any more.
    fn is_ours_and_over(&self, user: &str) -> bool {
        let Some(file) = &self.file else { return false };
        let ours = file.username == OURS || file.username.starts_with(&format!("{OURS} "));
        let same_attempt = file.username == user && user != OURS && !file.exclusive;
        ours && (same_attempt || self.is_stale())
    }

    fn info(&self) -> LockInfo {
        let owner = match &self.file {
            Some(file) => format!("{} on {}, process {}", file.username, file.hostname, file.pid),
            None => "somebody unknown: its file cannot be read".to_owned(),
        };
        LockInfo {
            id: self.id.to_hex().as_str().to_owned(),
            owner,
            is_exclusive: self.is_exclusive(),
            renewed: self.file.as_ref().map(|file| file.time),
            is_stale: self.is_stale(),
        }
    }
}

/// Whether the process ran on this host and is gone.
fn is_dead(file: &LockFile) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let is_gone = |pid| test_kill_process(pid).is_err_and(|err| err == rustix::io::Errno::SRCH);
    // A container that is started again has the number of the one before it.
    let is_of_earlier = own_process() == file.pid && file.time < *BEGAN;
    // A negative number would be asked about as a group of processes.
    let pid = Some(file.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
    file.hostname == host_name() && (is_of_earlier || pid.is_some_and(is_gone))
}

/// No lock of this process is older.
static BEGAN: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

fn own_process() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(any(test, lvault_fuzzing))]
pub(crate) mod fuzzing {
    //! A lock file from its JSON, for the targets of fuzzing.

    use super::{Found, Id, LockFile};

    /// The host that locks of this process name.
    pub(crate) fn host_name() -> String {
        super::host_name()
    }

    /// Reads a lock, and asks all there is to ask of it.
    pub(crate) fn read(json: &[u8]) {
        let found = Found { id: Id::default(), file: serde_json::from_slice::<LockFile>(json).ok() };
        let info = found.info();
        assert_eq!(info.is_exclusive, found.file.as_ref().is_none_or(|file| file.exclusive));
        assert!(!info.to_string().is_empty());
        assert!(!found.is_ours_and_over("lvault a 1") || info.owner.starts_with("lvault"));
    }
}

/// The lock files of a repository.
#[derive(Clone)]
struct Locks {
    storage: Storage,
    seal: Seal,
}

impl Locks {
    /// All locks there are. One that vanishes meanwhile is gone.
    fn read(&self) -> Result<Vec<Found>, Fault> {
        let mut found = Vec::new();
        for (name, _) in self.storage.list("locks")? {
            let Ok(id) = name.parse::<Id>() else { continue };
            let stored = match self.storage.read(&file_name_of_lock(&id)) {
                Ok(stored) => stored,
                Err(err) if err.kind() == crate::storage::CauseKind::Missing => continue,
                Err(err) => return Err(err.into()),
            };
            let json = self.seal.decode_file(&stored).ok();
            found.push(Found { id, file: json.and_then(|json| serde_json::from_slice(&json).ok()) });
        }
        Ok(found)
    }

    fn write(&self, user: &str, exclusive: bool) -> Result<Id, Fault> {
        let file = LockFile {
            time: Timestamp::now().max(*BEGAN),
            exclusive,
            hostname: host_name(),
            username: user.to_owned(),
            pid: own_process(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        let json = serde_json::to_vec(&file).map_err(|err| Fault::system(format!("it makes no JSON: {err}")))?;
        let sealed = self.seal.seal(&json)?;
        let id = Id::new(hash(&sealed));
        self.storage.write(&file_name_of_lock(&id), vec![sealed.into()], Put::Overwrite)?;
        Ok(id)
    }

    fn remove(&self, id: &Id) -> Result<(), Fault> {
        Ok(self.storage.delete(&file_name_of_lock(id))?)
    }
}

/// The lock file that stands for a holder now.
struct Current {
    id: Id,
    renewed: Instant,
}

/// A lock that is held, and renewed by a thread of its own, until it is dropped. A killed holder leaves its file.
pub(crate) struct Held {
    locks: Locks,
    current: Arc<Mutex<Current>>,
    renewer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Held {
    fn new(locks: Locks, user: String, exclusive: bool, id: Id) -> Self {
        let current = Arc::new(Mutex::new(Current { id, renewed: Instant::now() }));
        let (end, ended) = channel::<()>();
        let (shared, theirs) = (Arc::clone(&current), locks.clone());
        let renew = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(RENEW) {
                renew(&theirs, &shared, &user, exclusive);
            }
        };
        let thread = std::thread::Builder::new().name("lvault-lock".to_owned()).spawn(renew);
        // Without a thread the lock is not renewed, and is soon not trusted any more.
        Self { locks, current, renewer: thread.ok().map(|thread| (end, thread)) }
    }

    /// Whether everybody else still sees the lock.
    pub(crate) fn is_held(&self) -> Result<bool, Fault> {
        let current = lock(&self.current);
        let is_there = self.locks.storage.size(&file_name_of_lock(&current.id))?.is_some();
        Ok(is_there && current.renewed.elapsed() < TRUSTED)
    }
}

/// Writes the lock anew, and removes the one before. A lock that somebody has removed stays removed.
fn renew(locks: &Locks, current: &Mutex<Current>, user: &str, exclusive: bool) {
    let mut current = lock(current);
    match locks.storage.size(&file_name_of_lock(&current.id)) {
        Ok(Some(_)) => {}
        Ok(None) => return,
        Err(err) => return tracing::warn!("the lock could not be looked at, which is tried again: {err}"),
    }
    match locks.write(user, exclusive) {
        Ok(id) => {
            let before = std::mem::replace(&mut *current, Current { id, renewed: Instant::now() });
            if let Err(fault) = locks.remove(&before.id) {
                tracing::warn!("an old lock of this process could not be removed: {fault}");
            }
        }
        Err(fault) => tracing::warn!("the lock could not be renewed, which is tried again: {fault}"),
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.renewer.take() {
            drop(end);
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
        if let Err(fault) = self.locks.remove(&lock(&self.current).id) {
            tracing::warn!("the lock of this process could not be removed: {fault}");
        }
    }
}

impl Repository {
    fn lock_files(&self) -> Locks {
        Locks { storage: self.storage().clone(), seal: self.seal().clone() }
    }

    /// All locks of the repository, whoever holds them.
    ///
    /// # Errors
    /// [`RepositoryError::List`].
    pub fn locks(&self) -> Result<Vec<LockInfo>, RepositoryError> {
        let found = self.lock_files().read().map_err(|fault| self.cannot_list(fault))?;
        Ok(found.iter().map(Found::info).collect())
    }

    /// Removes locks, and names those it removed. Idempotent; a crash in the middle leaves some of them.
    ///
    /// # Errors
    /// [`RepositoryError::List`].
    pub fn unlock(&self, which: Unlock) -> Result<Vec<LockInfo>, RepositoryError> {
        let locks = self.lock_files();
        let found = locks.read().map_err(|fault| self.cannot_list(fault))?;
        let is_meant = |lock: &&Found| match which {
            Unlock::Stale => lock.is_stale(),
            Unlock::All => true,
        };
        let mut removed = Vec::new();
        for lock in found.iter().filter(is_meant) {
            locks.remove(&lock.id).map_err(|fault| self.cannot_list(fault))?;
            removed.push(lock.info());
        }
        Ok(removed)
    }

    /// Takes a shared lock for a backup: exclusive ones of others are waited for, for two minutes. Removes what earlier
    /// executors of the same attempt, and dead ones of lvault, have left.
    pub(crate) fn lock_for_adding(&self, key: &Key, progress: &dyn Progress) -> Result<Held, Fault> {
        self.lock_patiently(&user_of(key), progress, PATIENCE)
    }

    /// As [`Self::lock_for_adding`], for a reader. A storage that cannot be written is read without a lock.
    pub(crate) fn lock_for_reading(&self, progress: &dyn Progress) -> Result<Option<Held>, Fault> {
        use crate::storage::CauseKind;
        match self.lock_patiently(self.reader(), progress, PATIENCE) {
            Ok(held) => Ok(Some(held)),
            Err(Fault::Storage(err))
                if matches!(err.kind(), CauseKind::Full | CauseKind::Denied | CauseKind::ReadOnly) =>
            {
                tracing::warn!("the repository is read without a lock, since none can be written: {err}");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Takes an exclusive lock, under which data may be removed: whoever uses the repository is waited for, for `patience`.
    /// Removes dead locks of lvault.
    pub(crate) fn lock_for_removing(&self, progress: &dyn Progress, patience: Duration) -> Result<Held, Fault> {
        let begin = Instant::now();
        loop {
            // Looking first keeps those who are about to begin from stumbling over a lock that goes away at once.
            let tried =
                self.look(REMOVING, None, Kind::Exclusive).and_then(|()| self.try_lock(REMOVING, Kind::Exclusive));
            match tried {
                Err(Fault::Locked { is_stale: false, lock })
                    if begin.elapsed() < patience && !progress.should_stop() =>
                {
                    progress.waiting(&lock);
                    std::thread::sleep(Duration::from_millis(500) + jitter());
                }
                other => return other,
            }
        }
    }

    fn lock_patiently(&self, user: &str, progress: &dyn Progress, patience: Duration) -> Result<Held, Fault> {
        let begin = Instant::now();
        loop {
            match self.try_lock(user, Kind::Shared) {
                Err(Fault::Locked { is_stale: false, lock })
                    if begin.elapsed() < patience && !progress.should_stop() =>
                {
                    progress.waiting(&lock);
                    std::thread::sleep(Duration::from_secs(1));
                }
                other => return other,
            }
        }
    }

    /// Removes the locks that executors of any attempt of this UID have left.
    pub(crate) fn remove_locks_of(&self, uid: &str) -> Result<(), Fault> {
        let (locks, theirs) = (self.lock_files(), format!("{OURS} {uid} "));
        let is_theirs = |found: &&Found| {
            found.file.as_ref().is_some_and(|file| !file.exclusive && file.username.starts_with(&theirs))
        };
        locks.read()?.iter().filter(is_theirs).try_for_each(|found| locks.remove(&found.id))
    }

    fn try_lock(&self, user: &str, kind: Kind) -> Result<Held, Fault> {
        self.must_be_there()?;
        let locks = self.lock_files();
        let id = locks.write(user, kind == Kind::Exclusive)?;
        let held = Held::new(locks, user.to_owned(), kind == Kind::Exclusive, id);
        self.look(user, Some(id), kind)?;
        Ok(held)
    }

    /// Looks for locks that stand in the way of a lock of this kind, and removes dead ones of lvault.
    fn look(&self, user: &str, own: Option<Id>, kind: Kind) -> Result<(), Fault> {
        let locks = self.lock_files();
        for other in locks.read()? {
            if Some(other.id) == own {
                continue;
            }
            if other.is_ours_and_over(user) {
                locks.remove(&other.id)?;
                tracing::info!(repository = self.shown(), "removed {}", other.info());
            } else if kind == Kind::Exclusive || other.is_exclusive() {
                return Err(Fault::Locked { lock: other.info().to_string(), is_stale: other.is_stale() });
            }
        }
        Ok(())
    }
}

/// So that two that wait for one another do not look at the same moments for ever.
fn jitter() -> Duration {
    let mut byte = [0];
    // Without random numbers they part because of their loads.
    let _ = getrandom::fill(&mut byte);
    Duration::from_millis(u64::from(byte[0]) * 4)
}

#[cfg(test)]
mod tests;
