//! The kinds every server has: Namespace, Secret, Event and Lease; those of access stand beside them.
//!
//! Holds: they are documents like any other; what the documents cannot say (a second API group, computed columns) is here.

use serde_json::{Value, json};

use super::column::{Cell, Column};
use super::crd::{RegistryError, age_column, register as register_document};
use super::{Form, Nature, Registry, ResourceId, View};
use crate::jsonpath::{JsonPath, PathError};
use crate::schema::{Schema, SchemaError};

/// Fields of core/v1 events and their names in events.k8s.io/v1.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Registers all built-in kinds, core first: discovery lists them in this order.
pub(super) fn register(registry: &mut Registry) -> Result<(), RegistryError> {
    register_document(registry, &namespace(), Nature::Namespace)?;
    let secret = register_document(registry, &secret(), Nature::Secret)?;
    let event = register_document(registry, &event(), Nature::Event)?;
    register_document(registry, &lease(), Nature::Lease)?;
    super::access::register(registry)?;
    set_columns(registry, secret, secret_columns()).map_err(path_error)?;
    set_columns(registry, event, event_columns()).map_err(path_error)?;
    let second = events_view(registry, event).map_err(schema_error)?;
    registry.views.push(second);
    Ok(())
}

// The documents are constants of this crate, so that these two are for its author, not for a user.
pub(super) fn path_error(source: PathError) -> RegistryError {
    RegistryError::Path { name: String::from("built in"), version: String::from("v1"), source }
}

fn schema_error(source: SchemaError) -> RegistryError {
    RegistryError::Schema { name: String::from("built in"), version: String::from("v1"), source }
}

pub(super) fn set_columns(
    registry: &mut Registry,
    id: ResourceId,
    columns: Result<Vec<Column>, PathError>,
) -> Result<(), PathError> {
    let columns = columns?;
    if let Some(view) = registry.views.iter_mut().find(|view| view.resource == id) {
        view.columns = columns;
    }
    Ok(())
}

pub(super) fn column(name: &str, kind: &str, cell: Cell) -> Column {
    Column {
        name: String::from(name),
        kind: String::from(kind),
        format: String::new(),
        description: String::new(),
        priority: 0,
        cell,
    }
}

pub(super) fn path_column(name: &str, path: &str) -> Result<Column, PathError> {
    Ok(column(name, "string", Cell::Path(JsonPath::parse(path)?)))
}

fn secret_columns() -> Result<Vec<Column>, PathError> {
    Ok(vec![
        path_column("Type", ".type")?,
        column("Data", "integer", Cell::Count(JsonPath::parse(".data")?)),
        age_column(&[".metadata.creationTimestamp"])?,
    ])
}

/// The columns of events stand on the stored form, also when they are seen through the second group.
fn event_columns() -> Result<Vec<Column>, PathError> {
    let seen = [".series.lastObservedTime", ".lastTimestamp", ".eventTime", ".metadata.creationTimestamp"];
    let mut last_seen = age_column(&seen)?;
    last_seen.name = String::from("Last Seen");
    last_seen.kind = String::from("string");
    Ok(vec![
        last_seen,
        path_column("Type", ".type")?,
        path_column("Reason", ".reason")?,
        column("Object", "string", Cell::Subject(JsonPath::parse(".involvedObject")?)),
        path_column("Message", ".message")?,
    ])
}

fn events_view(registry: &Registry, id: ResourceId) -> Result<View, SchemaError> {
    let core = registry.view(registry.resource(id).storage);
    let mut document = core.document.clone();
    if let Some(properties) = document.pointer_mut("/properties").and_then(Value::as_object_mut) {
        for (stored, served) in EVENT_FIELDS {
            if let Some(schema) = properties.remove(*stored) {
                properties.insert(String::from(*served), schema);
            }
        }
    }
    if let Some(root) = document.as_object_mut() {
        root.remove("required");
    }
    let mut schema = Schema::parse(&document)?;
    schema.embedded = true;
    Ok(View {
        resource: id,
        group: String::from("events.k8s.io"),
        version: String::from("v1"),
        form: Form::Renamed(EVENT_FIELDS),
        status: false,
        schema,
        rules: None,
        columns: Vec::new(),
        document,
    })
}

