//! What the node agent does next: one effect, or waiting for something.

use std::fmt;

use crate::{Attempt, Job, Launch, Trouble};

/// What to do next for one LogicalVolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Nothing is to be done until something changes.
    Settled,
    /// Nothing can be done now, for this reason.
    Wait(Wait),
    /// Do this one thing, look again, and ask again.
    Do(Effect),
}

/// One change of the outside world. Each may be repeated: what is done already is found done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Put our finalizer on the object.
    AddFinalizer,
    /// Write `Pending` for this attempt.
    Begin(Attempt),
    /// Make the empty volume.
    CreateVolume,
    /// Cut the copy-on-write snapshot of the source.
    CutSnapshot,
    /// Grow the volume to the size asked for.
    GrowVolume,
    /// Mount the volume.
    Mount,
    /// Report the volume as usable, with its real size.
    Publish,
    /// Start an executor; one that is started already is found, not started again.
    Launch(Job),
    /// End an executor that is hung, or has nothing left to do.
    EndExecutor,
    /// Write that this launch ended without a result.
    RecordLoss(Launch),
    /// Write `Failed`, for this reason.
    Fail(Failure),
    /// Unmount the volume.
    Unmount,
    /// Remove the local volume.
    RemoveVolume,
    /// Remove what an ended executor left: its folder and its lease.
    CleanExecutor,
    /// Take our finalizer off: nothing is left.
    DropFinalizer,
}

impl Effect {
    /// Whether it takes something away that cannot be had back.
    pub fn is_destructive(&self) -> bool {
        match self {
            Effect::EndExecutor
            | Effect::RecordLoss(_)
            | Effect::Fail(_)
            | Effect::Unmount
            | Effect::RemoveVolume
            | Effect::CleanExecutor
            | Effect::DropFinalizer
            | Effect::Launch(Job::Forget) => true,
            Effect::AddFinalizer
            | Effect::Begin(_)
            | Effect::CreateVolume
            | Effect::CutSnapshot
            | Effect::GrowVolume
            | Effect::Mount
            | Effect::Publish
            | Effect::Launch(Job::Copy { .. }) => false,
        }
    }
}

/// What is waited for. Its text is for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wait {
    /// The engine could not be asked about the volume.
    VolumeUnknown,
    /// The mount could not be looked at.
    MountUnknown,
    /// It could not be seen whether an executor runs.
    ExecutorUnknown,
    /// The executor's lease could not be read.
    LeaseUnknown,
    /// The source volume could not be looked up.
    SourceUnknown,
    /// The source volume is not ready yet.
    SourceNotReady,
    /// The source volume does not exist, or can never be cut.
    SourceGone,
    /// The storage could not be looked up.
    StorageUnknown,
    /// The storage does not exist.
    StorageMissing,
    /// The storage is not ready.
    StorageNotReady,
    /// The executor was started and has not claimed the attempt yet.
    Claim,
    /// The executor copies.
    Copy,
    /// The result is written; the executor is about to end.
    ExecutorExit,
    /// The executor removes the snapshot from the repository.
    Forget,
    /// Removing the snapshot from the repository failed and is tried again.
    ForgetRetry,
    /// The volume was published and is gone from the node. Nothing empty is put in its place.
    VolumeLost,
    /// What is asked for cannot be done; the status says why.
    Trouble(Trouble),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wait::VolumeUnknown => "the storage engine could not be asked about the volume",
            Wait::MountUnknown => "the mount could not be looked at",
            Wait::ExecutorUnknown => "it could not be seen whether an executor is running",
            Wait::LeaseUnknown => "the executor's lease could not be read",
            Wait::SourceUnknown => "the source volume could not be looked up",
            Wait::SourceNotReady => "the source volume is not ready yet",
            Wait::SourceGone => "the source volume does not exist on this node, or has no local data",
            Wait::StorageUnknown => "the storage could not be looked up",
            Wait::StorageMissing => "the storage does not exist",
            Wait::StorageNotReady => "the storage is not ready",
            Wait::Claim => "the executor has been started and is about to claim the attempt",
            Wait::Copy => "the executor is copying",
            Wait::ExecutorExit => "the result is written; the executor is about to exit",
            Wait::Forget => "the snapshot is being removed from the repository",
            Wait::ForgetRetry => "removing the snapshot from the repository failed and will be tried again",
            Wait::VolumeLost => "the volume is gone from the node; no empty one is put in its place",
            Wait::Trouble(_) => "what is asked for cannot be done; the status says why",
        })
    }
}

/// Why the agent ends an attempt as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The source volume does not exist, or can never be cut.
    SourceGone,
    /// The source volume was not ready in time.
    SourceNotReady,
    /// The storage did not exist, or was not ready, in time.
    StorageNotReady,
    /// So many executors were lost.
    ExecutorsLost(u32),
    /// An effect failed for good.
    Trouble(Trouble),
}

impl Failure {
    /// The stable code that stands in `status.*.error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Failure::SourceGone => "SourceGone",
            Failure::SourceNotReady => "SourceNotReady",
            Failure::StorageNotReady => "StorageNotReady",
            Failure::ExecutorsLost(_) => "BackoffLimitExceeded",
            Failure::Trouble(trouble) => trouble.code(),
        }
    }
}

impl Trouble {
    /// The stable code that stands in `status.*.error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Trouble::Invalid => "InvalidSpec",
            Trouble::Create => "CreateFailed",
            Trouble::Cut => "SnapshotFailed",
            Trouble::Grow => "ResizeFailed",
            Trouble::Mount => "MountFailed",
            Trouble::Launch => "ExecutorCannotStart",
        }
    }
}
