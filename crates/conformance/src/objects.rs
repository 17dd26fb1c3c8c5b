//! Creating and reading objects; names, labels and the rest of their metadata.

use serde_json::{Value, json};

use crate::ground::{
    Ground, annotations, cases, concepts, conventions, custom, finalizers, labels, leases, namespaces, naming, secrets,
};
use crate::http::{names, version};

cases! {
    Api concepts {
        a_created_object_is_answered_and_read_back: "Resource URIs",
        an_object_that_is_not_there_is_not_found: "Resource URIs",
        a_name_is_taken_once: "Resource URIs",
        all_namespaces_are_listed_together: "Resource URIs",
        a_namespaced_object_has_no_path_without_its_namespace: "Resource URIs",
        a_generated_name_begins_as_asked: "Generated values",
    }
    Api conventions {
        the_server_says_who_an_object_is: "Metadata",
        the_name_of_a_status_object_is_that_of_the_object: "Response Status Kind",
        an_object_of_another_kind_is_refused: "Types (Kinds)",
        an_object_of_another_namespace_is_refused: "Metadata",
        an_object_of_another_name_is_refused: "Verbs on Resources",
        a_resource_version_is_not_for_creation: "Concurrency Control and Consistency",
        a_new_object_has_the_uid_of_the_server: "Metadata",
        a_replaced_object_keeps_its_creation_time: "Metadata",
        a_deletion_time_is_the_servers: "Metadata",
        another_uid_is_another_object: "Metadata",
    }
    Api naming {
        names_are_dns_subdomains: "DNS Subdomain Names",
        a_namespaces_name_is_a_dns_label: "DNS Label Names",
        two_objects_of_one_name_have_different_uids: "UIDs",
        a_given_name_wins_over_a_generated_one: "Names",
    }
    Api labels {
        label_keys_have_a_syntax: "Syntax and character set",
        label_values_have_a_syntax: "Syntax and character set",
    }
    Api annotations {
        annotation_keys_have_a_syntax: "Syntax and character set",
        annotations_have_a_largest_size: "Attaching metadata to objects",
    }
    Api finalizers {
        finalizers_have_a_syntax: "How finalizers work",
    }
    Api custom {
        an_object_without_its_kind_is_refused: "Create custom objects",
        every_served_version_shows_the_same_object: "Create a CustomResourceDefinition",
    }
    Api namespaces {
        a_new_namespace_is_active_and_labelled: "Automatic labelling",
        an_object_needs_its_namespace: "Working with Namespaces",
    }
    Api secrets {
        string_data_becomes_data: "Create a Secret",
        a_secret_without_a_type_is_opaque: "Types of Secret",
        secret_data_is_base64: "Create a Secret",
        the_type_of_a_secret_never_changes: "Types of Secret",
        an_immutable_secret_keeps_its_data: "Immutable Secrets",
    }
    Api leases {
        a_lease_is_renewed_by_compare_and_swap: "Leader election",
        a_lease_lasts_longer_than_nothing: "Leader election",
    }
}

async fn a_created_object_is_answered_and_read_back(g: Ground) {
    let created = g.create("a", &json!({"size": "1Gi", "count": 3})).await;
    assert_eq!(created["spec"]["size"], "1Gi");
    assert_eq!((&created["kind"], &created["metadata"]["namespace"]), (&json!("Widget"), &json!(g.namespace)));
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), created);
}

async fn an_object_that_is_not_there_is_not_found(g: Ground) {
    let body = g.http.get(&g.at("none")).await.refused(404, "NotFound");
    let details = &body["details"];
    assert_eq!(
        (&details["name"], &details["kind"], &details["group"]),
        (&json!("none"), &json!("widgets"), &json!(g.group))
    );
    g.http.get(&format!("{}/none", g.secrets())).await.refused(404, "NotFound");
    g.http.delete(&g.at("none")).await.refused(404, "NotFound");
    g.http.merge(&g.at("none"), &json!({"spec": {"size": 2}})).await.refused(404, "NotFound");
}

async fn a_name_is_taken_once(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    let body = g.http.post(&g.widgets(), &g.widget("a")).await.refused(409, "AlreadyExists");
    assert_eq!((&body["details"]["name"], &body["details"]["kind"]), (&json!("a"), &json!("widgets")));
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), first);
}

async fn all_namespaces_are_listed_together(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let everywhere = format!("/apis/{}/v1/widgets?fieldSelector=metadata.namespace%3D{}", g.group, g.namespace);
    assert_eq!(names(&g.http.get(&everywhere).await.expect(200)), ["a"]);
}

