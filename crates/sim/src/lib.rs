//! The proof that no crash, race, lost answer or stale view breaks a snapshot.

pub mod model;
