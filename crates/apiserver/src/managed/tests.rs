//! What writes make of objects and of who owns their fields: cases, and properties of random objects.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::apply::Applied;
use super::compare::tests::document;
use super::wire::to_wire;
use super::*;
use crate::registry::Registry;

fn registry() -> Registry {
    let schema = |spec: Value| {
        json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object", "properties": {
            "phase": {"type": "string"}}}}})
    };
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = |name: &str, storage: bool, spec: Value| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
               "schema": {"openAPIV3Schema": schema(spec)}})
    };
    Registry::build(&[json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com",
        "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
        "versions": [version("v1", true, document()), version("v2", false, free)]}})])
    .expect("builds")
}

/// One author after the other, on one object.
struct Story {
    registry: Registry,
    object: Value,
    entries: Vec<Entry>,
    second: i64,
}

impl Story {
    fn new() -> Story {
        Story { registry: registry(), object: Value::Null, entries: Vec::new(), second: 0 }
    }

    fn author<'a>(&'a self, manager: &'a str, version: &str, subresource: &'a str) -> Author<'a> {
        let view = self.registry.find("example.com", version, "things").expect("a view");
        let now = Timestamp::from_second(self.second).expect("a time");
        Author { registry: &self.registry, view, manager, subresource, now }
    }

    fn live(&self) -> Option<&Value> {
        (!self.object.is_null()).then_some(&self.object)
    }

    fn update(&mut self, manager: &str, object: &Value) {
        self.second += 1;
        let entries = self.author(manager, "v1", "").update(self.live(), object, self.entries.clone());
        (self.entries, self.object) = (entries, object.clone());
    }

    fn try_apply(&mut self, manager: &str, applied: &Value, force: bool) -> Result<(), Refused> {
        self.second += 1;
        let Applied { object, entries } =
            self.author(manager, "v1", "").apply(self.live(), applied, self.entries.clone(), force)?;
        (self.entries, self.object) = (entries, object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, spec: &Value) {
        self.try_apply(manager, &with(spec), false).unwrap_or_else(|refused| panic!("{manager}: {refused:?}"));
    }

    fn conflicts(&mut self, manager: &str, spec: &Value) -> Vec<(String, String)> {
        match self.try_apply(manager, &with(spec), false) {
            Err(Refused::Conflicts(conflicts)) => conflicts,
            other => panic!("{other:?}"),
        }
    }

    /// What a manager owns of the spec.
    fn owned(&self, manager: &str) -> Value {
        let entry = self.entries.iter().find(|entry| entry.manager == manager);
        entry.map_or(Value::Null, |entry| to_wire(&entry.fields)["f:spec"].clone())
    }
}

fn with(spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut story = Story::new();
    story.update("one", &with(&json!({"a": "x", "map": {"k": "v"}})));
    assert_eq!(story.owned("one"), json!({".": {}, "f:a": {}, "f:map": {".": {}, "f:k": {}}}));
    story.update("two", &with(&json!({"a": "y", "map": {"k": "v"}})));
    assert_eq!(story.owned("one"), json!({".": {}, "f:map": {".": {}, "f:k": {}}}));
    assert_eq!(story.owned("two"), json!({"f:a": {}}));
    story.update("two", &with(&json!({"a": "y"})));
    assert_eq!(story.owned("one"), json!({}));
    assert_eq!(story.entries[0].fields.paths().len(), 1, "the spec itself");
    let before = story.entries.clone();
    story.update("three", &with(&json!({"a": "y"})));
    assert_eq!(story.entries, before, "what changes nothing owns nothing");
    story.entries.clear();
    story.update("three", &with(&json!({"a": "z"})));
    assert!(story.entries.is_empty(), "what is not tracked stays so");
}

