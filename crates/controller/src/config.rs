//! The settings of the controller, and what has to hold between them.

use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;

use crate::queue::Timing;

/// How often and how long things are tried.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long after a check that gave an answer of `Ready` the next one follows, give or take a tenth.
    pub interval: Duration,
    /// How soon a storage that is not `Ready` is checked again; the pause doubles from check to check.
    pub retry_first: Duration,
    /// The longest such pause.
    pub retry_longest: Duration,
    /// How long one check may take before its outcome is unknown.
    pub check_timeout: Duration,
    /// How long one request to the API may take before its outcome is unknown.
    pub api_timeout: Duration,
    /// How often is looked whether a storage is due to be pruned.
    pub prune_look: Duration,
    /// How many storages are checked at once, and how many are pruned. Opening a repository takes some 40 MB while its key is derived.
    pub concurrency: NonZeroUsize,
    /// Where the scatter of intervals and of the watch's backoff begins; the same seed gives the same run.
    pub seed: u64,
    /// The clock for `lastChecked`.
    pub clock: fn() -> Timestamp,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(600),
            retry_first: Duration::from_secs(5),
            retry_longest: Duration::from_secs(60),
            check_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(10),
            prune_look: Duration::from_secs(300),
            concurrency: NonZeroUsize::MIN.saturating_add(3),
            seed: u64::from(std::process::id()),
            clock: Timestamp::now,
        }
    }
}

/// Settings that contradict themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// A duration is zero, which would make a hot loop or no check at all.
    #[error("{0} is zero: give it a length")]
    Zero(&'static str),
    /// The pauses between retries cannot shrink.
    #[error("the first pause before a retry is longer than the longest one: exchange them")]
    RetryOrder,
}

impl Config {
    pub(crate) fn validated(&self) -> Result<Timing, InvalidConfig> {
        for (name, length) in [
            ("the interval of checks", self.interval),
            ("the first pause before a retry", self.retry_first),
            ("the time limit of a check", self.check_timeout),
            ("the time limit of an API request", self.api_timeout),
            ("the interval of looks at what is due to be pruned", self.prune_look),
        ] {
            if length.is_zero() {
                return Err(InvalidConfig::Zero(name));
            }
        }
        if self.retry_first > self.retry_longest {
            return Err(InvalidConfig::RetryOrder);
        }
        Ok(Timing {
            interval: self.interval,
            retry_first: self.retry_first,
            retry_longest: self.retry_longest,
            concurrency: self.concurrency.get(),
            seed: self.seed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_themselves_are_refused() {
        assert!(Config::default().validated().is_ok());
        let hot = Config { retry_first: Duration::ZERO, ..Config::default() };
        assert_eq!(hot.validated().err(), Some(InvalidConfig::Zero("the first pause before a retry")));
        let idle = Config { interval: Duration::ZERO, ..Config::default() };
        assert_eq!(idle.validated().err(), Some(InvalidConfig::Zero("the interval of checks")));
        let crossed = Config { retry_first: Duration::from_secs(61), ..Config::default() };
        assert_eq!(crossed.validated().err(), Some(InvalidConfig::RetryOrder));
    }
}
