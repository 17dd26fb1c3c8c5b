//! The LogicalVolume resource, and its reading as something that can be done.

#![allow(clippy::duplicated_attributes, reason = "every printcolumn repeats its keys")]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use lvault_core::{Attempt, Bytes, VolumeId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{TransferStatus, parse_size};

/// A volume on one node, or a snapshot of one.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "topolvm.io",
    version = "v1",
    kind = "LogicalVolume",
    plural = "logicalvolumes",
    shortname = "lv",
    status = "LogicalVolumeStatus",
    derive = "PartialEq",
    doc = "LogicalVolume is a volume on one node, or a snapshot of one.",
    selectable = ".spec.nodeName",
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.onlineSnapshot.progress.percentage"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source", priority = 1),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.deviceClass", priority = 1),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".status.onlineSnapshot.snapshotID", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct LogicalVolumeSpec {
    /// The volume's name for people and in repository paths.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The node that holds the volume.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
    /// How large the volume is. It can grow and never shrinks.
    pub size: Quantity,
    /// The device class that holds the volume; the default one where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// Options for making the logical volume (LVM only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lvcreate_option_class: Option<String>,
    /// The LogicalVolume that this one is a snapshot or clone of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `ro` for a snapshot, `rw` for a clone or a restored volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_type: Option<AccessType>,
    /// The filesystem of a new volume; the engine's default where empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// Copy this snapshot off the node while the application keeps running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_snapshot: Option<OnlineSnapshotSpec>,
    /// Fill this volume from a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreSpec>,
}

/// How a snapshot may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessType {
    /// Read only.
    Ro,
    /// Read and write: a clone.
    Rw,
}

/// The filesystem of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// The fourth extended filesystem, at least 32Mi.
    Ext4,
    /// XFS, at least 300Mi.
    Xfs,
    /// btrfs, at least 200Mi.
    Btrfs,
}

/// Where a snapshot is copied to, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OnlineSnapshotSpec {
    /// The SnapshotBackupStorage that holds the repository.
    pub storage: StorageReference,
    /// Whether files or blocks are copied.
    #[serde(default)]
    pub content: Content,
    /// Which try this is. Raise it to try a failed snapshot again.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// How many executors may be lost before the attempt fails.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub backoff_limit: i32,
    /// Keep the local snapshot after the copy succeeded.
    #[serde(default)]
    pub keep_local_snapshot: bool,
    /// Whether deleting this object removes its snapshot from the repository.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// What becomes of the copy when something of the volume cannot be read.
    #[serde(default)]
    pub on_read_error: OnReadError,
}

/// What becomes of a copy when something of the volume cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnReadError {
    /// It fails, and the repository gets no snapshot.
    #[default]
    Fail,
    /// It succeeds without that, and the condition `Incomplete` says what is missing.
    Skip,
}

/// What is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Content {
    /// Files where the volume has a filesystem, blocks where it has none.
    #[default]
    Auto,
    /// Files, with all their metadata.
    Filesystem,
    /// The blocks of the device.
    Block,
}

/// What becomes of a repository's snapshot when its object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is removed with the object.
    #[default]
    Delete,
    /// It stays.
    Retain,
}

/// What a volume is filled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreSpec {
    /// The SnapshotBackupStorage that holds the repository.
    pub storage: StorageReference,
    /// The repository's path inside the storage, such as `default/data`.
    #[schemars(length(min = 1))]
    pub path: String,
    /// The id of the repository's snapshot, whole or at least 8 characters of it.
    #[serde(rename = "snapshotID")]
    #[schemars(regex(pattern = r"^[0-9a-f]{8,64}$"))]
    pub snapshot_id: String,
    /// Which try this is. Raise it to try a failed restore again.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// How many executors may be lost before the attempt fails.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub backoff_limit: i32,
}

/// Names a SnapshotBackupStorage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StorageReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace.
    #[serde(default = "default_namespace")]
    #[schemars(length(max = 63))]
    pub namespace: String,
}

impl std::fmt::Display for StorageReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is known of a LogicalVolume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogicalVolumeStatus {
    /// The engine's name of the volume. It stands here once the volume can be used, and not before.
    #[serde(default, rename = "volumeID", skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// The gRPC code of the last operation on the volume; 0 is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// What went wrong with the volume last, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The real size of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_size: Option<Quantity>,
    /// Where the volume is mounted on its node, when the node keeps it mounted for programs of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
    /// In one word where the object stands; a summary of the fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Conditions, as the Kubernetes API conventions want them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The state of the copy off the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online_snapshot: Option<TransferStatus>,
    /// The state of the filling from a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<TransferStatus>,
}

fn one() -> i32 {
    1
}