#[test]
fn conflicts_sharing_and_force() {
    let mut story = Story::new();
    story.apply("one", &json!({"a": "x", "b": 1}));
    story.apply("two", &json!({"a": "x"}));
    assert_eq!((story.owned("one"), story.owned("two")), (json!({"f:a": {}, "f:b": {}}), json!({"f:a": {}})));
    let conflict = |manager: &str, field: &str| (format!("{manager:?}"), String::from(field));
    assert_eq!(
        story.conflicts("two", &json!({"a": "y", "b": 2})),
        [conflict("one", ".spec.a"), conflict("one", ".spec.b")]
    );
    story.apply("two", &json!({"a": "x"}));
    story.try_apply("two", &with(&json!({"a": "y"})), true).expect("forced");
    assert_eq!((story.owned("one"), story.owned("two")), (json!({"f:b": {}}), json!({"f:a": {}})));
    // An owner may let go: the value stays with the other.
    story.apply("one", &json!({"a": "y", "b": 1}));
    story.apply("two", &json!({}));
    assert_eq!(story.object["spec"], json!({"a": "y", "b": 1}));
    // An update is an owner of its own, even of the same name.
    let mut changed = story.object.clone();
    changed["spec"]["b"] = json!(5);
    story.update("one", &changed);
    let expected = [(String::from("\"one\" using example.com/v1"), String::from(".spec.b"))];
    assert_eq!(story.conflicts("one", &json!({"b": 1})), expected);
}

#[test]
fn what_is_no_longer_applied_goes() {
    let mut story = Story::new();
    let list = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
    story.apply("one", &json!({"a": "x", "map": {"k": "v", "l": "w"}, "list": list(&["p", "q"]), "set": ["s", "t"]}));
    story.apply("two", &json!({"map": {"m": "1"}, "list": list(&["r"]), "set": ["t"]}));
    story.apply("one", &json!({"map": {"l": "w"}, "list": list(&["q"])}));
    assert_eq!(story.object["spec"], json!({"map": {"l": "w", "m": "1"}, "list": list(&["q", "r"]), "set": ["t"]}));
    story.apply("one", &json!({}));
    assert_eq!(story.object["spec"], json!({"map": {"m": "1"}, "list": list(&["r"]), "set": ["t"]}));
    story.apply("two", &json!({}));
    assert_eq!(story.object["spec"], Value::Null, "nothing is left of it");
    // An item goes with whoever owns it, and what somebody else put into it goes along.
    let mut story = Story::new();
    story.apply("one", &json!({"list": [{"name": "p", "n": 1}]}));
    let mut changed = story.object.clone();
    changed["spec"]["list"][0]["more"] = json!({"x": "theirs"});
    story.update("them", &changed);
    story.apply("one", &json!({}));
    assert_eq!(story.object["spec"], json!({"list": null}));
    assert_eq!(story.owned("them"), Value::Null);
    // What is in an item of ours that we do not own as an item stays.
    let mut story = Story::new();
    story.update("them", &with(&json!({"list": [{"name": "p", "more": {"x": "theirs"}}]})));
    story.apply("one", &json!({"list": [{"name": "p", "n": 1}]}));
    story.apply("one", &json!({}));
    assert_eq!(story.object["spec"]["list"], json!([{"name": "p", "more": {"x": "theirs"}}]));
}

#[test]
fn an_untracked_object_belongs_to_before_first_apply() {
    let mut story = Story::new();
    story.object = with(&json!({"a": "x", "b": 1}));
    let expected = [(String::from("\"before-first-apply\" using example.com/v1"), String::from(".spec.a"))];
    assert_eq!(story.conflicts("one", &json!({"a": "y"})), expected);
    story.apply("one", &json!({"a": "x"}));
    assert_eq!(story.owned("before-first-apply"), json!({".": {}, "f:a": {}, "f:b": {}}));
    assert_eq!(story.entries.iter().find(|entry| entry.manager == "one").and_then(|entry| entry.time), None);
}

