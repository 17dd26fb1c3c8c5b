//! The contract every engine keeps: the [`VolumeEngine`] trait and the values it speaks in.
//!
//! The trait is synchronous; callers run it on threads that may block. Effects are named `ensure_*`, answer whether
//! they changed anything, and may be repeated after any crash. `tests/contract.rs` runs one body against every engine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};

use crate::error::EngineError;
use crate::health::{ClassReport, Problem};

/// Whether an effect had to change the world, or found it as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something was made, moved or removed.
    Changed,
    /// It was so already.
    Unchanged,
}

/// A filesystem that a volume can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filesystem {
    /// ext4: the default.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
}

impl Filesystem {
    /// Its name, as `mount -t` and Kubernetes write it.
    pub fn name(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
            Filesystem::Btrfs => "btrfs",
        }
    }

    /// The smallest volume that may carry it.
    pub fn least_size(self) -> Bytes {
        match self {
            Filesystem::Ext4 => Bytes(32 << 20),
            Filesystem::Xfs => Bytes(300 << 20),
            Filesystem::Btrfs => Bytes(200 << 20),
        }
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no filesystem lvault can make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no filesystem for a volume: say ext4, xfs or btrfs")]
pub struct UnknownFilesystem(String);

impl FromStr for Filesystem {
    type Err = UnknownFilesystem;

    fn from_str(text: &str) -> Result<Self, UnknownFilesystem> {
        match text {
            "ext4" => Ok(Filesystem::Ext4),
            "xfs" => Ok(Filesystem::Xfs),
            "btrfs" => Ok(Filesystem::Btrfs),
            other => Err(UnknownFilesystem(other.to_owned())),
        }
    }
}

/// Whether a volume may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A snapshot: attached read-only, never grown.
    ReadOnly,
    /// A volume, or a clone of one.
    ReadWrite,
}

impl Access {
    /// How Kubernetes objects write it: `ro` or `rw`.
    pub fn name(self) -> &'static str {
        match self {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An empty volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub id: VolumeId,
    /// The size it shall have at least.
    pub size: Bytes,
    /// What it shall carry; `None` leaves the choice to the engine.
    pub filesystem: Option<Filesystem>,
    /// Where it shall lie.
    pub placement: Placement,
}

/// Where and how a volume is laid out, for engines that have a choice. The others take no notice of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The device class; `None` is the default one.
    pub device_class: Option<String>,
    /// A named set of options that replaces those of the device class.
    pub option_class: Option<String>,
}

/// A snapshot or clone to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The name of the snapshot, which is a volume like any other.
    pub id: VolumeId,
    /// The volume it is cut from.
    pub source: VolumeId,
    /// `ReadOnly` for a snapshot, `ReadWrite` for a clone.
    pub access: Access,
}

/// A volume that another program made under this name, and that is to be ours from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Its name.
    pub id: VolumeId,
    /// The size that was asked for.
    pub size: Bytes,
    /// Whether it may be written to.
    pub access: Access,
    /// The device class it was made in; `None` is the default one.
    pub device_class: Option<String>,
}

/// What an engine can do, for choosing one and for telling a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// A volume cannot hold more than its size.
    pub enforces_size: bool,
    /// A read-only snapshot cannot be written to while it is attached.
    pub enforces_read_only: bool,
    /// A snapshot shows the whole volume at one instant. Otherwise a writer active meanwhile may be seen in one file
    /// and not in another.
    pub atomic_snapshots: bool,
    /// A snapshot shares its data with the source and costs nothing until either is written to.
    pub reflink: bool,
    /// A volume grows whether it has snapshots or not, and so does a clone. Otherwise a volume grows once its snapshots are
    /// gone, and a clone does not.
    pub independent_snapshots: bool,
    /// It works for root only.
    pub needs_root: bool,
    /// What a caller may ask for in [`NewVolume::filesystem`]; empty when volumes have no filesystem of their own.
    pub filesystems: &'static [Filesystem],
}

/// The room an engine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// All of it.
    pub total: Bytes,
    /// The largest new volume that would be accepted now.
    pub available: Bytes,
}

/// One volume, as it really is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub id: VolumeId,
    /// Its size: at least what was asked for.
    pub size: Bytes,
    /// The volume it was cut from, which need not exist any more.
    pub origin: Option<VolumeId>,
    /// Whether it may be written to.
    pub access: Access,
    /// What it carries, where it has a filesystem of its own.
    pub filesystem: Option<Filesystem>,
    /// The folder with its files, when it is attached at the engine's own mount point.
    pub attached: Option<PathBuf>,
    /// The storage it takes, where that is cheap to know. What snapshots share is counted for each.
    pub used: Option<Bytes>,
    /// What is wrong with it or with the storage beneath it, the worst first.
    pub problems: Vec<Problem>,
}

/// One thing that [`VolumeEngine::recover`] put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// A filesystem that a killed agent had left frozen takes writes again.
    Thawed(VolumeId),
    /// A volume whose making was cut short was removed.
    HalfMade(VolumeId),
    /// A removal that was cut short was finished.
    HalfRemoved(VolumeId),
    /// A mount of ours whose volume is gone was unmounted.
    StaleMount(PathBuf),
    /// A loop device of ours that nothing uses was released.
    StaleLoop(PathBuf),
    /// The pool was mounted.
    PoolMounted(PathBuf),
    /// A volume that a killed program had left suspended takes reads and writes again.
    Resumed(VolumeId),
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recovered::Thawed(id) => write!(f, "thawed volume {id}, which a killed agent had left frozen"),
            Recovered::HalfMade(id) => write!(f, "removed the half-made volume {id}"),
            Recovered::HalfRemoved(id) => write!(f, "finished removing volume {id}"),
            Recovered::StaleMount(path) => write!(f, "unmounted {}, whose volume is gone", path.display()),
            Recovered::StaleLoop(device) => write!(f, "released the unused loop device {}", device.display()),
            Recovered::Resumed(id) => write!(f, "resumed volume {id}, which a killed program had left suspended"),
            Recovered::PoolMounted(path) => write!(f, "mounted the pool at {}", path.display()),
        }
    }
}

