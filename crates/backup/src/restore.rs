//! Restoring a snapshot into a folder: written, made durable, read back and compared, or reported as failed by name.
//!
//! Our own walk over the trees and our own writes: rustic's restore takes memory by the gigabyte, panics where a pack is
//! missing, and only warns about metadata. Memory here is bounded by the index, the largest folder, a few blobs, and some 60 bytes for
//! each of the first million large files (see `early`).
//!
//! A restore that was cut off leaves a marker file at the target's root, so that calling again with the same snapshot
//! clears the rest away and begins anew. A target that already holds exactly the snapshot is a success.

mod compare;
mod content;
mod early;
mod file;
mod write;

pub use file::FileReport;

use crate::backend::lock;
use crate::fault::Fault;
use crate::index::Indexed;
use crate::labels::{Snapshot, SnapshotId};
use crate::metadata::{At, Folder, apply};
use crate::progress::{Progress, Step};
use crate::repository::{Repository, RepositoryError};
use crate::retry::Retry;
use crate::storage::{Cause, CauseKind};
use crate::tree::{SnapshotSize, size_below, snapshot_root};
use rustic_core::repofile::Node;
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

/// The folder that `mkfs.ext4` makes: a target that holds nothing else is empty.
const LOST_AND_FOUND: &str = "lost+found";

/// What a restore wrote, read back and found equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreReport {
    /// What was restored.
    pub size: SnapshotSize,
    /// Whether everything was there already, from an earlier restore, and was only compared.
    pub was_complete: bool,
}

/// One thing that could not be restored, or that reads back different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreFailure {
    /// Its path within the target.
    pub path: PathBuf,
    /// What happened.
    pub reason: String,
}

/// Why a restore is not complete. What was written stays in the target, which must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Finding the snapshot.
    #[error(transparent)]
    Snapshot(#[from] RepositoryError),
    /// Using the target at all: it is not there, full, read-only, or not to be written.
    #[error("cannot restore into {target}: {cause}")]
    Target {
        /// The target.
        target: String,
        /// What happened.
        cause: Cause,
    },
    /// Beginning: the target holds something that is not this snapshot.
    #[error("cannot restore into {target}: it holds {found:?} already; empty it, or restore into a new volume")]
    NotEmpty {
        /// The target.
        target: String,
        /// One of its entries.
        found: OsString,
    },
    /// Reading the repository.
    #[error("cannot read snapshot {snapshot} of {repository}: {fault}")]
    Repository {
        /// The repository.
        repository: String,
        /// The snapshot.
        snapshot: SnapshotId,
        /// What happened.
        fault: Fault,
    },
    /// Restoring everything and comparing it.
    #[error("{}", describe(.target, .failures, *.count))]
    Incomplete {
        /// The target.
        target: String,
        /// Some of what failed.
        failures: Vec<RestoreFailure>,
        /// How much failed.
        count: u64,
    },
    /// Going on: the caller asked to stop.
    #[error("the restore was asked to stop; the target is incomplete")]
    Stopped,
}

fn describe(target: &str, failures: &[RestoreFailure], count: u64) -> String {
    let named: Vec<_> = failures.iter().take(5).map(|it| format!("{:?} ({})", it.path, it.reason)).collect();
    let more = count.saturating_sub(named.len() as u64);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!(
        "{count} things could not be restored into {target}: {}{more}; do not use the target, and examine the repository \
         with `restic check --read-data`",
        named.join(", ")
    )
}

impl RestoreError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Snapshot(err) => err.retry(),
            Self::Target { .. } | Self::NotEmpty { .. } => Retry::AfterRemedy,
            Self::Repository { fault, .. } => fault.retry(),
            Self::Incomplete { .. } => Retry::Never,
            Self::Stopped => Retry::Later,
        }
    }
}

impl Repository {
    /// Restores a snapshot into a folder that holds nothing (but perhaps `lost+found`), makes it durable, reads everything
    /// back and compares it: contents against the repository's hashes, and all metadata, the root folder's too.
    ///
    /// Idempotent: a target that holds exactly this snapshot is compared only, and one that an interrupted restore of this
    /// snapshot left is cleared and filled again. A crash leaves an incomplete target that is marked as such.
    ///
    /// # Errors
    /// See [`RestoreError`]. With each of them, the target must not be used.
    pub fn restore(
        &self,
        snapshot: &SnapshotId,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<RestoreReport, RestoreError> {
        let found = self.snapshot(snapshot.as_str())?;
        let locked = self.lock_for_reading(progress);
        let unreadable = |fault| {
            let (repository, snapshot) = (self.shown().to_owned(), snapshot.clone());
            RestoreError::Repository { repository, snapshot, fault }
        };
        let _lock = locked.map_err(unreadable)?;
        let restore = Restore::prepare(self, &found, target, progress)?;
        let size = size_below(&restore.indexed, &restore.root).map_err(unreadable)?;
        restore.run(size)
    }
}

/// Why everything ends at once, rather than with the next file.
enum Fatal {
    Target(Cause),
    Repository(Fault),
}

/// Things that failed, some by name, and the one that ended everything.
#[derive(Default)]
struct Failures {
    named: Mutex<Vec<RestoreFailure>>,
    count: AtomicU64,
    fatal: Mutex<Option<Fatal>>,
}

impl Failures {
    const NAMED: usize = 100;

