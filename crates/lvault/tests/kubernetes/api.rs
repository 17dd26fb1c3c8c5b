//! The API that a test runs against: the embedded one, or the cluster that `LVAULT_TEST_KUBECONFIG` names.
//!
//! A cluster must hold nothing of lvault but what these tests have left there: they take away every LogicalVolume and storage.
//! Its owner's kubeconfig is needed. Only one test uses it at a time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt};
use lvault_api::{LogicalVolume, SnapshotBackupStorage};
use lvault_apiserver::tls::{Identity, kubeconfig};
use lvault_apiserver::{ApiServer, ClusterKind, Config as ServerConfig, Decision, Grant};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cluster::{NAMESPACE, NODE};
use crate::manifests;

/// The kubeconfig of the cluster to run against.
pub(crate) const OUTSIDE: &str = "LVAULT_TEST_KUBECONFIG";
/// The nodes of the tests, of which none exists.
const NODES: [&str; 4] = [NODE, "n2", "n8", "n9"];

/// What was asked of the API with which outcome.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// What lvault's accounts were refused.
    pub(crate) refused: BTreeSet<String>,
    /// The verbs that were used of each rule, as `<role> <number> <verb>`.
    pub(crate) used: BTreeSet<String>,
    /// How often the controller has looked for volumes of nodes that are gone.
    pub(crate) lists_of_volumes: usize,
}

/// An API with the manifests of `deploy/base` in it, a node, and the agent's own pod.
pub(crate) struct Served {
    pub(crate) client: Client,
    _server: Option<ApiServer>,
    /// Held while a cluster is used.
    _alone: Option<File>,
}

/// Whether the API is that of a cluster, of which nobody here sees the decisions.
pub(crate) fn is_outside() -> bool {
    std::env::var_os(OUTSIDE).is_some()
}

/// Serves the embedded API, or prepares the cluster. The kubeconfigs of lvault's accounts are put into the folder.
pub(crate) async fn serve(root: &Path, asked: Arc<Mutex<Asked>>, crds: Vec<Value>) -> Served {
    let (server, alone, owner) = match std::env::var_os(OUTSIDE) {
        Some(path) => {
            let alone = File::create(std::env::temp_dir().join("lvault-tests-of-a-cluster.lock")).unwrap();
            rustix::fs::flock(&alone, rustix::fs::FlockOperation::LockExclusive).unwrap();
            (None, Some(alone), Kubeconfig::read_from(PathBuf::from(path)).unwrap())
        }
        None => {
            let (server, owner) = embedded(root, asked, crds.clone()).await;
            (Some(server), None, owner)
        }
    };
    let client = client(owner.clone()).await;
    if server.is_none() {
        clear(&client).await;
        // An embedded API of somebody else has its kinds from its start.
        let groups = client.list_api_groups().await.unwrap().groups;
        if groups.iter().any(|group| group.name == "apiextensions.k8s.io") {
            for crd in crds {
                apply(&client, &crd).await;
            }
            known(&client).await;
        }
    }
    for object in manifests::base() {
        // Nobody runs workloads here but the test.
        if !matches!(object["kind"].as_str().unwrap(), "DaemonSet" | "Deployment") {
            apply(&client, &object).await;
        }
    }
    apply(&client, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})).await;
    let container = json!({"name": "lvault", "image": "registry/lvault:1", "imagePullPolicy": "Always"});
    let agent = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": NAMESPACE},
                       "spec": {"nodeName": NODE, "containers": [container]}});
    apply(&client, &agent).await;
    for account in ["lvault-node", "lvault-controller", "lvault-executor"] {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": NAMESPACE}});
        let accounts = of_kind(&client, &object);
        let answer: Value =
            accounts.create_subresource("token", account, &PostParams::default(), &json!({})).await.unwrap();
        let token = answer["status"]["token"].as_str().unwrap().to_owned();
        // As JSON, which is YAML.
        let mut own = serde_json::to_value(&owner).unwrap();
        for user in own["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        fs::write(root.join(account), own.to_string()).unwrap();
    }
    Served { client, _server: server, _alone: alone }
}

