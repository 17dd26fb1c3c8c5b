//! The API as clients see it: kube-rs and kubectl, in the same process and through the TLS port.
//!
//! Holds: no case waits for a clock it does not own, uses anything but loopback, or needs another case.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests: a helper that cannot go on fails its test, and what is skipped is said"
)]

mod accounts;
mod applying;
mod certificates;
mod cluster;
mod controllers;
mod creating;
mod deleting;
mod durability;
mod escalating;
mod fuzz;
mod helpers;
mod histories;
mod kills;
mod kubectl;
mod kubectl_access;
mod kubectl_apply;
mod limits;
mod listing;
mod malformed;
mod managers;
mod model;
mod patching;
mod programs;
mod raw;
mod rights;
mod schemas;
mod security;
mod setup;
mod simulated;
mod tables;
mod updating;
mod watching;
