//! Backing a folder up: either everything is in the repository, or no snapshot is.
//!
//! The snapshot file is the commit. The [`pipeline`](crate::pipeline) writes packs and indexes; the snapshot file is written
//! when everything that was seen is accounted for, and when one more look shows no other snapshot of the same key.

mod draft;

use crate::backend::file_name;
use crate::fault::Fault;
use crate::index::Indexed;
use crate::labels::{Host, Key, Snapshot, SnapshotId, SourcePath, Tag};
use crate::lock::Held;
use crate::metadata::Folder;
use crate::pipeline::{Hook, Run, Source, Trust, get};
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::retry::Retry;
use crate::storage::{LEFTOVER_AGE, Put};
use crate::tree::{fetch_ahead, snapshot_file, snapshot_root};
use draft::{PROGRAM_VERSION, snapshot_draft};
use jiff::{SignedDuration, Timestamp};
use rustic_core::repofile::{Node, SnapshotFile};
use rustic_core::{FileType, Id};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use crate::pipeline::Unreadable;

/// How a file is recognised as unchanged since the parent snapshot, and not read.
///
/// A file system's clock goes in steps, of some milliseconds on most and of a second on some: two changes within one step have the
/// same time, and a snapshot may fall between them. So a time is trusted only where it is earlier than the parent snapshot by more than
/// a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ChangeDetection {
    /// Size, modification time, change time and inode are the same. Nothing that changes a file escapes this, unless the machine's
    /// clock is set back.
    #[default]
    ChangeTime,
    /// Size and modification time are the same. For volumes whose snapshots are copies, where every change time is new. A
    /// program that changes a file and sets its modification time back escapes this.
    ModificationTime,
    /// Nothing is trusted: every file is read.
    ReadEverything,
}

/// What becomes of a backup when something of the volume cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnReadError {
    /// There is no snapshot.
    #[default]
    Fail,
    /// The snapshot is committed without it, and the report names it. A root folder that cannot be read still fails.
    Skip,
}

/// What to back up, and how to label it.
#[derive(Debug, Clone)]
pub struct BackUp {
    /// The folder to read, where it is mounted now. That it is the right one, and not an empty mount point, is for the
    /// caller to check; [`BackUpReport::files`] tells how much was found.
    pub root: PathBuf,
    /// The path of this folder in its snapshots: the same in every run.
    pub as_path: SourcePath,
    /// The host name of the snapshots: the same in every run.
    pub host: Host,
    /// The idempotency key.
    pub key: Key,
    /// Further tags.
    pub tags: Vec<Tag>,
    /// The moment that the volume shows, or an earlier one; the parent is the snapshot with the latest. By the clock that gives
    /// files their times: what was changed about then is read again next time, see [`ChangeDetection`].
    pub time: Timestamp,
    /// How unchanged files are recognised.
    pub change_detection: ChangeDetection,
    /// What becomes of it when something cannot be read.
    pub on_read_error: OnReadError,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackUpReport {
    /// The snapshot that was committed.
    pub snapshot: SnapshotId,
    /// The snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Everything in it that is not a folder.
    pub files: u64,
    /// Files of these that are new or changed.
    pub changed_files: u64,
    /// Folders in it, the root among them.
    pub folders: u64,
    /// Bytes of all files in it, before compression.
    pub total_bytes: u64,
    /// Bytes that were read from the volume.
    pub read_bytes: u64,
    /// Bytes that were written to the repository, compressed and encrypted, with indexes and the snapshot.
    pub added_bytes: u64,
    /// Some of what could not be read and is missing; always empty with [`OnReadError::Fail`].
    pub unreadable: Vec<Unreadable>,
    /// How much could not be read.
    pub unreadable_count: u64,
}

/// Why there is no snapshot after a backup. Data that was uploaded stays, unused, until a prune.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackUpError {
    /// Opening the folder.
    #[error("cannot read the folder {root}: {what}; check that the volume is mounted there")]
    Root {
        /// The folder.
        root: String,
        /// What happened.
        what: String,
    },
    /// Reading everything.
    #[error("{}", describe_unreadable(.files, *.count))]
    Unreadable {
        /// Some of what could not be read.
        files: Vec<Unreadable>,
        /// How much could not be read.
        count: u64,
    },
    /// Writing to the repository, or reading from it.
    #[error("cannot back up into {repository}: {fault}")]
    Repository {
        /// The repository.
        repository: String,
        /// What happened.
        fault: Fault,
    },
    /// Accounting for everything: less is in the trees than was seen.
    #[error(
        "the backup into {repository} lost {lost} of {seen} entries on the way, so nothing was committed; try again, and \
         report it as a defect"
    )]
    Lost {
        /// The repository.
        repository: String,
        /// How many entries were handed over.
        seen: u64,
        /// How many of them are missing.
        lost: u64,
    },
    /// Committing: this key has a snapshot already, which is the one to use.
    #[error("{repository} already holds snapshot {snapshot} for {key}; use that one")]
    AlreadyCommitted {
        /// The repository.
        repository: String,
        /// The key.
        key: Key,
        /// The snapshot that is there.
        snapshot: SnapshotId,
    },
    /// Going on: the caller asked to stop.
    #[error("the backup was asked to stop; nothing was committed")]
    Stopped,
}

