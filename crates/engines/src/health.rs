//! What engines tell of their storage: the room of each device class, and what is wrong, as data.
//!
//! What holds: a problem has a kind that programs go by and that does not change while the problem stands; its message is
//! for people, and may name figures of the moment.

use lvault_core::Bytes;

/// A device class: its room and its health.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Whether volumes that name no class get this one.
    pub default: bool,
    /// Its volume group.
    pub volume_group: String,
    /// What the volume group has, in all and free of extents, in bytes.
    pub volume_group_size: Bytes,
    /// Free extents of the volume group, in bytes, spare ones too.
    pub volume_group_free: Bytes,
    /// The largest new volume that would be accepted now.
    pub available: Bytes,
    /// Its thin pool, if it has one.
    pub pool: Option<PoolReport>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// A thin pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size: Bytes,
    /// How much of its data is in use, from 0 to 100; none while it is not active.
    pub data_percent: Option<f64>,
    /// How much of its metadata is in use, from 0 to 100; none while it is not active.
    pub metadata_percent: Option<f64>,
    /// What may still be promised to volumes, by the class's overprovision ratio.
    pub overprovisioned_available: Bytes,
}

/// Something that is wrong with a volume or with a device class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is.
    pub kind: ProblemKind,
    /// What happened and what helps, for people.
    pub message: String,
}

/// What can be wrong, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// A thick snapshot has lost what its source has changed.
    SnapshotOverflow,
    /// A thin pool fails, is out of space, or takes no writes.
    PoolFailed,
    /// LVM says that a volume itself does not work.
    VolumeFailed,
    /// A volume group lacks disks.
    DevicesMissing,
    /// A volume group or thin pool is not there, or is not what the configuration says.
    StorageMissing,
    /// A thin pool has so little left that nothing new is begun in it.
    PoolNearlyFull,
    /// New volumes of a thin pool would show what others have written.
    PoolShowsOldData,
    /// The volume's device class is no longer in the configuration.
    ClassGone,
    /// The configuration was changed into one that is refused.
    ConfigRefused,
}

impl ProblemKind {
    /// All of them.
    pub const ALL: [ProblemKind; 9] = [
        ProblemKind::SnapshotOverflow,
        ProblemKind::PoolFailed,
        ProblemKind::VolumeFailed,
        ProblemKind::DevicesMissing,
        ProblemKind::StorageMissing,
        ProblemKind::PoolNearlyFull,
        ProblemKind::PoolShowsOldData,
        ProblemKind::ClassGone,
        ProblemKind::ConfigRefused,
    ];

    /// One word for it, as conditions and events write it.
    pub fn reason(self) -> &'static str {
        match self {
            ProblemKind::SnapshotOverflow => "SnapshotOverflow",
            ProblemKind::PoolFailed => "PoolFailed",
            ProblemKind::VolumeFailed => "VolumeFailed",
            ProblemKind::DevicesMissing => "DevicesMissing",
            ProblemKind::StorageMissing => "StorageMissing",
            ProblemKind::PoolNearlyFull => "PoolNearlyFull",
            ProblemKind::PoolShowsOldData => "PoolShowsOldData",
            ProblemKind::ClassGone => "ClassGone",
            ProblemKind::ConfigRefused => "ConfigRefused",
        }
    }

    /// Whether what is copied out of such storage meanwhile does not count as a copy.
    pub fn spoils_copies(self) -> bool {
        match self {
            ProblemKind::SnapshotOverflow | ProblemKind::PoolFailed => true,
            ProblemKind::VolumeFailed
            | ProblemKind::DevicesMissing
            | ProblemKind::StorageMissing
            | ProblemKind::PoolNearlyFull
            | ProblemKind::PoolShowsOldData
            | ProblemKind::ClassGone
            | ProblemKind::ConfigRefused => false,
        }
    }
}
