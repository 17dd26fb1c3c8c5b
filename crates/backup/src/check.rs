//! Checking a whole repository: every file's name against its content, every index, pack and tree, and on demand the data.
//!
//! The names of all files but the config are hashes of their content, so a flipped bit is found wherever it is. What is
//! damaged is named with the snapshots and files that need it. Memory: the index twice, and a few bytes for each tree.

mod concerned;
mod packs;

use crate::backend::{file_name, list_ids, read_each};
use crate::fault::Fault;
use crate::index::Indexed;
use crate::labels::SnapshotId;
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::retry::Retry;
use crate::seal::hash;
use crate::verify::Percent;
use concerned::Concerned;
pub use packs::PackId;
use rustic_core::repofile::SnapshotFile;
use rustic_core::{FileType, Id};
use std::path::PathBuf;

/// How many of the packs a check reads and hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadData {
    /// None: packs have to be there and long enough, and all trees readable.
    Nothing,
    /// About so many of a hundred, others each time.
    Percent(Percent),
    /// All.
    Everything,
}

impl ReadData {
    /// So many of a hundred; more than 100 is everything.
    pub fn of_percent(percent: u8) -> Self {
        match (percent, Percent::new(percent)) {
            (_, Some(percent)) => Self::Percent(percent),
            (0, None) => Self::Nothing,
            (_, None) => Self::Everything,
        }
    }
}

/// Damage, and what it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged, and how.
    pub what: String,
    /// The snapshots that cannot be restored whole.
    pub snapshots: Vec<SnapshotId>,
    /// Some of the files and folders in them that are concerned, by their path in the snapshot.
    pub files: Vec<PathBuf>,
    /// How many files and folders are concerned, each counted in each snapshot.
    pub files_count: u64,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// What is broken. Each with no snapshots concerns none that is there.
    pub damages: Vec<Damage>,
    /// What is odd but harmless, such as packs that nobody refers to: a killed backup leaves them, a prune removes them.
    pub warnings: Vec<String>,
    /// Packs that were read and hashed.
    pub packs_read: u64,
    /// Packs in the index that are missing, cut off or damaged: what [`Repository::repair`] takes.
    pub broken_packs: Vec<PackId>,
}

impl CheckReport {
    /// Whether nothing is broken.
    pub fn is_clean(&self) -> bool {
        self.damages.is_empty()
    }

    fn add(&mut self, what: String) {
        self.damages.push(Damage { what, snapshots: Vec::new(), files: Vec::new(), files_count: 0 });
    }
}

/// Why a repository could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Reading the repository.
    #[error("cannot check {repository}: {fault}")]
    Read {
        /// The repository.
        repository: String,
        /// What happened.
        fault: Fault,
    },
    /// Going on: the caller asked to stop.
    #[error("the check was asked to stop")]
    Stopped,
}

impl CheckError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Read { fault, .. } => fault.retry(),
            Self::Stopped => Retry::Later,
        }
    }
}

impl Repository {
    /// Checks the repository: config, keys, snapshots, indexes, that packs are there and long enough, all trees, and as many
    /// packs' content as is asked for. Changes nothing.
    ///
    /// # Errors
    /// [`CheckError`] when the check could not be made; what it finds is in the report.
    pub fn check(&self, read_data: ReadData, progress: &dyn Progress) -> Result<CheckReport, CheckError> {
        progress.step(Step::Verifying);
        let checked = self.lock_for_reading(progress).and_then(|_lock| self.examine(read_data, progress));
        let report = checked.map_err(|fault| CheckError::Read { repository: self.shown().to_owned(), fault })?;
        if progress.should_stop() { Err(CheckError::Stopped) } else { Ok(report) }
    }

    fn examine(&self, read_data: ReadData, progress: &dyn Progress) -> Result<CheckReport, Fault> {
        let mut report = CheckReport::default();
        self.examine_config_and_keys(&mut report)?;
        let snapshots = self.examine_snapshots(&mut report)?;
        let indexed = Indexed::load_what_is_whole(self.storage(), self.seal(), |damage| report.add(damage))?;
        let mut concerned = Concerned::new(&indexed);
        self.examine_packs(&indexed, read_data, progress, &mut report, &mut concerned)?;
        concerned.read_trees(&snapshots, progress)?;
        concerned.report(&snapshots, &mut report)?;
        Ok(report)
    }

    fn examine_config_and_keys(&self, report: &mut CheckReport) -> Result<(), Fault> {
        let config = self.storage().read("config")?;
        if let Err(what) = self.seal().decode_file(&config) {
            report.add(format!("the config: {what}"));
        }
        self.read_whole(FileType::Key, report, |_, _, _| ())
    }

    /// Reads all files of a kind and checks their names; those that are whole are handed over.
    fn read_whole(
        &self,
        tpe: FileType,
        report: &mut CheckReport,
        mut take: impl FnMut(Id, &[u8], &mut CheckReport),
    ) -> Result<(), Fault> {
        let ids: Vec<Id> = list_ids(self.storage(), tpe)?.into_iter().map(|(id, _)| id).collect();
        read_each(self.storage(), tpe, &ids, |id, content| {
            let content = content?;
            if Id::new(hash(&content)) == *id {
                take(*id, &content, report);
            } else {
                report.add(format!("{}: its content is not what its name says", file_name(tpe, id)));
            }
            Ok::<_, Fault>(())
        })
    }

    fn examine_snapshots(&self, report: &mut CheckReport) -> Result<Vec<(SnapshotId, Id)>, Fault> {
        let mut snapshots = Vec::new();
        self.read_whole(FileType::Snapshot, report, |id, content, report| {
            let json = self.seal().decode_file(content);
            let file =
                json.and_then(|json| serde_json::from_slice::<SnapshotFile>(&json).map_err(|err| err.to_string()));
            match file {
                Ok(file) => snapshots.push((SnapshotId::from_rustic(id), file.tree.into_inner())),
                Err(what) => report.add(format!("{}: {what}", file_name(FileType::Snapshot, &id))),
            }
        })?;
        Ok(snapshots)
    }
}

#[cfg(test)]
mod tests;
