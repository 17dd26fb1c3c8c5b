//! What stands in a URL or in a column: selectors, queries, JSONPath.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parts;
use crate::http::query::{Query, decode};
use crate::jsonpath::JsonPath;
use crate::selector::{FieldSelector, LabelSelector};

/// A label selector and a field selector: what parses reads back as itself when it is written out.
pub(super) fn selector(data: &[u8]) {
    let [kind, text] = parts::<2>(data);
    let text = String::from_utf8_lossy(text);
    if kind == b"field" {
        let Ok(selector) = FieldSelector::parse(&text) else { return };
        let escape = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let term = |term: &crate::selector::FieldTerm| {
            format!("{}{}{}", term.field, if term.equal { "=" } else { "!=" }, escape(&term.value))
        };
        let written: Vec<String> = selector.terms.iter().map(term).collect();
        let written = written.join(",");
        assert_eq!(FieldSelector::parse(&written).as_ref(), Ok(&selector), "{written:?}");
        return;
    }
    let Ok(selector) = LabelSelector::parse(&text) else { return };
    let written = selector.to_string();
    assert_eq!(LabelSelector::parse(&written).as_ref(), Ok(&selector), "{written:?}");
    // Only an empty text selects everything without a word.
    assert_eq!(selector.is_empty(), text.trim().is_empty(), "{text:?}");
    for labels in [&[][..], &[("a", "b")], &[("a", ""), ("b", "1")], &[("a", "2"), ("example.com/x", "y")]] {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect();
        let each = selector.to_string();
        let apart = crate::selector::split_outside_parentheses(&each).into_iter();
        let all = apart.map(|part| LabelSelector::parse(part).expect("a part")).all(|part| part.matches(&labels));
        assert_eq!(selector.matches(&labels), all, "{written:?} on {labels:?}");
    }
}

/// A query: pairs that are escaped are read as they were.
pub(super) fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = Query::parse(&text);
    for name in ["watch", "limit", "", "labelSelector"] {
        assert!(query.has(name) || query.get(name).is_empty());
        if let Ok(Some(number)) = query.number(name) {
            assert_eq!(query.get(name).trim_start_matches(['+', '0']), number.to_string().trim_start_matches('0'));
        }
        if let Ok(true) = query.flag(name) {
            assert!(!query.get(name).is_empty());
        }
    }
    let escaped: String = data.iter().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(decode(&escaped), text);
    let pair = Query::parse(&format!("x={escaped}&x=second"));
    assert_eq!(pair.get("x"), text);
}

/// A path on documents.
pub(super) fn jsonpath(data: &[u8]) {
    let [path, document] = parts::<2>(data);
    let path = String::from_utf8_lossy(path);
    let Ok(parsed) = JsonPath::parse(&path) else { return };
    let root = json!({"spec": {"size": 3, "a.b": [{"n": 1}, {"n": [2, {"type": "Ready", "status": "True"}]}]},
                      "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}]}});
    let given: Option<Value> = serde_json::from_slice(document).ok();
    for document in given.iter().chain([&root]) {
        let found = parsed.find(document);
        assert_eq!(parsed.first(document), found.first().copied());
        let most = document.to_string().len();
        assert!(found.len() <= most, "{} things in {most} bytes", found.len());
    }
    if !path.starts_with('{') {
        assert_eq!(JsonPath::parse(&format!("{{{path}}}")).expect("the same in braces"), parsed);
    }
}
