//! What `lvault node` costs in a cluster with many volumes, of which a hundred are its own.
//!
//! The API is the embedded one, in this process and over its TLS port; the agent is a process with an account of its own, so that its
//! requests can be told from all others. Volumes are folders: what is measured is the agent, and no storage.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Api, Client, ResourceExt};
use lvault_api::LogicalVolume;
use lvault_apiserver::tls::{Identity, kubeconfig};
use lvault_apiserver::{ApiServer, ClusterKind, Config, Decision};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::node::{cpu, memory};
use super::run::{Program, median};
use super::{Settings, io, say};

const NODE: &str = "own";
const NAMESPACE: &str = "lvault-system";
const ACCOUNT: &str = "system:serviceaccount:lvault-system:bench";
const OWN: usize = 100;
const AT_ONCE: usize = 16;
const BOUND: Duration = Duration::from_secs(120);
/// Nothing happens when nothing was asked, and no processor time was taken, for so long.
const STILL: Duration = Duration::from_secs(3);
const REST: Duration = Duration::from_secs(30);
/// So many times the status of volumes of other nodes is written.
const FOREIGN: usize = 1000;

/// Measures with a tenth of the volumes, and with all.
pub(crate) fn measure(settings: &Settings, scratch: &Path) -> Result<(), String> {
    say(
        "| volumes in the cluster | what | seconds | CPU of `lvault node` (s) | memory (MiB) | requests | writes of volumes | other writes |",
    );
    say("|---:|---|---:|---:|---:|---:|---:|---:|");
    let mut times = Vec::new();
    for count in [settings.cluster / 10, settings.cluster] {
        let folder = scratch.join(format!("cluster-{count}"));
        fs::create_dir_all(&folder).map_err(io("making a folder"))?;
        let mut cluster = Cluster::new(settings, folder, count)?;
        cluster.start()?;
        cluster.row("first start, none of its own", |cluster| cluster.settle())?;
        cluster.row("its 100 volumes are asked for at once", |cluster| {
            times.push((count, cluster.make_own()?));
            cluster.settle()
        })?;
        cluster.stop()?;
        cluster.start()?;
        cluster.row("later start, until all is reconciled", |cluster| cluster.settle())?;
        cluster.row("at rest", |_| {
            std::thread::sleep(REST);
            Ok(REST.as_secs_f64())
        })?;
        cluster.row("1,000 status writes to volumes of other nodes", |cluster| cluster.write_foreign())?;
        cluster.stop()?;
    }
    say("");
    for (count, times) in times {
        let most = times.iter().copied().fold(0.0, f64::max);
        let middle = median(times);
        say(&format!(
            "From asking until the volume is published, {OWN} at once, {count} in the cluster: median {middle:.2} s, longest {most:.2} s"
        ));
    }
    Ok(())
}

/// What the agent has asked.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    all: usize,
    volume_writes: usize,
    other_writes: usize,
}

struct Cluster {
    lvault: PathBuf,
    folder: PathBuf,
    count: usize,
    runtime: Runtime,
    client: Client,
    _server: ApiServer,
    asked: Arc<Mutex<Asked>>,
    agent: Option<Child>,
}

