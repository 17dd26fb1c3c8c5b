//! Executors as pods of a Kubernetes node, in the namespace of their storage, whose Secret the kubelet mounts for them.
//!
//! What holds here:
//! - A pod's name is made of the volume's uid, the job and the launch, so that creating it again finds it.
//! - A finalizer keeps an ended pod, whoever deletes it, until the agent has taken note of how it ended.
//! - A pod has ended when its kubelet says so. It is never taken away by force: where its node is silent, it may still run.
//! - What is seen is read from the API itself. The watch only wakes the agent.

mod manifest;
mod sight;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use lvault_api::keys;
use lvault_api::task::{Task, Work};
use lvault_core::{Executor, Job, Life, VolumeId};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::launcher::{Change, LaunchError, Launcher, Wake};
pub use manifest::PodSettings;
use sight::{Sight, sight};

/// How long one request may take before its outcome is unknown.
const ANSWER: Duration = Duration::from_secs(20);

/// Runs executors as pods.
pub struct PodLauncher {
    client: Client,
    settings: PodSettings,
    runtime: Handle,
    wake: Arc<Mutex<Option<Wake>>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// In which namespace the executors of each volume are.
    namespaces: HashMap<VolumeId, String>,
    /// One watch for each of these namespaces.
    watches: BTreeMap<String, JoinHandle<()>>,
    /// Since when each pod that has not begun has been seen, by uid.
    starting: HashMap<String, Instant>,
}

impl PodLauncher {
    /// A launcher that asks this API. To be made inside the runtime that it works on.
    pub fn new(client: Client, settings: PodSettings) -> Self {
        let runtime = Handle::current();
        PodLauncher { client, settings, runtime, wake: Arc::default(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits for an answer, on a thread that may block.
    fn ask<T>(&self, attempted: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, LaunchError> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(ANSWER, request).await });
        match answer {
            Ok(answer) => answer.map_err(|e| refused(attempted, e)),
            Err(_) => {
                Err(failed(attempted, io::ErrorKind::TimedOut, format!("no answer within {} s", ANSWER.as_secs())))
            }
        }
    }

    /// Every executor pod of a volume: those that have ended before those that run, older launches before newer ones.
    fn all(&self, id: &VolumeId) -> Result<Vec<(Sight, Pod)>, LaunchError> {
        // Objects that name no storage never have executors.
        let Some(namespace) = self.known().namespaces.get(id).cloned() else { return Ok(Vec::new()) };
        let api = self.api(&namespace);
        let params = ListParams::default().labels(&format!("{}={id}", keys::LABEL_UID));
        let attempted = format!("list the executor pods in namespace {namespace}");
        let pods = self.ask(&attempted, api.list(&params))?;
        let mut all: Vec<(Sight, Pod)> = pods.into_iter().filter_map(|pod| Some((sight(&pod)?, pod))).collect();
        all.sort_by_key(|(sight, _)| (sight.executor.life == Life::Alive, sight.executor.job));
        let mut known = self.known();
        for (sight, pod) in &all {
            let uid = pod.uid().unwrap_or_default();
            if sight.starting {
                known.starting.entry(uid).or_insert_with(Instant::now);
            } else {
                known.starting.remove(&uid);
            }
        }
        Ok(all)
    }

    fn is_late(&self, pod: &Pod) -> bool {
        let since = self.known().starting.get(&pod.uid().unwrap_or_default()).copied();
        since.is_some_and(|since| since.elapsed() >= self.settings.start_deadline)
    }

    /// A pod of the name that is wanted exists already: it is the one of an earlier try, or somebody else's.
    fn found(&self, api: &Api<Pod>, id: &VolumeId, job: Job, name: &str) -> Result<Change, LaunchError> {
        let attempted = format!("look at the pod {name}");
        let pod = self.ask(&attempted, api.get_opt(name))?;
        let Some(pod) = pod else {
            return Err(failed(&attempted, io::ErrorKind::Interrupted, "it is gone again".to_owned()));
        };
        let ours = pod.labels().get(keys::LABEL_UID).map(String::as_str) == Some(id.as_str());
        match sight(&pod) {
            Some(sight) if ours && sight.executor.job == job => Ok(Change::Unchanged),
            Some(_) | None => Err(LaunchError::Impossible(format!(
                "the pod {name} in namespace {} is not lvault's: delete it",
                pod.namespace().unwrap_or_default()
            ))),
        }
    }

    /// Notes why a pod is ended, then has it deleted; its finalizer keeps it.
    fn end(&self, sight: &Sight, pod: &Pod) -> Result<(), LaunchError> {
        let (name, api) = (pod.name_any(), self.api(&pod.namespace().unwrap_or_default()));
        let because = if sight.starting {
            format!("it did not start within {} s and was ended", self.settings.start_deadline.as_secs())
        } else {
            "it was not needed any more or its heartbeat had stopped, and it was ended".to_owned()
        };
        let attempted = format!("end the pod {name}");
        let note: Value = json!({"metadata": {"uid": pod.uid(), "annotations": {keys::ENDED_BECAUSE: because}}});
        self.ask(&attempted, gone_is_done(api.patch(&name, &PatchParams::default(), &Patch::Merge(&note))))?;
        self.ask(&attempted, gone_is_done(api.delete(&name, &this_one(pod))))
    }

    /// Removes an ended pod: the finalizer last, so that a crash in between leaves something that leads back here.
    fn remove(&self, pod: &Pod) -> Result<(), LaunchError> {
        let (name, api) = (pod.name_any(), self.api(&pod.namespace().unwrap_or_default()));
        let attempted = format!("remove the pod {name}");
        if pod.metadata.deletion_timestamp.is_none() {
            self.ask(&attempted, gone_is_done(api.delete(&name, &this_one(pod))))?;
        }
        let others: Vec<&String> = pod.finalizers().iter().filter(|name| *name != keys::POD_FINALIZER).collect();
        let patch: Value = json!({"metadata": {"uid": pod.uid(), "finalizers": others}});
        self.ask(&attempted, gone_is_done(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))))?;
        self.known().starting.remove(&pod.uid().unwrap_or_default());
        Ok(())
    }
}

