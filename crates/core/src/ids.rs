//! Names and numbers that cannot be wrong once they exist.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Identifies one volume on its node and names everything that belongs to it: the engine's volume, its mount, its
/// executors. It is the `metadata.uid` of the LogicalVolume, so a name that is used again never finds old data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(String);

/// Why a text is no [`VolumeId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no volume id: 1 to 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit")]
pub struct InvalidId(String);

impl VolumeId {
    /// Reads a volume id; see [`InvalidId`] for what it may hold. A volume id is always a safe single path component.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.len() <= 63 && edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inside) {
            Ok(VolumeId(text.to_owned()))
        } else {
            Err(InvalidId(text.to_owned()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        VolumeId::parse(text)
    }
}

/// A size or position in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// Writes the size with three digits and a binary unit: `512 B`, `1.50 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        write!(f, "{value:.digits$} {}", UNITS[unit])
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// The first one.
            pub const FIRST: $name = $name(NonZeroU32::MIN);

            /// The one with this number; none has the number 0.
            pub fn new(number: u32) -> Option<Self> {
                NonZeroU32::new(number).map($name)
            }

            /// Its number, counted from 1.
            pub fn get(self) -> u32 {
                self.0.get()
            }

            /// The one after it.
            pub fn next(self) -> Self {
                $name(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// Which try of an online operation this is. Only the user raises it, and only after a failed one.
    Attempt
}

counter! {
    /// Which claim of an attempt this is: the first executor to claim has 1, each successor one more.
    Epoch
}

counter! {
    /// Which launch of an executor within an attempt this is: one more than the executors lost before it. A launch
    /// that died before it claimed has a number too, so launches and epochs differ.
    Launch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_id_is_a_safe_path_component() {
        for good in ["a", "0", "7b1f0c1e-9a0e-4f5e-8d55-0a3f0b6c1d2e", "pvc-1"] {
            assert_eq!(VolumeId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "..", "a/b", "a.b", "A", "a b", "a\0", &"a".repeat(64)] {
            assert!(VolumeId::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn sizes_are_written_with_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024 * 1024, "10.0 MiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (300 << 30, "300 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
