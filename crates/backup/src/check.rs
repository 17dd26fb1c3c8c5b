//! Checking a whole repository: every index, pack and tree, and on demand every byte.

use crate::fault::{Fault, guarded};
use crate::repository::Repository;
use crate::retry::Retry;
use rustic_core::{CheckOptions, CheckResults};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// What is broken. Snapshots that need it cannot be restored whole.
    pub errors: Vec<String>,
    /// What is odd but harmless, such as packs that nobody refers to: a killed backup leaves them, a prune removes them.
    pub warnings: Vec<String>,
}

impl CheckReport {
    /// Whether nothing is broken.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
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
}

impl CheckError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Read { fault, .. } => fault.retry(),
        }
    }
}

impl Repository {
    /// Checks the repository's structure, and with `read_data` reads and hashes every pack that a snapshot needs. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`CheckError::Read`] when the check could not be made; what it finds is in the report.
    pub fn check(&self, read_data: bool) -> Result<CheckReport, CheckError> {
        let checked = self.session().and_then(|opened| {
            let options = CheckOptions::default().read_data(read_data);
            guarded(|| opened.check(options))
        });
        let results = checked.map_err(|fault| CheckError::Read { repository: self.shown().to_owned(), fault })?;
        let mut report = CheckReport::default();
        for (level, finding) in results.0 {
            let text = finding.to_string();
            // The level's type is not exported; a list of one finding tells whether it is an error.
            let is_error = CheckResults(vec![(level, finding)]).is_ok().is_err();
            if is_error { report.errors.push(text) } else { report.warnings.push(text) }
        }
        Ok(report)
    }
}
