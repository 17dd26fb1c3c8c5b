//! The kinds of clusters, where they are asked for.

use http::Method;
use lvault_apiserver::{ApiServer, ClusterKind, Config};
use serde_json::{Value, json};

use crate::setup::{Http, client, over_both};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const SNAPSHOTS: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots";

async fn server() -> (ApiServer, Http) {
    let config = Config::in_memory(Vec::new()).with_kinds(&ClusterKind::ALL);
    let server = ApiServer::open(config).await.expect("opens");
    let http = Http(client(&server));
    (server, http)
}

fn pod(name: &str, node: &str) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                         "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

#[tokio::test]
async fn they_are_not_there_unless_asked_for() {
    over_both(|http: Http| async move {
        http.get(PODS).await.refused(404, "NotFound");
        http.get(SNAPSHOTS).await.refused(404, "NotFound");
    })
    .await;
}

#[tokio::test]
async fn a_pod_is_deleted_when_whoever_runs_it_says_so() {
    let (_server, http) = server().await;
    let one = format!("{PODS}/a");
    let made = http.post(PODS, &pod("a", "n1")).await.expect(201);
    assert_eq!((&made["status"]["phase"], &made["spec"]["restartPolicy"]), (&json!("Pending"), &json!("Always")));
    assert_eq!(made["spec"]["containers"][0]["ports"], json!([{"containerPort": 1}]), "what is not named is kept");
    assert!(made["metadata"].get("generation").is_none());
    let grace = |pod: &Value| pod["metadata"]["deletionGracePeriodSeconds"].clone();
    let at = |pod: &Value| {
        pod["metadata"]["deletionTimestamp"]
            .as_str()
            .expect("a time")
            .parse::<jiff::Timestamp>()
            .expect("a time")
            .as_second()
    };
    let before = jiff::Timestamp::now();
    let marked = http.delete(&one, &Value::Null).await.expect(200);
    assert_eq!(grace(&marked), 30);
    assert!(at(&marked) - before.as_second() >= 30, "{marked}");
    let again = http.delete(&one, &Value::Null).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"], "nothing new");
    let longer = http.delete(&one, &json!({"gracePeriodSeconds": 60})).await.expect(200);
    assert_eq!(grace(&longer), 30);
    let shorter = http.delete(&format!("{one}?gracePeriodSeconds=10"), &Value::Null).await.expect(200);
    assert_eq!((grace(&shorter), at(&marked) - at(&shorter)), (json!(10), 20));
    // An update in between does not end it early.
    http.merge(&one, &json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
    http.merge(&format!("{one}/status"), &json!({"status": {"phase": "Running"}})).await.expect(200);
    http.get(&one).await.expect(200);
    http.delete(&one, &json!({"gracePeriodSeconds": "0"})).await.refused(400, "BadRequest");
    let other = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    http.delete(&one, &other).await.refused(409, "Conflict");
    http.delete(&one, &json!({"gracePeriodSeconds": 0})).await.expect(200);
    http.get(&one).await.refused(404, "NotFound");

    // On no node, or ended already: at once. Held by a finalizer: marked.
    http.post(PODS, &pod("b", "")).await.expect(201);
    http.delete(&format!("{PODS}/b"), &Value::Null).await.expect(200);
    http.get(&format!("{PODS}/b")).await.refused(404, "NotFound");
    http.post(PODS, &pod("c", "n1")).await.expect(201);
    http.merge(&format!("{PODS}/c/status"), &json!({"status": {"phase": "Failed"}})).await.expect(200);
    http.merge(&format!("{PODS}/c"), &json!({"metadata": {"finalizers": ["a.b/c"]}})).await.expect(200);
    assert_eq!(grace(&http.delete(&format!("{PODS}/c"), &Value::Null).await.expect(200)), 0);
    http.merge(&format!("{PODS}/c"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    http.get(&format!("{PODS}/c")).await.refused(404, "NotFound");
}

#[tokio::test]
async fn pods_are_selected_by_node_and_their_spec_stays() {
    let (_server, http) = server().await;
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        http.post(PODS, &pod(name, node)).await.expect(201);
    }
    let found = http.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn2")).await.expect(200);
    assert_eq!(crate::setup::names(&found), ["b"]);
    http.merge(&format!("{PODS}/a"), &json!({"spec": {"nodeName": "n2"}})).await.refused(422, "Invalid");
    let image = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    let kind = "application/strategic-merge-patch+json";
    let changed = http.patch(&format!("{PODS}/a"), kind, &image).await.expect(200);
    assert_eq!(changed["spec"]["containers"][0]["ports"], json!([{"containerPort": 1}]));
    for wrong in [
        json!({"containers": []}),
        json!({}),
        json!({"containers": [{"name": "A"}]}),
        json!({"containers": [{"name": "a"}, {"name": "a"}]}),
    ] {
        http.post(PODS, &json!({"metadata": {"name": "x"}, "spec": wrong})).await.refused(422, "Invalid");
    }
    let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    http.patch(
        &format!("{PODS}/a/status"),
        kind,
        &json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}}),
    )
    .await
    .expect(200);
    http.patch(&format!("{PODS}/a/status"), kind, &ready("False")).await.expect(200);
    let status = http.patch(&format!("{PODS}/a/status"), kind, &ready("True")).await.expect(200);
    assert_eq!(status["status"]["conditions"].as_array().expect("conditions").len(), 2, "{status}");
}

