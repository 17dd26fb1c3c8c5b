//! Bringing an object into shape before it is checked: numbers, nulls, defaults, and fields nobody declared.
//!
//! Holds: the order is that of a cluster (defaults, then nulls, then pruning), and shaping an object twice changes nothing.

use serde_json::{Map, Number, Value};

use super::{Additional, Schema, Type};

/// Brings `value` into shape. Answers the paths of the unknown fields that were dropped.
pub(crate) fn shape(schema: &Schema, value: &mut Value) -> Vec<String> {
    default_in(schema, value);
    drop_nulls(schema, value);
    whole_numbers(schema, value);
    let mut dropped = Vec::new();
    prune(schema, value, "", &mut dropped);
    dropped
}

/// Fills in defaults where a field is missing, or null where null may not be.
pub(crate) fn default_in(schema: &Schema, value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        for (name, property) in &schema.properties {
            if let Some(default) = &property.default
                && object.get(name).is_none_or(|found| found.is_null() && !property.nullable)
            {
                object.insert(name.clone(), default.clone());
            }
        }
        each_child(schema, object, default_in);
    } else if let (Some(items), Some(array)) = (&schema.items, value.as_array_mut()) {
        array.iter_mut().for_each(|item| default_in(items, item));
    }
}

fn each_child(schema: &Schema, object: &mut Map<String, Value>, act: fn(&Schema, &mut Value)) {
    for (name, child) in object.iter_mut() {
        if let Some(property) = schema.properties.get(name) {
            act(property, child);
        } else if let Additional::Typed(additional) = &schema.additional {
            act(additional, child);
        }
    }
}

/// Drops null from fields that are declared and not nullable: a client that writes `null` for "not set" means exactly that.
fn drop_nulls(schema: &Schema, value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|name, child| {
            let declared = match (schema.properties.get(name), &schema.additional) {
                (Some(property), _) => Some(property),
                (None, Additional::Typed(additional)) => Some(&**additional),
                (None, Additional::Pruned | Additional::Kept) => None,
            };
            !(child.is_null() && declared.is_some_and(|property| !property.nullable))
        });
        each_child(schema, object, drop_nulls);
    } else if let (Some(items), Some(array)) = (&schema.items, value.as_array_mut()) {
        array.iter_mut().for_each(|item| drop_nulls(items, item));
    }
}

/// Writes whole floating point numbers as integers where an integer is asked for: `1.0` and `1` are one value.
fn whole_numbers(schema: &Schema, value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        each_child(schema, object, whole_numbers);
    } else if let (Some(items), Some(array)) = (&schema.items, value.as_array_mut()) {
        array.iter_mut().for_each(|item| whole_numbers(items, item));
    } else if schema.kind == Type::Integer
        && value.as_i64().is_none()
        && let Some(whole) = value.as_f64().and_then(whole)
    {
        *value = Value::Number(whole);
    }
}

fn whole(number: f64) -> Option<Number> {
    // Beyond 2^53 a float no longer says which integer was meant.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        format!("{number:.0}").parse::<i64>().ok().map(Number::from)
    } else {
        None
    }
}

/// Fields that every embedded object has, whatever its schema says.
const EMBEDDED: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn prune(schema: &Schema, value: &mut Value, path: &str, dropped: &mut Vec<String>) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|name, child| {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if let Some(property) = schema.properties.get(name) {
                prune(property, child, &here, dropped);
                return true;
            }
            if schema.embedded && EMBEDDED.contains(&name.as_str()) {
                return true;
            }
            match &schema.additional {
                Additional::Kept => true,
                Additional::Typed(additional) => {
                    prune(additional, child, &here, dropped);
                    true
                }
                Additional::Pruned => {
                    // A node without a type that declares nothing says nothing about its fields.
                    let silent = schema.kind == Type::Any && schema.properties.is_empty();
                    if !silent {
                        dropped.push(here);
                    }
                    silent
                }
            }
        });
    } else if let (Some(items), Some(array)) = (&schema.items, value.as_array_mut()) {
        for (index, item) in array.iter_mut().enumerate() {
            prune(items, item, &format!("{path}[{index}]"), dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: &Value, input: Value, expected: Value, dropped: &[&str]) {
        let schema = Schema::parse(schema).expect("the schema parses");
        let mut value = input.clone();
        assert_eq!(shape(&schema, &mut value), dropped, "fields dropped from {input}");
        assert_eq!(value, expected, "shape of {input}");
        let again = value.clone();
        assert!(shape(&schema, &mut value).is_empty());
        assert_eq!(value, again, "shaping twice changes nothing");
    }

    #[test]
    fn defaults_nulls_and_unknown_fields() {
        let schema = json!({"type": "object", "properties": {
            "size": {"type": "integer", "default": 3},
            "mode": {"type": "string", "nullable": true, "default": "ro"},
            "plain": {"type": "string"},
            "inner": {"type": "object", "default": {}, "properties": {"deep": {"type": "boolean", "default": true}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
        }});
        check(&schema, json!({}), json!({"size": 3, "mode": "ro", "inner": {"deep": true}}), &[]);
        check(
            &schema,
            json!({"size": null, "mode": null, "plain": null, "inner": {"deep": false}}),
            json!({"size": 3, "mode": null, "inner": {"deep": false}}),
            &[],
        );
        check(
            &schema,
            json!({"size": 2.0, "mode": "x", "inner": {"deep": true, "odd": 1}, "other": {}, "list": [{"m": 1}, {"n": 4}],
                   "free": {"a": {"b": null}, "known": {"a": "x", "b": 1}}, "labels": {"k": "v", "n": null}}),
            json!({"size": 2, "mode": "x", "inner": {"deep": true}, "list": [{"n": 1}, {"n": 4}],
                   "free": {"a": {"b": null}, "known": {"a": "x"}}, "labels": {"k": "v"}}),
            &["free.known.b", "inner.odd", "list[0].m", "other"],
        );
    }
}