    fn add(&self, path: &Path, reason: impl ToString) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut named = lock(&self.named);
        if named.len() < Self::NAMED {
            named.push(RestoreFailure { path: path.to_owned(), reason: reason.to_string() });
        }
    }

    /// A full or read-only target fails for every file: that ends the restore.
    fn add_io(&self, path: &Path, what: &str, err: &io::Error) {
        let cause = Cause::of(err);
        match cause.kind {
            CauseKind::Full | CauseKind::ReadOnly => self.end(Fatal::Target(cause)),
            CauseKind::Denied
            | CauseKind::Missing
            | CauseKind::Exists
            | CauseKind::Credentials
            | CauseKind::Bucket
            | CauseKind::Region
            | CauseKind::Clock
            | CauseKind::Certificate
            | CauseKind::Unreachable
            | CauseKind::Busy
            | CauseKind::Interrupted
            | CauseKind::Other => {
                self.add(path, format!("{what}: {err}"));
            }
        }
    }

    /// A damaged blob concerns its file; a storage that fails concerns them all.
    fn add_fault(&self, path: &Path, fault: Fault) {
        match fault {
            Fault::Damaged { what } => self.add(path, what),
            Fault::Storage(ref err) if err.kind() == CauseKind::Missing => self.add(path, err),
            Fault::Storage(_) | Fault::Locked { .. } | Fault::System { .. } | Fault::Panicked { .. } => {
                self.end(Fatal::Repository(fault))
            }
        }
    }

    fn end(&self, fatal: Fatal) {
        lock(&self.fatal).get_or_insert(fatal);
    }

    fn have_ended(&self) -> bool {
        lock(&self.fatal).is_some()
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0 && !self.have_ended()
    }
}

/// One restore, from the first look at the target to the last comparison.
struct Restore<'a> {
    indexed: Indexed,
    root: Node,
    folder: Arc<Folder>,
    marker: OsString,
    failures: Failures,
    equal: early::Equal,
    progress: &'a dyn Progress,
    shown: String,
    repository: String,
    snapshot: SnapshotId,
}

impl<'a> Restore<'a> {
    fn prepare(
        repository: &Repository,
        snapshot: &Snapshot,
        target: &Path,
        progress: &'a dyn Progress,
    ) -> Result<Self, RestoreError> {
        let (shown, name) = (target.display().to_string(), repository.shown().to_owned());
        let unreadable =
            |fault| RestoreError::Repository { repository: name.clone(), snapshot: snapshot.id.clone(), fault };
        let folder = Folder::open(target)
            .map_err(|err| RestoreError::Target { target: shown.clone(), cause: Cause::of(&err) })?;
        let indexed = repository.indexed().map_err(unreadable)?;
        let root = snapshot_root(&indexed, snapshot).map_err(unreadable)?;
        let marker = OsString::from(format!(".lvault-restoring-{}", snapshot.id));
        let (folder, failures, equal) = (Arc::new(folder), Failures::default(), early::Equal::default());
        let (repository, snapshot) = (name.clone(), snapshot.id.clone());
        Ok(Self { indexed, root, folder, marker, failures, equal, progress, shown, repository, snapshot })
    }

    fn run(self, size: SnapshotSize) -> Result<RestoreReport, RestoreError> {
        let names = self.on_target(self.folder.names())?;
        let found = names.iter().find(|name| *name != LOST_AND_FOUND);
        if names.contains(&self.marker) {
            self.on_target(self.clear(&names))?;
        } else if let Some(found) = found {
            return self.compare_only(size, found);
        }
        self.on_target(self.mark())?;
        self.progress.step(Step::Restoring);
        self.progress.total(size.bytes, size.files);
        self.write();
        self.verdict()?;
        self.on_target(rustix::fs::syncfs(self.folder.fd()).map_err(Into::into))?;
        self.progress.step(Step::Verifying);
        self.progress.total(size.bytes, size.files);
        self.compare();
        self.verdict()?;
        self.on_target(self.unmark())?;
        self.finish_root();
        self.verdict()?;
        Ok(RestoreReport { size, was_complete: false })
    }

    fn on_target<T>(&self, result: io::Result<T>) -> Result<T, RestoreError> {
        result.map_err(|err| RestoreError::Target { target: self.shown.clone(), cause: Cause::of(&err) })
    }

    /// Something is there: fine if it is what would have been restored.
    fn compare_only(self, size: SnapshotSize, found: &OsStr) -> Result<RestoreReport, RestoreError> {
        self.progress.step(Step::Verifying);
        self.progress.total(size.bytes, size.files);
        self.compare();
        self.compare_root();
        if self.progress.should_stop() {
            Err(RestoreError::Stopped)
        } else if self.failures.is_empty() {
            Ok(RestoreReport { size, was_complete: true })
        } else {
            Err(RestoreError::NotEmpty { target: self.shown, found: found.to_owned() })
        }
    }

