//! Server-side apply: what it makes of an object.

use serde_json::{Value, json};

use crate::ground::{Ground, apply, cases};
use crate::http::{Answer, version};

cases! {
    Apply apply {
        an_applied_object_is_created: "Server-Side Apply",
        an_applied_object_is_created_only_once: "Server-Side Apply",
        applying_the_same_changes_nothing: "Server-Side Apply",
        applying_needs_a_manager: "Managers",
        applying_takes_yaml: "Serialization",
        applying_is_validated: "Server-Side Apply",
        a_field_no_longer_applied_is_removed: "Field management",
        a_field_of_another_stays: "Field management",
        lists_with_keys_are_merged: "Merge strategy",
        sets_are_merged: "Merge strategy",
        plain_lists_are_replaced: "Merge strategy",
        atomic_maps_are_replaced: "Merge strategy",
        maps_are_merged: "Merge strategy",
        an_item_no_longer_applied_is_removed: "Merge strategy",
        labels_are_merged: "Merge strategy",
        a_key_is_applied_once: "Merge strategy",
        an_applied_version_is_a_condition: "Server-Side Apply",
        an_applied_uid_is_a_condition: "Server-Side Apply",
        an_applied_object_has_the_name_of_the_path: "Server-Side Apply",
        a_dry_run_of_apply_changes_nothing: "Server-Side Apply",
        a_status_is_applied: "Server-Side Apply",
        defaults_appear_when_applying: "Server-Side Apply",
        built_in_kinds_are_applied: "Server-Side Apply",
        force_is_for_applying: "Conflicts",
    }
}

/// Applies a spec, by a manager.
async fn applied(g: &Ground, manager: &str, spec: &Value) -> Answer {
    g.http.apply(&g.at("a"), manager, &g.widget_of("a", spec)).await
}

async fn an_applied_object_is_created(g: Ground) {
    let created = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    assert_eq!((&created["spec"]["size"], &created["metadata"]["generation"]), (&json!(1), &json!(1)));
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), created);
}

async fn an_applied_object_is_created_only_once(g: Ground) {
    let created = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    let changed = applied(&g, "one", &json!({"size": 2})).await.expect(200);
    assert_eq!(changed["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!((&changed["spec"]["size"], &changed["metadata"]["generation"]), (&json!(2), &json!(2)));
}

async fn applying_the_same_changes_nothing(g: Ground) {
    let created = applied(&g, "one", &json!({"size": 1, "tags": ["a"]})).await.expect(201);
    let again = applied(&g, "one", &json!({"size": 1, "tags": ["a"]})).await.expect(200);
    assert_eq!(version(&again), version(&created));
}

async fn applying_needs_a_manager(g: Ground) {
    let answer = g.http.apply(&g.at("a"), "", &g.widget("a")).await;
    answer.invalid("FieldValueRequired", "fieldManager");
    let long = "x".repeat(129);
    g.http.apply(&g.at("a"), &long, &g.widget("a")).await.refused(422, "Invalid");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn applying_takes_yaml(g: Ground) {
    let text =
        format!("apiVersion: {}/v1\nkind: Widget\nmetadata: {{name: a}}\nspec:\n  size: 3\n  tags: [x]\n", g.group);
    let path = format!("{}?fieldManager=one", g.at("a"));
    let headers = [("content-type", "application/apply-patch+yaml")];
    let answer = g.http.send(http::Method::PATCH, &path, &headers, text.into_bytes()).await;
    assert_eq!(answer.expect(201)["spec"]["tags"], json!(["x"]));
}

async fn applying_is_validated(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 10})).await.invalid("FieldValueInvalid", "spec.count");
    applied(&g, "one", &json!({"count": 1})).await.invalid("FieldValueRequired", "spec.size");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn a_field_no_longer_applied_is_removed(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3, "labels": {"x": "1", "y": "2"}})).await.expect(201);
    let changed = applied(&g, "one", &json!({"size": 1, "labels": {"y": "2"}})).await.expect(200);
    assert_eq!((changed["spec"].get("count"), &changed["spec"]["labels"]), (None, &json!({"y": "2"})));
}

