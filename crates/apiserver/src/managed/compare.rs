//! From objects to sets of fields: which fields there are, and which of them differ between two objects.
//!
//! Holds: nothing below a value that is owned as a whole is ever in a set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::fields::{Branch, FieldSet, Step};
use super::topology::{Node, Shape};

/// The fields that an applied object says something about.
pub(crate) fn field_set(node: Node<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(node, value, &mut Vec::new(), &mut set);
    set
}

fn collect(node: Node<'_>, value: &Value, path: &mut Vec<Step>, set: &mut FieldSet) {
    match (node.shape(value), value) {
        (Shape::Fields, Value::Object(fields)) => {
            for (name, child) in fields {
                let (below, declared) = node.declared(name).unwrap_or((Node::Free, false));
                path.push(Step::Field(name.clone()));
                collect(below, child, path, set);
                // A map's key is a field of its own beside what is below it; a declared field is not.
                if !declared || child.as_object().is_some_and(Map::is_empty) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (shape @ (Shape::Set | Shape::Keyed(_)), Value::Array(items)) => {
            for (step, items) in by_step(node, shape, items) {
                path.push(step);
                // What stands there twice is owned as a whole: there is no saying which is whose.
                if let [only] = items.as_slice() {
                    collect(node.item(), only, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        (Shape::Leaf | Shape::Fields | Shape::Set | Shape::Keyed(_), _) => set.insert(path),
    }
}

/// The items of a list by what tells them apart. An item that nothing tells apart is left out.
fn by_step<'v>(node: Node<'_>, shape: Shape<'_>, items: &'v [Value]) -> BTreeMap<Step, Vec<&'v Value>> {
    let mut found: BTreeMap<Step, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(step) = node.step(shape, item) {
            found.entry(step).or_default().push(item);
        }
    }
    found
}

/// How one object differs from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Fields that are new, or have another value.
    pub(crate) changed: FieldSet,
    /// Fields that are gone.
    pub(crate) removed: FieldSet,
}

/// How `new` differs from `old`.
pub(crate) fn compare(node: Node<'_>, old: &Value, new: &Value) -> Diff {
    let mut comparing = Comparing::default();
    comparing.values(node, Some(old), Some(new));
    comparing.diff
}

#[derive(Default)]
struct Comparing {
    diff: Diff,
    path: Vec<Step>,
}

impl Comparing {
    fn values(&mut self, node: Node<'_>, old: Option<&Value>, new: Option<&Value>) {
        // Null has no shape of its own: it is an empty form of whatever stands on the other side.
        let shape = |value: Option<&Value>| value.filter(|value| !value.is_null()).map(|value| node.shape(value));
        match (shape(old), shape(new)) {
            (Some(before), Some(after)) if before != after => {
                self.shaped(node, before, old, None);
                self.shaped(node, after, None, new);
                if before == Shape::Leaf || after == Shape::Leaf {
                    self.diff.changed.insert(&self.path);
                }
            }
            (Some(shape), _) | (None, Some(shape)) => self.whole(node, shape, old, new),
            (None, None) => self.whole(node, Shape::Leaf, old, new),
        }
    }

    /// A value together with what is below it: a part that comes or goes does so itself, too.
    fn whole(&mut self, node: Node<'_>, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) {
        self.shaped(node, shape, old, new);
        if shape == Shape::Leaf || (is_void(old) && is_void(new)) {
            if old != new {
                self.differs(old, new);
            }
        } else if old.is_none() || new.is_none() {
            self.differs(old, new);
        }
    }

    fn differs(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(_), None) => self.diff.removed.insert(&self.path),
            (_, Some(_)) => self.diff.changed.insert(&self.path),
            (None, None) => {}
        }
    }

    /// What is below a value.
    fn shaped(&mut self, node: Node<'_>, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) {
        match shape {
            Shape::Leaf => {}
            Shape::Fields => {
                let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
                let names: BTreeSet<&String> = old.into_iter().chain(new).flat_map(Map::keys).collect();
                for name in names {
                    self.path.push(Step::Field(name.clone()));
                    let (before, after) =
                        (old.and_then(|fields| fields.get(name)), new.and_then(|fields| fields.get(name)));
                    self.values(node.field(name), before, after);
                    self.path.pop();
                }
            }
            Shape::Set | Shape::Keyed(_) => {
                let (old, new) = (by_step(node, shape, items(old)), by_step(node, shape, items(new)));
                let steps: BTreeSet<&Step> = old.keys().chain(new.keys()).collect();
                for step in steps {
                    self.path.push(step.clone());
                    let (before, after) = (old.get(step), new.get(step));
                    self.items(node.item(), before.map_or(&[], Vec::as_slice), after.map_or(&[], Vec::as_slice));
                    self.path.pop();
                }
            }
        }
    }

    /// The items at one step. More than one is compared as a whole.
    fn items(&mut self, node: Node<'_>, old: &[&Value], new: &[&Value]) {
        match (old, new) {
            ([] | [_], [] | [_]) => self.values(node, old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                if old != new {
                    self.diff.changed.insert(&self.path);
                }
            }
            ([_, _, ..], _) => {
                if let Some(only) = new.first() {
                    self.values(node, None, Some(only));
                }
                self.diff.removed.insert(&self.path);
            }
            (_, [_, _, ..]) => {
                if let Some(only) = old.first() {
                    self.values(node, Some(only), None);
                }
                self.diff.changed.insert(&self.path);
            }
        }
    }
}

