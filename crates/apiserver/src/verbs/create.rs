//! Creating an object.
//!
//! Holds: what only the server says (uid, creation time, generation, status) is never taken from the client.

use serde_json::{Value, json};

use super::update::Part;
use super::{Answer, Core, Outcome, Owners, Target, WriteOptions, Writing, kinds};
use crate::metadata;
use crate::refusal::Refusal;
use crate::registry::Nature;
use crate::sources::{SUFFIX_LENGTH, seconds};
use crate::store::Key;
use crate::store::transaction::Transaction;

/// Longest generated name before its random end, and how often another end is tried.
const GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;
const GENERATED_TRIES: usize = 8;

/// Creates the object; refused when one of that name exists.
pub(crate) fn create(
    core: &Core,
    tx: &mut Transaction<'_>,
    target: Target,
    options: WriteOptions,
    object: Value,
) -> Result<Outcome, Refusal> {
    Writing::new(core, tx, target, options).create(object, Owners::ByUpdate)
}

impl Writing<'_, '_, '_> {
    /// Creates the object.
    pub(super) fn create(&mut self, mut object: Value, owners: Owners) -> Result<Outcome, Refusal> {
        self.identify(&mut object)?;
        self.admit(&mut object)?;
        if !metadata::text(&object, "resourceVersion").is_empty() {
            return Err(Refusal::BadRequest(String::from(
                "resourceVersion should not be set on objects to be created",
            )));
        }
        self.refuse_outside_namespace(&object)?;
        let said = metadata::take_managed_fields(&mut object);
        self.begin(&mut object);
        let generated = self.name(&mut object);
        kinds::complete(self.nature(), &mut object);
        self.record_owners(Part::Main, None, &mut object, &said, owners);
        self.validate(&object, None, Vec::new())?;
        let key = self.free_place(&mut object, generated)?;
        self.store_new(key, object)
    }

    fn store_new(&mut self, key: Key, object: Value) -> Result<Outcome, Refusal> {
        if self.options.dry_run {
            return Ok(self.outcome(201, Answer::Imagined(object)));
        }
        let object = self.stored(object);
        let created = self.tx.put(key, object);
        self.settle();
        if self.nature() == Nature::Event {
            self.sweep_events();
        }
        Ok(self.outcome(201, Answer::Object(created)))
    }

    /// Sets what only the server says.
    fn begin(&mut self, object: &mut Value) {
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            metadata::set(object, field, Value::Null);
        }
        metadata::set(object, "uid", json!(self.core.sources.uid()));
        metadata::set(object, "creationTimestamp", json!(seconds(self.now)));
        if self.nature().has_generation() {
            metadata::set(object, "generation", json!(1));
        }
        if self.view().status
            && !self.nature().begins_with_status()
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        kinds::complete_new(self.nature(), object);
    }

    /// Makes up a name when only its beginning is given. Answers that beginning.
    fn name(&mut self, object: &mut Value) -> Option<String> {
        let base = metadata::text(object, "generateName").to_owned();
        if !metadata::text(object, "name").is_empty() || base.is_empty() {
            return None;
        }
        self.generate(object, &base);
        Some(base)
    }

    fn generate(&mut self, object: &mut Value, base: &str) {
        let end = base.char_indices().map(|(at, _)| at).chain([base.len()]).filter(|at| *at <= GENERATED_BASE).max();
        let base = base.get(..end.unwrap_or(0)).unwrap_or_default();
        metadata::set(object, "name", json!(format!("{base}{}", self.core.sources.suffix())));
    }

    /// The place of the object, which has to be free; a generated name is made up again until it is.
    fn free_place(&mut self, object: &mut Value, generated: Option<String>) -> Result<Key, Refusal> {
        for _ in 0..GENERATED_TRIES {
            let key = self.key(metadata::text(object, "name"));
            if self.tx.get(&key).is_none() {
                return Ok(key);
            }
            let Some(base) = &generated else {
                break;
            };
            self.generate(object, base);
        }
        let name = String::from(metadata::text(object, "name"));
        Err(Refusal::AlreadyExists { resource: self.core.registry.group_resource(self.target.view), name })
    }

    /// Objects are created only in namespaces that exist and are not going away.
    fn refuse_outside_namespace(&self, object: &Value) -> Result<(), Refusal> {
        let namespace = self.target.namespace.as_str();
        if namespace.is_empty() {
            return Ok(());
        }
        let Some(resource) = self.core.registry.find_nature(Nature::Namespace) else {
            return Ok(());
        };
        let key = Key { resource, namespace: String::new(), name: String::from(namespace) };
        let Some(stored) = self.tx.get(&key) else {
            let storage = self.core.registry.resource(resource).storage;
            let name = String::from(namespace);
            return Err(Refusal::NotFound { resource: self.core.registry.group_resource(storage), name });
        };
        if !metadata::is_deleting(&stored.object()) {
            return Ok(());
        }
        Err(Refusal::Forbidden {
            resource: self.core.registry.group_resource(self.target.view),
            name: String::from(metadata::text(object, "name")),
            why: format!("unable to create new content in namespace {namespace} because it is being terminated"),
            terminating: Some(String::from(namespace)),
        })
    }
}
