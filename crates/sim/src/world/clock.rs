//! The simulated clock: wall time follows tokio's paused time, from a fixed moment on.

use std::cell::Cell;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// 1 January 2026, 00:00 UTC.
const EPOCH: i64 = 1_767_225_600;

thread_local! {
    static STARTED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Begins a simulation on this thread: now is the beginning of 2026.
pub fn start() {
    STARTED.set(Some(Instant::now()));
}

/// How long the simulation of this thread has run.
pub fn elapsed() -> Duration {
    STARTED.get().map_or(Duration::ZERO, |started| started.elapsed())
}

/// The wall clock of this thread's simulation.
pub fn now() -> Timestamp {
    let epoch = Timestamp::from_second(EPOCH).unwrap_or(Timestamp::UNIX_EPOCH);
    epoch + SignedDuration::try_from(elapsed()).unwrap_or(SignedDuration::ZERO)
}
