//! Online snapshots: cut, mount, launch; then leave the executor alone; then tear down.

use super::executor;
use crate::{Action, Effect, Failure, Observed, Online, Record, Seen, Source, State, Storage, Trouble, Wait};

pub(super) fn decide(observed: &Observed, online: &Online, source: Seen<Source>) -> Action {
    let Some(record) = &online.record else {
        return Action::Do(Effect::Begin(online.attempt));
    };
    match record.state {
        State::Pending => executor::while_open(observed, record, online.backoff_limit)
            .unwrap_or_else(|| pending(observed, online, record, source)),
        State::Running(_) => executor::while_open(observed, record, online.backoff_limit)
            .unwrap_or_else(|| succeed_executor(observed, online, record)),
        State::Succeeded => ended(observed, online, record, online.keep_local),
        // A failed attempt keeps its local snapshot: a retry copies the same moment.
        State::Failed => ended(observed, online, record, true),
    }
}

fn pending(observed: &Observed, online: &Online, record: &Record, source: Seen<Source>) -> Action {
    if let Some(trouble) = observed.trouble {
        return Action::Do(Effect::Fail(Failure::Trouble(trouble)));
    }
    match observed.volume {
        Seen::Unknown => return Action::Wait(Wait::VolumeUnknown),
        Seen::Absent => return cut(source, online.overdue),
        Seen::Present(_) => {}
    }
    match observed.mount {
        Seen::Unknown => return Action::Wait(Wait::MountUnknown),
        Seen::Absent => return Action::Do(Effect::Mount),
        Seen::Present(()) => {}
    }
    launch_when_ready(online, record)
}

fn cut(source: Seen<Source>, overdue: bool) -> Action {
    match source {
        Seen::Unknown => Action::Wait(Wait::SourceUnknown),
        Seen::Absent | Seen::Present(Source::Never) => Action::Do(Effect::Fail(Failure::SourceGone)),
        Seen::Present(Source::NotYet) if overdue => Action::Do(Effect::Fail(Failure::SourceNotReady)),
        Seen::Present(Source::NotYet) => Action::Wait(Wait::SourceNotReady),
        Seen::Present(Source::Ready) => Action::Do(Effect::CutSnapshot),
    }
}

/// The first launch of an attempt: the storage has to be there, and is waited for, but not for ever.
pub(super) fn launch_when_ready(online: &Online, record: &Record) -> Action {
    match online.storage {
        Seen::Unknown => Action::Wait(Wait::StorageUnknown),
        Seen::Absent | Seen::Present(Storage::NotReady) if online.overdue => {
            Action::Do(Effect::Fail(Failure::StorageNotReady))
        }
        Seen::Absent => Action::Wait(Wait::StorageMissing),
        Seen::Present(Storage::NotReady) => Action::Wait(Wait::StorageNotReady),
        Seen::Present(Storage::Ready) => Action::Do(Effect::Launch(executor::due(record))),
    }
}

/// A claimed attempt has lost its holder. The snapshot is mounted where it is there; where it is not, the successor is
/// launched all the same: it may find the commit in the repository, and if not, it is the one to say `Failed`.
fn succeed_executor(observed: &Observed, online: &Online, record: &Record) -> Action {
    if observed.trouble.is_none() {
        match observed.volume {
            Seen::Unknown => return Action::Wait(Wait::VolumeUnknown),
            Seen::Absent => {}
            Seen::Present(_) => match observed.mount {
                Seen::Unknown => return Action::Wait(Wait::MountUnknown),
                Seen::Absent => return Action::Do(Effect::Mount),
                Seen::Present(()) => {}
            },
        }
    }
    launch_successor(observed, online, record)
}

/// A successor that cannot be launched counts as lost, so that the attempt ends.
pub(super) fn launch_successor(observed: &Observed, online: &Online, record: &Record) -> Action {
    if observed.trouble == Some(Trouble::Launch) {
        return Action::Do(Effect::RecordLoss(record.launch()));
    }
    match online.storage {
        Seen::Unknown => Action::Wait(Wait::StorageUnknown),
        Seen::Absent if online.overdue => Action::Do(Effect::RecordLoss(record.launch())),
        Seen::Absent => Action::Wait(Wait::StorageMissing),
        Seen::Present(Storage::NotReady | Storage::Ready) => Action::Do(Effect::Launch(executor::due(record))),
    }
}

fn ended(observed: &Observed, online: &Online, record: &Record, keep: bool) -> Action {
    if let Some(action) = executor::after_end(observed) {
        return action;
    }
    match observed.mount {
        Seen::Unknown => return Action::Wait(Wait::MountUnknown),
        Seen::Absent => {}
        Seen::Present(()) => return Action::Do(Effect::Unmount),
    }
    match observed.volume {
        Seen::Unknown if !keep => return Action::Wait(Wait::VolumeUnknown),
        Seen::Present(_) if !keep => return Action::Do(Effect::RemoveVolume),
        Seen::Unknown | Seen::Absent | Seen::Present(_) => {}
    }
    begin_again(online, record)
}

/// A failed attempt is followed by a higher one when the user asks for it.
pub(super) fn begin_again(online: &Online, record: &Record) -> Action {
    if record.state == State::Failed && online.attempt > record.attempt {
        Action::Do(Effect::Begin(online.attempt))
    } else {
        Action::Settled
    }
}
