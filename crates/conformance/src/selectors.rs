//! Label and field selectors, in lists, watches and deletions.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, custom, events, fields, labels};
use crate::http::names;

cases! {
    Api labels {
        labels_are_compared: "Equality-based requirement",
        labels_are_in_sets: "Set-based requirement",
        labels_exist_or_not: "Set-based requirement",
        requirements_are_anded: "Label selectors",
        a_selector_that_cannot_be_read_is_refused: "Label selectors",
        built_in_kinds_are_selected_by_label: "Label selectors",
    }
    Api fields {
        names_are_selected: "Supported fields",
        an_unknown_field_is_refused: "Supported fields",
        fields_are_compared_both_ways: "Supported operators",
        field_selectors_are_chained: "Chained selectors",
        a_field_selector_that_cannot_be_read_is_refused: "Supported operators",
    }
    Api custom {
        declared_fields_are_selected: "CRD selectable fields",
    }
    Api events {
        events_are_selected_by_what_they_are_about: "Event",
        an_event_is_the_same_in_both_groups: "Event",
        an_event_is_in_the_namespace_of_what_it_is_about: "Event",
    }
}

/// Three objects with labels, in this order: `a` is env=prod, `b` env=test with tier, `c` has none.
async fn some(g: &Ground) {
    for (name, labels) in [("a", json!({"env": "prod"})), ("b", json!({"env": "test", "tier": ""})), ("c", json!({}))] {
        let mut object = g.widget(name);
        object["metadata"]["labels"] = labels;
        object["spec"]["nodeName"] = json!(format!("node-{name}"));
        g.http.post(&g.widgets(), &object).await.expect(201);
    }
}

async fn selected(g: &Ground, parameter: &str, cases: &[(&str, &[&str])]) {
    some(g).await;
    for (selector, expected) in cases {
        let path = format!("{}?{parameter}={}", g.widgets(), escaped(selector));
        let list = g.http.get(&path).await.expect(200);
        assert_eq!(names(&list), *expected, "{selector}");
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

async fn labels_are_compared(g: Ground) {
    let cases: [(&str, &[&str]); 6] = [
        ("env=prod", &["a"]),
        ("env==prod", &["a"]),
        ("env = prod", &["a"]),
        ("env!=prod", &["b", "c"]),
        ("tier=", &["b"]),
        ("env=Prod", &[]),
    ];
    selected(&g, "labelSelector", &cases).await;
}

async fn labels_are_in_sets(g: Ground) {
    let cases: [(&str, &[&str]); 4] = [
        ("env in (prod, test)", &["a", "b"]),
        ("env in (prod)", &["a"]),
        ("env notin (prod)", &["b", "c"]),
        ("env notin (prod,test)", &["c"]),
    ];
    selected(&g, "labelSelector", &cases).await;
}

async fn labels_exist_or_not(g: Ground) {
    let cases: [(&str, &[&str]); 4] =
        [("env", &["a", "b"]), ("!env", &["c"]), ("tier", &["b"]), ("!tier", &["a", "c"])];
    selected(&g, "labelSelector", &cases).await;
}

async fn requirements_are_anded(g: Ground) {
    let cases: [(&str, &[&str]); 4] =
        [("env,tier", &["b"]), ("env,!tier", &["a"]), ("env in (prod,test),env!=prod", &["b"]), ("", &["a", "b", "c"])];
    selected(&g, "labelSelector", &cases).await;
}

async fn a_selector_that_cannot_be_read_is_refused(g: Ground) {
    for selector in ["env in prod", "env in (", "=x", "a b", "env=a b", "-x=1", "env in (prod))", "!", ",,"] {
        let path = format!("{}?labelSelector={}", g.widgets(), escaped(selector));
        let answer = g.http.get(&path).await;
        assert_eq!((answer.code, &answer.body["reason"]), (400, &json!("BadRequest")), "{selector}: {}", answer.body);
    }
}

async fn built_in_kinds_are_selected_by_label(g: Ground) {
    for (name, label) in [("s1", "x"), ("s2", "y")] {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {"l": label}}});
        g.http.post(&g.secrets(), &object).await.expect(201);
    }
    let list = g.http.get(&format!("{}?labelSelector=l%3Dy", g.secrets())).await.expect(200);
    assert_eq!(names(&list), ["s2"]);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("SecretList"), &json!("v1")));
}