pub(super) fn document(group: &str, names: &Value, scope: &str, version: &Value) -> Value {
    let mut version = version.clone();
    version["name"] = json!("v1");
    version["served"] = json!(true);
    version["storage"] = json!(true);
    let name = format!("{}.{group}", names["plural"].as_str().unwrap_or_default());
    json!({"metadata": {"name": name}, "spec": {"group": group, "names": names, "scope": scope, "versions": [version]}})
}

fn namespace() -> Value {
    let names = json!({"plural": "namespaces", "kind": "Namespace", "shortNames": ["ns"]});
    let version = json!({
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": ".status.phase"}],
        "additionalPrinterColumns": [
            {"name": "Status", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": "Namespace provides a scope for Names.",
            "properties": {
                "spec": {"type": "object", "default": {}, "properties": {
                    "finalizers": {"type": "array", "items": {"type": "string"}}}},
                "status": {"type": "object", "properties": {
                    "phase": {"type": "string"},
                    "conditions": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}}},
    });
    document("", &names, "Cluster", &version)
}

fn secret() -> Value {
    let names = json!({"plural": "secrets", "kind": "Secret"});
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let bytes = json!({"type": "object", "additionalProperties": {"type": "string", "format": "byte"}});
    let version = json!({
        "selectableFields": [{"jsonPath": ".type"}],
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": "Secret holds secret data of a certain type.",
            "properties": {
                "data": bytes,
                "stringData": texts,
                "type": {"type": "string", "default": "Opaque"},
                "immutable": {"type": "boolean"}}}},
    });
    document("", &names, "Namespaced", &version)
}

fn object_reference() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
           "apiVersion": text, "kind": text, "name": text, "namespace": text,
           "uid": text, "resourceVersion": text, "fieldPath": text}})
}

fn event() -> Value {
    let names = json!({"plural": "events", "kind": "Event", "shortNames": ["ev"]});
    let (text, time) = (json!({"type": "string"}), json!({"type": "string", "format": "date-time"}));
    let fields = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    let mut selectable: Vec<Value> =
        fields.iter().map(|field| json!({"jsonPath": format!(".involvedObject.{field}")})).collect();
    for field in ["reason", "type", "reportingComponent", "source"] {
        let path = if field == "source" { String::from(".source.component") } else { format!(".{field}") };
        selectable.push(json!({"jsonPath": path}));
    }
    let version = json!({
        "selectableFields": selectable,
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": "Event is a report of an event somewhere in the cluster.",
            "required": ["involvedObject"],
            "properties": {
                "involvedObject": object_reference(), "related": object_reference(),
                "reason": text, "message": text, "type": text, "action": text,
                "reportingComponent": text, "reportingInstance": text,
                "count": {"type": "integer", "format": "int32"},
                "firstTimestamp": time, "lastTimestamp": time, "eventTime": time,
                "source": {"type": "object", "properties": {"component": text, "host": text}},
                "series": {"type": "object", "properties": {
                    "count": {"type": "integer", "format": "int32"}, "lastObservedTime": time}}}}},
    });
    document("", &names, "Namespaced", &version)
}

fn lease() -> Value {
    let names = json!({"plural": "leases", "kind": "Lease"});
    let (text, time) = (json!({"type": "string"}), json!({"type": "string", "format": "date-time"}));
    let version = json!({
        "additionalPrinterColumns": [
            {"name": "Holder", "type": "string", "jsonPath": ".spec.holderIdentity"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "description": "Lease defines a lease concept.",
            "properties": {"spec": {"type": "object", "properties": {
                "holderIdentity": text, "strategy": text, "preferredHolder": text,
                "leaseDurationSeconds": {"type": "integer", "format": "int32", "minimum": 1},
                "leaseTransitions": {"type": "integer", "format": "int32", "minimum": 0},
                "acquireTime": time, "renewTime": time}}}}},
    });
    document("coordination.k8s.io", &names, "Namespaced", &version)
}
