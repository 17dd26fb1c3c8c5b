//! Defaults, pruning and nulls: what an object is made into before it is stored.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, custom};

cases! {
    Api custom {
        defaults_are_stored: "Defaulting",
        a_default_appears_where_its_object_does: "Defaulting",
        a_given_value_is_no_default: "Defaulting",
        defaults_come_back_when_a_value_is_removed: "Defaulting",
        null_becomes_the_default_where_null_is_not_allowed: "Defaulting and Nullable",
        null_stays_where_it_is_allowed: "Defaulting and Nullable",
        null_without_a_default_is_dropped: "Defaulting and Nullable",
        items_of_lists_have_defaults: "Defaulting",
        unknown_fields_are_pruned_at_every_depth: "Field pruning",
        unknown_fields_are_kept_where_the_schema_says_so: "Controlling pruning",
        unknown_fields_beside_the_schema_are_pruned: "Field pruning",
        unknown_metadata_is_dropped: "Field pruning",
        nothing_is_pruned_from_free_text: "Field pruning",
    }
}

async fn spec(g: &Ground, spec: Value) -> Value {
    g.create("a", &spec).await["spec"].clone()
}

async fn defaults_are_stored(g: Ground) {
    spec(&g, json!({"size": 1})).await;
    let stored = g.http.get(&g.at("a")).await.expect(200);
    assert_eq!(stored["spec"], json!({"size": 1, "mode": "rw", "limits": {"cpu": "1"}}));
}

async fn a_default_appears_where_its_object_does(g: Ground) {
    let found = spec(&g, json!({"size": 1, "limits": {"memory": "2"}})).await;
    assert_eq!(found["limits"], json!({"cpu": "1", "memory": "2"}));
}

async fn a_given_value_is_no_default(g: Ground) {
    let found = spec(&g, json!({"size": 1, "mode": "ro", "limits": {"cpu": ""}})).await;
    assert_eq!((&found["mode"], &found["limits"]["cpu"]), (&json!("ro"), &json!("")));
}

async fn defaults_come_back_when_a_value_is_removed(g: Ground) {
    spec(&g, json!({"size": 1, "mode": "ro", "limits": {"cpu": "3"}})).await;
    let patched = g.http.merge(&g.at("a"), &json!({"spec": {"mode": null, "limits": null}})).await.expect(200);
    assert_eq!((&patched["spec"]["mode"], &patched["spec"]["limits"]), (&json!("rw"), &json!({"cpu": "1"})));
}

async fn null_becomes_the_default_where_null_is_not_allowed(g: Ground) {
    let found = spec(&g, json!({"size": 1, "mode": null, "limits": null})).await;
    assert_eq!((&found["mode"], &found["limits"]), (&json!("rw"), &json!({"cpu": "1"})));
}

async fn null_stays_where_it_is_allowed(g: Ground) {
    let found = spec(&g, json!({"size": 1, "comment": null})).await;
    assert_eq!(found.get("comment"), Some(&Value::Null));
}

async fn null_without_a_default_is_dropped(g: Ground) {
    let found = spec(&g, json!({"size": 1, "count": null, "labels": null, "ports": null})).await;
    assert_eq!(found, json!({"size": 1, "mode": "rw", "limits": {"cpu": "1"}}));
    let wrong = g.widget_of("b", &json!({"size": null}));
    g.http.post(&g.widgets(), &wrong).await.invalid("FieldValueRequired", "spec.size");
}

async fn items_of_lists_have_defaults(g: Ground) {
    let found = spec(&g, json!({"size": 1, "ports": [{"name": "a"}, {"name": "b", "protocol": "UDP"}]})).await;
    assert_eq!(found["ports"], json!([{"name": "a", "protocol": "TCP"}, {"name": "b", "protocol": "UDP"}]));
}

async fn unknown_fields_are_pruned_at_every_depth(g: Ground) {
    let found =
        spec(&g, json!({"size": 1, "odd": 1, "limits": {"odd": {}}, "ports": [{"name": "a", "odd": []}]})).await;
    let expected =
        json!({"size": 1, "mode": "rw", "limits": {"cpu": "1"}, "ports": [{"name": "a", "protocol": "TCP"}]});
    assert_eq!(found, expected);
}

async fn unknown_fields_are_kept_where_the_schema_says_so(g: Ground) {
    let free = json!({"any": [{"thing": null}, 1.5, "x"], "deep": {"er": {}}});
    assert_eq!(spec(&g, json!({"size": 1, "free": free})).await["free"], free);
}

async fn unknown_fields_beside_the_schema_are_pruned(g: Ground) {
    let mut object = g.widget("a");
    object["odd"] = json!({"x": 1});
    assert_eq!(g.http.post(&g.widgets(), &object).await.expect(201).get("odd"), None);
}

async fn unknown_metadata_is_dropped(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["odd"] = json!({"x": 1});
    assert_eq!(g.http.post(&g.widgets(), &object).await.expect(201)["metadata"].get("odd"), None);
}

async fn nothing_is_pruned_from_free_text(g: Ground) {
    let text = "quotes \" and \\ and \u{1F600} and \u{7} and {\"json\": true}\n";
    assert_eq!(spec(&g, json!({"size": 1, "comment": text})).await["comment"], text);
}
