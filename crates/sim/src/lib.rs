//! The proof that no crash, race, lost answer or stale view breaks a snapshot: what it covers stands in `docs/PROOF.md`.
//!
//! - [`model`]: every interleaving of a model around the real decision and transition functions.
//! - [`world`]: the real agent, executors and controller in one thread and in paused time; [`scenario`] and [`run`] tell
//!   stories in it, [`sweep`] disturbs each of them at every point.

pub mod history;
pub mod model;
pub mod mutation;
pub mod run;
pub mod scenario;
pub mod schema;
pub mod sweep;
pub mod world;
