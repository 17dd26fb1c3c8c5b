//! Deleting: preconditions, finalizers, owners, namespaces, collections.

use serde_json::{Value, json};

use crate::setup::{BOXES, Http, SECRETS, THINGS, bounded, box_of, client, in_memory, names, over_both, thing};

const A: &str = "/apis/example.com/v1/things/a";

#[tokio::test]
async fn an_object_without_finalizers_is_gone_at_once() {
    over_both(|http: Http| async move {
        let made = http.post(THINGS, &thing("a")).await.expect(201);
        let wrong = json!({"preconditions": {"uid": "other"}});
        let refused = http.delete(A, &wrong).await.refused(409, "Conflict");
        assert!(refused["message"].as_str().expect("text").contains("Precondition failed: UID in precondition: other"));
        http.delete(A, &json!({"preconditions": {"resourceVersion": "1"}})).await.refused(409, "Conflict");
        let right = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background",
            "preconditions": {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}});
        let done = http.delete(A, &right).await.expect(200);
        assert_eq!((done["kind"].as_str(), done["status"].as_str()), (Some("Status"), Some("Success")));
        assert_eq!(done["details"]["uid"], made["metadata"]["uid"]);
        http.get(A).await.refused(404, "NotFound");
        http.delete(A, &Value::Null).await.refused(404, "NotFound");
        http.delete(A, &json!({"propagationPolicy": "Odd"})).await.refused(422, "Invalid");
        for odd in [
            json!({"dryRun": "All"}),
            json!({"propagationPolicy": 1}),
            json!({"orphanDependents": "no"}),
            json!({"preconditions": {"uid": 1}}),
            json!({"preconditions": {"resourceVersion": 1}}),
            json!({"preconditions": "x"}),
        ] {
            http.delete(A, &odd).await.refused(400, "BadRequest");
        }
        http.delete(A, &json!({"kind": "Thing"})).await.refused(400, "BadRequest");
    })
    .await;
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    over_both(|http: Http| async move {
        let mut held = thing("a");
        held["metadata"]["finalizers"] = json!(["x.y/one", "x.y/two"]);
        http.post(THINGS, &held).await.expect(201);
        let marked = http.delete(A, &Value::Null).await.expect(200);
        assert!(marked["metadata"]["deletionTimestamp"].is_string());
        assert_eq!(marked["metadata"]["generation"], 2);
        let before = http.revision().await;
        assert_eq!(http.delete(A, &Value::Null).await.expect(200), marked, "deleting twice changes nothing");
        assert_eq!(http.revision().await, before);

        let more = json!({"metadata": {"finalizers": ["x.y/one", "x.y/two", "x.y/three"]}});
        let refused = http.merge(A, &more).await.refused(422, "Invalid");
        assert_eq!(refused["details"]["causes"][0]["reason"], "FieldValueForbidden");
        let undo = json!({"metadata": {"deletionTimestamp": null}});
        assert_eq!(http.merge(A, &undo).await.expect(200), marked);
        let status = http.merge(&format!("{A}/status"), &json!({"status": {"phase": "Done"}})).await.expect(200);
        assert_eq!(status["status"]["phase"], "Done", "a status can be written while an object goes");

        http.merge(A, &json!({"metadata": {"finalizers": ["x.y/two"]}})).await.expect(200);
        http.get(A).await.expect(200);
        let last = http.merge(A, &json!({"metadata": {"finalizers": null}})).await.expect(200);
        assert!(last["metadata"]["deletionTimestamp"].is_string());
        http.get(A).await.refused(404, "NotFound");
    })
    .await;
}

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut object = box_of(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks}]);
    object
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    over_both(|http: Http| async move {
        let owner = http.post(THINGS, &thing("a")).await.expect(201);
        let child = http.post(BOXES, &owned("child", &owner, false)).await.expect(201);
        http.post(BOXES, &owned("grandchild", &child, false)).await.expect(201);
        let mut other_owner = box_of("two-owners");
        let keeper = http.post(THINGS, &thing("keeper")).await.expect(201);
        let references =
            [&owner, &keeper].map(|owner| owned("x", owner, false)["metadata"]["ownerReferences"][0].clone());
        other_owner["metadata"]["ownerReferences"] = json!(references);
        http.post(BOXES, &other_owner).await.expect(201);
        http.post(BOXES, &box_of("stranger")).await.expect(201);

        http.delete(A, &Value::Null).await.expect(200);
        let left = http.get(BOXES).await.expect(200);
        assert_eq!(names(&left), ["stranger", "two-owners"]);
        let kept = http.get(&format!("{BOXES}/two-owners")).await.expect(200);
        assert_eq!(kept["metadata"]["ownerReferences"], json!([references[1]]), "the dangling reference is dropped");
    })
    .await;
}

