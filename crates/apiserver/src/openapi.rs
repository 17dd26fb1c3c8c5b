//! OpenAPI v3, as far as kubectl asks for it: schemas for `explain`, and the parameters that writes take.
//!
//! Holds: schemas are the declared ones, with the metadata that every object has.

use serde_json::{Value, json};

use crate::registry::{Registry, View};

/// `/openapi/v3`: where the documents are.
pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = serde_json::Map::new();
    for (_, view) in registry.views() {
        let path = path_of(&view.group, &view.version);
        // The document changes only with the program, whose version is enough of a hash for a client's cache.
        let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/<path>`: the document of one group and version.
pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
    for (_, view) in registry.views().filter(|(_, view)| view.group == group && view.version == version) {
        let kind = kind_of(registry, view);
        schemas.insert(schema_name(registry, view), schema(registry, view));
        add_paths(&mut paths, registry, view, &kind);
    }
    if paths.is_empty() {
        return None;
    }
    schemas.insert(String::from(METADATA), metadata());
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn kind_of(registry: &Registry, view: &View) -> Value {
    json!({"group": view.group, "version": view.version, "kind": registry.resource(view.resource).kind})
}

/// The group reversed, the version and the kind, as CustomResourceDefinitions are published.
fn schema_name(registry: &Registry, view: &View) -> String {
    let group: Vec<&str> = if view.group.is_empty() { vec!["core"] } else { view.group.rsplit('.').collect() };
    format!("{}.{}.{}", group.join("."), view.version, registry.resource(view.resource).kind)
}

fn schema(registry: &Registry, view: &View) -> Value {
    let mut schema = view.document.clone();
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let text = |about: &str| json!({"type": "string", "description": about});
    schema["properties"]["apiVersion"] =
        text("APIVersion defines the versioned schema of this representation of an object.");
    schema["properties"]["kind"] =
        text("Kind is a string value representing the REST resource this object represents.");
    schema["properties"]["metadata"] = json!({"description": "Standard object's metadata.", "allOf": [{"$ref": format!("#/components/schemas/{METADATA}")}]});
    schema["x-kubernetes-group-version-kind"] = json!([kind_of(registry, view)]);
    schema
}

fn metadata() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    json!({
        "type": "object",
        "description": "ObjectMeta is metadata that all persisted resources must have.",
        "properties": {
            "name": text, "generateName": text, "namespace": text, "uid": text, "resourceVersion": text,
            "generation": {"type": "integer", "format": "int64"}, "creationTimestamp": text, "deletionTimestamp": text,
            "labels": texts, "annotations": texts, "finalizers": {"type": "array", "items": text},
            "ownerReferences": {"type": "array", "items": {"type": "object", "properties": {
                "apiVersion": text, "kind": text, "name": text, "uid": text,
                "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"}}}},
            "managedFields": {"type": "array", "items": {"type": "object", "properties": {
                "manager": text, "operation": text, "apiVersion": text, "time": text, "fieldsType": text,
                "fieldsV1": {"type": "object"}, "subresource": text}}},
        },
    })
}

fn add_paths(paths: &mut serde_json::Map<String, Value>, registry: &Registry, view: &View, kind: &Value) {
    let resource = registry.resource(view.resource);
    let root = path_of(&view.group, &view.version);
    let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let many = format!("/{root}{place}/{}", resource.plural);
    let one = format!("{many}/{{name}}");
    paths.insert(many, json!({"get": operation(kind, "list", &[]), "post": operation(kind, "post", &WRITE)}));
    let on_one = json!({
        "get": operation(kind, "get", &[]), "put": operation(kind, "put", &WRITE),
        "patch": operation(kind, "patch", &PATCH), "delete": operation(kind, "delete", &["dryRun"]),
    });
    if view.status {
        let status = json!({"get": operation(kind, "get", &[]), "put": operation(kind, "put", &WRITE),
                            "patch": operation(kind, "patch", &PATCH)});
        paths.insert(format!("{one}/status"), status);
    }
    paths.insert(one, on_one);
}

/// The parameters that writes take.
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
/// The parameters that patches take.
const PATCH: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];

fn operation(kind: &Value, action: &str, parameters: &[&str]) -> Value {
    let parameter =
        |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<Value> = parameters.iter().map(parameter).collect();
    json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind, "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    })
}
