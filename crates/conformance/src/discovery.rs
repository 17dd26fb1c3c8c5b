//! What a server says of itself: versions, groups, resources, schemas, health.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, custom, health, overview};

cases! {
    Api overview {
        the_server_says_its_version: "The Kubernetes API",
        the_core_versions_are_listed: "Discovery API",
        the_groups_are_listed: "Unaggregated discovery",
        a_group_says_its_preferred_version: "Unaggregated discovery",
        the_resources_of_a_version_are_listed: "Unaggregated discovery",
        the_core_resources_are_listed: "Unaggregated discovery",
        discovery_comes_in_one_document: "Aggregated discovery",
        discovery_falls_back_to_the_list: "Aggregated discovery",
        the_schemas_are_indexed: "OpenAPI V3",
        a_schema_describes_the_kind: "OpenAPI V3",
        a_schema_says_which_kind_it_is: "OpenAPI V3",
    }
    Api custom {
        a_kind_is_discovered_under_its_names: "Create a CustomResourceDefinition",
        a_status_is_discovered_as_a_resource: "Status subresource",
    }
    Api health {
        the_server_says_that_it_is_well: "API endpoints for health",
    }
}

async fn the_server_says_its_version(g: Ground) {
    let found = g.http.get("/version").await.expect(200);
    assert!(found["gitVersion"].as_str().is_some_and(|text| text.starts_with('v')), "{found}");
    assert_eq!(found["major"], "1");
    assert!(found["minor"].as_str().is_some_and(|text| !text.is_empty()), "{found}");
}

async fn the_core_versions_are_listed(g: Ground) {
    let found = g.http.get("/api").await.expect(200);
    assert_eq!((&found["kind"], &found["versions"]), (&json!("APIVersions"), &json!(["v1"])));
}

fn group<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list["groups"].as_array().expect("groups").iter().find(|group| group["name"] == name)
}

async fn the_groups_are_listed(g: Ground) {
    let found = g.eventually("the group", || async {
        let list = g.http.get("/apis").await.expect(200);
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("APIGroupList"), &json!("v1")));
        assert!(group(&list, "coordination.k8s.io").is_some());
        group(&list, &g.group).cloned()
    });
    let found = found.await;
    let versions: Vec<&Value> = found["versions"].as_array().expect("versions").iter().map(|v| &v["version"]).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
}

async fn a_group_says_its_preferred_version(g: Ground) {
    let path = format!("/apis/{}", g.group);
    let found = g.eventually("the group", || async {
        let answer = g.http.get(&path).await;
        (answer.code == 200).then_some(answer.body)
    });
    let found = found.await;
    assert_eq!((&found["kind"], &found["name"]), (&json!("APIGroup"), &json!(g.group)));
    let preferred = json!({"groupVersion": format!("{}/v1", g.group), "version": "v1"});
    assert_eq!(found["preferredVersion"], preferred);
}

/// The resource of that name in a version of the suite's group.
async fn resource(g: &Ground, name: &str) -> Value {
    let path = format!("/apis/{}/v1", g.group);
    g.eventually(name, || async {
        let list = g.http.get(&path).await;
        let resources = list.body["resources"].as_array().cloned().unwrap_or_default();
        resources.into_iter().find(|resource| resource["name"] == name)
    })
    .await
}

fn verbs(resource: &Value) -> Vec<&str> {
    let mut verbs: Vec<&str> = resource["verbs"].as_array().expect("verbs").iter().filter_map(Value::as_str).collect();
    verbs.sort_unstable();
    verbs
}

const ALL: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

async fn the_resources_of_a_version_are_listed(g: Ground) {
    let list = g.http.get(&format!("/apis/{}/v1", g.group)).await.expect(200);
    assert_eq!((&list["kind"], &list["groupVersion"]), (&json!("APIResourceList"), &json!(format!("{}/v1", g.group))));
    let widgets = resource(&g, "widgets").await;
    assert_eq!((&widgets["kind"], &widgets["namespaced"]), (&json!("Widget"), &json!(true)));
    assert_eq!(verbs(&widgets), ALL);
    assert_eq!(resource(&g, "gadgets").await["namespaced"], false);
}

async fn the_core_resources_are_listed(g: Ground) {
    let list = g.http.get("/api/v1").await.expect(200);
    let find = |name: &str| {
        let found = list["resources"].as_array().expect("resources").iter().find(|resource| resource["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not listed")).clone()
    };
    assert_eq!((&find("secrets")["kind"], &find("secrets")["namespaced"]), (&json!("Secret"), &json!(true)));
    assert_eq!((&find("namespaces")["namespaced"], &find("namespaces")["shortNames"]), (&json!(false), &json!(["ns"])));
    assert_eq!(verbs(&find("events")), ALL);
}

