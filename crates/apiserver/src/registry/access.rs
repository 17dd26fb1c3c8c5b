//! The kinds of access: ServiceAccounts, roles and their bindings.
//!
//! Holds: what the documents cannot say (that a role is not to be escalated, that a reference never changes) is said where
//! such objects are written.

use serde_json::{Value, json};

use super::builtin::{column, document, path_column, set_columns};
use super::column::{Cell, Column};
use super::crd::{RegistryError, age_column, register as register_document};
use super::{AccessKind, Nature, Registry};
use crate::access::RBAC_GROUP;
use crate::jsonpath::{JsonPath, PathError};

/// Registers them.
pub(super) fn register(registry: &mut Registry) -> Result<(), RegistryError> {
    let kinds = [
        (AccessKind::ServiceAccount, service_account(), account_columns()),
        (AccessKind::Role, role("roles", "Role", "Namespaced"), role_columns()),
        (AccessKind::ClusterRole, role("clusterroles", "ClusterRole", "Cluster"), role_columns()),
        (AccessKind::RoleBinding, binding("rolebindings", "RoleBinding", "Namespaced"), binding_columns()),
        (
            AccessKind::ClusterRoleBinding,
            binding("clusterrolebindings", "ClusterRoleBinding", "Cluster"),
            binding_columns(),
        ),
    ];
    for (kind, document, columns) in kinds {
        let id = register_document(registry, &document, Nature::Access(kind))?;
        set_columns(registry, id, columns).map_err(super::builtin::path_error)?;
    }
    Ok(())
}

fn account_columns() -> Result<Vec<Column>, PathError> {
    Ok(vec![
        column("Secrets", "integer", Cell::Count(JsonPath::parse(".secrets")?)),
        age_column(&[".metadata.creationTimestamp"])?,
    ])
}

fn role_columns() -> Result<Vec<Column>, PathError> {
    Ok(vec![path_column("Created At", ".metadata.creationTimestamp")?])
}

fn binding_columns() -> Result<Vec<Column>, PathError> {
    Ok(vec![
        column("Role", "string", Cell::Reference(JsonPath::parse(".roleRef")?)),
        age_column(&[".metadata.creationTimestamp"])?,
    ])
}

fn service_account() -> Value {
    let names = json!({"plural": "serviceaccounts", "kind": "ServiceAccount", "shortNames": ["sa"]});
    let text = json!({"type": "string"});
    let version = json!({"schema": {"openAPIV3Schema": {
        "type": "object",
        "description": "ServiceAccount binds together a name, a principal that can be authenticated and authorized, and a \
                        set of secrets.",
        "properties": {
            "automountServiceAccountToken": {"type": "boolean"},
            "imagePullSecrets": {"type": "array", "items": {"type": "object", "properties": {"name": text}}},
            "secrets": {"type": "array", "items": {"type": "object", "properties": {
                "apiVersion": text, "kind": text, "name": text, "namespace": text, "uid": text,
                "resourceVersion": text, "fieldPath": text}}}}}}});
    document("", &names, "Namespaced", &version)
}

fn role(plural: &str, kind: &str, scope: &str) -> Value {
    let names = json!({"plural": plural, "kind": kind});
    let texts = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"});
    let rule = json!({"type": "object", "properties": {
        "verbs": texts, "apiGroups": texts, "resources": texts, "resourceNames": texts, "nonResourceURLs": texts}});
    let mut properties = json!({"rules": {"type": "array", "items": rule, "x-kubernetes-list-type": "atomic"}});
    if scope == "Cluster" {
        // It is known, so that it is refused by name and not lost as an unknown field.
        properties["aggregationRule"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let about = format!("{kind} is a set of rules of what may be done, to be given to users by a binding.");
    let version =
        json!({"schema": {"openAPIV3Schema": {"type": "object", "description": about, "properties": properties}}});
    document(RBAC_GROUP, &names, scope, &version)
}

fn binding(plural: &str, kind: &str, scope: &str) -> Value {
    let names = json!({"plural": plural, "kind": kind});
    let text = json!({"type": "string"});
    let subject = json!({"type": "object", "properties": {
        "apiGroup": text, "kind": text, "name": text, "namespace": text}});
    let about = format!("{kind} gives the rules of a role to users, groups and ServiceAccounts.");
    let version = json!({"schema": {"openAPIV3Schema": {"type": "object", "description": about, "properties": {
        "roleRef": {"type": "object", "x-kubernetes-map-type": "atomic",
                    "properties": {"apiGroup": text, "kind": text, "name": text}},
        "subjects": {"type": "array", "items": subject, "x-kubernetes-list-type": "atomic"}}}}});
    document(RBAC_GROUP, &names, scope, &version)
}
