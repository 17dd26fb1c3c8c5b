//! Bodies, media types, paths and parameters that are not as they should be: each gets an answer, and the right one.

use http::Method;
use serde_json::json;

use crate::ground::{Ground, cases, concepts, conventions, who};
use crate::http::Answer;

cases! {
    Api concepts {
        a_body_in_yaml_is_taken: "Alternate representations of resources",
        an_unknown_media_type_of_a_body_is_refused: "Alternate representations of resources",
        an_unknown_media_type_of_an_answer_is_refused: "Alternate representations of resources",
        without_an_accept_header_the_answer_is_json: "Alternate representations of resources",
        an_unknown_field_is_pruned_with_a_warning: "Field validation",
        an_unknown_field_is_refused_when_asked: "Field validation",
        an_unknown_field_is_ignored_when_asked: "Field validation",
        an_unknown_field_validation_is_refused: "Field validation",
        unknown_fields_of_built_in_kinds_are_refused_when_asked: "Field validation",
        unknown_fields_of_a_patch_are_refused_when_asked: "Field validation",
    }
    Api conventions {
        a_body_that_is_no_json_is_refused: "HTTP Status codes",
        a_body_that_is_no_object_is_refused: "HTTP Status codes",
        a_body_that_is_too_large_is_refused: "HTTP Status codes",
        a_body_that_nests_too_deep_is_refused: "HTTP Status codes",
        a_path_that_is_not_there_is_not_found: "HTTP Status codes",
        a_method_that_is_not_there_is_not_allowed: "HTTP Status codes",
        a_parameter_that_cannot_be_read_is_refused: "HTTP Status codes",
        a_refusal_is_a_status_object: "Response Status Kind",
        metadata_of_the_wrong_type_is_refused: "Metadata",
        options_of_a_deletion_that_cannot_be_read_are_refused: "HTTP Status codes",
    }
    Strangers who {
        a_wrong_token_is_unauthorized: "Authentication strategies",
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(g: &Ground, content_type: &str, body: &[u8]) -> Answer {
    g.http.send(Method::POST, &g.widgets(), &[("content-type", content_type)], body.to_vec()).await
}

async fn a_body_in_yaml_is_taken(g: Ground) {
    let text = format!(
        "apiVersion: {}/v1\nkind: Widget\nmetadata:\n  name: a\n  labels: {{x: 'y'}}\nspec:\n  size: 1Gi\n  words: [one, two]\n",
        g.group
    );
    let created = post(&g, "application/yaml", text.as_bytes()).await.expect(201);
    assert_eq!((&created["spec"]["size"], &created["spec"]["words"]), (&json!("1Gi"), &json!(["one", "two"])));
    post(&g, "application/yaml", b"a: [").await.refused(400, "BadRequest");
}

async fn an_unknown_media_type_of_a_body_is_refused(g: Ground) {
    let body = g.widget("a").to_string();
    post(&g, "text/plain", body.as_bytes()).await.refused(415, "UnsupportedMediaType");
    let headers = [("content-type", "text/plain")];
    let patch = g.http.send(Method::PATCH, &g.at("a"), &headers, b"{}".to_vec()).await;
    patch.refused(415, "UnsupportedMediaType");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn an_unknown_media_type_of_an_answer_is_refused(g: Ground) {
    assert_eq!(g.http.get_as(&g.widgets(), "text/html").await.code, 406);
    g.http.get_as(&g.widgets(), "text/html, application/json").await.expect(200);
    g.http.get_as(&g.widgets(), "*/*").await.expect(200);
}

async fn without_an_accept_header_the_answer_is_json(g: Ground) {
    let answer = g.http.get(&g.widgets()).await;
    assert!(answer.content_type.starts_with("application/json"), "{}", answer.content_type);
    assert_eq!(answer.expect(200)["kind"], "WidgetList");
}

async fn an_unknown_field_is_pruned_with_a_warning(g: Ground) {
    let wrong = g.widget_of("a", &json!({"size": 1, "odd": {"deep": 1}}));
    let answer = g.http.post(&g.widgets(), &wrong).await;
    assert!(
        answer.warnings.iter().any(|text| text.contains("unknown field \\\"spec.odd\\\"")),
        "{:?}",
        answer.warnings
    );
    assert_eq!(answer.expect(201)["spec"].get("odd"), None);
}

async fn an_unknown_field_is_refused_when_asked(g: Ground) {
    let path = format!("{}?fieldValidation=Strict", g.widgets());
    let wrong = g.widget_of("a", &json!({"size": 1, "odd": 1}));
    let body = g.http.post(&path, &wrong).await.refused(400, "BadRequest");
    assert!(body["message"].as_str().is_some_and(|text| text.contains("unknown field \"spec.odd\"")), "{body}");
    g.http.post(&path, &g.widget("a")).await.expect(201);
    let mut wrong = g.http.get(&g.at("a")).await.expect(200);
    wrong["spec"]["odd"] = json!(1);
    g.http.put(&format!("{}?fieldValidation=Strict", g.at("a")), &wrong).await.refused(400, "BadRequest");
}

async fn an_unknown_field_is_ignored_when_asked(g: Ground) {
    let path = format!("{}?fieldValidation=Ignore", g.widgets());
    let answer = g.http.post(&path, &g.widget_of("a", &json!({"size": 1, "odd": 1}))).await;
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    assert_eq!(answer.expect(201)["spec"].get("odd"), None);
}

async fn an_unknown_field_validation_is_refused(g: Ground) {
    let path = format!("{}?fieldValidation=Sometimes", g.widgets());
    g.http.post(&path, &g.widget("a")).await.invalid("FieldValueNotSupported", "fieldValidation");
}

async fn unknown_fields_of_built_in_kinds_are_refused_when_asked(g: Ground) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "odd": 1});
    let strict = format!("{}?fieldValidation=Strict", g.secrets());
    g.http.post(&strict, &secret).await.refused(400, "BadRequest");
    assert_eq!(g.http.post(&g.secrets(), &secret).await.expect(201).get("odd"), None);
}

