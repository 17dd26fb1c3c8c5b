//! Patches: JSON merge patch, JSON patch, and strategic merge patch for the kinds that take it.

use http::Method;
use serde_json::{Value, json};

use crate::ground::{Ground, cases, concepts, patching};
use crate::http::version;

cases! {
    Api concepts {
        a_merge_patch_sets_replaces_and_removes: "Updates to existing resources",
        a_merge_patch_replaces_lists_whole: "Updates to existing resources",
        a_merge_patch_removes_metadata: "Updates to existing resources",
        a_patch_is_validated: "Updates to existing resources",
        a_patch_that_breaks_the_object_leaves_it: "Updates to existing resources",
        a_strategic_merge_patch_is_not_for_custom_kinds: "Updates to existing resources",
        a_patch_cannot_rename: "Updates to existing resources",
        a_patch_cannot_move_to_another_version: "Updates to existing resources",
        a_patch_changes_nothing_but_what_it_names: "Updates to existing resources",
        patches_of_several_writers_all_count: "Updates to existing resources",
    }
    Api patching {
        a_json_patch_adds_replaces_and_removes: "Use a JSON patch",
        a_json_patch_works_on_lists: "Use a JSON patch",
        a_json_patch_moves_and_copies: "Use a JSON patch",
        a_json_patch_goes_in_order: "Use a JSON patch",
        a_json_patch_escapes_slashes: "Use a JSON patch",
        a_failed_test_refuses_the_whole_patch: "Use a JSON patch",
        an_absent_path_equals_null_in_a_test: "Use a JSON patch",
        a_json_patch_of_an_absent_path_is_refused: "Use a JSON patch",
        a_json_patch_that_is_none_is_refused: "Use a JSON patch",
        a_merge_patch_that_is_no_object_is_refused: "Use a JSON merge patch",
        a_strategic_merge_patch_removes_by_null: "Use a strategic merge patch",
        a_strategic_merge_patch_merges_finalizers: "Use a strategic merge patch",
    }
}

async fn a_merge_patch_sets_replaces_and_removes(g: Ground) {
    g.create("a", &json!({"size": 1, "count": 3, "labels": {"x": "1", "y": "2"}})).await;
    let patch = json!({"spec": {"size": "2Gi", "count": null, "labels": {"x": null, "z": "3"}}});
    let patched = g.http.merge(&g.at("a"), &patch).await.expect(200);
    assert_eq!(patched["spec"]["size"], "2Gi");
    assert_eq!((patched["spec"].get("count"), &patched["spec"]["labels"]), (None, &json!({"y": "2", "z": "3"})));
}

async fn a_merge_patch_replaces_lists_whole(g: Ground) {
    g.create("a", &json!({"size": 1, "words": ["a", "b"], "ports": [{"name": "x"}]})).await;
    let patch = json!({"spec": {"words": ["c"], "ports": [{"name": "y", "port": 1}]}});
    let patched = g.http.merge(&g.at("a"), &patch).await.expect(200);
    assert_eq!(patched["spec"]["words"], json!(["c"]));
    assert_eq!(patched["spec"]["ports"], json!([{"name": "y", "port": 1, "protocol": "TCP"}]));
}

async fn a_merge_patch_removes_metadata(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["labels"] = json!({"x": "1", "y": "2"});
    object["metadata"]["annotations"] = json!({"x": "1"});
    g.http.post(&g.widgets(), &object).await.expect(201);
    let patch = json!({"metadata": {"labels": {"x": null}, "annotations": null}});
    let patched = g.http.merge(&g.at("a"), &patch).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"y": "2"}));
    assert_eq!(patched["metadata"].get("annotations"), None);
}

async fn a_patch_is_validated(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let answer = g.http.merge(&g.at("a"), &json!({"spec": {"count": 10}})).await;
    answer.invalid("FieldValueInvalid", "spec.count");
    let answer = g.http.merge(&g.at("a"), &json!({"spec": {"size": null}})).await;
    answer.invalid("FieldValueRequired", "spec.size");
}

async fn a_patch_that_breaks_the_object_leaves_it(g: Ground) {
    let object = g.create("a", &json!({"size": 1})).await;
    let answer = g.http.merge(&g.at("a"), &json!({"spec": 3})).await;
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), object);
}

