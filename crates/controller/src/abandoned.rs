//! Objects of a node that is gone for good. Only the agent of a node takes a volume's finalizer off, because only it knows
//! what is left of the volume. Where there is no node any more, a person says so with a label, and the controller does it.
//!
//! What holds here: nothing is released unless it is being deleted, carries the label, and its Node object does not exist; a
//! read that failed is no answer. Every write names what was read.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use lvault_api::{LogicalVolume, keys};
use serde_json::{Value, json};

use crate::api::{Answer, ask};

/// Label of a LogicalVolume: whoever sets it to `true` says that its node is gone for good, with all that is on it.
pub const ABANDONED: &str = "lvault.io/abandoned";

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Releases abandoned objects, for ever; looks for them with every `interval`. Idempotent: a crash in the middle leaves the
/// object, which leads back here.
pub async fn release_abandoned(client: Client, interval: Duration) {
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let labelled = ListParams::default().labels(&format!("{ABANDONED}=true"));
    loop {
        match ask(LIMIT, volumes.list(&labelled)).await {
            Answer::Done(found) => {
                for volume in found.items.iter().filter(|volume| volume.metadata.deletion_timestamp.is_some()) {
                    if let Err(problem) = release(&client, volume).await {
                        tracing::warn!(volume = volume.name_any(), "not released: {problem}");
                    }
                }
            }
            Answer::NotFound | Answer::Conflict => {}
            Answer::Refused(error) => tracing::warn!("cannot list abandoned volumes: {error}"),
            Answer::Unknown(problem) => tracing::debug!("cannot list abandoned volumes: {problem}"),
        }
        tokio::time::sleep(interval).await;
    }
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
    for pod in found.items.iter().filter(|pod| pod.finalizers().iter().any(|name| name == keys::POD_FINALIZER)) {
        let others: Vec<&String> = pod.finalizers().iter().filter(|name| *name != keys::POD_FINALIZER).collect();
        let patch = finalizers(&pod.metadata.uid, pod.resource_version(), &others);
        let (name, params) = (pod.name_any(), PatchParams::default());
        let released = done(ask(LIMIT, pods.patch(&name, &params, &Patch::Merge(&patch))).await);
        released.map_err(|problem| format!("cannot release its executor {name}: {problem}"))?;
    }
    Ok(())
}

fn finalizers(uid: &Option<String>, version: Option<String>, left: &[&String]) -> Value {
    json!({"metadata": {"uid": uid, "resourceVersion": version, "finalizers": left}})
}

/// What was answered, or why there is no answer; what is not there or has changed is looked at again next time.
fn done<T>(answer: Answer<T>) -> Result<T, String> {
    match answer {
        Answer::Done(value) => Ok(value),
        Answer::NotFound => Err("it is not there any more".to_owned()),
        Answer::Conflict => Err("somebody has written meanwhile".to_owned()),
        Answer::Refused(error) => Err(error.to_string()),
        Answer::Unknown(problem) => Err(problem),
    }
}
