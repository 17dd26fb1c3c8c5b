//! `fieldsV1`: a set of fields as it stands in an object.
//!
//! Holds: what is written is read back as the same set; what cannot be read is refused whole.

use serde_json::{Map, Value};

use super::fields::{Branch, FieldSet, Step};

/// Marks that the field above is itself a member.
const SELF: &str = ".";

/// The set as `fieldsV1`.
pub(crate) fn to_wire(set: &FieldSet) -> Value {
    let fields = set.branches().map(|(step, branch)| (step_to_wire(step), branch_to_wire(branch)));
    Value::Object(fields.collect())
}

fn branch_to_wire(branch: &Branch) -> Value {
    let mut value = to_wire(&branch.below);
    if branch.member
        && let Some(fields) = value.as_object_mut().filter(|fields| !fields.is_empty())
    {
        fields.insert(String::from(SELF), Value::Object(Map::new()));
    }
    value
}

fn step_to_wire(step: &Step) -> String {
    match step {
        Step::Field(name) => format!("f:{name}"),
        Step::Key(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            format!("k:{{{}}}", fields.join(","))
        }
        Step::Value(value) => format!("v:{value}"),
        Step::Index(index) => format!("i:{index}"),
    }
}

/// Reads `fieldsV1`; none when it is not readable.
pub(crate) fn from_wire(wire: &Value) -> Option<FieldSet> {
    let mut set = FieldSet::default();
    for (key, below) in wire.as_object()?.iter().filter(|(key, _)| *key != SELF) {
        let fields = below.as_object()?;
        let member = fields.is_empty() || fields.contains_key(SELF);
        set.put(step_from_wire(key)?, Branch { member, below: from_wire(below)? });
    }
    Some(set)
}

fn step_from_wire(text: &str) -> Option<Step> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "f" => Some(Step::Field(String::from(rest))),
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(rest).ok()?;
            let mut fields: Vec<(String, String)> =
                fields.into_iter().map(|(name, value)| (name, value.to_string())).collect();
            fields.sort();
            Some(Step::Key(fields))
        }
        "v" => Some(Step::Value(serde_json::from_str::<Value>(rest).ok()?.to_string())),
        "i" => rest.parse().ok().map(Step::Index),
        _other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::arbitrary::set;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn sets_are_written_in_the_standard_form() {
        let wire = json!({
            "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {".": {}, "v:\"x/y\"": {}}},
            "f:spec": {"f:list": {"k:{\"name\":\"a\",\"port\":80}": {".": {}, "f:value": {}}}, "f:places": {"i:0": {}}}});
        let set = from_wire(&wire).expect("readable");
        assert_eq!(set.paths().len(), 7);
        assert_eq!(to_wire(&set), wire);
        assert_eq!(to_wire(&FieldSet::default()), json!({}));
    }

    #[test]
    fn what_is_not_readable_is_refused() {
        for wire in [
            json!([]),
            json!({"spec": {}}),
            json!({"x:a": {}}),
            json!({"f:a": 1}),
            json!({"k:a": {}}),
            json!({"i:x": {}}),
            json!({"f:a": {"v:": {}}}),
        ] {
            assert_eq!(from_wire(&wire), None, "{wire}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(set in set()) {
            prop_assert_eq!(from_wire(&to_wire(&set)), Some(set));
        }
    }
}
