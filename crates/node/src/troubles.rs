//! What this agent has tried for each volume without success: so that a final failure is decided on once, and a passing
//! one is tried again with growing pauses. Losing this on a restart only means that everything is tried once more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lvault_core::{Attempt, Effect, Trouble, VolumeId};
use tokio::time::Instant;

/// What a failure is about. When any of it changes, the failure is history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Circumstance {
    /// The generation of the object's spec.
    pub(crate) generation: Option<i64>,
    /// The attempt, of an online operation.
    pub(crate) attempt: Option<Attempt>,
    /// The executors that were lost.
    pub(crate) lost: u32,
}

/// A final failure: what was attempted, and what the status says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What failed.
    pub(crate) trouble: Trouble,
    /// The gRPC code for `status.code`.
    pub(crate) code: i32,
    /// What happened, and what to do.
    pub(crate) message: String,
}

/// A final failure stays one for this long; then the effect is tried again, for volumes that have no attempts.
const FINAL_FOR: Duration = Duration::from_secs(300);

#[derive(Default)]
struct Entry {
    last: Option<(Circumstance, Standing, Instant)>,
    failures: u32,
    /// The effect that was reported as done last, and how often in a row.
    done: Option<(Effect, u32)>,
    /// Removing the repository's snapshot is not tried before.
    forget_again: Option<(Instant, u32)>,
}

/// The failures of every volume.
#[derive(Default)]
pub(crate) struct Troubles {
    entries: Mutex<HashMap<VolumeId, Entry>>,
}

impl Troubles {
    fn with<T>(&self, id: &VolumeId, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        change(entries.entry(id.clone()).or_default())
    }

    /// The final failure that stands for this circumstance.
    pub(crate) fn current(&self, id: &VolumeId, circumstance: &Circumstance) -> Option<Standing> {
        self.with(id, |entry| match &entry.last {
            Some((then, standing, since)) if then == circumstance && since.elapsed() < FINAL_FOR => {
                Some(standing.clone())
            }
            Some(_) | None => {
                entry.last = None;
                None
            }
        })
    }

    /// Notes a final failure.
    pub(crate) fn set(&self, id: &VolumeId, circumstance: Circumstance, standing: Standing) {
        self.with(id, |entry| entry.last = Some((circumstance, standing, Instant::now())));
    }

    /// How long to wait after one more failure that may pass.
    pub(crate) fn pause(&self, id: &VolumeId) -> Duration {
        self.with(id, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            backoff(entry.failures)
        })
    }

    /// Notes that an effect worked.
    pub(crate) fn worked(&self, id: &VolumeId) {
        self.with(id, |entry| entry.failures = 0);
    }

    /// Notes that an effect was reported as done; how often in a row it was this one. What is done is seen as done by the next
    /// look, and leads to something else.
    pub(crate) fn done(&self, id: &VolumeId, effect: Effect) -> u32 {
        self.with(id, |entry| {
            let before = entry.done.filter(|(last, _)| *last == effect).map_or(0, |(_, times)| times);
            let times = before.saturating_add(1);
            entry.done = Some((effect, times));
            times
        })
    }

    /// Nothing is to be done any more: what was done is seen.
    pub(crate) fn settled(&self, id: &VolumeId) {
        self.with(id, |entry| {
            entry.failures = 0;
            entry.done = None;
        });
    }

    /// Whether removing the repository's snapshot has to wait. Every launch of a removal makes the next one wait longer.
    pub(crate) fn forget_waits(&self, id: &VolumeId) -> Option<Duration> {
        self.with(id, |entry| entry.forget_again.map(|(at, _)| at.saturating_duration_since(Instant::now())))
            .filter(|rest| !rest.is_zero())
    }

    /// Notes that a removal was launched.
    pub(crate) fn forget_launched(&self, id: &VolumeId) {
        self.with(id, |entry| {
            let times = entry.forget_again.map_or(0, |(_, times)| times).saturating_add(1);
            entry.forget_again = Some((Instant::now() + backoff(times.saturating_add(2)), times));
        });
    }

    /// Forgets a volume that is gone.
    pub(crate) fn forget(&self, id: &VolumeId) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// 0.5 s, 1 s, 2 s, ... at most a minute.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(500 << failures.saturating_sub(1).min(7)).min(Duration::from_secs(60))
}