#[test]
fn main_and_status_own_their_own_half() {
    let story = Story::new();
    let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"a": "x"}, "status": {"phase": "Done"}});
    let mut applied = object.clone();
    applied["apiVersion"] = json!("example.com/v1");
    let fields = |subresource: &str| {
        let author = story.author("one", "v1", subresource);
        let updated = author.update(None, &object, Vec::new());
        let applied = author.apply(None, &applied, Vec::new(), false).expect("applies");
        (to_wire(&updated[0].fields), to_wire(&applied.entries[0].fields), updated[0].subresource.clone())
    };
    let (updated, applied, _) = fields("");
    assert_eq!(updated, json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {".": {}, "f:a": {}}}));
    assert_eq!(applied, json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:a": {}}}));
    let (updated, applied, subresource) = fields("status");
    assert_eq!(updated, json!({"f:status": {".": {}, "f:phase": {}}}));
    assert_eq!(applied, json!({"f:status": {"f:phase": {}}}));
    assert_eq!(subresource, "status");
}

#[test]
fn versions_are_translated_and_unserved_ones_forgotten() {
    let mut story = Story::new();
    story.apply("one", &json!({"a": "x", "map": {"k": "v"}}));
    // The same applier in another version: still the same.
    let applied =
        json!({"apiVersion": "example.com/v2", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"a": "x"}});
    let mut live = story.object.clone();
    live["apiVersion"] = json!("example.com/v2");
    let author = story.author("one", "v2", "");
    let after = author.apply(Some(&live), &applied, story.entries.clone(), false).expect("applies");
    assert_eq!(after.object["spec"], json!({"a": "x"}));
    assert_eq!(after.object["apiVersion"], "example.com/v2");
    assert_eq!(after.entries.iter().map(|entry| entry.api_version.as_str()).collect::<Vec<_>>(), ["example.com/v2"]);
    // A conflict is found across versions.
    let mut other = applied.clone();
    other["spec"]["a"] = json!("y");
    let refused = story.author("two", "v2", "").apply(Some(&live), &other, story.entries.clone(), false);
    assert_eq!(refused.err(), Some(Refused::Conflicts(vec![(String::from("\"one\""), String::from(".spec.a"))])));
    story.entries[0].api_version = String::from("example.com/v0");
    story.update("two", &with(&json!({"a": "x", "map": {"k": "v"}, "b": 1})));
    assert_eq!(story.entries.iter().map(|entry| entry.manager.as_str()).collect::<Vec<_>>(), ["two"]);
}

#[test]
fn kubectl_continues_what_it_applied_from_the_clients_side() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let by_client = |spec: Value, live: Value| {
        let mut object = with(&live);
        object["metadata"]["annotations"] = json!({LAST: with(&spec).to_string()});
        object
    };
    let mut story = Story::new();
    story.update("kubectl-client-side-apply", &by_client(json!({"a": "x", "b": 1}), json!({"a": "x", "b": 1})));
    story.apply("kubectl", &json!({"a": "y", "b": 1}));
    assert_eq!(story.object["spec"]["a"], "y");
    let remembered = story.object["metadata"]["annotations"][LAST].as_str().expect("still there");
    assert_eq!(serde_json::from_str::<Value>(remembered).expect("JSON"), with(&json!({"a": "y", "b": 1})));
    // What it did not write, or has changed since, is not its own; and nobody else may do so.
    let mut story = Story::new();
    story.update("editor", &by_client(json!({"a": "x"}), json!({"a": "z", "b": 1})));
    assert_eq!(story.conflicts("kubectl", &json!({"a": "y", "b": 1})).len(), 1);
    let mut story = Story::new();
    story.update("editor", &by_client(json!({"a": "x"}), json!({"a": "x"})));
    assert_eq!(story.conflicts("argo", &json!({"a": "y"})).len(), 1);
    // Too large to be remembered: forgotten rather than refused.
    let mut story = Story::new();
    story.update("editor", &by_client(json!({"a": "x"}), json!({"a": "x"})));
    story.apply("kubectl", &json!({"a": "y".repeat(300 * 1024)}));
    assert_eq!(story.object["metadata"]["annotations"].get(LAST), None);
}

fn texts() -> impl Strategy<Value = Value> {
    "[x-z]".prop_map(Value::from)
}

fn keyed(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[k-n]", of, 1..3)
        .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into())
}

fn item(name: String, n: Option<i64>, x: Option<Value>) -> Value {
    let mut item = json!({"name": name});
    if let Some(n) = n {
        item["n"] = json!(n);
    }
    if let Some(x) = x {
        item["more"] = json!({"x": x});
    }
    item
}

