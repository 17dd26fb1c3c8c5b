//! How deep an object may be nested.
//!
//! Holds: what is stored can be read again, by this server and by its clients in a list or a watch event. A reader of JSON
//! goes no deeper than 127 levels; what is stored is a few levels deeper than what was sent, and a list is two more.

use serde_json::Value;

use crate::refusal::Refusal;

/// Levels of an object, at most, without its `managedFields`.
const MOST_DEPTH: usize = 100;

/// The same with them: they name each field of the object, some levels below its root.
pub(crate) const MOST_WITH_OWNERS: usize = 110;

/// The levels of a value: none of a scalar, one of an empty object. What is deeper than anything may be is not looked into.
pub(crate) fn of(value: &Value) -> usize {
    below(value, 0)
}

fn below(value: &Value, above: usize) -> usize {
    if above > MOST_WITH_OWNERS {
        return above;
    }
    match value {
        Value::Object(fields) => fields.values().map(|value| below(value, above + 1)).max().unwrap_or(above + 1),
        Value::Array(items) => items.iter().map(|value| below(value, above + 1)).max().unwrap_or(above + 1),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => above,
    }
}

/// Refuses an object that is nested too deep.
pub(crate) fn check(object: &Value) -> Result<(), Refusal> {
    let fields = |value: &Value, name: &str, above: usize| {
        let fields = value.as_object().into_iter().flatten().filter(|(found, _)| *found != name);
        fields.map(|(_, value)| below(value, above)).max().unwrap_or(0)
    };
    let levels = fields(object, "metadata", 1).max(fields(&object["metadata"], "managedFields", 2));
    if levels <= MOST_DEPTH && of(object) <= MOST_WITH_OWNERS {
        return Ok(());
    }
    Err(Refusal::BadRequest(format!("the object provided is nested more than {MOST_DEPTH} levels deep")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn levels_are_counted() {
        for (value, levels) in [(json!(1), 0), (json!({}), 1), (json!([]), 1), (json!({"a": [1, {"b": []}]}), 4)] {
            assert_eq!(of(&value), levels, "{value}");
        }
        assert_eq!(of(&nested(500)), MOST_WITH_OWNERS + 1);
    }

    #[test]
    fn an_object_may_be_as_deep_as_its_readers_go() {
        let spec = |levels| json!({"metadata": {"name": "a"}, "spec": nested(levels)});
        let owned = |levels| json!({"metadata": {"managedFields": nested(levels)}});
        let labelled = |levels| json!({"metadata": {"labels": nested(levels)}});
        let most = [spec(MOST_DEPTH - 1), labelled(MOST_DEPTH - 2), owned(MOST_WITH_OWNERS - 2)];
        let more = [spec(MOST_DEPTH), labelled(MOST_DEPTH - 1), owned(MOST_WITH_OWNERS - 1)];
        assert!(most.iter().all(|object| check(object).is_ok()) && more.iter().all(|object| check(object).is_err()));
    }
}
