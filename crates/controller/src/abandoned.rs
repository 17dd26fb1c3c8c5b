//! What nobody takes down any more: objects of a node that is gone for good, and executors whose object is gone.
//!
//! Only the agent of a node takes a volume's finalizer off, because only it knows what is left of the volume. Where there is no
//! node any more, a person says so with a label, and the controller does it.
//!
//! What holds here: no volume is released unless it is being deleted, carries the label, and its Node object does not exist; no
//! executor unless it has ended, or its node is gone, and its object does not exist; a read that failed is no answer. Every
//! write names what was read.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use lvault_api::{LogicalVolume, keys};
use serde_json::{Value, json};

use crate::api::{Answer, ask, resource};

/// Label of a LogicalVolume: whoever sets it to `true` says that its node is gone for good, with all that is on it.
pub const ABANDONED: &str = "lvault.io/abandoned";

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Releases abandoned objects and executors, for ever; looks for them with every `interval`. Idempotent: a crash in the middle
/// leaves what leads back here.
pub async fn release_abandoned(client: Client, interval: Duration) {
    loop {
        release_volumes(&client).await;
        release_orphans(&client).await;
        tokio::time::sleep(interval).await;
    }
}

async fn release_volumes(client: &Client) {
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let labelled = ListParams::default().labels(&format!("{ABANDONED}=true"));
    match done(ask(LIMIT, volumes.list(&labelled)).await) {
        Ok(found) => {
            for volume in found.items.iter().filter(|volume| volume.metadata.deletion_timestamp.is_some()) {
                if let Err(problem) = release(client, volume).await {
                    tracing::warn!(volume = volume.name_any(), "not released: {problem}");
                }
            }
        }
        Err(problem) => tracing::warn!("cannot list abandoned volumes: {problem}"),
    }
}

/// Executors are in the namespaces of storages. One whose object was removed by force has no agent that lets it go.
async fn release_orphans(client: &Client) {
    let storages: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let found = match done(ask(LIMIT, storages.list(&ListParams::default())).await) {
        Ok(found) => found,
        Err(problem) => return tracing::warn!("cannot list the storages to look for executors there: {problem}"),
    };
    let namespaces: BTreeSet<String> = found.items.iter().filter_map(ResourceExt::namespace).collect();
    for namespace in namespaces {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let executors = ListParams::default().labels(&format!("{}=true", keys::LABEL_EXECUTOR));
        match done(ask(LIMIT, pods.list(&executors)).await) {
            Ok(found) => {
                for pod in found.items.iter().filter(|pod| is_held(pod)) {
                    if let Err(problem) = release_orphan(client, &pods, pod).await {
                        tracing::debug!(pod = pod.name_any(), "not released: {problem}");
                    }
                }
            }
            // A namespace that is not set up for storages has no executors.
            Err(problem) => tracing::debug!("cannot list the executors in namespace {namespace}: {problem}"),
        }
    }
}

async fn release_orphan(client: &Client, pods: &Api<Pod>, pod: &Pod) -> Result<(), String> {
    let Some(owner) = pod.owner_references().iter().find(|owner| owner.kind == "LogicalVolume") else { return Ok(()) };
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let object = done(ask(LIMIT, volumes.get_opt(&owner.name)).await)?;
    if object.is_some_and(|object| object.metadata.uid.as_deref() == Some(owner.uid.as_str())) {
        return Ok(());
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if !matches!(phase, "Succeeded" | "Failed") {
        let nodes: Api<Node> = Api::all(client.clone());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        if done(ask(LIMIT, nodes.get_opt(&node)).await)?.is_some() {
            // Its kubelet says when it has ended.
            return Ok(());
        }
    }
    let_go(pods, pod).await?;
    tracing::info!(pod = pod.name_any(), "released: its LogicalVolume is gone");
    Ok(())
}

async fn release(client: &Client, volume: &LogicalVolume) -> Result<(), String> {
    let (name, node) = (volume.name_any(), &volume.spec.node_name);
    let nodes: Api<Node> = Api::all(client.clone());
    let found = done(ask(LIMIT, nodes.get_opt(node)).await);
    if found.map_err(|problem| format!("nobody knows whether its node {node} exists: {problem}"))?.is_some() {
        return Err(format!("its node {node} exists: the agent there removes it"));
    }
    release_pods(client, volume).await?;
    let others: Vec<&String> = volume.finalizers().iter().filter(|name| *name != keys::FINALIZER).collect();
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let patch = finalizers(&volume.metadata.uid, volume.resource_version(), &others);
    done(ask(LIMIT, volumes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await)?;
    tracing::info!(volume = name, node, "released: its node is gone, and so is its data");
    Ok(())
}

/// The executors that were on that node: whoever collects dead pods can take them then.
async fn release_pods(client: &Client, volume: &LogicalVolume) -> Result<(), String> {
    let spec = &volume.spec;
    let online = spec.online_snapshot.as_ref().map(|online| &online.storage);
    let Some(storage) = online.or(spec.restore.as_ref().map(|restore| &restore.storage)) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &storage.namespace);
    let own = ListParams::default().labels(&format!("{}={}", keys::LABEL_UID, volume.uid().unwrap_or_default()));
    let found =
        done(ask(LIMIT, pods.list(&own)).await).map_err(|problem| format!("cannot list its executors: {problem}"))?;
    for pod in found.items.iter().filter(|pod| is_held(pod)) {
        let_go(&pods, pod)
            .await
            .map_err(|problem| format!("cannot release its executor {}: {problem}", pod.name_any()))?;
    }
    Ok(())
}

/// Whether an executor waits until somebody has noted how it ended.
fn is_held(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|name| name == keys::POD_FINALIZER)
}

async fn let_go(pods: &Api<Pod>, pod: &Pod) -> Result<(), String> {
    let others: Vec<&String> = pod.finalizers().iter().filter(|name| *name != keys::POD_FINALIZER).collect();
    let patch = finalizers(&pod.metadata.uid, pod.resource_version(), &others);
    done(ask(LIMIT, pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch))).await).map(drop)
}

fn finalizers(uid: &Option<String>, version: Option<String>, left: &[&String]) -> Value {
    json!({"metadata": {"uid": uid, "resourceVersion": version, "finalizers": left}})
}

/// What was answered, or why there is no answer; what is not there or has changed is looked at again next time.
pub(crate) fn done<T>(answer: Answer<T>) -> Result<T, String> {
    match answer {
        Answer::Done(value) => Ok(value),
        Answer::NotFound => Err("it is not there any more".to_owned()),
        Answer::Conflict => Err("somebody has written meanwhile".to_owned()),
        Answer::Refused(error) => Err(error.to_string()),
        Answer::Unknown(problem) => Err(problem),
    }
}
