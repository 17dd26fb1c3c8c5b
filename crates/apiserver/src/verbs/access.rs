//! What ServiceAccounts, roles and bindings are beyond their schemas.
//!
//! Holds: a rule is about resources or about paths, never both; what a binding refers to never changes.

use serde_json::{Value, json};

use crate::access::RBAC_GROUP;
use crate::access::attributes::is_segment;
use crate::names;
use crate::refusal::Cause;
use crate::registry::AccessKind;

/// Completes an object about to be written: groups that are left out.
pub(crate) fn complete(kind: AccessKind, object: &mut Value) {
    match kind {
        AccessKind::ServiceAccount | AccessKind::Role | AccessKind::ClusterRole => {}
        AccessKind::RoleBinding | AccessKind::ClusterRoleBinding => {
            if is_unsaid(&object["roleRef"]["apiGroup"]) && object["roleRef"].is_object() {
                object["roleRef"]["apiGroup"] = json!(RBAC_GROUP);
            }
            for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                let group = if is_person(subject) { RBAC_GROUP } else { "" };
                if is_unsaid(&subject["apiGroup"]) && !group.is_empty() {
                    subject["apiGroup"] = json!(group);
                }
            }
        }
    }
}

fn is_unsaid(value: &Value) -> bool {
    value.as_str().unwrap_or_default().is_empty()
}

fn is_person(subject: &Value) -> bool {
    subject["kind"] == "User" || subject["kind"] == "Group"
}

/// What is wrong with an object.
pub(crate) fn faults(kind: AccessKind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match kind {
        AccessKind::ServiceAccount => Vec::new(),
        AccessKind::Role => rule_faults(object, "Namespaced"),
        AccessKind::ClusterRole => {
            let mut causes = rule_faults(object, "Cluster");
            if !object["aggregationRule"].is_null() {
                let detail = "aggregated roles are not served: write the rules out";
                causes.push(Cause::forbidden("aggregationRule", detail));
            }
            causes
        }
        AccessKind::RoleBinding => binding_faults(object, old, &["Role", "ClusterRole"], false),
        AccessKind::ClusterRoleBinding => binding_faults(object, old, &["ClusterRole"], true),
    }
}

