//! Access: who asks, what a request is, and whether that user may do it.
//!
//! Holds: every request has a user before anything else is known about it; whoever is not in `system:masters` may do what
//! a rule grants and nothing more; a denied request changes nothing and tells nothing of what is stored.

pub(crate) mod admission;
pub(crate) mod attributes;
pub(crate) mod authentication;
pub(crate) mod defaults;
pub(crate) mod escalation;
pub(crate) mod impersonation;
pub(crate) mod limits;
pub(crate) mod observer;
pub(crate) mod policy;
pub(crate) mod review;
pub(crate) mod rule;
pub(crate) mod token;
pub(crate) mod token_request;
pub(crate) mod user;

/// The API group of roles and their bindings.
pub(crate) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