fn describe_unreadable(files: &[Unreadable], count: u64) -> String {
    let named: Vec<_> = files.iter().take(5).map(|it| format!("{:?} ({})", it.path, it.reason)).collect();
    let more = count.saturating_sub(named.len() as u64);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!(
        "{count} files or folders could not be read whole, so nothing was committed: {}{more}; make them readable, then \
         try again",
        named.join(", ")
    )
}

impl BackUpError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Root { .. } => Retry::AfterRemedy,
            Self::Unreadable { .. } | Self::Lost { .. } | Self::Stopped => Retry::Later,
            Self::Repository { fault, .. } => fault.retry(),
            Self::AlreadyCommitted { .. } => Retry::Never,
        }
    }
}

impl Repository {
    /// Copies a folder into the repository and commits it as one snapshot.
    ///
    /// Idempotent by [`BackUp::key`]: where a snapshot of the key is there, before or meanwhile, none is added. A crash at
    /// any moment leaves either the whole snapshot or none, and besides at most data that nobody refers to. Blocks until it
    /// is done; calls `progress` from several threads.
    ///
    /// # Errors
    /// See [`BackUpError`]; with each of them, no snapshot was added.
    pub fn back_up(&self, what: &BackUp, progress: Arc<dyn Progress>) -> Result<BackUpReport, BackUpError> {
        self.back_up_hooked(what, progress, None)
    }

    pub(crate) fn back_up_hooked(
        &self,
        what: &BackUp,
        progress: Arc<dyn Progress>,
        hook: Hook,
    ) -> Result<BackUpReport, BackUpError> {
        self.refuse_second(&what.key)?;
        if let Some(before) = SystemTime::from(what.time).checked_sub(LEFTOVER_AGE) {
            self.storage().sweep_leftovers(before);
        }
        progress.step(Step::Copying);
        let begin = Timestamp::now();
        let root = Folder::open(&what.root).map_err(|err| root_error(what, &err))?;
        let failed = |fault| self.back_up_error(fault);
        let lock = self.lock_for_adding(&what.key, progress.as_ref()).map_err(failed)?;
        let indexed = self.indexed_for_backup().map_err(failed)?;
        let parent = self.parent(what, &indexed).map_err(failed)?;
        let (estimate, parent_node) = (parent.as_ref().and_then(Parent::estimate), parent.as_ref().map(Parent::root));
        if let Some(tree) = parent_node.as_ref().and_then(|node| node.subtree) {
            fetch_ahead(&indexed, tree, || progress.should_stop());
        }
        let source = Source { root, as_path: what.as_path.as_path(), parent: parent_node, estimate };
        let trust = Trust {
            change_detection: what.change_detection,
            settled_before: parent.as_ref().and_then(Parent::settled_before),
            takes_nodes: parent.as_ref().is_some_and(Parent::is_ours),
        };
        let run = Run::new(self, indexed, trust, Arc::clone(&progress), hook);
        let copied = run.copy(source);
        let tree = self.complete(copied, &run, what)?;
        if !progress.may_commit() {
            return Err(BackUpError::Stopped);
        }
        let file = snapshot_draft(what, tree, parent.as_ref(), &run, begin).map_err(failed)?;
        let (snapshot, snapshot_bytes) = self.commit(&file, &what.key, &lock)?;
        let (unreadable, unreadable_count) = run.ledger.unreadable();
        Ok(BackUpReport {
            snapshot,
            parent: parent.map(|parent| parent.snapshot.id),
            files: run.ledger.files(),
            changed_files: get(&run.counts.files_new) + get(&run.counts.files_changed),
            folders: run.ledger.folders(),
            total_bytes: run.ledger.bytes(),
            read_bytes: run.ledger.read_bytes(),
            added_bytes: run.stored_bytes() + snapshot_bytes,
            unreadable,
            unreadable_count,
        })
    }

    fn back_up_error(&self, fault: Fault) -> BackUpError {
        BackUpError::Repository { repository: self.shown().to_owned(), fault }
    }

