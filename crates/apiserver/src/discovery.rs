//! Discovery: which groups, versions and resources there are, in the old form (lists) and the new one (aggregated).
//!
//! Holds: what is listed is what is routed; both come from the registry.

use serde_json::{Value, json};

use crate::access::review::{REVIEWS, Review};
use crate::registry::{AccessKind, Nature, Registry, View};

/// The Kubernetes version whose API this is.
const MINOR: u32 = 33;

const MAIN_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];
/// What is only asked, never stored.
const ASKING_VERBS: [&str; 1] = ["create"];
/// The version of all reviews.
const REVIEW_VERSION: &str = "v1";

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR.to_string(),
        "gitVersion": format!("v1.{MINOR}.0+embedded"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The groups in the order of their registration, each with its versions; the core group is not among them.
fn groups(registry: &Registry) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (_, view) in registry.views().filter(|(_, view)| !view.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == view.group) {
            Some((_, versions)) if versions.contains(&view.version.as_str()) => {}
            Some((_, versions)) => versions.push(&view.version),
            None => groups.push((&view.group, vec![&view.version])),
        }
    }
    for review in &REVIEWS {
        if !groups.iter().any(|(group, _)| *group == review.group) {
            groups.push((review.group, vec![REVIEW_VERSION]));
        }
    }
    groups
}

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub(crate) fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> =
        groups(registry).into_iter().map(|(group, versions)| group_entry(group, &versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (group, versions) = groups(registry).into_iter().find(|(group, _)| *group == name)?;
    let mut entry = group_entry(group, &versions);
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    Some(entry)
}

fn group_entry(group: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(crate) fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut api_version = None;
    let mut resources = Vec::new();
    for (_, view) in registry.views().filter(|(_, view)| view.group == group && view.version == version) {
        api_version = Some(view.api_version());
        let resource = registry.resource(view.resource);
        resources.push(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": MAIN_VERBS, "shortNames": resource.short_names,
            "categories": resource.categories,
        }));
        if view.status {
            resources.push(json!({
                "name": format!("{}/status", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": resource.kind, "verbs": STATUS_VERBS,
            }));
        }
        if resource.nature == Nature::Access(AccessKind::ServiceAccount) {
            resources.push(json!({
                "name": "serviceaccounts/token", "singularName": "", "namespaced": true, "kind": "TokenRequest",
                "group": "authentication.k8s.io", "version": REVIEW_VERSION, "verbs": ASKING_VERBS,
            }));
        }
    }
    for review in reviews(group, version) {
        api_version = Some(format!("{group}/{version}"));
        resources.push(json!({
            "name": review.resource, "singularName": review.kind.to_lowercase(), "namespaced": review.namespaced,
            "kind": review.kind, "verbs": ASKING_VERBS,
        }));
    }
    let api_version = api_version?;
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}))
}

fn reviews(group: &str, version: &str) -> impl Iterator<Item = &'static Review> {
    REVIEWS.iter().filter(move |review| review.group == group && version == REVIEW_VERSION)
}

/// `/api` in the aggregated form.
pub(crate) fn aggregated_core(registry: &Registry) -> Value {
    aggregated_list(vec![aggregated_group(registry, "", &["v1"])])
}

/// `/apis` in the aggregated form.
pub(crate) fn aggregated_groups(registry: &Registry) -> Value {
    let groups = groups(registry).into_iter().map(|(group, versions)| aggregated_group(registry, group, &versions));
    aggregated_list(groups.collect())
}

fn aggregated_list(items: Vec<Value>) -> Value {
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(registry: &Registry, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let views = registry.views().filter(|(_, view)| view.group == group && view.version == *version);
            let asked = reviews(group, version).map(aggregated_review);
            let resources: Vec<Value> =
                views.map(|(_, view)| aggregated_resource(registry, view)).chain(asked).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
}

fn aggregated_resource(registry: &Registry, view: &View) -> Value {
    let resource = registry.resource(view.resource);
    let kind = json!({"group": view.group, "version": view.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": MAIN_VERBS,
        "shortNames": resource.short_names,
        "categories": resource.categories,
    });
    if view.status {
        entry["subresources"] = json!([{"subresource": "status", "responseKind": kind, "verbs": STATUS_VERBS}]);
    }
    if resource.nature == Nature::Access(AccessKind::ServiceAccount) {
        let kind = json!({"group": "authentication.k8s.io", "version": REVIEW_VERSION, "kind": "TokenRequest"});
        entry["subresources"] = json!([{"subresource": "token", "responseKind": kind, "verbs": ASKING_VERBS}]);
    }
    entry
}

fn aggregated_review(review: &Review) -> Value {
    json!({
        "resource": review.resource,
        "responseKind": {"group": review.group, "version": REVIEW_VERSION, "kind": review.kind},
        "scope": if review.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": review.kind.to_lowercase(),
        "verbs": ASKING_VERBS,
    })
}
