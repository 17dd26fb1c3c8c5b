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
    match ask(LIMIT, nodes.get_opt(node)).await {
        Answer::Done(None) => {}
        Answer::Done(Some(_)) => return Err(format!("its node {node} exists: the agent there removes it")),
        other => return Err(format!("nobody knows whether its node {node} exists: {}", said(other))),
    }
    release_pods(client, volume).await?;
    let others: Vec<&String> = volume.finalizers().iter().filter(|name| *name != keys::FINALIZER).collect();
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let patch = finalizers(&volume.metadata.uid, volume.resource_version(), &others);
    match ask(LIMIT, volumes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await {
        Answer::Done(_) | Answer::NotFound => {
            tracing::info!(volume = name, node, "released: its node is gone, and so is its data");
            Ok(())
        }
        other => Err(said(other)),
    }
}

/// The executors that were on that node: whoever collects dead pods can take them then.
async fn release_pods(client: &Client, volume: &LogicalVolume) -> Result<(), String> {
    let spec = &volume.spec;
    let online = spec.online_snapshot.as_ref().map(|online| &online.storage);
    let Some(storage) = online.or(spec.restore.as_ref().map(|restore| &restore.storage)) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &storage.namespace);
    let own = ListParams::default().labels(&format!("{}={}", keys::LABEL_UID, volume.uid().unwrap_or_default()));
    let found = match ask(LIMIT, pods.list(&own)).await {
        Answer::Done(found) => found.items,
        other => return Err(format!("cannot list its executors: {}", said(other))),
    };
    for pod in found.iter().filter(|pod| pod.finalizers().iter().any(|name| name == keys::POD_FINALIZER)) {
        let others: Vec<&String> = pod.finalizers().iter().filter(|name| *name != keys::POD_FINALIZER).collect();
        let patch = finalizers(&pod.metadata.uid, pod.resource_version(), &others);
        let (name, params) = (pod.name_any(), PatchParams::default());
        match ask(LIMIT, pods.patch(&name, &params, &Patch::Merge(&patch))).await {
            Answer::Done(_) | Answer::NotFound => {}
            other => return Err(format!("cannot release its executor {name}: {}", said(other))),
        }
    }
    Ok(())
}

fn finalizers(uid: &Option<String>, version: Option<String>, left: &[&String]) -> Value {
    json!({"metadata": {"uid": uid, "resourceVersion": version, "finalizers": left}})
}

fn said<T>(answer: Answer<T>) -> String {
    match answer {
        Answer::Done(_) => "done".to_owned(),
        Answer::NotFound => "it is not there".to_owned(),
        Answer::Conflict => "somebody has written meanwhile".to_owned(),
        Answer::Refused(error) => error.to_string(),
        Answer::Unknown(problem) => problem,
    }
}
