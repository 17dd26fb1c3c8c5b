//! What cannot work is said where the user looks.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use lvault_api::LogicalVolume;
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, NODE, Times};

#[test]
fn a_namespace_that_has_not_consented() {
    let cluster = Cluster::with(Times { start_deadline: "3s", ..Times::default() });
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}));
    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage",
        "metadata": {"name": "main", "namespace": "team"},
        "spec": {"validateOnCreate": false,
                 "storage": {"provider": "local", "local": {"path": cluster.root.join("repositories")}}}}));
    cluster.volume("v");
    cluster.snapshot("s", "v", "team", 3);
    let said = cluster.until("the status says why", || cluster.transfer("s")?.message);
    assert!(said.contains("cannot list resource \"pods\"") && said.contains("set up for storages"), "{said}");
    assert!(cluster.pods().is_empty());
}

#[test]
fn a_folder_of_the_host_that_was_not_allowed() {
    let cluster = Cluster::new();
    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage",
        "metadata": {"name": "main", "namespace": NAMESPACE},
        "spec": {"validateOnCreate": false, "storage": {"provider": "local", "local": {"path": "/etc"}}}}));
    cluster.volume("v");
    cluster.snapshot("s", "v", NAMESPACE, 3);
    let message = cluster.fails("s");
    assert!(message.contains("the folder /etc of the node") && message.contains("--local-storage"), "{message}");
    assert!(cluster.pods().is_empty());
}

#[test]
fn a_storage_whose_secret_is_missing() {
    let cluster = Cluster::with(Times { start_deadline: "3s", ..Times::default() });
    cluster.storage_without_secret(NAMESPACE, "main");
    cluster.volume("v");
    cluster.snapshot("s", "v", NAMESPACE, 3);
    let message = cluster.fails("s");
    assert!(message.contains(&format!("the storage {NAMESPACE}/main")), "{message}");
    for reason in ["SnapshotWaiting", "SnapshotFailed"] {
        cluster.until(&format!("an event says {reason}"), || {
            cluster.events("s").iter().any(|(told, _)| told == reason).then_some(())
        });
    }
}

#[test]
fn volumes_of_other_nodes_are_nobodys_here() {
    let cluster = Cluster::new();
    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "far"},
                           "spec": {"name": "far", "nodeName": "n2", "size": "16Mi"}}));
    cluster.volume("near");
    let far = cluster.get("far").unwrap();
    assert!(far.status.is_none() && far.metadata.finalizers.is_none(), "{far:?}");
    assert_ne!(NODE, "n2");
}

#[test]
fn a_pod_of_the_same_name_that_is_somebody_elses() {
    let mut cluster = Cluster::new();
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.kill_agent();
    cluster.snapshot("s", "v", NAMESPACE, 3);
    let name = format!("backup-{}-1-1", cluster.get("s").unwrap().metadata.uid.unwrap());
    cluster.create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
                           "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]}}));
    cluster.start_agent();
    let message = cluster.fails("s");
    assert!(message.contains(&format!("the pod {name}")) && message.contains("delete it"), "{message}");
    assert_eq!(*cluster.kubelet.started.lock().unwrap(), 0);
}

/// Somebody says that a node is gone which is there: only its agent may release its volumes.
#[test]
fn a_node_that_is_not_gone() {
    let mut cluster = Cluster::new();
    cluster.volume("v");
    cluster.kill_agent();
    let volumes: Api<LogicalVolume> = Api::all(cluster.client.clone());
    let label = json!({"metadata": {"labels": {"lvault.io/abandoned": "true"}}});
    let (params, label) = (PatchParams::default(), Patch::Merge(&label));
    cluster.runtime.block_on(volumes.patch("v", &params, &label)).unwrap();
    cluster.runtime.block_on(volumes.delete("v", &DeleteParams::default())).unwrap();
    cluster.until("the controller says why not", || cluster.log().contains("the agent there removes it").then_some(()));
    assert!(cluster.get("v").is_some());
    cluster.start_agent();
    cluster.until("its agent removes it", || cluster.get("v").is_none().then_some(()));
}
