//! Giving space back: what no snapshot needs is removed, and packs that hold little of use are written anew.
//!
//! What holds here:
//! - Everything happens under an exclusive lock, which is looked at again before data is removed. Backups and readers wait.
//! - What is needed is found by reading every snapshot and every tree. When one cannot be read, or something they need
//!   is in no index, nothing is removed: a hole in the index would make whole packs look unused.
//! - A pack is removed only when no index file on the disk names it any more, and an index file only when everything
//!   it named stands in another or is not needed. So a prune that is killed at any moment leaves a whole repository.
//! - What is written anew was decrypted and hashed before, and is on disk and in an index before the old copy goes.
//! - On a full storage, what can go without anything being written goes first.
//! - Memory: the index, one byte for each blob, and two packs. Writing anew ends with the time that was given; the rest is
//!   for the next prune.

mod indexes;
mod plan;
mod repack;
mod repair;

use crate::backend::{file_name, list_ids, read_each};
use crate::fault::Fault;
use crate::index::{Indexed, decode};
use crate::lock::Held;
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::retry::Retry;
use crate::storage::{LEFTOVER_AGE, StorageError};
use indexes::IndexFiles;
use jiff::Timestamp;
use plan::Plan;
pub use repair::{RepairError, RepairReport};
use rustic_core::repofile::SnapshotFile;
use rustic_core::{FileType, Id};
use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

/// How a prune goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// So much of what the packs hold may stay unused, in percent of what is used: packs are written anew only until no
    /// more is left. 0 leaves nothing.
    pub max_unused: u8,
    /// No further pack is written anew after this time. Removing what is wholly unused takes as long as it takes.
    pub time: Duration,
    /// How long others who use the repository are waited for.
    pub patience: Duration,
}

impl Default for Prune {
    /// 5 percent as restic; 5 minutes, which is less than a backup waits; two minutes of patience.
    fn default() -> Self {
        Self { max_unused: 5, time: Duration::from_secs(300), patience: Duration::from_secs(120) }
    }
}

/// What the packs of a repository hold, in bytes as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Everything.
    pub total: u64,
    /// What no snapshot needs.
    pub reclaimable: u64,
}

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// What there was before.
    pub before: Space,
    /// What there is now.
    pub after: Space,
    /// Packs that were removed without any of their content being kept.
    pub packs_removed: u64,
    /// Packs of which the rest was written anew, or that were small and were joined.
    pub packs_repacked: u64,
    /// Bytes that were written for that.
    pub bytes_written: u64,
    /// Packs that were to be written anew and are damaged; they stay as they are.
    pub damaged: Vec<String>,
    /// Why packs that should have been written anew were not; the next prune goes on.
    pub unfinished: Option<Unfinished>,
}

/// Why a prune ended before everything was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Its time was over.
    Time,
    /// The storage has no room for writing anew.
    Full,
}

/// Why nothing, or not everything, was pruned. The repository is whole with each of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    /// Reading, writing, or taking the lock.
    #[error("cannot prune {repository}: {fault}")]
    Repository {
        /// The repository.
        repository: String,
        /// What happened.
        fault: Fault,
    },
    /// Finding out what is needed: something is missing.
    #[error(
        "{repository} lacks {count} of the parts that its snapshots need ({}), so nothing was removed; take new snapshots \
         of its volume, which store again what the volume still has, or forget the snapshots that `lvault storage check` \
         names; then prune again", .some.join(", ")
    )]
    Missing {
        /// The repository.
        repository: String,
        /// Some of what is missing.
        some: Vec<String>,
        /// How many parts are missing.
        count: u64,
    },
    /// Going on: the lock was removed by somebody, or could not be renewed.
    #[error("the prune of {repository} ended early, as its lock was removed or could not be renewed; prune again")]
    LostLock {
        /// The repository.
        repository: String,
    },
    /// Going on: the caller asked to stop.
    #[error("the prune of {repository} was asked to stop; prune again for the rest")]
    Stopped {
        /// The repository.
        repository: String,
    },
}

impl PruneError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Repository { fault, .. } => fault.retry(),
            Self::Missing { .. } => Retry::AfterRemedy,
            Self::LostLock { .. } | Self::Stopped { .. } => Retry::Later,
        }
    }
}

/// What ends a prune early.
#[derive(Debug)]
enum End {
    Fault(Fault),
    Missing { some: Vec<String>, count: u64 },
    LostLock,
    Stopped,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StorageError> for End {
    fn from(err: StorageError) -> Self {
        Self::Fault(err.into())
    }
}

/// Called before each change of the storage, so that tests can end a prune there.
type Hook<'a> = Option<&'a dyn Fn() -> Result<(), Fault>>;

/// How long a look at the lock counts.
const LOOK: Duration = Duration::from_secs(1);

/// A prune that is under way.
struct Pruning<'a> {
    repository: &'a Repository,
    progress: &'a dyn Progress,
    lock: Held,
    looked: Cell<Option<Instant>>,
    hook: Hook<'a>,
}

