//! The rules of `metadata`: what a client may say, what only the server says, and what never changes.
//!
//! Holds: all fields of metadata have the right type after [`tidy`]; empty lists, maps and texts are left out, as
//! Kubernetes leaves them out.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::access::attributes::is_segment;
use crate::names;
use crate::refusal::Cause;
use crate::registry::{AccessKind, Nature};
use crate::schema::{Schema, shape, validate};

/// Most bytes of all annotations of one object together.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// The finalizer that keeps an owner until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let (text, time) = (json!({"type": "string"}), json!({"type": "string", "format": "date-time"}));
    let texts = json!({"type": "object", "additionalProperties": text});
    let owner = json!({"type": "object", "properties": {
        "apiVersion": text, "kind": text, "name": text, "uid": text,
        "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"}}});
    let document = json!({"type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "uid": text, "resourceVersion": text, "selfLink": text,
        "generation": {"type": "integer"}, "deletionGracePeriodSeconds": {"type": "integer"},
        "creationTimestamp": time, "deletionTimestamp": time,
        "labels": texts, "annotations": texts,
        "finalizers": {"type": "array", "items": text},
        "ownerReferences": {"type": "array", "items": owner},
        "managedFields": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}});
    // The document is a constant, and the tests of this module use it.
    Schema::parse(&document).unwrap_or_else(|_| Schema::anything())
});

/// The metadata of an object, which is there after [`tidy`].
pub(crate) fn of(object: &Value) -> &Value {
    &object["metadata"]
}

/// A text of the metadata, empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    of(object)[field].as_str().unwrap_or_default()
}

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    of(object)["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// Sets a field of the metadata; null removes it.
pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if value.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(String::from(field), value);
        }
    }
}

/// Takes the managers out of the metadata; null when there are none.
pub(crate) fn take_managed_fields(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|fields| fields.remove("managedFields")).unwrap_or_default()
}

/// Brings metadata into shape. Answers the unknown fields that were dropped, or what has the wrong type.
pub(crate) fn tidy(object: &mut Map<String, Value>) -> Result<Vec<String>, String> {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let unknown = shape::shape(&SCHEMA, metadata);
    if let Some(cause) = validate::validate(&SCHEMA, metadata, "metadata").first() {
        return Err(cause.to_string());
    }
    if let Some(fields) = metadata.as_object_mut() {
        fields.remove("selfLink");
        // An empty list of managers is a request to forget them.
        fields.retain(|name, value| name == "managedFields" || !is_empty(value));
    }
    Ok(unknown.into_iter().map(|path| format!("metadata.{path}")).collect())
}

fn is_empty(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(Map::is_empty)
}

/// The faults of the metadata of a new or changed object.
pub(crate) fn faults(nature: Nature, object: &Value) -> Vec<Cause> {
    let metadata = of(object);
    let mut causes = Vec::new();
    name_faults(nature, metadata, &mut causes);
    label_faults(&metadata["labels"], &mut causes);
    annotation_faults(&metadata["annotations"], &mut causes);
    finalizer_faults(metadata, &mut causes);
    owner_faults(metadata, &mut causes);
    causes
}

fn name_faults(nature: Nature, metadata: &Value, causes: &mut Vec<Cause>) {
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
        return;
    }
    let rule = match nature {
        Nature::Namespace => names::label,
        // Names of roles hold colons: they are segments of a path and nothing more.
        Nature::Access(
            AccessKind::Role | AccessKind::ClusterRole | AccessKind::RoleBinding | AccessKind::ClusterRoleBinding,
        ) => segment,
        Nature::Custom
        | Nature::Secret
        | Nature::Event
        | Nature::Lease
        | Nature::Access(AccessKind::ServiceAccount)
        | Nature::Cluster(_) => names::subdomain,
    };
    if let Err(why) = rule(name) {
        causes.push(Cause::invalid("metadata.name", &metadata["name"], &why));
    }
}

fn segment(name: &str) -> Result<(), String> {
    if is_segment(name) {
        return Ok(());
    }
    Err(String::from("may not be '.' or '..' and may not contain '/', '%' or control characters"))
}

fn label_faults(labels: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if let Err(why) = names::qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), &why));
        }
        if let Err(why) = names::label_value(value.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid("metadata.labels", value, &why));
        }
    }
}

