//! Who owns which field: managedFields, conflicts, sharing and taking over.

use serde_json::{Value, json};

use crate::ground::{Ground, apply, cases};
use crate::http::{Answer, version};

cases! {
    Apply apply {
        managers_are_recorded: "Field management",
        a_manager_has_a_name_an_operation_and_a_time: "Field management",
        a_conflict_names_manager_and_field: "Conflicts",
        a_conflict_changes_nothing: "Conflicts",
        force_takes_over: "Conflicts",
        the_same_value_is_shared: "Conflicts",
        a_shared_field_stays_until_its_last_owner: "Conflicts",
        an_update_takes_a_field_over: "Field management",
        an_update_of_another_field_takes_nothing: "Field management",
        an_applied_field_conflicts_with_an_update: "Conflicts",
        the_status_has_managers_of_its_own: "Field management",
        managed_fields_are_not_applied: "Field management",
        managed_fields_can_be_cleared: "Clearing managedFields",
        managed_fields_alone_are_no_generation: "Field management",
        the_key_of_an_item_names_the_owner: "Merge strategy",
        what_another_left_alone_stays_theirs: "Transferring ownership",
    }
}

async fn applied(g: &Ground, manager: &str, spec: &Value) -> Answer {
    g.http.apply(&g.at("a"), manager, &g.widget_of("a", spec)).await
}

/// The entry of a manager.
fn entry<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    object["metadata"]["managedFields"].as_array()?.iter().find(|entry| entry["manager"] == manager)
}

async fn managers_are_recorded(g: Ground) {
    let object =
        applied(&g, "one", &json!({"size": 1, "labels": {"x": "1"}, "tags": ["t"], "words": ["w"]})).await.expect(201);
    let fields = &entry(&object, "one").expect("an entry")["fieldsV1"];
    let expected = json!({"f:spec": {"f:size": {}, "f:labels": {"f:x": {}}, "f:tags": {"v:\"t\"": {}}, "f:words": {}}});
    let mut spec = fields.clone();
    // Whether the containers themselves are owned differs with how they came to be; what is in them does not.
    strip(&mut spec);
    assert_eq!(spec, expected, "{fields}");
}

/// Takes away the marks of containers.
fn strip(fields: &mut Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.remove(".");
        fields.values_mut().for_each(strip);
    }
}

async fn a_manager_has_a_name_an_operation_and_a_time(g: Ground) {
    let object = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    let one = entry(&object, "one").expect("an entry");
    assert_eq!((&one["operation"], &one["fieldsType"]), (&json!("Apply"), &json!("FieldsV1")));
    assert_eq!(one["apiVersion"], format!("{}/v1", g.group));
    assert!(one["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{one}");
    let path = format!("{}?fieldManager=two", g.at("a"));
    let object = g.http.merge(&path, &json!({"spec": {"count": 2}})).await.expect(200);
    assert_eq!(entry(&object, "two").expect("an entry")["operation"], "Update");
}

async fn a_conflict_names_manager_and_field(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    let body = applied(&g, "two", &json!({"count": 4})).await.refused(409, "Conflict");
    let cause = &body["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldManagerConflict"), &json!(".spec.count")), "{body}");
    assert!(cause["message"].as_str().is_some_and(|text| text.contains("conflict with \"one\"")), "{body}");
}

async fn a_conflict_changes_nothing(g: Ground) {
    let object = applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    applied(&g, "two", &json!({"count": 4, "code": "abc"})).await.refused(409, "Conflict");
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), object);
}

async fn force_takes_over(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    let forced = applied(&g, "two&force=true", &json!({"count": 4})).await.expect(200);
    assert_eq!(forced["spec"]["count"], 4);
    let fields = |manager: &str| entry(&forced, manager).expect("an entry")["fieldsV1"]["f:spec"].clone();
    assert_eq!((fields("one").get("f:count"), fields("two").get("f:count")), (None, Some(&json!({}))));
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.refused(409, "Conflict");
}

async fn the_same_value_is_shared(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    let shared = applied(&g, "two", &json!({"count": 3})).await.expect(200);
    for manager in ["one", "two"] {
        assert!(entry(&shared, manager).expect("an entry")["fieldsV1"]["f:spec"]["f:count"].is_object(), "{manager}");
    }
    applied(&g, "two", &json!({"count": 4})).await.refused(409, "Conflict");
}

