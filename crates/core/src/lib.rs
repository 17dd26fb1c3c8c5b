//! The rules of lvault: what a volume's state means and what to do next.
//!
//! Nothing here does I/O, reads a clock, waits, or knows Kubernetes. Whoever wants to know what lvault does, and
//! when, reads this crate alone: [`next`] is the transition table of an online operation, [`decide`] is what the node
//! agent does about what it sees.

mod action;
mod decide;
mod ids;
mod observed;
mod record;
mod seen;

pub use action::{Action, Effect, Failure, Wait};
pub use decide::decide;
pub use ids::{Attempt, Bytes, Epoch, InvalidId, Launch, VolumeId};
pub use observed::{
    Executor, Intent, Job, Lease, Life, Local, Observed, Online, Repository, Source, Storage, Trouble, Volume,
};
pub use record::{Claim, Held, Holder, Record, Refused, State, Transition, next};
pub use seen::Seen;