/// Waits until the API serves what its CRDs define.
async fn known(client: &Client) {
    let (volumes, storages): (Api<LogicalVolume>, Api<SnapshotBackupStorage>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    for _ in 0..200 {
        let first = ListParams::default().limit(1);
        if volumes.list(&first).await.is_ok() && storages.list(&first).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the cluster does not serve lvault's kinds");
}

async fn client(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn embedded(root: &Path, asked: Arc<Mutex<Asked>>, crds: Vec<Value>) -> (ApiServer, Kubeconfig) {
    let mut config =
        ServerConfig::in_memory(crds).with_kinds(&[ClusterKind::Pod, ClusterKind::Node, ClusterKind::ConfigMap]);
    config.observer = Some(Arc::new(move |decision: &Decision| note(&asked, decision)));
    let server = ApiServer::open(config).await.unwrap();
    let identity = Identity::load_or_create(&root.join("tls")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let owner = kubeconfig(address, identity.ca_pem(), identity.token());
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener, &identity, std::future::pending()).await });
    (server, Kubeconfig::from_yaml(&owner).unwrap())
}

fn note(asked: &Mutex<Asked>, decision: &Decision) {
    if !decision.user.name.starts_with("system:serviceaccount:") {
        return;
    }
    let mut asked = asked.lock().unwrap();
    if decision.user.name.ends_with(":lvault-controller")
        && decision.asked.resource == "logicalvolumes"
        && decision.asked.verb == "list"
    {
        asked.lists_of_volumes += 1;
    }
    match &decision.grant {
        None => {
            asked.refused.insert(format!("{}: {:?}", decision.user.name, decision.asked));
        }
        Some(Grant::Rule(place)) => {
            asked.used.insert(format!("{} {} {}", place.role, place.rule, decision.asked.verb));
        }
        Some(Grant::Master) => {}
    }
}

/// Takes away what an earlier test has left in a cluster.
async fn clear(client: &Client) {
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let left = all(&volumes).await;
    let foreign = left.iter().find(|volume| !NODES.contains(&volume.spec.node_name.as_str()));
    assert!(
        foreign.is_none(),
        "{OUTSIDE} names a cluster in use: it has a volume on node {:?}",
        foreign.map(|it| &it.spec.node_name)
    );
    remove(client, left).await;
    let storages: Api<SnapshotBackupStorage> = Api::all(client.clone());
    remove_namespaced(client, all(&storages).await).await;
    let executors = ListParams::default().labels("topolvm.io/snapshot-pod=true");
    let pods: Api<Pod> = Api::all(client.clone());
    remove_namespaced(client, pods.list(&executors).await.unwrap().items).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    remove_namespaced(client, pods.list(&ListParams::default()).await.unwrap().items).await;
    let leases: Api<Lease> = Api::all(client.clone());
    let mut left = leases.list(&executors).await.unwrap().items;
    left.extend(Api::<Lease>::namespaced(client.clone(), NAMESPACE).list(&ListParams::default()).await.unwrap().items);
    remove_namespaced(client, left).await;
    let events: Api<Event> = Api::all(client.clone());
    let mut events = events.list(&ListParams::default()).await.unwrap().items;
    events.retain(|event| event.involved_object.api_version.as_deref() == Some("topolvm.io/v1"));
    remove_namespaced(client, events).await;
}

/// All objects of a kind. A cluster that does not know the kind yet has none; any other refusal is none to go on with.
async fn all<K: Clone + std::fmt::Debug + DeserializeOwned>(api: &Api<K>) -> Vec<K> {
    match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => panic!("what an earlier test has left cannot be listed: {error}"),
    }
}

async fn remove(client: &Client, objects: Vec<LogicalVolume>) {
    let api: Api<LogicalVolume> = Api::all(client.clone());
    for object in objects {
        gone(&api, &object.name_any()).await;
    }
}

async fn remove_namespaced<K>(client: &Client, objects: Vec<K>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    for object in objects {
        gone(&Api::<K>::namespaced(client.clone(), &object.namespace().unwrap()), &object.name_any()).await;
    }
}

/// Removes an object whose keepers do not live any more.
async fn gone<K: Clone + std::fmt::Debug + DeserializeOwned>(api: &Api<K>, name: &str) {
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for _ in 0..100 {
        // Each may be gone already, or go meanwhile.
        let _ = api.patch(name, &PatchParams::default(), &free).await;
        let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
        if api.get_opt(name).await.unwrap().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} does not go");
}

fn of_kind(client: &Client, object: &Value) -> Api<DynamicObject> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "SnapshotBackupStorage" {
        resource.plural = "snapshotbackupstorages".to_owned();
    }
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Makes an object what this says, whatever it was before.
async fn apply(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("lvault-tests").force();
    let applied = of_kind(client, object).patch(name, &params, &Patch::Apply(object)).await;
    applied.unwrap_or_else(|e| panic!("{} {name}: {e}", object["kind"]));
}

/// Creates an object. One of an earlier test, in a cluster, goes first; a namespace stays.
pub(crate) async fn post(client: &Client, object: &Value) {
    let api = of_kind(client, object);
    let (kind, name) = (&object["kind"], object["metadata"]["name"].as_str().unwrap());
    if is_outside() {
        match api.get_opt(name).await.unwrap() {
            Some(_) if kind == "Namespace" => return,
            Some(_) => gone(&api, name).await,
            None => {}
        }
    }
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap_or_else(|e| panic!("{kind} {name}: {e}"));
}
