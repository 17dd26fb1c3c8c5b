//! The arguments of snapshots and restores.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Filesystem, Output, PlacementArgs, WaitArgs};
use crate::names::duration;

/// What becomes of the repository's snapshot when its object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeletionPolicy {
    /// It is removed with the object.
    Delete,
    /// It stays.
    Retain,
}

/// Commands about snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Snapshot a volume and copy the snapshot into a repository
    Create {
        /// The snapshot's name
        name: String,
        /// The volume
        #[arg(long, value_name = "VOLUME")]
        source: String,
        /// The storage that holds the repository
        #[arg(long, value_name = "[NAMESPACE/]NAME")]
        storage: String,
        /// The node of the volume, to be sure which one is meant [default: wherever it is]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Keep the local snapshot after the copy succeeded
        #[arg(long)]
        keep_local: bool,
        /// How many executors may be lost before the attempt fails
        #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..))]
        backoff_limit: i32,
        /// What becomes of the repository's snapshot when this one is deleted
        #[arg(long, value_enum, default_value = "delete")]
        deletion_policy: DeletionPolicy,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// List snapshots
    List {
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Show a snapshot's progress until it ends
    Watch {
        /// Its name
        name: String,
        /// Give up watching after this time, such as 30s or 5m
        #[arg(long, value_parser = duration, value_name = "TIME")]
        timeout: Option<Duration>,
    },
    /// Try a failed snapshot again
    Retry {
        /// Its name
        name: String,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete a snapshot, also from its repository
    Delete {
        /// Its name
        name: String,
        /// Leave it in the repository
        #[arg(long)]
        keep_repository: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// Arguments of `lvault restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// The new volume's name
    pub name: String,
    /// The snapshot to restore
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["storage", "path", "snapshot_id"])]
    pub from: Option<String>,
    /// The storage to restore from, without a snapshot object
    #[arg(long, value_name = "[NAMESPACE/]NAME", requires_all = ["path", "snapshot_id", "size"])]
    pub storage: Option<String>,
    /// The repository's path in the storage, such as default/data
    #[arg(long, value_name = "PATH", requires = "storage")]
    pub path: Option<String>,
    /// The snapshot's id in the repository, or at least 8 characters of it
    #[arg(long, value_name = "ID", requires = "storage")]
    pub snapshot_id: Option<String>,
    /// The new volume's size [default: the snapshot's]
    #[arg(long)]
    pub size: Option<String>,
    /// The new volume's filesystem [default: the engine's]
    #[arg(long, value_enum)]
    pub filesystem: Option<Filesystem>,
    /// The node that holds the new volume [default: this one]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where the new volume lies.
    #[command(flatten)]
    pub placement: PlacementArgs,
    /// Try a failed restore again
    #[arg(long, conflicts_with_all = ["from", "storage", "path", "snapshot_id", "size", "filesystem", "node", "device_class", "lvcreate_option_class"])]
    pub retry: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,
}