async fn a_field_of_another_stays(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    applied(&g, "two", &json!({"code": "abc"})).await.expect(200);
    let changed = applied(&g, "one", &json!({"size": 1})).await.expect(200);
    assert_eq!((changed["spec"].get("count"), &changed["spec"]["code"]), (None, &json!("abc")));
}

async fn lists_with_keys_are_merged(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "ports": [{"name": "a", "port": 1}]})).await.expect(201);
    let changed = applied(&g, "two", &json!({"ports": [{"name": "b", "port": 2}]})).await.expect(200);
    let expected = json!([{"name": "a", "port": 1, "protocol": "TCP"}, {"name": "b", "port": 2, "protocol": "TCP"}]);
    assert_eq!(changed["spec"]["ports"], expected);
}

async fn sets_are_merged(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "tags": ["a", "b"]})).await.expect(201);
    let changed = applied(&g, "two", &json!({"tags": ["c"]})).await.expect(200);
    let mut tags: Vec<&str> =
        changed["spec"]["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["a", "b", "c"]);
}

async fn plain_lists_are_replaced(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "words": ["a", "b"]})).await.expect(201);
    let changed = applied(&g, "one", &json!({"size": 1, "words": ["c"]})).await.expect(200);
    assert_eq!(changed["spec"]["words"], json!(["c"]));
    applied(&g, "two", &json!({"words": ["d"]})).await.refused(409, "Conflict");
}

async fn atomic_maps_are_replaced(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "weights": {"x": 1, "y": 2}})).await.expect(201);
    applied(&g, "two", &json!({"weights": {"z": 3}})).await.refused(409, "Conflict");
    let forced = applied(&g, "two&force=true", &json!({"weights": {"z": 3}})).await.expect(200);
    assert_eq!(forced["spec"]["weights"], json!({"z": 3}));
}

async fn maps_are_merged(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "labels": {"x": "1"}})).await.expect(201);
    let changed = applied(&g, "two", &json!({"labels": {"y": "2"}})).await.expect(200);
    assert_eq!(changed["spec"]["labels"], json!({"x": "1", "y": "2"}));
}

async fn an_item_no_longer_applied_is_removed(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "ports": [{"name": "a"}, {"name": "b"}], "tags": ["x", "y"]}))
        .await
        .expect(201);
    applied(&g, "two", &json!({"ports": [{"name": "c"}], "tags": ["z"]})).await.expect(200);
    let changed = applied(&g, "one", &json!({"size": 1, "ports": [{"name": "b"}], "tags": ["y"]})).await.expect(200);
    let mut ports: Vec<&str> =
        changed["spec"]["ports"].as_array().expect("ports").iter().filter_map(|port| port["name"].as_str()).collect();
    ports.sort_unstable();
    assert_eq!(ports, ["b", "c"]);
    let mut tags: Vec<&str> =
        changed["spec"]["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["y", "z"]);
}

async fn labels_are_merged(g: Ground) {
    let labelled = |labels: Value| {
        let mut object = g.widget("a");
        object["metadata"]["labels"] = labels;
        object
    };
    g.http.apply(&g.at("a"), "one", &labelled(json!({"x": "1"}))).await.expect(201);
    let changed = g.http.apply(&g.at("a"), "two", &labelled(json!({"y": "2"}))).await.expect(200);
    assert_eq!(changed["metadata"]["labels"], json!({"x": "1", "y": "2"}));
    let changed = g.http.apply(&g.at("a"), "one", &g.widget("a")).await.expect(200);
    assert_eq!(changed["metadata"]["labels"], json!({"y": "2"}));
}

