//! The room of a node, as annotations of its Node object, for whoever chooses a node for a new volume.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use lvault_api::keys;
use lvault_engines::VolumeEngine;
use serde_json::json;
use tracing::warn;

/// Keeps the annotation of the default device class true, for ever. It is written when the room has changed, and looked
/// at with every `interval`. What cannot be written is tried again with the next one.
pub async fn publish_capacity(client: Client, node_name: String, engine: Arc<dyn VolumeEngine>, interval: Duration) {
    let api: Api<Node> = Api::all(client);
    let key = format!("{}{}", keys::CAPACITY_PREFIX, keys::DEFAULT_CLASS);
    let mut written = None;
    loop {
        let asked = Arc::clone(&engine);
        match tokio::task::spawn_blocking(move || asked.capacity()).await {
            Ok(Ok(capacity)) if written != Some(capacity.available) => {
                let patch = json!({"metadata": {"annotations": {&key: capacity.available.0.to_string()}}});
                match api.patch(&node_name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                    Ok(_) => written = Some(capacity.available),
                    Err(problem) => warn!("cannot write the capacity of node {node_name}: {problem}"),
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(problem)) => warn!("cannot find out the capacity of this node: {problem}"),
            Err(ended) => warn!("finding out the capacity of this node ended unexpectedly: {ended}"),
        }
        tokio::time::sleep(interval).await;
    }
}
