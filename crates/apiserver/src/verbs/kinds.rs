//! What the built-in kinds do beyond their schemas.
//!
//! Holds: nothing here applies to a custom resource.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{access, cluster};
use crate::metadata;
use crate::refusal::Cause;
use crate::registry::Nature;

/// Most bytes of a Secret's values together.
const SECRET_BYTES: u64 = 1024 * 1024;

/// The label with a namespace's own name, by which selectors find it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Completes a new object.
pub(crate) fn complete_new(nature: Nature, object: &mut Value) {
    match nature {
        Nature::Namespace => {
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            object["status"] = json!({"phase": "Active"});
        }
        Nature::Cluster(kind) => cluster::complete_new(kind, object),
        Nature::Custom | Nature::Secret | Nature::Event | Nature::Lease | Nature::Access(_) => {}
    }
}

/// Completes an object about to be written, new or changed.
pub(crate) fn complete(nature: Nature, object: &mut Value) {
    match nature {
        Nature::Namespace => label_with_name(object),
        Nature::Secret => merge_string_data(object),
        Nature::Access(kind) => access::complete(kind, object),
        Nature::Custom | Nature::Event | Nature::Lease | Nature::Cluster(_) => {}
    }
}

fn label_with_name(object: &mut Value) {
    let name = metadata::text(object, "name").to_owned();
    let mut labels = metadata::of(object)["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[NAME_LABEL] = json!(name);
    metadata::set(object, "labels", labels);
}

/// `stringData` is for writing only: it ends up in `data`, encoded.
fn merge_string_data(object: &mut Value) {
    let Some(texts) = object.as_object_mut().and_then(|fields| fields.remove("stringData")) else {
        return;
    };
    let Some(texts) = texts.as_object() else {
        return;
    };
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    for (key, text) in texts {
        object["data"][key] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
    }
}

/// What is wrong beyond schema and metadata.
pub(crate) fn faults(nature: Nature, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match nature {
        Nature::Secret => secret_faults(object, old),
        Nature::Event => event_faults(object),
        Nature::Access(kind) => access::faults(kind, object, old),
        Nature::Cluster(kind) => cluster::faults(kind, object, old),
        Nature::Custom | Nature::Namespace | Nature::Lease => Vec::new(),
    }
}

pub(super) fn secret_faults(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let values = object["data"].as_object().into_iter().flatten();
    let mut bytes = 0_u64;
    for (key, value) in values {
        bytes += u64::try_from(value.as_str().unwrap_or_default().len() / 4 * 3).unwrap_or(u64::MAX);
        let good =
            key.len() <= 253 && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !good || key.is_empty() || key == "." || key == ".." {
            let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
            causes.push(Cause::invalid(format!("data[{key}]"), &json!(key), detail));
        }
    }
    if bytes > SECRET_BYTES {
        causes.push(Cause::too_long("data", SECRET_BYTES));
    }
    if let Some(old) = old {
        if old["type"] != object["type"] {
            causes.push(Cause::invalid("type", &object["type"], "field is immutable"));
        }
        for field in ["immutable", "data"] {
            if old["immutable"] == true && old[field] != object[field] {
                causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    causes
}

/// An event stands in the namespace of what it is about; about cluster-scoped things it stands in `default`.
fn event_faults(object: &Value) -> Vec<Cause> {
    let about = if object["involvedObject"].is_null() { "regarding" } else { "involvedObject" };
    let namespace = object[about]["namespace"].as_str().unwrap_or_default();
    let place = metadata::text(object, "namespace");
    let fits = if namespace.is_empty() { matches!(place, "default" | "kube-system") } else { namespace == place };
    if fits {
        return Vec::new();
    }
    let detail = "does not match event.namespace";
    vec![Cause::invalid(format!("{about}.namespace"), &json!(namespace), detail)]
}

/// When an event last happened.
pub(crate) fn last_seen(event: &Value) -> Option<Timestamp> {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    times.into_iter().filter_map(|time| time.as_str()?.parse::<Timestamp>().ok()).max()
}
