//! Deleting an object, or all that a selector finds.
//!
//! Holds: an object with finalizers is only marked; one without is removed at once, in the same transaction as what
//! depends on it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Answer, Core, Outcome, Target, WriteOptions, Writing};
use crate::metadata;
use crate::refusal::Refusal;
use crate::registry::{ClusterKind, Nature};
use crate::sources::seconds;
use crate::store::transaction::Transaction;
use crate::store::{Key, Stored};

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
    /// They stay, without their reference to it.
    Orphan,
}

/// Options of a deletion.
#[derive(Debug, Clone)]
pub(crate) struct DeleteOptions {
    pub(crate) write: WriteOptions,
    pub(crate) propagation: Propagation,
    /// The UID that the object must have.
    pub(crate) uid: Option<String>,
    /// The resourceVersion that the object must have.
    pub(crate) resource_version: Option<String>,
    /// How long the object gets to end, in seconds, where its kind ends gracefully.
    pub(crate) grace: Option<i64>,
}

/// Namespaces that are always there.
const PROTECTED: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Deletes one object.
pub(crate) fn delete(
    core: &Core,
    tx: &mut Transaction<'_>,
    target: Target,
    options: &DeleteOptions,
) -> Result<Outcome, Refusal> {
    Writing::new(core, tx, target, options.write.clone()).delete(options)
}

/// Deletes all objects that `wanted` accepts; answers them as they were.
pub(crate) fn delete_all(
    core: &Core,
    tx: &mut Transaction<'_>,
    target: Target,
    options: &DeleteOptions,
    wanted: impl Fn(&Key, &Stored) -> bool,
) -> Result<Outcome, Refusal> {
    let resource = core.registry.view(target.view).resource;
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    let found: Vec<(Key, Arc<Stored>)> = tx
        .keys(resource, namespace)
        .into_iter()
        .filter_map(|key| tx.get(&key).map(|stored| (key, stored)))
        .filter(|(key, stored)| wanted(key, stored))
        .collect();
    for (key, _) in &found {
        let one = Target { view: target.view, namespace: key.namespace.clone(), name: key.name.clone() };
        match Writing::new(core, tx, one, options.write.clone()).delete(options) {
            // What follows from an earlier deletion may have taken this one along.
            Ok(_) | Err(Refusal::NotFound { .. }) => {}
            Err(refusal) => return Err(refusal),
        }
    }
    let objects = found.into_iter().map(|(_, stored)| stored).collect();
    Ok(Outcome { code: 200, answer: Answer::Objects(objects), warnings: Vec::new() })
}

impl Writing<'_, '_, '_> {
    fn delete(&mut self, options: &DeleteOptions) -> Result<Outcome, Refusal> {
        let key = self.key(&self.target.name);
        let existing = self.tx.get(&key).ok_or_else(|| self.not_found())?;
        self.refuse_unmet(&existing, options)?;
        if self.nature() == Nature::Namespace && PROTECTED.contains(&key.name.as_str()) {
            return Err(Refusal::Forbidden {
                resource: self.core.registry.group_resource(self.target.view),
                name: key.name,
                why: String::from("this namespace may not be deleted"),
                terminating: None,
            });
        }
        match options.propagation {
            Propagation::Orphan => self.orphan_dependents(&existing.uid),
            Propagation::Foreground => self.hold_for_dependents(&key, &existing),
            Propagation::Background => {}
        }
        self.erase_within(&key, options.grace);
        self.settle();
        let answer = match self.tx.get(&key) {
            Some(marked) => Answer::Object(marked),
            None => Answer::Status(self.deleted(&existing)),
        };
        Ok(self.outcome(200, answer))
    }

    fn refuse_unmet(&self, existing: &Stored, options: &DeleteOptions) -> Result<(), Refusal> {
        if let Some(uid) = &options.uid
            && *uid != existing.uid
        {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", existing.uid);
            return Err(self.conflict(why));
        }
        if let Some(version) = &options.resource_version
            && *version != existing.revision.to_string()
        {
            return Err(self.conflict(format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                existing.revision
            )));
        }
        Ok(())
    }

    fn deleted(&self, existing: &Stored) -> Value {
        let mut details = json!({"name": self.target.name, "kind": self.resource().plural, "uid": existing.uid});
        if !self.view().group.is_empty() {
            details["group"] = json!(self.view().group);
        }
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }

    /// Removes an object, or marks it as being deleted when finalizers hold it. Marking twice changes nothing.
    pub(super) fn erase(&mut self, key: &Key) {
        self.erase_within(key, None);
    }

    fn erase_within(&mut self, key: &Key, grace: Option<i64>) {
        let Some(stored) = self.tx.get(key) else {
            return;
        };
        let mut object = stored.object();
        if self.core.registry.resource(key.resource).nature == Nature::Cluster(ClusterKind::Pod) {
            self.erase_pod(key, object, grace);
            return;
        }
        let is_namespace = self.core.registry.resource(key.resource).nature == Nature::Namespace;
        if metadata::finalizers(&object).is_empty() && !is_namespace {
            self.tx.remove(key.clone(), object);
            return;
        }
        if metadata::is_deleting(&object) {
            return;
        }
        metadata::set(&mut object, "deletionTimestamp", json!(seconds(self.now)));
        if is_namespace {
            object["status"]["phase"] = json!("Terminating");
        } else {
            metadata::set(&mut object, "deletionGracePeriodSeconds", json!(0));
        }
        if let Some(generation) = metadata::of(&object)["generation"].as_i64() {
            metadata::set(&mut object, "generation", json!(generation + 1));
        }
        self.tx.put(key.clone(), object);
    }
}
