//! Reading back while the rest is still being written: in batches, each of which is synced first.
//!
//! So the disk has work from the beginning on, and a large restore does not fill the memory with pages that are waiting to be written and
//! then to be read back: those of one batch are free for the next.
//!
//! What holds here: a part is compared after a sync that began when it was written. A file whose parts were all found equal is noted
//! with its change time, and its content is not read again at the end as long as that time is the same. Files that are too small to be
//! kept open for long, and the last batch, are read at the end.

use super::write::Job;
use super::{Fatal, Part, Restore};
use crate::backend::lock;
use crate::progress::Silent;
use crate::storage::Cause;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

/// Files from this size on are read back early.
const LARGE: u64 = 512 << 10;

/// So much is written between two syncs.
const BATCH: u64 = 64 << 20;

/// A batch has no more parts with data than this, as each may hold an open file.
const PARTS: usize = 96;

/// What the smallest file takes of a disk.
const LEAST: u64 = 4096;

/// So many batches are synced or read back at once, and one more waits.
pub(super) const BATCHES: usize = 2;

/// No more files than this are noted, which takes about 60 MiB; others are read at the end.
const NOTED: usize = 1 << 20;

#[derive(Default)]
struct Batch {
    parts: Vec<Job>,
    /// How many of them are no holes only.
    with_data: usize,
    bytes: u64,
}

/// What was written since the last batch.
pub(super) struct Batches {
    open: Mutex<Batch>,
    sender: SyncSender<Vec<Job>>,
}

impl Batches {
    pub(super) fn new(sender: SyncSender<Vec<Job>>) -> Self {
        Self { open: Mutex::default(), sender }
    }

    /// Notes parts that were written, and waits where the disk cannot keep up.
    pub(super) fn add(&self, jobs: &[Job]) {
        let full = {
            let batch = &mut *lock(&self.open);
            for job in jobs {
                batch.bytes += job.bytes().max(LEAST);
                if job.filling.node.meta.size >= LARGE {
                    batch.with_data += usize::from(job.bytes() > 0);
                    batch.parts.push(job.clone());
                }
            }
            (batch.bytes >= BATCH || batch.with_data >= PARTS).then(|| std::mem::take(batch).parts)
        };
        if let Some(parts) = full {
            // Only threads that panicked hang up, and the scope passes that on.
            let _ = self.sender.send(parts);
        }
    }
}

/// Files that were found equal, with their change times.
#[derive(Default)]
pub(super) struct Equal(Mutex<HashMap<(u64, u64), (i64, i64)>>);

impl Equal {
    fn note(&self, stat: &Metadata) {
        let mut noted = lock(&self.0);
        if noted.len() < NOTED {
            noted.insert((stat.dev(), stat.ino()), (stat.ctime(), stat.ctime_nsec()));
        }
    }

    /// Whether the file was found equal and has not changed since.
    pub(super) fn holds(&self, file: &File) -> std::io::Result<bool> {
        let stat = file.metadata()?;
        let noted = lock(&self.0).get(&(stat.dev(), stat.ino())).copied();
        Ok(noted == Some((stat.ctime(), stat.ctime_nsec())))
    }
}

impl Restore<'_> {
    /// Syncs and reads back batch after batch.
    pub(super) fn read_back_early(&self, batches: &Mutex<Receiver<Vec<Job>>>) {
        let mut buffer = Vec::new();
        loop {
            let batch = lock(batches).recv();
            let Ok(batch) = batch else { return };
            if self.must_end() {
                continue;
            }
            if let Err(err) = rustix::fs::syncfs(self.folder.fd()) {
                self.failures.end(Fatal::Target(Cause::of(&std::io::Error::from(err))));
                continue;
            }
            for job in batch {
                if let Err(err) = self.read_back_part(&job, &mut buffer) {
                    self.failures.add_io(&job.filling.path, "reading back", &err);
                }
            }
        }
    }

    fn read_back_part(&self, Job { filling, segment }: &Job, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        if filling.has_failed.load(Ordering::Acquire) || self.must_end() {
            return Ok(());
        }
        // Reading should not count as an access, where that is allowed.
        let _ = rustix::fs::fcntl_setfl(&filling.file, OFlags::NOATIME);
        // From before the reading: whatever happens to the file from now on changes it.
        let stat = filling.file.metadata()?;
        if self.compare_content(&filling.file, &filling.node, segment, &filling.path, buffer, &Silent)
            && filling.unequal.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.equal.note(&stat);
        }
        Ok(())
    }
}