fn rule_faults(object: &Value, scope: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, rule) in object["rules"].as_array().into_iter().flatten().enumerate() {
        let at = |field: &str| format!("rules[{index}].{field}");
        let is_empty = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
        if is_empty("verbs") {
            causes.push(Cause::required(at("verbs"), "verbs must contain at least one value"));
        }
        if !is_empty("nonResourceURLs") {
            if scope == "Namespaced" {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                causes.push(Cause::invalid(at("nonResourceURLs"), &rule["nonResourceURLs"], detail));
            }
            if !is_empty("apiGroups") || !is_empty("resources") || !is_empty("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                causes.push(Cause::invalid(at("nonResourceURLs"), &rule["nonResourceURLs"], detail));
            }
            continue;
        }
        if is_empty("apiGroups") {
            causes.push(Cause::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if is_empty("resources") {
            causes.push(Cause::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
    causes
}

fn binding_faults(object: &Value, old: Option<&Value>, roles: &[&str], everywhere: bool) -> Vec<Cause> {
    let mut causes = reference_faults(&object["roleRef"], roles);
    if old.is_some_and(|old| old["roleRef"] != object["roleRef"]) {
        causes.push(Cause::invalid("roleRef", &object["roleRef"], "cannot change roleRef"));
    }
    for (index, subject) in object["subjects"].as_array().into_iter().flatten().enumerate() {
        subject_faults(subject, &format!("subjects[{index}]"), everywhere, &mut causes);
    }
    causes
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("{word:?}")).collect()
}

fn reference_faults(reference: &Value, roles: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    if reference["apiGroup"] != RBAC_GROUP {
        causes.push(Cause::not_supported("roleRef.apiGroup", &reference["apiGroup"], &quoted(&[RBAC_GROUP])));
    }
    let said = |field: &str| reference[field].as_str().unwrap_or_default();
    if !roles.contains(&said("kind")) {
        causes.push(Cause::not_supported("roleRef.kind", &json!(said("kind")), &quoted(roles)));
    }
    if said("name").is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    } else if !is_segment(said("name")) {
        causes.push(Cause::invalid(
            "roleRef.name",
            &json!(said("name")),
            "may not be '.' or '..' and may not contain '/', '%' or control characters",
        ));
    }
    causes
}

fn subject_faults(subject: &Value, at: &str, everywhere: bool, causes: &mut Vec<Cause>) {
    let said = |field: &str| subject[field].as_str().unwrap_or_default();
    if said("name").is_empty() {
        causes.push(Cause::required(format!("{at}.name"), ""));
    }
    let group = format!("{at}.apiGroup");
    match said("kind") {
        "ServiceAccount" => {
            if let (false, Err(why)) = (said("name").is_empty(), names::subdomain(said("name"))) {
                causes.push(Cause::invalid(format!("{at}.name"), &subject["name"], &why));
            }
            if !said("apiGroup").is_empty() {
                causes.push(Cause::not_supported(group, &subject["apiGroup"], &quoted(&[""])));
            }
            if everywhere && said("namespace").is_empty() {
                causes.push(Cause::required(format!("{at}.namespace"), ""));
            }
        }
        "User" | "Group" => {
            if said("apiGroup") != RBAC_GROUP {
                causes.push(Cause::not_supported(group, &subject["apiGroup"], &quoted(&[RBAC_GROUP])));
            }
        }
        other => {
            let known = quoted(&["ServiceAccount", "User", "Group"]);
            causes.push(Cause::not_supported(format!("{at}.kind"), &json!(other), &known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: AccessKind, mut object: Value, expected: &[&str]) {
        complete(kind, &mut object);
        let found: Vec<String> = faults(kind, &object, None).into_iter().map(|cause| cause.field).collect();
        assert_eq!(found, expected, "{object}");
    }

    #[test]
    fn rules_that_make_no_sense_are_named() {
        let rule = |rule: Value| json!({"rules": [rule]});
        let whole = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]});
        check(AccessKind::Role, rule(whole), &[]);
        check(AccessKind::Role, json!({}), &[]);
        check(AccessKind::Role, rule(json!({})), &["rules[0].verbs", "rules[0].apiGroups", "rules[0].resources"]);
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/x"]});
        check(AccessKind::Role, rule(paths.clone()), &["rules[0].nonResourceURLs"]);
        check(AccessKind::ClusterRole, rule(paths.clone()), &[]);
        let mut both = paths;
        both["resources"] = json!(["secrets"]);
        check(AccessKind::ClusterRole, rule(both), &["rules[0].nonResourceURLs"]);
        check(AccessKind::ClusterRole, json!({"aggregationRule": {}}), &["aggregationRule"]);
    }

    #[test]
    fn bindings_that_bind_nothing_are_named() {
        let binding =
            |kind: &str, subject: Value| json!({"roleRef": {"kind": kind, "name": "r"}, "subjects": [subject]});
        let user = json!({"kind": "User", "name": "u"});
        check(AccessKind::RoleBinding, binding("Role", user.clone()), &[]);
        check(AccessKind::ClusterRoleBinding, binding("Role", user.clone()), &["roleRef.kind"]);
        check(AccessKind::RoleBinding, json!({}), &["roleRef.apiGroup", "roleRef.kind", "roleRef.name"]);
        check(AccessKind::RoleBinding, binding("Role", json!({"kind": "Odd", "name": "x"})), &["subjects[0].kind"]);
        let account = json!({"kind": "ServiceAccount", "name": "A"});
        check(AccessKind::RoleBinding, binding("Role", account.clone()), &["subjects[0].name"]);
        check(
            AccessKind::ClusterRoleBinding,
            binding("ClusterRole", account),
            &["subjects[0].name", "subjects[0].namespace"],
        );
        let old = binding("Role", user.clone());
        let mut new = old.clone();
        new["roleRef"]["name"] = json!("s");
        complete(AccessKind::RoleBinding, &mut new);
        assert!(faults(AccessKind::RoleBinding, &new, Some(&old)).iter().any(|cause| cause.field == "roleRef"));
    }
}
