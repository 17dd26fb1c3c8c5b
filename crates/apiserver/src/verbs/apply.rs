//! Server-side apply: an object is merged into the one that stands, or made of it.
//!
//! Holds: an apply is never a mere merge: who owns which field decides, and is written down.

use serde_json::{Value, json};

use super::update::Part;
use super::{Core, Outcome, Owners, Target, WriteOptions, Writing};
use crate::managed::{self, Refused};
use crate::metadata;
use crate::refusal::Refusal;
use crate::store::transaction::Transaction;

/// Applies the object; makes it when there is none. `force` takes what others own.
pub(crate) fn apply(
    core: &Core,
    tx: &mut Transaction<'_>,
    target: Target,
    options: WriteOptions,
    part: Part,
    object: &Value,
    force: bool,
) -> Result<Outcome, Refusal> {
    Writing::new(core, tx, target, options).apply(part, object, force)
}

impl Writing<'_, '_, '_> {
    fn apply(&mut self, part: Part, applied: &Value, force: bool) -> Result<Outcome, Refusal> {
        self.refuse_other_kind(applied)?;
        if !metadata::of(applied)["managedFields"].is_null() {
            return Err(Refusal::BadRequest(String::from("metadata.managedFields must be nil")));
        }
        let existing = self.tx.get(&self.key(&self.target.name));
        let old = existing.as_ref().map(|existing| self.served(existing));
        if old.is_none() && part == Part::Status {
            return Err(self.not_found());
        }
        let standing = old.as_ref().and_then(|old| managed::read(&metadata::of(old)["managedFields"]));
        let result = self.author(part).apply(old.as_ref(), applied, standing.unwrap_or_default(), force);
        let result = result.map_err(|refused| self.not_applied(applied, refused))?;
        let owners = Owners::ByApply(result.entries);
        match existing.zip(old) {
            Some((existing, old)) => self.write(part, &existing, &old, result.object, false, owners),
            None => self.make(result.object, owners),
        }
    }

    /// Makes the object. A resourceVersion does not keep it from being made; a UID means another object.
    fn make(&mut self, mut object: Value, owners: Owners) -> Result<Outcome, Refusal> {
        let uid = metadata::text(&object, "uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(self.conflict(why));
        }
        self.refuse_other_name(&object)?;
        metadata::set(&mut object, "resourceVersion", Value::Null);
        self.create(object, owners)
    }

    fn refuse_other_kind(&self, applied: &Value) -> Result<(), Refusal> {
        let (kind, api_version) = (&self.resource().kind, self.view().api_version());
        if applied["kind"] == json!(kind) && applied["apiVersion"] == api_version {
            return Ok(());
        }
        let text = |field: &str| applied[field].as_str().unwrap_or_default();
        Err(Refusal::BadRequest(format!("invalid object type: {}", named(text("apiVersion"), text("kind")))))
    }

    fn not_applied(&self, applied: &Value, refused: Refused) -> Refusal {
        match refused {
            Refused::Conflicts(causes) => Refusal::ApplyConflict { causes },
            Refused::Unfit(faults) => {
                let (namespace, name) = (metadata::text(applied, "namespace"), metadata::text(applied, "name"));
                let kind = named(&self.view().api_version(), &self.resource().kind);
                Refusal::Unfit(format!("failed to create typed patch object ({namespace}/{name}; {kind}): {faults}"))
            }
        }
    }
}

/// Version and kind as Kubernetes prints them together.
fn named(api_version: &str, kind: &str) -> String {
    let separator = if api_version.contains('/') { "" } else { "/" };
    format!("{separator}{api_version}, Kind={kind}")
}