async fn a_shared_field_stays_until_its_last_owner(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    applied(&g, "two", &json!({"size": 1, "count": 3})).await.expect(200);
    assert_eq!(applied(&g, "one", &json!({"size": 1})).await.expect(200)["spec"]["count"], 3);
    assert_eq!(applied(&g, "two", &json!({"size": 1})).await.expect(200)["spec"].get("count"), None);
}

async fn an_update_takes_a_field_over(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    let path = format!("{}?fieldManager=two", g.at("a"));
    let object = g.http.merge(&path, &json!({"spec": {"count": 4}})).await.expect(200);
    assert_eq!(entry(&object, "one").expect("an entry")["fieldsV1"]["f:spec"].get("f:count"), None);
    assert!(entry(&object, "two").expect("an entry")["fieldsV1"]["f:spec"]["f:count"].is_object());
    // What one no longer owns is not removed when one no longer applies it.
    assert_eq!(applied(&g, "one", &json!({"size": 1})).await.expect(200)["spec"]["count"], 4);
}

async fn an_update_of_another_field_takes_nothing(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    let path = format!("{}?fieldManager=two", g.at("a"));
    g.http.merge(&path, &json!({"spec": {"code": "abc"}})).await.expect(200);
    let changed = applied(&g, "one", &json!({"size": 1})).await.expect(200);
    assert_eq!((changed["spec"].get("count"), &changed["spec"]["code"]), (None, &json!("abc")));
}

async fn an_applied_field_conflicts_with_an_update(g: Ground) {
    g.http.post(&format!("{}?fieldManager=two", g.widgets()), &g.widget("a")).await.expect(201);
    let body = applied(&g, "one", &json!({"size": 2})).await.refused(409, "Conflict");
    assert_eq!(body["details"]["causes"][0]["field"], ".spec.size", "{body}");
    applied(&g, "one", &json!({"size": 1})).await.expect(200);
}

async fn the_status_has_managers_of_its_own(g: Ground) {
    applied(&g, "one", &json!({"size": 1})).await.expect(201);
    let path = format!("{}/status?fieldManager=one", g.at("a"));
    let object = g.http.merge(&path, &json!({"status": {"phase": "Running"}})).await.expect(200);
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    let status = entries.iter().find(|entry| entry["subresource"] == "status").expect("an entry of the status");
    assert!(status["fieldsV1"]["f:status"]["f:phase"].is_object(), "{status}");
    let again = applied(&g, "one", &json!({"size": 2})).await.expect(200);
    assert_eq!(again["status"]["phase"], "Running");
}

async fn managed_fields_are_not_applied(g: Ground) {
    let object = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    let mut mine = g.widget("a");
    mine["metadata"]["managedFields"] = object["metadata"]["managedFields"].clone();
    g.http.apply(&g.at("a"), "one", &mine).await.refused(400, "BadRequest");
}

async fn managed_fields_can_be_cleared(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "count": 3})).await.expect(201);
    let cleared = g.http.merge(&g.at("a"), &json!({"metadata": {"managedFields": [{}]}})).await.expect(200);
    assert!(entry(&cleared, "one").is_none(), "{cleared}");
    // Nobody owns the field any more, so that nobody removes it.
    assert_eq!(applied(&g, "one", &json!({"size": 1})).await.expect(200)["spec"]["count"], 3);
}

async fn managed_fields_alone_are_no_generation(g: Ground) {
    let first = applied(&g, "one", &json!({"size": 1})).await.expect(201);
    let second = applied(&g, "two", &json!({"size": 1})).await.expect(200);
    assert_eq!(second["metadata"]["generation"], 1);
    assert_ne!(version(&second), version(&first), "a new owner is a change");
}

async fn the_key_of_an_item_names_the_owner(g: Ground) {
    let object = applied(&g, "one", &json!({"size": 1, "ports": [{"name": "a", "port": 1}]})).await.expect(201);
    let ports = &entry(&object, "one").expect("an entry")["fieldsV1"]["f:spec"]["f:ports"];
    assert_eq!(ports, &json!({"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:port": {}}}));
}

async fn what_another_left_alone_stays_theirs(g: Ground) {
    applied(&g, "one", &json!({"size": 1, "ports": [{"name": "a", "port": 1}]})).await.expect(201);
    applied(&g, "two", &json!({"ports": [{"name": "a", "protocol": "UDP"}]})).await.expect(200);
    let changed = applied(&g, "one", &json!({"size": 1})).await.expect(200);
    assert_eq!(changed["spec"]["ports"], json!([{"name": "a", "protocol": "UDP"}]));
}
