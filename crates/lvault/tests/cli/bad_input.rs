//! What a user can get wrong: each gets one clear error that names the field and the remedy, and leaves nothing behind.

use std::fs;

use serde_json::{Value, json};

use crate::world::{NODE, Said, World, ended, lvault};

/// A refusal is one error line and one line of help, on standard error, with the exit code for wrong input.
fn check_refusal(line: &str, said: &Said, words: &[&str]) {
    assert_eq!(said.code, 2, "{line}: {said:?}");
    assert_eq!(said.out, "", "{line}: {said:?}");
    let lines: Vec<&str> = said.err.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("  help: "),
        "{line}: {said:?}"
    );
    assert!(lines[1].len() > "  help: ".len() + 10, "{line}: no remedy: {said:?}");
    for word in words {
        assert!(said.err.contains(word), "{line}: no {word:?} in {said:?}");
    }
}

fn volume(name: &str, spec: &Value) -> Value {
    let mut whole = json!({"name": name, "nodeName": NODE, "size": "64Mi"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name}, "spec": whole})
}

fn storage(name: &str, folder: &str) -> Value {
    json!({"apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage", "metadata": {"name": name},
        "spec": {"storage": {"provider": "local", "local": {"path": folder}}}})
}

/// A world with something of everything. What stands on node n2 the agent here leaves alone.
fn prepared() -> World {
    let world = World::start();
    let repository = world.root().join("repository");
    fs::create_dir(&repository).unwrap();
    world.ok(&format!("storage add backup --local {} --wait --timeout 60s", repository.display()));
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    fs::write(format!("{}/file", world.ok("volume path data").trim_end()), vec![7; 1 << 20]).unwrap();
    world.apply(true, "snapshotbackupstorages", &storage("locked", "/srv/nothing"), None);
    world.apply(false, "logicalvolumes", &volume("far", &json!({"nodeName": "n2"})), Some(&json!({"volumeID": "x"})));
    world.apply(false, "logicalvolumes", &volume("unready", &json!({"nodeName": "n2"})), None);
    let online = json!({"storage": {"name": "backup"}});
    let spec = json!({"nodeName": "n2", "source": "far", "accessType": "ro", "onlineSnapshot": online});
    let pending = json!({"onlineSnapshot": {"operation": "Backup", "phase": "Pending", "attempt": 1}});
    world.apply(false, "logicalvolumes", &volume("unfinished", &spec), Some(&pending));
    world.ok("snapshot create done --source data --storage backup --wait --timeout 100s");
    world
}

/// What nobody may have changed: names and specs.
fn remains(world: &World) -> Vec<Value> {
    let list = world.objects();
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| json!([item["metadata"]["name"], item["spec"], item["metadata"]["deletionTimestamp"]])).collect()
}

