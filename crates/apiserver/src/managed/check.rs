//! Whether an applied object can be owned field by field: declared fields only, of their types, each item once.
//!
//! Holds: what passes here can be merged without losing anything.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Step, shown};
use super::topology::{Node, Shape};
use crate::schema::Type;

/// What does not fit, each with its path.
pub(crate) fn faults(node: Node<'_>, applied: &Value) -> Vec<String> {
    let mut checking = Checking { path: Vec::new(), faults: Vec::new() };
    checking.value(node, applied);
    checking.faults
}

/// All faults in one text.
pub(crate) fn joined(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        several => {
            let lines: Vec<String> = several.iter().map(|fault| format!("\n  {fault}")).collect();
            format!("errors:{}", lines.concat())
        }
    }
}

struct Checking {
    path: Vec<Step>,
    faults: Vec<String>,
}

impl Checking {
    fn fault(&mut self, why: &str) {
        let at = shown(&self.path);
        self.faults.push(if at.is_empty() { String::from(why) } else { format!("{at}: {why}") });
    }

    fn value(&mut self, node: Node<'_>, value: &Value) {
        if let Some(expected) = expected(node, value) {
            self.fault(&format!("expected {expected}, got {}", kind(value)));
            return;
        }
        match value {
            Value::Object(fields) => {
                for (name, child) in fields {
                    self.path.push(Step::Field(name.clone()));
                    match node.declared(name) {
                        Some((below, _)) => self.value(below, child),
                        None => self.fault("field not declared in schema"),
                    }
                    self.path.pop();
                }
            }
            Value::Array(items) => self.items(node, value, items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn items(&mut self, node: Node<'_>, list: &Value, items: &[Value]) {
        let shape = node.shape(list);
        let mut seen: BTreeMap<Step, usize> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let step = match shape {
                Shape::Leaf | Shape::Fields => Ok(Step::Index(i64::try_from(index).unwrap_or(i64::MAX))),
                Shape::Set | Shape::Keyed(_) => node.step(shape, item),
            };
            match step {
                Err(why) => self.fault(&format!("element {index}: {why}")),
                Ok(step) => {
                    let count = seen.entry(step.clone()).or_default();
                    *count += 1;
                    if *count == 2 {
                        self.fault(&format!("duplicate entries for key {step}"));
                    }
                    self.path.push(step);
                    self.value(node.item(), item);
                    self.path.pop();
                }
            }
        }
    }
}

/// The type that is asked for, when the value has another.
fn expected(node: Node<'_>, value: &Value) -> Option<&'static str> {
    let Node::Typed(schema) = node else {
        return None;
    };
    let (fits, name) = match schema.kind {
        Type::Object => (value.is_object(), "map"),
        Type::Array => (value.is_array(), "list"),
        Type::String => (value.is_string(), "string"),
        Type::Integer | Type::Number => (value.is_number(), "numeric (int or float)"),
        Type::Boolean => (value.is_boolean(), "boolean"),
        Type::IntOrString | Type::Any => (true, ""),
    };
    // Null is the absence of whatever is asked for.
    (!fits && !value.is_null()).then_some(name)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::schema;
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_name_their_place() {
        let schema = schema();
        let cases = [
            (json!({"a": "x", "free": {"any": [1, {}]}, "struct": null, "list": [{"name": "p"}, {"name": "q"}]}), ""),
            (json!({"odd": 1}), ".odd: field not declared in schema"),
            (json!({"struct": {"z": 1}}), ".struct.z: field not declared in schema"),
            (json!({"b": "x"}), ".b: expected numeric (int or float), got string"),
            (json!({"a": 1}), ".a: expected string, got number"),
            (json!({"struct": []}), ".struct: expected map, got list"),
            (json!({"set": "x"}), ".set: expected list, got string"),
            (json!({"map": {"k": 1}}), ".map.k: expected string, got number"),
            (json!({"plain": [1]}), ".plain[0]: expected string, got number"),
            (json!({"set": ["x", "x", "x"]}), ".set: duplicate entries for key [=\"x\"]"),
            (json!({"list": [{"name": "p"}, {"name": "p"}]}), ".list: duplicate entries for key [name=\"p\"]"),
            (json!({"list": [{"name": "p", "z": 1}]}), ".list[name=\"p\"].z: field not declared in schema"),
            (json!({"list": [null]}), ".list: element 0: associative list with keys may not have a null element"),
            (
                json!({"odd": 1, "b": "x"}),
                "errors:\n  .b: expected numeric (int or float), got string\n  .odd: field not declared in schema",
            ),
        ];
        for (object, expected) in cases {
            let faults = faults(Node::Typed(&schema), &object);
            let found = if faults.is_empty() { String::new() } else { joined(&faults) };
            assert_eq!(found, expected, "{object}");
        }
    }
}
