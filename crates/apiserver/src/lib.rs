//! An embedded Kubernetes API in one file.
//!
//! It serves the REST protocol of Kubernetes for a handful of kinds: Namespace, Secret, Event, Lease, and those that are
//! handed in as CustomResourceDefinition documents. In the same process it is a [`tower::Service`] that a Kubernetes client
//! takes in the place of a connection; for others it listens on a loopback port with TLS, and asks who they are and what
//! they may do. Objects live in memory and in one file; a write is on disk before it is answered.
//!
//! It is no cluster: nothing is scheduled, nothing is run. What it serves it serves as Kubernetes does.
//!
//! Holds: no module below this line knows what the kinds mean to their users.

mod access;
pub mod archive;
mod clients;
mod depth;
mod discovery;
#[cfg(any(test, lvault_fuzzing))]
pub mod fuzzing;
mod http;
mod jsonpath;
mod list;
mod listen;
mod managed;
mod metadata;
mod names;
mod openapi;
mod patch;
mod present;
mod refusal;
mod registry;
mod rules;
mod schema;
mod selector;
mod server;
mod sources;
mod store;
mod table;
pub mod tls;
mod verbs;
mod watch;

pub use crate::access::attributes::Attributes;
pub use crate::access::limits::Limits;
pub use crate::access::observer::{Decision, Grant, Observer, RulePlace};
pub use crate::access::user::User;
pub use crate::http::body::ApiBody;
pub use crate::http::service::ApiService;
pub use jsonpath::PathError;
pub use listen::ServeError;
pub use registry::{ClusterKind, RegistryError};
pub use rules::RuleError;
pub use schema::SchemaError;
pub use server::{ApiServer, Config, OpenError, Storage};
pub use sources::{Clock, Identifiers};
pub use store::file::FileError;
