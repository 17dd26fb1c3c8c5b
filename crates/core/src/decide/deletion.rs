//! Teardown, always in this order: the executor stopped and gone, the volume unmounted, the volume removed, the
//! snapshot removed from the repository, the finalizer taken off. What is gone already is passed over, so a teardown
//! that was interrupted goes on where it stood.

use super::executor;
use crate::{Action, Effect, Intent, Job, Life, Observed, Online, Repository, Seen, Wait};

pub(super) fn decide(observed: &Observed) -> Action {
    if !observed.finalizer {
        return Action::Settled;
    }
    match observed.executor {
        Seen::Unknown => return Action::Wait(Wait::ExecutorUnknown),
        Seen::Absent => {}
        Seen::Present(executor) => {
            return match (executor.life, executor.job) {
                (Life::Alive, Job::Copy { .. }) => Action::Do(Effect::EndExecutor),
                (Life::Alive, Job::Forget) => executor::alive(observed, Wait::Forget),
                (Life::Ended, Job::Copy { .. } | Job::Forget) => Action::Do(Effect::CleanExecutor),
            };
        }
    }
    match observed.mount {
        Seen::Unknown => return Action::Wait(Wait::MountUnknown),
        Seen::Absent => {}
        Seen::Present(()) => return Action::Do(Effect::Unmount),
    }
    match observed.volume {
        Seen::Unknown => return Action::Wait(Wait::VolumeUnknown),
        Seen::Absent => {}
        Seen::Present(_) => return Action::Do(Effect::RemoveVolume),
    }
    match &observed.intent {
        Intent::Volume(_) | Intent::LocalSnapshot(..) | Intent::Restore(..) => Action::Do(Effect::DropFinalizer),
        Intent::OnlineSnapshot(online, _) => repository(online),
    }
}

fn repository(online: &Online) -> Action {
    match (online.repository, online.storage) {
        // Without its storage nobody can name the repository any more; whoever deleted it meant to keep or drop all.
        (Repository::Nothing, _) | (_, Seen::Absent) => Action::Do(Effect::DropFinalizer),
        (Repository::HoldsTryLater, _) => Action::Wait(Wait::ForgetRetry),
        (Repository::Holds, Seen::Unknown) => Action::Wait(Wait::StorageUnknown),
        (Repository::Holds, Seen::Present(_)) => Action::Do(Effect::Launch(Job::Forget)),
    }
}
