//! A kubelet: it starts the pods of one node as processes, says how they are, and lets go of them when they have ended.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::process::command;

/// What the node does to its pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mood {
    /// Programs are stopped before their first instruction.
    pub(crate) gate: bool,
    /// No image can be pulled.
    pub(crate) no_images: bool,
    /// Pods are refused for want of memory.
    pub(crate) full: bool,
    /// What the next program that is killed is said to have died of.
    pub(crate) killed_by: Option<&'static str>,
}

/// A node's kubelet, as long as it is not dropped.
pub(crate) struct Kubelet {
    pub(crate) mood: Arc<Mutex<Mood>>,
    /// How many programs it has started.
    pub(crate) started: Arc<Mutex<usize>>,
    programs: Arc<Mutex<HashMap<String, Program>>>,
    task: tokio::task::JoinHandle<()>,
}

struct Program {
    child: Child,
    folder: PathBuf,
}

struct Node {
    name: String,
    client: Client,
    root: PathBuf,
    kubeconfig: PathBuf,
    mood: Arc<Mutex<Mood>>,
    started: Arc<Mutex<usize>>,
    programs: Arc<Mutex<HashMap<String, Program>>>,
}

impl Kubelet {
    /// The kubelet of a node. `kubeconfig` is what the ServiceAccount of every executor shows to the API.
    pub(crate) fn start(name: &str, client: Client, root: &Path, kubeconfig: &Path) -> Kubelet {
        let (mood, started, programs) = <(Arc<Mutex<Mood>>, _, Arc<Mutex<HashMap<_, _>>>)>::default();
        let node = Node {
            name: name.to_owned(),
            client,
            root: root.join("pods"),
            kubeconfig: kubeconfig.to_owned(),
            mood: Arc::clone(&mood),
            started: Arc::clone(&started),
            programs: Arc::clone(&programs),
        };
        let task = tokio::spawn(async move {
            loop {
                node.pass().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Kubelet { mood, started, programs, task }
    }

    /// Changes what it does to pods.
    pub(crate) fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.mood.lock().unwrap());
    }

    /// Lets the program of a pod begin that stands at the gate.
    pub(crate) fn go_on(&self, pod: &Pod) {
        self.signal(pod, rustix::process::Signal::CONT);
    }

    /// Kills the program of a pod.
    pub(crate) fn kill(&self, pod: &Pod) {
        self.signal(pod, rustix::process::Signal::KILL);
    }

    fn signal(&self, pod: &Pod, signal: rustix::process::Signal) {
        let programs = self.programs.lock().unwrap();
        let program = programs.get(&pod.uid().unwrap()).expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(&program.child), signal).unwrap();
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
        for program in self.programs.lock().unwrap().values_mut() {
            let _ = program.child.kill();
            let _ = program.child.wait();
        }
    }
}

impl Node {
    async fn pass(&self) {
        let api: Api<Pod> = Api::all(self.client.clone());
        let own = ListParams::default().fields(&format!("spec.nodeName={}", self.name));
        // The server is gone when the test ends.
        let Ok(pods) = api.list(&own).await else { return };
        for pod in pods.into_iter().filter(|pod| pod.labels().contains_key("topolvm.io/snapshot-pod")) {
            self.look_at(&pod).await;
        }
    }

