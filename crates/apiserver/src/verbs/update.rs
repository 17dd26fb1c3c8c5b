//! Changing an object: replaced or patched, its main part or its status.
//!
//! Holds: a write that names a resourceVersion is done on exactly that version or refused; the main part and the status
//! each ignore the other's half; what changes nothing writes nothing, and when a manager last wrote is no change by itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Answer, Core, Outcome, Owners, Target, WriteOptions, Writing, kinds};
use crate::managed;
use crate::metadata;
use crate::patch::Patch;
use crate::refusal::{Cause, Refusal};
use crate::registry::Nature;
use crate::store::Stored;
use crate::store::transaction::Transaction;

/// Which half of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

/// Where the new object comes from.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Replace(Value),
    Patch(Patch),
}

/// Changes the object.
pub(crate) fn update(
    core: &Core,
    tx: &mut Transaction<'_>,
    target: Target,
    options: WriteOptions,
    part: Part,
    change: Change,
) -> Result<Outcome, Refusal> {
    Writing::new(core, tx, target, options).update(part, change)
}

impl Writing<'_, '_, '_> {
    fn update(&mut self, part: Part, change: Change) -> Result<Outcome, Refusal> {
        let existing = self.tx.get(&self.key(&self.target.name));
        let existing = match (existing, change) {
            (Some(existing), change) => (existing, change),
            (None, Change::Replace(object)) if part == Part::Main && self.nature().creates_on_update() => {
                return self.create_instead(object);
            }
            (None, Change::Replace(_) | Change::Patch(_)) => return Err(self.not_found()),
        };
        let (existing, change) = existing;
        let old = self.served(&existing);
        let (new, conditional) = match change {
            Change::Replace(object) => (object, !self.nature().takes_unconditional_update()),
            Change::Patch(patch) => (patch.apply(&old)?, false),
        };
        self.write(part, &existing, &old, new, conditional, Owners::ByUpdate)
    }

    fn create_instead(&mut self, mut object: Value) -> Result<Outcome, Refusal> {
        self.identify(&mut object)?;
        self.refuse_other_name(&object)?;
        metadata::set(&mut object, "resourceVersion", Value::Null);
        self.create(object, Owners::ByUpdate)
    }

    pub(super) fn write(
        &mut self,
        part: Part,
        existing: &Arc<Stored>,
        old: &Value,
        mut new: Value,
        conditional: bool,
        owners: Owners,
    ) -> Result<Outcome, Refusal> {
        self.identify(&mut new)?;
        self.admit(&mut new)?;
        self.refuse_other_name(&new)?;
        self.refuse_stale(existing, &new, conditional)?;
        let said = metadata::take_managed_fields(&mut new);
        let (mut object, causes) = match part {
            Part::Main => self.main_of(old, new),
            Part::Status => (status_of(old, &new), Vec::new()),
        };
        self.count_generation(old, &mut object);
        metadata::set(&mut object, "resourceVersion", json!(existing.revision.to_string()));
        self.record_owners(part, Some(old), &mut object, &said, owners);
        self.validate(&object, Some(old), causes)?;
        self.store_changed(existing, old, object)
    }

    fn store_changed(&mut self, existing: &Arc<Stored>, old: &Value, object: Value) -> Result<Outcome, Refusal> {
        if managed::same_but_for_times(&object, old) {
            return Ok(self.outcome(200, Answer::Object(Arc::clone(existing))));
        }
        if self.options.dry_run {
            return Ok(self.outcome(200, Answer::Imagined(object)));
        }
        let key = self.key(&self.target.name);
        let released = metadata::is_deleting(&object)
            && metadata::finalizers(&object).is_empty()
            && metadata::of(&object)["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
            && self.nature() != Nature::Namespace;
        let object = self.stored(object);
        let changed = if released { self.tx.remove(key, object) } else { self.tx.put(key, object) };
        self.settle();
        Ok(self.outcome(200, Answer::Object(changed)))
    }

    pub(super) fn refuse_other_name(&self, new: &Value) -> Result<(), Refusal> {
        let name = metadata::text(new, "name");
        if name == self.target.name {
            return Ok(());
        }
        Err(Refusal::BadRequest(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            self.target.name
        )))
    }

    /// Refuses a write that was decided on another version, or on another object of the same name.
    fn refuse_stale(&self, existing: &Stored, new: &Value, conditional: bool) -> Result<(), Refusal> {
        let version = metadata::text(new, "resourceVersion");
        if version.is_empty() && conditional {
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            return Err(self.invalid(&self.target.name, vec![cause]));
        }
        let uid = metadata::text(new, "uid");
        if !uid.is_empty() && uid != existing.uid {
            return Err(self.conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                existing.uid
            )));
        }
        if version.is_empty() {
            return Ok(());
        }
        let Ok(version) = version.parse::<u64>() else {
            let cause =
                Cause::invalid("metadata.resourceVersion", &json!(version), "must be a number the server gave out");
            return Err(self.invalid(&self.target.name, vec![cause]));
        };
        if version == existing.revision {
            return Ok(());
        }
        Err(self
            .conflict("the object has been modified; please apply your changes to the latest version and try again"))
    }

    /// The object after a write of its main part, and what the client may not change in it.
    fn main_of(&self, old: &Value, mut new: Value) -> (Value, Vec<Cause>) {
        let causes = metadata::carry_over(old, &mut new);
        if self.view().status {
            copy_field(old, &mut new, "status");
        }
        match self.nature() {
            // Only the server finishes a namespace.
            Nature::Namespace => copy_field(old, &mut new, "spec"),
            Nature::Custom
            | Nature::Secret
            | Nature::Event
            | Nature::Lease
            | Nature::Access(_)
            | Nature::Cluster(_) => {}
        }
        kinds::complete(self.nature(), &mut new);
        (new, causes)
    }

    fn count_generation(&self, old: &Value, new: &mut Value) {
        if !self.nature().has_generation() {
            return;
        }
        let status = self.view().status;
        let counted = |object: &Value| {
            let fields = object.as_object().cloned().unwrap_or_default().into_iter();
            fields.filter(|(name, _)| name != "metadata" && !(status && name == "status")).collect::<Vec<_>>()
        };
        if counted(old) != counted(new) {
            let generation = metadata::of(old)["generation"].as_i64().unwrap_or(0);
            metadata::set(new, "generation", json!(generation + 1));
        }
    }
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    if let Some(fields) = to.as_object_mut() {
        match from.get(field) {
            Some(value) => drop(fields.insert(String::from(field), value.clone())),
            None => drop(fields.remove(field)),
        }
    }
}

/// The old object with the status of the new one.
fn status_of(old: &Value, new: &Value) -> Value {
    let mut object = old.clone();
    copy_field(new, &mut object, "status");
    object
}
