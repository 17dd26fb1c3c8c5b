//! Decisions, told to whoever wants to know them: a test that asserts that every right is used and none is missing.
//!
//! Holds: an observer hears of a decision after it was made, and changes nothing about it.

use std::sync::Arc;

use super::attributes::Attributes;
use super::user::User;

/// Told of every decision, in the task of the request. It must not block.
pub type Observer = Arc<dyn Fn(&Decision) + Send + Sync>;

/// Why a request is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// The user is in `system:masters`.
    Master,
    /// A rule allows it.
    Rule(RulePlace),
}

/// Where a rule stands, and how it came to the user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePlace {
    /// The namespace of the RoleBinding; empty for a ClusterRoleBinding.
    pub binding_namespace: String,
    /// The name of the binding.
    pub binding: String,
    /// `Role` or `ClusterRole`.
    pub role_kind: String,
    /// The name of the role.
    pub role: String,
    /// Which of the role's rules, from 0.
    pub rule: usize,
}

/// One decision.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Who asked.
    pub user: Arc<User>,
    /// For what.
    pub asked: Attributes,
    /// Why it is allowed; none: it is not.
    pub grant: Option<Grant>,
}

impl Decision {
    /// Whether the request may be done.
    pub fn is_allowed(&self) -> bool {
        self.grant.is_some()
    }
}
