//! Escalation: nobody grants what he does not have himself, unless he may `escalate` roles or `bind` them.
//!
//! Holds: it is asked inside of the transaction, about exactly the object that would be stored; a refusal drops the
//! transaction. The same place asks for the right to create when an update or a patch turns out to create.

use serde::Deserialize;
use serde_json::Value;

use super::RBAC_GROUP;
use super::admission::Caller;
use super::attributes::Attributes;
use super::policy::RoleRef;
use super::rule::{Rule, not_covered};
use crate::metadata;
use crate::refusal::{GroupResource, Refusal};
use crate::registry::{AccessKind, Nature, Registry};
use crate::store::transaction::Transaction;
use crate::store::writer::Work;
use crate::store::{Change, Key};
use crate::verbs::{Answer, Core, Outcome};

/// What is known of a write before it is done.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) caller: Caller,
    pub(crate) asked: Attributes,
    /// The object's place; its name is empty when it is yet to be made up.
    pub(crate) key: Key,
}

/// The work with a look at what it would do. Whoever may do everything is not looked at.
pub(crate) fn guarded(core: std::sync::Arc<Core>, asking: Asking, work: Work) -> Work {
    if asking.caller.user.is_master() {
        return work;
    }
    Box::new(move |tx| {
        let outcome = work(tx)?;
        confirm(&core.registry, &asking, tx, &outcome)?;
        Ok(outcome)
    })
}

fn confirm(registry: &Registry, asking: &Asking, tx: &Transaction<'_>, outcome: &Outcome) -> Result<(), Refusal> {
    if outcome.code == 201 && asking.asked.verb != "create" {
        asking.caller.require(&Attributes { verb: String::from("create"), ..asking.asked.clone() })?;
    }
    for Change { key, new, old, deleted } in tx.changes_from(0) {
        if let (Nature::Access(kind), false) = (registry.resource(key.resource).nature, deleted) {
            let old = old.map(|old| old.object());
            confirm_one(asking, kind, &key.namespace, old.as_ref(), &new.object())?;
        }
    }
    if let (Nature::Access(kind), Answer::Imagined(object)) =
        (registry.resource(asking.key.resource).nature, &outcome.answer)
    {
        let key = Key { name: String::from(metadata::text(object, "name")), ..asking.key.clone() };
        let old = tx.get(&key).map(|stored| stored.object());
        confirm_one(asking, kind, &key.namespace, old.as_ref(), object)?;
    }
    Ok(())
}

fn confirm_one(
    asking: &Asking,
    kind: AccessKind,
    namespace: &str,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Refusal> {
    // What the collector of garbage needs to change grants nothing.
    if old.is_some_and(|old| without_links(old) == without_links(new)) {
        return Ok(());
    }
    match kind {
        AccessKind::ServiceAccount => Ok(()),
        AccessKind::Role => confirm_rules(asking, "roles", namespace, new),
        AccessKind::ClusterRole => confirm_rules(asking, "clusterroles", namespace, new),
        AccessKind::RoleBinding => confirm_reference(asking, "rolebindings", namespace, new),
        AccessKind::ClusterRoleBinding => confirm_reference(asking, "clusterrolebindings", namespace, new),
    }
}

/// The object without what ties it to others, and without its version.
fn without_links(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["ownerReferences", "finalizers", "resourceVersion", "managedFields"] {
        metadata::set(&mut object, field, Value::Null);
    }
    object
}

fn asked(verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes {
        verb: String::from(verb),
        group: String::from(RBAC_GROUP),
        version: String::from("v1"),
        resource: String::from(resource),
        namespace: String::from(namespace),
        name: String::from(name),
        ..Attributes::default()
    }
}

fn confirm_rules(asking: &Asking, resource: &str, namespace: &str, role: &Value) -> Result<(), Refusal> {
    if asking.caller.may(&asked("escalate", resource, namespace, metadata::text(role, "name"))) {
        return Ok(());
    }
    let rules = Vec::<Rule>::deserialize(&role["rules"]).unwrap_or_default();
    refuse_more_than_owned(asking, resource, namespace, role, &rules)
}

fn confirm_reference(asking: &Asking, resource: &str, namespace: &str, binding: &Value) -> Result<(), Refusal> {
    let Ok(role) = RoleRef::deserialize(&binding["roleRef"]) else {
        return Ok(());
    };
    let roles = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if asking.caller.may(&asked("bind", roles, namespace, &role.name)) {
        return Ok(());
    }
    let Some(rules) = asking.caller.policy.rules_of(&role, namespace) else {
        let resource = GroupResource { group: String::from(RBAC_GROUP), resource: String::from(roles) };
        return Err(Refusal::NotFound { resource, name: role.name });
    };
    refuse_more_than_owned(asking, resource, namespace, binding, &rules)
}

fn refuse_more_than_owned(
    asking: &Asking,
    resource: &str,
    namespace: &str,
    object: &Value,
    rules: &[Rule],
) -> Result<(), Refusal> {
    let Caller { user, policy, .. } = &asking.caller;
    let missing = not_covered(&policy.rules_for(user, namespace), rules);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let missing: Vec<String> = missing.iter().map(Rule::to_string).collect();
    Err(Refusal::Forbidden {
        resource: GroupResource { group: String::from(RBAC_GROUP), resource: String::from(resource) },
        name: String::from(metadata::text(object, "name")),
        why: format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            missing.join("\n")
        ),
        terminating: None,
    })
}
