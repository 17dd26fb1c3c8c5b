//! The whole way with exactly the rights of the manifests: none is missing, and none is there that nobody uses.

use std::collections::BTreeSet;
use std::fs;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use lvault_api::{LogicalVolume, SnapshotBackupStorage};
use serde_json::json;

use crate::api::is_outside;
use crate::cluster::{Cluster, NAMESPACE, NODE, Times};
use crate::manifests;

#[test]
fn the_whole_way_needs_every_right_and_no_other() {
    if is_outside() {
        eprintln!("SKIPPED: of a cluster nobody here sees which rights were used");
        return;
    }
    let mut cluster = Cluster::with(Times { unattended: "3s", ..Times::default() });
    cluster.storage(NAMESPACE, "main");
    cluster.storage_is_ready(NAMESPACE, "main");
    let source = cluster.volume("v");
    cluster.kubelet.mood(|mood| mood.gate = true);
    cluster.snapshot("s", "v", NAMESPACE, 3);
    let pod = cluster.running_pod(1);
    check(&pod);
    cluster.kubelet.mood(|mood| mood.gate = false);
    cluster.kubelet.go_on(&pod);
    cluster.succeeds("s");
    cluster.restore("r", "s");
    cluster.succeeds("r");
    let restored = cluster.mounted("r");
    assert_eq!(fs::read(restored.join("file")).unwrap(), fs::read(source.join("file")).unwrap());
    cluster.is_clean();

    // An agent that is started again looks up what was told already.
    cluster.terminate_agent();
    cluster.start_agent();

    // One that hangs is ended and followed.
    cluster.kubelet.mood(|mood| mood.gate = true);
    cluster.snapshot("t", "v", NAMESPACE, 3);
    cluster.running_pod(1);
    cluster.kubelet.mood(|mood| mood.gate = false);
    cluster.succeeds("t");
    assert_eq!(cluster.committed("v"), 2);
    cluster.delete("t");
    assert_eq!(cluster.committed("v"), 1, "the repository's snapshot went with it");

    // A storage that somebody wants checked; and a second controller that takes over.
    cluster.start_controller();
    cluster.terminate_controller();
    let storages: Api<SnapshotBackupStorage> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let request = json!({"metadata": {"annotations": {"lvault.io/check-requested-at": "now"}}});
    let (params, request) = (PatchParams::default(), Patch::Merge(&request));
    cluster.runtime.block_on(storages.patch("main", &params, &request)).unwrap();
    cluster.until("the second controller has checked it", || {
        lvault_controller::check_is_answered(&cluster.runtime.block_on(storages.get("main")).unwrap()).then_some(())
    });

    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "far"},
                           "spec": {"name": "far", "nodeName": "n8", "size": "16Mi"}}));
    cluster.told("far", "NodeNotFound");
    a_node_that_is_gone(&cluster);

    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let room = cluster.runtime.block_on(nodes.get(NODE)).unwrap().metadata.annotations.unwrap_or_default();
    assert!(room["capacity.topolvm.io/00default"].parse::<u64>().is_ok_and(|bytes| bytes > 0), "{room:?}");
    cluster.until("the last event is told", || {
        cluster.events("s").iter().any(|(reason, _)| reason == "SnapshotSucceeded").then_some(())
    });
    let told: Vec<String> = cluster.events("s").into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), told.len(), "each is told once: {told:?}");
    for reason in ["SnapshotPending", "SnapshotRunning", "SnapshotSucceeded"] {
        assert!(told.iter().any(|told| told == reason), "{reason}: {told:?}");
    }

    let asked = cluster.asked.lock().unwrap();
    assert_eq!(asked.refused, BTreeSet::new(), "a right is missing");
    let unused: Vec<String> = granted().into_iter().filter(|right| !asked.used.contains(right)).collect();
    assert_eq!(unused, Vec::<String>::new(), "a right is granted that nobody uses");
}

