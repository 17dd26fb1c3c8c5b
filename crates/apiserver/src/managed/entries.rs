//! `metadata.managedFields`: who owns which fields, one entry for each way in which somebody writes.
//!
//! Holds: two entries never stand for the same manager, operation, subresource and (for updates) version; an entry owns
//! at least one field.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fields::FieldSet;
use super::wire;
use crate::sources::seconds;

/// Most entries of updates; beyond, the oldest become one.
const MOST_UPDATES: usize = 10;

/// Who the oldest updates are put down to.
const ANCIENT: &str = "ancient-changes";

/// How a manager writes. In the order in which entries are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    /// The version in which `fields` are named.
    pub(crate) api_version: String,
    /// Empty: the main resource.
    pub(crate) subresource: String,
    /// When the manager last changed something.
    pub(crate) time: Option<Timestamp>,
    pub(crate) fields: FieldSet,
}

impl Entry {
    /// Whether both stand for the same way of writing. An applier is the same in every version.
    pub(crate) fn is_of(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as a conflict names it.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        match self.operation {
            Operation::Apply => text,
            Operation::Update => format!("{text} using {}", self.api_version),
        }
    }

    fn second(&self) -> i64 {
        self.time.map_or(0, Timestamp::as_second)
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "manager": self.manager, "operation": self.operation.word(), "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": wire::to_wire(&self.fields),
        });
        if let Some(time) = self.time {
            document["time"] = json!(seconds(time));
        }
        if !self.subresource.is_empty() {
            document["subresource"] = json!(self.subresource);
        }
        document
    }

    fn read(document: &Value) -> Option<Entry> {
        let text = |field: &str| document[field].as_str().unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _other => return None,
        };
        if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let nothing = json!({});
        Some(Entry {
            manager: String::from(text("manager")),
            operation,
            api_version: String::from(text("apiVersion")),
            subresource: String::from(text("subresource")),
            time: text("time").parse().ok(),
            fields: wire::from_wire(document.get("fieldsV1").unwrap_or(&nothing))?,
        })
    }
}

/// Reads the entries of an object; none when one of them is not readable.
pub(crate) fn read(managed_fields: &Value) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for document in managed_fields.as_array().into_iter().flatten() {
        let entry = Entry::read(document)?;
        entries.retain(|other| !other.is_of(&entry));
        entries.push(entry);
    }
    Some(entries)
}

/// The entries as they stand in an object; null when there are none.
pub(crate) fn write(mut entries: Vec<Entry>) -> Value {
    entries.retain(|entry| !entry.fields.is_empty());
    if entries.is_empty() {
        return Value::Null;
    }
    entries.sort_by(|a, b| {
        let place = |entry: &Entry| (entry.operation, entry.second());
        place(a)
            .cmp(&place(b))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    Value::Array(entries.iter().map(Entry::document).collect())
}

/// The entries a write starts from: those it brings, or else those that stand. A list that is empty, or holds a single
/// empty entry, takes all entries away; one that cannot be read is ignored, as is one from a client that knows none.
pub(crate) fn brought(said: &Value, standing: &Value) -> Vec<Entry> {
    let is_reset = match said.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        Some(_) | None => false,
    };
    if is_reset {
        return Vec::new();
    }
    match read(said) {
        Some(entries) if !entries.is_empty() => entries,
        Some(_) | None => read(standing).unwrap_or_default(),
    }
}

/// Puts the oldest updates of a version together until there are no more than may be.
pub(crate) fn cap(entries: &mut Vec<Entry>) {
    let updates = |entries: &[Entry]| entries.iter().filter(|entry| entry.operation == Operation::Update).count();
    if updates(entries) <= MOST_UPDATES {
        return;
    }
    let mut oldest: Vec<Entry> = Vec::new();
    entries.retain(|entry| {
        let is_update = entry.operation == Operation::Update;
        if is_update {
            oldest.push(entry.clone());
        }
        !is_update
    });
    oldest.sort_by(|a, b| a.second().cmp(&b.second()).then_with(|| a.shown().cmp(&b.shown())));
    let mut at = 1;
    while oldest.len() > MOST_UPDATES && at < oldest.len() {
        let (earlier, rest) = oldest.split_at_mut(at);
        let Some(next) = rest.first() else {
            break;
        };
        match earlier.iter_mut().find(|entry| entry.api_version == next.api_version) {
            None => at += 1,
            Some(first) => {
                first.fields = first.fields.union(&next.fields);
                first.time = next.time;
                first.manager = String::from(ANCIENT);
                first.subresource = String::new();
                oldest.remove(at);
            }
        }
    }
    entries.append(&mut oldest);
}

/// Whether two objects are the same, whenever it was that their managers last wrote.
pub(crate) fn same_but_for_times(a: &Value, b: &Value) -> bool {
    same_fields(Some(a), Some(b), "metadata", |a, b| same_fields(a, b, "managedFields", same_entries))
}

/// Entries are listed by time, so that their order is none of their own.
fn same_entries(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.and_then(Value::as_array), b.and_then(Value::as_array)) {
        (Some(a), Some(b)) => {
            let same = |a: &Value, b: &Value| same_fields(Some(a), Some(b), "time", |_, _| true);
            a.len() == b.len() && a.iter().all(|one| b.iter().any(|other| same(one, other)))
        }
        (_, _) => a == b,
    }
}

