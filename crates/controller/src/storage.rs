//! SnapshotBackupStorages: whether each can be used, and if not, why and what to do.

mod check;
mod decide;
mod examine;
mod reconcile;

pub use check::{RepositoryCheck, StorageCheck, Target};
pub use decide::{Decision, Finding, Known, Verdict, decide};
pub(crate) use examine::Examiner;
pub(crate) use reconcile::{Storages, trigger};