/// The rights of the manifests, as `<role> <number> <verb>`.
fn granted() -> Vec<String> {
    let mut rights = Vec::new();
    for role in manifests::base().iter().filter(|object| object["rules"].is_array()) {
        let name = role["metadata"]["name"].as_str().unwrap();
        for (number, rule) in role["rules"].as_array().unwrap().iter().enumerate() {
            assert!(
                rule["resources"].as_array().unwrap().len() == 1,
                "{name}: a rule is about one resource, so that its use is seen"
            );
            let verbs = rule["verbs"].as_array().unwrap();
            rights.extend(verbs.iter().map(|verb| format!("{name} {number} {}", verb.as_str().unwrap())));
        }
    }
    rights
}

/// What a pod may and may not do.
fn check(pod: &Pod) {
    let text = serde_json::to_string(pod).unwrap();
    assert!(!text.contains("correct horse"), "the password stands in the pod");
    let spec = pod.spec.as_ref().unwrap();
    let container = &spec.containers[0];
    assert_eq!(
        (container.image.as_deref(), container.image_pull_policy.as_deref()),
        (Some("registry/lvault:1"), Some("Always"))
    );
    let security = container.security_context.as_ref().unwrap();
    let capabilities = security.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(capabilities.add, Some(vec!["DAC_READ_SEARCH".to_owned()]));
    assert_eq!((security.privileged, security.allow_privilege_escalation), (Some(false), Some(false)));
    assert_eq!(security.read_only_root_filesystem, Some(true));
    let data = container.volume_mounts.iter().flatten().find(|mount| mount.name == "data").unwrap();
    assert_eq!((data.read_only, data.mount_propagation.as_deref()), (Some(true), Some("HostToContainer")));
    assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some(NODE), Some("Never")));
    assert_eq!(spec.service_account_name.as_deref(), Some("lvault-executor"));
    let owner = &pod.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("LogicalVolume", "s"));
}

/// What is left of a node that is gone is released when somebody says so, and not before.
fn a_node_that_is_gone(cluster: &Cluster) {
    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
        "metadata": {"name": "gone", "finalizers": ["topolvm.io/logicalvolume", "example.com/other"]},
        "spec": {"name": "gone", "nodeName": "n9", "size": "16Mi", "source": "v", "accessType": "ro",
                 "onlineSnapshot": {"storage": {"name": "main", "namespace": NAMESPACE}}}}));
    let uid = cluster.get("gone").unwrap().metadata.uid.unwrap();
    cluster.create(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "left", "namespace": NAMESPACE, "finalizers": ["lvault.io/executor"],
                     "labels": {"lvault.io/volume-uid": uid}},
        "spec": {"nodeName": "n9", "containers": [{"name": "c", "image": "i"}]}}));
    let volumes: Api<LogicalVolume> = Api::all(cluster.client.clone());
    let label = json!({"metadata": {"labels": {"lvault.io/abandoned": "true"}}});
    let (params, label) = (PatchParams::default(), Patch::Merge(&label));
    cluster.runtime.block_on(volumes.patch("gone", &params, &label)).unwrap();
    let before = cluster.asked.lock().unwrap().lists_of_volumes;
    cluster.until("a controller has looked twice", || {
        let looked = cluster.asked.lock().unwrap().lists_of_volumes;
        (looked >= before + 2).then_some(())
    });
    let finalizers = |name: &str| cluster.get(name).unwrap().metadata.finalizers.unwrap_or_default();
    assert_eq!(finalizers("gone").len(), 2, "it is not being deleted");
    cluster.runtime.block_on(volumes.delete("gone", &DeleteParams::default())).unwrap();
    cluster.until("it is released", || (finalizers("gone") == ["example.com/other"]).then_some(()));
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    assert_eq!(cluster.runtime.block_on(pods.get("left")).unwrap().metadata.finalizers, None);
}
