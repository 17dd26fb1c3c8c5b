//! What an observation can say about one fact.

/// The outcome of looking at one fact of the outside world.
///
/// A read that failed is [`Seen::Unknown`], never [`Seen::Absent`]: a decision that deletes, launches or fails
/// something needs a fact that was really seen. One does not: an attempt that nobody has claimed fails at its start deadline
/// where nobody may look for its executor, which then cannot claim it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen<T> {
    /// The read failed or was not possible now; nothing may be concluded from it.
    Unknown,
    /// The read worked, and the thing is not there.
    Absent,
    /// The read worked, and this is what is there.
    Present(T),
}

impl<T> Seen<T> {
    /// The fact, where it was seen and is there.
    pub fn present(&self) -> Option<&T> {
        match self {
            Seen::Present(fact) => Some(fact),
            Seen::Unknown | Seen::Absent => None,
        }
    }

    /// A successful read that found something or nothing.
    pub fn known(read: Option<T>) -> Self {
        match read {
            Some(fact) => Seen::Present(fact),
            None => Seen::Absent,
        }
    }
}