#[test]
fn what_is_wrong_is_refused_by_field_and_leaves_nothing_behind() {
    let world = prepared();
    let before = remains(&world);
    let id = "0123456789abcdef";
    let restore = format!("restore v --storage backup --path default/data --snapshot-id {id} --size");
    let cases: Vec<(String, Vec<&str>)> = [
        // Sizes.
        ("volume create v --size 0", vec!["--size", "more than 0"]),
        ("volume create v --size=-1Gi", vec!["--size", "more than 0"]),
        ("volume create v --size much", vec!["--size", "is not a size", "500Mi"]),
        ("volume create v --size 9Ei", vec!["--size", "at most 8Ei"]),
        ("volume create v --size 16Mi --filesystem ext4", vec!["--size", "32Mi"]),
        ("volume create v --size 100Mi --filesystem xfs", vec!["--size", "300Mi"]),
        ("volume resize data 0", vec!["SIZE", "more than 0"]),
        ("volume resize data 32Mi", vec!["SIZE", "cannot shrink"]),
        ("volume resize data big", vec!["SIZE", "is not a size"]),
        (&format!("{restore} 0"), vec!["--size", "more than 0"]),
        // Names.
        ("volume create Data --size 64Mi", vec!["NAME", "'Data'", "a-z"]),
        ("volume create -- -v --size", vec!["NAME"]),
        ("volume create a/b --size 64Mi", vec!["NAME", "a-z"]),
        ("volume create ../v --size 64Mi", vec!["NAME", "a-z"]),
        ("volume create data --size 64Mi", vec!["the name is taken", "another name"]),
        ("snapshot create Up --source data --storage backup", vec!["NAME", "'Up'"]),
        ("storage add UP --local /srv/x", vec!["NAME", "'UP'"]),
        ("storage add s --local /srv/x --namespace No", vec!["--namespace", "'No'"]),
        ("storage add s --local /srv/x --namespace team", vec!["namespace", "'team'"]),
        ("storage add backup --local /srv/x", vec!["there is one of that name"]),
        // Nodes.
        ("volume create v --size 64Mi --node n2", vec!["--node", "'n2'", NODE]),
        ("volume create v --size 64Mi --node N2", vec!["--node"]),
        ("snapshot create s --source far --storage backup", vec!["far is on node n2"]),
        ("snapshot create s --source data --storage backup --node n2", vec!["on node n1, not on n2"]),
        // Sources.
        ("snapshot create s --source nothing --storage backup", vec!["'nothing'", "data"]),
        ("snapshot create s --source done --storage backup", vec!["done", "in its repository only", "restore"]),
        ("snapshot create s --source unready --storage backup", vec!["unready"]),
        ("snapshot create s --source unfinished --storage backup", vec!["unfinished"]),
        // Storages.
        ("snapshot create s --source data --storage nowhere", vec!["storage", "default/nowhere", "default/backup"]),
        ("snapshot create s --source data --storage a/b/c", vec!["--storage"]),
        ("snapshot create s --source data --storage locked", vec!["no password", "RESTIC_PASSWORD"]),
        ("storage add s --local relative", vec!["--local", "absolute"]),
        ("storage add s --local /srv/../etc", vec!["--local", "'..'"]),
        ("storage add s --local /", vec!["--local"]),
        ("storage check nothing", vec!["storage", "default/nothing"]),
        ("storage delete nothing", vec!["storage", "default/nothing"]),
        ("storage delete backup", vec!["still refer to it", "done", "--force"]),
        ("storage add s --local /srv/x --password-stdin", vec!["--password-stdin", "empty"]),
        // Restores.
        ("restore v", vec!["--from"]),
        ("restore v --from nothing", vec!["'nothing'", "done"]),
        ("restore v --from unfinished", vec!["not complete"]),
        ("restore v --from data", vec!["data is a volume"]),
        ("restore v --from done --size 4Ki", vec!["--size", "too small"]),
        ("restore data --from done", vec!["the name is taken"]),
        ("restore v --from done --node n2", vec!["--node"]),
        ("restore data --retry", vec!["data is a volume"]),
        (&format!("restore v --storage backup --path ../data --snapshot-id {id} --size 64Mi"), vec!["--path", "'..'"]),
        (&format!("restore v --storage backup --path /data --snapshot-id {id} --size 64Mi"), vec!["--path"]),
        ("restore v --storage backup --path default/data --snapshot-id latest --size 64Mi", vec!["--snapshot-id"]),
        ("restore v --storage backup --path default/data --snapshot-id 01 --size 64Mi", vec!["--snapshot-id"]),
        (&format!("restore v --storage nowhere --path a --snapshot-id {id} --size 64Mi"), vec!["default/nowhere"]),
        // The wrong kind, the wrong time.
        ("volume delete done", vec!["done is a snapshot", "lvault snapshot"]),
        ("volume delete nothing", vec!["'nothing'"]),
        ("snapshot delete data", vec!["data is a volume", "lvault volume"]),
        ("snapshot retry done", vec!["has succeeded"]),
        ("snapshot retry unfinished", vec!["Pending"]),
        ("snapshot watch data", vec!["data is a volume"]),
        ("volume path done", vec!["mounted only while it is copied", "restore"]),
        ("volume path unready", vec!["not ready"]),
        ("get nothing", vec!["'nothing'"]),
        ("why nothing", vec!["'nothing'"]),
    ]
    .map(|(line, words)| (line.to_owned(), words))
    .into();
    for (line, words) in cases {
        // Clap itself refuses some; that is one clear error too, in its own form.
        let said = world.run(&line);
        if said.err.contains("Usage:") {
            assert!(said.code == 2 && said.err.starts_with("error: "), "{line}: {said:?}");
        } else {
            check_refusal(&line, &said, &words);
        }
    }
    assert_eq!(remains(&world), before);
}

#[test]
fn a_volume_that_the_node_has_no_room_for_is_taken_back() {
    let world = World::start();
    for line in ["volume create huge --size 4Ei", "volume create huge --size 4Ei --wait"] {
        let said = world.run(line);
        assert_eq!(said.code, 1, "{line}: {said:?}");
        assert!(said.err.contains("no room") && said.err.contains("4.00 EiB"), "{line}: {said:?}");
        assert_eq!(remains(&world), [] as [Value; 0], "{line}");
    }
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    let before = remains(&world);
    let said = world.run("volume resize data 4Ei");
    assert!(said.code == 1 && said.err.contains("no room"), "{said:?}");
    assert_eq!(remains(&world), before, "the size that cannot be had is asked for no longer");
}

#[test]
fn where_nothing_answers_it_is_said_how_to_start_it() {
    let world = World::without_server();
    let lines = ["get", "volume list", "volume create v --size 1Gi", "storage check s", "why x", "restore v --from s"];
    for line in lines {
        let said = world.run(line);
        assert!(said.code == 1 && said.err.contains("nothing answers"), "{line}: {said:?}");
        assert!(said.err.contains(&format!("`lvault up --state-dir {}`", world.state().display())), "{line}: {said:?}");
    }
    assert!(!world.state().exists(), "asking makes no state");

    let mut world = World::start();
    world.down();
    let said = world.run("get");
    assert!(said.code == 1 && said.err.contains("nothing answers at https://127.0.0.1:"), "{said:?}");
}

#[test]
fn up_refuses_what_it_cannot_do_before_it_makes_anything() {
    let world = World::without_server();
    for (arguments, words) in [(vec!["--node", "N1"], "--node"), (vec!["--pool-size", "0"], "--pool-size")] {
        let mut up = lvault();
        up.arg("--state-dir").arg(world.state()).args(["up", "--engine", "directory"]).args(arguments);
        let said = ended(up);
        assert!(said.code == 2 && said.err.contains(words), "{said:?}");
    }
    assert!(!world.state().exists());
    let mut up = world.up_command();
    up.args(["--listen", "0.0.0.0:0"]);
    let said = ended(up);
    assert!(said.code == 2 && said.err.contains("other machines"), "{said:?}");
}

#[test]
fn one_state_folder_has_one_lvault_and_one_node() {
    let mut world = World::start();
    let said = ended(world.up_command());
    assert!(said.code == 1 && said.err.contains("belongs to another lvault (process "), "{said:?}");
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    world.down();
    let mut up = lvault();
    up.arg("--state-dir").arg(world.state()).args(["up", "--engine", "directory", "--node", "n2"]);
    let said = ended(up);
    assert!(said.code == 2 && said.err.contains("those of node n1"), "{said:?}");
}
