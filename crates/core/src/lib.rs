//! The rules of lvault: what a volume's state means and what to do next.
//!
//! Nothing here does I/O, reads a clock, waits, or knows Kubernetes. Whoever wants to know what lvault does, and
//! when, reads this crate alone.

mod ids;
mod seen;

pub use ids::{Attempt, Bytes, Epoch, InvalidId, Launch, VolumeId};
pub use seen::Seen;
