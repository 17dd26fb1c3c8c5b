//! The room of a node, as annotations of its Node object, for whoever chooses a node for a new volume; and as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use lvault_api::keys;
use lvault_engines::ClassReport;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use crate::health::Room;

/// How long to wait after a write that did not work.
const AGAIN: Duration = Duration::from_secs(10);

/// Keeps the annotations of every device class and of the default one true, for ever, from what the agent publishes (see
/// [`Agent::publishing`](crate::Agent::publishing)). They are written when the room has changed; those of classes that are
/// no more are taken away. What cannot be written is tried again.
pub async fn publish_capacity(client: Client, node_name: String, mut room: watch::Receiver<Option<Room>>) {
    let api: Api<Node> = Api::all(client);
    let (mut there, mut cleaned) = (BTreeMap::new(), false);
    loop {
        let wanted = room.borrow_and_update().as_ref().map(annotations);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != there) {
            let gone = there.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
            let written = wanted.iter().map(|(key, value)| (key.clone(), json!(value)));
            let annotations: serde_json::Map<String, Value> = gone.chain(written).collect();
            let patch = json!({"metadata": {"annotations": annotations}});
            match api.patch(&node_name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                // The answer also shows what an earlier agent has left.
                Ok(node) => {
                    let ours = |key: &&String| key.starts_with(keys::CAPACITY_PREFIX);
                    let all = node.annotations().iter().filter(|(key, _)| ours(key));
                    there = all.map(|(key, value)| (key.clone(), value.clone())).collect();
                    // Once: whoever writes them too is not fought with.
                    if there != wanted && !std::mem::replace(&mut cleaned, true) {
                        continue;
                    }
                }
                Err(problem) => {
                    warn!("cannot write the capacity of node {node_name}: {problem}");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
        }
        cleaned = false;
        if room.changed().await.is_err() {
            // The agent has ended, and so will whoever waits for this.
            return std::future::pending().await;
        }
    }
}

/// What stands on the Node.
fn annotations(room: &Room) -> BTreeMap<String, String> {
    let key = |class: &str| format!("{}{class}", keys::CAPACITY_PREFIX);
    let mut all: BTreeMap<String, String> =
        room.classes.iter().map(|class| (key(&class.name), class.available.0.to_string())).collect();
    let default = match room.classes.iter().find(|class| class.default) {
        Some(class) => Some(class.available),
        None if room.classes.is_empty() => Some(room.capacity.available),
        None => None,
    };
    all.extend(default.map(|available| (key(keys::DEFAULT_CLASS), available.0.to_string())));
    all
}

/// The room of a node as Prometheus reads it, in TopoLVM's names. `problems` is ours: how much is wrong with a class.
pub fn metrics(room: &Room, node: &str) -> String {
    type Of = fn(&ClassReport) -> Option<f64>;
    let of_classes: [(&str, &str, Of); 7] = [
        ("topolvm_volumegroup_available_bytes", "What the volume group has left for volumes", |class| {
            Some(if class.pool.is_some() { class.volume_group_free } else { class.available }.0 as f64)
        }),
        ("topolvm_volumegroup_size_bytes", "The size of the volume group", |class| {
            Some(class.volume_group_size.0 as f64)
        }),
        ("topolvm_thinpool_data_percent", "How much of the thin pool's data is in use", |class| {
            class.pool.as_ref()?.data_percent
        }),
        ("topolvm_thinpool_metadata_percent", "How much of the thin pool's metadata is in use", |class| {
            class.pool.as_ref()?.metadata_percent
        }),
        ("topolvm_thinpool_size_bytes", "The size of the thin pool", |class| Some(class.pool.as_ref()?.size.0 as f64)),
        ("topolvm_thinpool_overprovisioned_available", "What the thin pool may still promise, in bytes", |class| {
            Some(class.pool.as_ref()?.overprovisioned_available.0 as f64)
        }),
        ("lvault_device_class_problems", "How many things are wrong with the device class", |class| {
            Some(class.problems.len() as f64)
        }),
    ];
    let mut text = String::new();
    let mut add = |name: &str, help: &str, rows: Vec<(&str, f64)>| {
        if !rows.is_empty() {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        }
        for (class, value) in rows {
            text.push_str(&format!("{name}{{node=\"{node}\",device_class=\"{class}\"}} {value}\n"));
        }
    };
    if room.classes.is_empty() {
        let row = |value: lvault_core::Bytes| vec![(keys::DEFAULT_CLASS, value.0 as f64)];
        add(
            "topolvm_volumegroup_available_bytes",
            "The largest new volume that would be accepted now",
            row(room.capacity.available),
        );
        add("topolvm_volumegroup_size_bytes", "All the room there is", row(room.capacity.total));
    }
    for (name, help, value) in of_classes {
        add(name, help, room.classes.iter().filter_map(|class| Some((class.name.as_str(), value(class)?))).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use lvault_core::Bytes;
    use lvault_engines::{Capacity, PoolReport, Problem, ProblemKind};

    fn class(name: &str, default: bool, available: u64) -> ClassReport {
        ClassReport {
            name: name.to_owned(),
            default,
            volume_group: "vg".to_owned(),
            volume_group_size: Bytes(1000),
            volume_group_free: Bytes(100),
            available: Bytes(available),
            pool: None,
            problems: Vec::new(),
        }
    }

    fn room(classes: Vec<ClassReport>) -> Room {
        Room { capacity: Capacity { total: Bytes(9), available: Bytes(7) }, classes }
    }

    #[test]
    fn every_class_is_annotated_and_the_default_one_twice() {
        let said = |classes| annotations(&room(classes)).into_iter().collect::<Vec<_>>();
        let row = |key: &str, value: &str| (format!("capacity.topolvm.io/{key}"), value.to_owned());
        assert_eq!(said(vec![]), [row("00default", "7")]);
        assert_eq!(
            said(vec![class("ssd", false, 5), class("hdd", true, 3)]),
            [row("00default", "3"), row("hdd", "3"), row("ssd", "5")]
        );
        assert_eq!(said(vec![class("ssd", false, 5)]), [row("ssd", "5")], "without a default there is none");
    }

    #[test]
    fn metrics_have_the_names_and_labels_of_topolvm() {
        let pool = PoolReport {
            name: "pool".to_owned(),
            size: Bytes(500),
            data_percent: Some(12.5),
            metadata_percent: None,
            overprovisioned_available: Bytes(800),
        };
        let problems = vec![Problem { kind: ProblemKind::PoolNearlyFull, message: String::new() }];
        let thin = ClassReport { pool: Some(pool), problems, ..class("thin", false, 800) };
        let text = metrics(&room(vec![class("thick", true, 90), thin]), "n1");
        let rows: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            rows,
            [
                "topolvm_volumegroup_available_bytes{node=\"n1\",device_class=\"thick\"} 90",
                "topolvm_volumegroup_available_bytes{node=\"n1\",device_class=\"thin\"} 100",
                "topolvm_volumegroup_size_bytes{node=\"n1\",device_class=\"thick\"} 1000",
                "topolvm_volumegroup_size_bytes{node=\"n1\",device_class=\"thin\"} 1000",
                "topolvm_thinpool_data_percent{node=\"n1\",device_class=\"thin\"} 12.5",
                "topolvm_thinpool_size_bytes{node=\"n1\",device_class=\"thin\"} 500",
                "topolvm_thinpool_overprovisioned_available{node=\"n1\",device_class=\"thin\"} 800",
                "lvault_device_class_problems{node=\"n1\",device_class=\"thick\"} 0",
                "lvault_device_class_problems{node=\"n1\",device_class=\"thin\"} 1",
            ]
        );
        assert!(text.contains("# TYPE topolvm_thinpool_data_percent gauge\n"), "{text}");
        let plain = metrics(&room(vec![]), "n1");
        assert!(
            plain.contains("topolvm_volumegroup_size_bytes{node=\"n1\",device_class=\"00default\"} 9\n"),
            "{plain}"
        );
    }
}
