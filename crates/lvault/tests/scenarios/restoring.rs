//! Volumes that are filled from a repository: whole, or not at all, and usable when they are whole and not before.

use std::path::PathBuf;

use kube::ResourceExt;
use lvault_api::{LogicalVolume, Phase};
use serde_json::json;

use crate::data::{Tree, fill};
use crate::world::{Engine, NODE, World};

on_each_engine!(
    a_restored_volume_has_what_the_snapshot_has,
    a_restore_that_cannot_succeed_leaves_nothing,
    an_executor_killed_while_it_restores,
);

fn snapshotted(engine: Engine, seed: u64, mebibytes: u64) -> (World, Tree, String) {
    let world = World::new(engine);
    let data = world.volume("data");
    fill(&data, seed, mebibytes);
    let before = Tree::of(&data);
    world.storage("main");
    world.snapshot("s1", "data", &["--wait", "--timeout", "60s"]);
    let snapshot = world.phase("s1", 1, Phase::Succeeded).snapshot_id.unwrap();
    (world, before, snapshot)
}

/// Asks for a restore that the command line would refuse.
fn ask_for(world: &World, name: &str, snapshot: &str, size: &str) -> String {
    world.create(json!({
        "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
        "spec": {"name": name, "nodeName": NODE, "size": size, "accessType": "rw", "restore": {
            "storage": {"name": "main", "namespace": "default"}, "path": "default/data", "snapshotID": snapshot}},
    }))
}

fn is_published(volume: &LogicalVolume) -> bool {
    volume.status.as_ref().is_some_and(|status| status.volume_id.is_some() || status.mount_path.is_some())
}

fn a_restored_volume_has_what_the_snapshot_has(engine: Engine) {
    let (world, before, snapshot) = snapshotted(engine, 30, 4);
    world.ok(&["restore", "r1", "--from", "s1", "--wait", "--timeout", "60s"]);
    let uid = world.uid("r1");
    before.assert_same(&Tree::of(&PathBuf::from(world.ok(&["volume", "path", "r1"]))));
    assert_eq!(world.history.phases(&uid), [(1, Phase::Pending), (1, Phase::Running), (1, Phase::Succeeded)]);
    // From the repository alone, with nothing else left.
    let source = world.uid("data");
    world.ok(&["volume", "delete", "data", "--wait", "--timeout", "60s"]);
    world.ok(&["snapshot", "delete", "s1", "--keep-repository", "--wait", "--timeout", "60s"]);
    assert_eq!(world.node().traces(&source), Vec::<String>::new());
    let from = ["--storage", "main", "--path", "default/data", "--snapshot-id", &snapshot[..8], "--size", "64Mi"];
    world.ok(&[&["restore", "r2"], &from[..], &["--wait", "--timeout", "60s"]].concat());
    let path = PathBuf::from(world.ok(&["volume", "path", "r2"]));
    before.assert_same(&Tree::of(&path));
    // It is a volume like any other.
    fill(&path.join("a"), 31, 1);
    let again = world.snapshot("s2", "r2", &["--wait", "--timeout", "60s"]);
    let repository = world.repository("main", "r2");
    Tree::of(&path).assert_same(&repository.restored(&repository.only(&again, 1), "r2"));
    world.finish();
}

fn a_restore_that_cannot_succeed_leaves_nothing(engine: Engine) {
    let (world, _, snapshot) = snapshotted(engine, 32, 40);
    let mut cases = vec![("unknown", "0123456789abcdef".to_owned(), "64Mi", "SnapshotNotFound", "01234567")];
    if engine != Engine::Directory {
        cases.push(("small", snapshot, "32Mi", "VolumeTooSmall", "spec.size"));
        let refused = world.fails(&["restore", "cli", "--from", "s1", "--size", "32Mi"]);
        assert!(refused.contains("--size") && world.get("cli").is_none(), "{refused}");
    }
    for (name, snapshot, size, code, said) in cases {
        let uid = ask_for(&world, name, &snapshot, size);
        let failed = world.phase(name, 1, Phase::Failed);
        let error = failed.error.unwrap();
        assert_eq!(error.code, code, "{}", error.message);
        assert!(error.message.contains(said), "{}", error.message);
        world.node().settle(&uid);
        assert!(!world.history.of(&uid).iter().any(is_published), "it was published");
        let version = world.version(name);
        world.assert_left_alone(name, &version);
        let why = world.ok(&["why", name]);
        assert!(why.contains(said), "{why}");
    }
    world.finish();
}

fn an_executor_killed_while_it_restores(engine: Engine) {
    let (world, before, snapshot) = snapshotted(engine, 33, 8);
    let uid = ask_for(&world, "r1", &snapshot, "64Mi");
    world.phase("r1", 1, Phase::Running);
    let executor = world.executor(&uid);
    executor.process.stop();
    let running = world.get("r1").unwrap();
    assert!(!is_published(&running), "{:?}", running.status);
    executor.process.kill();
    let done = world.phase("r1", 1, Phase::Succeeded);
    let claim = done.executor.unwrap();
    assert_eq!((claim.epoch, claim.launch, claim.lost), (Some(2), Some(2), Some(1)));
    let ready = world.wait("r1", "it is published", is_published);
    before.assert_same(&Tree::of(&PathBuf::from(world.ok(&["volume", "path", "r1"]))));
    world.node().settle_executors(&uid);
    assert_eq!(ready.name_any(), "r1");
    world.finish();
}
