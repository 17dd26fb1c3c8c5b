//! `managedFields`: who is written down for which write, and when nobody is.

use serde_json::{Value, json};

use crate::setup::{Http, SECRETS, THINGS, over_both, thing};

const A: &str = "/apis/example.com/v1/things/a";
const A_STATUS: &str = "/apis/example.com/v1/things/a/status";

fn by(path: &str, manager: &str) -> String {
    format!("{path}?fieldManager={manager}")
}

/// The entries, without their times, which have to be there.
fn entries(object: &Value) -> Value {
    let mut entries = object["metadata"]["managedFields"].clone();
    for entry in entries.as_array_mut().into_iter().flatten() {
        let time = entry.as_object_mut().and_then(|fields| fields.remove("time"));
        let time = time.as_ref().and_then(Value::as_str).expect("a time").to_owned();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
        assert_eq!(entry["fieldsType"], "FieldsV1");
    }
    entries
}

fn entry(manager: &str, subresource: &str, fields: Value) -> Value {
    let mut entry = json!({"manager": manager, "operation": "Update", "apiVersion": "example.com/v1",
                           "fieldsType": "FieldsV1", "fieldsV1": fields});
    if !subresource.is_empty() {
        entry["subresource"] = json!(subresource);
    }
    entry
}

fn sorted(entries: &Value) -> Vec<Value> {
    let mut entries = entries.as_array().cloned().unwrap_or_default();
    entries.sort_by_key(|entry| format!("{}{}", entry["manager"], entry["subresource"]));
    entries
}

#[tokio::test]
async fn every_write_is_put_down_to_its_manager() {
    over_both(|http: Http| async move {
        let mut asked = thing("a");
        asked["metadata"]["labels"] = json!({"x": "y"});
        asked["spec"]["ports"] = json!([{"name": "p", "number": 1}]);
        asked["status"] = json!({"phase": "Done"});
        let made = http.post(&by(THINGS, "maker"), &asked).await.expect(201);
        let port = json!({".": {}, "f:name": {}, "f:number": {}});
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
            "f:spec": {".": {}, "f:size": {}, "f:mode": {}, "f:ports": {".": {}, "k:{\"name\":\"p\"}": port}}});
        assert_eq!(entries(&made), json!([entry("maker", "", fields)]));

        http.merge(&by(A, "editor"), &json!({"spec": {"size": 2, "count": 1}})).await.expect(200);
        let json_patch =
            json!([{"op": "remove", "path": "/metadata/labels"}, {"op": "add", "path": "/spec/code", "value": "a"}]);
        http.patch(&by(A, "patcher"), "application/json-patch+json", &json_patch).await.expect(200);
        let written = http.merge(&by(A_STATUS, "agent"), &json!({"status": {"phase": "Pending"}})).await.expect(200);
        let expected = [
            entry("agent", "status", json!({"f:status": {".": {}, "f:phase": {}}})),
            entry("editor", "", json!({"f:spec": {"f:size": {}, "f:count": {}}})),
            entry(
                "maker",
                "",
                json!({"f:spec": {".": {}, "f:mode": {}, "f:ports": {".": {}, "k:{\"name\":\"p\"}": port}}}),
            ),
            entry("patcher", "", json!({"f:spec": {"f:code": {}}})),
        ];
        assert_eq!(sorted(&entries(&written)), expected);

        // The same manager again: one entry, with what it owned before.
        let again = http.merge(&by(A, "editor"), &json!({"spec": {"code": "b"}})).await.expect(200);
        let editor = json!({"f:spec": {"f:size": {}, "f:count": {}, "f:code": {}}});
        assert_eq!(sorted(&entries(&again))[1..3], [entry("editor", "", editor), expected[2].clone()]);

        // Whoever owns nothing any more is no longer named.
        let mut replaced = again.clone();
        replaced["spec"] = json!({"size": 3, "code": "c"});
        let replaced = http.put(&by(A, "last"), &replaced).await.expect(200);
        let managers: Vec<&str> = replaced["metadata"]["managedFields"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|entry| entry["manager"].as_str())
            .collect();
        assert!(!managers.contains(&"editor") && managers.contains(&"last"), "{managers:?}");
    })
    .await;
}

