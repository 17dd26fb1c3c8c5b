//! Objects that are deleted at the worst moments: they go away, and nothing of them stays, except what was to be kept.

use std::path::PathBuf;

use lvault_api::Phase;

use crate::data::{Tree, fill};
use crate::world::{Engine, World};

on_each_engine!(
    deleted_while_pending,
    deleted_while_running,
    deleted_when_succeeded,
    deleted_when_failed,
    the_source_deleted_while_its_snapshot_runs,
);

fn begun(engine: Engine, seed: u64, mebibytes: u64) -> (World, PathBuf) {
    let world = World::new(engine);
    let data = world.volume("data");
    fill(&data, seed, mebibytes);
    world.storage("main");
    (world, data)
}

/// Deletes an object, and checks that nothing of it is left on the node.
fn vanishes(world: &World, name: &str, uid: &str) {
    world.delete(name);
    world.gone(name);
    assert_eq!(world.node().traces(uid), Vec::<String>::new());
    assert!(!world.node().volume(uid).exists(), "its local volume is still there");
}

fn deleted_while_pending(engine: Engine) {
    let (mut world, _) = begun(engine, 20, 1);
    world.close_gate();
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor_at_gate(&uid);
    assert_eq!(world.history.phases(&uid), [(1, Phase::Pending)]);
    world.open_gate();
    vanishes(&world, "s1", &uid);
    assert!(executor.process.is_gone());
    assert!(!world.repository("main", "data").exists(), "a repository was made for nothing");
    world.finish();
}

fn deleted_while_running(engine: Engine) {
    let (world, _) = begun(engine, 21, 8);
    let uid = world.snapshot("s1", "data", &[]);
    world.phase("s1", 1, Phase::Running);
    let executor = world.executor(&uid);
    executor.process.stop();
    vanishes(&world, "s1", &uid);
    assert!(executor.process.is_gone());
    let repository = world.repository("main", "data");
    assert_eq!(repository.commits(), 0);
    // What was uploaded for nothing hurts nobody.
    let next = world.snapshot("s2", "data", &["--wait", "--timeout", "60s"]);
    assert_eq!(repository.snapshots().len(), 1);
    repository.only(&next, 1);
    repository.check();
    world.finish();
}

fn deleted_when_succeeded(engine: Engine) {
    let (world, data) = begun(engine, 22, 1);
    let before = Tree::of(&data);
    let mut uids = Vec::new();
    let policies: [&[&str]; 4] =
        [&[], &["--deletion-policy", "retain"], &["--keep-local"], &["--deletion-policy", "delete"]];
    for (number, policy) in policies.into_iter().enumerate() {
        uids.push(world.snapshot(&format!("s{number}"), "data", policy));
    }
    for number in 0..uids.len() {
        world.phase(&format!("s{number}"), 1, Phase::Succeeded);
    }
    let repository = world.repository("main", "data");
    assert_eq!(repository.snapshots().len(), 4);
    world.node().settle_keeping(&uids[2]);

    vanishes(&world, "s0", &uids[0]);
    assert_eq!(repository.of(&uids[0], 1), Vec::<String>::new(), "deleting removes the repository's snapshot");
    vanishes(&world, "s1", &uids[1]);
    vanishes(&world, "s2", &uids[2]);
    world.ok(&["snapshot", "delete", "s3", "--keep-repository", "--wait", "--timeout", "60s"]);
    // What is retained is whole, without its object and without the others.
    let kept = repository.snapshots();
    assert_eq!(kept.len(), 2, "{kept:?}");
    for uid in [&uids[1], &uids[3]] {
        before.assert_same(&repository.restored(&kept.only(uid, 1), "data"));
    }
    repository.check();
    world.finish();
}

fn deleted_when_failed(engine: Engine) {
    let (mut world, _) = begun(engine, 23, 1);
    world.close_gate();
    let uid = world.snapshot("s1", "data", &["--backoff-limit", "1"]);
    world.executor_at_gate(&uid).process.kill();
    world.phase("s1", 1, Phase::Failed);
    world.node().settle_keeping(&uid);
    world.open_gate();
    vanishes(&world, "s1", &uid);
    world.finish();
}

fn the_source_deleted_while_its_snapshot_runs(engine: Engine) {
    let (world, data) = begun(engine, 24, 8);
    let before = Tree::of(&data);
    let source = world.uid("data");
    let uid = world.snapshot("s1", "data", &[]);
    world.phase("s1", 1, Phase::Running);
    let executor = world.executor(&uid);
    executor.process.stop();
    vanishes(&world, "data", &source);

    executor.process.go_on();
    let done = world.phase("s1", 1, Phase::Succeeded);
    world.node().settle(&uid);
    let repository = world.repository("main", "data");
    let only = repository.only(&uid, 1);
    assert_eq!(done.snapshot_id.as_ref(), Some(&only));
    before.assert_same(&repository.restored(&only, "data"));
    world.finish();
}
