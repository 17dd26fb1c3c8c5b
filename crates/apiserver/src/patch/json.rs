//! JSON patch (RFC 6902), with Kubernetes' reading of `test` on an absent path: absent equals null.
//!
//! Holds: an operation that does not apply refuses the whole patch.

use serde::Deserialize;
use serde_json::Value;

use crate::depth;
use crate::refusal::Refusal;

/// Most operations of one patch, as on a cluster.
const MOST_OPERATIONS: usize = 10_000;

/// Most bytes that all copies of one patch add, as on a cluster: each copy may double what is there.
pub(crate) const MOST_COPIED: usize = 3 * 1024 * 1024;

/// One operation.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(crate) enum Operation {
    Add {
        path: String,
        value: Value,
    },
    Remove {
        path: String,
    },
    Replace {
        path: String,
        value: Value,
    },
    Move {
        from: String,
        path: String,
    },
    Copy {
        from: String,
        path: String,
    },
    Test {
        path: String,
        #[serde(default)]
        value: Value,
    },
}

/// Parses a patch document.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Operation>, Refusal> {
    let parsed: Result<Vec<Operation>, _> = serde_json::from_slice(body);
    let operations = parsed.map_err(|error| Refusal::BadRequest(format!("error decoding patch: {error}")))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(Refusal::TooLarge { limit: MOST_OPERATIONS });
    }
    Ok(operations)
}

/// The document after all operations.
pub(super) fn apply(document: &Value, operations: &[Operation]) -> Result<Value, Refusal> {
    let (mut result, mut copied) = (document.clone(), 0);
    for operation in operations {
        perform(&mut result, operation, &mut copied).map_err(|why| Refusal::PatchRejected { why })?;
    }
    Ok(result)
}

fn perform(document: &mut Value, operation: &Operation, copied: &mut usize) -> Result<(), String> {
    match operation {
        Operation::Add { path, value } => add(document, path, value.clone()),
        Operation::Remove { path } => remove(document, path).map(drop),
        Operation::Replace { path, value } => match find_mut(document, path) {
            Some(found) => {
                refuse_depth(path, value)?;
                *found = value.clone();
                Ok(())
            }
            None => Err(format!("replace operation does not apply: doc is missing key: {path}: missing value")),
        },
        Operation::Move { from, path } => {
            if path.starts_with(&format!("{from}/")) {
                return Err(format!("move operation does not apply: {path} lies inside {from}"));
            }
            let value = remove(document, from)?;
            add(document, path, value)
        }
        Operation::Copy { from, path } => {
            let missing = || format!("copy operation does not apply: missing value at {from}");
            let value = find(document, from).ok_or_else(missing)?;
            *copied += value.to_string().len();
            if *copied > MOST_COPIED {
                return Err(format!("the copies of this patch are larger than {MOST_COPIED} bytes together"));
            }
            let value = value.clone();
            add(document, path, value)
        }
        Operation::Test { path, value } => {
            if find(document, path).unwrap_or(&Value::Null) == value {
                Ok(())
            } else {
                Err(format!("testing path {path} failed: test failed"))
            }
        }
    }
}

