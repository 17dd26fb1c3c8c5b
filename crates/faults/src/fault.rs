//! The faults.

use std::time::Duration;

use crate::asked::Asked;

/// How a client sees that an answer does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The connection breaks.
    Error,
    /// Nothing ever comes: for clients that have a timeout of their own.
    Never,
}

/// An answer in the place of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 409: somebody else was faster.
    Conflict,
    /// 429, with `Retry-After` in whole seconds.
    TooManyRequests {
        /// How long the client is asked to wait.
        retry_after: u32,
    },
    /// 500.
    Internal,
    /// 503.
    Unavailable,
}

/// How a watch ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As if its time were over.
    Clean,
    /// In the middle of a line.
    Torn,
    /// By an error of the connection.
    Broken,
}

/// One thing that goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server never hears of the request.
    LoseRequest(Seen),
    /// The server does what is asked; its answer gets lost.
    LoseAnswer(Seen),
    /// The request reaches the server later.
    Delay(Duration),
    /// The answer reaches the client later.
    DelayAnswer(Duration),
    /// The server gets the request twice, one after the other; the client sees the second answer.
    Duplicate,
    /// The request is refused, and not done.
    Refuse(Refusal),
    /// The request is done, and answered with this all the same.
    FailAnswer(Refusal),
    /// A watch ends after that many events.
    CutWatch {
        /// How many events come through.
        after: usize,
        /// How it ends.
        how: Cut,
    },
    /// Every event of a watch comes later by this; none is lost, and their order stays.
    StaleWatch(Duration),
    /// A list answers what it answered before: the oldest answer to the same request among the last eight. Drawn only for
    /// requests that allow it (`resourceVersion=0`), because no server shows the past to others; a plan may name any list.
    StaleList,
    /// A watch is told that its version is gone (code 410 in the stream), and ends.
    ExpireWatch,
}

impl Fault {
    /// Whether the fault can happen to the request at all.
    pub(crate) fn fits(self, asked: &Asked) -> bool {
        match self {
            Fault::CutWatch { .. } | Fault::StaleWatch(_) | Fault::ExpireWatch => asked.is_watch,
            Fault::StaleList => asked.is_list,
            Fault::Refuse(Refusal::Conflict) | Fault::FailAnswer(Refusal::Conflict) => asked.is_write,
            Fault::Duplicate | Fault::FailAnswer(_) => !asked.is_watch,
            Fault::LoseRequest(_)
            | Fault::LoseAnswer(_)
            | Fault::Delay(_)
            | Fault::DelayAnswer(_)
            | Fault::Refuse(_) => true,
        }
    }

    /// Whether a draw may choose it for the request.
    pub(crate) fn may_be_drawn(self, asked: &Asked) -> bool {
        self.fits(asked) && (self != Fault::StaleList || asked.takes_the_past)
    }
}
