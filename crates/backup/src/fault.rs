//! What rustic reports, in this crate's words. No panic of rustic passes this border.

use crate::retry::Retry;
use crate::storage::StorageError;
use rustic_core::{ErrorKind, RusticError, RusticResult};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why an operation on an open repository failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is stored cannot be read or does not fit together.
    #[error(
        "the repository is damaged: {what}; examine it with `restic check --read-data`, and restore the damaged files \
         from a copy of the repository or take a new snapshot of the volume"
    )]
    Damaged {
        /// What does not fit.
        what: String,
    },
    /// Somebody else holds a lock.
    #[error(
        "it is locked: {lock}; {}",
        if *.is_stale {
            "make sure that nobody uses it, and remove the lock with `lvault storage unlock` or `restic unlock`"
        } else {
            "wait until its holder is done, then try again"
        }
    )]
    Locked {
        /// Who holds it, and since when.
        lock: String,
        /// Whether its holder is gone.
        is_stale: bool,
    },
    /// The machine cannot do its part.
    #[error("this machine cannot go on: {what}; free memory or use another machine, then try again")]
    System {
        /// What it cannot do.
        what: String,
    },
    /// What reads and writes repositories ended in a panic.
    #[error(
        "the work on the repository ended unexpectedly: {what}; nothing was committed, and this is a defect to report"
    )]
    Panicked {
        /// The panic's message.
        what: String,
    },
}

impl Fault {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Storage(err) => err.retry(),
            Self::Damaged { .. } => Retry::Never,
            Self::Locked { is_stale: true, .. } => Retry::AfterRemedy,
            Self::Locked { .. } | Self::System { .. } | Self::Panicked { .. } => Retry::Later,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    pub(crate) fn system(what: impl Into<String>) -> Self {
        Self::System { what: what.into() }
    }

    fn from_rustic(err: &RusticError) -> Self {
        storage_error_in(err).map_or_else(|| Self::Damaged { what: in_one_line(err) }, Self::Storage)
    }
}

/// The storage's error, where one lies at the bottom of rustic's.
pub(crate) fn storage_error_in(err: &RusticError) -> Option<StorageError> {
    let mut next = std::error::Error::source(err);
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref::<StorageError>() {
            return Some(found.clone());
        }
        if let Some(found) = err.downcast_ref::<Box<RusticError>>()
            && let Some(found) = storage_error_in(found)
        {
            return Some(found);
        }
        next = err.source();
    }
    None
}

/// rustic's report takes a screen; its innermost message is what tells most.
fn in_one_line(err: &RusticError) -> String {
    let mut innermost = err;
    let mut next = std::error::Error::source(err);
    while let Some(err) = next {
        if let Some(found) = err.downcast_ref::<RusticError>() {
            innermost = found;
        } else if let Some(found) = err.downcast_ref::<Box<RusticError>>() {
            innermost = found;
        }
        next = err.source();
    }
    let (outer, inner) = (message_of(err), message_of(innermost));
    if outer == inner { inner } else { format!("{outer}: {inner}") }
}

fn message_of(err: &RusticError) -> String {
    let line = err.display_log();
    let line = line.strip_prefix("Error: ").unwrap_or(&line);
    let line = line.split(" (kind: ").next().unwrap_or(line);
    line.split('\n').next().unwrap_or(line).trim_end_matches('.').to_owned()
}

/// Wraps a storage error so that rustic carries it up unchanged.
pub(crate) fn into_rustic(err: StorageError) -> Box<RusticError> {
    RusticError::with_source(ErrorKind::Backend, "the storage failed", err)
}

/// Calls into rustic: errors become faults, and so do panics.
pub(crate) fn guarded<T>(call: impl FnOnce() -> RusticResult<T>) -> Result<T, Fault> {
    match guarded_raw(call)? {
        Ok(value) => Ok(value),
        Err(err) => Err(Fault::from_rustic(&err)),
    }
}

/// As [`guarded`], for callers that look at rustic's error themselves.
pub(crate) fn guarded_raw<T>(call: impl FnOnce() -> RusticResult<T>) -> Result<RusticResult<T>, Fault> {
    guarded_call(call)
}

/// Calls anything; a panic becomes a fault.
pub(crate) fn guarded_call<T>(call: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Fault::Panicked { what: text.unwrap_or_else(|| "a panic without a message".to_owned()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Cause, CauseKind};

    #[test]
    fn a_panic_becomes_a_fault() {
        let fault = guarded::<()>(|| panic!("boom")).unwrap_err();
        assert_eq!(fault, Fault::Panicked { what: "boom".to_owned() });
    }

    #[test]
    fn the_storage_error_is_found_under_rustics_own() {
        let cause = Cause { kind: CauseKind::Full, text: "no space".to_owned() };
        let storage = StorageError::Write { path: "/r/data".to_owned(), cause };
        let inner = into_rustic(storage.clone());
        let outer = RusticError::with_source(ErrorKind::Internal, "outer", inner);
        assert_eq!(guarded::<()>(|| Err(outer)).unwrap_err(), Fault::Storage(storage));
    }
}
