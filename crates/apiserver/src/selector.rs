//! Label and field selectors: parsing and matching.
//!
//! Holds: the whole grammar of Kubernetes; an unreadable selector is a bad request, never one that matches everything.

use std::collections::BTreeMap;

use crate::names;
use crate::refusal::Refusal;

/// One requirement on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Exists { key: String },
    Absent { key: String },
    Above { key: String, bound: i64 },
    Below { key: String, bound: i64 },
}

/// A label selector: all requirements have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// A field selector: pairs of a field and the value it must have, or must not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    pub(crate) terms: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldTerm {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) equal: bool,
}

impl LabelSelector {
    /// Parses the grammar of `labelSelector`.
    pub(crate) fn parse(text: &str) -> Result<LabelSelector, Refusal> {
        if text.trim().is_empty() {
            return Ok(LabelSelector::default());
        }
        let requirements = split_outside_parentheses(text)
            .into_iter()
            .map(|part| parse_requirement(part.trim()).map_err(|why| unreadable(text, &why)))
            .collect::<Result<Vec<_>, Refusal>>()?;
        Ok(LabelSelector { requirements })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

#[cfg(any(test, lvault_fuzzing))]
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let written = self.requirements.iter().map(|requirement| match requirement {
            Requirement::In { key, values } => format!("{key} in ({})", values.join(",")),
            Requirement::NotIn { key, values } => format!("{key} notin ({})", values.join(",")),
            Requirement::Exists { key } => key.clone(),
            Requirement::Absent { key } => format!("!{key}"),
            Requirement::Above { key, bound } => format!("{key}>{bound}"),
            Requirement::Below { key, bound } => format!("{key}<{bound}"),
        });
        f.write_str(&written.collect::<Vec<_>>().join(","))
    }
}

fn unreadable(text: &str, why: &str) -> Refusal {
    Refusal::BadRequest(format!("unable to parse requirement: {why} (in the selector {text:?})"))
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Requirement::In { key, values } => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn { key, values } => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists { key } => labels.contains_key(key),
            Requirement::Absent { key } => !labels.contains_key(key),
            Requirement::Above { key, bound } => number(labels, key).is_some_and(|value| value > *bound),
            Requirement::Below { key, bound } => number(labels, key).is_some_and(|value| value < *bound),
        }
    }
}

fn number(labels: &BTreeMap<String, String>, key: &str) -> Option<i64> {
    labels.get(key)?.parse().ok()
}

pub(crate) fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Absent { key: key_of(key)? });
    }
    if part.ends_with(')') {
        return parse_set(part);
    }
    for (operator, build) in OPERATORS {
        if let Some((key, value)) = part.split_once(operator) {
            return build(key_of(key)?, value.trim());
        }
    }
    Ok(Requirement::Exists { key: key_of(part)? })
}

type Build = fn(String, &str) -> Result<Requirement, String>;

/// Longer operators first: `!=` and `==` contain `=`.
const OPERATORS: [(&str, Build); 5] = [
    ("!=", |key, value| Ok(Requirement::NotIn { key, values: vec![value_of(value)?] })),
    ("==", |key, value| Ok(Requirement::In { key, values: vec![value_of(value)?] })),
    ("=", |key, value| Ok(Requirement::In { key, values: vec![value_of(value)?] })),
    (">", |key, value| Ok(Requirement::Above { key, bound: bound_of(value)? })),
    ("<", |key, value| Ok(Requirement::Below { key, bound: bound_of(value)? })),
];

fn parse_set(part: &str) -> Result<Requirement, String> {
    let (head, list) =
        part.strip_suffix(')').and_then(|part| part.split_once('(')).ok_or("a parenthesis is not opened")?;
    let values = list.split(',').map(|value| value_of(value.trim())).collect::<Result<Vec<_>, _>>()?;
    let mut words = head.split_whitespace();
    let (key, operator, rest) = (words.next(), words.next(), words.next());
    match (key, operator, rest) {
        (Some(key), Some("in"), None) => Ok(Requirement::In { key: key_of(key)?, values }),
        (Some(key), Some("notin"), None) => Ok(Requirement::NotIn { key: key_of(key)?, values }),
        (_, _, _) => Err(format!("found {head:?}, expected: key in (...) or key notin (...)")),
    }
}

fn key_of(text: &str) -> Result<String, String> {
    let key = text.trim();
    names::qualified(key).map_err(|why| format!("key {key:?}: {why}"))?;
    Ok(String::from(key))
}

fn value_of(text: &str) -> Result<String, String> {
    names::label_value(text).map_err(|why| format!("value {text:?}: {why}"))?;
    Ok(String::from(text))
}

fn bound_of(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("value {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"))
}

impl FieldSelector {
    /// Parses the grammar of `fieldSelector`: `a=b,c!=d`, with backslashes before `,`, `=` and `\` in values.
    pub(crate) fn parse(text: &str) -> Result<FieldSelector, Refusal> {
        let parts = split_unescaped(text);
        let terms = parts.iter().filter(|part| !part.is_empty()).map(|part| parse_term(part));
        Ok(FieldSelector { terms: terms.collect::<Result<_, _>>()? })
    }
}

fn split_unescaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

fn parse_term(part: &str) -> Result<FieldTerm, Refusal> {
    let bad = || {
        Refusal::BadRequest(format!(
            "invalid selector: '{part}'; can't understand '{part}': use field=value or field!=value"
        ))
    };
    let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
        (field, value, false)
    } else if let Some((field, value)) = part.split_once("==") {
        (field, value, true)
    } else {
        let (field, value) = part.split_once('=').ok_or_else(bad)?;
        (field, value, true)
    };
    if field.trim().is_empty() {
        return Err(bad());
    }
    let value = unescape(value.trim()).ok_or_else(bad)?;
    Ok(FieldTerm { field: String::from(field.trim()), value, equal })
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => plain.push(characters.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            '=' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect()
    }

    #[test]
    fn label_selectors_match_as_kubernetes_says() {
        let set = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("other notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n<5", false),
            ("app in (web),!other,n>1", true),
            ("app=", false),
        ];
        for (text, expected) in cases {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.matches(&set), expected, "{text}");
        }
    }

    #[test]
    fn unreadable_label_selectors_are_refused() {
        for text in [",", "a=b c", "=x", "a in b", "a in (b", "a foo (b)", "a>x", "-a=b", "a=b/c"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn field_selectors() {
        let selector = FieldSelector::parse("metadata.name=a,spec.x!=b\\,c").expect("parses");
        let expected = [("metadata.name", "a", true), ("spec.x", "b,c", false)];
        let found: Vec<(&str, &str, bool)> =
            selector.terms.iter().map(|term| (term.field.as_str(), term.value.as_str(), term.equal)).collect();
        assert_eq!(found, expected);
        for text in ["metadata.name", "=x", "a=b=c"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }
}
