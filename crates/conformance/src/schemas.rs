//! Validation by the schema and by its rules.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, custom};

cases! {
    Api custom {
        types_are_checked: "Validation",
        every_fault_is_named: "Validation",
        required_fields_are_required: "Validation",
        enums_are_closed: "Validation",
        numbers_have_bounds: "Validation",
        numbers_have_steps: "Validation",
        integers_have_sizes: "Validation",
        texts_have_patterns_and_lengths: "Validation",
        lists_have_lengths: "Validation",
        objects_have_sizes: "Validation",
        values_of_a_map_have_a_type: "Validation",
        sets_have_no_item_twice: "Merge strategy",
        maps_have_no_key_twice: "Merge strategy",
        an_item_of_a_map_needs_its_key: "Merge strategy",
        exactly_one_branch_of_one_of: "Validation",
        what_must_not_be_is_refused: "Validation",
        int_or_string_is_either: "RawExtension and int-or-string",
        quantities_have_a_pattern: "Validation",
        dates_and_times_have_a_form: "Validation",
        addresses_have_a_form: "Validation",
        identities_have_a_form: "Validation",
        bytes_are_base64: "Validation",
        a_rule_sees_the_whole_of_what_it_stands_on: "Validation rules",
        a_rule_says_its_message_and_its_field: "The messageExpression field",
        a_transition_rule_is_not_asked_of_a_new_object: "Transition rules",
        a_transition_rule_sees_the_old_value: "Transition rules",
        a_transition_rule_holds_for_every_verb: "Transition rules",
        a_refused_object_is_not_stored: "Validation",
    }
}

fn with(field: &str, value: Value) -> Value {
    let mut spec = json!({"size": 1});
    spec[field] = value;
    spec
}

/// Asserts that the value is refused with that reason, and that the field is named.
async fn refused(g: &Ground, field: &str, value: Value, reason: &str) {
    refused_at(g, field, value, reason, &format!("spec.{field}")).await;
}

async fn refused_at(g: &Ground, field: &str, value: Value, reason: &str, at: &str) {
    let object = g.widget_of("a", &with(field, value));
    g.http.post(&g.widgets(), &object).await.invalid(reason, at);
}

/// Asserts that the value is refused; what names the field differs between versions of Kubernetes.
async fn refused_somehow(g: &Ground, field: &str, value: Value) {
    let object = g.widget_of("a", &with(field, value));
    g.http.post(&g.widgets(), &object).await.refused(422, "Invalid");
}

/// Asserts that the value is taken as it is.
async fn taken(g: &Ground, field: &str, value: Value) {
    let mut object = g.widget_of("x", &with(field, value.clone()));
    object["metadata"] = json!({"generateName": "taken-"});
    let created = g.http.post(&g.widgets(), &object).await.expect(201);
    assert_eq!(created["spec"][field], value);
}

async fn types_are_checked(g: Ground) {
    for (field, value) in [
        ("count", json!("1")),
        ("count", json!(1.5)),
        ("ratio", json!("1")),
        ("enabled", json!("true")),
        ("code", json!(1)),
        ("words", json!("a")),
        ("labels", json!([])),
        ("limits", json!("x")),
    ] {
        refused(&g, field, value, "FieldValueTypeInvalid").await;
    }
    refused_at(&g, "words", json!(["a", 1]), "FieldValueTypeInvalid", "spec.words[1]").await;
    for (field, value) in [("count", json!(1)), ("ratio", json!(0.5)), ("ratio", json!(1)), ("enabled", json!(false))] {
        taken(&g, field, value).await;
    }
}

async fn every_fault_is_named(g: Ground) {
    let wrong = json!({"size": 1, "count": 10, "mode": "xx", "code": "UPPER"});
    let body = g.http.post(&g.widgets(), &g.widget_of("a", &wrong)).await.refused(422, "Invalid");
    let causes = body["details"]["causes"].as_array().expect("causes");
    for field in ["spec.count", "spec.mode", "spec.code"] {
        assert!(causes.iter().any(|cause| cause["field"] == field), "{field}: {body}");
    }
    assert_eq!((&body["details"]["name"], &body["details"]["kind"]), (&json!("a"), &json!("Widget")));
    assert_eq!(body["details"]["group"], g.group);
}

