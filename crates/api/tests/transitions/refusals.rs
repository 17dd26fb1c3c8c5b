//! Single writes that no writer of lvault makes: each is refused, and by the rule that is meant for it.

use lvault_api::{Operation, TransferStatus};
use serde_json::{Value, json};

use crate::universe::Universe;
use crate::{Rules, status};

/// A reachable status in this phase, by its wire form; `claimed` has an executor.
fn stand(phase: &str, claimed: bool) -> Value {
    let universe = Universe::of(Operation::Backup);
    let wanted = |status: &TransferStatus| {
        let executor = status.executor.clone().unwrap_or_default();
        format!("{:?}", status.phase) == phase && executor.name.is_some() == claimed && executor.lost.is_none()
    };
    let found = universe.stands.iter().find(|stand| wanted(&stand.status)).expect("it is reachable");
    status(&found.status)
}

/// The status with one field of the transfer changed; null takes the field away.
fn with(status: &Value, field: &str, value: Value) -> Value {
    let mut status = status.clone();
    let transfer = status["onlineSnapshot"].as_object_mut().expect("a transfer");
    if value.is_null() {
        transfer.remove(field);
    } else {
        transfer.insert(field.to_owned(), value);
    }
    status
}

fn check(what: &str, old: Option<&Value>, new: Option<&Value>, expected: &str) {
    let broken = Rules::of_the_crd().broken(old, new);
    assert!(broken.iter().any(|message| message == expected), "{what}: {broken:?}");
}

#[test]
fn a_status_is_never_removed() {
    for (phase, claimed) in [("Pending", false), ("Running", true), ("Succeeded", true), ("Failed", true)] {
        let old = stand(phase, claimed);
        let rule = "status.onlineSnapshot is never removed";
        check("the whole status", Some(&old), None, rule);
        check("the transfer", Some(&old), Some(&json!({"code": 0})), rule);
        let restore = json!({"restore": old["onlineSnapshot"]});
        let rule = "status.restore is never removed";
        check("the restore", Some(&restore), Some(&json!({})), rule);
    }
}

#[test]
fn what_is_first_written_is_pending() {
    for phase in ["Running", "Succeeded", "Failed"] {
        let new = stand(phase, true);
        check(phase, None, Some(&new), "the first phase of an online snapshot is Pending");
        check(phase, Some(&json!({"code": 0})), Some(&new), "the first phase of an online snapshot is Pending");
        let restore = json!({"restore": new["onlineSnapshot"]});
        check(phase, None, Some(&restore), "the first phase of a restore is Pending");
    }
}

#[test]
fn a_success_names_its_snapshot_and_keeps_it() {
    let (running, succeeded) = (stand("Running", true), stand("Succeeded", true));
    let rule = "a Succeeded backup names its snapshotID";
    check("none", Some(&running), Some(&with(&succeeded, "snapshotID", Value::Null)), rule);
    check("empty", Some(&running), Some(&with(&succeeded, "snapshotID", json!(""))), rule);
    let rule = "an ended attempt keeps its snapshotID";
    check("another", Some(&succeeded), Some(&with(&succeeded, "snapshotID", json!("00000000"))), rule);
    check("removed", Some(&succeeded), Some(&with(&succeeded, "snapshotID", Value::Null)), rule);
    let failed = stand("Failed", true);
    check("added", Some(&failed), Some(&with(&failed, "snapshotID", json!("00000000"))), rule);
    let rule = "only a Succeeded backup names a snapshotID";
    check("too early", Some(&running), Some(&with(&running, "snapshotID", json!("00000000"))), rule);
    check("of a failed one", Some(&running), Some(&with(&failed, "snapshotID", json!("00000000"))), rule);
}

#[test]
fn a_claim_is_changed_by_a_successor_only() {
    let running = stand("Running", true);
    let executor = |change: Value| {
        let mut executor = running["onlineSnapshot"]["executor"].clone();
        for (key, value) in change.as_object().expect("fields") {
            executor[key] = value.clone();
        }
        with(&running, "executor", executor)
    };
    let rule = "another executor takes an attempt over only with the next epoch";
    check("another name", Some(&running), Some(&executor(json!({"name": "zombie"}))), rule);
    check("an epoch left out", Some(&running), Some(&executor(json!({"name": "b", "epoch": 3}))), rule);
    check("an epoch back", Some(&executor(json!({"epoch": 2}))), Some(&running), rule);
    check("another launch", Some(&running), Some(&executor(json!({"launch": 2}))), rule);
    check("no claim", Some(&running), Some(&with(&running, "executor", Value::Null)), rule);
    let rule = "executors once lost stay lost";
    check("fewer lost", Some(&executor(json!({"lost": 2}))), Some(&executor(json!({"lost": 1}))), rule);
    check("none lost", Some(&executor(json!({"lost": 2}))), Some(&running), rule);
    let rule = "an executor that was declared lost does not succeed";
    let succeeded =
        with(&stand("Succeeded", true), "executor", executor(json!({"lost": 1}))["onlineSnapshot"]["executor"].clone());
    check("a zombie", Some(&executor(json!({"lost": 1}))), Some(&succeeded), rule);
    let rule = "a Running attempt names its executor";
    let pending = stand("Pending", false);
    check("unnamed", Some(&pending), Some(&with(&running, "executor", Value::Null)), rule);
    check("no epoch", Some(&pending), Some(&with(&running, "executor", json!({"name": "a"}))), rule);
    let rule = "the operation of an online snapshot is Backup";
    check("a restore", Some(&pending), Some(&with(&pending, "operation", json!("Restore"))), rule);
}

#[test]
fn the_attempt_in_the_spec_never_goes_back() {
    let object = |attempt: i32| {
        let mut object = crate::object(None);
        object["spec"]["onlineSnapshot"] =
            json!({"storage": {"name": "vault", "namespace": "default"}, "attempt": attempt});
        object
    };
    let rules = Rules::of_the_crd();
    let judge = |old: i32, new: i32| kube_cel::validate_compiled(&rules.schema, &object(new), Some(&object(old)));
    assert!(judge(1, 2).is_ok() && judge(2, 2).is_ok());
    assert!(judge(2, 1).is_err());
}
