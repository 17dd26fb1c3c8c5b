//! The controller against the embedded API and real folders and repositories.

mod answers;
mod races;
mod requests;
mod support;
