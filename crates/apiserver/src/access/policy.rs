//! The policy: all roles and bindings, ready to be asked.
//!
//! Holds: a policy is what the store says at one version; it is made anew only after a role or a binding changed. A
//! binding to a role that is not there grants nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::attributes::Attributes;
use super::observer::{Grant, RulePlace};
use super::rule::Rule;
use super::user::User;
use crate::registry::{AccessKind, Nature, Registry, ResourceId};
use crate::store::State;
use crate::store::writer::Shared;

/// Whom a binding names: a group, or a user (a ServiceAccount is a user of its name).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A role of one binding.
#[derive(Debug)]
struct Bound {
    binding_namespace: String,
    binding: String,
    role: RoleRef,
    rules: Arc<[Rule]>,
}

type Bindings = HashMap<Subject, Vec<Arc<Bound>>>;

/// What a binding refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct RoleRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BindingDocument {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Vec<SubjectDocument>,
}

#[derive(Deserialize)]
struct SubjectDocument {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

/// All roles and bindings of one version of the store.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// By namespace (empty: cluster roles) and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
    /// By namespace (empty: everywhere).
    bindings: HashMap<String, Bindings>,
}

impl Policy {
    fn build(registry: &Registry, state: &State) -> Policy {
        let mut policy = Policy::default();
        for kind in [AccessKind::ClusterRole, AccessKind::Role] {
            each(registry, state, kind, |namespace, name, object| {
                let rules = Vec::<Rule>::deserialize(&object["rules"]).unwrap_or_default();
                policy.roles.insert((String::from(namespace), String::from(name)), rules.into());
            });
        }
        for kind in [AccessKind::ClusterRoleBinding, AccessKind::RoleBinding] {
            each(registry, state, kind, |namespace, name, object| {
                if let Ok(document) = BindingDocument::deserialize(object) {
                    policy.bind(namespace, name, document);
                }
            });
        }
        policy
    }

    fn bind(&mut self, namespace: &str, name: &str, document: BindingDocument) {
        let Some(rules) = self.rules_of(&document.role_ref, namespace) else {
            return;
        };
        let (binding_namespace, binding) = (String::from(namespace), String::from(name));
        let bound = Arc::new(Bound { binding_namespace, binding, role: document.role_ref, rules });
        let place = self.bindings.entry(String::from(namespace)).or_default();
        for subject in document.subjects {
            if let Some(subject) = subject.read(namespace) {
                place.entry(subject).or_default().push(Arc::clone(&bound));
            }
        }
    }

    /// The rules of a role that a binding in this namespace refers to; none when it is not there.
    pub(crate) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Arc<[Rule]>> {
        let namespace = if role.kind == "ClusterRole" { "" } else { namespace };
        // A Role lives in a namespace: at the cluster scope there is none.
        if role.kind != "ClusterRole" && namespace.is_empty() {
            return None;
        }
        self.roles.get(&(String::from(namespace), role.name.clone())).map(Arc::clone)
    }

    /// The bindings that reach this user in this namespace, those of the whole cluster first.
    fn reaching<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Bound>> {
        let places = std::iter::once("").chain((!namespace.is_empty()).then_some(namespace));
        let found = places.filter_map(|place| self.bindings.get(place));
        found.flat_map(move |bindings| {
            let name = Subject::User(user.name.clone());
            let groups = user.groups.iter().map(|group| Subject::Group(group.clone()));
            std::iter::once(name).chain(groups).filter_map(|subject| bindings.get(&subject)).flatten()
        })
    }

    /// All rules that a user has in a namespace (empty: everywhere).
    pub(crate) fn rules_for<'a>(&'a self, user: &'a User, namespace: &'a str) -> Vec<&'a Rule> {
        self.reaching(user, namespace).flat_map(|bound| bound.rules.iter()).collect()
    }

    /// Why the user may do this; none: it may not.
    pub(crate) fn grant(&self, user: &User, asked: &Attributes) -> Option<Grant> {
        if user.is_master() {
            return Some(Grant::Master);
        }
        // A path belongs to no namespace, and so the rules of a namespace say nothing about it.
        self.reaching(user, &asked.namespace).find_map(|bound| {
            let rule = bound.rules.iter().position(|rule| rule.allows(asked))?;
            Some(Grant::Rule(RulePlace {
                binding_namespace: bound.binding_namespace.clone(),
                binding: bound.binding.clone(),
                role_kind: bound.role.kind.clone(),
                role: bound.role.name.clone(),
                rule,
            }))
        })
    }
}

impl SubjectDocument {
    fn read(self, namespace: &str) -> Option<Subject> {
        match self.kind.as_str() {
            "User" => Some(Subject::User(self.name)),
            "Group" => Some(Subject::Group(self.name)),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { namespace } else { &self.namespace };
                (!namespace.is_empty()).then(|| Subject::User(User::service_account(namespace, &self.name).name))
            }
            _other => None,
        }
    }
}

fn each(registry: &Registry, state: &State, kind: AccessKind, mut read: impl FnMut(&str, &str, &Value)) {
    let Some(resource) = registry.find_nature(Nature::Access(kind)) else {
        return;
    };
    for ((namespace, name), stored) in state.table(resource) {
        read(namespace, name, &stored.object());
    }
}

/// The policy of the latest version, made anew when it has to be.
#[derive(Debug)]
pub(crate) struct Policies {
    sources: Vec<ResourceId>,
    latest: Mutex<Option<(u64, Arc<Policy>)>>,
}

impl Policies {
    pub(crate) fn new(registry: &Registry) -> Policies {
        let kinds =
            [AccessKind::Role, AccessKind::ClusterRole, AccessKind::RoleBinding, AccessKind::ClusterRoleBinding];
        let sources = kinds.into_iter().filter_map(|kind| registry.find_nature(Nature::Access(kind))).collect();
        Policies { sources, latest: Mutex::new(None) }
    }

    /// The policy as of now.
    pub(crate) fn current(&self, registry: &Registry, shared: &Shared) -> Arc<Policy> {
        let state = shared.read();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, policy)) = latest.as_mut()
            && !self.is_changed(&state, *revision)
        {
            *revision = state.revision();
            return Arc::clone(policy);
        }
        let policy = Arc::new(Policy::build(registry, &state));
        *latest = Some((state.revision(), Arc::clone(&policy)));
        policy
    }

    /// Whether a role or a binding changed since, as far as that can be told.
    fn is_changed(&self, state: &State, revision: u64) -> bool {
        revision < state.floor()
            || state.changes_after(revision).any(|change| self.sources.contains(&change.key.resource))
    }
}
