//! Objects that TopoLVM has left: they are taken over as they are, and their data stays.

use std::fs;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use lvault_api::LogicalVolume;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE, NODE, Times};

/// As TopoLVM's controller writes them: its label, its finalizer, its annotations, its fields, and none of lvault's.
fn as_topolvm_left_it(name: &str, spec: &Value) -> Value {
    let mut all = json!({"name": format!("pvc-{name}"), "nodeName": NODE, "size": "16Mi"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
        "metadata": {"name": name, "finalizers": ["topolvm.io/logicalvolume"],
                     "labels": {"app.kubernetes.io/created-by": "topolvm-controller"},
                     "annotations": {"topolvm.io/resize-requested-at": "2025-01-01T00:00:00Z"}},
        "spec": all})
}

/// TopoLVM's status of a volume that it has made.
fn has_status(cluster: &Cluster, name: &str) {
    let api: Api<LogicalVolume> = Api::all(cluster.client.clone());
    let status = json!({"volumeID": cluster.get(name).unwrap().metadata.uid, "code": 0, "currentSize": "16Mi"});
    let patch = Patch::Merge(json!({"status": status}));
    cluster.runtime.block_on(api.patch_status(name, &PatchParams::default(), &patch)).unwrap();
}

/// What the engine keeps of a volume of this uid, with a file in it, as if it had been there before lvault came.
fn has_data(cluster: &Cluster, template: &str, name: &str) {
    let uid = |name: &str| cluster.get(name).unwrap().metadata.uid.unwrap();
    let (from, to) = (uid(template), uid(name));
    let volumes = cluster.root.join("state/volumes");
    copy(&volumes.join(&from), &volumes.join(&to));
    let record = volumes.join(&to).join("meta.json");
    let text = fs::read_to_string(&record).unwrap().replace(&from, &to);
    fs::write(&record, text).unwrap();
    // The mark of being mounted is lvault's own.
    fs::remove_file(volumes.join(&to).join("attached")).unwrap();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), &target).unwrap()),
        }
    }
}

#[test]
fn volumes_of_topolvm_are_taken_over_with_their_data() {
    let mut cluster = Cluster::with(Times { unattended: "500ms", ..Times::default() });
    cluster.storage(NAMESPACE, "main");
    cluster.volume("template");
    cluster.terminate_agent();
    for (name, spec) in [
        ("old", json!({"deviceClass": "ssd"})),
        ("oldsnapshot", json!({"source": "old", "accessType": "ro"})),
        ("lost", json!({})),
    ] {
        cluster.create(&as_topolvm_left_it(name, &spec));
        has_status(&cluster, name);
        if name != "lost" {
            has_data(&cluster, "template", name);
        }
    }
    let before = cluster.get("old").unwrap();
    cluster.start_agent();

    // A copy of the old volume leaves the node.
    cluster.snapshot("s", "old", NAMESPACE, 3);
    cluster.succeeds("s");
    assert_eq!(cluster.committed("pvc-old"), 1);
    cluster.restore("r", "s");
    cluster.succeeds("r");
    let expected = vec![7; 100_000];
    assert_eq!(fs::read(cluster.mounted("r").join("file")).unwrap(), expected);

    // Nothing of what TopoLVM wrote was changed, and nobody says that there is no agent.
    let after = cluster.get("old").unwrap();
    assert_eq!(after.spec, before.spec);
    assert_eq!(after.metadata.labels, before.metadata.labels);
    assert_eq!(after.metadata.annotations, before.metadata.annotations);
    assert_eq!(after.metadata.finalizers, before.metadata.finalizers);
    let (then, now) = (before.status.unwrap(), after.status.clone().unwrap());
    assert_eq!((now.volume_id, now.current_size), (then.volume_id, then.current_size));
    assert_eq!(now.code, Some(0), "{:?}", after.status);
    assert_eq!(fs::read(std::path::Path::new(&now.mount_path.unwrap()).join("file")).unwrap(), expected);
    assert_eq!(cluster.condition("old", "NodeAvailable"), None);

    // A volume that is not there is never replaced by an empty one.
    let said = cluster.told("lost", "Problem");
    assert!(said.contains("is gone from its node"), "{said}");
    let lost = cluster.get("lost").unwrap().metadata.uid.unwrap();
    assert!(!cluster.root.join("state/volumes").join(lost).exists());

    // They go as TopoLVM's would.
    let volumes: Api<LogicalVolume> = Api::all(cluster.client.clone());
    for name in ["oldsnapshot", "old", "lost"] {
        cluster.runtime.block_on(volumes.delete(name, &DeleteParams::default())).unwrap();
        cluster.until("its agent removes it", || cluster.get(name).is_none().then_some(()));
    }
}