impl Cluster {
    fn new(settings: &Settings, folder: PathBuf, count: usize) -> Result<Cluster, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(io("a runtime"))?;
        let asked: Arc<Mutex<Asked>> = Arc::default();
        let (server, client) = runtime.block_on(serve(&folder, Arc::clone(&asked)))?;
        let foreign: Vec<Value> = (OWN..count).map(|number| volume(&format!("v-{number:05}"), "other")).collect();
        runtime.block_on(create_all(&client, foreign))?;
        let lvault = settings.lvault.clone();
        Ok(Cluster { lvault, folder, count, runtime, client, _server: server, asked, agent: None })
    }

    fn start(&mut self) -> Result<(), String> {
        let path = |name: &str| self.folder.join(name);
        let agent = Program::new(&self.lvault).args(["--kubeconfig".as_ref(), path("kubeconfig").as_os_str()]);
        let agent = agent.args(["--state-dir".as_ref(), path("state").as_os_str()]);
        let agent = agent.args(["node", "--engine", "directory", "--node-name", NODE, "--pod-name", "agent"]);
        let agent = agent.args(["--namespace", NAMESPACE, "--health-listen", "127.0.0.1:0"]).env("LVAULT_LOG", "warn");
        *self.counted() = Asked::default();
        self.agent = Some(agent.spawn(&path("out"), &path("log"))?);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        // The shell's own kill: not every system has it as a program.
        Program::new("sh").args(["-c".to_owned(), format!("kill {}", agent.id())]).run()?;
        agent.wait().map(drop).map_err(io("waiting for lvault node"))
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pid(&self) -> Result<u32, String> {
        Ok(self.agent.as_ref().ok_or("lvault node does not run")?.id())
    }

    /// Does something, and prints what it cost the agent.
    fn row(&mut self, what: &str, work: impl FnOnce(&mut Cluster) -> Result<f64, String>) -> Result<(), String> {
        let pid = self.pid()?;
        let starts = self.counted().all == 0;
        let (before, asked) = if starts { (0.0, Asked::default()) } else { (cpu(pid)?, *self.counted()) };
        let seconds = work(self)?;
        let (cpu, now) = (cpu(pid)? - before, *self.counted());
        say(&format!(
            "| {} | {what} | {seconds:.1} | {cpu:.2} | {:.0} | {} | {} | {} |",
            self.count,
            memory(pid)?.0,
            now.all - asked.all,
            now.volume_writes - asked.volume_writes,
            now.other_writes - asked.other_writes,
        ));
        Ok(())
    }

    /// Waits until the agent is still; answers how long that took, without the stillness itself.
    fn settle(&mut self) -> Result<f64, String> {
        let (since, pid) = (Instant::now(), self.pid()?);
        let (mut before, mut busy) = ((0, -1.0), since);
        while since.elapsed() < BOUND {
            let now = (self.counted().all, cpu(pid)?);
            if now.0 != before.0 || now.1 - before.1 > 0.015 {
                (before, busy) = (now, Instant::now());
            }
            if now.0 > 0 && busy.elapsed() > STILL {
                return Ok(busy.duration_since(since).as_secs_f64());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(format!("lvault node is not still after two minutes: {}", log.trim()))
    }

    /// Asks for the agent's volumes at once; answers how long each took until it was published.
    fn make_own(&mut self) -> Result<Vec<f64>, String> {
        let client = self.client.clone();
        self.runtime.block_on(async {
            let volumes: Api<LogicalVolume> = Api::all(client.clone());
            let own = WatchParams::default().fields(&format!("spec.nodeName={NODE}"));
            let events = volumes.watch(&own, "0").await.map_err(|e| format!("cannot watch the volumes: {e}"))?;
            let mut events = std::pin::pin!(events);
            let names: Vec<String> = (0..OWN).map(|number| format!("v-{number:05}")).collect();
            let began = Instant::now();
            create_all(&client, names.iter().map(|name| volume(name, NODE)).collect()).await?;
            let (mut waits, mut times): (BTreeSet<String>, _) = (names.into_iter().collect(), Vec::new());
            while !waits.is_empty() {
                let left = BOUND.saturating_sub(began.elapsed());
                let event = tokio::time::timeout(left, events.try_next()).await;
                let event = event.map_err(|_| format!("{} volumes are not published", waits.len()))?;
                let event = event.map_err(|e| format!("the watch of the volumes broke: {e}"))?;
                let Some(WatchEvent::Added(volume) | WatchEvent::Modified(volume)) = event else { continue };
                let is_published = volume.status.as_ref().is_some_and(|status| status.mount_path.is_some());
                if is_published && waits.remove(&volume.name_any()) {
                    times.push(began.elapsed().as_secs_f64());
                }
            }
            Ok(times)
        })
    }

    fn write_foreign(&mut self) -> Result<f64, String> {
        let (volumes, began): (Api<LogicalVolume>, _) = (Api::all(self.client.clone()), Instant::now());
        let count = self.count;
        self.runtime.block_on(async {
            let written =
                stream::iter(0..FOREIGN).map(|number| {
                    let (volumes, name) = (&volumes, format!("v-{:05}", OWN + number % (count - OWN)));
                    let message = json!({"status": {"message": format!("written {number}")}});
                    async move {
                        volumes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&message)).await.map(drop)
                    }
                });
            let done: Result<(), kube::Error> = written.buffer_unordered(AT_ONCE).try_collect().await;
            done.map_err(|e| format!("cannot write a status: {e}"))
        })?;
        let took = began.elapsed().as_secs_f64();
        std::thread::sleep(STILL);
        Ok(took)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // After a failure, which is being told already.
            let _ = agent.kill().and_then(|()| agent.wait());
        }
    }
}