    fn refuse_second(&self, key: &Key) -> Result<(), BackUpError> {
        match self.find_key(key).map_err(|fault| self.back_up_error(fault))? {
            None => Ok(()),
            Some(found) => Err(BackUpError::AlreadyCommitted {
                repository: self.shown().to_owned(),
                key: key.clone(),
                snapshot: found.id,
            }),
        }
    }

    /// The latest snapshot of the same host and path. One that cannot be read is none: then everything is read.
    fn parent(&self, what: &BackUp, indexed: &Indexed) -> Result<Option<Parent>, Fault> {
        let path = what.as_path.as_path();
        let is_of_this = |it: &Snapshot| it.host == what.host.as_str() && it.paths.iter().map(PathBuf::from).eq([path]);
        let Some(snapshot) = self.read_snapshots()?.into_iter().rfind(is_of_this) else { return Ok(None) };
        let read = || Ok::<_, Fault>((snapshot_file(indexed, &snapshot.id)?, snapshot_root(indexed, &snapshot)?));
        match read() {
            Ok((file, root)) => Ok(Some(Parent { snapshot, file, root })),
            Err(fault @ Fault::Damaged { .. }) => {
                tracing::warn!(snapshot = %snapshot.id, "the parent snapshot cannot be used, so all is read: {fault}");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Passes only a backup of which nothing is missing but what the caller lets be missing.
    fn complete(&self, copied: Result<Option<Id>, Fault>, run: &Run, what: &BackUp) -> Result<Id, BackUpError> {
        if run.is_stopped() {
            return Err(BackUpError::Stopped);
        }
        let tree = copied.map_err(|fault| self.back_up_error(fault))?;
        let (files, count) = run.ledger.unreadable();
        let is_allowed = match what.on_read_error {
            OnReadError::Fail => false,
            OnReadError::Skip => tree.is_some(),
        };
        if count > 0 && !is_allowed {
            return Err(BackUpError::Unreadable { files, count });
        }
        // Each entry stands in one tree; besides what was seen, so do the folders that the snapshot's path names.
        let seen = run.ledger.files() + run.ledger.folders() + what.as_path.depth().saturating_sub(1);
        let stored = get(&run.counts.entries);
        match tree {
            Some(tree) if seen == stored => Ok(tree),
            Some(_) | None => {
                let repository = self.shown().to_owned();
                Err(BackUpError::Lost { repository, seen, lost: seen.abs_diff(stored) })
            }
        }
    }

    fn commit(&self, file: &SnapshotFile, key: &Key, lock: &Held) -> Result<(SnapshotId, u64), BackUpError> {
        self.refuse_second(key)?;
        let write = || {
            if !lock.is_held()? {
                // Somebody may have removed what was stored, believing that nobody was about to refer to it.
                let lock = "the lock of this backup was removed or could not be renewed".to_owned();
                return Err(Fault::Locked { lock, is_stale: false });
            }
            let json = serde_json::to_vec(file).map_err(|err| Fault::system(format!("it makes no JSON: {err}")))?;
            let (id, content) = self.seal().encode_file(&json)?;
            let bytes = content.len() as u64;
            self.storage().write(&file_name(FileType::Snapshot, &id), vec![content], Put::Overwrite)?;
            Ok((SnapshotId::from_rustic(id), bytes))
        };
        let (id, bytes) = write().map_err(|fault| self.back_up_error(fault))?;
        tracing::info!(repository = self.shown(), snapshot = %id, key = %key, "committed a snapshot");
        Ok((id, bytes))
    }
}

/// A file system's clock goes in steps of at most a second, and so does the clock by which objects are created.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(2);

/// The snapshot that a backup is compared with.
struct Parent {
    snapshot: Snapshot,
    file: SnapshotFile,
    root: Node,
}

impl Parent {
    fn root(&self) -> Node {
        self.root.clone()
    }

    fn file_id(&self) -> Option<rustic_core::repofile::SnapshotId> {
        self.snapshot.id.as_str().parse().ok()
    }

    /// Files that were changed before this have another time since, if they were changed again.
    fn settled_before(&self) -> Option<Timestamp> {
        self.snapshot.time.checked_sub(CLOCK_STEP).ok()
    }

    /// Whether this version of lvault wrote it.
    fn is_ours(&self) -> bool {
        self.file.program_version == PROGRAM_VERSION
    }

    /// Bytes and files it held.
    fn estimate(&self) -> Option<(u64, u64)> {
        self.file.summary.as_ref().map(|it| (it.total_bytes_processed, it.total_files_processed))
    }
}

fn root_error(what: &BackUp, err: &io::Error) -> BackUpError {
    BackUpError::Root { root: what.root.display().to_string(), what: err.to_string() }
}

#[cfg(test)]
mod tests;
