//! One lock per volume: calls for the same volume wait for each other, calls for different ones never do.
//!
//! Inside this process it is a mutex. Beneath it lies a file lock in the volume's folder, which every tool working on
//! the volume holds too, as its stdin: a tool that outlives a killed agent keeps the next agent away until it is done.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use lvault_core::VolumeId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::EngineError;

const LOCK_FILE: &str = "lock";
/// How long to wait for a tool of a former run before saying so.
const PATIENCE: Duration = Duration::from_secs(2);

/// The locks of one engine.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<BTreeMap<VolumeId, Weak<Mutex<()>>>>);

impl Locks {
    /// The lock of a volume, whether it exists or not.
    pub(crate) fn of(&self, id: &VolumeId) -> Arc<Mutex<()>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = known.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        known.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }

    /// The locks of two volumes, to be held in this order, which is the same for everybody. One when they are the same.
    pub(crate) fn both(&self, one: &VolumeId, other: &VolumeId) -> (Arc<Mutex<()>>, Option<Arc<Mutex<()>>>) {
        match one.cmp(other) {
            Ordering::Less => (self.of(one), Some(self.of(other))),
            Ordering::Equal => (self.of(one), None),
            Ordering::Greater => (self.of(other), Some(self.of(one))),
        }
    }
}

/// Waits for a lock. A panic elsewhere has left no half-made state behind it: all state is on disk.
pub(crate) fn hold(lock: &Mutex<()>) -> MutexGuard<'_, ()> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a volume's folder against tools left over from a former run; the lock lasts as long as the file, or a
/// program that has it as stdin. `None` when the folder is gone.
pub(crate) fn lock_folder(folder: &Path) -> Result<Option<File>, EngineError> {
    let path = folder.join(LOCK_FILE);
    let file = match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EngineError::io("opening", path)(error)),
    };
    let started = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            Err(Errno::WOULDBLOCK) => {
                let what = format!("volume folder {}", folder.display());
                return Err(EngineError::Busy { what, holders: vec!["a storage tool or another lvault".into()] });
            }
            Err(error) => return Err(EngineError::io("locking", path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Retry;

    #[test]
    fn one_volume_has_one_lock_and_none_is_kept_for_ever() {
        let locks = Locks::default();
        let id = |text| VolumeId::parse(text).unwrap();
        let (first, again, other) = (locks.of(&id("a")), locks.of(&id("a")), locks.of(&id("b")));
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
        drop((first, again, other));
        let _kept = locks.of(&id("c"));
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_folder_locked_by_somebody_is_busy_and_a_missing_one_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock_folder(folder.path()).unwrap();
        let error = lock_folder(folder.path()).unwrap_err();
        assert_eq!(error.retry(), Retry::Later, "{error}");
        drop(held);
        assert!(lock_folder(folder.path()).unwrap().is_some());
        assert!(lock_folder(&folder.path().join("none")).unwrap().is_none());
    }
}
