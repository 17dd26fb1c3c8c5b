//! What the verbs do to objects: create, update, patch and delete, and what follows from each.
//!
//! Holds: every verb is decided inside one transaction, in order with all others; it either does everything that
//! Kubernetes does or nothing. Objects are handled in the form of the view they are seen through and stored in one form.

mod access;
pub(crate) mod apply;
mod cluster;
pub(crate) mod collect;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod kinds;
pub(crate) mod update;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::depth;
use crate::managed::{self, Author, Entry};
use crate::metadata;
use crate::refusal::{Cause, CauseReason, Refusal};
use crate::registry::{Nature, Registry, Resource, View, ViewId};
use crate::schema::{shape, validate};
use crate::sources::Sources;
use crate::store::transaction::Transaction;
use crate::store::{Key, Stored};
use update::Part;

/// What all writes of one server share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) registry: Arc<Registry>,
    pub(crate) sources: Sources,
    /// How long events are kept.
    pub(crate) event_lifetime: Duration,
    /// When events were last swept, in seconds.
    pub(crate) last_sweep: AtomicI64,
}

/// What a write is answered with.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u16,
    pub(crate) answer: Answer,
    pub(crate) warnings: Vec<String>,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A stored object.
    Object(Arc<Stored>),
    /// An object as it would be stored (dry run).
    Imagined(Value),
    /// Several objects.
    Objects(Vec<Arc<Stored>>),
    /// A ready document.
    Status(Value),
}

/// What to do about fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of a write.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Who writes, as `managedFields` names them; empty when nobody said.
    pub(crate) manager: String,
}

/// Who owns the fields that a write changes.
#[derive(Debug, Clone)]
pub(crate) enum Owners {
    /// The manager that writes, as an update.
    ByUpdate,
    /// These, as server-side apply has decided.
    ByApply(Vec<Entry>),
}

/// What a write is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) view: ViewId,
    /// Empty for cluster scope.
    pub(crate) namespace: String,
    /// Empty for a creation.
    pub(crate) name: String,
}

/// One write in progress.
pub(crate) struct Writing<'c, 't, 's> {
    pub(crate) core: &'c Core,
    pub(crate) tx: &'t mut Transaction<'s>,
    pub(crate) target: Target,
    pub(crate) options: WriteOptions,
    pub(crate) now: Timestamp,
    pub(crate) warnings: Vec<String>,
}

impl<'c, 't, 's> Writing<'c, 't, 's> {
    pub(crate) fn new(core: &'c Core, tx: &'t mut Transaction<'s>, target: Target, options: WriteOptions) -> Self {
        Writing { core, tx, target, options, now: core.sources.now(), warnings: Vec::new() }
    }