fn items(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Nothing, or something with nothing in it.
fn is_void(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => false,
    }
}

/// The set with the declared fields above its members: they are there because something below them is.
pub(crate) fn with_declared(node: Node<'_>, set: &FieldSet) -> FieldSet {
    let mut result = FieldSet::default();
    for (step, branch) in set.branches() {
        let declared = match step {
            Step::Field(name) => node.declared(name).is_some_and(|(_, declared)| declared),
            Step::Key(_) | Step::Value(_) | Step::Index(_) => false,
        };
        let member = branch.member || (declared && !branch.below.is_empty());
        result.put(step.clone(), Branch { member, below: with_declared(node.at(step), &branch.below) });
    }
    result
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::wire::to_wire;
    use super::*;
    use crate::schema::Schema;
    use serde_json::json;

    /// A schema with a part of every shape.
    pub(crate) fn schema() -> Schema {
        Schema::parse(&document()).expect("parses")
    }

    pub(crate) fn document() -> Value {
        let item = json!({"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"},
                          "more": {"type": "object", "properties": {"x": {"type": "string"}}}}});
        json!({"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "integer"},
            "struct": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "deep": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    }

    #[test]
    fn an_applied_object_is_about_these_fields() {
        let schema = schema();
        let check = |object: Value, expected: Value| {
            assert_eq!(to_wire(&field_set(Node::Typed(&schema), &object)), expected, "{object}");
        };
        check(json!({}), json!({}));
        check(json!({"a": "x", "struct": {"x": "1"}}), json!({"f:a": {}, "f:struct": {"f:x": {}}}));
        check(json!({"struct": {}, "map": {}, "a": null}), json!({"f:struct": {}, "f:map": {}, "f:a": {}}));
        check(json!({"map": {"k": "v"}}), json!({"f:map": {"f:k": {}}}));
        check(json!({"deep": {"k": {"x": "v"}}}), json!({"f:deep": {"f:k": {".": {}, "f:x": {}}}}));
        check(json!({"whole": {"k": "v"}, "plain": ["x"]}), json!({"f:whole": {}, "f:plain": {}}));
        check(json!({"set": ["x", "y"]}), json!({"f:set": {"v:\"x\"": {}, "v:\"y\"": {}}}));
        check(
            json!({"list": [{"name": "p", "more": {"x": "1"}}]}),
            json!({"f:list": {"k:{\"name\":\"p\"}": {".": {}, "f:name": {}, "f:more": {"f:x": {}}}}}),
        );
        check(json!({"free": {"k": {"l": [1]}}}), json!({"f:free": {"f:k": {".": {}, "f:l": {}}}}));
        check(json!({"set": [], "list": []}), json!({}));
        check(json!({"list": [{"name": "p", "n": 1}, {"name": "p"}]}), json!({"f:list": {"k:{\"name\":\"p\"}": {}}}));
    }

    #[test]
    fn objects_differ_in_these_fields() {
        let schema = schema();
        let check = |old: Value, new: Value, changed: Value, removed: Value| {
            let diff = compare(Node::Typed(&schema), &old, &new);
            assert_eq!((to_wire(&diff.changed), to_wire(&diff.removed)), (changed, removed), "{old} to {new}");
        };
        check(json!({"a": "x"}), json!({"a": "x"}), json!({}), json!({}));
        check(json!({"a": "x"}), json!({"a": "y", "b": 1}), json!({"f:a": {}, "f:b": {}}), json!({}));
        check(json!({}), json!({"struct": {"x": "1"}}), json!({"f:struct": {".": {}, "f:x": {}}}), json!({}));
        check(
            json!({"map": {"k": "v", "l": "w"}}),
            json!({"map": {"l": "x"}}),
            json!({"f:map": {"f:l": {}}}),
            json!({"f:map": {"f:k": {}}}),
        );
        check(json!({"map": {"k": "v"}}), json!({}), json!({}), json!({"f:map": {".": {}, "f:k": {}}}));
        check(json!({"whole": {"k": "v"}}), json!({"whole": {"k": "w"}}), json!({"f:whole": {}}), json!({}));
        check(json!({"plain": ["x"]}), json!({"plain": ["x", "y"]}), json!({"f:plain": {}}), json!({}));
        check(
            json!({"set": ["x", "y"]}),
            json!({"set": ["y", "z"]}),
            json!({"f:set": {"v:\"z\"": {}}}),
            json!({"f:set": {"v:\"x\"": {}}}),
        );
        check(
            json!({"list": [{"name": "p", "n": 1}, {"name": "q"}]}),
            json!({"list": [{"name": "q"}, {"name": "p", "n": 2}]}),
            json!({"f:list": {"k:{\"name\":\"p\"}": {"f:n": {}}}}),
            json!({}),
        );
        check(json!({"struct": {}}), json!({"struct": null}), json!({"f:struct": {}}), json!({}));
        check(json!({"struct": null}), json!({"struct": {"x": "1"}}), json!({"f:struct": {"f:x": {}}}), json!({}));
        check(json!({"set": []}), json!({}), json!({}), json!({"f:set": {}}));
        check(
            json!({"free": {"k": {"l": 1}}}),
            json!({"free": {"k": 2}}),
            json!({"f:free": {"f:k": {}}}),
            json!({"f:free": {"f:k": {"f:l": {}}}}),
        );
        // What stands there twice is compared as a whole.
        let twice = json!({"list": [{"name": "p", "n": 1}, {"name": "p", "n": 2}]});
        let key = json!({"f:list": {"k:{\"name\":\"p\"}": {}}});
        check(twice.clone(), twice.clone(), json!({}), json!({}));
        check(json!({"list": [{"name": "p", "n": 1}, {"name": "p"}]}), twice.clone(), key, json!({}));
        let item = json!({"f:list": {"k:{\"name\":\"p\"}": {".": {}, "f:n": {}, "f:name": {}}}});
        check(json!({"list": [{"name": "p", "n": 1}]}), twice, json!({"f:list": {"k:{\"name\":\"p\"}": {}}}), item);
    }

    #[test]
    fn declared_fields_stand_above_their_members() {
        let schema = schema();
        let set =
            field_set(Node::Typed(&schema), &json!({"struct": {"x": "1"}, "map": {"k": "v"}, "list": [{"name": "p"}]}));
        assert_eq!(
            to_wire(&with_declared(Node::Typed(&schema), &set)),
            json!({"f:struct": {".": {}, "f:x": {}}, "f:map": {".": {}, "f:k": {}},
                   "f:list": {".": {}, "k:{\"name\":\"p\"}": {".": {}, "f:name": {}}}})
        );
    }
}
