//! Patches of every kind on documents of every shape.

use serde_json::Value;

use super::parts;
use crate::depth;
use crate::patch::{MOST_COPIED, Patch};
use crate::registry::Nature;

/// Kind, document and patch.
pub(super) fn patch(data: &[u8]) {
    let [kind, document, patch] = parts::<3>(data);
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    if depth::of(&document) > depth::MOST_WITH_OWNERS {
        return;
    }
    let (media_type, is_repeatable) = match kind {
        b"merge" => ("application/merge-patch+json", true),
        b"json" => ("application/json-patch+json", false),
        _strategic => ("application/strategic-merge-patch+json", false),
    };
    let before = document.to_string().len();
    let Ok(parsed) = Patch::parse(media_type, Nature::Secret, patch) else { return };
    let Ok(result) = parsed.apply(&document) else { return };
    let text = result.to_string();
    assert_eq!(serde_json::from_str::<Value>(&text).expect("what is stored can be read"), result);
    // A byte of a patch adds at most itself, escaped; a copy adds what it copies.
    let most = before + 64 + 6 * patch.len() + if kind == b"json" { MOST_COPIED } else { 0 };
    assert!(text.len() <= most, "{} bytes of {before} and a patch of {}", text.len(), patch.len());
    if is_repeatable {
        assert_eq!(parsed.apply(&result).expect("it applied once"), result, "a second time changes something");
    }
    match (&parsed, has_directive(&document)) {
        (Patch::Strategic(_), false) => assert!(!has_directive(&result), "a directive was stored: {result}"),
        (Patch::Strategic(_), true) | (Patch::Merge(_) | Patch::Json(_), _) => {}
    }
}

/// Whether a field anywhere tells how to merge.
fn has_directive(value: &Value) -> bool {
    let is_directive = |name: &str| {
        matches!(name, "$patch" | "$retainKeys")
            || ["$setElementOrder/", "$deleteFromPrimitiveList/"].iter().any(|begin| name.starts_with(begin))
    };
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| is_directive(name) || has_directive(value)),
        Value::Array(items) => items.iter().any(has_directive),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
