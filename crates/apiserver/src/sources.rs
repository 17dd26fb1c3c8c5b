//! Where time, identity and chance come from, so that a simulation can hand in its own.
//!
//! Holds: nothing else in this crate reads a clock or draws a random number for an object.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

/// A clock: called once for every write.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Where UIDs and the random ends of generated names come from.
#[derive(Debug, Clone, Copy, Default)]
pub enum Identifiers {
    /// From the operating system's random numbers.
    #[default]
    Random,
    /// The same sequence for the same seed: for simulations that must replay.
    Seeded(u64),
}

/// The letters of a generated name: no vowels and nothing that looks like another letter, as Kubernetes has it.
const SUFFIX_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of the random end of a generated name.
pub(crate) const SUFFIX_LENGTH: usize = 5;

/// The system clock.
pub(crate) fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// Time, identity and chance of one server.
pub(crate) struct Sources {
    clock: Clock,
    /// The state of the seeded sequence; `None` draws from the operating system.
    sequence: Option<Mutex<u64>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("seeded", &self.sequence.is_some()).finish_non_exhaustive()
    }
}

impl Sources {
    pub(crate) fn new(clock: Clock, identifiers: Identifiers) -> Sources {
        let sequence = match identifiers {
            Identifiers::Random => None,
            Identifiers::Seeded(seed) => Some(Mutex::new(seed)),
        };
        Sources { clock, sequence }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A new UID.
    pub(crate) fn uid(&self) -> String {
        self.draw().to_string()
    }

    /// The random end of a generated name.
    pub(crate) fn suffix(&self) -> String {
        let bytes = self.draw().into_bytes();
        // The first bytes of a version 4 UUID are all random; 128 bits leave the modulo without a visible bias.
        bytes.iter().take(SUFFIX_LENGTH).map(|byte| letter(*byte)).collect()
    }

    fn draw(&self) -> Uuid {
        let Some(sequence) = &self.sequence else {
            return Uuid::new_v4();
        };
        let mut state = sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let high = split_mix(&mut state);
        let low = split_mix(&mut state);
        uuid::Builder::from_u128(u128::from(high) << 64 | u128::from(low))
            .with_version(uuid::Version::Random)
            .into_uuid()
    }
}

fn letter(byte: u8) -> char {
    SUFFIX_LETTERS.get(usize::from(byte) % SUFFIX_LETTERS.len()).copied().map_or('x', char::from)
}

/// SplitMix64: small, and good enough where only uniqueness within one run counts.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A time as Kubernetes writes it in metadata: whole seconds, UTC.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
