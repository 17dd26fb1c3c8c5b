//! What a Kubernetes API answers, as cases that run against any server.
//!
//! Every case is written from a page of the Kubernetes documentation, which it names, and talks plain HTTP. So it holds for
//! the embedded API, in the same process and through TLS, and for a cluster: the server that `LVAULT_TEST_KUBECONFIG` names.
//!
//! Holds: a case needs no other case, works in a namespace and on names of its own, waits for what may take a while on a
//! cluster, and asserts nothing that only one of the two kinds of server does.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests: a case that cannot go on has failed, and says so"
)]

mod applying;
mod bodies;
mod concurrency;
mod deleting;
mod discovery;
mod ground;
mod http;
mod kinds;
mod lists;
mod objects;
mod owning;
mod patches;
mod run;
mod schemas;
mod selectors;
mod server;
mod shapes;
mod statuses;
mod tables;
mod watches;

pub use ground::{Case, Ground};
pub use run::{Verdict, run_all, run_one};
pub use server::{Server, Transport};

/// All cases, in the order in which they are best read.
#[must_use]
pub fn cases() -> Vec<&'static Case> {
    [
        objects::CASES,
        bodies::CASES,
        concurrency::CASES,
        statuses::CASES,
        patches::CASES,
        applying::CASES,
        owning::CASES,
        schemas::CASES,
        shapes::CASES,
        lists::CASES,
        selectors::CASES,
        watches::CASES,
        deleting::CASES,
        tables::CASES,
        discovery::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}
