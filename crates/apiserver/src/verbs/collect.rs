//! What follows from a write: dependents of what is gone, contents of namespaces that go, events that are old.
//!
//! Holds: all of it happens in the transaction of the write that caused it, so that no crash comes between and no
//! background work has to be waited for. An owner of an unknown kind is never taken for gone.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Writing, kinds};
use crate::metadata::{self, FOREGROUND};
use crate::registry::{Nature, ResourceId};
use crate::store::{Change, Key, Stored};

/// What is known about one owner reference.
enum Owner {
    /// It is there.
    Present,
    /// It is there, and waits for this dependent to go.
    Waiting,
    /// It is gone.
    Absent,
    /// Nothing can be said: its kind is not served here, or it cannot be an owner of this object.
    Unknown,
}

impl Writing<'_, '_, '_> {
    /// Does everything that follows from the changes of this transaction, until nothing more does. A namespace is looked
    /// through for what is left in it once all else is done, and not for every object that goes.
    pub(super) fn settle(&mut self) {
        let mut shrunk = BTreeSet::new();
        loop {
            let changes = self.tx.unsettled();
            for change in &changes {
                self.follow(change, &mut shrunk);
            }
            if !changes.is_empty() {
                continue;
            }
            if shrunk.is_empty() {
                return;
            }
            for namespace in std::mem::take(&mut shrunk) {
                self.finish_namespace(&namespace);
            }
        }
    }

    fn follow(&mut self, change: &Change, shrunk: &mut BTreeSet<String>) {
        if change.deleted {
            for dependent in self.tx.dependents(&change.new.uid) {
                self.collect(&dependent);
            }
            self.release_owners(&change.key, &change.new);
            shrunk.insert(change.key.namespace.clone());
            return;
        }
        if !change.new.owners.is_empty() {
            self.collect(&change.key);
        }
        if self.core.registry.resource(change.key.resource).nature == Nature::Namespace {
            self.empty_namespace(&change.key.name);
            shrunk.insert(change.key.name.clone());
        }
    }

    /// Deletes an object whose owners are all gone; drops the references to owners that are, when others are not.
    fn collect(&mut self, key: &Key) {
        let Some(stored) = self.tx.get(key) else {
            return;
        };
        let mut object = stored.object();
        let references = metadata::of(&object)["ownerReferences"].as_array().cloned().unwrap_or_default();
        let (mut solid, mut waiting) = (Vec::new(), 0);
        let count = references.len();
        for reference in references {
            match self.owner(key, &reference) {
                Owner::Present | Owner::Unknown => solid.push(reference),
                Owner::Waiting => waiting += 1,
                Owner::Absent => {}
            }
        }
        if solid.is_empty() && count > 0 {
            self.erase(key);
        } else if solid.len() + waiting < count || (waiting > 0 && !solid.is_empty()) {
            metadata::set(&mut object, "ownerReferences", Value::Array(solid));
            self.tx.put(key.clone(), object);
        }
    }

    fn owner(&self, dependent: &Key, reference: &Value) -> Owner {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let Some(resource) = self.core.registry.find_kind(text("apiVersion"), text("kind")) else {
            return Owner::Unknown;
        };
        let namespaced = self.core.registry.resource(resource).namespaced;
        if namespaced && dependent.namespace.is_empty() {
            return Owner::Unknown;
        }
        let namespace = if namespaced { dependent.namespace.clone() } else { String::new() };
        let owner = self.tx.get(&Key { resource, namespace, name: String::from(text("name")) });
        match owner.filter(|owner| owner.uid == text("uid")) {
            None => Owner::Absent,
            Some(owner) if reference["blockOwnerDeletion"] == true && is_held(&owner.object()) => Owner::Waiting,
            Some(_) => Owner::Present,
        }
    }

    /// Takes the owner with this UID out of all references to it.
    pub(super) fn orphan_dependents(&mut self, uid: &str) {
        for key in self.tx.dependents(uid) {
            let Some(stored) = self.tx.get(&key) else {
                continue;
            };
            let mut object = stored.object();
            let references = metadata::of(&object)["ownerReferences"].as_array().cloned().unwrap_or_default();
            let rest: Vec<Value> = references.into_iter().filter(|reference| reference["uid"] != uid).collect();
            metadata::set(&mut object, "ownerReferences", if rest.is_empty() { Value::Null } else { json!(rest) });
            self.tx.put(key, object);
        }
    }

    /// Holds an owner until the dependents that block it are gone, and deletes them.
    pub(super) fn hold_for_dependents(&mut self, key: &Key, existing: &Stored) {
        if self.blocking(&existing.uid).is_empty() {
            return;
        }
        let mut object = existing.object();
        let mut finalizers: Vec<String> = metadata::finalizers(&object).into_iter().map(String::from).collect();
        if !finalizers.iter().any(|name| name == FOREGROUND) {
            finalizers.push(String::from(FOREGROUND));
            metadata::set(&mut object, "finalizers", json!(finalizers));
            self.tx.put(key.clone(), object);
        }
        self.erase(key);
        for dependent in self.tx.dependents(&existing.uid) {
            self.collect(&dependent);
        }
    }

    fn blocking(&self, uid: &str) -> Vec<Key> {
        let blocks = |key: &Key| {
            let object = self.tx.get(key).map(|stored| stored.object()).unwrap_or_default();
            let references = metadata::of(&object)["ownerReferences"].as_array().cloned().unwrap_or_default();
            references.iter().any(|reference| reference["uid"] == uid && reference["blockOwnerDeletion"] == true)
        };
        self.tx.dependents(uid).into_iter().filter(blocks).collect()
    }

    /// Lets go of owners that waited for this dependent.
    fn release_owners(&mut self, dependent: &Key, gone: &Stored) {
        if gone.owners.is_empty() {
            return;
        }
        let object = gone.object();
        for reference in metadata::of(&object)["ownerReferences"].as_array().into_iter().flatten() {
            let text = |field: &str| reference[field].as_str().unwrap_or_default();
            let Some(resource) = self.core.registry.find_kind(text("apiVersion"), text("kind")) else {
                continue;
            };
            let namespaced = self.core.registry.resource(resource).namespaced;
            let namespace = if namespaced { dependent.namespace.clone() } else { String::new() };
            self.release(&Key { resource, namespace, name: String::from(text("name")) });
        }
    }

    fn release(&mut self, key: &Key) {
        let Some(stored) = self.tx.get(key) else {
            return;
        };
        let mut object = stored.object();
        if !is_held(&object) || !self.blocking(&stored.uid).is_empty() {
            return;
        }
        let rest: Vec<&str> = metadata::finalizers(&object).into_iter().filter(|name| *name != FOREGROUND).collect();
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        let is_free = rest.is_null();
        metadata::set(&mut object, "finalizers", rest);
        if is_free {
            self.tx.remove(key.clone(), object);
        } else {
            self.tx.put(key.clone(), object);
        }
    }

    fn namespaced(&self) -> Vec<ResourceId> {
        self.core.registry.resources().filter(|(_, resource)| resource.namespaced).map(|(id, _)| id).collect()
    }

    fn terminating(&self, namespace: &str) -> Option<(Key, Value)> {
        if namespace.is_empty() {
            return None;
        }
        let resource = self.core.registry.find_nature(Nature::Namespace)?;
        let key = Key { resource, namespace: String::new(), name: String::from(namespace) };
        let object = self.tx.get(&key)?.object();
        metadata::is_deleting(&object).then_some((key, object))
    }

    /// Deletes what is in a namespace that goes away.
    fn empty_namespace(&mut self, namespace: &str) {
        if self.terminating(namespace).is_none() {
            return;
        }
        for resource in self.namespaced() {
            for key in self.tx.keys(resource, Some(namespace)) {
                self.erase(&key);
            }
        }
    }

    /// Removes a namespace that goes away once nothing is in it and nothing holds it.
    fn finish_namespace(&mut self, namespace: &str) {
        let Some((key, object)) = self.terminating(namespace) else {
            return;
        };
        let mut inside = self.namespaced().into_iter().map(|resource| self.tx.keys(resource, Some(namespace)).len());
        if inside.all(|count| count == 0) && metadata::finalizers(&object).is_empty() {
            self.tx.remove(key, object);
        }
    }

    /// Removes events that are older than they are kept, now and then.
    pub(super) fn sweep_events(&mut self) {
        if !self.core.sweep_is_due(self.now) {
            return;
        }
        let lifetime = SignedDuration::try_from(self.core.event_lifetime).unwrap_or(SignedDuration::MAX);
        let Ok(limit) = self.now.checked_sub(lifetime) else {
            return;
        };
        for key in self.tx.keys(self.view().resource, None) {
            let Some(stored) = self.tx.get(&key) else {
                continue;
            };
            let event = stored.object();
            if kinds::last_seen(&event).is_some_and(|time| time < limit) {
                self.tx.remove(key, event);
            }
        }
    }
}

/// Whether an object is being deleted and waits for its dependents.
fn is_held(object: &Value) -> bool {
    metadata::is_deleting(object) && metadata::finalizers(object).contains(&FOREGROUND)
}
