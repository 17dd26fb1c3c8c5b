//! Checking an object against its schema.
//!
//! Holds: every fault of an object is reported, not only the first; the sentences are those of Kubernetes.

use serde_json::Value;

use super::{Length, ListType, Schema, Type};
use crate::refusal::Cause;

/// The faults of `value`, which stands at `path` ("" for the whole object).
pub(crate) fn validate(schema: &Schema, value: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    check(schema, value, path, &mut causes);
    causes
}

fn check(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema.nullable {
        return;
    }
    if !has_type(schema.kind, value) {
        let detail = format!("{path} in body must be of type {}: {}", type_name(schema.kind), found(value));
        causes.push(Cause::wrong_type(path, value, &detail));
        return;
    }
    check_enum(schema, value, path, causes);
    check_number(schema, value, path, causes);
    check_text(schema, value, path, causes);
    check_array(schema, value, path, causes);
    check_object(schema, value, path, causes);
    check_branches(schema, value, path, causes);
}

fn has_type(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => value.is_i64() || value.is_u64(),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_i64() || value.is_u64() || value.is_string(),
        Type::Any => true,
    }
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
        Type::IntOrString => "integer,string",
        Type::Any => "any",
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "\"null\"",
        Value::Bool(_) => "\"boolean\"",
        Value::Number(number) if number.is_f64() => "\"number\"",
        Value::Number(_) => "\"integer\"",
        Value::String(_) => "\"string\"",
        Value::Array(_) => "\"array\"",
        Value::Object(_) => "\"object\"",
    }
}

fn check_enum(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(allowed) = &schema.allowed
        && !allowed.contains(value)
    {
        let texts: Vec<String> = allowed.iter().map(Value::to_string).collect();
        causes.push(Cause::not_supported(path, value, &texts));
    }
}

fn check_number(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = value.as_f64() else {
        return;
    };
    let range = &schema.range;
    if let Some(minimum) = range.minimum
        && (number < minimum || (range.exclusive_minimum && number <= minimum))
    {
        let relation = if range.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be {relation} {minimum}")));
    }
    if let Some(maximum) = range.maximum
        && (number > maximum || (range.exclusive_maximum && number >= maximum))
    {
        let relation = if range.exclusive_maximum { "less than" } else { "less than or equal to" };
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be {relation} {maximum}")));
    }
    if let Some(factor) = range.multiple_of
        && factor > 0.0
        && (number / factor).fract() != 0.0
    {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be a multiple of {factor}")));
    }
    check_format(schema, value, path, causes);
}

fn check_format(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(format) = schema.format
        && !format.fits(value)
    {
        let detail = format!("{path} in body must be of type {}: {value}", format.name());
        causes.push(Cause::wrong_type(path, value, &detail));
    }
}

fn check_text(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(text) = value.as_str() else {
        return;
    };
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(most) = schema.length.most
        && length > most
    {
        causes.push(Cause::too_long(path, most));
    }
    if let Some(least) = schema.length.least
        && length < least
    {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should be at least {least} chars long")));
    }
    if let Some(pattern) = &schema.pattern
        && !pattern.is_match(text)
    {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should match '{pattern}'")));
    }
    check_format(schema, value, path, causes);
}

fn check_count(bounds: &Length, count: usize, value: &Value, path: &str, noun: &str, causes: &mut Vec<Cause>) {
    let size = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(most) = bounds.most
        && size > most
    {
        causes.push(Cause::too_many(path, count, most));
    }
    if let Some(least) = bounds.least
        && size < least
    {
        causes.push(Cause::invalid(path, value, &format!("{path} in body should have at least {least} {noun}")));
    }
}

fn check_array(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(items) = value.as_array() else {
        return;
    };
    check_count(&schema.item_count, items.len(), value, path, "items", causes);
    check_distinct(schema, items, path, causes);
    if let Some(item_schema) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            check(item_schema, item, &format!("{path}[{index}]"), causes);
        }
    }
}