    /// Removes what an interrupted restore of the same snapshot wrote; its marker goes last, by [`Self::unmark`].
    fn clear(&self, names: &[OsString]) -> io::Result<()> {
        for name in names.iter().filter(|name| **name != self.marker) {
            let path = self.folder.entry(name);
            if !std::fs::symlink_metadata(&path)?.is_dir() {
                std::fs::remove_file(&path)?;
            } else if name == LOST_AND_FOUND {
                let inner = Folder::open(&path)?;
                for name in inner.names()? {
                    let path = inner.entry(&name);
                    let is_folder = std::fs::symlink_metadata(&path)?.is_dir();
                    if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }?;
                }
            } else {
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    fn mark(&self) -> io::Result<()> {
        std::fs::File::create(self.folder.entry(&self.marker))?.sync_all()?;
        Ok(rustix::fs::fsync(self.folder.fd())?)
    }

    fn unmark(&self) -> io::Result<()> {
        std::fs::remove_file(self.folder.entry(&self.marker))?;
        Ok(rustix::fs::fsync(self.folder.fd())?)
    }

    /// The root folder's own metadata, last of all, since removing the marker changes its time.
    fn finish_root(&self) {
        if self.has_root_metadata() {
            for (what, err) in apply(At::Open(self.folder.fd().as_fd()), &self.root) {
                self.failures.add_io(Path::new("/"), what, &err);
            }
            self.compare_root();
        }
        if let Err(err) = rustix::fs::fsync(self.folder.fd()) {
            self.failures.add_io(Path::new("/"), "syncing", &err.into());
        }
    }

    /// Snapshots that are not lvault's may hold no folder to take the root's metadata from.
    fn has_root_metadata(&self) -> bool {
        self.root.meta.mode.is_some()
    }

    fn must_end(&self) -> bool {
        self.failures.have_ended() || self.progress.should_stop()
    }

    fn verdict(&self) -> Result<(), RestoreError> {
        match lock(&self.failures.fatal).take() {
            Some(Fatal::Target(cause)) => return Err(RestoreError::Target { target: self.shown.clone(), cause }),
            Some(Fatal::Repository(fault)) => {
                let (repository, snapshot) = (self.repository.clone(), self.snapshot.clone());
                return Err(RestoreError::Repository { repository, snapshot, fault });
            }
            None => {}
        }
        let count = self.failures.count.load(Ordering::Relaxed);
        if count > 0 {
            let failures = lock(&self.failures.named).clone();
            return Err(RestoreError::Incomplete { target: self.shown.clone(), failures, count });
        }
        if self.progress.should_stop() { Err(RestoreError::Stopped) } else { Ok(()) }
    }
}

/// A name from a tree, refused where it would lead anywhere but into its folder.
pub(crate) fn safe_name(node: &Node) -> Result<OsString, String> {
    let name = node.name().into_owned();
    let bytes = name.as_encoded_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(format!("the repository holds the file name {name:?}, which is none"));
    }
    Ok(name)
}

/// No more jobs than this are handed over at once. Each may hold an open file, and a few lots wait.
const LOT: usize = 32;
/// A lot is handed over when it has this many bytes.
const LOT_BYTES: u64 = 1 << 20;
const WAITING_LOTS: usize = 4;

/// What is to be done with a part of a file.
trait Part: Send {
    /// So many bytes are written or read for it: its length, without holes.
    fn bytes(&self) -> u64;
}

/// Feeds jobs to a few threads, in lots: small files together, so that they cost one wake-up and what lies together is read together.
/// Each thread has tools of its own.
fn crew<J: Part, T>(
    threads: usize,
    tools: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, &[J]) + Sync,
    feed: impl FnOnce(&dyn Fn(J)),
) {
    let (sender, receiver) = sync_channel::<Vec<J>>(WAITING_LOTS);
    let receiver = Arc::new(Mutex::new(receiver));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (receiver, tools, work) = (Arc::clone(&receiver), &tools, &work);
            scope.spawn(move || {
                let mut tools = tools();
                loop {
                    let lot = lock(&receiver).recv();
                    match lot {
                        Ok(lot) => work(&mut tools, &lot),
                        Err(_) => return,
                    }
                }
            });
        }
        drop(receiver);
        let lot = RefCell::new((Vec::new(), 0));
        // Only a worker that panicked hangs up, and the scope passes its panic on.
        let hand_over = || drop(sender.send(std::mem::take(&mut *lot.borrow_mut()).0));
        feed(&|job| {
            let is_full = {
                let (jobs, bytes) = &mut *lot.borrow_mut();
                *bytes += job.bytes();
                jobs.push(job);
                jobs.len() >= LOT || *bytes >= LOT_BYTES
            };
            if is_full {
                hand_over();
            }
        });
        hand_over();
        drop(sender);
    });
}

#[cfg(test)]
mod tests;
