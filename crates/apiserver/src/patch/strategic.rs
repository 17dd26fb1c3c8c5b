//! Strategic merge patch, for the built-in kinds.
//!
//! Holds: lists that Kubernetes merges are merged by the value or the field that tells their items apart; every other list
//! is replaced. A directive this module does not know is refused.

use serde_json::{Map, Value};

use crate::refusal::Refusal;

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// The document after the patch.
pub(super) fn apply(document: &Value, patch: &Value) -> Result<Value, Refusal> {
    let mut result = document.clone();
    merge(&mut result, patch)?;
    Ok(result)
}

fn merge(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let Some(fields) = patch.as_object() else {
        *target = without_directives(patch);
        return Ok(());
    };
    match fields.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => *target = Value::Object(Map::new()),
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => return Err(unknown(&format!("$patch: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return Ok(());
    };
    retain_keys(object, fields);
    for (name, value) in fields {
        merge_field(object, name, value)?;
    }
    Ok(())
}

fn unknown(directive: &str) -> Refusal {
    Refusal::BadRequest(format!("unable to apply the strategic merge patch: unknown directive {directive}"))
}

/// Whether a field of this name tells how to merge, and is none of the object.
fn is_directive(name: &str) -> bool {
    name == "$patch" || name == "$retainKeys" || name.starts_with(ORDER) || name.starts_with(DELETE_FROM)
}

/// A value that is taken as a whole, as nothing is there to merge it with.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !is_directive(name));
            Value::Object(kept.map(|(name, value)| (name.clone(), without_directives(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_directives).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn retain_keys(object: &mut Map<String, Value>, fields: &Map<String, Value>) {
    if let Some(keys) = fields.get("$retainKeys").and_then(Value::as_array) {
        object.retain(|name, _| keys.iter().any(|key| key == name));
    }
}

fn merge_field(object: &mut Map<String, Value>, name: &str, value: &Value) -> Result<(), Refusal> {
    if let Some(list) = name.strip_prefix(DELETE_FROM) {
        let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(items) = object.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| !gone.contains(item));
        }
        return Ok(());
    }
    if is_directive(name) {
        return Ok(());
    }
    if name.starts_with('$') {
        return Err(unknown(name));
    }
    if value.is_null() {
        object.remove(name);
        return Ok(());
    }
    let place = object.entry(name).or_insert(Value::Null);
    match (name, value.as_array()) {
        ("finalizers", Some(items)) => merge_list(place, items, |item| Some(item)),
        ("ownerReferences", Some(items)) => merge_list(place, items, |item| item.get("uid")),
        ("conditions" | "addresses", Some(items)) => merge_list(place, items, |item| item.get("type")),
        ("containers" | "initContainers" | "volumes" | "env" | "secrets" | "imagePullSecrets", Some(items)) => {
            merge_list(place, items, |item| item.get("name"))
        }
        ("taints", Some(items)) => merge_list(place, items, |item| item.get("key")),
        ("volumeMounts", Some(items)) => merge_list(place, items, |item| item.get("mountPath")),
        ("podIPs", Some(items)) => merge_list(place, items, |item| item.get("ip")),
        (_, _) => merge(place, value),
    }
}

/// Merges items by their identity, adding those that are new.
fn merge_list(place: &mut Value, patch: &[Value], identity: fn(&Value) -> Option<&Value>) -> Result<(), Refusal> {
    let mut items = place.as_array().cloned().unwrap_or_default();
    for item in patch {
        let found = items.iter().position(|other| identity(other) == identity(item));
        let delete = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match found {
            Some(at) if delete => drop(items.remove(at)),
            Some(at) => {
                if let Some(existing) = items.get_mut(at) {
                    merge(existing, item)?;
                }
            }
            None if delete => {}
            None => items.push(without_directives(item)),
        }
    }
    *place = Value::Array(items);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_as_kubernetes_does_for_built_in_kinds() {
        let document = json!({"metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1", "name": "x"}]},
                              "data": {"k": "v", "l": "w"}});
        let cases = [
            (json!({"data": {"k": null}}), "/data", json!({"l": "w"})),
            (json!({"data": {"$patch": "replace", "n": "1"}}), "/data", json!({"n": "1"})),
            (json!({"metadata": {"finalizers": ["c"]}}), "/metadata/finalizers", json!(["a", "b", "c"])),
            (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), "/metadata/finalizers", json!(["b"])),
            (
                json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "y"}, {"uid": "2"}]}}),
                "/metadata/ownerReferences",
                json!([{"uid": "1", "name": "y"}, {"uid": "2"}]),
            ),
            // What is new is taken without what says how to merge it.
            (
                json!({"metadata": {"ownerReferences": [{"uid": "2", "$patch": "merge", "x": [{"$patch": "delete", "y": 1}]}]}}),
                "/metadata/ownerReferences/1",
                json!({"uid": "2", "x": [{"y": 1}]}),
            ),
            (
                json!({"metadata": {"ownerReferences": [{"uid": "1", "$patch": "delete"}]}}),
                "/metadata/ownerReferences",
                json!([]),
            ),
        ];
        for (patch, pointer, expected) in cases {
            let result = apply(&document, &patch).expect("applies");
            assert_eq!(result.pointer(pointer), Some(&expected), "{patch}");
        }
        assert!(apply(&document, &json!({"$odd": 1})).is_err());
    }
}