fn three() -> i32 {
    3
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// Why a spec cannot be carried out, whatever happens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSpec {
    /// The field, as a path.
    pub field: &'static str,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

/// A spec that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// The engine's name of the volume: the object's uid.
    pub id: VolumeId,
    /// The size asked for.
    pub size: Bytes,
    /// The filesystem asked for.
    pub filesystem: Option<Filesystem>,
    /// What the object is for.
    pub wanted: Wanted,
}

/// What a LogicalVolume is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// A volume of its own.
    Volume,
    /// A snapshot or clone that stays on the node.
    LocalSnapshot {
        /// The LogicalVolume it is cut from.
        source: String,
        /// How it may be used.
        access: AccessType,
    },
    /// A snapshot that is copied off the node.
    OnlineSnapshot {
        /// The LogicalVolume it is cut from.
        source: String,
        /// Where it is copied to.
        online: OnlineSnapshotSpec,
        /// The attempt the user asks for.
        attempt: Attempt,
    },
    /// A volume filled from a repository.
    Restore {
        /// What it is filled from.
        restore: RestoreSpec,
        /// The attempt the user asks for.
        attempt: Attempt,
    },
}

/// Reads a LogicalVolume's metadata and spec. The API server has checked the schema; this checks what fields mean
/// together, and says it by field.
pub fn validate(volume: &LogicalVolume) -> Result<Validated, InvalidSpec> {
    let invalid = |field, problem: String| InvalidSpec { field, problem };
    let spec = &volume.spec;
    let uid = volume.metadata.uid.as_deref().unwrap_or_default();
    let id = VolumeId::parse(uid).map_err(|e| invalid("metadata.uid", e.to_string()))?;
    check_name(&spec.name).map_err(|problem| invalid("spec.name", problem))?;
    if let Some(source) = &spec.source {
        check_name(source).map_err(|problem| invalid("spec.source", problem))?;
    }
    let size = parse_size(&spec.size.0).map_err(|e| invalid("spec.size", e.to_string()))?;
    let wanted = match (&spec.source, &spec.online_snapshot, &spec.restore) {
        (None, None, None) => Wanted::Volume,
        (Some(source), None, None) => {
            Wanted::LocalSnapshot { source: source.clone(), access: spec.access_type.unwrap_or(AccessType::Ro) }
        }
        (Some(source), Some(online), None) => {
            let attempt = attempt("spec.onlineSnapshot.attempt", online.attempt)?;
            check_storage(&online.storage).map_err(|problem| invalid("spec.onlineSnapshot.storage", problem))?;
            if online.content == Content::Block {
                let problem = "copying blocks is not supported yet: use Filesystem or Auto".to_owned();
                return Err(invalid("spec.onlineSnapshot.content", problem));
            }
            if spec.access_type == Some(AccessType::Rw) {
                let problem = "an online snapshot is read-only: leave it out or write ro".to_owned();
                return Err(invalid("spec.accessType", problem));
            }
            Wanted::OnlineSnapshot { source: source.clone(), online: online.clone(), attempt }
        }
        (None, None, Some(restore)) => {
            let attempt = attempt("spec.restore.attempt", restore.attempt)?;
            check_storage(&restore.storage).map_err(|problem| invalid("spec.restore.storage", problem))?;
            check_path(&restore.path).map_err(|problem| invalid("spec.restore.path", problem))?;
            check_snapshot_id(&restore.snapshot_id).map_err(|problem| invalid("spec.restore.snapshotID", problem))?;
            Wanted::Restore { restore: restore.clone(), attempt }
        }
        (None, Some(_), _) => {
            return Err(invalid("spec.source", "an online snapshot needs the volume it is cut from".to_owned()));
        }
        (Some(_), _, Some(_)) => {
            let problem = "a volume is filled from a source or from a repository, not from both".to_owned();
            return Err(invalid("spec.restore", problem));
        }
    };
    Ok(Validated { id, size, filesystem: spec.filesystem, wanted })
}

fn attempt(field: &'static str, number: i32) -> Result<Attempt, InvalidSpec> {
    let attempt = u32::try_from(number).ok().and_then(Attempt::new);
    attempt.ok_or_else(|| InvalidSpec { field, problem: format!("{number} is no attempt: they count from 1") })
}

/// A storage of another kind of name does not exist, and asking for it gets no answer that says so.
fn check_storage(storage: &StorageReference) -> Result<(), String> {
    check_name(&storage.name)?;
    check_name(&storage.namespace)
}

/// The name stands in repository paths, so it is as plain as the names of Kubernetes objects (RFC 1123 subdomain).
fn check_name(name: &str) -> Result<(), String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let part = |part: &str| edge(part.chars().next()) && edge(part.chars().last());
    if name.len() <= 253 && name.chars().all(inside) && name.split('.').all(part) {
        Ok(())
    } else {
        Err(format!("'{name}' is no name: write at most 253 of the characters a-z, 0-9, '-' and '.', such as data-1"))
    }
}

