//! The watch that wakes the agent when something happened to one of this node's executor pods. Nothing is decided here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use lvault_api::keys;
use lvault_core::VolumeId;
use tracing::debug;

use super::sight::{Sight, sight};
use crate::launcher::Wake;

/// Watches the executor pods of one node in one namespace, for ever.
pub(super) async fn watch(api: Api<Pod>, node: String, wake: Arc<Mutex<Option<Wake>>>) {
    let config = watcher::Config::default()
        .labels(&format!("{}=true", keys::LABEL_EXECUTOR))
        .fields(&format!("spec.nodeName={node}"));
    let mut events = watcher(api, config).boxed();
    let mut told: HashMap<String, Sight> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                let Some(sight) = sight(&pod) else { continue };
                let name = pod.name_any();
                if told.get(&name) != Some(&sight) {
                    told.insert(name, sight);
                    tell(&wake, &pod);
                }
            }
            Ok(Event::Delete(pod)) => {
                told.remove(&pod.name_any());
                tell(&wake, &pod);
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(problem) => {
                // The watcher tries again by itself. Without it the agent still looks every few seconds.
                debug!("the watch on executor pods was interrupted: {problem}");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

fn tell(wake: &Mutex<Option<Wake>>, pod: &Pod) {
    let Some(Ok(id)) = pod.labels().get(keys::LABEL_UID).map(|uid| VolumeId::parse(uid)) else { return };
    if let Some(wake) = wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        wake(id);
    }
}
