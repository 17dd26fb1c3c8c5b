//! Repositories in restic's format: open or make them, back a folder up, verify, restore, forget, prune.
//!
//! What holds in this crate:
//! - A repository is a plain restic repository (format version 2): restic itself lists, checks and restores it.
//! - A snapshot is complete or it is not there: one file that could not be read, one write that failed, one entry that got
//!   lost on the way, and the snapshot file, which is the commit, is never stored.
//! - At most one snapshot for each [`Key`] is made once the first is visible.
//! - A restore is read back and compared, content and metadata, before it is called done.
//! - No error, `Debug` or log holds a password or a key, and no panic of a library passes the border.
//!
//! Everything here is synchronous and meant for a thread of its own. Nothing here knows Kubernetes or volumes.

mod back_up;
mod backend;
mod check;
mod fault;
mod follow;
#[cfg(any(test, lvault_fuzzing))]
pub mod fuzzing;
mod index;
mod key_cache;
mod key_file;
mod keys;
mod labels;
mod location;
mod lock;
mod metadata;
mod open;
mod pipeline;
mod probe;
mod progress;
mod prune;
mod remote;
mod repository;
mod restore;
mod retry;
mod runs;
mod seal;
mod secret;
mod storage;
mod stretches;
mod survey;
mod tree;
mod verify;

pub use back_up::{BackUp, BackUpError, BackUpReport, ChangeDetection, OnReadError, Unreadable};
pub use check::{CheckError, CheckReport, Damage, PackId, ReadData};
pub use fault::Fault;
pub use key_cache::KeyCache;
pub use keys::{add_password, remove_password};
pub use labels::{Host, Key, LabelError, Snapshot, SnapshotId, SourcePath, Tag};
pub use location::{Location, PathError, RepositoryPath};
pub use lock::{LockInfo, Unlock};
pub use open::OpenError;
pub use probe::{Probed, probe};
pub use progress::{Progress, Silent, Step};
pub use prune::{Prune, PruneError, PruneReport, RepairError, RepairReport, Space, Unfinished};
pub use remote::{Endpoint, EndpointError, Remote, RemoteOptions, Service};
pub use repository::{Repository, RepositoryError};
pub use restore::{FileReport, RestoreError, RestoreFailure, RestoreReport};
pub use retry::Retry;
pub use secret::{Password, PasswordError, Secret};
pub use storage::{Cause, CauseKind, StorageError};
pub use survey::repositories;
pub use tree::SnapshotSize;
pub use verify::{Percent, Verified, VerifyDepth, VerifyError};
