//! What an engine says when it could not do what was asked.
//!
//! A variant says what was attempted or refused, what happened, and what helps. [`EngineError::retry`] says whether the
//! same request can succeed later without anybody changing anything: callers decide by it, never by the text.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};

use crate::lvm::LvmError;

/// Whether asking for the same thing again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No: somebody has to change the request or the machine first.
    Never,
    /// Yes, after a while: what is in the way goes away by itself.
    Later,
    /// Nobody knows whether it happened: observe, then decide anew.
    Unknown,
}

/// Why an engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The volume is not there.
    #[error("volume {id} does not exist on this node")]
    NotFound {
        /// The volume asked for.
        id: VolumeId,
    },
    /// The name is taken by something else than what was asked for.
    #[error(
        "volume {id} exists with {there}, but {asked} was asked for; give the new volume another id, or remove the old one"
    )]
    Mismatch {
        /// The volume.
        id: VolumeId,
        /// What it is.
        there: String,
        /// What was asked for.
        asked: String,
    },
    /// The size is too small to work.
    #[error("a size of {asked} for volume {id} is too small: {what} needs at least {least}")]
    TooSmall {
        /// The volume.
        id: VolumeId,
        /// The size asked for.
        asked: Bytes,
        /// The smallest size possible.
        least: Bytes,
        /// What needs it.
        what: &'static str,
    },
    /// Volumes only grow.
    #[error("volume {id} has {size} and cannot shrink to {asked}; make a smaller volume and copy the data")]
    Shrink {
        /// The volume.
        id: VolumeId,
        /// Its size.
        size: Bytes,
        /// The size asked for.
        asked: Bytes,
    },
    /// A read-only snapshot cannot be changed.
    #[error("volume {id} is a read-only snapshot and cannot grow; cut a clone of it with access rw and grow that")]
    ReadOnly {
        /// The snapshot.
        id: VolumeId,
    },
    /// There is less room than was asked for.
    #[error("no room for volume {id}: {asked} more ({exact} bytes) asked for, {available} ({available_exact} bytes) available; remove volumes or add storage",
        exact = asked.0, available_exact = available.0)]
    NoSpace {
        /// The volume.
        id: VolumeId,
        /// What was asked for beyond what it has.
        asked: Bytes,
        /// What there is.
        available: Bytes,
    },
    /// The pool has too little left to share blocks safely.
    #[error(
        "no snapshot of volume {source_id}: the pool has {free} left, and below {least} changed blocks might not fit any more; remove snapshots or volumes"
    )]
    PoolNearlyFull {
        /// The volume to be snapshotted.
        source_id: VolumeId,
        /// What is left.
        free: Bytes,
        /// What has to be left.
        least: Bytes,
    },
    /// This engine cannot do it at all.
    #[error("{what} is not possible with the {engine} engine: {remedy}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Which engine.
        engine: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A volume in use is not removed.
    #[error("volume {id} is attached ({at}) and is not removed; detach it first")]
    Attached {
        /// The volume.
        id: VolumeId,
        /// Where.
        at: String,
    },
    /// Somebody is using it just now.
    #[error("{what} is in use{}; it works once they are done", by(holders))]
    Busy {
        /// What is in use.
        what: String,
        /// Who uses it, as far as can be seen.
        holders: Vec<String>,
    },
    /// Something that is not ours is where ours belongs.
    #[error("{what} at {path} does not belong to lvault and is left alone; move it away")]
    Foreign {
        /// What is there.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// The cut took too long and was thrown away.
    #[error(
        "snapshot of volume {id} given up: cutting it took longer than its freeze budget of {budget:?}; writers go on, nothing was kept"
    )]
    FreezeBudget {
        /// The volume that was frozen.
        id: VolumeId,
        /// The budget.
        budget: Duration,
    },
    /// The source could not be frozen or thawed as planned.
    #[error("snapshot of volume {id} given up: its filesystem could not be frozen: {reason}")]
    Freeze {
        /// The volume.
        id: VolumeId,
        /// What happened.
        reason: String,
    },
    /// A program is not installed.
    #[error(
        "the program {tool} is missing: install the package {package} (apt-get install {package}), or use --engine directory"
    )]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// Only root may do it.
    #[error(
        "this engine attaches devices and mounts them, for which it must be root: run it with sudo, or use --engine directory"
    )]
    NeedsRoot,
    /// The kernel or container offers no loop devices.
    #[error(
        "there are no loop devices ({path} is missing): load the module (modprobe loop) or give the container /dev/loop-control, or use --engine directory"
    )]
    NoLoopDevices {
        /// The device that was looked for.
        path: PathBuf,
    },
    /// A capability is missing from this process.
    #[error(
        "{attempted} is refused because this process lacks {capability}: give it that capability, or detach the volume first; it then grows without it"
    )]
    MissingCapability {
        /// What was attempted.
        attempted: String,
        /// Its name, as in capabilities(7).
        capability: &'static str,
    },
    /// A storage tool failed.
    #[error("{attempted} failed: {program} said: {said}")]
    Tool {
        /// What was attempted.
        attempted: String,
        /// Which program.
        program: &'static str,
        /// Its exit and its error output.
        said: String,
        /// Whether another try can help.
        retry: Retry,
    },
    /// A storage tool did not end in time.
    #[error(
        "{attempted} is unfinished: {program} did not end within {limit:?} and {}; look again before retrying",
        if *goes_on { "goes on, for stopping it would do damage" } else { "was stopped" }
    )]
    ToolTimedOut {
        /// What was attempted.
        attempted: String,
        /// Which program.
        program: &'static str,
        /// How long it was given.
        limit: Duration,
        /// It was left running: until it ends, its volume is busy.
        goes_on: bool,
    },
    /// A file of the engine's own is not as it was written.
    #[error(
        "{path} is damaged: {why}; it was not written like this by lvault, restore it or remove the volume's folder"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The pool is not mounted any more.
    #[error("the pool is not mounted at {path}; restart lvault, which mounts it")]
    PoolGone {
        /// Where it belongs.
        path: PathBuf,
    },
    /// There is too little room for a pool.
    #[error(
        "a pool of {size} in {path} is too small: it needs at least {least} ({free} are free there); make room, give a larger pool size, or use --engine directory"
    )]
    PoolTooSmall {
        /// The state folder.
        path: PathBuf,
        /// The size it would have.
        size: Bytes,
        /// The smallest size possible.
        least: Bytes,
        /// What is free in the state folder.
        free: Bytes,
    },
    /// The pool asked for does not fit.
    #[error("a pool of {size} does not fit into {path}, where {free} are free; make room or give a smaller pool size")]
    PoolTooLarge {
        /// The state folder.
        path: PathBuf,
        /// The size asked for.
        size: Bytes,
        /// What is free in the state folder.
        free: Bytes,
    },
    /// The state folder belongs to another engine.
    #[error(
        "{path} says that this state folder holds volumes of the {recorded} engine, but {wished} was asked for; use another state folder, or --engine {recorded}"
    )]
    OtherEngine {
        /// The file that says so.
        path: PathBuf,
        /// The engine whose volumes are there.
        recorded: String,
        /// The engine asked for.
        wished: String,
    },
    /// What only LVM can get wrong.
    #[error(transparent)]
    Lvm(#[from] LvmError),
    /// The system refused.
    #[error("{attempted} {path}")]
    Io {
        /// What was attempted, to be read before the path.
        attempted: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn by(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(" by {}", holders.join(", ")) }
}

impl EngineError {
    /// Whether asking again can help; see [`Retry`].
    pub fn retry(&self) -> Retry {
        match self {
            EngineError::NotFound { .. }
            | EngineError::Mismatch { .. }
            | EngineError::TooSmall { .. }
            | EngineError::Shrink { .. }
            | EngineError::ReadOnly { .. }
            | EngineError::NoSpace { .. }
            | EngineError::PoolNearlyFull { .. }
            | EngineError::Unsupported { .. }
            | EngineError::Foreign { .. }
            | EngineError::ToolMissing { .. }
            | EngineError::NeedsRoot
            | EngineError::NoLoopDevices { .. }
            | EngineError::Damaged { .. }
            | EngineError::MissingCapability { .. }
            | EngineError::PoolTooSmall { .. }
            | EngineError::PoolTooLarge { .. }
            | EngineError::OtherEngine { .. } => Retry::Never,
            EngineError::Attached { .. }
            | EngineError::Busy { .. }
            | EngineError::FreezeBudget { .. }
            | EngineError::Freeze { .. }
            | EngineError::PoolGone { .. } => Retry::Later,
            EngineError::ToolTimedOut { .. } => Retry::Unknown,
            EngineError::Tool { retry, .. } => *retry,
            EngineError::Lvm(error) => error.retry(),
            EngineError::Io { source, .. } => io_retry(source),
        }
    }

    /// Whether it is about room that is not there, which somebody can make.
    pub fn lacks_room(&self) -> bool {
        matches!(
            self,
            EngineError::NoSpace { .. }
                | EngineError::PoolNearlyFull { .. }
                | EngineError::Lvm(LvmError::PoolFull { .. } | LvmError::NoRoomForStore { .. })
        )
    }

    /// Makes an I/O error out of what the system said: `.map_err(EngineError::io("reading", &path))`.
    pub(crate) fn io<E: Into<io::Error>>(
        attempted: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> EngineError {
        move |source| EngineError::Io { attempted, path: path.into(), source: source.into() }
    }
}

/// A full disk, a refused permission and a wrong kind of file stay so until somebody acts; the rest may pass.
fn io_retry(error: &io::Error) -> Retry {
    use io::ErrorKind as K;
    let kind = error.kind();
    let lasting = [
        K::StorageFull,
        K::QuotaExceeded,
        K::PermissionDenied,
        K::ReadOnlyFilesystem,
        K::NotADirectory,
        K::IsADirectory,
        K::Unsupported,
        K::InvalidInput,
        K::FileTooLarge,
    ];
    if lasting.contains(&kind) {
        Retry::Never
    } else if kind == K::TimedOut || kind == K::Interrupted {
        Retry::Unknown
    } else {
        Retry::Later
    }
}
