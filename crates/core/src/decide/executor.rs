//! What the executor of an attempt makes necessary, before anything else is looked at.
//!
//! There is never more than one executor for an object: a launch is decided on only where none is seen, and an
//! executor that cannot be seen is waited for; an attempt that nobody has claimed may fail meanwhile.

use crate::{Action, Effect, Job, Lease, Life, Observed, Record, Seen, State, Trouble, Wait};

/// The job that an attempt's record allows now.
pub(super) fn due(record: &Record) -> Job {
    Job::Copy { attempt: record.attempt, launch: record.launch() }
}

/// While an attempt is open: what its executor makes necessary, or `None` when there is none and one may be launched.
pub(super) fn while_open(observed: &Observed, record: &Record, backoff_limit: u32) -> Option<Action> {
    let executor = match observed.executor {
        Seen::Unknown if is_given_up(observed, record) => return None,
        Seen::Unknown => return Some(Action::Wait(Wait::ExecutorUnknown)),
        Seen::Absent => return without_executor(record, backoff_limit),
        Seen::Present(executor) => executor,
    };
    let is_due = executor.job == due(record);
    Some(match (executor.life, is_due) {
        (Life::Alive, true) => alive(observed, if claimed(record) { Wait::Copy } else { Wait::Claim }),
        // Nothing it could still write is legal.
        (Life::Alive, false) => Action::Do(Effect::EndExecutor),
        (Life::Ended, true) => Action::Do(Effect::RecordLoss(record.launch())),
        (Life::Ended, false) => Action::Do(Effect::CleanExecutor),
    })
}

/// Whether an attempt is to fail although nobody may look for its executor: it waits for a right that was not given in time.
/// Nobody has claimed it, and nobody can any more once it has failed.
fn is_given_up(observed: &Observed, record: &Record) -> bool {
    match &record.state {
        State::Pending => observed.trouble == Some(Trouble::Launch),
        State::Running(_) | State::Succeeded | State::Failed => false,
    }
}

/// After an attempt has ended: what its executor makes necessary, or `None` when nothing of it is left.
pub(super) fn after_end(observed: &Observed) -> Option<Action> {
    match observed.executor {
        Seen::Unknown => Some(Action::Wait(Wait::ExecutorUnknown)),
        Seen::Absent => None,
        Seen::Present(executor) => Some(match executor.life {
            Life::Alive => alive(observed, Wait::ExecutorExit),
            Life::Ended => Action::Do(Effect::CleanExecutor),
        }),
    }
}

/// An executor that runs is left alone as long as its heart beats.
pub(super) fn alive(observed: &Observed, wait: Wait) -> Action {
    match observed.lease {
        Seen::Unknown => Action::Wait(Wait::LeaseUnknown),
        Seen::Absent | Seen::Present(Lease::Fresh) => Action::Wait(wait),
        Seen::Present(Lease::Expired) => Action::Do(Effect::EndExecutor),
    }
}

fn without_executor(record: &Record, backoff_limit: u32) -> Option<Action> {
    if record.lost >= backoff_limit {
        return Some(Action::Do(Effect::Fail(crate::Failure::ExecutorsLost(record.lost))));
    }
    match &record.state {
        // The holder is gone without a trace: the launch that claimed is lost, and the next one is due.
        State::Running(claim) if claim.launch == record.launch() => {
            Some(Action::Do(Effect::RecordLoss(record.launch())))
        }
        State::Running(_) | State::Pending | State::Succeeded | State::Failed => None,
    }
}

fn claimed(record: &Record) -> bool {
    match &record.state {
        State::Running(claim) => claim.launch == record.launch(),
        State::Pending | State::Succeeded | State::Failed => false,
    }
}
