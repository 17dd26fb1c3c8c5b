//! The resources of lvault as they stand on the wire: types, validation, status patches, and their CRDs.
//!
//! This is the only crate that knows the shape of a LogicalVolume or a SnapshotBackupStorage. What comes in is turned
//! into the types of [`lvault_core`] here, at the edge; what goes out is the smallest patch that says what changed.

pub mod conditions;
pub mod crds;
#[cfg(any(test, lvault_fuzzing))]
pub mod fuzzing;
pub mod keys;
mod quantity;
pub mod status;
mod storage;
pub mod task;
mod transfer;
mod volume;

pub use quantity::{InvalidSize, format_size, parse_size};
pub use storage::{
    AzureStorage, Flags, GcsStorage, InvalidStorage, Limits, LocalStorage, Provider, PrunePolicy, PruneStatus,
    ReadBackPolicy, S3Storage, SnapshotBackupStorage, SnapshotBackupStorageSpec, SnapshotBackupStorageStatus,
    StorageLocation, StoragePhase,
};
pub use transfer::{
    ExecutorStatus, Incomplete, MalformedStatus, Operation, Phase, Progress, TransferError, TransferStatus,
};
pub use volume::{
    AccessType, Content, DeletionPolicy, Filesystem, InvalidSpec, LogicalVolume, LogicalVolumeSpec,
    LogicalVolumeStatus, OnReadError, OnlineSnapshotSpec, RestoreSpec, StorageReference, Validated, Wanted,
    repository_path, validate,
};
