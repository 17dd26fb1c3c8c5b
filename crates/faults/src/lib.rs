//! What goes wrong between a client and a Kubernetes API, as a tower layer.
//!
//! A [`Faults`] layer stands between a client and any API service. A [`Plan`] says which request meets which [`Fault`]: an
//! explicit one ("the 17th request loses its answer", for a sweep over all crash points), a seeded one ("one request in ten,
//! of these kinds"), or both. The layer knows nothing of what the objects mean.
//!
//! Beside it, [`s3`] runs a real S3 server for tests, and a proxy that lets things go wrong on the way to it; [`azure`] runs one
//! of Azure's Blob Storage, and [`gcs`] lets an S3 server speak as Google Cloud Storage does.
//!
//! Holds: the same plan and the same requests in the same order meet the same faults; a fault lives in the future of its
//! call, never in `poll_ready`, because an error from there ends a client for good; every fault is logged.

mod answer;
mod asked;
pub mod azure;
mod fault;
pub mod gcs;
mod layer;
mod plan;
pub mod s3;
mod streams;

pub use fault::{Cut, Fault, Refusal, Seen};
pub use layer::{Faults, FaultyBody, FaultyService, Lost, Record};
pub use plan::Plan;
