//! `lvault state export` and `import`: what goes out comes back, and nothing is written over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::world::{Said, World, lvault};

fn run(folder: &Path, arguments: &[&str]) -> Said {
    lvault().arg("--state-dir").arg(folder).arg("state").args(arguments).output().unwrap().into()
}

fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.starts_with("error: ") && said.err.contains("\n  help: "), "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "no {word:?} in {said:?}");
    }
}

#[test]
fn what_is_exported_comes_back_as_it_was() {
    let mut world = World::start();
    let repository = world.root().join("repository");
    fs::create_dir(&repository).unwrap();
    world.ok(&format!("storage add backup --local {} --wait --timeout 60s", repository.display()));
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    // Being deleted, and held: on a node that is not here.
    let held = json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
                      "metadata": {"name": "far", "finalizers": ["example.com/hold"]},
                      "spec": {"name": "far", "nodeName": "n2", "size": "64Mi"}});
    world.apply(false, "logicalvolumes", &held, Some(&json!({"volumeID": "x"})));
    world.ok("volume delete far");
    refused(&run(&world.state(), &["export"]), &["already open", "stop the running lvault"]);
    world.down();

    let plain = run(&world.state(), &["export"]);
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(plain.err.contains("1 Secrets left out"), "{plain:?}");
    assert!(!plain.out.contains("\"kind\":\"Secret\""), "Secrets are not written unless asked for");
    let file = world.root().join("export.json");
    let name = file.to_str().unwrap();
    assert_eq!(run(&world.state(), &["export", name, "--include-secrets"]).code, 0);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(&world.state(), &["export", name]);
    assert!(again.code == 1 && again.err.contains(name), "what is there is not written over: {again:?}");
    let text = fs::read_to_string(&file).unwrap();
    let exported: Value = serde_json::from_str(&text).unwrap();
    let find = |kind: &str, name: &str| {
        let items = exported["items"].as_array().unwrap();
        items.iter().find(|item| item["kind"] == kind && item["metadata"]["name"] == name).cloned().unwrap()
    };
    assert!(find("LogicalVolume", "data")["status"]["volumeID"].is_string());
    assert!(find("LogicalVolume", "far")["metadata"]["deletionTimestamp"].is_string());
    assert!(text.contains("RESTIC_PASSWORD") && !plain.out.contains("RESTIC_PASSWORD"));

    let other = world.root().join("other");
    assert_eq!(run(&other, &["import", name]).code, 0);
    assert_eq!(fs::metadata(other.join("state.redb")).unwrap().permissions().mode() & 0o777, 0o600);
    let back = run(&other, &["export", "-", "--include-secrets"]);
    assert_eq!(back.out, text, "export, import, export: the same");
    refused(&run(&other, &["import", name]), &["there is a store already", "--state-dir"]);

    // lvault goes on with it where it was.
    fs::rename(world.state().join("state.redb"), world.root().join("before.redb")).unwrap();
    assert_eq!(run(&world.state(), &["import", name]).code, 0);
    world.up();
    let list = world.objects();
    let data = list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "data").unwrap();
    assert_eq!(data["metadata"]["uid"], find("LogicalVolume", "data")["metadata"]["uid"]);
    world.ok("volume create more --size 64Mi --wait --timeout 60s");
    world.down();
    let later: Value = serde_json::from_str(&run(&world.state(), &["export"]).out).unwrap();
    let version = |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(version(&later) > version(&exported), "versions go on where they were");
}

#[test]
fn what_is_no_export_makes_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    refused(&run(&state, &["export"]), &["there is no store"]);
    let file = folder.path().join("export.json");
    refused(&run(&state, &["export", file.to_str().unwrap()]), &["there is no store"]);
    assert!(!file.exists(), "what was begun is taken away again");
    let space = |name: &str, version: &str, uid: &str| {
        json!({"apiVersion": "v1", "kind": "Namespace",
               "metadata": {"name": name, "uid": uid, "resourceVersion": version}})
    };
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "5"}, "items": items});
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret",
                            "metadata": {"name": "s", "namespace": "a", "uid": "2", "resourceVersion": "2"}});
    let mut cases = vec![
        (String::from("{"), "no JSON"),
        (String::from("{}"), "no export"),
        (json!({"apiVersion": "v1", "kind": "List", "items": []}).to_string(), "resourceVersion"),
        (list(json!([space("a", "6", "1")])).to_string(), "item 0"),
        (list(json!([space("a", "x", "1")])).to_string(), "item 0"),
        (list(json!([space("a", "1", "")])).to_string(), "no uid"),
        (list(json!([space("a", "1", "1"), space("b", "1", "1")])).to_string(), "item 1"),
        (list(json!([space("a", "1", "1"), space("a", "1", "2")])).to_string(), "item 1"),
        (list(json!([{"apiVersion": "v1", "kind": "Odd"}])).to_string(), "\"Odd\""),
        (list(json!([secret])).to_string(), "namespace a, which is missing"),
    ];
    secret["metadata"]["namespace"] = Value::Null;
    cases.push((list(json!([secret])).to_string(), "stands in a namespace"));
    for (document, word) in cases {
        fs::write(&file, &document).unwrap();
        refused(&run(&state, &["import", file.to_str().unwrap()]), &[word]);
        assert!(!state.join("state.redb").exists(), "{document}");
    }
}