async fn required_fields_are_required(g: Ground) {
    let answer = g.http.post(&g.widgets(), &g.widget_of("a", &json!({}))).await;
    answer.invalid("FieldValueRequired", "spec.size");
    let mut object = g.widget("a");
    object.as_object_mut().expect("an object").remove("spec");
    g.http.post(&g.widgets(), &object).await.invalid("FieldValueRequired", "spec");
}

async fn enums_are_closed(g: Ground) {
    refused(&g, "mode", json!("wo"), "FieldValueNotSupported").await;
    refused(&g, "mode", json!("RO"), "FieldValueNotSupported").await;
    taken(&g, "mode", json!("ro")).await;
}

async fn numbers_have_bounds(g: Ground) {
    for (field, value) in [("count", json!(0)), ("count", json!(10)), ("ratio", json!(0)), ("ratio", json!(1.01))] {
        refused(&g, field, value, "FieldValueInvalid").await;
    }
    for (field, value) in [("count", json!(1)), ("count", json!(9)), ("ratio", json!(0.001)), ("ratio", json!(1))] {
        taken(&g, field, value).await;
    }
}

async fn numbers_have_steps(g: Ground) {
    refused(&g, "step", json!(6), "FieldValueInvalid").await;
    taken(&g, "step", json!(8)).await;
}

async fn integers_have_sizes(g: Ground) {
    refused_somehow(&g, "small", json!(2_147_483_648_i64)).await;
    taken(&g, "small", json!(2_147_483_647)).await;
    taken(&g, "small", json!(-2_147_483_648_i64)).await;
}

async fn texts_have_patterns_and_lengths(g: Ground) {
    refused(&g, "code", json!("ab1"), "FieldValueInvalid").await;
    refused(&g, "code", json!("a"), "FieldValueInvalid").await;
    refused(&g, "code", json!("abcdef"), "FieldValueTooLong").await;
    taken(&g, "code", json!("abcde")).await;
}

async fn lists_have_lengths(g: Ground) {
    refused(&g, "words", json!([]), "FieldValueInvalid").await;
    refused(&g, "words", json!(["a", "b", "c", "d"]), "FieldValueTooMany").await;
    taken(&g, "words", json!(["a", "b", "c"])).await;
}

async fn objects_have_sizes(g: Ground) {
    refused_somehow(&g, "labels", json!({"a": "1", "b": "2", "c": "3", "d": "4"})).await;
    taken(&g, "labels", json!({"a": "1", "b": "2", "c": "3"})).await;
}

async fn values_of_a_map_have_a_type(g: Ground) {
    refused_at(&g, "labels", json!({"a": 1}), "FieldValueTypeInvalid", "spec.labels.a").await;
    taken(&g, "weights", json!({"any key": 1})).await;
}

async fn sets_have_no_item_twice(g: Ground) {
    refused_at(&g, "tags", json!(["a", "b", "a"]), "FieldValueDuplicate", "spec.tags[2]").await;
    taken(&g, "tags", json!(["a", "b"])).await;
}

async fn maps_have_no_key_twice(g: Ground) {
    let twice = json!([{"name": "a", "port": 1, "protocol": "x"}, {"name": "a", "port": 2, "protocol": "x"}]);
    refused_at(&g, "ports", twice, "FieldValueDuplicate", "spec.ports[1]").await;
    taken(&g, "ports", json!([{"name": "a", "protocol": "x"}, {"name": "b", "protocol": "x"}])).await;
}

async fn an_item_of_a_map_needs_its_key(g: Ground) {
    refused_at(&g, "ports", json!([{"port": 1}]), "FieldValueRequired", "spec.ports[0].name").await;
}

async fn exactly_one_branch_of_one_of(g: Ground) {
    refused_somehow(&g, "choice", json!({"a": "1", "b": "2"})).await;
    refused_somehow(&g, "choice", json!({})).await;
    taken(&g, "choice", json!({"b": "2"})).await;
}

async fn what_must_not_be_is_refused(g: Ground) {
    refused_somehow(&g, "never", json!({"x": "1", "y": "2"})).await;
    taken(&g, "never", json!({"x": "1"})).await;
}

async fn int_or_string_is_either(g: Ground) {
    for size in [json!(1.5), json!(true), json!([]), json!({})] {
        let object = g.widget_of("a", &json!({"size": size}));
        g.http.post(&g.widgets(), &object).await.invalid("FieldValueTypeInvalid", "spec.size");
    }
    for size in [json!(3), json!("3"), json!("")] {
        taken(&g, "size", size).await;
    }
}

