//! Merging an applied object into the one that stands, and taking fields out of one.
//!
//! Holds: merging what is there already changes nothing; the order of a list stays, as far as the applied one has no other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::fields::{FieldSet, Step};
use super::topology::{Node, Shape};

/// The live value with the applied one merged into it.
pub(crate) fn merge(node: Node<'_>, live: &Value, applied: &Value) -> Value {
    match (node.shape(applied), live, applied) {
        (Shape::Fields, Value::Object(before), Value::Object(fields)) => {
            let mut result = before.clone();
            for (name, value) in fields {
                let merged =
                    before.get(name).map_or_else(|| value.clone(), |live| merge(node.field(name), live, value));
                result.insert(name.clone(), merged);
            }
            Value::Object(result)
        }
        (shape @ (Shape::Set | Shape::Keyed(_)), Value::Array(before), Value::Array(items)) => {
            Value::Array(merge_items(node, shape, before, items))
        }
        // Null for something with parts says nothing about the parts.
        (Shape::Leaf, Value::Object(_) | Value::Array(_), Value::Null) if node.shape(live) != Shape::Leaf => {
            live.clone()
        }
        (Shape::Leaf | Shape::Fields | Shape::Set | Shape::Keyed(_), _, _) => applied.clone(),
    }
}

/// Both lists in one. Items of both stand in the order of the applied list, items of one side next to the neighbours they
/// had there.
fn merge_items(node: Node<'_>, shape: Shape<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let known = |items: &[Value]| -> VecDeque<(Step, Value)> {
        items.iter().filter_map(|item| Some((node.step(shape, item).ok()?, item.clone()))).collect()
    };
    let (mut left, mut right) = (known(live), known(applied));
    let wanted: BTreeSet<Step> = right.iter().map(|(step, _)| step.clone()).collect();
    let mut first: BTreeMap<Step, Value> = BTreeMap::new();
    for (step, item) in &left {
        first.entry(step.clone()).or_insert_with(|| item.clone());
    }
    let mut shared: VecDeque<Step> =
        right.iter().map(|(step, _)| step.clone()).filter(|step| first.contains_key(step)).collect();
    let mut result = Vec::new();
    while let Some(head) = left.front().or_else(|| right.front()).map(|(step, _)| step.clone()) {
        let from_left = !left.is_empty();
        if from_left && !wanted.contains(&head) {
            result.extend(left.pop_front().map(|(_, item)| item));
            continue;
        }
        // An item of both: it stands where the applied list has it, after what comes before it there.
        if from_left && shared.front() != Some(&head) {
            left.pop_front();
            continue;
        }
        let Some((step, item)) = right.pop_front() else {
            break;
        };
        result.push(first.get(&step).map_or_else(|| item.clone(), |live| merge(node.item(), live, &item)));
        if shared.front() == Some(&step) {
            shared.pop_front();
        }
        if left.front().is_some_and(|(head, _)| *head == step) {
            left.pop_front();
        }
    }
    result
}