async fn a_kind_is_discovered_under_its_names(g: Ground) {
    let widgets = resource(&g, "widgets").await;
    assert_eq!((&widgets["singularName"], &widgets["shortNames"]), (&json!("widget"), &json!(["wdg"])));
    assert_eq!(widgets["categories"], json!(["conformance"]));
}

async fn a_status_is_discovered_as_a_resource(g: Ground) {
    assert_eq!(verbs(&resource(&g, "widgets/status").await), ["get", "patch", "update"]);
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

async fn discovery_comes_in_one_document(g: Ground) {
    let found = g.eventually("the group", || async {
        let answer = g.http.get_as("/apis", AGGREGATED).await;
        assert!(answer.content_type.contains("as=APIGroupDiscoveryList"), "{}", answer.content_type);
        let list = answer.expect(200);
        assert_eq!(list["kind"], "APIGroupDiscoveryList");
        let groups = list["items"].as_array().expect("items").clone();
        groups.into_iter().find(|item| item["metadata"]["name"] == g.group)
    });
    let found = found.await;
    let resources = found["versions"][0]["resources"].as_array().expect("resources").clone();
    let widgets = resources.iter().find(|resource| resource["resource"] == "widgets").expect("widgets");
    assert_eq!((&found["versions"][0]["version"], &widgets["scope"]), (&json!("v1"), &json!("Namespaced")));
    assert_eq!(widgets["responseKind"]["kind"], "Widget");
    assert_eq!(widgets["subresources"][0]["subresource"], "status");
    let core = g.http.get_as("/api", AGGREGATED).await.expect(200);
    assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
}

async fn discovery_falls_back_to_the_list(g: Ground) {
    let accept =
        format!("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,{AGGREGATED},application/json");
    assert_eq!(g.http.get_as("/apis", &accept).await.expect(200)["kind"], "APIGroupDiscoveryList");
    assert_eq!(g.http.get_as("/apis", "application/json").await.expect(200)["kind"], "APIGroupList");
}

/// The OpenAPI document of a version of the suite's group.
async fn document(g: &Ground) -> Value {
    let name = format!("apis/{}/v1", g.group);
    let path = g.eventually("the index entry", || async {
        let index = g.http.get("/openapi/v3").await.expect(200);
        index["paths"][&name]["serverRelativeURL"].as_str().map(String::from)
    });
    let path = path.await;
    // Right after a kind was made, a cluster may index its version before it describes the kind.
    g.eventually("the schema", || async {
        let answer = g.http.get(&path).await;
        (answer.code == 200 && widget(&answer.body).is_some()).then_some(answer.body)
    })
    .await
}

/// The schema of the suite's namespaced kind.
fn widget(document: &Value) -> Option<&Value> {
    let schemas = document["components"]["schemas"].as_object()?;
    schemas.values().find(|schema| schema["x-kubernetes-group-version-kind"][0]["kind"] == "Widget")
}

async fn the_schemas_are_indexed(g: Ground) {
    let index = g.http.get("/openapi/v3").await.expect(200);
    assert!(index["paths"]["api/v1"]["serverRelativeURL"].is_string());
    assert!(index["paths"]["apis/coordination.k8s.io/v1"]["serverRelativeURL"].is_string());
    document(&g).await;
}

async fn a_schema_describes_the_kind(g: Ground) {
    let document = document(&g).await;
    let spec = &widget(&document).expect("the kind")["properties"]["spec"];
    assert_eq!((&spec["description"], &spec["required"]), (&json!("What is wanted."), &json!(["size"])));
    assert_eq!(spec["properties"]["count"]["type"], "integer");
    assert_eq!(spec["properties"]["mode"]["default"], "rw");
    let path = format!("/apis/{}/v1/namespaces/{{namespace}}/widgets/{{name}}", g.group);
    let item = &document["paths"][&path];
    for verb in ["get", "put", "patch", "delete"] {
        assert!(item[verb].is_object(), "{verb}: {item}");
    }
    let parameters = item["patch"]["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"), "{parameters:?}");
}

async fn a_schema_says_which_kind_it_is(g: Ground) {
    let document = document(&g).await;
    let kind = &widget(&document).expect("the kind")["x-kubernetes-group-version-kind"];
    assert_eq!(kind, &json!([{"group": g.group, "version": "v1", "kind": "Widget"}]));
    assert!(document["openapi"].as_str().is_some_and(|text| text.starts_with("3.")));
}

async fn the_server_says_that_it_is_well(g: Ground) {
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = g.http.get(path).await;
        assert_eq!((answer.code, &answer.body), (200, &json!("ok")), "{path}");
    }
}
