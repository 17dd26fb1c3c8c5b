//! Backing a folder up: either everything is in the repository, or no snapshot is.
//!
//! The snapshot file is the commit. rustic writes packs and indexes; the snapshot file is held back until everything that
//! was seen is accounted for, and until one more look shows no other snapshot of the same key.

use crate::backend::{Gate, Snapshots, file_name};
use crate::fault::{Fault, guarded};
use crate::labels::{Host, Key, SnapshotId, SourcePath, Tag};
use crate::progress::{Progress, Step};
use crate::repository::{Opened, Repository};
use crate::retry::Retry;
use crate::source::{ReadHook, Shared, Source};
use crate::storage::{LEFTOVER_AGE, Put, StorageError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustic_core::repofile::{SnapshotFile, StringList};
use rustic_core::{
    BackupOptions, FileType, ParentOptions, ProgressBars, ProgressType, RusticProgress, SnapshotOptions,
};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub use crate::source::Unreadable;

/// How a file is recognised as unchanged since the parent snapshot, and not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ChangeDetection {
    /// Size, modification time and change time are the same. Nothing that changes a file escapes this.
    #[default]
    ChangeTime,
    /// Size and modification time are the same. For volumes whose snapshots are copies, where every change time is new. A
    /// program that changes a file and sets its modification time back escapes this.
    ModificationTime,
    /// Nothing is trusted: every file is read.
    ReadEverything,
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
    /// The time of the snapshot; the parent is the one with the latest.
    pub time: Timestamp,
    /// How unchanged files are recognised.
    pub change_detection: ChangeDetection,
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
    /// Accounting for everything: rustic handed on less than it was given.
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
        hook: ReadHook,
    ) -> Result<BackUpReport, BackUpError> {
        self.refuse_second(&what.key)?;
        if let Some(before) = SystemTime::from(what.time).checked_sub(LEFTOVER_AGE) {
            self.storage().sweep_leftovers(before);
        }
        progress.step(Step::Copying);
        let (opened, gate) = self.session_with_progress(&progress).map_err(|fault| self.back_up_error(fault))?;
        let shared = Shared::new(Arc::clone(&gate), Arc::clone(&progress), hook);
        let source =
            Source::open(&what.root, &what.as_path, Arc::clone(&shared)).map_err(|err| root_error(what, &err))?;
        let archived = archive(opened, &source, what);
        let file = self.complete(archived, &shared, &gate, what)?;
        if !progress.may_commit() {
            return Err(BackUpError::Stopped);
        }
        let snapshot = self.commit(&gate, &what.key)?;
        Ok(report(snapshot, &file, &shared, &gate))
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

    fn session_with_progress(&self, progress: &Arc<dyn Progress>) -> Result<(Opened, Arc<Gate>), Fault> {
        self.session_with(Snapshots::Hold, Bridge(Arc::clone(progress)))
    }

    /// Passes only a backup of which nothing is missing.
    fn complete(
        &self,
        archived: Result<SnapshotFile, Fault>,
        shared: &Shared,
        gate: &Gate,
        what: &BackUp,
    ) -> Result<SnapshotFile, BackUpError> {
        if gate.is_stopped() {
            return Err(BackUpError::Stopped);
        }
        if let Some(failure) = gate.failure() {
            return Err(self.back_up_error(failure.into()));
        }
        let (files, count) = shared.ledger.unreadable();
        if count > 0 {
            return Err(BackUpError::Unreadable { files, count });
        }
        let file = archived.map_err(|fault| self.back_up_error(fault))?;
        // Besides what the walk hands over, rustic adds the folders above the root, and the tree that holds them all.
        let seen = shared.ledger.files() + shared.ledger.folders() + what.as_path.depth();
        let stored = file.summary.as_ref().map_or(0, |it| it.total_files_processed + it.total_dirs_processed);
        if seen == stored {
            return Ok(file);
        }
        Err(BackUpError::Lost { repository: self.shown().to_owned(), seen, lost: seen.saturating_sub(stored) })
    }

    fn commit(&self, gate: &Gate, key: &Key) -> Result<SnapshotId, BackUpError> {
        self.refuse_second(key)?;
        let Some((id, content)) = gate.take_held() else {
            let fault = Fault::Panicked { what: "rustic reported a snapshot and wrote none".to_owned() };
            return Err(self.back_up_error(fault));
        };
        let name = file_name(FileType::Snapshot, &id);
        gate.count_stored(content.len() as u64);
        let written: Result<(), StorageError> = self.storage().write(&name, vec![content], Put::Overwrite);
        written.map_err(|err| self.back_up_error(err.into()))?;
        let id = SnapshotId::from_rustic(id);
        tracing::info!(repository = self.shown(), snapshot = %id, key = %key, "committed a snapshot");
        Ok(id)
    }
}