#[tokio::test]
async fn claims_volumes_nodes_and_maps_keep_their_rules() {
    let (_server, http) = server().await;
    let node = json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "2"}}});
    let made = http.post("/api/v1/nodes", &node).await.expect(201);
    assert_eq!(made["status"]["capacity"]["cpu"], "2", "a node registers with its status");

    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "c"}, "spec": spec});
    assert_eq!(http.post(CLAIMS, &claim).await.expect(201)["status"]["phase"], "Pending");
    let one = format!("{CLAIMS}/c");
    http.merge(&one, &json!({"spec": {"volumeName": "v"}})).await.expect(200);
    http.merge(&one, &json!({"spec": {"volumeName": "w"}})).await.refused(422, "Invalid");
    http.merge(&one, &json!({"spec": {"storageClassName": "s"}})).await.refused(422, "Invalid");
    http.merge(&one, &json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})).await.expect(200);
    let none = json!({"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {}}});
    http.post(CLAIMS, &none).await.refused(422, "Invalid");

    let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "csi": {"driver": "d", "volumeHandle": "h"}});
    let made = http.post(VOLUMES, &json!({"metadata": {"name": "v"}, "spec": spec})).await.expect(201);
    assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    let one = format!("{VOLUMES}/v");
    http.merge(&one, &json!({"spec": {"csi": {"volumeHandle": "i"}}})).await.refused(422, "Invalid");
    http.merge(&one, &json!({"spec": {"hostPath": {"path": "/x"}}})).await.refused(422, "Invalid");
    http.merge(&one, &json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})).await.expect(200);
    let none =
        json!({"metadata": {"name": "w"}, "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
    http.post(VOLUMES, &none).await.refused(422, "Invalid");

    let maps = "/api/v1/namespaces/default/configmaps";
    http.post(maps, &json!({"metadata": {"name": "m"}, "data": {"a": "b"}, "immutable": true})).await.expect(201);
    http.merge(&format!("{maps}/m"), &json!({"data": {"a": "c"}})).await.refused(422, "Invalid");
    http.post(maps, &json!({"metadata": {"name": "n"}, "data": {"a/b": "c"}})).await.refused(422, "Invalid");
}

#[tokio::test]
async fn snapshots_are_of_one_source() {
    let (_server, http) = server().await;
    let snapshot = |source: Value| {
        json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
                                          "metadata": {"name": "s"}, "spec": {"source": source}})
    };
    let both = json!({"persistentVolumeClaimName": "c", "volumeSnapshotContentName": "d"});
    for wrong in [json!({}), both] {
        http.post(SNAPSHOTS, &snapshot(wrong)).await.refused(422, "Invalid");
    }
    http.post(SNAPSHOTS, &snapshot(json!({"persistentVolumeClaimName": "c"}))).await.expect(201);
    let one = format!("{SNAPSHOTS}/s");
    let other = json!({"spec": {"source": {"persistentVolumeClaimName": "d"}}});
    http.merge(&one, &other).await.refused(422, "Invalid");
    let status = json!({"status": {"readyToUse": true, "restoreSize": "1Gi", "boundVolumeSnapshotContentName": "x"}});
    http.merge(&format!("{one}/status"), &status).await.expect(200);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = http.send(Method::GET, SNAPSHOTS, &table, Vec::new()).await.expect(200);
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells.get(..3), Some(&[json!("s"), json!(true), json!("c")][..]));
    let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
                       "metadata": {"name": "k"}, "driver": "d", "deletionPolicy": "Odd"});
    let classes = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses";
    http.post(classes, &class).await.refused(422, "Invalid");
    let spec = json!({"deletionPolicy": "Retain", "driver": "d", "source": {"volumeHandle": "h"}, "volumeSnapshotRef": {"name": "s"}});
    let content = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                         "metadata": {"name": "c"}, "spec": spec});
    http.post("/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents", &content).await.refused(422, "Invalid");
}
