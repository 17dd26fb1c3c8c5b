//! The real kubectl and server-side apply.

use serde_json::Value;

use crate::kubectl::{Kubectl, manifest, with_kubectl};

const APPLY: [&str; 4] = ["apply", "--server-side", "-f", "-"];

fn object(kubectl: &Kubectl, name: &str) -> Value {
    let text = kubectl.run(&["get", "thing", name, "-o", "json", "--show-managed-fields"]).ok();
    serde_json::from_str(&text).expect("JSON")
}

fn managers(object: &Value) -> Vec<&str> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| entry["manager"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_applied_by_the_server() {
    with_kubectl(|kubectl| {
        let first = manifest("a") + "  count: 3\n";
        assert_eq!(kubectl.run_with(&APPLY, &first).ok(), "thing.example.com/a serverside-applied\n");
        assert_eq!(kubectl.run_with(&APPLY, &manifest("a")).ok(), "thing.example.com/a serverside-applied\n");
        assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size} {.spec.count}"]).ok(), "1Gi ");
        let shown = kubectl.run(&["get", "thing", "a", "-o", "yaml", "--show-managed-fields"]).ok();
        assert!(shown.contains("f:size: {}") && shown.contains("manager: kubectl"), "{shown}");
        assert!(!kubectl.run(&["get", "thing", "a", "-o", "yaml"]).ok().contains("managedFields"));

        kubectl.run(&["patch", "thing", "a", "--type=merge", "-p", "{\"spec\":{\"size\":\"2Gi\"}}"]).ok();
        let refused = kubectl.run_with(&APPLY, &manifest("a"));
        assert!(
            refused.err.contains("conflict with \"kubectl-patch\" using example.com/v1: .spec.size"),
            "{refused:?}"
        );
        refused.fails("Apply failed with 1 conflict");
        kubectl.run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &manifest("a")).ok();
        assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size}"]).ok(), "1Gi");
        kubectl.run_with(&APPLY, &(manifest("a") + "  odd: 1\n")).fails(".spec.odd: field not declared in schema");

        let before = object(kubectl, "a");
        let differs = kubectl.run_with(&["diff", "--server-side", "-f", "-"], &manifest("a").replace("1Gi", "3Gi"));
        assert!(!differs.well && differs.out.contains("+  size: 3Gi"), "{differs:?}");
        kubectl.run_with(&["diff", "--server-side", "-f", "-"], &manifest("a")).ok();
        kubectl.run_with(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &first).ok();
        assert_eq!(object(kubectl, "a"), before, "looking changes nothing");

        let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  a: one\n";
        assert_eq!(kubectl.run_with(&APPLY, secret).ok(), "secret/s serverside-applied\n");
        assert_eq!(kubectl.run_with(&APPLY, &manifest("b")).ok(), "thing.example.com/b serverside-applied\n");
        let status = "apiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: a\nstatus:\n  phase: Pending\n";
        if kubectl.minor >= 32 {
            kubectl.run_with(&["apply", "--server-side", "--subresource=status", "-f", "-"], status).ok();
            assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.status.phase}"]).ok(), "Pending");
        } else {
            println!("skipped: kubectl 1.{} cannot apply a status", kubectl.minor);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_applied_by_the_client_is_taken_over() {
    with_kubectl(|kubectl| {
        let first = manifest("a") + "  count: 3\n";
        kubectl.run_with(&["apply", "-f", "-"], &first).ok();
        assert_eq!(managers(&object(kubectl, "a")), ["kubectl-client-side-apply"]);
        // No conflict with oneself, and what is left out of the next manifest goes.
        kubectl.run_with(&APPLY, &first.replace("1Gi", "2Gi")).ok();
        assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size} {.spec.count}"]).ok(), "2Gi 3");
        let taken = object(kubectl, "a");
        let updates = taken["metadata"]["managedFields"].as_array().expect("a list").iter();
        let updates: Vec<&Value> = updates.filter(|entry| entry["operation"] == "Update").collect();
        if kubectl.minor >= 26 {
            assert!(updates.is_empty(), "{updates:?}");
            kubectl.run_with(&APPLY, &manifest("a")).ok();
            assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size} {.spec.count}"]).ok(), "1Gi ");
        } else {
            println!("skipped: kubectl 1.{} does not migrate managers", kubectl.minor);
        }
        // And back: the annotation was kept in step.
        let back = kubectl.run_with(&["apply", "-f", "-"], &(manifest("a") + "  count: 4\n")).ok();
        assert_eq!(back, "thing.example.com/a configured\n");
        kubectl.run_with(&["apply", "-f", "-"], &manifest("a")).ok();
        assert_eq!(kubectl.run(&["get", "thing", "a", "-o", "jsonpath={.spec.size} {.spec.count}"]).ok(), "1Gi ");
    })
    .await;
}
