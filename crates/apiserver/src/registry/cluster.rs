//! Kinds that a cluster has and a single host has not: registered where they are asked for, as tests do.
//!
//! Holds: schemas name what clients of these kinds look at; what is not named is kept as it came and not judged.

use serde_json::{Value, json};

use super::builtin::document;
use super::crd::{RegistryError, register as register_document};
use super::{Nature, Registry};

/// A kind that a server serves when it is asked to (see [`crate::Config::with_kinds`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterKind {
    /// `v1` ConfigMap.
    ConfigMap,
    /// `v1` Node.
    Node,
    /// `v1` PersistentVolume.
    PersistentVolume,
    /// `v1` PersistentVolumeClaim.
    PersistentVolumeClaim,
    /// `v1` Pod: deleted gracefully; nothing runs it.
    Pod,
    /// `snapshot.storage.k8s.io/v1` VolumeSnapshot.
    VolumeSnapshot,
    /// `snapshot.storage.k8s.io/v1` VolumeSnapshotClass.
    VolumeSnapshotClass,
    /// `snapshot.storage.k8s.io/v1` VolumeSnapshotContent.
    VolumeSnapshotContent,
}

impl ClusterKind {
    /// All of them.
    pub const ALL: [ClusterKind; 8] = [
        ClusterKind::ConfigMap,
        ClusterKind::Node,
        ClusterKind::PersistentVolume,
        ClusterKind::PersistentVolumeClaim,
        ClusterKind::Pod,
        ClusterKind::VolumeSnapshot,
        ClusterKind::VolumeSnapshotClass,
        ClusterKind::VolumeSnapshotContent,
    ];

    fn document(self) -> Value {
        match self {
            ClusterKind::ConfigMap => config_map(),
            ClusterKind::Node => node(),
            ClusterKind::PersistentVolume => volume(),
            ClusterKind::PersistentVolumeClaim => claim(),
            ClusterKind::Pod => pod(),
            ClusterKind::VolumeSnapshot => snapshot(),
            ClusterKind::VolumeSnapshotClass => snapshot_class(),
            ClusterKind::VolumeSnapshotContent => snapshot_content(),
        }
    }

    fn nature(self) -> Nature {
        match self {
            ClusterKind::ConfigMap
            | ClusterKind::Node
            | ClusterKind::PersistentVolume
            | ClusterKind::PersistentVolumeClaim
            | ClusterKind::Pod => Nature::Cluster(self),
            // These are CustomResourceDefinitions on a cluster, too.
            ClusterKind::VolumeSnapshot | ClusterKind::VolumeSnapshotClass | ClusterKind::VolumeSnapshotContent => {
                Nature::Custom
            }
        }
    }
}

/// Registers the kind.
pub(super) fn register(registry: &mut Registry, kind: ClusterKind) -> Result<(), RegistryError> {
    register_document(registry, &kind.document(), kind.nature()).map(drop)
}

fn text() -> Value {
    json!({"type": "string"})
}

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// An object of which only some fields are named.
fn open(properties: Value) -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": properties})
}

/// A list of such objects.
fn opens(properties: Value, required: &[&str]) -> Value {
    let mut items = open(properties);
    items["required"] = json!(required);
    json!({"type": "array", "items": items})
}

fn conditions() -> Value {
    opens(json!({"type": text(), "status": text(), "reason": text(), "message": text()}), &["type", "status"])
}

fn amounts() -> Value {
    json!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}})
}

fn fields(paths: &[&str]) -> Value {
    paths.iter().map(|path| json!({"jsonPath": path})).collect()
}

fn columns(declared: &[(&str, &str)]) -> Value {
    let declared = declared.iter().map(|(name, path)| json!({"name": name, "type": "string", "jsonPath": path}));
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    declared.chain([age]).collect()
}

fn with_status(about: &str, selectable: &Value, shown: &Value, properties: &Value, required: &[&str]) -> Value {
    json!({"subresources": {"status": {}}, "selectableFields": selectable, "additionalPrinterColumns": shown,
           "schema": {"openAPIV3Schema": {
               "type": "object", "description": about, "required": required, "properties": properties}}})
}

fn config_map() -> Value {
    let names = json!({"plural": "configmaps", "kind": "ConfigMap", "shortNames": ["cm"]});
    let map = |value: Value| json!({"type": "object", "additionalProperties": value});
    let version = json!({"schema": {"openAPIV3Schema": {
        "type": "object", "description": "ConfigMap holds configuration data for pods to consume.",
        "properties": {"data": map(text()), "binaryData": map(json!({"type": "string", "format": "byte"})),
                       "immutable": {"type": "boolean"}}}}});
    document("", &names, "Namespaced", &version)
}

