//! Users: a name, and the groups that come with it.
//!
//! Holds: the names of ServiceAccounts and of the groups that every server knows are those of Kubernetes.

use std::collections::BTreeMap;

use crate::names;

/// The group that may do everything: the owner of the state folder.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of all who showed who they are.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who did not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of those who did not.
pub(crate) const ANONYMOUS: &str = "system:anonymous";

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// A unique id, empty where there is none.
    pub uid: String,
    /// The groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// What else is known: which token was shown, for example.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of this name who has shown who it is: in the given groups and in `system:authenticated`.
    pub fn named(name: impl Into<String>, groups: &[&str]) -> User {
        let mut groups: Vec<String> = groups.iter().map(|group| String::from(*group)).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(String::from(AUTHENTICATED));
        }
        User { name: name.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// The owner of the state folder, who may do everything.
    pub fn owner() -> User {
        User::named("owner", &[MASTERS])
    }

    /// A ServiceAccount, as its tokens make it known.
    pub fn service_account(namespace: &str, name: &str) -> User {
        let inside = format!("{SERVICE_ACCOUNTS}:{namespace}");
        User::named(format!("{SERVICE_ACCOUNT}{namespace}:{name}"), &[SERVICE_ACCOUNTS, &inside])
    }

    /// Somebody who showed nothing.
    pub(crate) fn anonymous() -> User {
        User {
            name: String::from(ANONYMOUS),
            uid: String::new(),
            groups: vec![String::from(UNAUTHENTICATED)],
            extra: BTreeMap::new(),
        }
    }

    /// Whether this is somebody who may do everything.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// Namespace and name of the ServiceAccount this is, if it is one.
    pub(crate) fn as_service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
        (names::label(namespace).is_ok() && names::subdomain(name).is_ok()).then_some((namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_are_known_by_their_names() {
        let user = User::service_account("a", "b.c");
        assert_eq!(user.name, "system:serviceaccount:a:b.c");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        assert_eq!(user.as_service_account(), Some(("a", "b.c")));
        for name in ["system:serviceaccount:a", "system:serviceaccount::b", "a", "system:serviceaccount:a:b:c"] {
            assert_eq!(User::named(name, &[]).as_service_account(), None, "{name}");
        }
    }
}