async fn a_namespaced_object_has_no_path_without_its_namespace(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    assert_eq!(g.http.get(&format!("/apis/{}/v1/widgets/a", g.group)).await.code, 404);
}

async fn a_generated_name_begins_as_asked(g: Ground) {
    let mut object = g.widget("x");
    object["metadata"] = json!({"generateName": "made-"});
    let mut found = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let created = g.http.post(&g.widgets(), &object).await.expect(201);
        let name = created["metadata"]["name"].as_str().expect("a name").to_owned();
        assert!(name.starts_with("made-") && name.len() == 10, "{name}");
        assert_eq!(created["metadata"]["generateName"], "made-");
        found.insert(name);
    }
    assert_eq!(found.len(), 3);
    object["metadata"] = json!({"generateName": "y".repeat(80)});
    let created = g.http.post(&g.widgets(), &object).await.expect(201);
    assert_eq!(created["metadata"]["name"].as_str().map(str::len), Some(63));
    object["metadata"] = json!({});
    g.http.post(&g.widgets(), &object).await.refused(422, "Invalid");
}

async fn the_server_says_who_an_object_is(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let metadata = &created["metadata"];
    assert_eq!(metadata["uid"].as_str().map(str::len), Some(36), "{metadata}");
    let time = metadata["creationTimestamp"].as_str().expect("a time");
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert_eq!(metadata["generation"], 1);
    assert!(!version(&created).is_empty());
}

async fn the_name_of_a_status_object_is_that_of_the_object(g: Ground) {
    let removed = g.create("a", &json!({"size": 1})).await;
    let said = g.http.delete(&g.at("a")).await.expect(200);
    assert_eq!((&said["kind"], &said["status"]), (&json!("Status"), &json!("Success")));
    let details = &said["details"];
    assert_eq!((&details["name"], &details["kind"]), (&json!("a"), &json!("widgets")));
    assert_eq!((&details["group"], &details["uid"]), (&json!(g.group), &removed["metadata"]["uid"]));
}

async fn an_object_of_another_kind_is_refused(g: Ground) {
    let mut object = g.widget("a");
    object["kind"] = json!("Gadget");
    g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
    object["kind"] = json!("Widget");
    object["apiVersion"] = json!(format!("{}/v9", g.group));
    g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
}

async fn an_object_of_another_namespace_is_refused(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["namespace"] = json!("default");
    g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
    object["metadata"]["namespace"] = json!(g.namespace);
    g.http.post(&g.widgets(), &object).await.expect(201);
}

async fn an_object_of_another_name_is_refused(g: Ground) {
    let mut object = g.create("a", &json!({"size": 1})).await;
    object["metadata"]["name"] = json!("b");
    g.http.put(&g.at("a"), &object).await.refused(400, "BadRequest");
}