fn node() -> Value {
    let names = json!({"plural": "nodes", "kind": "Node", "shortNames": ["no"]});
    let taints = opens(json!({"key": text(), "value": text(), "effect": text()}), &["key", "effect"]);
    let properties = json!({
        "spec": open(json!({"podCIDR": text(), "providerID": text(), "unschedulable": {"type": "boolean"}, "taints": taints})),
        "status": open(json!({
            "capacity": amounts(), "allocatable": amounts(), "conditions": conditions(),
            "addresses": opens(json!({"type": text(), "address": text()}), &["type", "address"]),
            "nodeInfo": open(json!({"kubeletVersion": text()}))}))});
    let shown = columns(&[("Version", ".status.nodeInfo.kubeletVersion")]);
    let about = "Node is a worker node in Kubernetes.";
    document("", &names, "Cluster", &with_status(about, &fields(&[".spec.unschedulable"]), &shown, &properties, &[]))
}

fn volume() -> Value {
    let names = json!({"plural": "persistentvolumes", "kind": "PersistentVolume", "shortNames": ["pv"]});
    let policies = ["Retain", "Recycle", "Delete"];
    let mut spec = open(json!({
        "capacity": amounts(), "accessModes": texts(), "storageClassName": text(), "claimRef": open(json!({})),
        "persistentVolumeReclaimPolicy": {"type": "string", "enum": policies, "default": "Retain"},
        "volumeMode": {"type": "string", "enum": ["Block", "Filesystem"], "default": "Filesystem"}}));
    spec["required"] = json!(["capacity", "accessModes"]);
    let properties =
        json!({"spec": spec, "status": open(json!({"phase": text(), "message": text(), "reason": text()}))});
    let shown = columns(&[
        ("Capacity", ".spec.capacity.storage"),
        ("Reclaim Policy", ".spec.persistentVolumeReclaimPolicy"),
        ("Status", ".status.phase"),
        ("Claim", ".spec.claimRef.name"),
        ("StorageClass", ".spec.storageClassName"),
    ]);
    let about = "PersistentVolume is a storage resource provisioned by an administrator.";
    document("", &names, "Cluster", &with_status(about, &json!([]), &shown, &properties, &["spec"]))
}

fn claim() -> Value {
    let names = json!({"plural": "persistentvolumeclaims", "kind": "PersistentVolumeClaim", "shortNames": ["pvc"]});
    let mut spec = open(json!({
        "accessModes": texts(), "storageClassName": text(), "volumeName": text(),
        "resources": open(json!({"requests": amounts(), "limits": amounts()})),
        "volumeMode": {"type": "string", "enum": ["Block", "Filesystem"], "default": "Filesystem"}}));
    spec["required"] = json!(["accessModes", "resources"]);
    let status = open(json!({"phase": text(), "capacity": amounts(), "conditions": conditions()}));
    let shown = columns(&[
        ("Status", ".status.phase"),
        ("Volume", ".spec.volumeName"),
        ("Capacity", ".status.capacity.storage"),
        ("StorageClass", ".spec.storageClassName"),
    ]);
    let about = "PersistentVolumeClaim is a user's request for and claim to a persistent volume.";
    let properties = json!({"spec": spec, "status": status});
    document("", &names, "Namespaced", &with_status(about, &json!([]), &shown, &properties, &["spec"]))
}

fn pod() -> Value {
    let names = json!({"plural": "pods", "kind": "Pod", "shortNames": ["po"], "categories": ["all"]});
    let container = || opens(json!({"name": text(), "image": text()}), &["name"]);
    let mut containers = container();
    containers["minItems"] = json!(1);
    let mut spec = open(json!({
        "containers": containers, "initContainers": container(), "volumes": opens(json!({"name": text()}), &["name"]),
        "nodeName": text(), "serviceAccountName": text(), "hostNetwork": {"type": "boolean"},
        "restartPolicy": {"type": "string", "enum": ["Always", "OnFailure", "Never"], "default": "Always"},
        "dnsPolicy": {"type": "string", "default": "ClusterFirst"},
        "schedulerName": {"type": "string", "default": "default-scheduler"},
        "terminationGracePeriodSeconds": {"type": "integer", "default": 30},
        "activeDeadlineSeconds": {"type": "integer"}}));
    spec["required"] = json!(["containers"]);
    let phases = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
    let status = open(json!({
        "phase": {"type": "string", "enum": phases}, "conditions": conditions(), "message": text(), "reason": text(),
        "hostIP": text(), "podIP": text(), "nominatedNodeName": text(), "startTime": time(),
        "containerStatuses": opens(json!({"name": text(), "ready": {"type": "boolean"}}), &["name"])}));
    let selectable = fields(&[
        ".spec.nodeName",
        ".spec.restartPolicy",
        ".spec.schedulerName",
        ".spec.serviceAccountName",
        ".spec.hostNetwork",
        ".status.phase",
        ".status.podIP",
        ".status.nominatedNodeName",
    ]);
    let shown = columns(&[("Status", ".status.phase"), ("Node", ".spec.nodeName")]);
    let about = "Pod is a collection of containers that can run on a host.";
    let properties = json!({"spec": spec, "status": status});
    document("", &names, "Namespaced", &with_status(about, &selectable, &shown, &properties, &["spec"]))
}

