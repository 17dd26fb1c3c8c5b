//! Whether trying again can help: every error of this crate answers it with `retry()`.

/// What a caller can expect of the same call made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call fails again, whatever time passes: the input is wrong or the data is damaged.
    Never,
    /// A person has to act first (make room, correct the password, grant access); then the same call works.
    AfterRemedy,
    /// The cause may pass by itself; the same call, later, may work.
    Later,
}
