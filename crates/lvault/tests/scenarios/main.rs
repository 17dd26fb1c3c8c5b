//! Whole runs with real processes: `lvault up`, its executors, plain restic, SIGKILL and SIGSTOP at the worst moments.
//!
//! What holds here: nothing of lvault is replaced. Every run is judged by what others can see of it: by every version of
//! the objects that a watch has shown ([`history`]), by restic on the repository ([`repository`]), and by what is left on
//! the node ([`node`]). Moments are made with SIGSTOP or waited for with a deadline, never slept for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

/// Makes a test of each scenario on each engine.
macro_rules! on_each_engine {
    ($($scenario:ident),* $(,)?) => {
        mod directory {
            $(#[test]
            fn $scenario() {
                super::$scenario(crate::world::Engine::Directory);
            })*
        }
        mod image {
            $(#[test]
            fn $scenario() {
                if crate::world::Engine::Image.is_possible() {
                    super::$scenario(crate::world::Engine::Image);
                }
            })*
        }
        mod lvm_thin {
            $(#[test]
            fn $scenario() {
                if crate::world::Engine::LvmThin.is_possible() {
                    super::$scenario(crate::world::Engine::LvmThin);
                }
            })*
        }
        mod lvm_thick {
            $(#[test]
            fn $scenario() {
                if crate::world::Engine::LvmThick.is_possible() {
                    super::$scenario(crate::world::Engine::LvmThick);
                }
            })*
        }
    };
}

mod api;
mod data;
mod group;
mod guest;
mod history;
mod node;
mod process;
mod repository;
mod requests;
mod world;

mod bad_state;
mod buckets;
mod cores;
mod deletion;
mod finished;
mod lost_executors;
mod lvm_adoption;
mod lvm_kills;
mod lvm_storage;
mod mounting;
mod restarts;
mod restoring;
mod rivals;
mod soak;
mod storages;
mod stuck;