impl Repository {
    /// How much of the repository no snapshot needs. Reads every tree; changes nothing. What a backup that runs has not yet
    /// committed counts as not needed.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn space(&self, progress: &dyn Progress) -> Result<Space, PruneError> {
        progress.step(Step::Pruning);
        let measure = || {
            let _lock = self.lock_for_reading(progress)?;
            let (plan, _, _) = self.plan(0, progress)?;
            Ok(plan.space)
        };
        measure().map_err(|end| self.prune_error(end))
    }

    /// Removes what no snapshot needs, and writes packs anew that hold too much of it.
    ///
    /// Idempotent. A crash at any moment leaves a repository in which every snapshot is whole, with packs that nobody
    /// refers to at most, and the lock of a process that is gone; calling again goes on.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn prune(&self, how: &Prune, progress: &dyn Progress) -> Result<PruneReport, PruneError> {
        self.prune_hooked(how, progress, None)
    }

    fn prune_hooked(&self, how: &Prune, progress: &dyn Progress, hook: Hook<'_>) -> Result<PruneReport, PruneError> {
        progress.step(Step::Pruning);
        let prune = || {
            let lock = self.lock_for_removing(progress, how.patience)?;
            Pruning { repository: self, progress, lock, looked: Cell::new(None), hook }.run(how)
        };
        let report = prune().map_err(|end| self.prune_error(end))?;
        tracing::info!(
            repository = self.shown(),
            removed = report.packs_removed,
            repacked = report.packs_repacked,
            before = report.before.total,
            after = report.after.total,
            "pruned"
        );
        Ok(report)
    }

    fn prune_error(&self, end: End) -> PruneError {
        let repository = self.shown().to_owned();
        match end {
            End::Fault(fault) => PruneError::Repository { repository, fault },
            End::Missing { some, count } => PruneError::Missing { repository, some, count },
            End::LostLock => PruneError::LostLock { repository },
            End::Stopped => PruneError::Stopped { repository },
        }
    }

    /// Finds out what is needed, and what is to be done.
    fn plan(&self, max_unused: u8, progress: &dyn Progress) -> Result<(Plan, Indexed, IndexFiles), End> {
        self.must_be_there()?;
        let (indexed, files) = Indexed::load_with_files(self.storage(), self.seal())?;
        let snapshots: Vec<Id> = list_ids(self.storage(), FileType::Snapshot)?.into_iter().map(|(id, _)| id).collect();
        let mut roots = Vec::new();
        read_each(self.storage(), FileType::Snapshot, &snapshots, |id, stored| {
            let file: SnapshotFile = decode(self.storage(), self.seal(), FileType::Snapshot, id, &stored?)?;
            roots.push(file.tree.into_inner());
            Ok::<_, Fault>(())
        })?;
        let sizes: HashMap<Id, u64> = list_ids(self.storage(), FileType::Pack)?.into_iter().collect();
        let needed = plan::needed(&indexed, &sizes, roots, progress)?;
        Ok((Plan::new(&indexed, &sizes, &needed, max_unused), indexed, IndexFiles::new(files)))
    }
}

impl Pruning<'_> {
    fn run(&self, how: &Prune) -> Result<PruneReport, End> {
        let begin = Instant::now();
        if let Some(before) = SystemTime::from(Timestamp::now()).checked_sub(LEFTOVER_AGE) {
            self.repository.storage().sweep_leftovers(before);
        }
        let (plan, indexed, mut files) = self.repository.plan(how.max_unused, self.progress)?;
        let mut report = PruneReport { before: plan.space, after: plan.space, ..PruneReport::default() };
        self.progress.total(plan.bytes_to_do(), plan.packs_to_do());
        for (pack, size) in &plan.unindexed {
            self.remove_pack(pack)?;
            report.count_removed(*size);
            self.done(*size);
        }
        let unused = plan.unused.iter().map(|(pack, _)| *pack).collect();
        self.drop_packs(&mut files, &unused)?;
        for (_, size) in &plan.unused {
            report.count_removed(*size);
            self.done(*size);
        }
        self.repack(&indexed, &plan, &mut files, begin + how.time, &mut report)?;
        Ok(report)
    }

    /// To be called before each change of the storage.
    fn may_go_on(&self) -> Result<(), End> {
        if self.progress.should_stop() {
            return Err(End::Stopped);
        }
        if self.looked.get().is_none_or(|at| at.elapsed() > LOOK) {
            if !self.lock.is_held()? {
                return Err(End::LostLock);
            }
            self.looked.set(Some(Instant::now()));
        }
        Ok(self.hook.map_or(Ok(()), |hook| hook())?)
    }

    fn remove_pack(&self, pack: &Id) -> Result<(), End> {
        self.may_go_on()?;
        Ok(self.repository.storage().delete(&file_name(FileType::Pack, pack))?)
    }

    fn done(&self, bytes: u64) {
        self.progress.bytes(bytes);
        self.progress.file_done();
    }
}

impl PruneReport {
    fn count_removed(&mut self, size: u64) {
        // One without a size stood in the index and was not there.
        self.packs_removed += u64::from(size > 0);
        self.after.total = self.after.total.saturating_sub(size);
        self.after.reclaimable = self.after.reclaimable.saturating_sub(size);
    }
}

#[cfg(test)]
mod tests;
