//! Patches: the three kinds, and what is refused.

use serde_json::{Value, json};

use crate::setup::{Http, SECRETS, THINGS, over_both, thing};

const A: &str = "/apis/example.com/v1/things/a";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[tokio::test]
async fn a_version_in_a_merge_patch_is_a_condition() {
    over_both(|http: Http| async move {
        let made = http.post(THINGS, &thing("a")).await.expect(201);
        let version = made["metadata"]["resourceVersion"].clone();
        let patch = |count: i64| json!({"metadata": {"resourceVersion": version}, "spec": {"count": count}});
        http.merge(A, &patch(1)).await.expect(200);
        http.merge(A, &patch(2)).await.refused(409, "Conflict");
        http.merge(
            &format!("{A}/status"),
            &json!({"metadata": {"resourceVersion": version}, "status": {"phase": "Done"}}),
        )
        .await
        .refused(409, "Conflict");
        let end =
            http.merge(A, &json!({"metadata": {"resourceVersion": null}, "spec": {"count": 3}})).await.expect(200);
        assert_eq!(end["spec"]["count"], 3);
        http.merge(&format!("{THINGS}/none"), &json!({})).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn json_patches_are_done_whole_or_not_at_all() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        let finalizers = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]}]);
        let held = http.patch(A, JSON, &finalizers).await.expect(200);
        assert_eq!(held["metadata"]["finalizers"], json!(["example.com/hold"]));
        let refused = http.patch(A, JSON, &finalizers).await.refused(422, "Invalid");
        assert_eq!(refused["message"], "the server rejected our request due to an error in our request");
        let half = json!([{"op": "replace", "path": "/spec/size", "value": 9}, {"op": "remove", "path": "/spec/none"}]);
        http.patch(A, JSON, &half).await.refused(422, "Invalid");
        assert_eq!(http.get(A).await.expect(200)["spec"]["size"], "1Gi");
        http.patch(A, JSON, &json!({"op": "add"})).await.refused(400, "BadRequest");
        let rename = json!([{"op": "replace", "path": "/metadata/name", "value": "b"}]);
        http.patch(A, JSON, &rename).await.refused(400, "BadRequest");
        http.patch(A, JSON, &json!([{"op": "replace", "path": "", "value": 3}])).await.refused(400, "BadRequest");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_applied_exactly_is_refused() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        http.patch(A, STRATEGIC, &json!({})).await.refused(415, "UnsupportedMediaType");
        let refused = http.patch(A, "text/plain", &json!({})).await.refused(415, "UnsupportedMediaType");
        assert!(refused["message"].as_str().expect("a message").contains("application/apply-patch+yaml"));
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_take_strategic_merge() {
    over_both(|http: Http| async move {
        let secret = json!({"metadata": {"name": "s", "finalizers": ["x.y/a"]}, "data": {"a": "YQ==", "b": "Yg=="}});
        http.post(SECRETS, &secret).await.expect(201);
        let patch = json!({"metadata": {"finalizers": ["x.y/b"], "$setElementOrder/finalizers": ["x.y/a", "x.y/b"]},
                           "data": {"a": null, "c": "Yw=="}});
        let patched = http.patch(&format!("{SECRETS}/s"), STRATEGIC, &patch).await.expect(200);
        assert_eq!(patched["metadata"]["finalizers"], json!(["x.y/a", "x.y/b"]));
        assert_eq!(patched["data"], json!({"b": "Yg==", "c": "Yw=="}));
        let end: Value = http.get(&format!("{SECRETS}/s")).await.expect(200);
        assert_eq!(end, patched);
    })
    .await;
}
