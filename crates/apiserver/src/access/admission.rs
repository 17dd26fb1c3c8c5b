//! Admission: from a request's head to a caller who may ask it, or a refusal.
//!
//! Holds: in the order of Kubernetes (impersonation, limits, rights), and before a byte of the body is read or anything of
//! the path is looked up.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use super::attributes::Attributes;
use super::impersonation;
use super::limits::Pass;
use super::observer::{Decision, Grant, Observer};
use super::policy::Policy;
use super::user::User;
use crate::http::query::Query;
use crate::refusal::{GroupResource, Refusal};
use crate::server::Server;

/// Somebody together with what they may do, as of the moment their request came.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) user: Arc<User>,
    pub(crate) policy: Arc<Policy>,
    observer: Option<Observer>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Caller {
    pub(crate) fn new(server: &Server, user: Arc<User>) -> Caller {
        // Whoever may do everything needs no rules to be read.
        let policy = if user.is_master() { Arc::default() } else { server.policy() };
        Caller { user, policy, observer: server.observer.clone() }
    }

    /// Refuses what the user may not do. Every call is a decision that the observer hears of.
    pub(crate) fn require(&self, asked: &Attributes) -> Result<(), Refusal> {
        if self.may(asked) { Ok(()) } else { Err(denied(&self.user, asked)) }
    }

    /// Whether the user may do this. The observer hears of it.
    pub(crate) fn may(&self, asked: &Attributes) -> bool {
        let grant: Option<Grant> = self.policy.grant(&self.user, asked);
        let is_allowed = grant.is_some();
        if let Some(observer) = &self.observer {
            observer(&Decision { user: Arc::clone(&self.user), asked: asked.clone(), grant });
        }
        is_allowed
    }
}

/// The refusal of a request that a user may not make.
fn denied(user: &User, asked: &Attributes) -> Refusal {
    let why = asked.refusal(&user.name).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Refusal::Forbidden {
        resource: GroupResource { group: asked.group.clone(), resource: asked.resource.clone() },
        name: asked.name.clone(),
        why,
        terminating: None,
    }
}

/// A request that was let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// On whose behalf it is done.
    pub(crate) caller: Caller,
    /// What it is.
    pub(crate) attributes: Attributes,
    /// Its place among all requests under way.
    pub(crate) pass: Pass,
}

/// Lets a request in, or refuses it.
pub(crate) fn admit(server: &Server, user: &Arc<User>, head: &Parts, query: &Query) -> Result<Admitted, Refusal> {
    let attributes = Attributes::read(&head.method, head.uri.path(), query);
    let user = impersonation::effective(server, user, &head.headers)?;
    let pass = server.gate.enter(&user, &attributes)?;
    let caller = Caller::new(server, user);
    caller.require(&attributes)?;
    Ok(Admitted { caller, attributes, pass })
}
