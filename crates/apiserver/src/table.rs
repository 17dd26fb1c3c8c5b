//! Tables: what kubectl prints, rendered by the server.
//!
//! Holds: columns are those of the kind; ages are those of the moment the table is made.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::column::{Cell, Column};

/// What a row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// The column definitions. Every table begins with the name, but that of events with its time.
pub(crate) fn columns(columns: &[Column], named: bool) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
                      "description": "Name must be unique within a namespace."});
    let declared = columns.iter().map(|column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
               "description": column.description, "priority": column.priority})
    });
    named.then_some(name).into_iter().chain(declared).collect()
}

/// One row. `object` is the stored form, which the columns are about; `served` is what the row carries.
pub(crate) fn row(
    columns: &[Column],
    named: bool,
    object: &Value,
    served: &Value,
    include: Include,
    now: Timestamp,
) -> Value {
    let name = named.then(|| object["metadata"]["name"].clone());
    let cells: Vec<Value> = name.into_iter().chain(columns.iter().map(|column| cell(column, object, now))).collect();
    let carried = match include {
        Include::None => return json!({"cells": cells}),
        Include::Metadata => partial(served),
        Include::Object => served.clone(),
    };
    json!({"cells": cells, "object": carried})
}

/// An object's metadata alone.
pub(crate) fn partial(served: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": served["metadata"]})
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    match &column.cell {
        Cell::Path(path) => typed(&column.kind, path.first(object)),
        Cell::Age(paths) => paths
            .iter()
            .find_map(|path| path.first(object).and_then(Value::as_str)?.parse::<Timestamp>().ok())
            .map_or(Value::Null, |time| Value::from(age(time, now))),
        Cell::Count(path) => json!(path.first(object).map_or(0, |found| match found {
            Value::Object(entries) => entries.len(),
            Value::Array(entries) => entries.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        })),
        Cell::Reference(path) => path.first(object).map_or(Value::Null, |reference| {
            let text = |field: &str| reference[field].as_str().unwrap_or_default();
            json!(format!("{}/{}", text("kind"), text("name")))
        }),
        Cell::Subject(path) => path.first(object).map_or(Value::Null, |subject| {
            let text = |field: &str| subject[field].as_str().unwrap_or_default();
            json!(format!("{}/{}", text("kind").to_lowercase(), text("name")))
        }),
    }
}

/// A value as its column's type wants it; one of another type is left out, except that text shows anything.
fn typed(kind: &str, value: Option<&Value>) -> Value {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Value::Null;
    };
    let fits = match kind {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _text => return value.as_str().map_or_else(|| Value::from(value.to_string()), Value::from),
    };
    if fits { value.clone() } else { Value::Null }
}

/// How long ago, as kubectl prints it.
fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - time.as_second();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |whole: i64, unit: &str, rest: i64, rest_unit: &str| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{rest_unit}") }
    };
    match seconds {
        ..=-2 => String::from("<invalid>"),
        -1 => String::from("0s"),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (660, "11m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600 + 60, "9h"),
            (50 * 3600, "2d2h"),
            (10 * 86_400, "10d"),
            (800 * 86_400, "2y70d"),
            (9 * 365 * 86_400, "9y"),
        ];
        let start = Timestamp::from_second(1_700_000_000).expect("a time");
        for (seconds, expected) in cases {
            let now = Timestamp::from_second(1_700_000_000 + seconds).expect("a time");
            assert_eq!(age(start, now), expected, "{seconds} s");
        }
    }

    #[test]
    fn values_fit_their_column() {
        assert_eq!(typed("integer", Some(&json!(3))), json!(3));
        assert_eq!(typed("integer", Some(&json!("3"))), Value::Null);
        assert_eq!(typed("string", Some(&json!(3))), json!("3"));
        assert_eq!(typed("string", None), Value::Null);
        assert_eq!(typed("boolean", Some(&json!(true))), json!(true));
    }
}