/// The steps of a JSON pointer; none for a text that is no pointer.
fn steps(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let rest = pointer.strip_prefix('/')?;
    Some(rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(document: &'a Value, pointer: &str) -> Option<&'a Value> {
    steps(pointer)?.iter().try_fold(document, |value, step| match value.as_array() {
        Some(items) => items.get(index(step, items.len())?),
        None => value.get(step),
    })
}

fn find_mut<'a>(document: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    descend(document, &steps(pointer)?)
}

fn descend<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(document, |value, step| match value {
        Value::Array(items) => {
            let place = index(step, items.len())?;
            items.get_mut(place)
        }
        Value::Object(fields) => fields.get_mut(step),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// The place that a step names in an array of that length.
fn index(step: &str, length: usize) -> Option<usize> {
    let canonical = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|place| canonical && *place < length)
}

fn split(pointer: &str) -> Result<(Vec<String>, String), String> {
    let mut path = steps(pointer).ok_or_else(|| format!("{pointer:?} is not a JSON pointer"))?;
    let last = path.pop().ok_or_else(|| String::from("the whole document cannot be replaced or removed"))?;
    Ok((path, last))
}

/// Refuses a value that makes the document deeper than any that is stored. What walks documents is recursive.
fn refuse_depth(pointer: &str, value: &Value) -> Result<(), String> {
    let levels = pointer.split('/').count().saturating_sub(1) + depth::of(value);
    if levels <= depth::MOST_WITH_OWNERS { Ok(()) } else { Err(format!("{pointer:.80}: nested too deep")) }
}

fn add(document: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    refuse_depth(pointer, &value)?;
    let missing = || format!("add operation does not apply: doc is missing path: {pointer:?}: missing value");
    let (path, last) = split(pointer)?;
    let parent = descend(document, &path).ok_or_else(missing)?;
    if let Some(items) = parent.as_array_mut() {
        // One past the end is a place for an addition.
        let place = if last == "-" { Some(items.len()) } else { index(&last, items.len() + 1) };
        items.insert(place.ok_or_else(|| format!("{pointer}: the index is out of bounds"))?, value);
        return Ok(());
    }
    parent.as_object_mut().ok_or_else(missing)?.insert(last, value);
    Ok(())
}

fn remove(document: &mut Value, pointer: &str) -> Result<Value, String> {
    let missing = || format!("remove operation does not apply: doc is missing path: {pointer:?}: missing value");
    let (path, last) = split(pointer)?;
    let parent = descend(document, &path).ok_or_else(missing)?;
    if let Some(items) = parent.as_array_mut() {
        let place = index(&last, items.len()).ok_or_else(missing)?;
        return Ok(items.remove(place));
    }
    parent.as_object_mut().and_then(|fields| fields.remove(&last)).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(document: Value, patch: Value, expected: Option<Value>) {
        let operations = parse(patch.to_string().as_bytes()).expect("the patch parses");
        assert_eq!(apply(&document, &operations).ok(), expected, "{patch} on {document}");
    }

    #[test]
    fn operations() {
        let document = json!({"a": {"b": [1, 2]}, "x/y": 1});
        check(
            document.clone(),
            json!([{"op": "add", "path": "/a/c", "value": 3}]),
            Some(json!({"a": {"b": [1, 2], "c": 3}, "x/y": 1})),
        );
        check(
            document.clone(),
            json!([{"op": "add", "path": "/a/b/-", "value": 3}]),
            Some(json!({"a": {"b": [1, 2, 3]}, "x/y": 1})),
        );
        check(
            document.clone(),
            json!([{"op": "add", "path": "/a/b/0", "value": 3}]),
            Some(json!({"a": {"b": [3, 1, 2]}, "x/y": 1})),
        );
        check(document.clone(), json!([{"op": "add", "path": "/a/b/9", "value": 3}]), None);
        check(document.clone(), json!([{"op": "add", "path": "/q/r", "value": 3}]), None);
        check(document.clone(), json!([{"op": "remove", "path": "/x~1y"}]), Some(json!({"a": {"b": [1, 2]}})));
        check(document.clone(), json!([{"op": "remove", "path": "/q"}]), None);
        check(
            document.clone(),
            json!([{"op": "replace", "path": "/a/b/1", "value": 9}]),
            Some(json!({"a": {"b": [1, 9]}, "x/y": 1})),
        );
        check(document.clone(), json!([{"op": "replace", "path": "/q", "value": 9}]), None);
        check(
            document.clone(),
            json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
            Some(json!({"a": {}, "c": [1, 2], "x/y": 1})),
        );
        check(document.clone(), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), None);
        check(
            document.clone(),
            json!([{"op": "copy", "from": "/a/b/0", "path": "/c"}]),
            Some(json!({"a": {"b": [1, 2]}, "c": 1, "x/y": 1})),
        );
        check(document.clone(), json!([{"op": "test", "path": "/a/b/0", "value": 1}]), Some(document.clone()));
        check(document.clone(), json!([{"op": "test", "path": "/a/b/0", "value": 2}]), None);
        check(document, json!([{"op": "remove", "path": ""}]), None);
    }

    #[test]
    fn an_absent_path_tests_equal_to_null() {
        let document = json!({"metadata": {}});
        check(
            document.clone(),
            json!([{"op": "test", "path": "/metadata/finalizers", "value": null}]),
            Some(document.clone()),
        );
        check(document.clone(), json!([{"op": "test", "path": "/metadata/finalizers", "value": []}]), None);
    }

    #[test]
    fn a_failed_operation_leaves_the_document_as_it_was() {
        let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "test", "path": "/a", "value": 2}]);
        check(json!({}), patch, None);
    }

    #[test]
    fn copies_neither_fill_the_memory_nor_nest_without_end() {
        let document = json!({"a": [1], "b": {"c": {}}});
        let wide = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 100];
        check(document.clone(), Value::Array(wide), None);
        let deep = vec![json!({"op": "copy", "from": "/b", "path": "/b/c"}); 8];
        check(document.clone(), Value::Array(deep), None);
        let deeper =
            (0..200).map(|level| json!({"op": "add", "path": format!("/b/c{}", "/c".repeat(level)), "value": {}}));
        check(document.clone(), deeper.collect(), None);
        check(
            document,
            json!([{"op": "replace", "path": "/b", "value": (0..120).fold(json!(1), |inner, _| json!([inner]))}]),
            None,
        );
    }

    #[test]
    fn what_is_no_patch_is_refused() {
        for body in ["{}", "[{\"op\": \"odd\", \"path\": \"/a\"}]", "[{\"op\": \"add\"}]", "nothing"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
