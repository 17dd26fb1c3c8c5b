//! What only LVM can get wrong, each with what helps.

use std::path::PathBuf;

use lvault_core::{Bytes, VolumeId};

use super::config::At;
use crate::error::Retry;
use crate::health::{Problem, ProblemKind};

/// Why the LVM engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LvmError {
    /// The configuration cannot be read.
    #[error("cannot read {path}: {why}; name the file with --lvmd-config")]
    ConfigUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The configuration makes no sense.
    #[error("{path}{at}: {why}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The line, where the reason does not name it.
        at: At,
        /// Field and reason.
        why: String,
    },
    /// A device class was asked for that there is none of.
    #[error("there is no device class '{class}' in {path}: there are {known}")]
    NoSuchClass {
        /// The class asked for.
        class: String,
        /// Those that there are.
        known: String,
        /// The configuration.
        path: PathBuf,
    },
    /// None was asked for, and there is no default.
    #[error("no device class was named, and {path} has no default one: name one of {known}, or give one default: true")]
    NoDefaultClass {
        /// Those that there are.
        known: String,
        /// The configuration.
        path: PathBuf,
    },
    /// An option class was asked for that there is none of.
    #[error("there is no lvcreate-option-class '{class}' in {path}: there are {known}")]
    NoSuchOptionClass {
        /// The class asked for.
        class: String,
        /// Those that there are.
        known: String,
        /// The configuration.
        path: PathBuf,
    },
    /// The class of a volume was taken out of the configuration.
    #[error(
        "volume {id} belongs to device class '{class}', which is no longer in {path}: put it back; until then the volume is kept as it is, and can be attached and removed"
    )]
    ClassGone {
        /// The volume.
        id: VolumeId,
        /// Its class.
        class: String,
        /// The configuration.
        path: PathBuf,
    },
    /// There is no such volume group.
    #[error(
        "device class '{class}' needs the volume group {group}, which does not exist: make it with vgcreate, or correct {path}"
    )]
    GroupMissing {
        /// The class.
        class: String,
        /// Its volume group.
        group: String,
        /// The configuration.
        path: PathBuf,
    },
    /// LVM does not show a volume group, so nothing is known of what may lie in it.
    #[error(
        "nothing is known of volume {id}: it may lie in the volume group {group}, which LVM does not show; look whether its disks are connected and answer (pvs, dmesg)"
    )]
    GroupUnseen {
        /// The volume.
        id: VolumeId,
        /// The volume group.
        group: String,
    },
    /// There is no such thin pool.
    #[error(
        "device class '{class}' needs the thin pool {pool}, which does not exist: make it with lvcreate --type thin-pool, or correct {path}"
    )]
    PoolMissing {
        /// The class.
        class: String,
        /// Group and pool.
        pool: String,
        /// The configuration.
        path: PathBuf,
    },
    /// It is there, but is no thin pool.
    #[error(
        "device class '{class}' needs the thin pool {pool}, but that is a volume of type {layout}: name another in {path}"
    )]
    NoPool {
        /// The class.
        class: String,
        /// Group and name.
        pool: String,
        /// What it is.
        layout: String,
        /// The configuration.
        path: PathBuf,
    },
    /// New volumes would show what was there before.
    #[error(
        "the thin pool {pool} does not zero new blocks, so a new volume could show old data: run lvchange --zero y {pool}"
    )]
    PoolShowsOldData {
        /// Group and pool.
        pool: String,
    },
    /// The pool has too little left.
    #[error(
        "the thin pool {pool} is nearly full (data {data}, metadata {metadata}, and from {most}% on nothing new is begun): extend it with lvextend, or remove volumes or snapshots"
    )]
    PoolFull {
        /// Group and pool.
        pool: String,
        /// How much of its data is in use.
        data: Percent,
        /// How much of its metadata is in use.
        metadata: Percent,
        /// The most at which something new is begun.
        most: u32,
    },
    /// The pool does not work.
    #[error("the thin pool {pool} does not work ({health}): see lvs -a, dmesg, and lvconvert --repair")]
    PoolFailed {
        /// Group and pool.
        pool: String,
        /// What LVM says of it.
        health: String,
    },
    /// Disks are missing.
    #[error(
        "the volume group {group} lacks {devices}: connect them again, or give them up with vgreduce --removemissing"
    )]
    DevicesMissing {
        /// The group.
        group: String,
        /// What is missing.
        devices: String,
    },
    /// LVM is older than what is used of it.
    #[error("LVM {version} is too old: {least} or newer is needed; upgrade the package lvm2")]
    TooOld {
        /// What is there.
        version: String,
        /// What is needed.
        least: &'static str,
    },
    /// LVM has written what nobody understands.
    #[error(
        "what LVM wrote is not understood ({why}): this is a defect of lvault or of LVM; say which version `lvm version` shows"
    )]
    Output {
        /// What is wrong.
        why: String,
    },
    /// A thick snapshot's exception store is full.
    #[error(
        "snapshot {id} is lost: its source has changed more than the snapshot's exception store holds, or the store could not be written to; make a new one when less is written, or use a thin class"
    )]
    SnapshotOverflow {
        /// The snapshot.
        id: VolumeId,
    },
    /// LVM says that a volume does not work.
    #[error("volume {id} does not work ({health}): see lvs -a, and dmesg")]
    VolumeFailed {
        /// The volume.
        id: VolumeId,
        /// What LVM says of it.
        health: String,
    },
    /// A volume that somebody else made is not what it should be.
    #[error("the logical volume {volume} is not taken over, and left as it is: {why}")]
    NotAdopted {
        /// Group and name.
        volume: String,
        /// What does not fit.
        why: String,
    },
    /// Thick snapshots live on their source.
    #[error("volume {id} has snapshots that need it ({snapshots}): it can be {what} once they are removed")]
    HasSnapshots {
        /// The volume.
        id: VolumeId,
        /// What was to be done, as a participle.
        what: &'static str,
        /// The snapshots.
        snapshots: String,
    },
    /// Thick snapshots are no volumes of their own.
    #[error("{what} is not possible, for {id} is a thick snapshot, which lives on its source: use a thin device class")]
    ThickSnapshot {
        /// The snapshot.
        id: VolumeId,
        /// What was to be done.
        what: &'static str,
    },
    /// A device answers with errors.
    #[error("{what}: the device {device} answers with errors: {why}; see dmesg, and replace the disk")]
    Device {
        /// What was attempted.
        what: String,
        /// Which device.
        device: PathBuf,
        /// What was said.
        why: String,
    },
    /// A class has less room than was asked for, in numbers of LVM.
    #[error(
        "no room for the exception store of a snapshot of {id}: {asked} asked for, {available} available in {group}"
    )]
    NoRoomForStore {
        /// The source.
        id: VolumeId,
        /// The store's size.
        asked: Bytes,
        /// What is free, less what stays spare.
        available: Bytes,
        /// The group.
        group: String,
    },
}

