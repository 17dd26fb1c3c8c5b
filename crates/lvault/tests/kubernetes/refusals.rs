//! What cannot work is said where the user looks.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use lvault_api::{LogicalVolume, SnapshotBackupStorage};
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
    assert!(cluster.told("s", "SnapshotWaiting").contains("set up for storages"));
    let (status, reason, said) = cluster.condition("s", "SnapshotComplete").unwrap();
    assert!(status == "False" && said.contains("set up for storages"), "{status} {reason}: {said}");
    assert!(cluster.pods().is_empty());
    assert!(cluster.fails("s").contains("set up for storages"));
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
    cluster.told("main", "StorageError");
    cluster.volume("v");
    cluster.snapshot("s", "v", NAMESPACE, 3);
    let message = cluster.fails("s");
    assert!(message.contains(&format!("the storage {NAMESPACE}/main")), "{message}");
    for said in [
        cluster.told("s", "SnapshotWaiting"),
        cluster.told("s", "SnapshotFailed"),
        cluster.told("main", "StorageError"),
    ] {
        assert!(said.contains(&format!("the Secret {NAMESPACE}/main is not there")), "{said}");
    }
    let (status, reason, said) = cluster.condition("s", "SnapshotComplete").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "StorageNotReady"));
    assert!(said.contains("is not there: create it"), "{said}");
}

#[test]
fn a_secret_that_lacks_the_password() {
    let cluster = Cluster::new();
    cluster.create(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "main", "namespace": NAMESPACE},
                           "stringData": {"PASSWORD": "misspelt"}}));
    cluster.storage_without_secret(NAMESPACE, "main");
    cluster.told("main", "StorageError");
    cluster.volume("v");
    cluster.snapshot("s", "v", NAMESPACE, 3);
    for said in [cluster.told("main", "StorageError"), cluster.told("s", "SnapshotWaiting")] {
        assert!(said.contains("has no key RESTIC_PASSWORD"), "{said}");
    }
    let storages: Api<SnapshotBackupStorage> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let conditions = cluster.runtime.block_on(storages.get("main")).unwrap().status.unwrap().conditions;
    assert_eq!((conditions[0].type_.as_str(), conditions[0].status.as_str()), ("Ready", "False"));
    assert!(conditions[0].message.contains("has no key"), "{conditions:?}");
    // Once it is there, the snapshot goes on by itself.
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let key = Patch::Merge(json!({"stringData": {"RESTIC_PASSWORD": "correct horse"}}));
    cluster.runtime.block_on(secrets.patch("main", &PatchParams::default(), &key)).unwrap();
    cluster.told("main", "StorageReady");
    cluster.succeeds("s");
}

/// What runs has all it needs; what would have to be launched after that says what is missing.
#[test]
fn a_storage_that_is_deleted_while_a_backup_runs() {
    let cluster = Cluster::with(Times { start_deadline: "3s", ..Times::default() });
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.kubelet.mood(|mood| mood.gate = true);
    cluster.snapshot("s", "v", NAMESPACE, 3);
    cluster.snapshot("t", "v", NAMESPACE, 3);
    let pods = cluster.until("both executors stand at the gate", || {
        let pods = cluster.pods();
        let running = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        (pods.len() == 2 && pods.iter().all(running)).then_some(pods)
    });
    let storages: Api<SnapshotBackupStorage> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    cluster.runtime.block_on(storages.delete("main", &DeleteParams::default())).unwrap();
    for pod in &pods {
        match pod.metadata.owner_references.as_ref().unwrap()[0].name.as_str() {
            "s" => cluster.kubelet.go_on(pod),
            _ => cluster.kubelet.kill(pod),
        }
    }
    cluster.succeeds("s");
    let message = cluster.fails("t");
    assert!(message.contains(&format!("the storage {NAMESPACE}/main does not exist")), "{message}");
    assert_eq!(cluster.told("t", "SnapshotFailed"), message);
    let (status, _, said) = cluster.condition("t", "SnapshotComplete").unwrap();
    assert_eq!((status.as_str(), said), ("False", message));
    // Deleting needs no storage: the repository's snapshot stays, as documented.
    cluster.delete("s");
    cluster.delete("t");
    assert_eq!(cluster.committed("v"), 1);
}

