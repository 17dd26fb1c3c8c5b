//! Creating, and what the server says about a new object.

use serde_json::{Value, json};

use crate::setup::{BOXES, Http, SECRETS, THINGS, box_of, over_both, thing};

#[tokio::test]
async fn a_new_object_has_what_only_the_server_says() {
    over_both(|http: Http| async move {
        let mut asked = thing("a");
        asked["metadata"]["uid"] = json!("mine");
        asked["metadata"]["generation"] = json!(7);
        asked["metadata"]["creationTimestamp"] = Value::Null;
        asked["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
        asked["status"] = json!({"phase": "Done"});
        let made = http.post(THINGS, &asked).await.expect(201);
        let metadata = &made["metadata"];
        assert_eq!(metadata["generation"], 1);
        assert_ne!(metadata["uid"], "mine");
        assert_eq!(metadata["uid"].as_str().expect("a uid").len(), 36);
        assert!(metadata["creationTimestamp"].as_str().expect("a time").ends_with('Z'));
        assert!(metadata["deletionTimestamp"].is_null());
        assert!(made.get("status").is_none(), "a status is not for the creator to say");
        assert_eq!(made["spec"], json!({"size": "1Gi", "mode": "rw"}), "defaults are filled in");
        let read = http.get(&format!("{THINGS}/a")).await.expect(200);
        assert_eq!(read, made);
        let version: u64 = metadata["resourceVersion"].as_str().expect("a version").parse().expect("a number");
        assert_eq!(version, http.revision().await);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_created_is_refused() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        let twice = http.post(THINGS, &thing("a")).await.refused(409, "AlreadyExists");
        assert_eq!(twice["message"], "things.example.com \"a\" already exists");
        assert_eq!(twice["details"], json!({"name": "a", "group": "example.com", "kind": "things"}));

        let bad_name = http.post(THINGS, &thing("A_b")).await.refused(422, "Invalid");
        assert_eq!(bad_name["details"]["kind"], "Thing");
        assert_eq!(bad_name["details"]["causes"][0]["field"], "metadata.name");
        assert_eq!(bad_name["details"]["causes"][0]["reason"], "FieldValueInvalid");

        let mut versioned = thing("b");
        versioned["metadata"]["resourceVersion"] = json!("1");
        http.post(THINGS, &versioned).await.refused(400, "BadRequest");
        let mut other = thing("b");
        other["kind"] = json!("Other");
        http.post(THINGS, &other).await.refused(400, "BadRequest");
        let mut version = thing("b");
        version["apiVersion"] = json!("example.com/v2");
        http.post(THINGS, &version).await.refused(400, "BadRequest");
        http.post(THINGS, &json!({"apiVersion": "example.com/v1", "kind": "Thing", "spec": {"size": 1}}))
            .await
            .refused(422, "Invalid");
        http.post(THINGS, &json!([])).await.refused(400, "BadRequest");
        http.post("/apis/example.com/v1/boxes", &box_of("b")).await.refused(405, "MethodNotAllowed");
        let mut elsewhere = box_of("b");
        elsewhere["metadata"]["namespace"] = json!("kube-system");
        http.post(BOXES, &elsewhere).await.refused(400, "BadRequest");
        let nowhere =
            http.post("/apis/example.com/v1/namespaces/none/boxes", &box_of("b")).await.refused(404, "NotFound");
        assert_eq!(nowhere["message"], "namespaces \"none\" not found");
        http.get(&format!("{THINGS}/b")).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn names_are_generated() {
    over_both(|http: Http| async move {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let asked = json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"generateName": "box-"}});
            let made = http.post(BOXES, &asked).await.expect(201);
            let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
            assert!(name.starts_with("box-") && name.len() == 9, "{name}");
            assert!(seen.insert(name));
        }
        let long =
            json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"generateName": "b".repeat(200)}});
        let made = http.post(BOXES, &long).await.expect(201);
        assert_eq!(made["metadata"]["name"].as_str().expect("a name").len(), 63);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    over_both(|http: Http| async move {
        let before = http.revision().await;
        let made = http.post(&format!("{THINGS}?dryRun=All"), &thing("a")).await.expect(201);
        assert_eq!(made["spec"]["mode"], "rw");
        assert!(made["metadata"].get("resourceVersion").is_none());
        http.get(&format!("{THINGS}/a")).await.refused(404, "NotFound");
        http.post(&format!("{THINGS}?dryRun=Some"), &thing("a")).await.refused(422, "Invalid");
        http.post(&format!("{THINGS}?dryRun=All"), &thing("A_")).await.refused(422, "Invalid");
        assert_eq!(http.revision().await, before);

        http.post(THINGS, &thing("a")).await.expect(201);
        let patched = http.merge(&format!("{THINGS}/a?dryRun=All"), &json!({"spec": {"count": 3}})).await.expect(200);
        assert_eq!(patched["spec"]["count"], 3);
        http.delete(&format!("{THINGS}/a?dryRun=All"), &Value::Null).await.expect(200);
        http.delete(&format!("{THINGS}/a"), &json!({"dryRun": ["All"]})).await.expect(200);
        let still = http.get(&format!("{THINGS}/a")).await.expect(200);
        assert!(still["spec"].get("count").is_none());
    })
    .await;
}

#[tokio::test]
async fn secrets_take_plain_text_and_keep_it_encoded() {
    over_both(|http: Http| async move {
        let asked = json!({"metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": "plain", "a": "new"}});
        let made = http.post(SECRETS, &asked).await.expect(201);
        assert_eq!(made["data"], json!({"a": "bmV3", "b": "cGxhaW4="}));
        assert!(made.get("stringData").is_none());
        assert_eq!(made["type"], "Opaque");
        assert!(made["metadata"].get("generation").is_none());
        http.post(SECRETS, &json!({"metadata": {"name": "t"}, "data": {"a": "not base64!"}}))
            .await
            .refused(400, "BadRequest");
        http.post(SECRETS, &json!({"metadata": {"name": "t"}, "data": {"a": 1}})).await.refused(400, "BadRequest");
        let changed = http.merge(&format!("{SECRETS}/s"), &json!({"stringData": {"c": "x"}})).await.expect(200);
        assert_eq!(changed["data"]["c"], "eA==");
        http.merge(&format!("{SECRETS}/s"), &json!({"type": "other"})).await.refused(422, "Invalid");
        http.merge(&format!("{SECRETS}/s"), &json!({"immutable": true})).await.expect(200);
        http.merge(&format!("{SECRETS}/s"), &json!({"data": {"a": null}})).await.refused(422, "Invalid");
    })
    .await;
}