fn root_error(what: &BackUp, err: &io::Error) -> BackUpError {
    BackUpError::Root { root: what.root.display().to_string(), what: err.to_string() }
}

/// Runs rustic's archiver. What it makes of errors does not matter: ledger and gate know better.
fn archive(opened: Opened, source: &Source, what: &BackUp) -> Result<SnapshotFile, Fault> {
    let (ignore_ctime, force) = match what.change_detection {
        ChangeDetection::ChangeTime => (false, false),
        ChangeDetection::ModificationTime => (true, false),
        ChangeDetection::ReadEverything => (false, true),
    };
    let parent = ParentOptions::default().ignore_ctime(ignore_ctime).force(force);
    let options = BackupOptions::default().parent_opts(parent);
    let paths = [what.as_path.as_path().to_owned()];
    guarded(|| {
        let indexed = opened.to_indexed_ids()?;
        indexed.archive(&options, source, snapshot_draft(what)?, &paths)
    })
}

fn snapshot_draft(what: &BackUp) -> rustic_core::RusticResult<SnapshotFile> {
    let mut draft = SnapshotOptions::default()
        .host(what.host.as_str().to_owned())
        .command("lvault".to_owned())
        .time(what.time.to_zoned(TimeZone::UTC))
        .to_snapshot()?;
    let mut tags = StringList::default();
    what.key.tags().into_iter().for_each(|tag| tags.add(tag));
    what.tags.iter().for_each(|tag| tags.add(tag.as_str().to_owned()));
    draft.tags = tags;
    draft.program_version = concat!("lvault ", env!("CARGO_PKG_VERSION")).to_owned();
    Ok(draft)
}

fn report(snapshot: SnapshotId, file: &SnapshotFile, shared: &Shared, gate: &Gate) -> BackUpReport {
    let summary = file.summary.clone().unwrap_or_default();
    BackUpReport {
        snapshot,
        parent: file.parent.map(|id| SnapshotId::from_rustic(*id)),
        files: shared.ledger.files(),
        changed_files: summary.files_new + summary.files_changed,
        folders: shared.ledger.folders(),
        total_bytes: summary.total_bytes_processed,
        read_bytes: shared.ledger.read_bytes(),
        added_bytes: gate.stored_bytes(),
    }
}

/// Hands rustic's count of bytes on. Files are counted by the readers, which rustic does not count.
struct Bridge(Arc<dyn Progress>);

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bridge")
    }
}

impl ProgressBars for Bridge {
    fn progress(&self, kind: ProgressType, _: &str) -> rustic_core::Progress {
        match kind {
            ProgressType::Bytes => rustic_core::Progress::new(Self(Arc::clone(&self.0))),
            ProgressType::Spinner | ProgressType::Counter => rustic_core::Progress::hidden(),
        }
    }
}

impl RusticProgress for Bridge {
    fn is_hidden(&self) -> bool {
        false
    }
    fn set_length(&self, _: u64) {}
    fn set_title(&self, _: &str) {}
    fn inc(&self, bytes: u64) {
        self.0.bytes(bytes);
    }
    fn finish(&self) {}
}

#[cfg(test)]
mod tests;
