//! Waiting for an object: until it is ready, its online operation has ended, or it is gone.
//!
//! [`judge`] decides, without I/O, what one version of the object means for what is waited for; [`follow`] feeds it
//! from a watch and shows the progress meanwhile. Whoever gives up waiting stops nothing.

use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use lvault_api::{LogicalVolume, Phase, conditions};
use lvault_core::Bytes;
use tokio::time::Instant;

use crate::error::CliError;
use crate::objects::{Kind, current_transfer, is_deleting, is_ready, phase, problem, size_now, title, transfer};
use crate::progress::{Narrator, line};
use crate::server::Server;

/// For how long the server may be away while something is waited for: as long as it takes to restart it.
const AWAY: Duration = Duration::from_secs(15);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The attempt that the spec asks for has succeeded; a restored volume can also be used.
    Succeeded,
    /// The volume can be used.
    Ready,
    /// The volume can be used and has at least this size.
    Size(Bytes),
    /// The object is gone.
    Gone,
}

/// What a version of the object means for what is waited for.
#[derive(Debug)]
pub enum Judgement {
    /// It is reached.
    Reached,
    /// Not yet.
    NotYet,
    /// It will not be reached.
    Never(CliError),
}

/// gRPC codes with which the agent says that repeating the same request does not help: invalid argument, not found,
/// already exists, resource exhausted, failed precondition, out of range, unimplemented.
const FINAL_CODES: [i32; 7] = [3, 5, 6, 8, 9, 11, 12];

/// Whether a volume's problem will stay until somebody changes something.
pub fn is_final(code: i32) -> bool {
    FINAL_CODES.contains(&code)
}

/// Whether this version of the object is what is waited for. `None` means that it does not exist.
pub fn judge(goal: Goal, volume: Option<&LogicalVolume>, name: &str) -> Judgement {
    let Some(volume) = volume else {
        return match goal {
            Goal::Gone => Judgement::Reached,
            Goal::Succeeded | Goal::Ready | Goal::Size(_) => Judgement::Never(gone(name)),
        };
    };
    if goal == Goal::Gone {
        return Judgement::NotYet;
    }
    if is_deleting(volume) {
        return Judgement::Never(gone(name));
    }
    if let Some(failed) = failure(volume) {
        return Judgement::Never(failed);
    }
    let ended_well = current_transfer(volume).is_some_and(|transfer| transfer.phase == Phase::Succeeded);
    let reached = match (goal, Kind::of(volume)) {
        (Goal::Succeeded, Kind::Restore) => ended_well && is_ready(volume),
        (Goal::Succeeded, Kind::Snapshot | Kind::Volume) => ended_well,
        (Goal::Size(size), _) => is_ready(volume) && size_now(volume).is_some_and(|now| now >= size),
        (Goal::Ready | Goal::Gone, _) => is_ready(volume),
    };
    match (reached, problem(volume)) {
        (true, _) => Judgement::Reached,
        (false, Some((code, message))) if is_final(code) && is_about_this_spec(volume) => {
            Judgement::Never(failed(volume, code, message))
        }
        (false, _) => Judgement::NotYet,
    }
}

/// Whether the status was written for the spec as it is: what a volume could not do before says nothing about what is
/// asked for now.
fn is_about_this_spec(volume: &LogicalVolume) -> bool {
    let conditions = volume.status.iter().flat_map(|status| &status.conditions);
    let seen = conditions.filter(|condition| condition.type_ == conditions::READY).find_map(|c| c.observed_generation);
    seen.is_none_or(|seen| volume.metadata.generation.is_none_or(|asked| seen >= asked))
}

/// The error of a failed online operation, as far as the attempt that is asked for has failed.
pub fn failure(volume: &LogicalVolume) -> Option<CliError> {
    let transfer = current_transfer(volume).filter(|transfer| transfer.phase == Phase::Failed)?;
    let error = transfer.error.clone();
    Some(CliError::Failed {
        what: title(volume),
        code: error.as_ref().map_or_else(|| "Failed".to_owned(), |error| error.code.clone()),
        message: error.map(|error| error.message).or(transfer.message.clone()).unwrap_or_default(),
        remedy: retry_hint(volume),
    })
}