async fn a_strategic_merge_patch_is_not_for_custom_kinds(g: Ground) {
    let object = g.create("a", &json!({"size": 1})).await;
    let answer = g.http.strategic(&g.at("a"), &json!({"spec": {"size": 2}})).await;
    answer.refused(415, "UnsupportedMediaType");
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), object);
}

async fn a_patch_cannot_rename(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let answer = g.http.merge(&g.at("a"), &json!({"metadata": {"name": "b"}})).await;
    assert!(matches!(answer.code, 400 | 422), "{}", answer.body);
    g.http.get(&g.at("b")).await.refused(404, "NotFound");
    g.http.get(&g.at("a")).await.expect(200);
}

async fn a_patch_cannot_move_to_another_version(g: Ground) {
    let object = g.create("a", &json!({"size": 1})).await;
    let patch = json!({"apiVersion": "example.com/v1"});
    let answer = g.http.merge(&g.at("a"), &patch).await;
    assert!(answer.code >= 400, "{}", answer.body);
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), object);
}

async fn a_patch_changes_nothing_but_what_it_names(g: Ground) {
    let created = g.create("a", &json!({"size": 1, "comment": null, "words": ["a"]})).await;
    let patched = g.http.merge(&g.at("a"), &json!({"spec": {"count": 2}})).await.expect(200);
    let mut expected = created.clone();
    expected["spec"]["count"] = json!(2);
    assert_eq!(patched["spec"], expected["spec"]);
    assert_eq!(patched["metadata"]["uid"], created["metadata"]["uid"]);
    assert_ne!(version(&patched), version(&created));
}

async fn patches_of_several_writers_all_count(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let writes = (0..3).map(|writer| {
        let g = g.clone();
        async move {
            let patch = json!({"spec": {"labels": {format!("w{writer}"): "x"}}});
            g.http.merge(&g.at("a"), &patch).await.expect(200)
        }
    });
    futures::future::join_all(writes).await;
    let object = g.http.get(&g.at("a")).await.expect(200);
    assert_eq!(object["spec"]["labels"], json!({"w0": "x", "w1": "x", "w2": "x"}));
}

async fn a_json_patch_adds_replaces_and_removes(g: Ground) {
    g.create("a", &json!({"size": 1, "count": 3})).await;
    let patch = json!([{"op": "add", "path": "/spec/comment", "value": "c"},
                       {"op": "replace", "path": "/spec/size", "value": 2},
                       {"op": "remove", "path": "/spec/count"},
                       {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}]);
    let patched = g.http.json_patch(&g.at("a"), &patch).await.expect(200);
    assert_eq!((&patched["spec"]["comment"], &patched["spec"]["size"]), (&json!("c"), &json!(2)));
    assert_eq!((patched["spec"].get("count"), &patched["metadata"]["labels"]["x"]), (None, &json!("y")));
}

async fn a_json_patch_works_on_lists(g: Ground) {
    g.create("a", &json!({"size": 1, "tags": ["a", "b", "c"]})).await;
    let patch = json!([{"op": "remove", "path": "/spec/tags/1"},
                       {"op": "add", "path": "/spec/tags/0", "value": "first"},
                       {"op": "add", "path": "/spec/tags/-", "value": "last"}]);
    let patched = g.http.json_patch(&g.at("a"), &patch).await.expect(200);
    assert_eq!(patched["spec"]["tags"], json!(["first", "a", "c", "last"]));
}

async fn a_json_patch_moves_and_copies(g: Ground) {
    g.create("a", &json!({"size": 1, "comment": "c", "labels": {}})).await;
    let patch = json!([{"op": "copy", "from": "/spec/comment", "path": "/spec/labels/copied"},
                       {"op": "move", "from": "/spec/comment", "path": "/spec/labels/moved"}]);
    let patched = g.http.json_patch(&g.at("a"), &patch).await.expect(200);
    assert_eq!(patched["spec"]["labels"], json!({"copied": "c", "moved": "c"}));
    assert_eq!(patched["spec"].get("comment"), None);
}

async fn a_json_patch_goes_in_order(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let patch = json!([{"op": "add", "path": "/spec/labels", "value": {}},
                       {"op": "add", "path": "/spec/labels/x", "value": "1"},
                       {"op": "test", "path": "/spec/labels/x", "value": "1"},
                       {"op": "replace", "path": "/spec/labels/x", "value": "2"}]);
    assert_eq!(g.http.json_patch(&g.at("a"), &patch).await.expect(200)["spec"]["labels"], json!({"x": "2"}));
}