/// A random spec for the schema, without empty parts.
fn spec() -> impl Strategy<Value = Value> {
    let parts = (proptest::option::of(0..3_i64), proptest::option::of(texts()));
    let list = proptest::collection::btree_map("[p-r]", parts, 1..3)
        .prop_map(|items| items.into_iter().map(|(name, (n, x))| item(name, n, x)).collect::<Vec<_>>())
        .prop_shuffle();
    let set = proptest::collection::btree_set("[s-u]", 1..3)
        .prop_map(|set| set.into_iter().collect::<Vec<_>>())
        .prop_shuffle();
    let free = keyed(prop_oneof![texts(), keyed(texts()), Just(json!([1]))]);
    let parts = (
        proptest::option::of(texts()),
        proptest::option::of((0..3_i64).prop_map(Value::from)),
        proptest::option::of(texts().prop_map(|x| json!({"x": x}))),
        proptest::option::of(keyed(texts())),
        proptest::option::of(keyed(texts().prop_map(|x| json!({"x": x})))),
        proptest::option::of(keyed(texts())),
        proptest::option::of(list.prop_map(Value::from)),
        proptest::option::of(set.prop_map(Value::from)),
        proptest::option::of(free),
    );
    parts.prop_map(|(a, b, part, map, deep, whole, list, set, free)| {
        let names = ["a", "b", "struct", "map", "deep", "whole", "list", "set", "free"];
        let values = [a, b, part, map, deep, whole, list, set, free];
        let fields = names.into_iter().zip(values).filter_map(|(name, value)| Some((String::from(name), value?)));
        Value::Object(fields.collect())
    })
}

fn spec_of(object: &Value) -> Value {
    // Null is what is left of a part that lost everything in it.
    object.get("spec").filter(|spec| !spec.is_null()).cloned().unwrap_or_else(|| json!({}))
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(first in spec(), second in spec(), mine in spec()) {
        let mut story = Story::new();
        story.update("editor", &with(&first));
        story.try_apply("other", &with(&second), true).expect("applies");
        story.try_apply("me", &with(&mine), true).expect("applies");
        let (object, entries) = (story.object.clone(), story.entries.clone());
        story.try_apply("me", &with(&mine), false).expect("what is one's own is no conflict");
        prop_assert_eq!(&story.object, &object);
        prop_assert_eq!(&story.entries, &entries);
    }

    #[test]
    fn letting_go_removes_exactly_what_was_owned_alone(mine in spec(), theirs in spec()) {
        let mut story = Story::new();
        story.try_apply("me", &with(&mine), true).expect("applies");
        story.try_apply("they", &with(&theirs), true).expect("applies");
        story.try_apply("me", &with(&json!({})), false).expect("applies");
        prop_assert_eq!(spec_of(&story.object), theirs);
        prop_assert_eq!(story.owned("me"), json!({}), "the empty spec is still applied");
    }

    #[test]
    fn what_is_applied_is_there_and_owned(first in spec(), mine in spec()) {
        let mut story = Story::new();
        story.update("editor", &with(&first));
        story.try_apply("me", &with(&mine), true).expect("applies");
        let schema = compare::tests::schema();
        let node = Node::Typed(&schema);
        let diff = compare(node, &mine, &spec_of(&story.object));
        prop_assert!(diff.removed.is_empty());
        prop_assert!(diff.changed.intersection(&compare::field_set(node, &mine)).is_empty());
    }

    #[test]
    fn updates_leave_every_field_one_owner(specs in proptest::collection::vec(("[a-c]", spec()), 1..6)) {
        let mut story = Story::new();
        for (manager, spec) in &specs {
            story.update(manager, &with(spec));
        }
        let author = story.author("a", "v1", "");
        let all = author.ownable(&compare(author.node(author.view), &json!({}), &story.object).changed);
        let mut owned = FieldSet::default();
        for entry in &story.entries {
            prop_assert!(owned.intersection(&entry.fields).is_empty());
            owned = owned.union(&entry.fields);
        }
        prop_assert_eq!(owned, all);
    }
}
