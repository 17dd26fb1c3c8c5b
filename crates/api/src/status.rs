//! How a status is written: as the difference between what was read and what is to stand there.

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::conditions::{self, Said};
use crate::{LogicalVolume, LogicalVolumeStatus, Phase, TransferStatus};

/// The JSON merge patch that turns the status of `current` into `next`, or `None` when they are the same.
///
/// It carries the `resourceVersion` that `current` was read at, so the API server refuses it (409) when anybody has
/// written since: a compare-and-swap. It names only what differs, so it never wipes another writer's field.
pub fn patch(current: &LogicalVolume, next: &LogicalVolumeStatus) -> Option<Value> {
    let old = current.status.as_ref().and_then(|status| serde_json::to_value(status).ok()).unwrap_or(json!({}));
    let new = serde_json::to_value(next).unwrap_or(Value::Null);
    let difference = difference(&old, &new)?;
    Some(json!({
        "metadata": {"resourceVersion": current.resource_version(), "uid": current.uid()},
        "status": difference,
    }))
}

/// The merge patch (RFC 7396) from `old` to `new`, or `None` when they are equal.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return if old == new { None } else { Some(new.clone()) };
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => {
                if let Some(change) = difference(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    if patch.is_empty() { None } else { Some(Value::Object(patch)) }
}

/// Brings the summaries (phase, conditions) in line with the facts that stand in the same status.
pub fn summarise(volume: &LogicalVolume, status: &mut LogicalVolumeStatus, now: Timestamp) {
    let generation = volume.metadata.generation;
    let usable = status.volume_id.is_some();
    let mut said = Vec::new();
    if let Some(online) = &status.online_snapshot {
        said.push(complete(conditions::SNAPSHOT_COMPLETE, online));
        let told = status.conditions.iter().any(|condition| condition.type_ == conditions::INCOMPLETE);
        said.extend(incomplete(online, told));
    }
    if let Some(restore) = &status.restore {
        said.push(complete(conditions::RESTORE_COMPLETE, restore));
    }
    if volume.spec.online_snapshot.is_none() {
        let failing = status.code.unwrap_or(0) != 0;
        let reason = match (usable, failing) {
            (true, false) => "Published",
            (true, true) => "PublishedWithProblem",
            (false, true) => "Problem",
            (false, false) => "InProgress",
        };
        let message = status.message.clone().unwrap_or_default();
        said.push(Said { kind: conditions::READY, holds: usable, reason: reason.to_owned(), message });
    }
    // Whoever writes this works for the object; that nobody does was said before.
    if status.conditions.iter().any(|condition| condition.type_ == conditions::NODE_AVAILABLE) {
        let (reason, message) = ("AgentWorks".to_owned(), String::new());
        said.push(Said { kind: conditions::NODE_AVAILABLE, holds: true, reason, message });
    }
    for said in said {
        conditions::set(&mut status.conditions, said, generation, now);
    }
    status.phase = Some(phase(volume, status).to_owned());
}

fn complete(kind: &'static str, transfer: &TransferStatus) -> Said {
    let reason = match (transfer.phase, &transfer.error) {
        (Phase::Pending, _) => "Pending".to_owned(),
        (Phase::Running, _) => "Running".to_owned(),
        (Phase::Succeeded, _) => "Succeeded".to_owned(),
        (Phase::Failed, Some(error)) => error.code.clone(),
        (Phase::Failed, None) => "Failed".to_owned(),
    };
    let message = match (&transfer.error, &transfer.message) {
        (Some(error), _) if transfer.phase == Phase::Failed => error.message.clone(),
        (_, Some(message)) => message.clone(),
        (_, None) => String::new(),
    };
    Said { kind, holds: transfer.phase == Phase::Succeeded, reason, message }
}

/// What is missing; where nothing is, that is said only to take back what was said before.
fn incomplete(transfer: &TransferStatus, told: bool) -> Option<Said> {
    let kind = conditions::INCOMPLETE;
    let said = |holds, reason: &str, message| Said { kind, holds, reason: reason.to_owned(), message };
    match &transfer.incomplete {
        Some(missing) => {
            let more = missing.count.saturating_sub(i64::try_from(missing.first.len()).unwrap_or(0));
            let more = if more > 0 { format!("; and {more} more, see the executor's log") } else { String::new() };
            let message = format!("{} files or folders: {}{more}", missing.count, missing.first.join("; "));
            Some(said(true, "UnreadableFiles", message))
        }
        None => told.then(|| said(false, "NothingMissing", String::new())),
    }
}

/// One word for the whole object.
fn phase(volume: &LogicalVolume, status: &LogicalVolumeStatus) -> &'static str {
    let of = |transfer: &TransferStatus| match transfer.phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    };
    if let (Some(online), true) = (&status.online_snapshot, volume.spec.online_snapshot.is_some()) {
        return of(online);
    }
    match (&status.restore, status.volume_id.is_some(), status.code.unwrap_or(0)) {
        (Some(restore), false, _) if restore.phase != Phase::Succeeded => of(restore),
        (_, true, _) => "Ready",
        (_, false, 0) => "Creating",
        (_, false, _) => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().expect("made an object above");
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i8>().prop_map(|n| json!(n)), "[a-c]{0,2}".prop_map(|s| json!(s))];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_turns_the_old_into_the_new(
            old in prop::collection::btree_map("[a-d]", tree(), 0..4),
            new in prop::collection::btree_map("[a-d]", tree(), 0..4),
        ) {
            let (old, new) = (json!(old), json!(new));
            let mut result = old.clone();
            match difference(&old, &new) {
                Some(patch) => merge(&mut result, &patch),
                None => prop_assert_eq!(&old, &new),
            }
            prop_assert_eq!(result, new);
        }
    }
}
