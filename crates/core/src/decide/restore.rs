//! Restores: an empty volume, filled by an executor, published when it is complete and not before.

use super::snapshot::{begin_again, launch_successor, launch_when_ready};
use super::{executor, volume};
use crate::{Action, Effect, Failure, Local, Observed, Online, Record, Seen, State, Wait};

pub(super) fn decide(observed: &Observed, online: &Online, local: &Local) -> Action {
    let Some(record) = &online.record else {
        return Action::Do(Effect::Begin(online.attempt));
    };
    match record.state {
        State::Pending => executor::while_open(observed, record, online.backoff_limit)
            .unwrap_or_else(|| pending(observed, online, record)),
        State::Running(_) => executor::while_open(observed, record, online.backoff_limit)
            .unwrap_or_else(|| succeed_executor(observed, online, record)),
        State::Succeeded => {
            executor::after_end(observed).unwrap_or_else(|| volume::decide(observed, local, volume::Origin::Restored))
        }
        State::Failed => failed(observed, online, record),
    }
}

fn pending(observed: &Observed, online: &Online, record: &Record) -> Action {
    match observed.trouble {
        Some(trouble) => Action::Do(Effect::Fail(Failure::Trouble(trouble))),
        None => prepare(observed).unwrap_or_else(|| launch_when_ready(online, record)),
    }
}

/// Every executor fills the volume from the beginning, so a half-filled one, or a new one, does as well as the first.
fn succeed_executor(observed: &Observed, online: &Online, record: &Record) -> Action {
    let preparation = if observed.trouble.is_none() { prepare(observed) } else { None };
    preparation.unwrap_or_else(|| launch_successor(observed, online, record))
}

fn prepare(observed: &Observed) -> Option<Action> {
    match observed.volume {
        Seen::Unknown => return Some(Action::Wait(Wait::VolumeUnknown)),
        Seen::Absent => return Some(Action::Do(Effect::CreateVolume)),
        Seen::Present(_) => {}
    }
    match observed.mount {
        Seen::Unknown => Some(Action::Wait(Wait::MountUnknown)),
        Seen::Absent => Some(Action::Do(Effect::Mount)),
        Seen::Present(()) => None,
    }
}

/// Nothing usable is left of a failed restore.
fn failed(observed: &Observed, online: &Online, record: &Record) -> Action {
    if let Some(action) = executor::after_end(observed) {
        return action;
    }
    match observed.mount {
        Seen::Unknown => return Action::Wait(Wait::MountUnknown),
        Seen::Absent => {}
        Seen::Present(()) => return Action::Do(Effect::Unmount),
    }
    match observed.volume {
        Seen::Unknown => Action::Wait(Wait::VolumeUnknown),
        Seen::Present(_) => Action::Do(Effect::RemoveVolume),
        Seen::Absent => begin_again(online, record),
    }
}
