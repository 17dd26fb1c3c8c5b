//! What the kinds of clusters do beyond their schemas.
//!
//! Holds: a pod is deleted gracefully: marked with the time it is given, and gone when whoever runs it says that it has
//! ended (DELETE with a grace period of 0).

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Writing;
use crate::metadata;
use crate::names;
use crate::refusal::Cause;
use crate::registry::ClusterKind;
use crate::sources::seconds;
use crate::store::Key;

/// Completes a new object: the status it begins with.
pub(crate) fn complete_new(kind: ClusterKind, object: &mut Value) {
    match kind {
        ClusterKind::Pod | ClusterKind::PersistentVolume | ClusterKind::PersistentVolumeClaim => {
            object["status"] = json!({"phase": "Pending"});
        }
        // A kubelet registers its node with what it knows already.
        ClusterKind::Node
        | ClusterKind::ConfigMap
        | ClusterKind::VolumeSnapshot
        | ClusterKind::VolumeSnapshotClass
        | ClusterKind::VolumeSnapshotContent => {}
    }
}

/// What is wrong beyond the schema.
pub(crate) fn faults(kind: ClusterKind, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match kind {
        ClusterKind::Pod => pod_faults(object, old),
        ClusterKind::PersistentVolume => volume_faults(object, old),
        ClusterKind::PersistentVolumeClaim => claim_faults(object, old),
        ClusterKind::ConfigMap => super::kinds::secret_faults(object, old),
        ClusterKind::Node
        | ClusterKind::VolumeSnapshot
        | ClusterKind::VolumeSnapshotClass
        | ClusterKind::VolumeSnapshotContent => Vec::new(),
    }
}

fn pod_faults(pod: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for field in ["containers", "initContainers"] {
        for (index, container) in pod["spec"][field].as_array().into_iter().flatten().enumerate() {
            let name = container["name"].as_str().unwrap_or_default();
            let at = format!("spec.{field}[{index}].name");
            if let Err(why) = names::label(name) {
                causes.push(Cause::invalid(at, &container["name"], &why));
            } else if seen.contains(&name) {
                causes.push(Cause::duplicate(at, &container["name"]));
            } else {
                seen.push(name);
            }
        }
    }
    if old.is_some_and(|old| fixed_of_pod(old) != fixed_of_pod(pod)) {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,\
                      `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                      existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                      previously negative)";
        causes.push(Cause::forbidden("spec", detail));
    }
    causes
}

/// The part of a pod's spec that never changes.
fn fixed_of_pod(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for field in ["containers", "initContainers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        spec[field] = Value::Null;
    }
    spec
}

/// Fields of a volume's spec that are no source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn volume_faults(volume: &Value, old: Option<&Value>) -> Vec<Cause> {
    let source = |volume: &Value| {
        let fields = volume["spec"].as_object().cloned().unwrap_or_default().into_iter();
        fields.filter(|(name, _)| !NOT_SOURCES.contains(&name.as_str())).collect::<Vec<_>>()
    };
    let own = source(volume);
    match (own.as_slice(), old) {
        ([], _) => vec![Cause::required("spec", "must specify a volume type")],
        ([_, second, ..], _) => {
            vec![Cause::forbidden(format!("spec.{}", second.0), "may not specify more than 1 volume type")]
        }
        (_, Some(old)) if source(old) != own => {
            let detail = "spec.persistentvolumesource is immutable after creation";
            vec![Cause::forbidden("spec.persistentvolumesource", detail)]
        }
        (_, _) => Vec::new(),
    }
}

fn claim_faults(claim: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if claim["spec"]["resources"]["requests"]["storage"].is_null() {
        causes.push(Cause::required("spec.resources[storage]", ""));
    }
    let fixed = |claim: &Value, binds: bool| {
        let mut spec = claim["spec"].clone();
        spec["resources"]["requests"] = Value::Null;
        if binds {
            spec["volumeName"] = Value::Null;
        }
        spec
    };
    if let Some(old) = old {
        let binds = old["spec"]["volumeName"].as_str().unwrap_or_default().is_empty();
        if fixed(old, binds) != fixed(claim, binds) {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                          bound claims";
            causes.push(Cause::forbidden("spec", detail));
        }
    }
    causes
}

/// How long a pod gets to end, of which nothing was said yet.
fn grace_of(pod: &Value, asked: Option<i64>) -> i64 {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let is_nowhere = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    if is_nowhere || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let period = asked.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    if period < 0 { 1 } else { period }
}

fn after(time: Timestamp, period: i64) -> String {
    seconds(time.checked_add(SignedDuration::from_secs(period)).unwrap_or(Timestamp::MAX))
}

impl Writing<'_, '_, '_> {
    /// Marks a pod as being deleted, shortens the time it has, or removes it.
    pub(super) fn erase_pod(&mut self, key: &Key, mut pod: Value, asked: Option<i64>) {
        let period = match (metadata::is_deleting(&pod), metadata::of(&pod)["deletionGracePeriodSeconds"].as_i64()) {
            (true, Some(before)) => match asked {
                // The time once given is only ever made shorter.
                Some(period) if period < before => {
                    let until = metadata::text(&pod, "deletionTimestamp").parse::<Timestamp>().unwrap_or(self.now);
                    metadata::set(&mut pod, "deletionTimestamp", json!(after(until, period.max(0) - before)));
                    period.max(0)
                }
                Some(_) | None => return,
            },
            (true, None) => 0,
            (false, _) => {
                let period = grace_of(&pod, asked);
                metadata::set(&mut pod, "deletionTimestamp", json!(after(self.now, period)));
                period
            }
        };
        metadata::set(&mut pod, "deletionGracePeriodSeconds", json!(period));
        if period > 0 || !metadata::finalizers(&pod).is_empty() {
            self.tx.put(key.clone(), pod);
        } else {
            self.tx.remove(key.clone(), pod);
        }
    }
}