#[test]
fn a_node_that_does_not_exist() {
    let cluster = Cluster::with(Times { unattended: "500ms", ..Times::default() });
    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "far"},
                           "spec": {"name": "far", "nodeName": "n2", "size": "16Mi"}}));
    let said = cluster.told("far", "NodeNotFound");
    assert!(said.contains("there is no node n2") && said.contains("kubectl get nodes"), "{said}");
    let (status, reason, message) = cluster.condition("far", "NodeAvailable").unwrap();
    assert_eq!((status.as_str(), reason.as_str(), message), ("False", "NodeNotFound", said));
    cluster.create(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}}));
    assert!(cluster.told("far", "NoAgent").contains("app.kubernetes.io/name=lvault-node"));
    assert_eq!(cluster.condition("far", "NodeAvailable").unwrap().1, "NoAgent");
    // It is said once, however often it is looked at.
    let version = cluster.get("far").unwrap().metadata.resource_version;
    let since = std::time::Instant::now();
    cluster.until("it was looked at three times", || (since.elapsed().as_millis() >= 2000).then_some(()));
    assert_eq!(cluster.get("far").unwrap().metadata.resource_version, version);
    assert_eq!(cluster.events("far").len(), 2);
}

/// An agent that begins to work takes back that there is none.
#[test]
fn an_agent_that_comes_late() {
    let mut cluster = Cluster::with(Times { unattended: "500ms", ..Times::default() });
    cluster.kill_agent();
    cluster.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "v"},
                           "spec": {"name": "v", "nodeName": NODE, "size": "16Mi"}}));
    cluster.told("v", "NoAgent");
    cluster.start_agent();
    cluster.mounted("v");
    let (status, reason, _) = cluster.condition("v", "NodeAvailable").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AgentWorks"));
    // Its node goes away for good, and only then somebody deletes it.
    cluster.kill_agent();
    let (nodes, volumes): (Api<Node>, Api<LogicalVolume>) =
        (Api::all(cluster.client.clone()), Api::all(cluster.client.clone()));
    cluster.runtime.block_on(nodes.delete(NODE, &DeleteParams::default())).unwrap();
    cluster.runtime.block_on(volumes.delete("v", &DeleteParams::default())).unwrap();
    let said = cluster.told("v", "NodeGone");
    assert!(said.contains("kubectl label lv v lvault.io/abandoned=true"), "{said}");
    assert_eq!(cluster.condition("v", "NodeAvailable").unwrap().1, "NodeGone");
}

/// The CRDs of an earlier version drop what they do not know: nothing is begun with them, and nothing ends.
#[test]
fn crds_that_are_older_than_the_program() {
    let mut crds = lvault_api::crds::all();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    crds[0].pointer_mut(spec).unwrap().as_object_mut().unwrap().remove("filesystem");
    let cluster = Cluster::with_crds(Times::default(), crds);
    for pod in ["agent", "c0"] {
        let said = cluster.told(pod, "ClusterNotReady");
        assert!(said.contains("the CRD of LogicalVolume is older") && said.contains("spec.filesystem"), "{said}");
    }
    assert!(cluster.log().matches("waiting: the CRD of LogicalVolume").count() == 2, "{}", cluster.log());
}

#[test]
fn rights_of_the_agent_that_are_missing() {
    let mut cluster = Cluster::new();
    cluster.kill_agent();
    let binding = cluster.take_right("lvault-node");
    cluster.start_agent();
    let said = cluster.told("agent", "ClusterNotReady");
    assert!(said.contains("cannot list the LogicalVolumes") && said.contains("rbac.yaml"), "{said}");
    cluster.create(&binding);
    cluster.volume("v");
}

#[test]
fn rights_of_the_executors_that_are_missing() {
    let cluster = Cluster::new();
    cluster.storage(NAMESPACE, "main");
    cluster.volume("v");
    cluster.take_right("lvault-executor-lvault-system");
    cluster.snapshot("s", "v", NAMESPACE, 1);
    let message = cluster.fails("s");
    assert!(message.contains("cannot get resource \"logicalvolumes\""), "{message}");
    assert_eq!(cluster.told("s", "SnapshotFailed"), message);
}

/// L41: whoever controls an executor does not become the controller.
#[test]
fn an_executor_does_not_reach_the_leaders_lease() {
    let cluster = Cluster::new();
    let at = |client: &Client, namespace: &str| -> Api<Lease> { Api::namespaced(client.clone(), namespace) };
    let own = at(&cluster.client, "kube-system");
    let leads = |lease: Lease| lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| holder == "c0");
    cluster.until("a controller leads", || {
        cluster.runtime.block_on(own.get_opt("lvault-controller")).unwrap().and_then(leads)
    });
    let executor = cluster.client_of("lvault-executor");
    let takeover = Patch::Merge(json!({"spec": {"holderIdentity": "me"}}));
    for namespace in ["kube-system", "default"] {
        let request =
            async { at(&executor, namespace).patch("lvault-controller", &PatchParams::default(), &takeover).await };
        let refused = cluster.runtime.block_on(request).unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    }
    let none = at(&cluster.client, NAMESPACE);
    assert!(cluster.runtime.block_on(none.get_opt("lvault-controller")).unwrap().is_none());
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
