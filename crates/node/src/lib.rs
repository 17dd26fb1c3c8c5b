//! The node agent: it alone touches the node. It looks at every LogicalVolume of its node and at what really exists for
//! it, lets [`lvault_core::decide`] say what to do, does that one thing, and looks again.
//!
//! What holds here:
//! - No progress is kept in memory: an agent that is started again continues from what is there.
//! - Every status write is a compare-and-swap on what the decision was made from; every effect may be repeated.
//! - Before an effect the object is read from the API itself, never from a cache.
//! - One volume that is stuck holds up no other.

mod adopt;
mod agent;
mod capacity;
mod config;
mod driver;
mod events;
mod health;
mod launcher;
mod lease;
mod observe;
mod owner;
mod perform;
mod pod;
mod process;
mod procfs;
mod troubles;
mod write;

pub use agent::{Agent, AgentError};
pub use capacity::{metrics, publish_capacity};
pub use config::AgentConfig;
pub use health::Room;
pub use launcher::{Change, LaunchError, Launcher, Wake};
pub use owner::{OwnerError, OwnerLock, lock_owner};
pub use pod::{PodLauncher, PodSettings};
pub use process::{ExecutorCommand, ProcessLauncher};
