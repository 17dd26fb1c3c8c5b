//! Deleting: finalizers, owners, collections, namespaces.

use serde_json::{Value, json};

use crate::ground::{Ground, cases, concepts, finalizers, namespaces, owners};
use crate::http::names;

cases! {
    Api concepts {
        a_deleted_object_is_gone: "Resource deletion",
        a_collection_is_deleted_by_selector: "Collections",
        a_collection_is_deleted_in_one_namespace: "Collections",
        a_second_deletion_finds_nothing: "Resource deletion",
    }
    Api finalizers {
        a_finalizer_holds_the_object: "How finalizers work",
        the_last_finalizer_releases_the_object: "How finalizers work",
        no_finalizer_is_added_to_what_is_being_deleted: "How finalizers work",
        a_second_deletion_changes_nothing: "How finalizers work",
        what_is_being_deleted_can_still_be_written: "How finalizers work",
        a_deletion_counts_as_a_generation: "How finalizers work",
        a_name_is_taken_until_the_finalizer_is_gone: "How finalizers work",
        a_put_without_finalizers_releases_too: "How finalizers work",
    }
    Api owners {
        an_owner_reference_is_complete: "Owners and dependents",
        an_object_has_one_controller: "Owners and dependents",
        a_foreground_deletion_is_marked: "Foreground cascading deletion",
    }
    Controllers owners {
        dependents_go_after_their_owner: "Background cascading deletion",
        dependents_go_before_their_owner: "Foreground cascading deletion",
        orphans_stay: "Orphaned dependents",
        one_owner_of_two_is_enough: "Owners and dependents",
    }
    Api namespaces {
        the_default_namespace_stays: "Initial namespaces",
    }
    Controllers namespaces {
        a_namespace_takes_its_content_along: "Working with Namespaces",
        a_terminating_namespace_takes_nothing_new: "Working with Namespaces",
    }
}

async fn a_deleted_object_is_gone(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    g.http.delete(&g.at("a")).await.expect(200);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
    assert!(names(&g.http.get(&g.widgets()).await.expect(200)).is_empty());
}

async fn a_collection_is_deleted_by_selector(g: Ground) {
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = g.widget(name);
        object["metadata"]["labels"] = json!({"l": label});
        g.http.post(&g.widgets(), &object).await.expect(201);
    }
    g.http.delete(&format!("{}?labelSelector=l%3Dx", g.widgets())).await.expect(200);
    assert_eq!(names(&g.http.get(&g.widgets()).await.expect(200)), ["b"]);
    g.http.delete(&g.widgets()).await.expect(200);
    assert!(names(&g.http.get(&g.widgets()).await.expect(200)).is_empty());
}

async fn a_collection_is_deleted_in_one_namespace(g: Ground) {
    let (elsewhere, name) = (format!("/apis/{}/v1/namespaces/default/widgets", g.group), g.own("x"));
    g.http.post(&elsewhere, &g.widget(&name)).await.expect(201);
    g.create("a", &json!({"size": 1})).await;
    g.http.delete(&g.widgets()).await.expect(200);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
    g.http.delete(&format!("{elsewhere}/{name}")).await.expect(200);
}

async fn a_second_deletion_finds_nothing(g: Ground) {
    g.create("a", &json!({"size": 1})).await;
    g.http.delete(&g.at("a")).await.expect(200);
    g.http.delete(&g.at("a")).await.refused(404, "NotFound");
}

async fn held(g: &Ground, name: &str) -> Value {
    let mut object = g.widget(name);
    object["metadata"]["finalizers"] = json!(["example.com/x", "example.com/y"]);
    g.http.post(&g.widgets(), &object).await.expect(201)
}

async fn release(g: &Ground, name: &str) {
    g.http.merge(&g.at(name), &json!({"metadata": {"finalizers": null}})).await.expect(200);
}

async fn a_finalizer_holds_the_object(g: Ground) {
    held(&g, "a").await;
    let marked = g.http.delete(&g.at("a")).await.expect(200);
    assert_eq!(marked["kind"], "Widget");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(g.http.get(&g.at("a")).await.expect(200), marked);
    release(&g, "a").await;
}

