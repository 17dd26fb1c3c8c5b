//! Conditions as the Kubernetes API conventions want them: a condition's time changes only when its status does.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The volume can be used.
pub const READY: &str = "Ready";
/// The copy off the node is complete.
pub const SNAPSHOT_COMPLETE: &str = "SnapshotComplete";
/// The filling from a repository is complete.
pub const RESTORE_COMPLETE: &str = "RestoreComplete";
/// Nothing is wrong with the storage beneath the volume. It is there since something was wrong for the first time; its
/// reason is one word for each problem, the worst first, with commas between.
pub const HEALTHY: &str = "Healthy";
/// The reasons of [`HEALTHY`] with which what is copied meanwhile does not count as a copy.
pub const SPOILS_COPIES: [&str; 2] = ["SnapshotOverflow", "PoolFailed"];
/// The repository holds no snapshot of this object any more.
pub const REPOSITORY_SNAPSHOT_REMOVED: &str = "RepositorySnapshotRemoved";
/// Somebody works for the object: its node exists and has an agent. Only there when that was once not so.
pub const NODE_AVAILABLE: &str = "NodeAvailable";

/// What a condition says.
#[derive(Clone, Debug)]
pub struct Said {
    /// The condition's type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Sets a condition; what says the same already stays as it is, its time included.
pub fn set(conditions: &mut Vec<Condition>, said: Said, generation: Option<i64>, now: Timestamp) {
    let status = if said.holds { "True" } else { "False" };
    let old = conditions.iter_mut().find(|condition| condition.type_ == said.kind);
    let since = match &old {
        Some(condition) if condition.status == status => condition.last_transition_time.clone(),
        Some(_) | None => Time(now),
    };
    let condition = Condition {
        type_: said.kind.to_owned(),
        status: status.to_owned(),
        reason: said.reason,
        message: said.message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Whether a condition is there and holds. Presence alone says nothing.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// What is wrong with the storage beneath a volume, if anything is.
pub fn ailment(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == HEALTHY && condition.status == "False")
}

/// Whether what is copied out of a volume with this ailment does not count as a copy.
pub fn spoils_copies(ailment: &Condition) -> bool {
    ailment.reason.split(',').any(|reason| SPOILS_COPIES.contains(&reason))
}