async fn quantities_have_a_pattern(g: Ground) {
    for wrong in ["1X", "Gi", "1 Gi", "--1"] {
        refused_somehow(&g, "capacity", json!(wrong)).await;
    }
    for right in [json!(5), json!("1Gi"), json!("-0.5k"), json!("1e3"), json!("100m")] {
        taken(&g, "capacity", right).await;
    }
}

async fn dates_and_times_have_a_form(g: Ground) {
    refused_somehow(&g, "when", json!("yesterday")).await;
    refused_somehow(&g, "day", json!("2026-13-01")).await;
    taken(&g, "when", json!("2026-01-02T03:04:05Z")).await;
    taken(&g, "when", json!("2026-01-02T03:04:05.678+02:00")).await;
    taken(&g, "day", json!("2026-01-02")).await;
}

async fn addresses_have_a_form(g: Ground) {
    refused_somehow(&g, "address", json!("10.0.0.256")).await;
    refused_somehow(&g, "address", json!("::1")).await;
    taken(&g, "address", json!("10.0.0.255")).await;
}

async fn identities_have_a_form(g: Ground) {
    refused_somehow(&g, "identity", json!("123")).await;
    taken(&g, "identity", json!("11111111-2222-3333-4444-555555555555")).await;
}

async fn bytes_are_base64(g: Ground) {
    refused_somehow(&g, "data", json!("not base64!")).await;
    taken(&g, "data", json!("aGVsbG8=")).await;
}

async fn a_rule_sees_the_whole_of_what_it_stands_on(g: Ground) {
    let wrong = g.widget_of("a", &json!({"size": 1, "low": 5, "high": 4}));
    g.http.post(&g.widgets(), &wrong).await.refused(422, "Invalid");
    g.create("a", &json!({"size": 1, "low": 4, "high": 5})).await;
    g.http.merge(&g.at("a"), &json!({"spec": {"high": 3}})).await.refused(422, "Invalid");
    g.http.merge(&g.at("a"), &json!({"spec": {"high": null}})).await.expect(200);
}

async fn a_rule_says_its_message_and_its_field(g: Ground) {
    let wrong = g.widget_of("a", &json!({"size": 1, "low": 5, "high": 4}));
    let body = g.http.post(&g.widgets(), &wrong).await.invalid("FieldValueForbidden", "spec.high");
    let message = body["message"].as_str().expect("a message");
    assert!(message.contains("low is 5 and high is 4"), "{message}");
}

async fn a_transition_rule_is_not_asked_of_a_new_object(g: Ground) {
    let created = g.create("a", &json!({"size": 1, "nodeName": "n1"})).await;
    assert_eq!(created["spec"]["nodeName"], "n1");
}

async fn a_transition_rule_sees_the_old_value(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    g.http.merge(&g.at("a"), &json!({"spec": {"nodeName": "n1"}})).await.expect(200);
    let moved = g.http.merge(&g.at("a"), &json!({"spec": {"nodeName": "n2"}})).await;
    let body = moved.invalid("FieldValueInvalid", "spec");
    assert!(body["message"].as_str().is_some_and(|text| text.contains("nodeName never changes")), "{body}");
    let removed = g.http.merge(&g.at("a"), &json!({"spec": {"nodeName": null}})).await;
    removed.invalid("FieldValueInvalid", "spec");
}

async fn a_transition_rule_holds_for_every_verb(g: Ground) {
    let mut object = g.create("a", &json!({"size": 1, "nodeName": "n1"})).await;
    object["spec"]["nodeName"] = json!("n2");
    g.http.put(&g.at("a"), &object).await.refused(422, "Invalid");
    let patch = json!([{"op": "replace", "path": "/spec/nodeName", "value": "n2"}]);
    g.http.json_patch(&g.at("a"), &patch).await.refused(422, "Invalid");
    let beta = g.at("a").replace("/v1/", "/v1beta1/");
    g.http.merge(&beta, &json!({"spec": {"nodeName": "n2"}})).await.refused(422, "Invalid");
    assert_eq!(g.http.get(&g.at("a")).await.expect(200)["spec"]["nodeName"], "n1");
}

async fn a_refused_object_is_not_stored(g: Ground) {
    refused(&g, "count", json!(10), "FieldValueInvalid").await;
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}