async fn the_last_finalizer_releases_the_object(g: Ground) {
    held(&g, "a").await;
    g.http.delete(&g.at("a")).await.expect(200);
    let one = json!({"metadata": {"finalizers": ["example.com/y"]}});
    g.http.merge(&g.at("a"), &one).await.expect(200);
    g.http.get(&g.at("a")).await.expect(200);
    let last = json!([{"op": "remove", "path": "/metadata/finalizers/0"}]);
    g.http.json_patch(&g.at("a"), &last).await.expect(200);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

async fn no_finalizer_is_added_to_what_is_being_deleted(g: Ground) {
    held(&g, "a").await;
    g.http.delete(&g.at("a")).await.expect(200);
    let more = json!({"metadata": {"finalizers": ["example.com/x", "example.com/z"]}});
    g.http.merge(&g.at("a"), &more).await.invalid("FieldValueForbidden", "metadata.finalizers");
    release(&g, "a").await;
}

async fn a_second_deletion_changes_nothing(g: Ground) {
    held(&g, "a").await;
    let marked = g.http.delete(&g.at("a")).await.expect(200);
    let again = g.http.delete(&g.at("a")).await.expect(200);
    assert_eq!(again["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    release(&g, "a").await;
}

async fn what_is_being_deleted_can_still_be_written(g: Ground) {
    held(&g, "a").await;
    g.http.delete(&g.at("a")).await.expect(200);
    let status = format!("{}/status", g.at("a"));
    g.http.merge(&status, &json!({"status": {"phase": "Done"}})).await.expect(200);
    let patched = g.http.merge(&g.at("a"), &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!((&patched["spec"]["size"], &patched["status"]["phase"]), (&json!(2), &json!("Done")));
    let undone = g.http.merge(&g.at("a"), &json!({"metadata": {"deletionTimestamp": null}})).await.expect(200);
    assert!(undone["metadata"]["deletionTimestamp"].is_string(), "a deletion is never undone");
    release(&g, "a").await;
}

async fn a_deletion_counts_as_a_generation(g: Ground) {
    held(&g, "a").await;
    assert_eq!(g.http.delete(&g.at("a")).await.expect(200)["metadata"]["generation"], 2);
    release(&g, "a").await;
}

async fn a_name_is_taken_until_the_finalizer_is_gone(g: Ground) {
    held(&g, "a").await;
    g.http.delete(&g.at("a")).await.expect(200);
    g.http.post(&g.widgets(), &g.widget("a")).await.refused(409, "AlreadyExists");
    release(&g, "a").await;
    g.create("a", &json!({"size": 1})).await;
}

async fn a_put_without_finalizers_releases_too(g: Ground) {
    held(&g, "a").await;
    let mut marked = g.http.delete(&g.at("a")).await.expect(200);
    marked["metadata"].as_object_mut().expect("metadata").remove("finalizers");
    g.http.put(&g.at("a"), &marked).await.expect(200);
    g.http.get(&g.at("a")).await.refused(404, "NotFound");
}

fn owner(of: &Value) -> Value {
    json!({"apiVersion": of["apiVersion"], "kind": of["kind"], "name": of["metadata"]["name"], "uid": of["metadata"]["uid"]})
}

fn secret(name: &str, owners: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "ownerReferences": owners}})
}

async fn an_owner_reference_is_complete(g: Ground) {
    let whole = json!({"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "1"});
    for field in ["apiVersion", "kind", "name", "uid"] {
        let mut part = whole.clone();
        part[field] = json!("");
        g.http.post(&g.secrets(), &secret("s", json!([part]))).await.refused(422, "Invalid");
    }
}

async fn an_object_has_one_controller(g: Ground) {
    let one = |uid: &str| json!({"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": uid, "controller": true});
    let both = secret("s", json!([one("1"), one("2")]));
    g.http.post(&g.secrets(), &both).await.refused(422, "Invalid");
}

async fn a_foreground_deletion_is_marked(g: Ground) {
    held(&g, "a").await;
    let marked = g.http.delete_with(&g.at("a"), &json!({"propagationPolicy": "Foreground"})).await.expect(200);
    let finalizers = marked["metadata"]["finalizers"].as_array().expect("finalizers");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    // The collector may have done its part before the answer; the other finalizers stay.
    assert!(finalizers.iter().any(|name| name == "example.com/x"), "{marked}");
    release(&g, "a").await;
}

/// An owner and a dependent, both Secrets: a garbage collector knows them from the start.
async fn family(g: &Ground) -> Value {
    let parent = g.http.post(&g.secrets(), &secret("parent", json!([]))).await.expect(201);
    let mut reference = owner(&parent);
    reference["blockOwnerDeletion"] = json!(true);
    g.http.post(&g.secrets(), &secret("child", json!([reference]))).await.expect(201);
    parent
}

fn at(g: &Ground, name: &str) -> String {
    format!("{}/{name}", g.secrets())
}

async fn dependents_go_after_their_owner(g: Ground) {
    family(&g).await;
    g.http.delete_with(&at(&g, "parent"), &json!({"propagationPolicy": "Background"})).await.expect(200);
    g.http.get(&at(&g, "parent")).await.refused(404, "NotFound");
    g.gone(&at(&g, "child")).await;
}

async fn dependents_go_before_their_owner(g: Ground) {
    family(&g).await;
    g.http.delete_with(&at(&g, "parent"), &json!({"propagationPolicy": "Foreground"})).await.expect(200);
    g.gone(&at(&g, "parent")).await;
    g.http.get(&at(&g, "child")).await.refused(404, "NotFound");
}

async fn orphans_stay(g: Ground) {
    family(&g).await;
    g.http.delete_with(&at(&g, "parent"), &json!({"propagationPolicy": "Orphan"})).await.expect(200);
    g.gone(&at(&g, "parent")).await;
    let child = g.http.get(&at(&g, "child")).await.expect(200);
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

async fn one_owner_of_two_is_enough(g: Ground) {
    let first = g.http.post(&g.secrets(), &secret("first", json!([]))).await.expect(201);
    let second = g.http.post(&g.secrets(), &secret("second", json!([]))).await.expect(201);
    let child = secret("child", json!([owner(&first), owner(&second)]));
    g.http.post(&g.secrets(), &child).await.expect(201);
    g.http.delete_with(&at(&g, "first"), &json!({"propagationPolicy": "Background"})).await.expect(200);
    // A probe that is sure to go tells when the collector came by.
    let probe = secret("probe", json!([owner(&first)]));
    g.http.post(&g.secrets(), &probe).await.expect(201);
    g.gone(&at(&g, "probe")).await;
    g.http.get(&at(&g, "child")).await.expect(200);
    g.http.delete_with(&at(&g, "second"), &json!({"propagationPolicy": "Background"})).await.expect(200);
    g.gone(&at(&g, "child")).await;
}

async fn the_default_namespace_stays(g: Ground) {
    g.http.delete("/api/v1/namespaces/default?dryRun=All").await.refused(403, "Forbidden");
}

async fn a_namespace_takes_its_content_along(g: Ground) {
    let name = g.own("gone");
    let path = format!("/api/v1/namespaces/{name}");
    g.http.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.expect(201);
    let inside = format!("/apis/{}/v1/namespaces/{name}/widgets", g.group);
    g.http.post(&inside, &g.widget("a")).await.expect(201);
    g.http.delete(&path).await.expect(200);
    g.gone(&path).await;
    g.http.get(&format!("{inside}/a")).await.refused(404, "NotFound");
}

async fn a_terminating_namespace_takes_nothing_new(g: Ground) {
    let name = g.own("ending");
    let path = format!("/api/v1/namespaces/{name}");
    g.http.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.expect(201);
    let secrets = format!("{path}/secrets");
    let mut held = secret("held", json!([]));
    held["metadata"]["finalizers"] = json!(["example.com/x"]);
    g.http.post(&secrets, &held).await.expect(201);
    let ending = g.http.delete(&path).await.expect(200);
    assert!(ending["metadata"]["deletionTimestamp"].is_string());
    let body = g.http.post(&secrets, &secret("new", json!([]))).await.refused(403, "Forbidden");
    assert_eq!(body["details"]["causes"][0]["reason"], "NamespaceTerminating", "{body}");
    assert_eq!(g.http.get(&path).await.expect(200)["status"]["phase"], "Terminating");
    let release = json!({"metadata": {"finalizers": null}});
    g.http.merge(&format!("{secrets}/held"), &release).await.expect(200);
    g.gone(&path).await;
}
