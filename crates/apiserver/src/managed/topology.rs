//! How a kind's schema says that its parts are owned: field by field, item by item, or as a whole.
//!
//! Holds: objects and maps are owned field by field unless `x-kubernetes-map-type` is `atomic`; lists as a whole unless
//! `x-kubernetes-list-type` is `set` or `map`; where no schema reaches, objects field by field and lists as a whole.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::fields::Step;
use crate::schema::{Additional, ListType, Schema, Type};

/// The metadata of every object.
static METADATA: LazyLock<Schema> = LazyLock::new(|| {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let texts = json!({"type": "object", "additionalProperties": text});
    let owner = json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "apiVersion": text, "kind": text, "name": text, "uid": text,
        "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"}}});
    let document = json!({"type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "uid": text, "resourceVersion": text, "selfLink": text,
        "generation": number, "deletionGracePeriodSeconds": number,
        "creationTimestamp": text, "deletionTimestamp": text, "labels": texts, "annotations": texts,
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
                            "items": owner},
        "managedFields": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}});
    // The document is a constant, and the tests of this module use it.
    Schema::parse(&document).unwrap_or_else(|_| Schema::anything())
});

/// What is known about one place of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node<'s> {
    Typed(&'s Schema),
    /// No schema reaches here.
    Free,
}

/// How a value is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape<'s> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Fields,
    /// A list, item by item, told apart by their values.
    Set,
    /// A list, item by item, told apart by these fields.
    Keyed(&'s [String]),
}