    async fn look_at(&self, pod: &Pod) {
        let uid = pod.uid().unwrap();
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            return self.let_go(pod).await;
        }
        let mood = self.mood.lock().unwrap().clone();
        let ended = self.programs.lock().unwrap().get_mut(&uid).map(|program| program.child.try_wait().unwrap());
        match ended {
            None if pod.metadata.deletion_timestamp.is_some() => self.say(pod, json!({"phase": "Failed"})).await,
            None if mood.full => {
                let status = json!({"phase": "Failed", "reason": "OutOfmemory", "message": "Node didn't have enough resource: memory"});
                self.say(pod, status).await;
            }
            None if mood.no_images => self.waiting(pod, "ImagePullBackOff", "Back-off pulling image").await,
            None => self.begin(pod, mood.gate).await,
            Some(None) if pod.metadata.deletion_timestamp.is_some() => {
                if let Some(program) = self.programs.lock().unwrap().get_mut(&uid) {
                    program.child.kill().unwrap();
                }
            }
            Some(None) => {}
            Some(Some(status)) => {
                let program = self.programs.lock().unwrap().remove(&uid).unwrap();
                self.ended(pod, status, &program.folder).await;
            }
        }
    }

    /// Starts the program of a pod, once its Secret is there.
    async fn begin(&self, pod: &Pod, gate: bool) {
        let (uid, namespace) = (pod.uid().unwrap(), pod.namespace().unwrap());
        let spec = pod.spec.clone().unwrap();
        let container = spec.containers.first().unwrap();
        let folder = self.root.join(&uid);
        let mut mounted = HashMap::new();
        for volume in spec.volumes.into_iter().flatten() {
            let at = container.volume_mounts.iter().flatten().find(|mount| mount.name == volume.name).unwrap();
            let to = folder.join(&volume.name);
            if let Some(secret) = volume.secret {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
                let Ok(secret) = api.get(&secret.secret_name.unwrap()).await else {
                    return self.waiting(pod, "ContainerCreating", "").await;
                };
                fs::create_dir_all(&to).unwrap();
                for (key, value) in secret.data.unwrap_or_default() {
                    fs::write(to.join(key), value.0).unwrap();
                }
                mounted.insert(at.mount_path.clone(), to);
            } else if let Some(host) = volume.host_path {
                assert_eq!(host.path, at.mount_path, "a process sees the host's paths");
                assert!(Path::new(&host.path).is_dir(), "{} is mounted and is not there", host.path);
            } else {
                fs::create_dir_all(&to).unwrap();
                mounted.insert(at.mount_path.clone(), to);
            }
        }
        let child = self.spawn(container, &folder, &mounted, gate);
        self.programs.lock().unwrap().insert(uid, Program { child, folder });
        *self.started.lock().unwrap() += 1;
        self.say(pod, json!({"phase": "Running", "containerStatuses": container_status(&json!({"running": {}}))}))
            .await;
    }

    fn spawn(&self, container: &Container, folder: &Path, mounted: &HashMap<String, PathBuf>, gate: bool) -> Child {
        let log = File::create(folder.join("log")).unwrap();
        // Whoever waits at the gate is stopped until it is told to go on.
        let script = if gate { "kill -STOP $$; exec \"$@\"" } else { "exec \"$@\"" };
        let mut program = command("sh");
        program.args(["-c", script, "pod", env!("CARGO_BIN_EXE_lvault")]).args(container.args.iter().flatten());
        for variable in container.env.iter().flatten() {
            let value = variable.value.clone().unwrap();
            match mounted.get(&value) {
                Some(folder) => program.env(&variable.name, folder),
                None => program.env(&variable.name, value),
            };
        }
        program.env("KUBECONFIG", &self.kubeconfig).env("LVAULT_LOG", "info").current_dir("/");
        program.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("an executor")
    }

    async fn ended(&self, pod: &Pod, status: ExitStatus, folder: &Path) {
        let killed_by = self.mood.lock().unwrap().killed_by.take();
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let usual = if status.success() { "Completed" } else { "Error" };
        let mut terminated = json!({"exitCode": code, "reason": killed_by.unwrap_or(usual)});
        if !status.success() {
            terminated["message"] = json!(log);
        }
        let phase = if status.success() { "Succeeded" } else { "Failed" };
        let mut said =
            json!({"phase": phase, "containerStatuses": container_status(&json!({"terminated": terminated}))});
        if killed_by == Some("Evicted") {
            said["reason"] = json!("Evicted");
            said["message"] = json!("The node was low on resource: memory.");
        }
        self.say(pod, said).await;
    }

    /// What has ended and was deleted goes; a finalizer may keep it.
    async fn let_go(&self, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap());
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = api
            .delete(
                &pod.name_any(),
                &at_once.preconditions(kube::api::Preconditions { uid: pod.uid(), resource_version: None }),
            )
            .await;
    }

    async fn waiting(&self, pod: &Pod, reason: &str, message: &str) {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        self.say(pod, json!({"phase": "Pending", "containerStatuses": container_status(&state)})).await;
    }

    async fn say(&self, pod: &Pod, status: Value) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap());
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        // It may be gone meanwhile.
        let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    }
}

fn container_status(state: &Value) -> Value {
    json!([{"name": "executor", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}
