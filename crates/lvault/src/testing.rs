//! Objects for unit tests, built as they come from the API.

use lvault_api::{LogicalVolume, SnapshotBackupStorage};
use serde_json::{Value, json};

fn object(name: &str, spec: Value, status: Value) -> LogicalVolume {
    let mut whole = json!({"name": name, "nodeName": "n1", "size": "1Gi"});
    whole.as_object_mut().expect("fields").extend(spec.as_object().expect("fields").clone());
    serde_json::from_value(json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2030-01-01T00:00:00Z",
            "generation": 1},
        "spec": whole, "status": status,
    }))
    .expect("a LogicalVolume")
}

pub(crate) fn volume(status: Value) -> LogicalVolume {
    object("v1", json!({}), status)
}

pub(crate) fn snapshot(status: Value) -> LogicalVolume {
    object("s1", json!({"source": "v1", "accessType": "ro", "onlineSnapshot": {"storage": {"name": "backup"}}}), status)
}

pub(crate) fn restore(status: Value) -> LogicalVolume {
    let spec =
        json!({"restore": {"storage": {"name": "backup"}, "path": "default/v1", "snapshotID": "0123456789abcdef"}});
    object("r1", spec, status)
}

pub(crate) fn storage(status: Value) -> SnapshotBackupStorage {
    serde_json::from_value(json!({
        "apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage",
        "metadata": {"name": "backup", "namespace": "default", "generation": 1,
            "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"storage": {"provider": "local", "local": {"path": "/srv/backup"}}},
        "status": status,
    }))
    .expect("a storage")
}