fn annotation_faults(annotations: &Value, causes: &mut Vec<Cause>) {
    let Some(annotations) = annotations.as_object() else {
        return;
    };
    for key in annotations.keys() {
        if let Err(why) = names::qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), &why));
        }
    }
    if !annotations_fit(annotations) {
        causes.push(Cause::too_long("metadata.annotations", u64::try_from(ANNOTATION_BYTES).unwrap_or(u64::MAX)));
    }
}

/// Whether annotations are together no larger than they may be.
pub(crate) fn annotations_fit(annotations: &Map<String, Value>) -> bool {
    let bytes = |(key, value): (&String, &Value)| key.len() + value.as_str().unwrap_or_default().len();
    annotations.iter().map(bytes).sum::<usize>() <= ANNOTATION_BYTES
}

fn finalizer_faults(metadata: &Value, causes: &mut Vec<Cause>) {
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        if let Err(why) = names::qualified(finalizer.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid("metadata.finalizers", finalizer, &why));
        }
    }
}

fn owner_faults(metadata: &Value, causes: &mut Vec<Cause>) {
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let at = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::invalid(at, &json!(""), &format!("{field} must not be empty")));
            }
        }
    }
    if owners.iter().filter(|owner| owner["controller"] == true).count() > 1 {
        let detail = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &metadata["ownerReferences"], detail));
    }
}

/// Fields that a client leaves out or repeats, and that never change.
const IMMUTABLE: [&str; 5] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Carries over what the server owns from the old object, and answers what the client tried to change all the same.
pub(crate) fn carry_over(old: &Value, new: &mut Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in IMMUTABLE {
        let (before, after) = (of(old)[field].clone(), of(new)[field].clone());
        // A client that sends another generation or creation time means nothing by it: they are the server's.
        if !after.is_null() && after != before && !matches!(field, "generation" | "creationTimestamp") {
            causes.push(Cause::invalid(format!("metadata.{field}"), &after, "field is immutable"));
        }
        set(new, field, before);
    }
    set(new, "generateName", of(old)["generateName"].clone());
    causes.extend(new_finalizers(old, new));
    causes
}

/// An object that is being deleted takes no new finalizers.
fn new_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    if !is_deleting(old) {
        return None;
    }
    let before = finalizers(old);
    let added: Vec<&str> = finalizers(new).into_iter().filter(|name| !before.contains(name)).collect();
    if added.is_empty() {
        return None;
    }
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    );
    Some(Cause::forbidden("metadata.finalizers", &detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_brought_into_shape() {
        let mut object = json!({"metadata": {"name": "a", "labels": {}, "creationTimestamp": null, "odd": 1,
                                             "managedFields": []}});
        let unknown = tidy(object.as_object_mut().expect("an object")).expect("tidy");
        assert_eq!(unknown, ["metadata.odd"]);
        assert_eq!(take_managed_fields(&mut object), json!([]), "an empty list says something");
        assert_eq!(take_managed_fields(&mut object), Value::Null);
        assert_eq!(object, json!({"metadata": {"name": "a"}}));
        let mut wrong = json!({"metadata": {"labels": {"a": 1}}});
        assert!(tidy(wrong.as_object_mut().expect("an object")).is_err());
    }

    #[test]
    fn faults_name_their_field() {
        let cases = [
            (json!({"name": "A"}), "metadata.name"),
            (json!({}), "metadata.name"),
            (json!({"name": "a", "labels": {"-": "x"}}), "metadata.labels"),
            (json!({"name": "a", "labels": {"x": "-"}}), "metadata.labels"),
            (json!({"name": "a", "annotations": {"a b": "x"}}), "metadata.annotations"),
            (json!({"name": "a", "finalizers": ["a b"]}), "metadata.finalizers"),
            (json!({"name": "a", "ownerReferences": [{"kind": "X"}]}), "metadata.ownerReferences[0].apiVersion"),
        ];
        for (metadata, field) in cases {
            let causes = faults(Nature::Custom, &json!({"metadata": metadata}));
            assert_eq!(causes.first().map(|cause| cause.field.as_str()), Some(field), "{metadata}");
        }
        let good = json!({"metadata": {"name": "a.b", "labels": {"x.y/z": ""}, "annotations": {"Any/Case": "{}"}}});
        assert!(faults(Nature::Custom, &good).is_empty());
        assert_eq!(faults(Nature::Namespace, &good).len(), 1, "a namespace's name has no dots");
    }
}