async fn names_are_selected(g: Ground) {
    let cases: [(&str, &[&str]); 2] = [("metadata.name=b", &["b"]), ("metadata.name=none", &[])];
    selected(&g, "fieldSelector", &cases).await;
}

async fn an_unknown_field_is_refused(g: Ground) {
    let path = format!("{}?fieldSelector=spec.size%3D1", g.widgets());
    g.http.get(&path).await.refused(400, "BadRequest");
}

async fn fields_are_compared_both_ways(g: Ground) {
    let cases: [(&str, &[&str]); 2] = [("metadata.name==b", &["b"]), ("metadata.name!=b", &["a", "c"])];
    selected(&g, "fieldSelector", &cases).await;
}

async fn field_selectors_are_chained(g: Ground) {
    let cases: [(&str, &[&str]); 2] =
        [("metadata.name!=a,metadata.name!=b", &["c"]), ("metadata.name=a,spec.nodeName=node-b", &[])];
    selected(&g, "fieldSelector", &cases).await;
}

async fn a_field_selector_that_cannot_be_read_is_refused(g: Ground) {
    for selector in ["metadata.name", "metadata.name in (a)"] {
        let path = format!("{}?fieldSelector={}", g.widgets(), escaped(selector));
        g.http.get(&path).await.refused(400, "BadRequest");
    }
}

async fn declared_fields_are_selected(g: Ground) {
    let cases: [(&str, &[&str]); 2] = [("spec.nodeName=node-b", &["b"]), ("spec.nodeName!=node-b", &["a", "c"])];
    selected(&g, "fieldSelector", &cases).await;
    let both = format!("{}?fieldSelector=spec.nodeName%3Dnode-a&labelSelector=env", g.widgets());
    assert_eq!(names(&g.http.get(&both).await.expect(200)), ["a"]);
}

fn event(g: &Ground, name: &str, about: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Tested", "message": "m",
        "type": "Normal", "involvedObject": {"apiVersion": format!("{}/v1", g.group), "kind": "Widget", "name": about,
                                             "namespace": g.namespace}})
}

async fn events_are_selected_by_what_they_are_about(g: Ground) {
    for (name, about) in [("e1", "a"), ("e2", "b")] {
        g.http.post(&g.events(), &event(&g, name, about)).await.expect(201);
    }
    for (selector, expected) in [
        ("involvedObject.name=b", vec!["e2"]),
        ("involvedObject.kind=Widget,reason=Tested", vec!["e1", "e2"]),
        ("type=Warning", vec![]),
        ("involvedObject.name=a,type=Normal", vec!["e1"]),
    ] {
        let path = format!("{}?fieldSelector={}", g.events(), escaped(selector));
        let list = g.http.get(&path).await.expect(200);
        let mine: Vec<&str> = names(&list).into_iter().filter(|name| name.starts_with('e')).collect();
        assert_eq!(mine, expected, "{selector}");
    }
}

async fn an_event_is_the_same_in_both_groups(g: Ground) {
    let created = g.http.post(&g.events(), &event(&g, "e1", "a")).await.expect(201);
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events/e1", g.namespace);
    let other = g.http.get(&path).await.expect(200);
    assert_eq!(other["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!((&other["note"], &other["regarding"]["name"]), (&json!("m"), &json!("a")));
    g.http.delete(&path).await.expect(200);
    g.gone(&format!("{}/e1", g.events())).await;
}

async fn an_event_is_in_the_namespace_of_what_it_is_about(g: Ground) {
    let mut wrong = event(&g, "e1", "a");
    wrong["involvedObject"]["namespace"] = json!("default");
    g.http.post(&g.events(), &wrong).await.invalid("FieldValueInvalid", "involvedObject.namespace");
}
