//! Tables, metadata-only answers, and discovery.

use http::Method;
use serde_json::{Value, json};

use crate::setup::{Answer, Http, SECRETS, THINGS, over_both, thing};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

async fn accepting(http: &Http, path: &str, accept: &str) -> Answer {
    http.send(Method::GET, path, &[("accept", accept)], Vec::new()).await
}

fn cells(table: &Value) -> Vec<Value> {
    table["rows"].as_array().expect("rows").iter().map(|row| row["cells"].clone()).collect()
}

#[tokio::test]
async fn tables_have_the_columns_of_the_kind() {
    over_both(|http: Http| async move {
        let mut object = thing("a");
        object["spec"]["count"] = json!(4);
        object["spec"]["comment"] = json!("wide only");
        http.post(THINGS, &object).await.expect(201);
        let table = accepting(&http, THINGS, TABLE).await.expect(200);
        assert_eq!((table["kind"].as_str(), table["apiVersion"].as_str()), (Some("Table"), Some("meta.k8s.io/v1")));
        let columns = table["columnDefinitions"].as_array().expect("columns").iter();
        let columns: Vec<(&str, i64)> = columns
            .map(|column| (column["name"].as_str().expect("name"), column["priority"].as_i64().expect("priority")))
            .collect();
        assert_eq!(columns, [("Name", 0), ("Size", 0), ("Count", 0), ("Phase", 0), ("Comment", 1), ("Age", 0)]);
        let row = &cells(&table)[0];
        assert_eq!(
            (&row[0], &row[1], &row[2], &row[3], &row[4]),
            (&json!("a"), &json!("1Gi"), &json!(4), &Value::Null, &json!("wide only"))
        );
        assert!(row[5].as_str().expect("an age").ends_with('s'), "{row}");
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");

        let whole = accepting(&http, &format!("{THINGS}/a?includeObject=Object"), TABLE).await.expect(200);
        assert_eq!(whole["rows"][0]["object"]["spec"]["count"], 4);
        let none = accepting(&http, &format!("{THINGS}?includeObject=None"), TABLE).await.expect(200);
        assert!(none["rows"][0].get("object").is_none());
        accepting(&http, THINGS, "application/vnd.kubernetes.protobuf").await.refused(406, "NotAcceptable");

        let partial = accepting(&http, THINGS, PARTIAL).await.expect(200);
        assert_eq!(partial["kind"], "PartialObjectMetadataList");
        assert!(partial["items"][0].get("spec").is_none());
        assert_eq!(partial["items"][0]["metadata"]["name"], "a");
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_have_their_tables() {
    over_both(|http: Http| async move {
        http.post(SECRETS, &json!({"metadata": {"name": "s"}, "data": {"a": "YQ==", "b": "Yg=="}})).await.expect(201);
        let secrets = cells(&accepting(&http, SECRETS, TABLE).await.expect(200));
        assert_eq!((&secrets[0][0], &secrets[0][1], &secrets[0][2]), (&json!("s"), &json!("Opaque"), &json!(2)));

        // Written through one API group, read through the other.
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
            "regarding": {"kind": "Box", "name": "b", "namespace": "default"}, "reason": "Full", "note": "no room",
            "type": "Warning", "eventTime": "2026-01-02T03:04:05.000000Z", "action": "Fill",
            "reportingController": "c", "reportingInstance": "i"});
        http.post("/apis/events.k8s.io/v1/namespaces/default/events", &event).await.expect(201);
        let events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Db,involvedObject.kind%3DBox";
        let core = http.get(events).await.expect(200);
        assert_eq!(core["items"][0]["message"], "no room");
        assert_eq!(core["items"][0]["involvedObject"]["name"], "b");
        let regarding = "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=regarding.name%3Db";
        let modern = http.get(regarding).await.expect(200);
        assert_eq!(modern["items"][0]["note"], "no room");
        let table = cells(&accepting(&http, events, TABLE).await.expect(200));
        assert_eq!(
            (&table[0][1], &table[0][2], &table[0][3], &table[0][4]),
            (&json!("Warning"), &json!("Full"), &json!("box/b"), &json!("no room"))
        );
        let mut misplaced = event;
        misplaced["regarding"]["namespace"] = json!("kube-system");
        misplaced["metadata"]["name"] = json!("f");
        http.post("/apis/events.k8s.io/v1/namespaces/default/events", &misplaced).await.refused(422, "Invalid");
    })
    .await;
}

#[tokio::test]
async fn what_there_is_can_be_discovered() {
    over_both(|http: Http| async move {
        let version = http.get("/version").await.expect(200);
        assert!(version["minor"].as_str().expect("minor").parse::<u32>().expect("a number") >= 33);
        assert_eq!(http.get("/readyz").await.expect(200), "ok");
        let groups = http.get("/apis").await.expect(200);
        let groups: Vec<&str> = groups["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .map(|group| group["name"].as_str().expect("name"))
            .collect();
        let expected = [
            "coordination.k8s.io",
            "rbac.authorization.k8s.io",
            "events.k8s.io",
            "example.com",
            "authentication.k8s.io",
            "authorization.k8s.io",
        ];
        assert_eq!(groups, expected);
        let resources = http.get("/apis/example.com/v1").await.expect(200);
        let resources: Vec<&str> = resources["resources"]
            .as_array()
            .expect("list")
            .iter()
            .map(|one| one["name"].as_str().expect("name"))
            .collect();
        assert_eq!(resources, ["things", "things/status", "boxes"]);
        assert_eq!(http.get("/apis/example.com").await.expect(200)["preferredVersion"]["version"], "v1");
        http.get("/apis/none.com").await.refused(404, "NotFound");
        http.get("/apis/example.com/v9").await.refused(404, "NotFound");

        for (path, count) in [("/api", 1), ("/apis", 6)] {
            let aggregated = accepting(&http, path, AGGREGATED).await.expect(200);
            assert_eq!(aggregated["kind"], "APIGroupDiscoveryList");
            assert_eq!(aggregated["items"].as_array().expect("items").len(), count, "{path}");
        }
        let index = http.get("/openapi/v3").await.expect(200);
        let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("a url").to_owned();
        let document = http.get(&url).await.expect(200);
        let parameters = &document["paths"]["/apis/example.com/v1/things/{name}"]["patch"]["parameters"];
        assert!(parameters.as_array().expect("parameters").iter().any(|one| one["name"] == "fieldValidation"));
        let schema = &document["components"]["schemas"]["com.example.v1.Thing"];
        assert_eq!(schema["properties"]["spec"]["properties"]["size"]["description"], "How large it is.");
        http.get("/openapi/v2").await.refused(404, "NotFound");
    })
    .await;
}