async fn a_key_is_applied_once(g: Ground) {
    let twice = json!({"size": 1, "ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]});
    let answer = applied(&g, "one", &twice).await;
    assert!(answer.code >= 400 && answer.body["kind"] == "Status", "{}", answer.body);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn an_applied_version_is_a_condition(g: Ground) {
    let first = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    let mut object = g.widget_of("a", &json!({"size": 2}));
    object["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"].clone();
    g.http.apply(&g.at("a"), "one", &object).await.expect(200);
    g.http.apply(&g.at("a"), "one", &object).await.refused(409, "Conflict");
    g.http.apply(&g.at("a"), "one&force=true", &object).await.refused(409, "Conflict");
}

async fn an_applied_uid_is_a_condition(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    g.http.apply(&g.at("a"), "one", &object).await.refused(409, "Conflict");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn an_applied_object_has_the_name_of_the_path(g: Ground) {
    let answer = g.http.apply(&g.at("a"), "one", &g.widget("b")).await;
    assert!(matches!(answer.code, 400 | 422), "{}", answer.body);
    let mut other = g.widget("a");
    other["kind"] = json!("Gadget");
    let answer = g.http.apply(&g.at("a"), "one", &other).await;
    assert!(answer.code >= 400, "{}", answer.body);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn a_dry_run_of_apply_changes_nothing(g: Ground) {
    let shown = applied(&g, "one&dryRun=All", &json!({"size": 1})).await.expect(201);
    assert_eq!(shown["spec"]["mode"], "rw");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
    let created = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    assert_eq!(applied(&g, "one&dryRun=All", &json!({"size": 2})).await.expect(200)["spec"]["size"], 2);
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), created);
}

async fn a_status_is_applied(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let path = format!("{}/status", g.at("a"));
    let status = |kind: &str, phase: &str| {
        let mut object = g.widget_of("a", &json!({"size": 7}));
        object["status"] = json!({"phase": phase, "conditions": [{"type": kind, "status": "True"}]});
        object.as_object_mut().expect("an object").remove("spec");
        object
    };
    g.http.apply(&path, "one", &status("Ready", "Running")).await.expect(200);
    let both = g.http.apply(&path, "two", &status("Seen", "Running")).await.expect(200);
    assert_eq!(both["status"]["conditions"].as_array().map(Vec::len), Some(2));
    assert_eq!((&both["spec"]["size"], &both["metadata"]["generation"]), (&json!(1), &json!(1)));
    g.http.apply(&path, "two", &status("Seen", "Pending")).await.refused(409, "Conflict");
}

async fn defaults_appear_when_applying(g: Ground) {
    let created = applied(&g, "one", &json!({"size": 1, "ports": [{"name": "a"}]})).await.expect(201);
    assert_eq!((&created["spec"]["mode"], &created["spec"]["limits"]), (&json!("rw"), &json!({"cpu": "1"})));
    assert_eq!(created["spec"]["ports"][0]["protocol"], "TCP");
    let other = applied(&g, "two", &json!({"mode": "ro"})).await;
    assert_eq!(other.expect(200)["spec"]["mode"], "ro", "nobody owns a default");
}

async fn built_in_kinds_are_applied(g: Ground) {
    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data});
    let path = format!("{}/s", g.secrets());
    g.http.apply(&path, "one", &secret(json!({"a": "MQ==", "b": "Mg=="}))).await.expect(201);
    g.http.apply(&path, "two", &secret(json!({"c": "Mw=="}))).await.expect(200);
    let changed = g.http.apply(&path, "one", &secret(json!({"a": "MQ=="}))).await.expect(200);
    assert_eq!(changed["data"], json!({"a": "MQ==", "c": "Mw=="}));
    g.http.apply(&path, "two", &secret(json!({"a": "NA=="}))).await.refused(409, "Conflict");
}

async fn force_is_for_applying(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let path = format!("{}?force=true", g.at("a"));
    g.http.merge(&path, &json!({"spec": {"size": 2}})).await.invalid("FieldValueForbidden", "force");
}