impl Launcher for PodLauncher {
    fn locate(&self, id: &VolumeId, namespace: &str) {
        let mut known = self.known();
        if known.namespaces.get(id).is_some_and(|known| known == namespace) {
            return;
        }
        known.namespaces.insert(id.clone(), namespace.to_owned());
        if !known.watches.contains_key(namespace) {
            let (api, node) = (self.api(namespace), self.settings.node_name.clone());
            let watch = self.runtime.spawn(watch::watch(api, node, Arc::clone(&self.wake)));
            known.watches.insert(namespace.to_owned(), watch);
        }
    }

    fn forget(&self, id: &VolumeId) {
        self.known().namespaces.remove(id);
    }

    fn mounts_secrets(&self) -> bool {
        true
    }

    fn observe(&self, id: &VolumeId) -> Result<Option<Executor>, LaunchError> {
        Ok(self.all(id)?.pop().map(|(sight, _)| sight.executor))
    }

    fn is_starting(&self, id: &VolumeId) -> Result<bool, LaunchError> {
        let newest = self.all(id)?.pop();
        Ok(newest.is_some_and(|(sight, pod)| sight.starting && !self.is_late(&pod)))
    }

    fn ensure_launched(&self, id: &VolumeId, job: Job, task: &Task) -> Result<Change, LaunchError> {
        self.locate(id, &task.storage.namespace);
        if let Some((sight, _)) = self.all(id)?.pop() {
            return match sight.executor.job == job {
                true => Ok(Change::Unchanged),
                false => Err(LaunchError::Occupied(id.clone())),
            };
        }
        let pod = manifest::pod(&self.settings, id, job, task)?;
        let (namespace, api) = (&task.storage.namespace, self.api(&task.storage.namespace));
        let name = manifest::name(id, job, matches!(task.work, Work::Restore { .. }));
        let attempted = format!("create the executor pod {name} in namespace {namespace}");
        // The answer is looked at outside, where 409 means something.
        let created = self.ask(&attempted, async {
            match api.create(&PostParams::default(), &pod).await {
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 404 | 422) => {
                    Ok(Some(Err(status.message.clone())))
                }
                other => other.map(|_| Some(Ok(()))),
            }
        })?;
        match created {
            Some(Ok(())) => Ok(Change::Changed),
            // A namespace may be given its rights later, and a quota may be raised: it is tried until the start deadline.
            Some(Err(message)) => Err(failed(
                &attempted,
                io::ErrorKind::PermissionDenied,
                format!("{message}; was the namespace set up for storages (docs/kubernetes.md)?"),
            )),
            None => self.found(&api, id, job, &name),
        }
    }

    fn ensure_ended(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        let mut change = Change::Unchanged;
        for (sight, pod) in self.all(id)? {
            if sight.executor.life == Life::Alive && !sight.deleted {
                self.end(&sight, &pod)?;
                change = Change::Changed;
            }
        }
        Ok(change)
    }

    fn ensure_removed(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        let all = self.all(id)?;
        if all.iter().any(|(sight, _)| sight.executor.life == Life::Alive) {
            return Err(LaunchError::Occupied(id.clone()));
        }
        for (_, pod) in &all {
            self.remove(pod)?;
        }
        Ok(if all.is_empty() { Change::Unchanged } else { Change::Changed })
    }

    fn last_words(&self, id: &VolumeId) -> Option<String> {
        self.all(id).ok()?.pop().map(|(sight, _)| sight.words)
    }

    fn on_exit(&self, wake: Wake) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }
}

impl Drop for PodLauncher {
    fn drop(&mut self) {
        self.known().watches.values().for_each(JoinHandle::abort);
    }
}

/// Only this very pod, never another one that has taken its name.
fn this_one(pod: &Pod) -> DeleteParams {
    DeleteParams { preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }), ..Default::default() }
}

/// A pod that is gone, or another one by now, has been ended and removed.
async fn gone_is_done<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<()> {
    match request.await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

fn refused(attempted: &str, error: kube::Error) -> LaunchError {
    let denied = matches!(&error, kube::Error::Api(status) if status.code == 403);
    let kind = if denied { io::ErrorKind::PermissionDenied } else { io::ErrorKind::Other };
    let message = if let kube::Error::Api(status) = &error { status.message.clone() } else { error.to_string() };
    let remedy = if denied { "; was the namespace set up for storages (docs/kubernetes.md)?" } else { "" };
    failed(attempted, kind, format!("{message}{remedy}"))
}

fn failed(attempted: &str, kind: io::ErrorKind, message: String) -> LaunchError {
    LaunchError::Io { attempted: attempted.to_owned(), source: io::Error::new(kind, message) }
}
