//! The subset of kubectl's JSONPath that printer columns and selectable fields use.
//!
//! Holds: a path is parsed once at registration; evaluating one cannot fail, it finds something or nothing.

use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Every,
    /// `[?(@.type=="Ready")]`: items whose value below the path equals the text or number.
    Where {
        path: Vec<Step>,
        equals: Value,
    },
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the JSONPath {path:?} cannot be read at {rest:?}; use .field, ['field'], [0], [*] and [?(@.field==\"value\")]"
)]
pub struct PathError {
    path: String,
    rest: String,
}

impl JsonPath {
    /// Parses `.spec.size`, `{.spec.size}` or `$.spec.size`.
    pub(crate) fn parse(text: &str) -> Result<JsonPath, PathError> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        match parse_steps(inner) {
            Ok(steps) => Ok(JsonPath { steps }),
            Err(rest) => Err(PathError { path: String::from(text), rest }),
        }
    }

    /// Everything the path finds.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        walk(&self.steps, root)
    }

    /// The first thing the path finds.
    pub(crate) fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).into_iter().next()
    }
}

fn walk<'a>(steps: &[Step], root: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![root];
    for step in steps {
        found = found.into_iter().flat_map(|value| take(step, value)).collect();
    }
    found
}

fn take<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let place = if *index < 0 { length + index } else { *index };
            usize::try_from(place).ok().and_then(|place| items.get(place)).into_iter().collect()
        }
        Step::Every => match (value.as_array(), value.as_object()) {
            (Some(items), _) => items.iter().collect(),
            (None, Some(object)) => object.values().collect(),
            (None, None) => Vec::new(),
        },
        Step::Where { path, equals } => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter(|item| walk(path, item).contains(&equals)).collect()
        }
    }
}

/// Parses steps; the error is what could not be read.
fn parse_steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (step, tail) = parse_step(rest).ok_or_else(|| String::from(rest))?;
        steps.extend(step);
        rest = tail;
    }
    Ok(steps)
}

/// One step and what follows it. A lone `.` is no step at all (`.` is the root).
fn parse_step(text: &str) -> Option<(Option<Step>, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = field_end(rest)?;
        let (name, tail) = rest.split_at(end);
        return match name {
            "" if tail.is_empty() || tail.starts_with('[') => Some((None, tail)),
            "" => None,
            "*" => Some((Some(Step::Every), tail)),
            name => Some((Some(Step::Field(name.replace("\\.", "."))), tail)),
        };
    }
    let rest = text.strip_prefix('[')?;
    if let Some(rest) = rest.strip_prefix("?(") {
        let (condition, tail) = rest.split_once(")]")?;
        return Some((Some(parse_condition(condition)?), tail));
    }
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let (name, tail) = rest.get(1..)?.split_once(quote)?;
        return Some((Some(Step::Field(String::from(name))), tail.strip_prefix(']')?));
    }
    let (inside, tail) = rest.split_once(']')?;
    if inside == "*" {
        return Some((Some(Step::Every), tail));
    }
    Some((Some(Step::Index(inside.parse().ok()?)), tail))
}

/// Where a field name ends: at the next `.` that no backslash precedes, or at a `[`.
fn field_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let end = (0..bytes.len()).find(|at| {
        let escaped = *at > 0 && bytes.get(at - 1) == Some(&b'\\');
        !escaped && matches!(bytes.get(*at), Some(b'.' | b'['))
    });
    Some(end.unwrap_or(bytes.len()))
}

fn parse_condition(text: &str) -> Option<Step> {
    let (left, right) = text.split_once("==")?;
    let path = parse_steps(left.trim().strip_prefix('@')?).ok()?;
    let right = right.trim();
    let unquoted = ['\'', '"'].iter().find_map(|quote| right.strip_prefix(*quote)?.strip_suffix(*quote));
    let equals = match unquoted {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Where { path, equals })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let root = json!({"spec": {"size": 3, "a.b": {"c": "dots"}, "list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        let cases = [
            (".spec.size", vec![json!(3)]),
            ("{.spec.size}", vec![json!(3)]),
            ("$.spec['a.b'].c", vec![json!("dots")]),
            (".spec.a\\.b.c", vec![json!("dots")]),
            (".spec.list[*].n", vec![json!(1), json!(2)]),
            (".spec.list[-1].n", vec![json!(2)]),
            (".spec.list[7].n", vec![]),
            (".status.conditions[?(@.type==\"Ready\")].status", vec![json!("True")]),
            (".status.conditions[?(@.type=='None')].status", vec![]),
            (".spec.missing.deeper", vec![]),
        ];
        for (path, expected) in cases {
            let parsed = JsonPath::parse(path).expect(path);
            let found: Vec<Value> = parsed.find(&root).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["spec", ".a[", ".a[x]", ".a..b", ".a[?(@.b)]", ".a['b]", "[?(x==1)]"] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }
}
