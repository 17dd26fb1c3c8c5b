//! Other forms of objects: tables for people, and metadata alone.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, concepts, custom};
use crate::http::version;

cases! {
    Api concepts {
        a_list_becomes_a_table: "Receiving resources as Tables",
        one_object_becomes_a_table: "Receiving resources as Tables",
        a_table_falls_back_to_json: "Receiving resources as Tables",
        a_row_carries_metadata: "Receiving resources as Tables",
        a_row_carries_what_is_asked_for: "Receiving resources as Tables",
        a_watch_tells_of_rows: "Receiving resources as Tables",
        a_table_comes_in_pages: "Receiving resources as Tables",
        metadata_alone: "Metadata-only fetches",
        a_list_of_metadata_alone: "Metadata-only fetches",
    }
    Api custom {
        the_columns_are_those_of_the_kind: "Additional printer columns",
        a_cell_has_the_type_of_its_column: "Additional printer columns",
        a_kind_without_columns_shows_its_age: "Additional printer columns",
    }
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

async fn some(g: &Ground) {
    g.create("a", &json!({"size": "1Gi", "count": 3, "comment": "c"})).await;
    g.create("b", &json!({"size": 2})).await;
    g.http.merge(&format!("{}/status", g.at("a")), &json!({"status": {"phase": "Running"}})).await.expect(200);
}

async fn table(g: &Ground, path: &str) -> Value {
    let table = g.http.get_as(path, TABLE).await.expect(200);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    table
}

/// The cells of a column, by its name.
fn column(table: &Value, name: &str) -> Vec<Value> {
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let at = columns.iter().position(|column| column["name"] == name);
    let at = at.unwrap_or_else(|| panic!("no column {name}: {columns:?}"));
    table["rows"].as_array().expect("rows").iter().map(|row| row["cells"][at].clone()).collect()
}

async fn a_list_becomes_a_table(g: Ground) {
    some(&g).await;
    let found = table(&g, &g.widgets()).await;
    assert_eq!(column(&found, "Name"), [json!("a"), json!("b")]);
    assert_eq!(version(&found), version(&g.http.get(&g.widgets()).await.expect(200)));
}

async fn one_object_becomes_a_table(g: Ground) {
    some(&g).await;
    assert_eq!(column(&table(&g, &g.at("a")).await, "Name"), [json!("a")]);
}

async fn a_table_falls_back_to_json(g: Ground) {
    some(&g).await;
    let odd = "application/json;as=Odd;v=v1;g=meta.k8s.io, application/json";
    assert_eq!(g.http.get_as(&g.widgets(), odd).await.expect(200)["kind"], "WidgetList");
    let both = format!("{TABLE}, application/json");
    assert_eq!(g.http.get_as(&g.widgets(), &both).await.expect(200)["kind"], "Table");
    let other = format!("application/json, {TABLE}");
    assert_eq!(g.http.get_as(&g.widgets(), &other).await.expect(200)["kind"], "WidgetList");
}

async fn a_row_carries_metadata(g: Ground) {
    some(&g).await;
    let found = table(&g, &g.widgets()).await;
    let object = &found["rows"][0]["object"];
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
    assert_eq!(object.get("spec"), None);
}

async fn a_row_carries_what_is_asked_for(g: Ground) {
    some(&g).await;
    let none = table(&g, &format!("{}?includeObject=None", g.widgets())).await;
    assert_eq!(none["rows"][0].get("object").unwrap_or(&Value::Null), &Value::Null);
    let whole = table(&g, &format!("{}?includeObject=Object", g.widgets())).await;
    assert_eq!(whole["rows"][0]["object"]["spec"]["size"], "1Gi");
    let answer = g.http.get_as(&format!("{}?includeObject=Half", g.widgets()), TABLE).await;
    assert!(answer.code >= 400, "{}", answer.body);
}

async fn a_watch_tells_of_rows(g: Ground) {
    let from = version(&g.http.get(&g.widgets()).await.expect(200)).to_owned();
    g.create("a", &json!({"size": 1})).await;
    let path = format!("{}?watch=true&timeoutSeconds=1&resourceVersion={from}", g.widgets());
    let event = g.http.get_as(&path, TABLE).await.expect(200);
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(column(&event["object"], "Name"), [json!("a")]);
}

async fn a_table_comes_in_pages(g: Ground) {
    some(&g).await;
    let first = table(&g, &format!("{}?limit=1", g.widgets())).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = table(&g, &format!("{}?limit=1&continue={token}", g.widgets())).await;
    assert_eq!((column(&first, "Name"), column(&second, "Name")), (vec![json!("a")], vec![json!("b")]));
}

async fn metadata_alone(g: Ground) {
    some(&g).await;
    let found = g.http.get_as(&g.at("a"), PARTIAL).await.expect(200);
    assert_eq!((&found["kind"], &found["apiVersion"]), (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1")));
    assert_eq!((found.get("spec"), found.get("status")), (None, None));
    assert_eq!(found["metadata"], g.http.get(&g.at("a")).await.expect(200)["metadata"]);
}

async fn a_list_of_metadata_alone(g: Ground) {
    some(&g).await;
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let found = g.http.get_as(&g.widgets(), accept).await.expect(200);
    assert_eq!((&found["kind"], &found["apiVersion"]), (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1")));
    assert_eq!(found["items"].as_array().map(Vec::len), Some(2));
    assert_eq!((found["items"][0].get("spec"), &found["items"][0]["metadata"]["name"]), (None, &json!("a")));
}

async fn the_columns_are_those_of_the_kind(g: Ground) {
    some(&g).await;
    let found = table(&g, &g.widgets()).await;
    let names: Vec<&Value> =
        found["columnDefinitions"].as_array().expect("columns").iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Size", "Count", "Phase", "Comment"]);
    assert_eq!(column(&found, "Phase")[0], "Running");
    assert_eq!(found["columnDefinitions"][4]["priority"], 1);
    assert_eq!(found["columnDefinitions"][1]["description"], "How large it is.");
}

async fn a_cell_has_the_type_of_its_column(g: Ground) {
    some(&g).await;
    let found = table(&g, &g.widgets()).await;
    assert_eq!(column(&found, "Count"), [json!(3), Value::Null]);
    assert_eq!(column(&found, "Size")[0], "1Gi");
    assert_eq!(column(&found, "Comment"), [json!("c"), Value::Null]);
}

async fn a_kind_without_columns_shows_its_age(g: Ground) {
    let name = g.own("a");
    let path = format!("{}/{name}", g.gadgets());
    g.http.post(&g.gadgets(), &g.gadget(&name)).await.expect(201);
    let found = table(&g, &path).await;
    assert_eq!(column(&found, "Name"), [json!(name)]);
    assert_eq!(column(&found, "Age").len(), 1);
    g.http.delete(&path).await.expect(200);
}