impl<'s> Node<'s> {
    /// How this value is owned here.
    pub(crate) fn shape(self, value: &Value) -> Shape<'s> {
        match (self, value) {
            (Node::Typed(schema), Value::Object(_)) if schema.atomic_map => Shape::Leaf,
            (Node::Typed(_) | Node::Free, Value::Object(_)) => Shape::Fields,
            (Node::Typed(schema), Value::Array(_)) => match &schema.list_type {
                ListType::Atomic => Shape::Leaf,
                ListType::Set => Shape::Set,
                ListType::Map(keys) => Shape::Keyed(keys),
            },
            (Node::Free, Value::Array(_)) => Shape::Leaf,
            (Node::Typed(_) | Node::Free, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                Shape::Leaf
            }
        }
    }

    /// What is known about the field of this name, and whether it is declared by name. None: there is no such field.
    pub(crate) fn declared(self, name: &str) -> Option<(Node<'s>, bool)> {
        let Node::Typed(schema) = self else {
            return Some((Node::Free, false));
        };
        if let Some(property) = schema.properties.get(name) {
            return Some((Node::Typed(property), true));
        }
        match (schema.embedded, name) {
            (true, "metadata") => return Some((Node::Typed(&METADATA), true)),
            (true, "apiVersion" | "kind") => return Some((Node::Free, true)),
            (true | false, _) => {}
        }
        match &schema.additional {
            Additional::Kept => Some((Node::Free, false)),
            Additional::Typed(additional) => Some((Node::Typed(additional), false)),
            // A node without a type that declares nothing says nothing about its fields.
            Additional::Pruned if schema.kind == Type::Any && schema.properties.is_empty() => Some((Node::Free, false)),
            Additional::Pruned => None,
        }
    }

    /// What is known about the field of this name.
    pub(crate) fn field(self, name: &str) -> Node<'s> {
        self.declared(name).map_or(Node::Free, |(node, _)| node)
    }

    /// What is known about the items of a list.
    pub(crate) fn item(self) -> Node<'s> {
        match self {
            Node::Typed(schema) => schema.items.as_deref().map_or(Node::Free, Node::Typed),
            Node::Free => Node::Free,
        }
    }

    /// What a step leads to.
    pub(crate) fn at(self, step: &Step) -> Node<'s> {
        match step {
            Step::Field(name) => self.field(name),
            Step::Key(_) | Step::Value(_) | Step::Index(_) => self.item(),
        }
    }

    /// How an item of a set is told apart from the others.
    pub(crate) fn set_step(item: &Value) -> Result<Step, String> {
        match item {
            Value::Object(_) => Err(String::from("associative list without keys has an element that's a map type")),
            Value::Array(_) => Err(String::from("not supported: associative list with lists as elements")),
            Value::Null => Err(String::from("associative list without keys has an element that's an explicit null")),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Step::Value(item.to_string())),
        }
    }

    /// How an item of a keyed list is told apart from the others: by its key fields, or their defaults.
    pub(crate) fn key_step(self, keys: &[String], item: &Value) -> Result<Step, String> {
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err(String::from("associative list with keys may not have a null element")),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(String::from("associative list with keys may not have non-map elements"));
            }
        };
        let mut found: Vec<(String, String)> =
            keys.iter().filter_map(|key| Some((key.clone(), self.key_value(fields, key)?.to_string()))).collect();
        if found.is_empty() {
            return Err(format!(
                "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default values for any key fields)"
            ));
        }
        found.sort();
        Ok(Step::Key(found))
    }

    fn key_value<'v>(self, fields: &'v Map<String, Value>, key: &str) -> Option<&'v Value>
    where
        's: 'v,
    {
        fields.get(key).or_else(|| match self.item().field(key) {
            Node::Typed(schema) => schema.default.as_ref(),
            Node::Free => None,
        })
    }

    /// The step of a list's item, for either kind of list that has steps.
    pub(crate) fn step(self, shape: Shape<'_>, item: &Value) -> Result<Step, String> {
        match shape {
            Shape::Keyed(keys) => self.key_step(keys, item),
            Shape::Set => Node::set_step(item),
            Shape::Leaf | Shape::Fields => Err(String::from("items of this list are not told apart")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let mut schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "properties": {"port": {"type": "integer"},
                        "protocol": {"type": "string", "default": "TCP"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}))
        .expect("parses");
        schema.embedded = true;
        schema
    }

    #[test]
    fn the_schema_says_how_values_are_owned() {
        let schema = schema();
        let root = Node::Typed(&schema);
        let spec = root.field("spec");
        let keys = [String::from("port"), String::from("protocol")];
        let cases = [
            (spec, json!({}), Shape::Fields),
            (spec.field("whole"), json!({"a": "b"}), Shape::Leaf),
            (spec.field("plain"), json!(["a"]), Shape::Leaf),
            (spec.field("set"), json!(["a"]), Shape::Set),
            (spec.field("ports"), json!([]), Shape::Keyed(&keys)),
            (spec.field("free").field("any"), json!({"a": 1}), Shape::Fields),
            (spec.field("free").field("any"), json!([1]), Shape::Leaf),
            (root.field("metadata").field("finalizers"), json!(["a"]), Shape::Set),
            (root.field("metadata").field("labels"), json!({}), Shape::Fields),
            (root.field("metadata").field("ownerReferences").item(), json!({}), Shape::Leaf),
        ];
        for (node, value, expected) in cases {
            assert_eq!(node.shape(&value), expected, "{value}");
        }
        assert!(
            matches!(root.field("metadata").field("ownerReferences").shape(&json!([])), Shape::Keyed([key]) if key == "uid")
        );
        assert!(spec.declared("odd").is_none());
        assert!(root.field("metadata").declared("odd").is_none());
        assert_eq!(spec.field("free").declared("odd").map(|(_, named)| named), Some(false));
    }

    #[test]
    fn items_are_told_apart_by_keys_and_their_defaults() {
        let schema = schema();
        let ports = Node::Typed(&schema).field("spec").field("ports");
        let step = |item: Value| ports.step(ports.shape(&json!([])), &item).map(|step| step.to_string());
        assert_eq!(step(json!({"port": 80, "protocol": "UDP"})), Ok(String::from("[port=80,protocol=\"UDP\"]")));
        assert_eq!(step(json!({"port": 80})), Ok(String::from("[port=80,protocol=\"TCP\"]")));
        assert!(step(json!(null)).is_err() && step(json!("a")).is_err());
        assert!(Node::set_step(&json!({})).is_err() && Node::set_step(&json!([])).is_err());
        assert_eq!(Node::set_step(&json!("a")).map(|step| step.to_string()), Ok(String::from("[=\"a\"]")));
    }
}
