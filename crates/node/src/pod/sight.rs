//! What a pod says of the executor in it. No I/O.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, Pod};
use lvault_api::keys;
use lvault_core::{Attempt, Executor, Job, Launch, Life};

/// A pod as the executor it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// Its job, and whether it runs.
    pub(super) executor: Executor,
    /// Its program has not begun.
    pub(super) starting: bool,
    /// Somebody has deleted it; it may still run.
    pub(super) deleted: bool,
    /// How it ended, or what it waits for; for people.
    pub(super) words: String,
}

/// Reads a pod. `None` for one that is no executor's.
///
/// It has ended when the kubelet says so, and not before: a pod that is deleted, on a node that nobody hears of, may
/// still run. One that no node was ever given has nowhere to run.
pub(super) fn sight(pod: &Pod) -> Option<Sight> {
    let job = job(pod)?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let deleted = pod.metadata.deletion_timestamp.is_some();
    let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let ended = matches!(phase, "Succeeded" | "Failed") || (deleted && !bound);
    let life = if ended { Life::Ended } else { Life::Alive };
    let starting = !ended && phase == "Pending";
    Some(Sight { executor: Executor { job, life }, starting, deleted, words: words(pod, phase) })
}

fn job(pod: &Pod) -> Option<Job> {
    let labels = pod.metadata.labels.as_ref()?;
    if labels.get(keys::LABEL_OPERATION)? == "delete" {
        return Some(Job::Forget);
    }
    let attempt = Attempt::new(labels.get(keys::LABEL_ATTEMPT)?.parse().ok()?)?;
    let launch = Launch::new(labels.get(keys::LABEL_LAUNCH)?.parse().ok()?)?;
    Some(Job::Copy { attempt, launch })
}

/// The pod's own reasons, the most telling first.
fn words(pod: &Pod, phase: &str) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let mut parts = Vec::new();
    parts.extend(pod.metadata.annotations.as_ref().and_then(|all| all.get(keys::ENDED_BECAUSE)).cloned());
    if let Some(status) = &pod.status {
        parts.extend(said(status.reason.as_deref(), status.message.as_deref()));
        for condition in status.conditions.iter().flatten() {
            let tells = match condition.type_.as_str() {
                "DisruptionTarget" => condition.status == "True",
                "PodScheduled" => condition.status == "False",
                _ => false,
            };
            if tells {
                parts.extend(said(condition.reason.as_deref(), condition.message.as_deref()));
            }
        }
        let states = status.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref());
        for state in states {
            parts.extend(state.terminated.as_ref().and_then(terminated));
            parts.extend(state.waiting.as_ref().and_then(waiting));
        }
    }
    if parts.is_empty() && pod.metadata.deletion_timestamp.is_some() {
        parts.push("it was deleted".to_owned());
    }
    parts.dedup();
    if parts.is_empty() { format!("pod {name}: {phase}") } else { format!("pod {name}: {}", parts.join("; ")) }
}

fn said(reason: Option<&str>, message: Option<&str>) -> Option<String> {
    let filled = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(shortened);
    match (filled(reason), filled(message)) {
        (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
        (Some(text), None) | (None, Some(text)) => Some(text),
        (None, None) => None,
    }
}

fn terminated(state: &ContainerStateTerminated) -> Option<String> {
    let how = match (state.signal, state.exit_code) {
        (Some(signal), _) if signal != 0 => format!("signal {signal}"),
        (_, 0) => return None,
        (_, code) => format!("exit code {code}"),
    };
    let reason = state.reason.as_deref().filter(|reason| *reason != "Error").map(|reason| format!("{reason} "));
    let last = state.message.as_deref().and_then(|text| text.lines().map(str::trim).rfind(|line| !line.is_empty()));
    said(Some(&format!("{}{how}", reason.unwrap_or_default())), last)
}

fn waiting(state: &ContainerStateWaiting) -> Option<String> {
    said(state.reason.as_deref(), state.message.as_deref())
}

/// At most 400 characters: a status is no place for a log.
fn shortened(text: &str) -> String {
    text.chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(metadata: Value, status: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "backup-u-2-1", "labels": {
                keys::LABEL_OPERATION: "backup", keys::LABEL_ATTEMPT: "2", keys::LABEL_LAUNCH: "1"}},
            "spec": {"nodeName": "n", "containers": []},
            "status": status,
        });
        if let (Some(all), Some(more)) = (pod["metadata"].as_object_mut(), metadata.as_object()) {
            all.extend(more.clone());
        }
        serde_json::from_value(pod).expect("a pod")
    }

    fn container(state: Value) -> Value {
        let restarts = json!({"name": "executor", "image": "i", "imageID": "", "ready": false, "restartCount": 0});
        let mut status = restarts;
        status["state"] = state;
        json!([status])
    }

    #[test]
    fn every_end_of_a_pod_is_told_in_its_own_words() {
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let pulling = container(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
        let killed = container(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        let refused = container(json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "a\nERROR b\n"}}));
        let good = container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        let drained = json!({"phase": "Failed", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}]});
        let nowhere = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]});
        for (metadata, status, life, starting, words) in [
            (json!({}), json!({}), Life::Alive, true, "Pending"),
            (json!({}), nowhere, Life::Alive, true, "Unschedulable: no node"),
            (
                json!({}),
                json!({"phase": "Pending", "containerStatuses": pulling}),
                Life::Alive,
                true,
                "ImagePullBackOff: no such image",
            ),
            (json!({}), json!({"phase": "Running"}), Life::Alive, false, "Running"),
            // Whether the node has ended it is not known.
            (deleted.clone(), json!({"phase": "Running"}), Life::Alive, false, "it was deleted"),
            (json!({}), json!({"phase": "Unknown"}), Life::Alive, false, "Unknown"),
            (deleted, json!({"phase": "Failed"}), Life::Ended, false, "it was deleted"),
            (json!({}), evicted, Life::Ended, false, "Evicted: low on memory"),
            (json!({}), drained, Life::Ended, false, "EvictionByEvictionAPI: drained"),
            (
                json!({}),
                json!({"phase": "Failed", "containerStatuses": killed}),
                Life::Ended,
                false,
                "OOMKilled exit code 137",
            ),
            (
                json!({}),
                json!({"phase": "Failed", "containerStatuses": refused}),
                Life::Ended,
                false,
                "exit code 1: ERROR b",
            ),
            (json!({}), json!({"phase": "Succeeded", "containerStatuses": good}), Life::Ended, false, "Succeeded"),
        ] {
            let seen = sight(&pod(metadata, status.clone())).expect("an executor's");
            assert_eq!((seen.executor.life, seen.starting), (life, starting), "{status}");
            assert_eq!(seen.words, format!("pod backup-u-2-1: {words}"));
        }
    }

    #[test]
    fn a_pod_that_no_node_was_given_ends_when_it_is_deleted() {
        let mut pod = pod(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({"phase": "Pending"}));
        pod.spec = None;
        assert_eq!(sight(&pod).expect("an executor's").executor.life, Life::Ended);
    }

    #[test]
    fn a_pod_without_our_labels_is_no_executor() {
        assert_eq!(sight(&Pod::default()), None);
    }
}