/// A repository's path is relative, of plain parts, and cannot leave its storage.
fn check_path(path: &str) -> Result<(), String> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0', '\n']);
    if path.split('/').all(plain) {
        Ok(())
    } else {
        Err(format!("'{path}' is no repository path: write parts divided by '/', none of them empty, '.' or '..'"))
    }
}

/// An id that is empty or short would stand for whatever snapshot happens to fit.
fn check_snapshot_id(id: &str) -> Result<(), String> {
    if (8..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
        Ok(())
    } else {
        Err(format!(
            "'{id}' is no snapshot id: write 8 to 64 of the characters 0-9 and a-f, as `lvault snapshot list` shows"
        ))
    }
}

/// Where the snapshots of a volume stand inside a storage: one repository for each source volume. A claim's namespace
/// and name stand in annotations where Kubernetes made the volume; elsewhere it is `default` and the volume's name.
pub fn repository_path(source: &LogicalVolume) -> String {
    let annotation = |key: &str| source.metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    let namespace = annotation("topolvm.io/claim-namespace").unwrap_or_else(default_namespace);
    let name = annotation("topolvm.io/claim-name").unwrap_or_else(|| source.spec.name.clone());
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(change: Value, expected: Result<&str, &str>) {
        let mut object = json!({
            "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
            "metadata": {"name": "v", "uid": "7b1f0c1e-9a0e-4f5e-8d55-0a3f0b6c1d2e"},
            "spec": {"name": "v", "nodeName": "n", "size": "1Gi"},
        });
        for (key, value) in change.as_object().expect("an object of spec fields") {
            object["spec"][key] = value.clone();
        }
        let volume: LogicalVolume = serde_json::from_value(object).expect("a LogicalVolume");
        match (validate(&volume), expected) {
            (Ok(validated), Ok(wanted)) => {
                assert!(format!("{:?}", validated.wanted).starts_with(wanted), "{change}: {validated:?}");
            }
            (Err(error), Err(field)) => assert_eq!(error.field, field, "{change}: {error}"),
            (got, _) => panic!("{change}: expected {expected:?}, got {got:?}"),
        }
    }

    #[test]
    fn a_spec_is_one_of_four_things_or_is_refused_by_field() {
        let storage = json!({"name": "s"});
        let id = "0123456789abcdef";
        check(json!({}), Ok("Volume"));
        check(json!({"source": "data"}), Ok("LocalSnapshot"));
        check(json!({"source": "data", "onlineSnapshot": {"storage": storage}}), Ok("OnlineSnapshot"));
        check(json!({"restore": {"storage": storage, "path": "default/d", "snapshotID": id}}), Ok("Restore"));

        for name in ["", "A", "a/b", "..", "-a", "a..b", "a.-b", "a b"] {
            check(json!({"name": name}), Err("spec.name"));
        }
        for name in ["", " ", "a/b", "A", "../x"] {
            let wrong = json!({"name": name});
            check(json!({"source": name}), Err("spec.source"));
            check(json!({"source": "d", "onlineSnapshot": {"storage": wrong}}), Err("spec.onlineSnapshot.storage"));
            let restore = json!({"storage": {"name": "s", "namespace": name}, "path": "p", "snapshotID": id});
            check(json!({"restore": restore}), Err("spec.restore.storage"));
        }
        check(json!({"size": "0"}), Err("spec.size"));
        check(json!({"size": "-1Gi"}), Err("spec.size"));
        check(json!({"size": "many"}), Err("spec.size"));
        check(json!({"onlineSnapshot": {"storage": storage}}), Err("spec.source"));
        check(
            json!({"source": "d", "restore": {"storage": storage, "path": "p", "snapshotID": id}}),
            Err("spec.restore"),
        );
        check(
            json!({"source": "d", "onlineSnapshot": {"storage": storage, "attempt": 0}}),
            Err("spec.onlineSnapshot.attempt"),
        );
        check(
            json!({"source": "d", "onlineSnapshot": {"storage": storage, "content": "Block"}}),
            Err("spec.onlineSnapshot.content"),
        );
        check(
            json!({"source": "d", "accessType": "rw", "onlineSnapshot": {"storage": storage}}),
            Err("spec.accessType"),
        );
        for path in ["", "/a", "a/", "a//b", "../a", "a/..", ".", "a\\b"] {
            check(json!({"restore": {"storage": storage, "path": path, "snapshotID": id}}), Err("spec.restore.path"));
        }
        for id in ["", "latest", "0123", "0123456G", &"a".repeat(65)] {
            check(
                json!({"restore": {"storage": storage, "path": "p", "snapshotID": id}}),
                Err("spec.restore.snapshotID"),
            );
        }
    }
}