const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

/// Exactly one of two fields, and neither of them changes.
fn one_of(first: &str, second: &str) -> Value {
    let exactly = format!("has(self.{first}) != has(self.{second})");
    let kept = |field: &str| format!("!has(oldSelf.{field}) || (has(self.{field}) && self.{field} == oldSelf.{field})");
    json!({"type": "object", "properties": {first: text(), second: text()}, "x-kubernetes-validations": [
        {"rule": exactly, "message": format!("exactly one of {first} and {second} must be set")},
        {"rule": kept(first), "message": format!("{first} is immutable")},
        {"rule": kept(second), "message": format!("{second} is immutable")}]})
}

fn failure() -> Value {
    json!({"type": "object", "properties": {"message": text(), "time": time()}})
}

fn snapshot() -> Value {
    let names = json!({"plural": "volumesnapshots", "kind": "VolumeSnapshot", "shortNames": ["vs"]});
    let spec = json!({"type": "object", "required": ["source"], "properties": {
        "source": one_of("persistentVolumeClaimName", "volumeSnapshotContentName"),
        "volumeSnapshotClassName": text()}});
    let status = json!({"type": "object", "properties": {
        "boundVolumeSnapshotContentName": text(), "creationTime": time(), "readyToUse": {"type": "boolean"},
        "restoreSize": {"x-kubernetes-int-or-string": true}, "error": failure()}});
    let mut shown = columns(&[
        ("SourcePVC", ".spec.source.persistentVolumeClaimName"),
        ("RestoreSize", ".status.restoreSize"),
        ("SnapshotClass", ".spec.volumeSnapshotClassName"),
        ("SnapshotContent", ".status.boundVolumeSnapshotContentName"),
    ]);
    if let Some(columns) = shown.as_array_mut() {
        columns.insert(0, json!({"name": "ReadyToUse", "type": "boolean", "jsonPath": ".status.readyToUse"}));
    }
    let about = "VolumeSnapshot is a user's request for a snapshot of a volume, or for one that exists.";
    let properties = json!({"spec": spec, "status": status});
    document(SNAPSHOTS, &names, "Namespaced", &with_status(about, &json!([]), &shown, &properties, &["spec"]))
}

fn deletion_policy() -> Value {
    json!({"type": "string", "enum": ["Delete", "Retain"]})
}

fn snapshot_class() -> Value {
    let names = json!({"plural": "volumesnapshotclasses", "kind": "VolumeSnapshotClass",
                       "shortNames": ["vsclass", "vsclasses"]});
    let version = json!({
        "additionalPrinterColumns": columns(&[("Driver", ".driver"), ("DeletionPolicy", ".deletionPolicy")]),
        "schema": {"openAPIV3Schema": {
            "type": "object", "description": "VolumeSnapshotClass says how snapshots are made.",
            "required": ["driver", "deletionPolicy"],
            "properties": {"driver": text(), "deletionPolicy": deletion_policy(),
                           "parameters": {"type": "object", "additionalProperties": text()}}}}});
    document(SNAPSHOTS, &names, "Cluster", &version)
}

fn snapshot_content() -> Value {
    let names = json!({"plural": "volumesnapshotcontents", "kind": "VolumeSnapshotContent",
                       "shortNames": ["vsc", "vscs"]});
    let mut reference = open(json!({"name": text(), "namespace": text(), "uid": text()}));
    reference["x-kubernetes-validations"] = json!([
        {"rule": "has(self.name) && has(self.namespace)", "message": "both name and namespace must be set"}]);
    let spec = json!({"type": "object", "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
        "properties": {
            "deletionPolicy": deletion_policy(), "driver": text(), "sourceVolumeMode": text(),
            "source": one_of("snapshotHandle", "volumeHandle"),
            "volumeSnapshotClassName": text(), "volumeSnapshotRef": reference}});
    let status = json!({"type": "object", "properties": {
        "creationTime": {"type": "integer", "format": "int64"}, "readyToUse": {"type": "boolean"},
        "restoreSize": {"type": "integer", "format": "int64", "minimum": 0}, "snapshotHandle": text(),
        "error": failure()}});
    let shown = columns(&[
        ("DeletionPolicy", ".spec.deletionPolicy"),
        ("Driver", ".spec.driver"),
        ("VolumeSnapshot", ".spec.volumeSnapshotRef.name"),
    ]);
    let about = "VolumeSnapshotContent is a snapshot in the storage system.";
    let properties = json!({"spec": spec, "status": status});
    document(SNAPSHOTS, &names, "Cluster", &with_status(about, &json!([]), &shown, &properties, &["spec"]))
}