async fn a_resource_version_is_not_for_creation(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["resourceVersion"] = json!("1");
    let answer = g.http.post(&g.widgets(), &object).await;
    // Which code says so is not written anywhere, and clusters say 500.
    assert!(answer.code >= 400, "{}", answer.body);
    assert_eq!(answer.body["kind"], "Status");
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn a_new_object_has_the_uid_of_the_server(g: Ground) {
    let mut object = g.widget("a");
    let wished = "11111111-2222-3333-4444-555555555555";
    object["metadata"]["uid"] = json!(wished);
    object["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    object["metadata"]["generation"] = json!(77);
    let created = g.http.post(&g.widgets(), &object).await.expect(201);
    assert_ne!(created["metadata"]["uid"], wished);
    assert_ne!(created["metadata"]["creationTimestamp"], "2001-01-01T00:00:00Z");
    assert_eq!(created["metadata"]["generation"], 1);
}

async fn a_replaced_object_keeps_its_creation_time(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let mut object = created.clone();
    object["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    object["metadata"]["generation"] = json!(77);
    object["spec"]["size"] = json!(2);
    let answer = g.http.put(&g.at("a"), &object).await;
    // That it is not taken is written; whether such a write is refused or cleaned up is not.
    assert!(matches!(answer.code, 200 | 422), "{}", answer.body);
    let found = g.http.get(&g.at("a")).await.expect(200);
    assert_eq!(found["metadata"]["creationTimestamp"], created["metadata"]["creationTimestamp"]);
    assert_eq!(found["metadata"]["generation"], if answer.code == 200 { 2 } else { 1 });
}

async fn a_deletion_time_is_the_servers(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    let mine = json!({"metadata": {"deletionTimestamp": "2001-01-01T00:00:00Z"}});
    g.http.merge(&g.at("a"), &mine).await.refused(422, "Invalid");
    let object = g.http.get(&g.at("a")).await.expect(200);
    assert_eq!(object["metadata"]["deletionTimestamp"], Value::Null);
}

async fn another_uid_is_another_object(g: Ground) {
    let mut object = g.create("a", &json!({"size": 1})).await;
    object["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    g.http.put(&g.at("a"), &object).await.refused(409, "Conflict");
    let patch = json!({"metadata": {"uid": "11111111-2222-3333-4444-555555555555"}});
    let answer = g.http.merge(&g.at("a"), &patch).await;
    assert!(matches!(answer.code, 409 | 422), "{}", answer.body);
}

async fn names_are_dns_subdomains(g: Ground) {
    for name in ["Upper", "under_score", "-begins", "ends-", "a..b", "a/b", "ä"] {
        g.http.post(&g.widgets(), &g.widget(name)).await.invalid("FieldValueInvalid", "metadata.name");
    }
    let long = "x".repeat(254);
    g.http.post(&g.widgets(), &g.widget(&long)).await.refused(422, "Invalid");
    for name in ["0", "a.b", "a-b.c-d", &"x".repeat(253)] {
        g.http.post(&g.widgets(), &g.widget(name)).await.expect(201);
    }
}

async fn a_namespaces_name_is_a_dns_label(g: Ground) {
    for name in [format!("{}.x", g.namespace), "x".repeat(64), String::from("Upper")] {
        let object = json!({"metadata": {"name": name}});
        g.http.post("/api/v1/namespaces", &object).await.invalid("FieldValueInvalid", "metadata.name");
    }
}

async fn two_objects_of_one_name_have_different_uids(g: Ground) {
    let first = g.create("a", &json!({"size": 1})).await;
    g.http.delete(&g.at("a")).await.expect(200);
    g.gone(&g.at("a")).await;
    let second = g.create("a", &json!({"size": 1})).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_ne!(version(&first), version(&second));
}

async fn a_given_name_wins_over_a_generated_one(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["generateName"] = json!("made-");
    assert_eq!(g.http.post(&g.widgets(), &object).await.expect(201)["metadata"]["name"], "a");
}

async fn refused_metadata(g: &Ground, metadata: Value, field: &str) {
    let mut object = g.widget("a");
    object["metadata"] = metadata;
    object["metadata"]["name"] = json!("a");
    let body = g.http.post(&g.widgets(), &object).await.refused(422, "Invalid");
    let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
    let found = causes.iter().any(|cause| cause["field"].as_str().is_some_and(|at| at.starts_with(field)));
    assert!(found, "no cause at {field}: {body}");
}

async fn label_keys_have_a_syntax(g: Ground) {
    for key in ["", "-a", "a b", "a/b/c", "/a", "Upper.Prefix/a", &"x".repeat(64)] {
        refused_metadata(&g, json!({"labels": {key: "x"}}), "metadata.labels").await;
    }
    let mut object = g.widget("a");
    object["metadata"]["labels"] = json!({"A_b.c-d": "x", "example.com/A": ""});
    g.http.post(&g.widgets(), &object).await.expect(201);
}

async fn label_values_have_a_syntax(g: Ground) {
    for value in ["a b", "-a", "a-", "ä", &"x".repeat(64)] {
        refused_metadata(&g, json!({"labels": {"a": value}}), "metadata.labels").await;
    }
    let mut object = g.widget("a");
    object["metadata"]["labels"] = json!({"a": 1});
    g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
}

async fn annotation_keys_have_a_syntax(g: Ground) {
    for key in ["", "a b", "a/b/c", &"x".repeat(64)] {
        refused_metadata(&g, json!({"annotations": {key: "x"}}), "metadata.annotations").await;
    }
    let mut object = g.widget("a");
    object["metadata"]["annotations"] = json!({"example.com/Any": "{\"any\": ['thing']}\n"});
    let created = g.http.post(&g.widgets(), &object).await.expect(201);
    assert_eq!(created["metadata"]["annotations"], object["metadata"]["annotations"]);
}

async fn annotations_have_a_largest_size(g: Ground) {
    let mut object = g.widget("a");
    object["metadata"]["annotations"] = json!({"a": "x".repeat(256 * 1024)});
    g.http.post(&g.widgets(), &object).await.invalid("FieldValueTooLong", "metadata.annotations");
    object["metadata"]["annotations"] = json!({"a": "x".repeat(256 * 1024 - 1)});
    g.http.post(&g.widgets(), &object).await.expect(201);
}

async fn finalizers_have_a_syntax(g: Ground) {
    refused_metadata(&g, json!({"finalizers": ["a b"]}), "metadata.finalizers").await;
}

async fn an_object_without_its_kind_is_refused(g: Ground) {
    let mut object = g.widget("a");
    object["kind"] = json!("");
    g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
    object.as_object_mut().expect("an object").remove("kind");
    g.http.post(&g.widgets(), &object).await.refused(400, "BadRequest");
}

async fn every_served_version_shows_the_same_object(g: Ground) {
    let created = g.create("a", &json!({"size": 1})).await;
    let shown = g.http.get(&g.at("a").replace("/v1/", "/v1beta1/")).await.expect(200);
    assert_eq!(shown["apiVersion"], format!("{}/v1beta1", g.group));
    assert_eq!((&shown["spec"], version(&shown)), (&created["spec"], version(&created)));
}

async fn a_new_namespace_is_active_and_labelled(g: Ground) {
    let found = g.http.get(&format!("/api/v1/namespaces/{}", g.namespace)).await.expect(200);
    assert_eq!(found["metadata"]["labels"]["kubernetes.io/metadata.name"], g.namespace);
    assert_eq!((&found["status"]["phase"], &found["spec"]["finalizers"]), (&json!("Active"), &json!(["kubernetes"])));
}

async fn an_object_needs_its_namespace(g: Ground) {
    let path = g.widgets().replace(&g.namespace, &g.own("none"));
    let body = g.http.post(&path, &g.widget("a")).await.refused(404, "NotFound");
    assert_eq!(body["details"]["kind"], "namespaces");
    assert_eq!(names(&g.http.get(&path).await.expect(200)), Vec::<&str>::new());
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"a": "MQ=="}})
}

async fn string_data_becomes_data(g: Ground) {
    let mut object = secret("s");
    object["stringData"] = json!({"a": "hello", "b": "there"});
    let created = g.http.post(&g.secrets(), &object).await.expect(201);
    assert_eq!(created["data"], json!({"a": "aGVsbG8=", "b": "dGhlcmU="}));
    assert_eq!(created["stringData"], Value::Null);
}

async fn a_secret_without_a_type_is_opaque(g: Ground) {
    assert_eq!(g.http.post(&g.secrets(), &secret("s")).await.expect(201)["type"], "Opaque");
}

async fn secret_data_is_base64(g: Ground) {
    let mut object = secret("s");
    object["data"] = json!({"a": "not base64!"});
    g.http.post(&g.secrets(), &object).await.refused(400, "BadRequest");
    object["data"] = json!({"a key": "MQ=="});
    g.http.post(&g.secrets(), &object).await.refused(422, "Invalid");
}

async fn the_type_of_a_secret_never_changes(g: Ground) {
    g.http.post(&g.secrets(), &secret("s")).await.expect(201);
    let path = format!("{}/s", g.secrets());
    g.http.merge(&path, &json!({"type": "example.com/other"})).await.invalid("FieldValueInvalid", "type");
}

async fn an_immutable_secret_keeps_its_data(g: Ground) {
    let mut object = secret("s");
    object["immutable"] = json!(true);
    g.http.post(&g.secrets(), &object).await.expect(201);
    let path = format!("{}/s", g.secrets());
    g.http.merge(&path, &json!({"data": {"a": "Mg=="}})).await.invalid("FieldValueForbidden", "data");
    g.http.merge(&path, &json!({"immutable": false})).await.invalid("FieldValueForbidden", "immutable");
    g.http.merge(&path, &json!({"metadata": {"labels": {"x": "y"}}})).await.expect(200);
}

async fn a_lease_is_renewed_by_compare_and_swap(g: Ground) {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let first = g.http.post(&g.leases(), &lease).await.expect(201);
    let path = format!("{}/l", g.leases());
    let mut mine = first.clone();
    mine["spec"]["renewTime"] = json!("2026-01-01T00:00:05.000000Z");
    let second = g.http.put(&path, &mine).await.expect(200);
    assert_eq!(second["spec"]["renewTime"], "2026-01-01T00:00:05.000000Z");
    let mut theirs = first;
    theirs["spec"]["holderIdentity"] = json!("b");
    g.http.put(&path, &theirs).await.refused(409, "Conflict");
    assert_eq!(g.http.get(&path).await.expect(200)["spec"]["holderIdentity"], "a");
}

async fn a_lease_lasts_longer_than_nothing(g: Ground) {
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 0}});
    g.http.post(&g.leases(), &lease).await.invalid("FieldValueInvalid", "spec.leaseDurationSeconds");
}
