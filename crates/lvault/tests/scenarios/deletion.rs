//! Objects that are deleted at the worst moments: they go away, and nothing of them stays, except what was to be kept.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lvault_api::Phase;

use crate::data::{Tree, fill, noise};
use crate::process::{Dice, Executor, until};
use crate::world::{Engine, World};

on_each_engine!(
    deleted_while_pending,
    deleted_while_running,
    a_cancelled_copy_ends_at_once_and_leaves_a_clean_repository,
    a_hangup_ends_no_copy,
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

/// The executor of a second snapshot, stopped while it holds its lock of the repository.
fn stopped_in_its_middle(world: &World, data: &Path) -> (String, Executor) {
    world.snapshot("s1", "data", &["--wait", "--timeout", "60s"]);
    noise(&data.join("more"), &mut Dice::of(24), 24 << 20);
    let repository = world.repository("main", "data");
    let uid = world.snapshot("s2", "data", &[]);
    world.phase("s2", 1, Phase::Running);
    let executor = world.executor(&uid);
    until("the repository is locked", || (repository.locks() == 1).then_some(()));
    executor.process.stop();
    (uid, executor)
}

/// It is stopped, so that nothing it could do itself is any help.
fn a_cancelled_copy_ends_at_once_and_leaves_a_clean_repository(engine: Engine) {
    let (world, data) = begun(engine, 23, 8);
    let (uid, executor) = stopped_in_its_middle(&world, &data);
    let repository = world.repository("main", "data");
    world.delete("s2");
    let asked = Instant::now();
    until("the executor ends", || executor.process.is_gone().then_some(()));
    let ended = asked.elapsed();
    eprintln!("ended after {ended:?}");
    assert!(ended < Duration::from_secs(2), "the executor ended after {ended:?}");
    world.gone("s2");
    assert_eq!(world.node().traces(&uid), Vec::<String>::new());
    assert_eq!(repository.locks(), 0, "its lock is left");
    repository.check();
    assert_eq!(repository.snapshots().len(), 1);
    world.finish();
}

/// `restic unlock` sends that signal to ask whether the owner of a lock lives.
fn a_hangup_ends_no_copy(engine: Engine) {
    let (world, data) = begun(engine, 25, 8);
    let (_, executor) = stopped_in_its_middle(&world, &data);
    executor.process.hang_up();
    executor.process.go_on();
    let done = world.phase("s2", 1, Phase::Succeeded);
    assert_eq!(done.executor.unwrap().launch, Some(1), "it was ended and succeeded");
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