#[tokio::test]
async fn an_object_whose_owner_is_not_there_is_collected_and_one_of_an_unknown_kind_is_not() {
    over_both(|http: Http| async move {
        let gone = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "none", "uid": "1"}});
        http.post(BOXES, &owned("orphan", &gone, false)).await.expect(201);
        http.get(&format!("{BOXES}/orphan")).await.refused(404, "NotFound");
        let foreign = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "none", "uid": "1"}});
        http.post(BOXES, &owned("foreign", &foreign, false)).await.expect(201);
        http.get(&format!("{BOXES}/foreign")).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn propagation_is_as_asked() {
    over_both(|http: Http| async move {
        let owner = http.post(THINGS, &thing("a")).await.expect(201);
        http.post(BOXES, &owned("child", &owner, true)).await.expect(201);
        http.delete(&format!("{A}?propagationPolicy=Orphan"), &Value::Null).await.expect(200);
        let child = http.get(&format!("{BOXES}/child")).await.expect(200);
        assert!(child["metadata"].get("ownerReferences").is_none());

        let owner = http.post(THINGS, &thing("a")).await.expect(201);
        let mut held = owned("held", &owner, true);
        held["metadata"]["finalizers"] = json!(["x.y/hold"]);
        http.post(BOXES, &held).await.expect(201);
        let mut second = owned("second", &owner, true);
        second["metadata"]["finalizers"] = json!(["x.y/hold"]);
        http.post(BOXES, &second).await.expect(201);
        let waiting = http.delete(A, &json!({"propagationPolicy": "Foreground"})).await.expect(200);
        assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        let dependent = http.get(&format!("{BOXES}/held")).await.expect(200);
        assert!(dependent["metadata"]["deletionTimestamp"].is_string());
        http.get(A).await.expect(200);
        http.merge(&format!("{BOXES}/second"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        http.get(A).await.expect(200);
        http.merge(&format!("{BOXES}/held"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        http.get(A).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    over_both(|http: Http| async move {
        http.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.expect(201);
        let inside = "/apis/example.com/v1/namespaces/n/boxes";
        http.post(inside, &box_of("free")).await.expect(201);
        let mut held = box_of("held");
        held["metadata"]["finalizers"] = json!(["x.y/hold"]);
        http.post(inside, &held).await.expect(201);
        let going = http.delete("/api/v1/namespaces/n", &Value::Null).await.expect(200);
        assert_eq!(going["status"]["phase"], "Terminating");
        let refused = http.post(inside, &box_of("late")).await.refused(403, "Forbidden");
        assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
        assert_eq!(names(&http.get(inside).await.expect(200)), ["held"]);
        http.merge(&format!("{inside}/held"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
        http.get("/api/v1/namespaces/n").await.refused(404, "NotFound");
        http.delete("/api/v1/namespaces/default", &Value::Null).await.refused(403, "Forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    over_both(|http: Http| async move {
        for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
            let secret = json!({"metadata": {"name": name, "labels": {"app": app}}});
            http.post(SECRETS, &secret).await.expect(201);
        }
        let gone = http.delete(&format!("{SECRETS}?labelSelector=app%3Dx"), &Value::Null).await.expect(200);
        assert_eq!(names(&gone), ["a", "c"]);
        assert_eq!(names(&http.get(SECRETS).await.expect(200)), ["b"]);
        http.delete("/api/v1/secrets", &Value::Null).await.refused(405, "MethodNotAllowed");
    })
    .await;
}

/// What a deletion costs grows with what it deletes, and no faster: no other write waits for long.
#[tokio::test]
async fn many_are_deleted_at_once() {
    const MANY: usize = 1000;
    let server = in_memory().await;
    let http = Http(client(&server));
    let fill = async |namespace: &str| {
        let boxes = BOXES.replace("default", namespace);
        for index in 0..MANY {
            http.post(&boxes, &box_of(&format!("b{index}"))).await.expect(201);
        }
        boxes
    };
    let boxes = fill("default").await;
    let deleted = bounded("deleting a collection", http.delete(&boxes, &Value::Null)).await.expect(200);
    assert_eq!(names(&deleted).len(), MANY);
    http.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.expect(201);
    let boxes = fill("n").await;
    bounded("deleting a namespace", http.delete("/api/v1/namespaces/n", &Value::Null)).await.expect(200);
    http.get("/api/v1/namespaces/n").await.refused(404, "NotFound");
    assert!(names(&http.get(&boxes).await.expect(200)).is_empty());
}