/// The value without the fields of the set. Null when nothing is left of something that had parts.
pub(crate) fn remove(node: Node<'_>, value: &Value, gone: &FieldSet) -> Value {
    match (node.shape(value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            let kept = fields.iter().filter_map(|(name, child)| {
                let step = Step::Field(name.clone());
                Some((name.clone(), remove_at(node.field(name), child, gone, &step)?))
            });
            let kept: Map<String, Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (shape @ (Shape::Set | Shape::Keyed(_)), Value::Array(items)) => {
            let kept = items.iter().filter_map(|item| match node.step(shape, item) {
                Ok(step) => remove_at(node.item(), item, gone, &step),
                Err(_) => Some(item.clone()),
            });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Shape::Leaf | Shape::Fields | Shape::Set | Shape::Keyed(_), _) => value.clone(),
    }
}

fn remove_at(node: Node<'_>, value: &Value, gone: &FieldSet, step: &Step) -> Option<Value> {
    if gone.has(step) {
        return None;
    }
    Some(gone.below(step).map_or_else(|| value.clone(), |below| remove(node, value, below)))
}

#[cfg(test)]
mod tests {
    use super::super::compare::field_set;
    use super::super::compare::tests::schema;
    use super::*;
    use serde_json::json;

    #[test]
    fn applied_fields_are_merged() {
        let schema = schema();
        let check = |live: Value, applied: Value, expected: Value| {
            let merged = merge(Node::Typed(&schema), &live, &applied);
            assert_eq!(merged, expected, "{applied} into {live}");
            assert_eq!(merge(Node::Typed(&schema), &merged, &applied), merged, "twice changes nothing");
        };
        check(json!({"a": "x", "b": 1}), json!({"a": "y"}), json!({"a": "y", "b": 1}));
        check(json!({"struct": {"x": "1"}}), json!({"struct": {"y": "2"}}), json!({"struct": {"x": "1", "y": "2"}}));
        check(json!({"struct": {"x": "1"}}), json!({"struct": null}), json!({"struct": {"x": "1"}}));
        check(json!({"whole": {"k": "v"}}), json!({"whole": {"l": "w"}}), json!({"whole": {"l": "w"}}));
        check(json!({"plain": ["x"]}), json!({"plain": ["y"]}), json!({"plain": ["y"]}));
        check(json!({"a": "x"}), json!({"a": null}), json!({"a": null}));
        check(
            json!({"list": [{"name": "p", "n": 1}]}),
            json!({"list": [{"name": "q"}, {"name": "p", "more": {"x": "1"}}]}),
            json!({"list": [{"name": "q"}, {"name": "p", "n": 1, "more": {"x": "1"}}]}),
        );
    }

    #[test]
    fn lists_keep_their_order() {
        let schema = schema();
        let check = |live: &[&str], applied: &[&str], expected: &[&str]| {
            let merged = merge(Node::Typed(&schema), &json!({"set": live}), &json!({"set": applied}));
            assert_eq!(merged, json!({"set": expected}), "{applied:?} into {live:?}");
        };
        check(&["a", "b"], &["c"], &["a", "b", "c"]);
        check(&["a", "b"], &["b", "a"], &["b", "a"]);
        check(&["a", "b", "c"], &["a", "x", "c"], &["a", "b", "x", "c"]);
        check(&["a", "b", "c"], &["c", "b", "a"], &["c", "b", "a"]);
        check(&["x", "a", "y", "b"], &["b", "z", "a"], &["x", "y", "b", "z", "a"]);
        check(&["a"], &["c", "a"], &["c", "a"]);
        check(&[], &["b", "a"], &["b", "a"]);
        check(&["a"], &[], &["a"]);
    }

    #[test]
    fn fields_are_taken_out() {
        let schema = schema();
        let node = Node::Typed(&schema);
        let check = |object: Value, gone: Value, expected: Value| {
            assert_eq!(remove(node, &object, &field_set(node, &gone)), expected, "{gone} out of {object}");
        };
        check(json!({"a": "x", "b": 1}), json!({"a": "x"}), json!({"b": 1}));
        check(json!({"a": "x"}), json!({"a": "x"}), Value::Null);
        check(
            json!({"a": "x", "deep": {"k": {"x": "y"}}}),
            json!({"deep": {"k": {"x": "y"}}}),
            json!({"a": "x", "deep": null}),
        );
        check(json!({"a": "x", "map": {"k": "v"}}), json!({"map": {"k": "v"}}), json!({"a": "x", "map": null}));
        check(json!({"a": "x", "set": ["p", "q"]}), json!({"set": ["p"]}), json!({"a": "x", "set": ["q"]}));
        check(
            json!({"list": [{"name": "p"}, {"name": "q", "n": 1}]}),
            json!({"list": [{"name": "p"}]}),
            json!({"list": [{"name": "q", "n": 1}]}),
        );
    }
}