/// What an engine can be told when it is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest that a snapshot may keep writers of its source waiting.
    pub freeze_budget: Duration,
    /// The longest that one storage tool may run before it is ended.
    pub tool_limit: Duration,
    /// The size of the image engine's own pool when one has to be made; `None`: half of what is free.
    pub pool_size: Option<Bytes>,
    /// The lvm engine's device classes: TopoLVM's `lvmd.yaml`.
    pub lvmd_config: Option<PathBuf>,
    /// The share of its source, in percent, that a thick snapshot of the lvm engine can keep of what the source changes.
    pub exception_store_percent: u64,
    /// The oldest that the lvm engine's knowledge of its volumes may be; its own changes it knows at once.
    pub report_age: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            freeze_budget: Duration::from_secs(5),
            tool_limit: Duration::from_secs(120),
            pool_size: None,
            lvmd_config: None,
            exception_store_percent: 20,
            report_age: Duration::from_secs(30),
        }
    }
}

/// Volumes on this node.
///
/// One process at a time uses an engine's state folder; within it, calls for different volumes proceed in parallel and
/// calls for the same volume wait for each other. Every effect may be repeated: what is as wanted already answers
/// [`Change::Unchanged`]. An error whose [`EngineError::retry`] says `Unknown` means: observe again before deciding.
pub trait VolumeEngine: Send + Sync {
    /// Its name, as users write it: `directory`, `image` or `lvm`.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// How much room there is, in bytes.
    fn capacity(&self) -> Result<Capacity, EngineError>;

    /// The room and the health of every device class, for engines that have such; from what is remembered, so that it
    /// may be asked for often.
    fn classes(&self) -> Result<Vec<ClassReport>, EngineError> {
        Ok(Vec::new())
    }

    /// Every finished volume, in order of id. What is half-made or half-removed is not listed. A volume whose record
    /// cannot be read is left out and logged, so that it does not hide the others: [`observe`](Self::observe) says what
    /// is wrong with it. So being absent from this list is no proof that a volume does not exist.
    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError>;

    /// One volume as it is now, or `None` when there is none of that id.
    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError>;

    /// Makes an empty volume. It appears whole or not at all: a crash in the middle leaves only what
    /// [`recover`](Self::recover) sweeps. One that is there with another size or filesystem is a
    /// [`EngineError::Mismatch`]; one larger than the available capacity is refused.
    fn ensure_volume(&self, new: &NewVolume) -> Result<Change, EngineError>;

    /// Cuts a snapshot or clone. It appears whole or not at all, like a volume. Where the engine's snapshots are
    /// atomic, writers of an attached source wait meanwhile, no longer than the freeze budget: a cut that takes longer
    /// is thrown away and answers [`EngineError::FreezeBudget`].
    fn ensure_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError>;

    /// Takes over a volume that another program has made under this name, without touching its data. Nothing there, or ours
    /// already, is [`Change::Unchanged`]. One step: a crash leaves it as it was, or ours.
    fn ensure_adopted(&self, _adoption: &Adoption) -> Result<Change, EngineError> {
        Ok(Change::Unchanged)
    }

    /// Grows a volume and its filesystem to at least this size, attached or not. Shrinking is refused. After a crash in
    /// the middle the old size is reported, the data is whole, and a repeat finishes the growth.
    fn ensure_size(&self, id: &VolumeId, size: Bytes) -> Result<Change, EngineError>;

    /// Attaches a volume and returns the folder with its files. It lasts until [`ensure_detached`](Self::ensure_detached)
    /// or, for mounts, a reboot; it outlives this process. Read-only snapshots are attached read-only where the engine
    /// can enforce that.
    fn ensure_attached(&self, id: &VolumeId) -> Result<PathBuf, EngineError>;

    /// Detaches a volume. One that is in use is a [`EngineError::Busy`] to be tried again later; one that does not exist
    /// is detached.
    fn ensure_detached(&self, id: &VolumeId) -> Result<Change, EngineError>;

    /// Removes a volume and what is left of a half-made one of that id. An attached one is refused with
    /// [`EngineError::Attached`]. The volume's name is free as soon as this begins to remove; a crash in the middle
    /// leaves bytes that [`recover`](Self::recover) or a repeat removes.
    fn ensure_absent(&self, id: &VolumeId) -> Result<Change, EngineError>;

    /// Puts right what a crash has left: to be called at start, before other calls. It thaws, unmounts and removes only
    /// what is its own. What it could not put right is logged and tried again the next time.
    fn recover(&self) -> Result<Vec<Recovered>, EngineError>;

    /// Gives back what the engine holds for itself (the image engine's pool mount), for taking a state folder away.
    /// [`EngineError::Busy`] while volumes are attached. [`recover`](Self::recover) undoes it.
    fn ensure_closed(&self) -> Result<Change, EngineError>;
}
