//! Replacing: whose version counts, which half is written, and what is counted.

use serde_json::{Value, json};

use crate::setup::{BOXES, Http, SECRETS, THINGS, box_of, over_both, thing};

const A: &str = "/apis/example.com/v1/things/a";
const A_STATUS: &str = "/apis/example.com/v1/things/a/status";

#[tokio::test]
async fn a_stale_write_is_refused() {
    over_both(|http: Http| async move {
        let first = http.post(THINGS, &thing("a")).await.expect(201);
        let mut mine = first.clone();
        mine["spec"]["count"] = json!(1);
        let mut theirs = first.clone();
        theirs["spec"]["count"] = json!(2);
        http.put(A, &mine).await.expect(200);
        let refused = http.put(A, &theirs).await.refused(409, "Conflict");
        assert_eq!(
            refused["message"],
            "Operation cannot be fulfilled on things.example.com \"a\": the object has been modified; please apply your \
             changes to the latest version and try again"
        );
        assert_eq!(http.get(A).await.expect(200)["spec"]["count"], 1);

        theirs["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
        let refused = http.put(A, &theirs).await.refused(422, "Invalid");
        assert_eq!(refused["details"]["causes"][0]["field"], "metadata.resourceVersion");
        theirs["metadata"]["resourceVersion"] = json!("x");
        http.put(A, &theirs).await.refused(422, "Invalid");
        http.put(&format!("{THINGS}/none"), &thing("none")).await.refused(404, "NotFound");
        http.put(A, &thing("b")).await.refused(400, "BadRequest");
    })
    .await;
}

#[tokio::test]
async fn main_and_status_ignore_each_others_half() {
    over_both(|http: Http| async move {
        let made = http.post(THINGS, &thing("a")).await.expect(201);
        let mut asked = made.clone();
        asked["spec"]["count"] = json!(5);
        asked["metadata"]["labels"] = json!({"x": "y"});
        asked["status"] = json!({"phase": "Pending"});
        let status = http.put(A_STATUS, &asked).await.expect(200);
        assert_eq!(status["status"]["phase"], "Pending");
        assert_eq!(status["spec"], made["spec"]);
        assert!(status["metadata"].get("labels").is_none(), "a status write leaves metadata alone");
        assert_eq!(status["metadata"]["generation"], 1);

        http.put(A_STATUS, &asked).await.refused(409, "Conflict");

        asked = status.clone();
        asked["spec"]["count"] = json!(5);
        asked["status"] = json!({"phase": "Done"});
        let main = http.put(A, &asked).await.expect(200);
        assert_eq!(main["spec"]["count"], 5);
        assert_eq!(main["status"]["phase"], "Pending");
        assert_eq!(main["metadata"]["generation"], 2);
        http.get(A_STATUS).await.expect(200);
        http.get(&format!("{BOXES}/a/status")).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_only() {
    over_both(|http: Http| async move {
        let generation = |answer: Value| answer["metadata"]["generation"].as_i64();
        http.post(THINGS, &thing("a")).await.expect(201);
        let labelled = http.merge(A, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
        assert_eq!(generation(labelled), Some(1));
        let status = http.merge(A_STATUS, &json!({"status": {"phase": "Pending"}})).await.expect(200);
        assert_eq!(generation(status), Some(1));
        let spec = http.merge(A, &json!({"spec": {"count": 2}})).await.expect(200);
        assert_eq!(generation(spec), Some(2));
        let told = http.merge(A, &json!({"metadata": {"generation": 77}})).await.expect(200);
        assert_eq!(generation(told), Some(2));

        http.post(BOXES, &box_of("b")).await.expect(201);
        let without_status = http.merge(&format!("{BOXES}/b"), &json!({"status": {"x": 1}})).await.expect(200);
        assert_eq!(generation(without_status), Some(2), "where there is no status subresource, status counts");
    })
    .await;
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    over_both(|http: Http| async move {
        let made = http.post(THINGS, &thing("a")).await.expect(201);
        let before = http.revision().await;
        assert_eq!(http.put(A, &made).await.expect(200), made);
        http.merge(A, &json!({})).await.expect(200);
        http.merge(A, &json!({"spec": {"mode": "rw"}})).await.expect(200);
        http.merge(A_STATUS, &json!({"spec": {"count": 4}})).await.expect(200);
        let mut float = made.clone();
        float["spec"]["unknown"] = json!(1.0);
        http.put(A, &float).await.expect(200);
        assert_eq!(http.revision().await, before);
        assert_eq!(http.get(A).await.expect(200), made);
    })
    .await;
}

#[tokio::test]
async fn what_never_changes_cannot_be_changed() {
    over_both(|http: Http| async move {
        let made = http.post(THINGS, &thing("a")).await.expect(201);
        let mut uid = made.clone();
        uid["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
        http.put(A, &uid).await.refused(409, "Conflict");
        let time = json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}});
        assert_eq!(http.merge(A, &time).await.expect(200), made, "ignored, as a cluster does");
        let left_out = http.merge(A, &json!({"metadata": {"uid": null, "creationTimestamp": null}})).await.expect(200);
        assert_eq!(left_out, made);
        let delete = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}});
        http.merge(A, &delete).await.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_have_their_own_ways() {
    over_both(|http: Http| async move {
        // A Secret may be replaced whatever its version; a Lease is created by an update.
        http.post(SECRETS, &json!({"metadata": {"name": "s"}})).await.expect(201);
        let secret = json!({"metadata": {"name": "s"}, "data": {"a": "YQ=="}});
        http.put(&format!("{SECRETS}/s"), &secret).await.expect(200);
        let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
        let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 15,
                           "renewTime": "2026-01-02T03:04:05.123456Z"}});
        let made = http.put(&format!("{leases}/l"), &lease).await.expect(201);
        assert_eq!(made["spec"]["renewTime"], "2026-01-02T03:04:05.123456Z");
        http.put(&format!("{leases}/l"), &lease).await.refused(422, "Invalid");
        http.put(&format!("{leases}/l"), &made).await.expect(200);
        // A namespace is found by its own name as a label, whatever its labels are set to.
        let namespace =
            http.merge("/api/v1/namespaces/default", &json!({"metadata": {"labels": null}})).await.expect(200);
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "default");
        assert_eq!(namespace["status"]["phase"], "Active");
    })
    .await;
}

#[tokio::test]
async fn versions_of_one_kind_are_one_object() {
    over_both(|http: Http| async move {
        http.post(THINGS, &thing("a")).await.expect(201);
        let beta = http.get("/apis/example.com/v1beta1/things/a").await.expect(200);
        assert_eq!(beta["apiVersion"], "example.com/v1beta1");
        let mut changed = beta.clone();
        changed["spec"]["count"] = json!(2);
        let answer = http.put("/apis/example.com/v1beta1/things/a", &changed).await.expect(200);
        assert_eq!(answer["apiVersion"], "example.com/v1beta1");
        let main = http.get(A).await.expect(200);
        assert_eq!((main["apiVersion"].as_str(), &main["spec"]["count"]), (Some("example.com/v1"), &json!(2)));
        let list = http.get("/apis/example.com/v1beta1/things").await.expect(200);
        assert_eq!(list["items"][0]["apiVersion"], "example.com/v1beta1");
    })
    .await;
}
