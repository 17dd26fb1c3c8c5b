//! What an API server of Kubernetes asks of a CRD before it takes it, as far as the embedded one does not: structural schemas, what
//! rules may cost, what may be selected and shown.
//!
//! The cost of a rule is bounded from above, as an API server estimates it: a step for each token, and for each comparison
//! the longest text that a request can hold, of which comparing takes a tenth of a step for each byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says why")]

use serde_json::Value;

/// An API server takes no rule that may cost more.
const RULE_LIMIT: u64 = 10_000_000;
/// And no CRD whose rules may cost more together.
const CRD_LIMIT: u64 = 100_000_000;
/// A request holds 3 MiB; comparing a byte costs a tenth.
const LONGEST_COMPARISON: u64 = 3 * 1024 * 1024 / 10 + 1;
/// Names that CEL keeps for itself: a rule cannot say `self.namespace`.
const RESERVED: [&str; 16] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "while",
];

/// Calls `visit` with every schema, its path, and whether it is inside of a list or a map.
fn walk(schema: &Value, path: &str, many: bool, visit: &mut impl FnMut(&Value, &str, bool)) {
    visit(schema, path, many);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), many, visit);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            walk(&schema[inner], &format!("{path}[]"), true, visit);
        }
    }
}

fn schemas() -> Vec<(String, Value, Value)> {
    let crds = lvault_api::crds::all().into_iter();
    crds.map(|crd| {
        let version = crd["spec"]["versions"][0].clone();
        (
            crd["spec"]["names"]["kind"].as_str().unwrap().to_owned(),
            version["schema"]["openAPIV3Schema"].clone(),
            version,
        )
    })
    .collect()
}

/// An upper bound of what an API server thinks that a rule costs.
fn cost(rule: &str) -> u64 {
    let comparisons = rule.matches("==").count() + rule.matches("!=").count() + rule.matches(" in ").count();
    u64::try_from(rule.len()).unwrap() + u64::try_from(comparisons).unwrap() * LONGEST_COMPARISON
}

#[test]
fn no_rule_costs_more_than_an_api_server_allows() {
    for (kind, schema, _) in schemas() {
        let mut all = 0;
        walk(&schema, &kind, false, &mut |schema, path, many| {
            for validation in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                let rule = validation["rule"].as_str().unwrap();
                assert!(!many, "{path}: a rule inside of a list is counted for each item that fits: {rule}");
                let mut before = rule.split('(');
                before.next_back();
                for text in before {
                    let word = text.rsplit(|c: char| !c.is_alphanumeric() && c != '.').next().unwrap();
                    assert!(matches!(word, "" | "has"), "{path}: {word} in {rule}: its cost is not bounded here");
                }
                assert!(cost(rule) <= RULE_LIMIT, "{path}: {} for {rule}", cost(rule));
                all += cost(rule);
                for word in rule.split(|c: char| !c.is_alphanumeric()) {
                    assert!(!RESERVED.contains(&word), "{path}: {word} in {rule} is CEL's own");
                }
                let message = validation["message"].as_str().unwrap();
                assert!(!message.contains('\n') && (1..=2048).contains(&message.len()), "{path}: {message}");
            }
        });
        assert!(all <= CRD_LIMIT, "{kind}: {all}");
    }
}

#[test]
fn every_schema_is_structural() {
    for (kind, schema, _) in schemas() {
        let mut seen = 0;
        walk(&schema, &kind, false, &mut |schema, path, _| {
            seen += 1;
            let either = schema["x-kubernetes-int-or-string"] == true;
            assert_ne!(schema["type"].is_string(), either, "{path} has one type");
            for forbidden in ["$ref", "nullable", "allOf", "oneOf", "not", "definitions", "uniqueItems"] {
                assert!(schema.get(forbidden).is_none(), "{path}: {forbidden}");
            }
            assert_eq!(schema["anyOf"].is_array(), either, "{path}");
            let both = schema["properties"].is_object() && schema["additionalProperties"].is_object();
            assert!(!both, "{path} has properties or additionalProperties, not both");
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    schema["properties"].get(name.as_str().unwrap()).is_some(),
                    "{path}: {name} is required and not there"
                );
            }
            let fits = match (&schema["type"], &schema["default"]) {
                (_, Value::Null) => true,
                (kind, Value::Bool(_)) => kind == "boolean",
                (kind, Value::Number(_)) => kind == "integer",
                (kind, Value::String(text)) => {
                    let choices = schema["enum"].as_array();
                    kind == "string" && choices.is_none_or(|all| all.iter().any(|choice| choice == text))
                }
                (_, Value::Array(_) | Value::Object(_)) => false,
            };
            assert!(fits, "{path}: its default does not fit: {}", schema["default"]);
        });
        assert!(seen > 20, "{kind}: {seen}");
    }
}

#[test]
fn what_is_selected_and_shown_is_there() {
    for (kind, schema, version) in schemas() {
        let find = |path: &str| {
            path.trim_start_matches('.').split('.').try_fold(&schema, |schema, name| schema["properties"].get(name))
        };
        for field in version["selectableFields"].as_array().into_iter().flatten() {
            let path = field["jsonPath"].as_str().unwrap();
            let found = find(path).unwrap_or_else(|| panic!("{kind}: {path} is not there"));
            assert!(matches!(found["type"].as_str(), Some("string" | "integer" | "boolean")), "{kind}: {path}");
        }
        for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
            let path = column["jsonPath"].as_str().unwrap();
            assert!(path.starts_with(".metadata.") || find(path).is_some(), "{kind}: {path} is not there");
            assert!(matches!(column["type"].as_str(), Some("string" | "integer" | "date")), "{kind}: {column}");
        }
    }
}