/// How a failed online operation is tried again.
pub fn retry_hint(volume: &LogicalVolume) -> String {
    let name = volume.name_any();
    match Kind::of(volume) {
        Kind::Restore => format!("once the cause is gone, try it again with `lvault restore {name} --retry`"),
        Kind::Snapshot | Kind::Volume => {
            format!("once the cause is gone, try it again with `lvault snapshot retry {name}`")
        }
    }
}

/// A gRPC code as a word.
pub fn code_word(code: i32) -> &'static str {
    match code {
        0 => "OK",
        1 => "Cancelled",
        3 => "InvalidArgument",
        4 => "DeadlineExceeded",
        5 => "NotFound",
        6 => "AlreadyExists",
        7 => "PermissionDenied",
        8 => "ResourceExhausted",
        9 => "FailedPrecondition",
        10 => "Aborted",
        11 => "OutOfRange",
        12 => "Unimplemented",
        13 => "Internal",
        14 => "Unavailable",
        15 => "DataLoss",
        16 => "Unauthenticated",
        _ => "Unknown",
    }
}

fn gone(name: &str) -> CliError {
    CliError::NotFound {
        kind: "object any more named",
        name: name.to_owned(),
        remedy: "somebody has deleted it meanwhile: make it again".to_owned(),
    }
}

/// Waits until the object is as wanted, and shows its progress meanwhile. Answers with its last version, or `None`
/// when it is gone and that was wanted. An object that takes the same name later is another one.
pub async fn follow(
    server: &Server,
    volume: &LogicalVolume,
    goal: Goal,
    timeout: Option<Duration>,
) -> Result<Option<LogicalVolume>, CliError> {
    let name = volume.name_any();
    let uid = volume.uid();
    let started = Instant::now();
    let mut narrator = Narrator::new(goal == Goal::Gone);
    let mut last = volume.clone();
    let mut away: Option<Instant> = None;
    let mut versions = watch_object(server.volume_api(), &name).default_backoff().boxed();
    loop {
        let limits = [timeout.map(|limit| started + limit), away.map(|since| since + AWAY)];
        let next = match limits.into_iter().flatten().min() {
            Some(until) => tokio::time::timeout_at(until, versions.next()).await,
            None => Ok(versions.next().await),
        };
        match next {
            Ok(Some(Ok(seen))) => {
                away = None;
                let seen = seen.filter(|seen| seen.uid() == uid);
                last = seen.clone().unwrap_or(last);
                match judge(goal, seen.as_ref(), &name) {
                    Judgement::Reached => return Ok(narrator.end(seen)),
                    Judgement::NotYet => narrator.see(&last),
                    Judgement::Never(error) => return Err(narrator.end(error)),
                }
            }
            Ok(Some(Err(_)) | None) => {
                away.get_or_insert_with(Instant::now);
            }
            Err(_) => {
                if timeout.is_some_and(|limit| started.elapsed() >= limit) {
                    return Err(narrator.end(timed_out(&last, goal, started.elapsed())));
                }
                // The watch keeps failing; a plain read says why, or that the server is back.
                away = None;
                server.volume(&name).await.map_err(|error| narrator.end(error))?;
            }
        }
    }
}

fn failed(volume: &LogicalVolume, code: i32, message: String) -> CliError {
    CliError::Failed {
        what: title(volume),
        code: code_word(code).to_owned(),
        message,
        remedy: "ask for something else, or remove what stands in the way and try again".to_owned(),
    }
}

