//! What the node agent sees when it looks at one LogicalVolume and at what really exists for it.

use crate::{Attempt, Bytes, Launch, Record, Seen};

/// Everything [`decide`](crate::decide) knows about one LogicalVolume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observed {
    /// What the user asks for.
    pub intent: Intent,
    /// The user has deleted the object: everything it owns is to go.
    pub deleting: bool,
    /// Our finalizer stands on the object, so that it cannot vanish before its teardown.
    pub finalizer: bool,
    /// The local volume of this object's id, in the engine.
    pub volume: Seen<Volume>,
    /// Whether that volume is mounted now. `Present` means the right device was recognised at the right place.
    pub mount: Seen<()>,
    /// The newest executor of this object, whatever its attempt and operation.
    pub executor: Seen<Executor>,
    /// The lease of that executor.
    pub lease: Seen<Lease>,
    /// What the last effect for this object ended with, where it cannot succeed by being repeated.
    pub trouble: Option<Trouble>,
}

impl Observed {
    /// Whether the object is filled from a repository.
    pub fn intent_is_restore(&self) -> bool {
        match self.intent {
            Intent::Restore(..) => true,
            Intent::Volume(_) | Intent::LocalSnapshot(..) | Intent::OnlineSnapshot(..) => false,
        }
    }
}

/// What a LogicalVolume is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Intent {
    /// A volume of its own, empty at first.
    Volume(Local),
    /// A snapshot or clone that stays on the node.
    LocalSnapshot(Local, Seen<Source>),
    /// A snapshot that is copied off the node.
    OnlineSnapshot(Online, Seen<Source>),
    /// A volume that is filled from a repository.
    Restore(Online, Local),
}

/// The local side of a volume that applications use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// The size asked for.
    pub size: Bytes,
    /// What the status reports: the size, once the volume has been published.
    pub published: Option<Bytes>,
    /// Whether this node keeps its volumes mounted for applications on the host.
    pub serve: bool,
}

/// The online side: what is copied, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Online {
    /// The attempt the user asks for.
    pub attempt: Attempt,
    /// How many executors may be lost before the attempt fails.
    pub backoff_limit: u32,
    /// Keep the local snapshot after the copy succeeded.
    pub keep_local: bool,
    /// What the status says of it.
    pub record: Option<Record>,
    /// The attempt has waited longer than it may for something that has to be there before it can start.
    pub overdue: bool,
    /// The repository storage.
    pub storage: Seen<Storage>,
    /// What is in the repository for this object and has to be removed with it.
    pub repository: Repository,
}

/// The repository storage, as far as an executor needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Storage {
    /// It can be used.
    Ready,
    /// It exists, and cannot be used now: not checked yet, or its check failed.
    NotReady,
}

/// What deleting the object has to remove from the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repository {
    /// Nothing: never written, to be retained, removed already, or its storage is gone.
    Nothing,
    /// It may hold a snapshot of this object.
    Holds,
    /// It may hold a snapshot; removing it failed a moment ago and is tried again later.
    HoldsTryLater,
}

/// The volume a snapshot is cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// It holds data and can be cut.
    Ready,
    /// It is on its way.
    NotYet,
    /// It will never be there: on another node, failed, or itself without a local volume.
    Never,
}

/// A volume in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its real size, where the engine enforces one; otherwise the size it was asked for.
    pub size: Bytes,
}

/// The newest executor that was ever launched for the object and not yet cleaned up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Executor {
    /// What it was launched for.
    pub job: Job,
    /// Whether it still runs.
    pub life: Life,
}

/// What an executor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// Copies a snapshot to a repository, or a repository's snapshot to a volume.
    Copy {
        /// For this attempt.
        attempt: Attempt,
        /// As this launch of it.
        launch: Launch,
    },
    /// Removes the object's snapshots from the repository.
    Forget,
}

/// Whether an executor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// It holds its lock.
    Alive,
    /// It holds its lock no more.
    Ended,
}

/// The heartbeat of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lease {
    /// Renewed, as far as this agent could see, within the lease's duration.
    Fresh,
    /// Watched by this agent for a whole lease duration without a renewal (or without appearing).
    Expired,
}

/// A failure that repeating the same effect does not cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// What the user asks for cannot be done: see the message.
    Invalid,
    /// The volume cannot be made.
    Create,
    /// The snapshot cannot be cut.
    Cut,
    /// The volume cannot be grown to the size asked for.
    Grow,
    /// The volume cannot be mounted.
    Mount,
    /// The executor cannot be started.
    Launch,
}