/// A share of something, where it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub(crate) Option<f64>);

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:.1}%"),
            None => f.write_str("unknown"),
        }
    }
}

impl LvmError {
    /// Whether asking again can help; see [`Retry`].
    pub fn retry(&self) -> Retry {
        match self {
            LvmError::ConfigUnreadable { .. }
            | LvmError::Config { .. }
            | LvmError::NoSuchClass { .. }
            | LvmError::NoDefaultClass { .. }
            | LvmError::NoSuchOptionClass { .. }
            | LvmError::ClassGone { .. }
            | LvmError::GroupMissing { .. }
            | LvmError::PoolMissing { .. }
            | LvmError::NoPool { .. }
            | LvmError::PoolShowsOldData { .. }
            | LvmError::PoolFull { .. }
            | LvmError::PoolFailed { .. }
            | LvmError::DevicesMissing { .. }
            | LvmError::TooOld { .. }
            | LvmError::Output { .. }
            | LvmError::SnapshotOverflow { .. }
            | LvmError::VolumeFailed { .. }
            | LvmError::NotAdopted { .. }
            | LvmError::ThickSnapshot { .. }
            | LvmError::Device { .. }
            | LvmError::NoRoomForStore { .. } => Retry::Never,
            LvmError::HasSnapshots { .. } | LvmError::GroupUnseen { .. } => Retry::Later,
        }
    }

    /// It as a lasting state of the storage, where it is one.
    pub(super) fn problem(&self) -> Option<Problem> {
        let kind = match self {
            LvmError::SnapshotOverflow { .. } => ProblemKind::SnapshotOverflow,
            LvmError::PoolFailed { .. } => ProblemKind::PoolFailed,
            LvmError::VolumeFailed { .. } => ProblemKind::VolumeFailed,
            LvmError::DevicesMissing { .. } => ProblemKind::DevicesMissing,
            LvmError::GroupMissing { .. } | LvmError::PoolMissing { .. } | LvmError::NoPool { .. } => {
                ProblemKind::StorageMissing
            }
            LvmError::PoolFull { .. } => ProblemKind::PoolNearlyFull,
            LvmError::PoolShowsOldData { .. } => ProblemKind::PoolShowsOldData,
            LvmError::ClassGone { .. } => ProblemKind::ClassGone,
            LvmError::ConfigUnreadable { .. } | LvmError::Config { .. } => ProblemKind::ConfigRefused,
            LvmError::NoSuchClass { .. }
            | LvmError::NoDefaultClass { .. }
            | LvmError::NoSuchOptionClass { .. }
            | LvmError::TooOld { .. }
            | LvmError::Output { .. }
            | LvmError::GroupUnseen { .. }
            | LvmError::NotAdopted { .. }
            | LvmError::ThickSnapshot { .. }
            | LvmError::HasSnapshots { .. }
            | LvmError::Device { .. }
            | LvmError::NoRoomForStore { .. } => return None,
        };
        Some(Problem { kind, message: self.to_string() })
    }
}
