//! Whether the heart of an executor beats, as this agent has seen with its own clock.
//!
//! The times that stand in a lease are another clock's, and a host that was suspended wakes up with all of them in the
//! past. So an agent counts only what it has watched: a lease that did not change for a whole duration while it could
//! be read. A read that failed begins the count anew, and so does a start of the agent.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lvault_core::{Job, Lease, Seen, VolumeId};
use tokio::time::Instant;

/// The leases this agent watches.
#[derive(Default)]
pub(crate) struct LeaseWatch {
    watched: Mutex<HashMap<VolumeId, Watched>>,
}

#[derive(PartialEq)]
struct Beat {
    job: Job,
    /// The `resourceVersion` of the lease, or `None` while there is no lease.
    version: Option<String>,
}

struct Watched {
    beat: Beat,
    since: Instant,
}

impl LeaseWatch {
    /// Takes note of what was read: `Err` for a read that failed, `None` for no lease.
    pub(crate) fn note(
        &self,
        id: &VolumeId,
        job: Job,
        read: Result<Option<String>, ()>,
        duration: Duration,
    ) -> Seen<Lease> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(version) = read else {
            watched.remove(id);
            return Seen::Unknown;
        };
        let exists = version.is_some();
        let beat = Beat { job, version };
        match watched.get(id) {
            Some(seen) if seen.beat == beat => {
                if seen.since.elapsed() > duration {
                    return Seen::Present(Lease::Expired);
                }
            }
            Some(_) | None => {
                watched.insert(id.clone(), Watched { beat, since: Instant::now() });
            }
        }
        if exists { Seen::Present(Lease::Fresh) } else { Seen::Absent }
    }

    /// Forgets a volume whose executor is gone.
    pub(crate) fn forget(&self, id: &VolumeId) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_silence_that_was_watched_counts() {
        let id = VolumeId::parse("v").expect("an id");
        let watch = LeaseWatch::default();
        let note = |read| watch.note(&id, Job::Forget, read, Duration::from_secs(30));
        let at = |version: &str| Ok(Some(version.to_owned()));
        assert_eq!(note(Ok(None)), Seen::Absent);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(note(Ok(None)), Seen::Present(Lease::Expired), "it never appeared");
        assert_eq!(note(at("1")), Seen::Present(Lease::Fresh));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(note(at("1")), Seen::Present(Lease::Fresh));
        assert_eq!(note(at("2")), Seen::Present(Lease::Fresh), "a renewal begins the count anew");
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(note(Err(())), Seen::Unknown);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(note(at("2")), Seen::Present(Lease::Fresh), "nobody was watching meanwhile");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(note(at("2")), Seen::Present(Lease::Expired));
        watch.forget(&id);
        assert_eq!(note(at("2")), Seen::Present(Lease::Fresh));
    }
}
