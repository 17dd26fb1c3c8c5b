//! The controller against the embedded API and real folders and repositories.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod answers;
mod namespaces;
mod prunes;
mod races;
mod requests;
mod support;