async fn a_json_patch_escapes_slashes(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let patch = json!([{"op": "add", "path": "/metadata/annotations", "value": {}},
                       {"op": "add", "path": "/metadata/annotations/example.com~1a", "value": "x"}]);
    let patched = g.http.json_patch(&g.at("a"), &patch).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"], json!({"example.com/a": "x"}));
}

/// Asserts that a JSON patch is refused as one that cannot be done, and changes nothing.
async fn refused(g: &Ground, patch: Value) {
    let before = g.http.get(&g.at("a")).await.expect(200);
    g.http.json_patch(&g.at("a"), &patch).await.refused(422, "Invalid");
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), before);
}

async fn a_failed_test_refuses_the_whole_patch(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    refused(
        &g,
        json!([{"op": "replace", "path": "/spec/size", "value": 2}, {"op": "test", "path": "/spec/size", "value": 1}]),
    )
    .await;
    refused(&g, json!([{"op": "test", "path": "/spec/size", "value": null}])).await;
}

async fn an_absent_path_equals_null_in_a_test(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let patch = json!([{"op": "test", "path": "/metadata/finalizers", "value": null},
                       {"op": "replace", "path": "/spec/size", "value": 2}]);
    assert_eq!(g.http.json_patch(&g.at("a"), &patch).await.expect(200)["spec"]["size"], 2);
}

async fn a_json_patch_of_an_absent_path_is_refused(g: Ground) {
    g.create("a", &json!({"size": 1, "tags": ["x"]})).await;
    refused(&g, json!([{"op": "replace", "path": "/spec/none/x", "value": "x"}])).await;
    refused(&g, json!([{"op": "remove", "path": "/spec/comment"}])).await;
    refused(&g, json!([{"op": "add", "path": "/spec/labels/x", "value": "1"}])).await;
    refused(&g, json!([{"op": "add", "path": "/spec/tags/7", "value": "x"}])).await;
    refused(&g, json!([{"op": "move", "from": "/spec/comment", "path": "/spec/mode"}])).await;
}

async fn a_json_patch_that_is_none_is_refused(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let headers = [("content-type", "application/json-patch+json")];
    let bodies: [&[u8]; 3] = [b"{", b"{\"op\": \"add\"}", b"3"];
    for body in bodies {
        let answer = g.http.send(Method::PATCH, &g.at("a"), &headers, body.to_vec()).await;
        answer.refused(400, "BadRequest");
    }
    let answer = g.http.json_patch(&g.at("a"), &json!([{"op": "odd", "path": "/spec/size", "value": 1}])).await;
    assert!(matches!(answer.code, 400 | 422), "{}", answer.body);
}

async fn a_merge_patch_that_is_no_object_is_refused(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let headers = [("content-type", "application/merge-patch+json")];
    let bodies: [&[u8]; 3] = [b"{", b"3", b"\"x\""];
    for body in bodies {
        let answer = g.http.send(Method::PATCH, &g.at("a"), &headers, body.to_vec()).await;
        answer.refused(400, "BadRequest");
    }
}

async fn a_strategic_merge_patch_removes_by_null(g: Ground) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "s", "labels": {"x": "1", "y": "2"}}, "data": {"a": "MQ==", "b": "Mg=="}});
    g.http.post(&g.secrets(), &secret).await.expect(201);
    let patch = json!({"metadata": {"labels": {"x": null}}, "data": {"a": null, "c": "Mw=="}});
    let patched = g.http.strategic(&format!("{}/s", g.secrets()), &patch).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"y": "2"}));
    assert_eq!(patched["data"], json!({"b": "Mg==", "c": "Mw=="}));
}

async fn a_strategic_merge_patch_merges_finalizers(g: Ground) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "s", "finalizers": ["example.com/a"]}});
    g.http.post(&g.secrets(), &secret).await.expect(201);
    let path = format!("{}/s", g.secrets());
    let patched = g.http.strategic(&path, &json!({"metadata": {"finalizers": ["example.com/b"]}})).await.expect(200);
    let mut found: Vec<&str> =
        patched["metadata"]["finalizers"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, ["example.com/a", "example.com/b"]);
    g.http.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
}