fn timed_out(volume: &LogicalVolume, goal: Goal, waited: Duration) -> CliError {
    let name = volume.name_any();
    let now = match (goal, transfer(volume)) {
        (Goal::Succeeded, Some(_)) => line(volume),
        (Goal::Succeeded | Goal::Ready | Goal::Size(_) | Goal::Gone, _) => {
            let why = problem(volume).map(|(_, message)| format!(": {message}")).unwrap_or_default();
            format!("it is {}{why}", phase(volume))
        }
    };
    CliError::TimedOut {
        what: title(volume),
        waited,
        now,
        remedy: format!("it goes on all the same; `lvault why {name}` says what it waits for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{restore, snapshot, volume};
    use serde_json::{Value, json};

    fn check(object: &LogicalVolume, goal: Goal, expected: &str) {
        let said = match judge(goal, Some(object), "x") {
            Judgement::Reached => "reached".to_owned(),
            Judgement::NotYet => "not yet".to_owned(),
            Judgement::Never(error) => error.to_string(),
        };
        assert_eq!(said, expected, "{goal:?} {:?}", object.status);
    }

    fn online(phase: &str, attempt: i32) -> Value {
        json!({"onlineSnapshot": {"operation": "Backup", "phase": phase, "attempt": attempt,
            "error": {"code": "MountFailed", "message": "no"}}})
    }

    #[test]
    fn a_snapshot_is_done_when_the_attempt_asked_for_is() {
        check(&snapshot(json!({})), Goal::Succeeded, "not yet");
        check(&snapshot(online("Pending", 1)), Goal::Succeeded, "not yet");
        check(&snapshot(online("Running", 1)), Goal::Succeeded, "not yet");
        check(&snapshot(online("Succeeded", 1)), Goal::Succeeded, "reached");
        check(&snapshot(online("Failed", 1)), Goal::Succeeded, "snapshot s1 failed: MountFailed: no");

        let mut again = snapshot(online("Failed", 1));
        again.spec.online_snapshot.as_mut().expect("online").attempt = 2;
        check(&again, Goal::Succeeded, "not yet");
    }

    #[test]
    fn a_restore_is_done_when_its_volume_can_be_used() {
        let status = |phase: &str| json!({"restore": {"operation": "Restore", "phase": phase, "attempt": 1}});
        check(&restore(status("Succeeded")), Goal::Succeeded, "not yet");
        let mut published = status("Succeeded");
        published["volumeID"] = json!("id");
        check(&restore(published), Goal::Succeeded, "reached");
        check(&restore(status("Failed")), Goal::Succeeded, "restored volume r1 failed: Failed: ");
    }

    #[test]
    fn a_volume_is_done_when_it_can_be_used_at_its_size() {
        check(&volume(json!({})), Goal::Ready, "not yet");
        check(&volume(json!({"volumeID": "id", "currentSize": "1Gi"})), Goal::Ready, "reached");
        check(&volume(json!({"volumeID": "id", "currentSize": "1Gi"})), Goal::Size(Bytes(2 << 30)), "not yet");
        check(&volume(json!({"volumeID": "id", "currentSize": "2Gi"})), Goal::Size(Bytes(2 << 30)), "reached");
        check(&volume(json!({"code": 13, "message": "a moment"})), Goal::Ready, "not yet");
        check(&volume(json!({"code": 8, "message": "full"})), Goal::Ready, "volume v1 failed: ResourceExhausted: full");
    }

    #[test]
    fn a_problem_of_an_earlier_spec_is_no_answer_to_this_one() {
        let full = json!({"code": 8, "message": "full", "conditions": [{"type": "Ready", "status": "False",
            "reason": "Failed", "message": "full", "observedGeneration": 1,
            "lastTransitionTime": "2030-01-01T00:00:00Z"}]});
        let mut object = volume(full);
        check(&object, Goal::Ready, "volume v1 failed: ResourceExhausted: full");
        object.metadata.generation = Some(2);
        check(&object, Goal::Ready, "not yet");
    }

    #[test]
    fn an_object_that_goes_away_is_no_success_of_anything_but_deletion() {
        assert!(matches!(judge(Goal::Gone, None, "x"), Judgement::Reached));
        for goal in [Goal::Succeeded, Goal::Ready, Goal::Size(Bytes(1))] {
            assert!(matches!(judge(goal, None, "x"), Judgement::Never(_)), "{goal:?}");
        }
        let mut going = volume(json!({"volumeID": "id"}));
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        check(&going, Goal::Gone, "not yet");
        assert!(matches!(judge(Goal::Ready, Some(&going), "x"), Judgement::Never(_)));
    }
}
