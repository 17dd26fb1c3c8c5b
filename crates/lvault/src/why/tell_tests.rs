//! The texts of `lvault why`, as a user reads them.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::testing::{restore, snapshot, storage, volume};

fn now() -> Timestamp {
    "2030-01-01T00:10:00Z".parse().expect("a time")
}

fn facts(object: LogicalVolume) -> Facts {
    Facts { object, source: None, storage: None, events: Vec::new(), node: Some("n1".to_owned()) }
}

fn backup() -> StorageReference {
    StorageReference { name: "backup".to_owned(), namespace: "default".to_owned() }
}

fn good_storage() -> Option<(StorageReference, Option<StorageFacts>)> {
    let storage = storage(json!({"phase": "Ready", "observedGeneration": 1}));
    Some((backup(), Some(StorageFacts { storage, password: true })))
}

fn online(fields: Value) -> Value {
    let mut status = json!({"operation": "Backup", "attempt": 1});
    status.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
    json!({"onlineSnapshot": status, "phase": fields["phase"]})
}

#[test]
fn a_volume_that_nobody_has_looked_at() {
    let mut object = volume(json!({}));
    object.status = None;
    assert_snapshot!(tell(&facts(object), now()), @r"
    volume v1: New
      - the agent of node n1 has not looked at it yet
    what to do:
      - see whether `lvault up` is running on node n1, and what it says
    ");
}

#[test]
fn a_volume_without_room() {
    let object =
        volume(json!({"phase": "Error", "code": 8, "message": "no room for volume uid-v1: 1 GiB more asked for"}));
    assert_snapshot!(tell(&facts(object), now()), @r"
    volume v1: Error: no room for volume uid-v1: 1 GiB more asked for
      - ResourceExhausted: no room for volume uid-v1: 1 GiB more asked for
    what to do:
      - remove what the message names; the agent tries again by itself
    ");
}

#[test]
fn a_volume_that_is_fine() {
    let object = volume(json!({"phase": "Ready", "volumeID": "uid-v1", "currentSize": "1Gi", "mountPath": "/srv/v1"}));
    assert_snapshot!(tell(&facts(object), now()), @r"
    volume v1: Ready
      - it is ready; its files are in /srv/v1
    what to do: nothing
    ");
}

#[test]
fn a_volume_of_another_node() {
    let object = volume(json!({}));
    let facts = Facts { node: Some("n2".to_owned()), ..facts(object) };
    assert_snapshot!(tell(&facts, now()), @r"
    volume v1: New
      - it belongs to node n1, and the agent here is that of node n2
    what to do:
      - run `lvault up --node n1` where that node's state folder is
    ");
}

#[test]
fn a_snapshot_that_waits_for_its_source_and_its_storage() {
    let facts = Facts {
        source: Some(Some(volume(json!({"phase": "Creating"})))),
        storage: Some((backup(), None)),
        ..facts(snapshot(online(json!({"phase": "Pending"}))))
    };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Pending
      - its source, volume v1, is not ready: Creating
      - its storage default/backup does not exist
    what to do:
      - see what that waits for: `lvault why v1`
      - add it: `lvault storage add backup --namespace default --local FOLDER`
    ");
}

#[test]
fn a_snapshot_whose_storage_has_no_password() {
    let password_less = StorageFacts { storage: storage(json!({})), password: false };
    let facts = Facts {
        storage: Some((backup(), Some(password_less))),
        ..facts(snapshot(online(json!({"phase": "Pending"}))))
    };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Pending
      - storage default/backup has no password: Secret default/backup has no RESTIC_PASSWORD
    what to do:
      - put the repositories' password into that Secret
    ");
}

#[test]
fn a_snapshot_that_runs_after_a_loss() {
    let executor = json!({"name": "uid-s1-1-2", "epoch": 2, "lost": 1});
    let status = online(json!({"phase": "Running", "message": "copying", "executor": executor}));
    let facts = Facts { storage: good_storage(), ..facts(snapshot(status)) };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Running: copying, executors lost: 1
      - executor uid-s1-1-2 is working on it (claim 2)
      - executors of this attempt that were lost: 1; at 3 the attempt fails
    what to do:
      - wait: `lvault snapshot watch s1` shows how far it is
    ");
}

#[test]
fn a_snapshot_that_failed() {
    let error = json!({"code": "MountFailed", "message": "mounting the snapshot failed: bad superblock"});
    let facts = Facts {
        source: Some(None),
        storage: good_storage(),
        ..facts(snapshot(online(json!({"phase": "Failed", "error": error}))))
    };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Failed: MountFailed: mounting the snapshot failed: bad superblock
      - MountFailed: mounting the snapshot failed: bad superblock
    what to do:
      - see why the snapshot cannot be mounted: the message says what the system answered
      - once the cause is gone, try it again with `lvault snapshot retry s1`
    ");
}

#[test]
fn a_snapshot_that_was_never_cut() {
    let error = json!({"code": "SourceGone", "message": "volume v1 does not exist"});
    let facts = Facts {
        source: Some(None),
        storage: good_storage(),
        ..facts(snapshot(online(json!({"phase": "Failed", "error": error}))))
    };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Failed: SourceGone: volume v1 does not exist
      - SourceGone: volume v1 does not exist
      - its source v1 does not exist
    what to do:
      - the volume it was to be cut from is gone: snapshot one that exists
      - make volume v1, or delete this and name another source
      - once the cause is gone, try it again with `lvault snapshot retry s1`
    ");
}

#[test]
fn a_snapshot_that_is_about_to_be_tried_again() {
    let error = json!({"code": "MountFailed", "message": "no"});
    let mut object = snapshot(online(json!({"phase": "Failed", "error": error})));
    object.spec.online_snapshot.as_mut().expect("online").attempt = 2;
    let facts = Facts { storage: good_storage(), ..facts(object) };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Failed
      - attempt 1 failed, and attempt 2 is about to begin
    what to do: nothing
    ");
}

#[test]
fn a_snapshot_that_is_done() {
    let status = online(json!({
        "phase": "Succeeded", "snapshotID": "0123456789abcdef", "path": "default/v1", "repository": "default/backup",
    }));
    assert_snapshot!(tell(&facts(snapshot(status)), now()), @r"
    snapshot s1: Succeeded
      - it is snapshot 0123456789abcdef of repository default/v1 in storage default/backup
    what to do: nothing
    ");
}

#[test]
fn a_restore_with_a_path_that_leaves_its_storage() {
    let mut object = restore(json!({}));
    object.spec.restore.as_mut().expect("restore").path = "../other".to_owned();
    assert_snapshot!(tell(&facts(object), now()), @r"
    restored volume r1: New
      - its spec cannot be carried out: spec.restore.path: '../other' is no repository path: write parts divided by '/', none of them empty, '.' or '..'
    what to do:
      - delete r1 and make it again with another value
    ");
}

#[test]
fn a_deletion_that_cannot_reach_the_repository() {
    let mut object = snapshot(online(json!({"phase": "Succeeded", "snapshotID": "0123456789abcdef"})));
    object.metadata.deletion_timestamp = object.metadata.creation_timestamp.clone();
    object.metadata.finalizers = Some(vec!["topolvm.io/logicalvolume".to_owned()]);
    let condition = json!({"type": "RepositorySnapshotRemoved", "status": "False", "reason": "RemoveFailed",
        "message": "the folder is read-only", "lastTransitionTime": "2030-01-01T00:00:00Z"});
    let condition = serde_json::from_value(condition).expect("a condition");
    object.status.as_mut().expect("a status").conditions.push(condition);
    assert_snapshot!(tell(&facts(object), now()), @r"
    snapshot s1: Deleting
      - it is being deleted: first its executor ends, then it is unmounted, then its local data goes, then what the deletion policy names in the repository
      - removing it from its repository failed and is tried again: the folder is read-only
      - its finalizer is still there: topolvm.io/logicalvolume
    what to do:
      - put that right; to leave the data in the repository instead: `lvault snapshot delete --keep-repository`
    ");
}

#[test]
fn what_happened_is_told_with_its_age() {
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {}, "reason": "Cut",
        "message": "cut the snapshot", "lastTimestamp": "2030-01-01T00:09:30Z"});
    let facts = Facts {
        events: vec![serde_json::from_value(event).expect("an event")],
        storage: good_storage(),
        ..facts(snapshot(online(json!({"phase": "Pending"}))))
    };
    assert_snapshot!(tell(&facts, now()), @r"
    snapshot s1: Pending
      - nothing is in its way: the agent is preparing it
      - 30s ago: Cut: cut the snapshot
    what to do: nothing
    ");
}

#[test]
fn a_storage_that_failed_its_check() {
    let storage = storage(json!({"phase": "Error", "message": "/srv/backup is not writable", "observedGeneration": 1}));
    assert_snapshot!(tell_storage(&StorageFacts { storage, password: true }), @r"
    storage default/backup: Error
      - storage default/backup cannot be used: /srv/backup is not writable
      - nobody prunes it: the space of deleted snapshots comes back with `lvault storage prune` only
    what to do:
      - put that right, then `lvault storage check default/backup`
    ");
}

#[test]
fn a_storage_that_is_fine() {
    let storage = storage(json!({"phase": "Ready", "observedGeneration": 1}));
    assert_snapshot!(tell_storage(&StorageFacts { storage, password: true }), @r"
    storage default/backup: Ready
      - it can be used
      - nobody prunes it: the space of deleted snapshots comes back with `lvault storage prune` only
    what to do: nothing
    ");
}

#[test]
fn a_storage_whose_prune_was_refused() {
    let prune =
        json!({"lastRun": "2030-01-01T00:00:00Z", "message": "default/data: it is locked: a lock of root on h"});
    let storage = storage(json!({"phase": "Ready", "observedGeneration": 1, "prune": prune}));
    assert_snapshot!(tell_storage(&StorageFacts { storage, password: true }), @r"
    storage default/backup: Ready
      - it can be used
      - its last prune did not do everything: default/data: it is locked: a lock of root on h
    what to do:
      - put that right, then `lvault storage prune default/backup`
    ");
}

#[test]
fn a_copy_that_waits_for_a_lock_names_its_owner() {
    let message = format!("{}a lock of root on h, process 7", WAITS_FOR_LOCK);
    let executor = json!({"name": "backup-s1-1-1.ab", "epoch": 1, "launch": 1});
    let running = snapshot(online(json!({"phase": "Running", "message": message, "executor": executor})));
    assert_snapshot!(tell(&Facts { storage: good_storage(), ..facts(running) }, now()), @r"
    snapshot s1: Running: the repository is in use, which is waited for: a lock of root on h, process 7
      - executor backup-s1-1-1.ab is working on it (claim 1)
    what to do:
      - wait for its holder; if that is gone for good, `lvault storage unlock default/backup`
    ");
}
