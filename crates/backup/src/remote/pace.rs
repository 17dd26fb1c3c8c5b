//! A limit of bandwidth, of uploads or of downloads: one for all connections of a storage.

use crate::backend::lock;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Hands out times at which bytes may pass.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: NonZeroU64,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, free_at: Mutex::default() }
    }

    /// Takes the time that `bytes` need, and answers when it is over.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Instant {
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let needed = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut free_at = lock(&self.free_at);
        let free = free_at.map_or(now, |at| at.max(now)) + needed;
        *free_at = Some(free);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_share_one_rate_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(NonZeroU64::new(1000).unwrap());
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(pace.take(500, start), after(500));
        assert_eq!(pace.take(250, start), after(750));
        assert_eq!(pace.take(100, after(5000)), after(5100));
    }
}
