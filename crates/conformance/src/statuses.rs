//! The status subresource: each half of an object is written by its own path.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, custom};
use crate::http::version;

cases! {
    Api custom {
        a_new_object_has_no_status: "Status subresource",
        a_write_of_the_object_leaves_the_status: "Status subresource",
        a_write_of_the_status_leaves_the_rest: "Status subresource",
        the_status_path_shows_the_whole_object: "Status subresource",
        a_write_of_the_status_conflicts_too: "Status subresource",
        a_status_is_validated: "Status subresource",
        a_status_is_pruned: "Status subresource",
        a_json_patch_of_the_status_changes_only_it: "Status subresource",
        without_the_subresource_there_is_no_path: "Status subresource",
        an_object_is_neither_created_nor_deleted_by_its_status: "Status subresource",
        a_rule_refuses_a_transition_of_the_status: "Transition rules",
    }
}

fn status(g: &Ground) -> String {
    format!("{}/status", g.at("a"))
}

async fn a_new_object_has_no_status(g: Ground) {
    let mut object = g.widget("a");
    object["status"] = json!({"phase": "Running"});
    assert_eq!(g.http.post(&g.widgets(), &object).await.expect(201)["status"], Value::Null);
}

async fn a_write_of_the_object_leaves_the_status(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let mut object = g.http.merge(&status(&g), &json!({"status": {"phase": "Running"}})).await.expect(200);
    object["status"] = json!({"phase": "Done"});
    object["spec"]["size"] = json!(2);
    let replaced = g.http.put(&g.at("a"), &object).await.expect(200);
    assert_eq!((&replaced["spec"]["size"], &replaced["status"]["phase"]), (&json!(2), &json!("Running")));
    let patched = g.http.merge(&g.at("a"), &json!({"status": null, "spec": {"size": 3}})).await.expect(200);
    assert_eq!((&patched["spec"]["size"], &patched["status"]["phase"]), (&json!(3), &json!("Running")));
}

async fn a_write_of_the_status_leaves_the_rest(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let mut object = created.clone();
    object["spec"]["size"] = json!(2);
    object["metadata"]["labels"] = json!({"x": "y"});
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    object["status"] = json!({"phase": "Running"});
    let written = g.http.put(&status(&g), &object).await.expect(200);
    assert_eq!((&written["spec"], &written["status"]["phase"]), (&created["spec"], &json!("Running")));
    assert_eq!((&written["metadata"]["labels"], &written["metadata"]["finalizers"]), (&Value::Null, &Value::Null));
    let patch = json!({"metadata": {"annotations": {"x": "y"}}, "spec": {"size": 9}, "status": {"message": "m"}});
    let patched = g.http.merge(&status(&g), &patch).await.expect(200);
    assert_eq!(patched["spec"], created["spec"]);
    assert_eq!(patched["metadata"]["annotations"], Value::Null);
    assert_eq!(patched["status"], json!({"phase": "Running", "message": "m"}));
}

async fn the_status_path_shows_the_whole_object(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    assert_eq!(g.http.get(&status(&g)).await.expect(200), created);
}

async fn a_write_of_the_status_conflicts_too(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    g.http.merge(&g.at("a"), &json!({"spec": {"size": 2}})).await.expect(200);
    let mut mine = first.clone();
    mine["status"] = json!({"phase": "Running"});
    g.http.put(&status(&g), &mine).await.refused(409, "Conflict");
    let patch = json!({"metadata": {"resourceVersion": version(&first)}, "status": {"phase": "Running"}});
    g.http.merge(&status(&g), &patch).await.refused(409, "Conflict");
    assert_eq!(g.http.get(&g.at("a")).await.expect(200)["status"], Value::Null);
}

async fn a_status_is_validated(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let wrong = json!({"status": {"phase": "Odd"}});
    g.http.merge(&status(&g), &wrong).await.invalid("FieldValueNotSupported", "status.phase");
    let wrong = json!({"status": {"message": 7}});
    g.http.merge(&status(&g), &wrong).await.invalid("FieldValueTypeInvalid", "status.message");
}

async fn a_status_is_pruned(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let patched = g.http.merge(&status(&g), &json!({"status": {"phase": "Running", "odd": 1}})).await.expect(200);
    assert_eq!(patched["status"], json!({"phase": "Running"}));
}

async fn a_json_patch_of_the_status_changes_only_it(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let patch = json!([{"op": "add", "path": "/status", "value": {"phase": "Pending"}},
                       {"op": "replace", "path": "/spec/size", "value": 5}]);
    let patched = g.http.json_patch(&status(&g), &patch).await.expect(200);
    assert_eq!((&patched["status"]["phase"], &patched["spec"]), (&json!("Pending"), &created["spec"]));
}

async fn without_the_subresource_there_is_no_path(g: Ground) {
    let name = g.own("a");
    let mut object = g.gadget(&name);
    object["status"] = json!({"x": 1});
    let created = g.http.post(&g.gadgets(), &object).await.expect(201);
    assert_eq!(created["status"]["x"], 1, "then it is data like any other");
    let path = format!("{}/{name}", g.gadgets());
    assert_eq!(g.http.get(&format!("{path}/status")).await.code, 404);
    g.http.delete(&path).await.expect(200);
}

async fn an_object_is_neither_created_nor_deleted_by_its_status(g: Ground) {
    g.http.put(&status(&g), &g.widget("a")).await.refused(404, "NotFound");
    g.create("a", &json!({"size": 1})).await;
    assert_eq!(g.http.delete(&status(&g)).await.code, 405);
    g.http.get(&g.at("a")).await.expect(200);
}

async fn a_rule_refuses_a_transition_of_the_status(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    for phase in ["Running", "Done"] {
        g.http.merge(&status(&g), &json!({"status": {"phase": phase}})).await.expect(200);
    }
    let back = g.http.merge(&status(&g), &json!({"status": {"phase": "Running"}})).await;
    let body = back.invalid("FieldValueInvalid", "status");
    assert!(body["message"].as_str().is_some_and(|text| text.contains("a terminal phase never changes")), "{body}");
    g.http.merge(&status(&g), &json!({"status": {"message": "m"}})).await.expect(200);
}
