//! What lists look like, as golden texts.

use insta::assert_snapshot;
use serde_json::json;

use super::*;
use crate::testing::{restore, snapshot, storage, volume};

fn now() -> Timestamp {
    "2030-01-01T03:00:00Z".parse().expect("a time")
}

fn everything() -> Listing {
    let progress = json!({"totalBytes": 300 << 20, "bytesDone": 126 << 20, "totalFiles": 10, "filesDone": 4,
        "percentage": "42%", "bytesPerSecond": 10 << 20});
    let running = json!({"phase": "Running", "onlineSnapshot": {"operation": "Backup", "phase": "Running",
        "attempt": 1, "progress": progress, "path": "default/v1", "message": "copying"}});
    let done = json!({"phase": "Ready", "volumeID": "uid-r1", "currentSize": "1Gi", "restore": {"operation": "Restore",
        "phase": "Succeeded", "attempt": 2, "duration": "12s"}});
    let mut ready =
        volume(json!({"phase": "Ready", "volumeID": "uid-v1", "currentSize": "1Gi", "mountPath": "/srv/v1"}));
    ready.spec.size = k8s_openapi::apimachinery::pkg::api::resource::Quantity("2Gi".to_owned());
    let all = [ready, restore(done), snapshot(running)];
    Listing {
        volumes: Some(Listing::volumes(&all)),
        snapshots: Some(Listing::snapshots(&all)),
        restores: Some(Listing::restores(&all)),
        storages: Some(vec![storage(json!({"phase": "Error", "message": "not\nwritable"}))]),
    }
}

#[test]
fn tables() {
    assert_snapshot!(everything().render(Format::Table, now()).expect("text"), @r"
    VOLUMES
    NAME  SIZE                  NODE  PHASE  AGE
    v1    1.00 GiB -> 2.00 GiB  n1    Ready  3h
    r1    1.00 GiB              n1    Ready  3h

    SNAPSHOTS
    NAME  SOURCE  STORAGE         PHASE    PROGRESS  DATA     SNAPSHOT-ID  AGE
    s1    v1      default/backup  Running  42%       300 MiB  -            3h

    RESTORES
    NAME  STORAGE         PATH        SNAPSHOT-ID   PHASE      PROGRESS  DATA  AGE
    r1    default/backup  default/v1  0123456789ab  Succeeded  -         -     3h

    STORAGES
    NAMESPACE  NAME    PROVIDER  LOCATION     PHASE  AGE
    default    backup  local     /srv/backup  Error  3h
    ");
}

#[test]
fn wide_tables() {
    assert_snapshot!(everything().render(Format::Wide, now()).expect("text"), @r"
    VOLUMES
    NAME  SIZE                  NODE  PHASE  AGE  FROM                       PATH     MESSAGE
    v1    1.00 GiB -> 2.00 GiB  n1    Ready  3h   -                          /srv/v1  -
    r1    1.00 GiB              n1    Ready  3h   default/backup:default/v1  -        -

    SNAPSHOTS
    NAME  SOURCE  STORAGE         PHASE    PROGRESS  DATA     SNAPSHOT-ID  AGE  NODE  REPOSITORY  ATTEMPT  DURATION  MESSAGE
    s1    v1      default/backup  Running  42%       300 MiB  -            3h   n1    default/v1  1        -         copying

    RESTORES
    NAME  STORAGE         PATH        SNAPSHOT-ID       PHASE      PROGRESS  DATA  AGE  NODE  ATTEMPT  DURATION  MESSAGE
    r1    default/backup  default/v1  0123456789abcdef  Succeeded  -         -     3h   n1    2        12s       -

    STORAGES
    NAMESPACE  NAME    PROVIDER  LOCATION     PHASE  AGE  STORED  RECLAIMABLE  SECRET  MESSAGE
    default    backup  local     /srv/backup  Error  3h   -       -            backup  not?writable
    ");
}

#[test]
fn nothing() {
    let none = Listing { snapshots: Some(Vec::new()), ..Listing::default() };
    assert_eq!(none.render(Format::Table, now()).expect("text"), "no snapshots\n");
    let json = none.render(Format::Json, now()).expect("text");
    assert_eq!(
        serde_json::from_str::<Value>(&json).expect("JSON"),
        json!({"apiVersion": "v1", "kind": "List", "items": []})
    );
}

#[test]
fn documents_hold_each_object_once() {
    let json = everything().render(Format::Json, now()).expect("text");
    let list: Value = serde_json::from_str(&json).expect("JSON");
    let names: Vec<&str> =
        list["items"].as_array().expect("items").iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["v1", "r1", "s1", "backup"]);
    let yaml = everything().render(Format::Yaml, now()).expect("text");
    assert_eq!(serde_yaml_ng::from_str::<Value>(&yaml).expect("YAML"), list);
    assert_eq!(list["items"][0]["kind"], "LogicalVolume");
}

#[test]
fn documents_do_not_say_who_manages_which_field() {
    let managed = json!({"metadata": {"name": "v1", "managedFields": [{"manager": "kubectl"}]}});
    for (object, rest) in [
        (managed.clone(), json!({"metadata": {"name": "v1"}})),
        (json!({"items": [managed]}), json!({"items": [{"metadata": {"name": "v1"}}]})),
    ] {
        let text = document(&object, Format::Json).expect("text");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), rest);
    }
}

#[test]
fn ages() {
    for (seconds, text) in
        [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
    {
        assert_eq!(span(seconds), text);
    }
}
