//! The roles every server begins with: those that every client of a cluster counts on.
//!
//! Holds: they are ordinary objects under the names that Kubernetes gives them; one that is missing when a server is opened
//! is made again, one that was changed is left as it is.

use serde_json::{Value, json};

use super::RBAC_GROUP;
use super::user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED};
use crate::registry::AccessKind;

const LABEL: &str = "kubernetes.io/bootstrapping";

fn named(name: &str) -> Value {
    json!({"name": name, "labels": {LABEL: "rbac-defaults"}})
}

fn role(name: &str, rules: Value) -> (AccessKind, Value) {
    (AccessKind::ClusterRole, json!({"metadata": named(name), "rules": rules}))
}

fn binding(name: &str, groups: &[&str]) -> (AccessKind, Value) {
    let subjects: Vec<Value> =
        groups.iter().map(|group| json!({"kind": "Group", "apiGroup": RBAC_GROUP, "name": group})).collect();
    let reference = json!({"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": name});
    (AccessKind::ClusterRoleBinding, json!({"metadata": named(name), "subjects": subjects, "roleRef": reference}))
}

/// The default roles and bindings.
pub(crate) fn objects() -> Vec<(AccessKind, Value)> {
    let paths = json!([
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/"
    ]);
    let public = json!(["/healthz", "/livez", "/readyz", "/version", "/version/"]);
    let asking = json!([
        {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
         "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}]);
    let everything = json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    vec![
        role("cluster-admin", everything),
        binding("cluster-admin", &[MASTERS]),
        role("system:basic-user", asking),
        binding("system:basic-user", &[AUTHENTICATED]),
        role("system:discovery", json!([{"verbs": ["get"], "nonResourceURLs": paths}])),
        binding("system:discovery", &[AUTHENTICATED]),
        role("system:public-info-viewer", json!([{"verbs": ["get"], "nonResourceURLs": public}])),
        binding("system:public-info-viewer", &[AUTHENTICATED, UNAUTHENTICATED]),
    ]
}
