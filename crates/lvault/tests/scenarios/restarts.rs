//! The agent dies, alone or with the API server, and comes back: whoever copies goes on, and nobody begins anew.

use std::time::Duration;

use lvault_api::Phase;

use crate::data::{Tree, fill};
use crate::process::{Dice, until};
use crate::world::{Engine, World};

on_each_engine!(
    running_outlives_a_killed_lvault,
    an_executor_finishes_without_an_agent,
    lvault_killed_at_random_moments_of_pending,
);

fn running_outlives_a_killed_lvault(engine: Engine) {
    let mut world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 3, 1);
    world.storage("main");
    world.first_snapshot("data");
    fill(&data.join("a"), 33, 8);
    let before = Tree::of(&data);
    let uid = world.snapshot("s1", "data", &[]);
    let running = world.phase("s1", 1, Phase::Running);
    let executor = world.executor(&uid);
    executor.process.stop();
    let repository = world.repository("main", "data");
    assert_eq!(repository.commits(), 1, "it was too fast to be stopped");

    world.kill();
    world.start();
    // The new agent has looked at everything, and works.
    let other = world.snapshot("s2", "data", &[]);
    world.phase("s2", 1, Phase::Succeeded);
    let now = world.phase("s1", 1, Phase::Running);
    assert_eq!(now, running, "nobody touched it");
    let executors: Vec<u32> = world.executors(&uid).iter().map(|executor| executor.process.pid).collect();
    assert_eq!(executors, [executor.process.pid], "no second executor");

    executor.process.go_on();
    let done = world.phase("s1", 1, Phase::Succeeded);
    assert_eq!(done.executor, running.executor, "the same executor, the same claim");
    let claim = done.executor.unwrap();
    assert_eq!((claim.epoch, claim.lost), (Some(1), None));
    world.node().settle(&uid);
    world.node().settle(&other);
    let committed = repository.snapshots();
    assert_eq!((committed.len(), Some(committed.only(&uid, 1))), (3, done.snapshot_id), "one of each");
    before.assert_same(&repository.restored(&committed.only(&uid, 1), "data"));
    world.finish();
}

fn an_executor_finishes_without_an_agent(engine: Engine) {
    let mut world = World::new(engine);
    fill(&world.volume("data"), 4, 8);
    world.storage("main");
    let uid = world.snapshot("s1", "data", &[]);
    let running = world.phase("s1", 1, Phase::Running);
    let executor = world.executor(&uid);
    executor.process.stop();

    let api = world.api_alone();
    executor.process.go_on();
    let done = world.phase("s1", 1, Phase::Succeeded);
    assert_eq!(done.executor, running.executor);
    until("the executor ends", || executor.process.is_gone().then_some(()));
    assert!(world.node().identity(&uid).is_some(), "only an agent removes the local snapshot");
    drop(api);

    world.start();
    world.node().settle(&uid);
    let repository = world.repository("main", "data");
    assert_eq!(Some(repository.only(&uid, 1)), done.snapshot_id);
    world.finish();
}

fn lvault_killed_at_random_moments_of_pending(engine: Engine) {
    const KILLS: usize = 10;
    let mut world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 5, 1);
    let before = Tree::of(&data);
    world.storage("main");
    let mut dice = Dice::new();
    let mut snapshots = Vec::new();
    for number in 0..KILLS {
        let name = format!("s{number}");
        snapshots.push((name.clone(), world.snapshot(&name, "data", &[])));
        dice.sleep(Duration::from_millis(150));
        world.kill();
        world.start();
    }
    let repository = world.repository("main", "data");
    let ends: Vec<_> = snapshots.iter().map(|(name, _)| world.phase(name, 1, Phase::Succeeded)).collect();
    let committed = repository.snapshots();
    for ((name, uid), done) in snapshots.iter().zip(ends) {
        world.node().settle(uid);
        // An agent that was killed between making an executor's folder and starting it leaves a launch that never was.
        let lost = done.executor.clone().unwrap().lost.unwrap_or(0);
        assert!(lost <= 1, "{name}: {done:?}");
        assert_eq!(done.snapshot_id, Some(committed.only(uid, 1)), "{name}");
    }
    assert_eq!(committed.len(), KILLS);
    repository.check();
    before.assert_same(&repository.restored(&committed.only(&snapshots[KILLS / 2].1, 1), "data"));
    world.finish();
}
