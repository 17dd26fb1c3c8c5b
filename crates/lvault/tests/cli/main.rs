//! The command line against a running `lvault up`, both as processes, as a user has them.
//!
//! What holds here: nothing is replaced; every refused command leaves the objects exactly as they were.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests too")]

mod bad_input;
mod care;
mod demo;
mod state;
mod usual;
mod world;