#[tokio::test]
async fn a_program_is_a_manager_when_none_is_named() {
    over_both(|http: Http| async move {
        let headers = [("content-type", "application/json"), ("user-agent", "tester/1.0 (linux)")];
        let body = thing("a").to_string().into_bytes();
        let made = http.send(http::Method::POST, THINGS, &headers, body).await.expect(201);
        assert_eq!(made["metadata"]["managedFields"][0]["manager"], "tester");
        let body = thing("b").to_string().into_bytes();
        let made = http.send(http::Method::POST, THINGS, &[("user-agent", "")], body).await.expect(201);
        assert_eq!(made["metadata"]["managedFields"][0]["manager"], "unknown");
        let long = "x".repeat(129);
        let refused = http.post(&by(THINGS, &long), &thing("c")).await.refused(422, "Invalid");
        assert_eq!(refused["details"]["kind"], "CreateOptions");
        http.put(&by(A, "a%07b"), &thing("a")).await.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn managers_are_taken_away_and_come_back_with_an_apply() {
    over_both(|http: Http| async move {
        for (name, reset) in [("a", json!([{}])), ("b", json!([]))] {
            let path = format!("{THINGS}/{name}");
            http.post(&by(THINGS, "maker"), &thing(name)).await.expect(201);
            let object = http.merge(&path, &json!({"metadata": {"managedFields": reset}})).await.expect(200);
            assert_eq!(object["metadata"].get("managedFields"), None);
            let changed = http.merge(&by(&path, "editor"), &json!({"spec": {"count": 2}})).await.expect(200);
            assert_eq!(changed["metadata"].get("managedFields"), None, "what is not tracked stays so");
            let applied = http.apply(&path, "me", &thing(name)).await.expect(200);
            let managers = applied["metadata"]["managedFields"].as_array().expect("a list");
            let managers: Vec<&str> = managers.iter().filter_map(|entry| entry["manager"].as_str()).collect();
            assert_eq!(managers, ["me", "before-first-apply"]);
        }
        // A client that knows nothing of managers takes none away; one that garbles them neither.
        let made = http.post(&by(THINGS, "maker"), &thing("c")).await.expect(201);
        let path = format!("{THINGS}/c");
        for said in [Value::Null, json!([{"manager": "x", "operation": "Odd"}])] {
            let mut object = http.get(&path).await.expect(200);
            object["metadata"]["managedFields"] = said;
            let after = http.put(&by(&path, "other"), &object).await.expect(200);
            assert_eq!(after["metadata"]["managedFields"], made["metadata"]["managedFields"]);
        }
        http.put(&path, &{
            let mut object = made.clone();
            object["metadata"]["managedFields"] = json!("x");
            object
        })
        .await
        .refused(400, "BadRequest");
        // They may be rewritten through the object, and not through its status.
        let mut renamed = made["metadata"]["managedFields"].clone();
        renamed[0]["manager"] = json!("renamed");
        let rewrite = json!({"metadata": {"managedFields": renamed}});
        let status = http.merge(&format!("{path}/status"), &rewrite).await.expect(200);
        assert_eq!(status["metadata"]["managedFields"], made["metadata"]["managedFields"]);
        let main = http.merge(&path, &rewrite).await.expect(200);
        assert_eq!(main["metadata"]["managedFields"][0]["manager"], "renamed");
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_have_managers_too() {
    over_both(|http: Http| async move {
        let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "x"}});
        let made = http.post(&by(SECRETS, "maker"), &secret).await.expect(201);
        let fields = &made["metadata"]["managedFields"][0]["fieldsV1"];
        assert_eq!(fields, &json!({"f:data": {".": {}, "f:a": {}}, "f:type": {}}));
        let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
        let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x"}});
        let made = http.post(&by(leases, "maker"), &lease).await.expect(201);
        assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec": {"f:holderIdentity": {}}}));
        let namespace =
            http.post(&by("/api/v1/namespaces", "maker"), &json!({"metadata": {"name": "n"}})).await.expect(201);
        let label = json!({"f:metadata": {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}}}});
        assert_eq!(namespace["metadata"]["managedFields"][0]["fieldsV1"], label);
        let event = json!({"metadata": {"name": "e"}, "message": "m", "source": {"component": "c"},
                           "involvedObject": {"kind": "Thing", "name": "a", "namespace": "default"}});
        let made = http.post(&by("/api/v1/namespaces/default/events", "maker"), &event).await.expect(201);
        let fields = json!({"f:involvedObject": {}, "f:message": {}, "f:source": {"f:component": {}}});
        assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], fields);
    })
    .await;
}