    pub(crate) fn view(&self) -> &'c View {
        self.core.registry.view(self.target.view)
    }

    pub(crate) fn resource(&self) -> &'c Resource {
        self.core.registry.resource_of(self.target.view)
    }

    pub(crate) fn nature(&self) -> Nature {
        self.resource().nature
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key { resource: self.view().resource, namespace: self.target.namespace.clone(), name: String::from(name) }
    }

    pub(crate) fn not_found(&self) -> Refusal {
        Refusal::NotFound {
            resource: self.core.registry.group_resource(self.target.view),
            name: self.target.name.clone(),
        }
    }

    pub(crate) fn conflict(&self, why: impl Into<String>) -> Refusal {
        Refusal::Conflict {
            resource: self.core.registry.group_resource(self.target.view),
            name: self.target.name.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn invalid(&self, name: &str, causes: Vec<Cause>) -> Refusal {
        let kind = self.core.registry.group_kind(self.target.view);
        Refusal::Invalid { kind, name: String::from(name), causes }
    }

    /// An object in the form of this view.
    pub(crate) fn served(&self, stored: &Stored) -> Value {
        self.view().to_served(stored.object())
    }

    /// The stored form of an object of this view.
    pub(crate) fn stored(&self, object: Value) -> Value {
        self.view().to_stored(object, self.core.registry.view(self.resource().storage))
    }

    /// Checks what an object says about itself: kind, version, place. Answers its fields to be worked on.
    pub(crate) fn identify(&self, object: &mut Value) -> Result<(), Refusal> {
        let (kind, api_version) = (&self.resource().kind, self.view().api_version());
        let Some(fields) = object.as_object_mut() else {
            return Err(Refusal::BadRequest(format!("the object provided is unrecognized (must be of type {kind})")));
        };
        let said = |fields: &serde_json::Map<String, Value>, field: &str| {
            fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (said_kind, said_version) = (said(fields, "kind"), said(fields, "apiVersion"));
        // A built-in kind is known by its path; a custom one has to say what it is, as on a cluster.
        if self.nature() == Nature::Custom
            && let Some(missing) =
                [("Kind", &said_kind), ("apiVersion", &said_version)].iter().find(|(_, said)| said.is_empty())
        {
            return Err(Refusal::BadRequest(format!(
                "the object provided is unrecognized (must be of type {kind}): Object '{}' is missing",
                missing.0
            )));
        }
        if !said_kind.is_empty() && said_kind != *kind {
            return Err(Refusal::BadRequest(format!(
                "the object provided is unrecognized (must be of type {kind}): found kind {said_kind:?}"
            )));
        }
        if !said_version.is_empty() && said_version != api_version {
            return Err(Refusal::BadRequest(format!(
                "the API version in the data ({said_version}) does not match the expected API version ({api_version})"
            )));
        }
        fields.insert(String::from("kind"), Value::from(kind.as_str()));
        fields.insert(String::from("apiVersion"), Value::from(api_version));
        Ok(())
    }

    /// Brings an object into shape, and refuses or warns about unknown fields as asked.
    pub(crate) fn admit(&mut self, object: &mut Value) -> Result<(), Refusal> {
        depth::check(object)?;
        let mut unknown = match object.as_object_mut().map(metadata::tidy) {
            Some(Ok(unknown)) => unknown,
            Some(Err(why)) => return Err(self.undecodable(&why)),
            None => return Err(self.undecodable("it is no object")),
        };
        unknown.extend(shape::shape(&self.view().schema, object));
        match self.options.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => {
                self.warnings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
            }
            FieldValidation::Strict if unknown.is_empty() => {}
            FieldValidation::Strict => {
                let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
                return Err(self.undecodable(&format!("strict decoding error: {}", texts.join(", "))));
            }
        }
        self.place(object)
    }

    fn undecodable(&self, why: &str) -> Refusal {
        let (kind, version) = (&self.resource().kind, &self.view().version);
        Refusal::BadRequest(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    }

    /// The namespace in the object has to be the one of the request.
    fn place(&self, object: &mut Value) -> Result<(), Refusal> {
        let said = metadata::text(object, "namespace");
        if !said.is_empty() && said != self.target.namespace {
            return Err(Refusal::BadRequest(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({said:?}, {:?})",
                self.target.namespace
            )));
        }
        let namespace = self.target.namespace.as_str();
        metadata::set(object, "namespace", if namespace.is_empty() { Value::Null } else { Value::from(namespace) });
        Ok(())
    }

    /// Checks an object against the rules of metadata, its schema, and its validation rules.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>, mut causes: Vec<Cause>) -> Result<(), Refusal> {
        let view = self.view();
        causes.extend(metadata::faults(self.nature(), object));
        let schema_faults = validate::validate(&view.schema, object, "");
        if self.nature() != Nature::Custom
            && let Some(wrong) = schema_faults.iter().find(|cause| cause.reason == CauseReason::TypeInvalid)
        {
            return Err(self.undecodable(&wrong.to_string()));
        }
        causes.extend(schema_faults);
        causes.extend(kinds::faults(self.nature(), object, old));
        // Rules presuppose types: on a cluster too they are asked only about an object that fits its schema.
        if causes.is_empty()
            && let Some(rules) = &view.rules
        {
            causes.extend(rules.broken(object, old));
        }
        if causes.is_empty() { Ok(()) } else { Err(self.invalid(metadata::text(object, "name"), causes)) }
    }

    /// Who writes, for the question who owns what.
    pub(crate) fn author(&self, part: Part) -> Author<'_> {
        let subresource = match part {
            Part::Main => "",
            Part::Status => "status",
        };
        let (registry, view) = (&*self.core.registry, self.target.view);
        Author { registry, view, manager: &self.options.manager, subresource, now: self.now }
    }

    /// Writes down who owns which field of an object about to be written. `said` is what its client said about that.
    pub(crate) fn record_owners(
        &self,
        part: Part,
        old: Option<&Value>,
        object: &mut Value,
        said: &Value,
        owners: Owners,
    ) {
        let entries = match owners {
            Owners::ByApply(entries) => entries,
            Owners::ByUpdate => {
                let standing = old.map_or(&Value::Null, |old| &metadata::of(old)["managedFields"]);
                // Through a subresource nobody rewrites who owns the rest.
                let said = match part {
                    Part::Main => said,
                    Part::Status => &Value::Null,
                };
                self.author(part).update(old, object, managed::brought(said, standing))
            }
        };
        metadata::set(object, "managedFields", managed::write(entries));
    }

    pub(crate) fn outcome(&mut self, code: u16, answer: Answer) -> Outcome {
        Outcome { code, answer, warnings: std::mem::take(&mut self.warnings) }
    }
}

impl Core {
    /// Whether it is time to look for expired events: at most once a minute.
    pub(crate) fn sweep_is_due(&self, now: Timestamp) -> bool {
        const PAUSE_SECONDS: i64 = 60;
        let last = self.last_sweep.load(Ordering::Relaxed);
        let due = now.as_second().saturating_sub(last) >= PAUSE_SECONDS;
        if due {
            self.last_sweep.store(now.as_second(), Ordering::Relaxed);
        }
        due
    }
}