async fn unknown_fields_of_a_patch_are_refused_when_asked(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let strict = format!("{}?fieldValidation=Strict", g.at("a"));
    let answer = g.http.merge(&strict, &json!({"spec": {"odd": 1}})).await;
    assert!(matches!(answer.code, 400 | 422), "{}", answer.body);
    assert_eq!(g.http.merge(&g.at("a"), &json!({"spec": {"odd": 1}})).await.expect(200)["spec"].get("odd"), None);
}

async fn a_body_that_is_no_json_is_refused(g: Ground) {
    let bodies: [&[u8]; 6] = [b"{", b"}", b"{\"a\":}", b"{'a': 1}", b"{\"a\": 1,}", b"\xff\xfe"];
    for body in bodies {
        post(&g, "application/json", body).await.refused(400, "BadRequest");
    }
}

async fn a_body_that_is_no_object_is_refused(g: Ground) {
    let bodies: [&[u8]; 5] = [b"", b"3", b"[]", b"\"text\"", b"true"];
    for body in bodies {
        post(&g, "application/json", body).await.refused(400, "BadRequest");
    }
}

async fn a_body_that_is_too_large_is_refused(g: Ground) {
    let large = g.widget_of("a", &json!({"size": 1, "free": {"x": "y".repeat(4 * 1024 * 1024)}}));
    let answer = g.http.post(&g.widgets(), &large).await;
    answer.refused(413, "RequestEntityTooLarge");
}

async fn a_body_that_nests_too_deep_is_refused(g: Ground) {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    post(&g, "application/json", deep.as_bytes()).await.refused(400, "BadRequest");
}

async fn a_path_that_is_not_there_is_not_found(g: Ground) {
    let version = format!("/apis/{}/v1", g.group);
    for path in [
        String::from("/nothing"),
        String::from("/apis/nothing.example.com"),
        String::from("/apis/nothing.example.com/v1/things"),
        format!("{version}/others"),
        format!("/apis/{}/v9/widgets", g.group),
        format!("{}/scale", g.at("a")),
        format!("{}/status/more", g.at("a")),
    ] {
        assert_eq!(g.http.get(&path).await.code, 404, "{path}");
    }
}

async fn a_method_that_is_not_there_is_not_allowed(g: Ground) {
    for (method, path) in
        [(Method::PUT, String::from("/api/v1/namespaces")), (Method::PUT, g.secrets()), (Method::PATCH, g.leases())]
    {
        let answer = g.http.send(method.clone(), &path, &[JSON], b"{}".to_vec()).await;
        assert_eq!(answer.code, 405, "{method} {path}: {}", answer.body);
    }
    // A cluster says of custom kinds that the name is missing.
    let answer = g.http.put(&g.widgets(), &g.widget("a")).await;
    assert!(matches!(answer.code, 400 | 405), "{}", answer.body);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn a_parameter_that_cannot_be_read_is_refused(g: Ground) {
    for query in ["limit=many", "timeoutSeconds=soon&watch=true"] {
        g.http.get(&format!("{}?{query}", g.widgets())).await.refused(400, "BadRequest");
    }
}

async fn a_refusal_is_a_status_object(g: Ground) {
    let body = g.http.get(&g.at("none")).await.refused(404, "NotFound");
    assert_eq!((&body["apiVersion"], &body["metadata"]), (&json!("v1"), &json!({})));
    let message = body["message"].as_str().expect("a message");
    assert_eq!(message, format!("widgets.{} \"none\" not found", g.group));
}

async fn metadata_of_the_wrong_type_is_refused(g: Ground) {
    for metadata in [
        json!({"name": 7}),
        json!({"name": "a", "labels": "x"}),
        json!({"name": "a", "annotations": {"x": {}}}),
        json!({"name": "a", "finalizers": "x"}),
        json!({"name": "a", "ownerReferences": {}}),
    ] {
        let mut object = g.widget("a");
        object["metadata"] = metadata;
        g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
    }
}

async fn options_of_a_deletion_that_cannot_be_read_are_refused(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let bodies: [&[u8]; 3] = [b"{", b"[]", b"{\"kind\": \"Widget\", \"apiVersion\": \"v1\"}"];
    for body in bodies {
        // Which code says so is not written anywhere.
        let answer = g.http.send(Method::DELETE, &g.at("a"), &[JSON], body.to_vec()).await;
        assert!(answer.code >= 400 && answer.body["kind"] == "Status", "{}", answer.body);
    }
    let policy = json!({"propagationPolicy": "Sideways"});
    g.http.delete_with(&g.at("a"), &policy).await.refused(422, "Invalid");
    let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
    g.http.delete_with(&g.at("a"), &both).await.refused(422, "Invalid");
    g.http.get(&g.at("a")).await.expect(200);
}

async fn a_wrong_token_is_unauthorized(g: Ground) {
    let stranger = g.stranger.clone().expect("a stranger");
    stranger.get(&g.widgets()).await.refused(401, "Unauthorized");
    stranger.post(&g.widgets(), &g.widget("a")).await.refused(401, "Unauthorized");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}