/// Sets hold no item twice, maps no key twice.
fn check_distinct(schema: &Schema, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let identity = |item: &Value| -> Option<String> {
        match &schema.list_type {
            ListType::Set => Some(item.to_string()),
            ListType::Atomic if schema.unique_items => Some(item.to_string()),
            ListType::Atomic => None,
            ListType::Map(keys) => {
                Some(keys.iter().map(|key| item.get(key).map(Value::to_string).unwrap_or_default() + "\u{0}").collect())
            }
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(identity) = identity(item)
            && !seen.insert(identity)
        {
            causes.push(Cause::duplicate(format!("{path}[{index}]"), item));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { String::from(name) } else { format!("{path}.{name}") }
}

fn check_object(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(object) = value.as_object() else {
        return;
    };
    check_count(&schema.property_count, object.len(), value, path, "properties", causes);
    for name in &schema.required {
        if !object.contains_key(name) {
            causes.push(Cause::required(join(path, name), ""));
        }
    }
    for (name, child) in object {
        if let Some(property) = schema.properties.get(name) {
            check(property, child, &join(path, name), causes);
        } else if let super::Additional::Typed(additional) = &schema.additional {
            check(additional, child, &join(path, name), causes);
        }
    }
}

fn check_branches(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |branch: &Schema| validate(branch, value, path).is_empty();
    for branch in &schema.all_of {
        check(branch, value, path, causes);
    }
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(fits) {
        causes.push(Cause::invalid(path, value, &format!("{path} in body must validate at least one schema (anyOf)")));
    }
    if !schema.one_of.is_empty() && schema.one_of.iter().filter(|branch| fits(branch)).count() != 1 {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if let Some(not) = &schema.not
        && fits(not)
    {
        causes.push(Cause::invalid(path, value, &format!("{path} in body must not validate the schema (not)")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, value: Value, expected: &[&str]) {
        let parsed = Schema::parse(&schema).expect("the schema parses");
        let found: Vec<String> = validate(&parsed, &value, "spec").iter().map(Cause::to_string).collect();
        assert_eq!(found, expected, "{value} against {schema}");
    }

    #[test]
    fn types() {
        check(json!({"type": "integer"}), json!(1), &[]);
        check(
            json!({"type": "integer"}),
            json!(1.5),
            &["spec: Invalid value: 1.5: spec in body must be of type integer: \"number\""],
        );
        check(
            json!({"type": "integer"}),
            json!("1"),
            &["spec: Invalid value: \"1\": spec in body must be of type integer: \"string\""],
        );
        check(json!({"type": "string", "nullable": true}), Value::Null, &[]);
        check(
            json!({"type": "string"}),
            Value::Null,
            &["spec: Invalid value: null: spec in body must be of type string: \"null\""],
        );
        check(json!({"x-kubernetes-int-or-string": true}), json!("1Gi"), &[]);
        check(json!({"x-kubernetes-int-or-string": true}), json!(7), &[]);
        check(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            &["spec: Invalid value: true: spec in body must be of type integer,string: \"boolean\""],
        );
    }

    #[test]
    fn scalars() {
        check(
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        );
        check(
            json!({"type": "integer", "minimum": 1, "maximum": 3}),
            json!(0),
            &["spec: Invalid value: 0: spec in body should be greater than or equal to 1"],
        );
        check(
            json!({"type": "integer", "minimum": 1, "maximum": 3, "exclusiveMaximum": true}),
            json!(3),
            &["spec: Invalid value: 3: spec in body should be less than 3"],
        );
        check(
            json!({"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}),
            json!("ABCD"),
            &[
                "spec: Too long: may not be more than 3 bytes",
                "spec: Invalid value: \"ABCD\": spec in body should match '^[a-z]+$'",
            ],
        );
        check(
            json!({"type": "string", "format": "date-time"}),
            json!("now"),
            &["spec: Invalid value: \"now\": spec in body must be of type date-time: \"now\""],
        );
    }

    #[test]
    fn composites() {
        let schema = json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string"},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
        }, "additionalProperties": false});
        check(schema.clone(), json!({}), &["spec.name: Required value"]);
        check(
            schema,
            json!({"name": 1, "list": ["x", 2]}),
            &[
                "spec.list: Too many: 2: must have at most 1 items",
                "spec.list[0]: Invalid value: \"x\": spec.list[0] in body must be of type integer: \"string\"",
                "spec.name: Invalid value: 1: spec.name in body must be of type string: \"integer\"",
            ],
        );
        let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                         "items": {"type": "object", "properties": {"k": {"type": "string"}}}});
        check(map.clone(), json!([{"k": "a"}, {"k": "b"}]), &[]);
        check(map, json!([{"k": "a"}, {"k": "a"}]), &["spec[1]: Duplicate value: \"object\""]);
    }

    #[test]
    fn branches() {
        let one = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        check(one.clone(), json!({"a": 1}), &[]);
        check(
            one,
            json!({"a": 1, "b": 1}),
            &["spec: Invalid value: \"object\": spec in body must validate one and only one schema (oneOf)"],
        );
        check(
            json!({"not": {"required": ["a"]}}),
            json!({"a": 1}),
            &["spec: Invalid value: \"object\": spec in body must not validate the schema (not)"],
        );
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        for document in [
            json!({"type": "strange"}),
            json!({"pattern": "("}),
            json!({"$ref": "#/x"}),
            json!({"properties": {"a": 1}}),
            json!({"minLength": "x"}),
        ] {
            assert!(Schema::parse(&document).is_err(), "{document}");
        }
    }
}
