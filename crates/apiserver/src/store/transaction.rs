//! One write in progress: it sees what earlier writes of the same batch did, and leaves nothing behind when it is refused.
//!
//! Holds: a transaction changes nothing but its own layer; a layer is absorbed whole or dropped whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Change, Key, State, Stored};
use crate::registry::{Registry, ResourceId};

/// Changes on top of a state.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The latest form of every object touched; `None` is deleted.
    pub(super) objects: BTreeMap<Key, Option<Arc<Stored>>>,
    pub(super) changes: Vec<Change>,
    pub(super) revision: u64,
    /// Those of the objects that were written with an owner.
    owned: BTreeSet<Key>,
}

impl Layer {
    pub(super) fn on(revision: u64) -> Layer {
        Layer { objects: BTreeMap::new(), changes: Vec::new(), revision, owned: BTreeSet::new() }
    }

    pub(super) fn absorb(&mut self, upper: Layer) {
        self.objects.extend(upper.objects);
        self.changes.extend(upper.changes);
        self.owned.extend(upper.owned);
        self.revision = upper.revision;
    }
}

/// One write in progress.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    registry: &'a Registry,
    state: &'a State,
    below: &'a Layer,
    layer: Layer,
    /// How many of the changes have been followed up.
    settled: usize,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(registry: &'a Registry, state: &'a State, below: &'a Layer) -> Transaction<'a> {
        Transaction { registry, state, below, layer: Layer::on(below.revision), settled: 0 }
    }

    pub(super) fn into_layer(self) -> Layer {
        self.layer
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        let touched = self.layer.objects.get(key).or_else(|| self.below.objects.get(key));
        match touched {
            Some(object) => object.clone(),
            None => self.state.get(key).cloned(),
        }
    }

    /// Writes an object under the next resource version.
    pub(crate) fn put(&mut self, key: Key, object: Value) -> Arc<Stored> {
        let old = self.get(&key);
        self.layer.revision += 1;
        let new = Arc::new(Stored::of(self.registry.resource(key.resource), object, self.layer.revision));
        if !new.owners.is_empty() {
            self.layer.owned.insert(key.clone());
        }
        self.layer.objects.insert(key.clone(), Some(Arc::clone(&new)));
        self.layer.changes.push(Change { key, new: Arc::clone(&new), old, deleted: false });
        new
    }

    /// Removes an object under the next resource version. `last` is the form its deletion is reported with.
    pub(crate) fn remove(&mut self, key: Key, last: Value) -> Arc<Stored> {
        let old = self.get(&key);
        self.layer.revision += 1;
        let new = Arc::new(Stored::of(self.registry.resource(key.resource), last, self.layer.revision));
        self.layer.objects.insert(key.clone(), None);
        self.layer.changes.push(Change { key, new: Arc::clone(&new), old, deleted: true });
        new
    }

    /// The places of all objects of a resource, in one namespace or (none given) in all.
    pub(crate) fn keys(&self, resource: ResourceId, namespace: Option<&str>) -> Vec<Key> {
        let wanted = |key: &Key| key.resource == resource && namespace.is_none_or(|name| key.namespace == name);
        let stored = self.state.table(resource).keys();
        let stored = stored.map(|(namespace, name)| Key { resource, namespace: namespace.clone(), name: name.clone() });
        let touched = self.below.objects.keys().chain(self.layer.objects.keys()).cloned();
        let all: BTreeSet<Key> = stored.chain(touched).filter(wanted).collect();
        all.into_iter().filter(|key| self.get(key).is_some()).collect()
    }

    /// The places of all objects that name the owner with this UID.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Key> {
        let names = |key: &Key| self.get(key).is_some_and(|stored| stored.owners.iter().any(|owner| owner == uid));
        let written = self.below.owned.iter().chain(&self.layer.owned);
        let all: BTreeSet<&Key> = self.state.dependents(uid).chain(written).collect();
        all.into_iter().filter(|key| names(key)).cloned().collect()
    }

    /// The changes made so far, from the `start`th on.
    pub(crate) fn changes_from(&self, start: usize) -> Vec<Change> {
        self.layer.changes.get(start..).unwrap_or_default().to_vec()
    }

    /// The changes that were made since this was asked last.
    pub(crate) fn unsettled(&mut self) -> Vec<Change> {
        let changes = self.changes_from(self.settled);
        self.settled += changes.len();
        changes
    }
}
