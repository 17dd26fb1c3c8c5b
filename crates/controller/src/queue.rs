//! What is due when: a sorted queue of keys, without a clock, a future or a lock of its own.
//!
//! A key is never handed out twice at once. A change that arrives while its key is out makes it due again as soon as it is
//! back. Equal times are served in the order in which they were asked for, so the same events give the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

/// The namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How a pass over an object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// All is well: look again after the interval.
    Settled,
    /// Something is wrong or unknown: look again soon.
    Unsettled,
}

/// How long to wait between passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) interval: Duration,
    pub(crate) retry_first: Duration,
    pub(crate) retry_longest: Duration,
    pub(crate) concurrency: usize,
    pub(crate) seed: u64,
}

impl Timing {
    /// The pause before the next pass; `failures` counts the unsettled passes in a row, this one included.
    fn pause(&self, key: &Key, after: After, failures: u32, pass: u64) -> Duration {
        let pause = match after {
            After::Settled => self.interval,
            After::Unsettled => {
                let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
                self.retry_first.saturating_mul(doubled).min(self.retry_longest)
            }
        };
        let mut hasher = DefaultHasher::new();
        (self.seed, key, pass).hash(&mut hasher);
        // Nine to eleven tenths, so that storages that appeared together are not checked together for ever.
        let scatter = 0.9 + 0.2 * (hasher.finish() % 1000) as f64 / 1000.0;
        pause.mul_f64(scatter)
    }
}

/// What is known of one key.
struct Entry<T> {
    /// What of the object a pass depends on; the same again is no reason for a pass.
    trigger: T,
    /// When its next pass is due, and its place among equals. None while it is out.
    due: Option<(Instant, u64)>,
    /// It is out; a pass works on it.
    out: bool,
    /// It changed while it was out.
    changed: bool,
    /// It was deleted while it was out.
    deleted: bool,
    /// How many passes in a row were unsettled.
    failures: u32,
    /// How many passes there were.
    passes: u64,
}

/// The sorted queue.
pub(crate) struct Queue<T> {
    entries: BTreeMap<Key, Entry<T>>,
    due: BTreeSet<(Instant, u64, Key)>,
    order: u64,
    out: usize,
    timing: Timing,
}

impl<T: PartialEq> Queue<T> {
    pub(crate) fn new(timing: Timing) -> Self {
        Self { entries: BTreeMap::new(), due: BTreeSet::new(), order: 0, out: 0, timing }
    }

    /// An object is there. It becomes due now when it is new or what its pass depends on has changed.
    pub(crate) fn seen(&mut self, key: Key, trigger: T, now: Instant) {
        let fresh = Entry { trigger, due: None, out: false, changed: false, deleted: false, failures: 0, passes: 0 };
        let Some(entry) = self.entries.get_mut(&key) else {
            self.entries.insert(key.clone(), fresh);
            self.schedule(&key, now);
            return;
        };
        let same = entry.trigger == fresh.trigger && !entry.deleted;
        if same {
            return;
        }
        entry.trigger = fresh.trigger;
        entry.deleted = false;
        entry.failures = 0;
        if entry.out {
            entry.changed = true;
        } else {
            self.schedule(&key, now);
        }
    }

    /// An object is no longer there.
    pub(crate) fn gone(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.out {
            entry.deleted = true;
            return;
        }
        if let Some((at, order)) = entry.due {
            self.due.remove(&(at, order, key.clone()));
        }
        self.entries.remove(key);
    }

    /// Every object that is not in `listed` is no longer there.
    pub(crate) fn keep_only(&mut self, listed: &BTreeSet<Key>) {
        let missing: Vec<Key> = self.entries.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        missing.iter().for_each(|key| self.gone(key));
    }

    /// When the next key may be handed out; none while as many are out as may be.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.out >= self.timing.concurrency {
            return None;
        }
        self.due.first().map(|(at, _, _)| *at)
    }

    /// Hands out the first key that is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Key> {
        if self.next_due()? > now {
            return None;
        }
        let (_, _, key) = self.due.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.due = None;
        entry.out = true;
        self.out += 1;
        Some(key)
    }

    /// A key that was handed out is back.
    pub(crate) fn back(&mut self, key: &Key, after: After, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if !std::mem::take(&mut entry.out) {
            return;
        }
        self.out -= 1;
        if entry.deleted {
            self.entries.remove(key);
            return;
        }
        entry.passes += 1;
        if std::mem::take(&mut entry.changed) {
            self.schedule(key, now);
            return;
        }
        entry.failures = match after {
            After::Settled => 0,
            After::Unsettled => entry.failures.saturating_add(1),
        };
        let pause = self.timing.pause(key, after, entry.failures, entry.passes);
        self.schedule(key, now + pause);
    }

    fn schedule(&mut self, key: &Key, at: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some((old, order)) = entry.due.take() {
            self.due.remove(&(old, order, key.clone()));
        }
        self.order += 1;
        entry.due = Some((at, self.order));
        self.due.insert((at, self.order, key.clone()));
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
