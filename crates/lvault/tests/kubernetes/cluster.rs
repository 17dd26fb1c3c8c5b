//! A cluster of one node: an API with access control, a kubelet, the node agent and the controller.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use lvault_api::{LogicalVolume, Phase, SnapshotBackupStorage, TransferStatus};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::api::{Asked, Served, post, serve};
use crate::kubelet::Kubelet;
use crate::process::{Program, until};

pub(crate) const NODE: &str = "n1";
pub(crate) const NAMESPACE: &str = "lvault-system";

pub(crate) struct Cluster {
    pub(crate) kubelet: Kubelet,
    agent: Option<Program>,
    controllers: Vec<Program>,
    pub(crate) client: Client,
    pub(crate) asked: Arc<Mutex<Asked>>,
    _served: Served,
    pub(crate) runtime: Runtime,
    pub(crate) root: PathBuf,
    times: Times,
    _home: TempDir,
}

/// What differs from test to test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// How long an attempt may wait for what it needs.
    pub(crate) start_deadline: &'static str,
    /// How long a pod may take to start.
    pub(crate) pod_start: &'static str,
    /// How long an executor may be silent.
    pub(crate) lease: &'static str,
    /// How long an agent may take to begin with an object.
    pub(crate) unattended: &'static str,
}

impl Default for Times {
    fn default() -> Self {
        Times { start_deadline: "60s", pod_start: "2s", lease: "5s", unattended: "60s" }
    }
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster::with(Times::default())
    }

    /// With other times.
    pub(crate) fn with(times: Times) -> Cluster {
        Cluster::with_crds(times, lvault_api::crds::all())
    }

    /// With other CRDs than this version's.
    pub(crate) fn with_crds(times: Times, crds: Vec<Value>) -> Cluster {
        let home = tempfile::Builder::new().prefix("lvault-cluster-").tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        fs::create_dir(root.join("repositories")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let asked: Arc<Mutex<Asked>> = Arc::default();
        let served = runtime.block_on(serve(&root, Arc::clone(&asked), crds));
        let client = served.client.clone();
        let kubelet =
            runtime.block_on(async { Kubelet::start(NODE, client.clone(), &root, &root.join("lvault-executor")) });
        let mut cluster = Cluster {
            kubelet,
            agent: None,
            controllers: Vec::new(),
            client,
            asked,
            _served: served,
            runtime,
            root,
            times,
            _home: home,
        };
        cluster.start_agent();
        cluster.start_controller();
        cluster
    }

    // --- lvault's processes ---

    pub(crate) fn start_agent(&mut self) {
        let path = |name: &str| self.root.join(name).display().to_string();
        let (state, kubeconfig, local) = (path("state"), path("lvault-node"), path("repositories"));
        let args = ["--kubeconfig", &kubeconfig, "--state-dir", &state, "node", "--engine", "directory"];
        let who = ["--node-name", NODE, "--pod-name", "agent", "--namespace", NAMESPACE, "--local-storage", &local];
        let Times { start_deadline, pod_start, lease, unattended: _ } = self.times;
        let times = ["--resync", "1s", "--executor-start-deadline", pod_start, "--lease-duration", lease];
        let more = ["--start-deadline", start_deadline, "--health-listen", "127.0.0.1:0", "--pod-uid", "agents-uid"];
        let args = [args.as_slice(), &who, &times, &more].concat();
        self.agent = Some(Program::lvault(&args, &self.root.join("agent.log")));
    }

    pub(crate) fn kill_agent(&mut self) {
        drop(self.agent.take());
    }

    pub(crate) fn terminate_agent(&mut self) {
        self.agent.take().unwrap().terminate();
    }

    pub(crate) fn start_controller(&mut self) {
        let kubeconfig = self.root.join("lvault-controller").display().to_string();
        let identity = format!("c{}", self.controllers.len());
        let args = ["--kubeconfig", &kubeconfig, "controller", "--namespace", NAMESPACE, "--identity", &identity];
        let more = ["--lease-duration", "3s", "--abandoned-interval", "1s", "--health-listen", "127.0.0.1:0"];
        let more_times = ["--unattended-after", self.times.unattended, "--pod-uid", "controllers-uid"];
        let args = [args.as_slice(), &more, &more_times].concat();
        self.controllers.push(Program::lvault(&args, &self.root.join("controller.log")));
    }

    pub(crate) fn terminate_controller(&mut self) {
        self.controllers.remove(0).terminate();
    }

    pub(crate) fn log(&self) -> String {
        let text = |name: &str| fs::read_to_string(self.root.join(name)).unwrap_or_default();
        format!("--- agent\n{}--- controller\n{}", text("agent.log"), text("controller.log"))
    }

    // --- objects ---

    pub(crate) fn create(&self, object: &Value) {
        self.runtime.block_on(post(&self.client, object));
    }

    pub(crate) fn storage(&self, namespace: &str, name: &str) {
        self.create(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
                            "stringData": {"RESTIC_PASSWORD": "correct horse"}}));
        self.storage_without_secret(namespace, name);
    }

    pub(crate) fn storage_without_secret(&self, namespace: &str, name: &str) {
        let folder = self.root.join("repositories");
        self.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"storage": {"provider": "local", "local": {"path": folder}}}}));
    }

    pub(crate) fn storage_is_ready(&self, namespace: &str, name: &str) {
        let api: Api<SnapshotBackupStorage> = Api::namespaced(self.client.clone(), namespace);
        self.until("the storage is ready", || self.runtime.block_on(api.get(name)).unwrap().is_ready().then_some(()));
    }

    /// A volume with a file; answers with the folder.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
                            "spec": {"name": name, "nodeName": NODE, "size": "16Mi"}}));
        let folder = self.mounted(name);
        fs::write(folder.join("file"), vec![7; 100_000]).unwrap();
        folder
    }

    /// Where a volume is mounted once it is published.
    pub(crate) fn mounted(&self, name: &str) -> PathBuf {
        let path = self.until(&format!("{name} is published"), || {
            let status = self.get(name)?.status?;
            status.volume_id.and(status.mount_path)
        });
        PathBuf::from(path)
    }

    pub(crate) fn snapshot(&self, name: &str, source: &str, namespace: &str, backoff_limit: i32) {
        self.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
            "spec": {"name": name, "nodeName": NODE, "size": "16Mi", "source": source, "accessType": "ro",
                     "onlineSnapshot": {"storage": {"name": "main", "namespace": namespace}, "backoffLimit": backoff_limit}}}));
    }

    pub(crate) fn restore(&self, name: &str, snapshot: &str) {
        let status = self.transfer(snapshot).unwrap();
        self.create(&json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
            "spec": {"name": name, "nodeName": NODE, "size": "16Mi",
                     "restore": {"storage": {"name": "main", "namespace": NAMESPACE}, "path": status.path,
                                 "snapshotID": status.snapshot_id}}}));
    }

    pub(crate) fn get(&self, name: &str) -> Option<LogicalVolume> {
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        self.runtime.block_on(api.get_opt(name)).unwrap()
    }

    pub(crate) fn transfer(&self, name: &str) -> Option<TransferStatus> {
        let status = self.get(name)?.status?;
        status.online_snapshot.or(status.restore)
    }

    /// Waits until an operation has ended.
    pub(crate) fn ended(&self, name: &str) -> TransferStatus {
        self.until(&format!("{name} has ended"), || {
            self.transfer(name).filter(|transfer| matches!(transfer.phase, Phase::Succeeded | Phase::Failed))
        })
    }

    pub(crate) fn succeeds(&self, name: &str) -> TransferStatus {
        let ended = self.ended(name);
        assert_eq!(ended.phase, Phase::Succeeded, "{ended:?}\n{}", self.log());
        ended
    }

    pub(crate) fn fails(&self, name: &str) -> String {
        let ended = self.ended(name);
        assert_eq!(ended.phase, Phase::Failed, "{ended:?}\n{}", self.log());
        ended.error.unwrap().message
    }

    pub(crate) fn delete(&self, name: &str) {
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        self.runtime.block_on(api.delete(name, &DeleteParams::default())).unwrap();
        self.until(&format!("{name} is gone"), || self.get(name).is_none().then_some(()));
    }

    // --- pods ---

    pub(crate) fn pods(&self) -> Vec<Pod> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let executors = ListParams::default().labels("topolvm.io/snapshot-pod=true");
        self.runtime.block_on(api.list(&executors)).unwrap().items
    }

    /// Waits for the pod of this launch whose program has been started.
    pub(crate) fn running_pod(&self, launch: u32) -> Pod {
        let named = format!("-1-{launch}");
        self.until(&format!("a running pod of launch {launch}"), || {
            let runs = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            self.pods().into_iter().find(|pod| runs(pod) && pod.name_any().ends_with(&named))
        })
    }

    pub(crate) fn delete_pod(&self, pod: &Pod) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap());
        self.runtime.block_on(api.delete(&pod.name_any(), &DeleteParams::default())).unwrap();
    }

    /// Waits until no pod and no lease of an executor is left.
    pub(crate) fn is_clean(&self) {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::all(self.client.clone());
        let executors = ListParams::default().labels("topolvm.io/snapshot-pod=true");
        self.until("no pod and no lease is left", || {
            let left = self.runtime.block_on(leases.list(&executors)).unwrap().items;
            (self.pods().is_empty() && left.is_empty()).then_some(())
        });
    }

    /// A client with the rights of one of lvault's accounts.
    pub(crate) fn client_of(&self, account: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.root.join(account)).unwrap();
        self.runtime.block_on(async {
            let options = KubeConfigOptions::default();
            Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
        })
    }

    /// Takes a ClusterRoleBinding away. Answers with it.
    pub(crate) fn take_right(&self, binding: &str) -> Value {
        let kind = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        self.runtime.block_on(async {
            let found = api.get(binding).await.unwrap();
            api.delete(binding, &DeleteParams::default()).await.unwrap();
            let mut found = serde_json::to_value(found).unwrap();
            found["metadata"] = json!({"name": binding});
            found
        })
    }

    /// What a condition of a LogicalVolume says: its status, reason and message.
    pub(crate) fn condition(&self, name: &str, kind: &str) -> Option<(String, String, String)> {
        let conditions = self.get(name)?.status?.conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason, found.message))
    }

    /// Waits for an event about an object. Answers with its message.
    pub(crate) fn told(&self, name: &str, reason: &str) -> String {
        self.until(&format!("an event of {name} says {reason}"), || {
            self.events(name).into_iter().find(|(told, _)| told == reason).map(|(_, message)| message)
        })
    }

    /// The events about an object, as reason and message.
    pub(crate) fn events(&self, name: &str) -> Vec<(String, String)> {
        let api: Api<Event> = Api::all(self.client.clone());
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let events = self.runtime.block_on(api.list(&about)).unwrap().items;
        events.into_iter().map(|event| (event.reason.unwrap(), event.message.unwrap())).collect()
    }

    /// How many snapshots the repository of a volume holds.
    pub(crate) fn committed(&self, volume: &str) -> usize {
        let folder = self.root.join("repositories/default").join(volume).join("snapshots");
        fs::read_dir(&folder).map(Iterator::count).unwrap_or_default()
    }

    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let started = std::time::Instant::now();
        until(what, || {
            let found = look();
            assert!(found.is_some() || started.elapsed() < Duration::from_secs(110), "{what}\n{}", self.log());
            found
        })
    }
}
