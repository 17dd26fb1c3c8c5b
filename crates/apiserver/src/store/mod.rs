//! What is stored: all objects in memory, every change on its way through one writer, and the recent history.
//!
//! Holds: memory is what the file holds, never more; a change is published only after it is durable; resource versions
//! rise by one with every change, over restarts too; the history reaches back to [`State::floor`] without a gap.

#[cfg(test)]
mod disk_faults;
pub(crate) mod file;
pub(crate) mod transaction;
pub(crate) mod witness;
pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::registry::{Registry, Resource, ResourceId};

/// The place of one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) resource: ResourceId,
    /// Empty for an object of cluster scope.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One object as it is stored, with what lists, watches and the collector look at.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) json: Bytes,
    pub(crate) revision: u64,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The values of the resource's selectable fields, in their order.
    pub(crate) fields: Box<[String]>,
    /// The UIDs of its owners.
    pub(crate) owners: Box<[String]>,
}

impl Stored {
    /// Takes what is needed from the object; its resourceVersion is set to `revision`.
    pub(crate) fn of(resource: &Resource, mut object: Value, revision: u64) -> Stored {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert(String::from("resourceVersion"), Value::from(revision.to_string()));
        }
        let metadata = &object["metadata"];
        let texts = |map: &Value| -> BTreeMap<String, String> {
            let entries = map.as_object().into_iter().flatten();
            entries.filter_map(|(key, value)| Some((key.clone(), String::from(value.as_str()?)))).collect()
        };
        let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        Stored {
            revision,
            uid: String::from(metadata["uid"].as_str().unwrap_or_default()),
            labels: texts(&metadata["labels"]),
            fields: resource.selectable.iter().map(|field| field_text(field.path.first(&object))).collect(),
            owners: owners.iter().filter_map(|owner| owner["uid"].as_str().map(String::from)).collect(),
            json: Bytes::from(object.to_string()),
        }
    }

    /// The same object under another resource version: how a watch reports one that no longer fits its selector.
    pub(crate) fn at(&self, revision: u64) -> Stored {
        let mut object = self.object();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert(String::from("resourceVersion"), Value::from(revision.to_string()));
        }
        Stored {
            json: Bytes::from(object.to_string()),
            revision,
            uid: self.uid.clone(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            owners: self.owners.clone(),
        }
    }

    /// The object itself.
    pub(crate) fn object(&self) -> Value {
        // What is stored was written by this crate, or was parsed when the file was opened.
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }
}

/// A field's value as a field selector compares it.
fn field_text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// One change, as watches see it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: Key,
    /// The object after the change; of a deletion, its last state with the deletion's revision.
    pub(crate) new: Arc<Stored>,
    /// The object before the change; none when it was created.
    pub(crate) old: Option<Arc<Stored>>,
    pub(crate) deleted: bool,
}

impl Change {
    pub(crate) fn revision(&self) -> u64 {
        self.new.revision
    }
}

/// The objects of one resource, in the order of namespace and name.
pub(crate) type Table = BTreeMap<(String, String), Arc<Stored>>;

/// How much history is kept, whatever its number of changes.
const HISTORY_BYTES: usize = 32 * 1024 * 1024;

/// All objects, and the recent history.
#[derive(Debug)]
pub(crate) struct State {
    tables: Vec<Table>,
    /// The objects that name an owner, by the owner's UID.
    dependents: BTreeMap<String, BTreeSet<Key>>,
    revision: u64,
    history: VecDeque<Change>,
    history_bytes: usize,
    history_most: usize,
    floor: u64,
}

impl State {
    pub(crate) fn new(registry: &Registry, revision: u64, history_most: usize) -> State {
        State {
            tables: registry.resources().map(|_| Table::new()).collect(),
            dependents: BTreeMap::new(),
            revision,
            history: VecDeque::new(),
            history_bytes: 0,
            history_most,
            floor: revision,
        }
    }

    /// The resource version of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest resource version from which every later change is still known.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn table(&self, resource: ResourceId) -> &Table {
        &self.tables[resource.0]
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        // The key is cloned rather than borrowed: a borrowed pair of strings is no borrowed pair.
        self.table(key.resource).get(&(key.namespace.clone(), key.name.clone()))
    }

    /// The changes after `revision`, oldest first.
    pub(crate) fn changes_after(&self, revision: u64) -> impl DoubleEndedIterator<Item = &Change> {
        let start = self.history.partition_point(|change| change.revision() <= revision);
        self.history.range(start..)
    }

    fn dependents(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// Puts an object that was read from the file.
    pub(crate) fn load(&mut self, key: Key, stored: Arc<Stored>) {
        self.link(&key, &stored);
        self.tables[key.resource.0].insert((key.namespace, key.name), stored);
    }

    /// Takes over changes that are durable.
    fn publish(&mut self, changes: Vec<Change>, revision: u64) {
        for change in changes {
            if let Some(old) = &change.old {
                self.unlink(&change.key, old);
            }
            let place = (change.key.namespace.clone(), change.key.name.clone());
            if change.deleted {
                self.tables[change.key.resource.0].remove(&place);
            } else {
                self.link(&change.key, &change.new);
                self.tables[change.key.resource.0].insert(place, Arc::clone(&change.new));
            }
            self.history_bytes += change.new.json.len();
            self.history.push_back(change);
        }
        self.revision = revision;
        self.trim();
    }

    fn trim(&mut self) {
        while self.history.len() > self.history_most || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else {
                return;
            };
            self.history_bytes -= oldest.new.json.len();
            self.floor = oldest.revision();
        }
    }

    fn link(&mut self, key: &Key, stored: &Stored) {
        for uid in &stored.owners {
            self.dependents.entry(uid.clone()).or_default().insert(key.clone());
        }
    }

    fn unlink(&mut self, key: &Key, stored: &Stored) {
        for uid in &stored.owners {
            if let Some(keys) = self.dependents.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
    }
}
