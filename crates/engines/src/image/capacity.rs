//! How much room the pool has, and who may still take some.
//!
//! What holds: the sizes of all writable volumes together never exceed the pool, nor what is really free for them: of
//! the pool, and of the host's filesystem under a pool that is a sparse file. What is being made at this moment counts.
//! Snapshots promise nothing; they are refused when little is free, for every block that the source changes after a
//! snapshot takes a new one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lvault_core::{Bytes, VolumeId};
use rustix::fs::statvfs;

use super::pool::Pool;
use crate::engine::{Access, Capacity};
use crate::error::EngineError;

/// How long XFS may take to free what was removed: it does so after the removal has returned. Only then is a request
/// refused for what is not free.
const FREEING: Duration = Duration::from_millis(500);

/// Room that is promised to volumes still in the making, and to growths under way.
#[derive(Debug, Default)]
pub(super) struct Promises(Mutex<BTreeMap<VolumeId, u64>>);

/// Room kept for one volume until this is dropped; by then its record promises it.
#[derive(Debug)]
pub(super) struct Promise<'p> {
    promises: &'p Promises,
    id: VolumeId,
}

impl Promises {
    /// Keeps room for a volume, or says how much there is.
    pub(super) fn keep(&self, pool: &Pool, id: &VolumeId, asked: Bytes) -> Result<Promise<'_>, EngineError> {
        let started = Instant::now();
        loop {
            let room = self.try_keep(pool, id, asked)?;
            if asked <= room.available() {
                return Ok(Promise { promises: self, id: id.clone() });
            }
            if asked.0 > room.unpromised || started.elapsed() > FREEING {
                return Err(EngineError::NoSpace { id: id.clone(), asked, available: room.available() });
            }
            std::thread::sleep(FREEING / 10);
        }
    }

    /// Looks and takes in one step. Nobody waits here for a tool.
    fn try_keep(&self, pool: &Pool, id: &VolumeId, asked: Bytes) -> Result<Unkept, EngineError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = unkept(pool, kept.values().sum())?;
        if asked <= room.available() {
            kept.insert(id.clone(), asked.0);
        }
        Ok(room)
    }

    /// The pool's room now.
    pub(super) fn capacity(&self, pool: &Pool) -> Result<Capacity, EngineError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
        let room = unkept(pool, kept)?;
        Ok(Capacity { total: Bytes(room.total), available: room.available() })
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.promises.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Refuses a snapshot when the pool has less than a twentieth left, or less than 32 MiB.
pub(super) fn room_to_share(pool: &Pool, source: &VolumeId) -> Result<(), EngineError> {
    let started = Instant::now();
    loop {
        let room = room(pool)?;
        let least = (room.total / 20).max(32 << 20);
        if room.free >= least {
            return Ok(());
        }
        if started.elapsed() > FREEING {
            let (free, least) = (Bytes(room.free), Bytes(least));
            return Err(EngineError::PoolNearlyFull { source_id: source.clone(), free, least });
        }
        std::thread::sleep(FREEING / 10);
    }
}

/// In bytes: what the pool has in all, and what can really be written to it yet.
struct Room {
    total: u64,
    free: u64,
}

fn room(pool: &Pool) -> Result<Room, EngineError> {
    let store = pool.store()?;
    let filled = asked(store.root())?;
    let (total, free) = (filled.f_blocks * filled.f_frsize, filled.f_bavail * filled.f_frsize);
    let Some(file) = pool.file() else { return Ok(Room { total, free }) };
    // A block that is free inside the pool's file needs one of the host's only where the file has a hole.
    let host = asked(file.parent().unwrap_or(file))?;
    let holds = allocated(file)?.saturating_sub(total.saturating_sub(filled.f_bfree * filled.f_frsize));
    Ok(Room { total, free: free.min(host.f_bavail * host.f_frsize + holds) })
}

fn asked(path: &Path) -> Result<rustix::fs::StatVfs, EngineError> {
    statvfs(path).map_err(EngineError::io("asking for the free space of", path))
}

/// What may still be promised, in bytes.
struct Unkept {
    total: u64,
    /// By the sizes of all volumes.
    unpromised: u64,
    /// By what is really free, less what volumes have not written yet.
    unwritten: u64,
}

impl Unkept {
    fn available(&self) -> Bytes {
        Bytes(self.unpromised.min(self.unwritten))
    }
}

fn unkept(pool: &Pool, kept: u64) -> Result<Unkept, EngineError> {
    let room = room(pool)?;
    let store = pool.store()?;
    let (mut promised, mut unwritten) = (kept, kept);
    for record in store.records()? {
        match record.access {
            Access::ReadOnly => {}
            Access::ReadWrite => {
                let size = record.promised().0;
                promised = promised.saturating_add(size);
                unwritten += size.saturating_sub(allocated(&pool.image(store, &record.id))?);
            }
        }
    }
    // The pool's own records of what is where grow with what is written.
    let margin = room.total / 50;
    Ok(Unkept {
        total: room.total,
        unpromised: room.total.saturating_sub(promised).saturating_sub(margin),
        unwritten: room.free.saturating_sub(unwritten).saturating_sub(margin),
    })
}

/// The bytes of storage a file takes: none when it is gone.
pub(super) fn allocated(path: &Path) -> Result<u64, EngineError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.blocks() * 512),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(EngineError::io("looking at", path)(error)),
    }
}