/// Whether two objects have the same fields with the same values, one of the fields compared in its own way.
fn same_fields(
    a: Option<&Value>,
    b: Option<&Value>,
    special: &str,
    same: fn(Option<&Value>, Option<&Value>) -> bool,
) -> bool {
    let (Some(a), Some(b)) = (a.and_then(Value::as_object), b.and_then(Value::as_object)) else {
        return a == b;
    };
    let mut names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
    names.all(|name| if name == special { same(a.get(name), b.get(name)) } else { a.get(name) == b.get(name) })
}

#[cfg(test)]
mod tests {
    use super::super::fields::Step;
    use super::*;

    fn entry(manager: &str, operation: Operation, second: i64) -> Entry {
        let fields = [vec![Step::Field(String::from(manager))]].into_iter().collect();
        let time = Timestamp::from_second(second).ok();
        let (api_version, subresource) = (String::from("v1"), String::new());
        Entry { manager: String::from(manager), operation, api_version, subresource, time, fields }
    }

    #[test]
    fn entries_are_written_in_order_and_read_back() {
        let mut status = entry("a", Operation::Update, 5);
        status.subresource = String::from("status");
        let entries = vec![
            entry("b", Operation::Update, 3),
            status,
            entry("a", Operation::Update, 5),
            entry("z", Operation::Apply, 9),
        ];
        let written = write(entries);
        let names: Vec<&str> =
            written.as_array().expect("a list").iter().filter_map(|one| one["manager"].as_str()).collect();
        assert_eq!(names, ["z", "b", "a", "a"]);
        assert_eq!(
            written[3],
            json!({"manager": "a", "operation": "Update", "apiVersion": "v1", "subresource": "status",
                   "time": "1970-01-01T00:00:05Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}})
        );
        assert_eq!(write(read(&written).expect("readable")), written);
        assert_eq!(write(Vec::new()), Value::Null);
    }

    #[test]
    fn what_a_write_brings_counts_unless_it_cannot_be_read() {
        let standing = write(vec![entry("a", Operation::Update, 1)]);
        let other = write(vec![entry("b", Operation::Update, 1)]);
        let check = |said: Value, expected: &[&str]| {
            let found = brought(&said, &standing);
            assert_eq!(found.iter().map(|entry| entry.manager.as_str()).collect::<Vec<_>>(), expected, "{said}");
        };
        check(Value::Null, &["a"]);
        check(other.clone(), &["b"]);
        check(json!([]), &[]);
        check(json!([{}]), &[]);
        check(json!([{}, {}]), &["a"]);
        for (field, wrong) in [("operation", "Odd"), ("apiVersion", ""), ("fieldsType", "FieldsV2"), ("fieldsV1", "x")]
        {
            let mut broken = other.clone();
            broken[0][field] = json!(wrong);
            check(broken, &["a"]);
        }
    }

    #[test]
    fn the_oldest_updates_become_one() {
        let mut entries: Vec<Entry> =
            (0..12).map(|index| entry(&format!("m{index:02}"), Operation::Update, index)).collect();
        entries.push(entry("applier", Operation::Apply, 0));
        cap(&mut entries);
        assert_eq!(entries.len(), 11);
        let ancient = entries.iter().find(|entry| entry.manager == ANCIENT).expect("an entry of old");
        assert_eq!(ancient.fields.paths().len(), 3);
        assert_eq!(ancient.second(), 2);
        assert!(entries.iter().any(|entry| entry.manager == "m03"));
        let before = entries.clone();
        cap(&mut entries);
        assert_eq!(entries, before, "what is few enough stays");
    }

    #[test]
    fn times_alone_are_no_change() {
        let object = |time: Value, manager: &str| json!({"metadata": {"name": "a", "managedFields": [{"manager": manager, "time": time}]}, "spec": {"time": time}});
        let one = object(json!("1"), "a");
        let mut later = one.clone();
        later["metadata"]["managedFields"][0]["time"] = json!("2");
        assert!(same_but_for_times(&one, &later));
        let mut without = one.clone();
        without["metadata"]["managedFields"][0].as_object_mut().expect("an object").remove("time");
        assert!(same_but_for_times(&one, &without) && same_but_for_times(&without, &one));
        assert!(!same_but_for_times(&one, &object(json!("1"), "b")));
        assert!(!same_but_for_times(&one, &object(json!("2"), "a")), "a time elsewhere counts");
        let listed = |managers: [&str; 2]| {
            let entries = managers.map(|manager| json!({"manager": manager, "time": managers[0]}));
            json!({"metadata": {"managedFields": entries}})
        };
        assert!(same_but_for_times(&listed(["a", "b"]), &listed(["b", "a"])), "they are listed by time");
        assert!(!same_but_for_times(&listed(["a", "b"]), &listed(["b", "c"])));
        let mut more = one.clone();
        more["metadata"]["managedFields"] = Value::Null;
        assert!(!same_but_for_times(&one, &more) && !same_but_for_times(&more, &one));
        more["metadata"].as_object_mut().expect("an object").remove("managedFields");
        assert!(!same_but_for_times(&one, &more) && !same_but_for_times(&more, &one));
    }
}