fn volume(name: &str, node: &str) -> Value {
    json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
           "spec": {"name": name, "nodeName": node, "size": "16Mi"}})
}

async fn create_all(client: &Client, objects: Vec<Value>) -> Result<(), String> {
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let created = stream::iter(objects).map(|object| {
        let volumes = &volumes;
        async move {
            let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            volumes.create(&PostParams::default(), &object).await.map(drop)
        }
    });
    let done: Result<(), kube::Error> = created.buffer_unordered(AT_ONCE).try_collect().await;
    done.map_err(|e| format!("cannot create a volume: {e}"))
}

/// An API with a node, the agent's pod and an account that may do everything, whose kubeconfig is put into the folder.
async fn serve(folder: &Path, asked: Arc<Mutex<Asked>>) -> Result<(ApiServer, Client), String> {
    let mut config = Config::in_memory(lvault_api::crds::all()).with_kinds(&[ClusterKind::Pod, ClusterKind::Node]);
    config.observer = Some(Arc::new(move |decision: &Decision| count(&asked, decision)));
    let server = ApiServer::open(config).await.map_err(|e| format!("cannot open the API: {e}"))?;
    let identity =
        Identity::load_or_create(&folder.join("tls")).map_err(|e| format!("cannot make certificates: {e}"))?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io("listening on loopback"))?;
    let address = listener.local_addr().map_err(io("listening on loopback"))?;
    let (serving, own) = (server.clone(), identity.clone());
    tokio::spawn(async move { serving.serve(listener, &own, std::future::pending()).await });
    let client = Client::new(server.service(), "default");
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "bench"});
    let subject = json!({"kind": "ServiceAccount", "name": "bench", "namespace": NAMESPACE});
    let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let paths = json!({"nonResourceURLs": ["*"], "verbs": ["get"]});
    let container = json!({"name": "lvault", "image": "lvault:1"});
    for (namespace, object) in [
        (None, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})),
        (None, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})),
        (Some(NAMESPACE), json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bench"}})),
        (
            Some(NAMESPACE),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent"},
                                 "spec": {"nodeName": NODE, "containers": [container]}}),
        ),
        (
            None,
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "bench"},
                      "rules": [everything, paths]}),
        ),
        (
            None,
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
                      "roleRef": role, "subjects": [subject]}),
        ),
    ] {
        let api = of_kind(&client, &object, namespace);
        let failed = |e: &dyn std::error::Error| format!("cannot create {}: {e}", object["kind"]);
        let object: DynamicObject = serde_json::from_value(object.clone()).map_err(|e| failed(&e))?;
        api.create(&PostParams::default(), &object).await.map_err(|e| failed(&e))?;
    }
    let accounts = of_kind(&client, &json!({"apiVersion": "v1", "kind": "ServiceAccount"}), Some(NAMESPACE));
    let asked = accounts.create_subresource("token", "bench", &PostParams::default(), &json!({})).await;
    let answer: Value = asked.map_err(|e| format!("cannot ask for a token: {e}"))?;
    let token = answer["status"]["token"].as_str().ok_or("there is no token in the answer")?;
    fs::write(folder.join("kubeconfig"), kubeconfig(address, identity.ca_pem(), token)).map_err(io("a kubeconfig"))?;
    Ok((server, client))
}

fn of_kind(client: &Client, object: &Value, namespace: Option<&str>) -> Api<DynamicObject> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn count(asked: &Mutex<Asked>, decision: &Decision) {
    if decision.user.name != ACCOUNT {
        return;
    }
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.all += 1;
    match (decision.asked.verb.as_str(), decision.asked.resource.as_str()) {
        ("get" | "list" | "watch", _) => {}
        (_, "logicalvolumes") => asked.volume_writes += 1,
        (_, _) => asked.other_writes += 1,
    }
}
