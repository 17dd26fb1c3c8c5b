//! Executors that are killed, or hang: a successor finishes what they began, and never twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lvault_api::Phase;

use crate::data::{Tree, fill};
use crate::history::transfer;
use crate::process::{Dice, Executor, until};
use crate::world::{Engine, Settings, World};

on_each_engine!(
    executors_killed_at_random_moments,
    an_executor_killed_between_commit_and_report,
    too_many_lost_executors_are_a_failure,
    a_hung_executor_is_ended_and_succeeded,
);

/// An executor that runs, or the end of the attempt.
fn next_executor(world: &World, name: &str, uid: &str, after: i32) -> Option<Executor> {
    until("an executor, or the end", || {
        if let Some(found) = world.executors(uid).into_iter().find(|executor| executor.launch() > after) {
            return Some(Some(found));
        }
        let phase = world.history.latest(name).as_ref().and_then(transfer).map(|transfer| transfer.phase);
        (phase == Some(Phase::Succeeded)).then_some(None)
    })
}

fn executors_killed_at_random_moments(engine: Engine) {
    const KILLS: usize = 20;
    const MOST_OF_ONE: usize = 3;
    let world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 6, 2);
    let before = Tree::of(&data);
    world.storage("main");

    // One that lives, to know how long they do.
    let first = world.snapshot("s0", "data", &[]);
    world.executor(&first);
    let began = Instant::now();
    world.phase("s0", 1, Phase::Succeeded);
    let life = began.elapsed();
    let repository = world.repository("main", "data");

    let mut dice = Dice::new();
    let (mut kills, mut repeated, mut ends) = (0, 0, Vec::new());
    while kills < KILLS {
        let name = format!("s{}", ends.len() + 1);
        let uid = world.snapshot(&name, "data", &["--backoff-limit", "10"]);
        let mut killed = BTreeSet::new();
        while kills < KILLS && killed.len() < MOST_OF_ONE {
            let Some(executor) = next_executor(&world, &name, &uid, killed.last().copied().unwrap_or(0)) else { break };
            dice.sleep(life);
            if executor.process.kill() {
                killed.insert(executor.launch());
                kills += 1;
            }
        }
        let done = world.phase(&name, 1, Phase::Succeeded);
        world.node().settle(&uid);
        let executor = done.executor.clone().unwrap();
        let (launch, lost) = (executor.launch.unwrap(), executor.lost.unwrap_or(0));
        assert_eq!(launch, lost + 1, "{name}: {executor:?}");
        let accused: BTreeSet<i32> = (1..launch).collect();
        assert!(accused.is_subset(&killed), "{name}: declared lost and not killed: {executor:?}, killed {killed:?}");
        assert!(killed.iter().all(|killed| *killed <= launch), "{name}: {executor:?}, killed {killed:?}");
        repeated += usize::from(lost > 0);
        ends.push((uid, done));
    }
    assert!(repeated > 0, "no kill ever hit a copy");
    let snapshots = repository.snapshots();
    assert_eq!(snapshots.len(), ends.len() + 1);
    for (number, (uid, done)) in ends.iter().enumerate() {
        let only = snapshots.only(uid, 1);
        assert_eq!(done.snapshot_id.as_ref(), Some(&only), "s{}", number + 1);
        if number % 3 == 0 {
            before.assert_same(&repository.restored(&only, "data"));
        }
    }
    repository.check();
    world.finish();
}

fn an_executor_killed_between_commit_and_report(engine: Engine) {
    const TRIES: usize = 10;
    let world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 7, 1);
    let before = Tree::of(&data);
    world.storage("main");
    let repository = world.repository("main", "data");
    let mut hits = 0;
    for number in 0..TRIES {
        let name = format!("s{number}");
        let uid = world.snapshot(&name, "data", &[]);
        let executor = world.executor(&uid);
        let started = Instant::now();
        while repository.commits() == number {
            assert!(started.elapsed() < crate::process::DEADLINE, "it never committed\n{}", world.story());
        }
        executor.process.kill();
        let done = world.phase(&name, 1, Phase::Succeeded);
        world.node().settle(&uid);
        let committed = repository.only(&uid, 1);
        assert_eq!(done.snapshot_id.as_ref(), Some(&committed));
        before.assert_same(&repository.restored(&committed, "data"));
        let claim = done.executor.unwrap();
        if claim.epoch == Some(2) {
            hits += 1;
            assert_eq!((claim.launch, claim.lost), (Some(2), Some(1)));
            let message = done.message.unwrap_or_default();
            assert!(message.contains("an earlier executor of this attempt had committed it"), "{message}");
            if hits == 2 {
                break;
            }
        }
    }
    assert_eq!(hits, 2, "the moment was missed {TRIES} times");
    repository.check();
    world.finish();
}

fn too_many_lost_executors_are_a_failure(engine: Engine) {
    let mut world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 8, 8);
    let before = Tree::of(&data);
    world.storage("main");
    world.close_gate();
    let uid = world.snapshot("s1", "data", &["--backoff-limit", "3"]);
    // One before it can claim, one that has claimed, one that could take over.
    world.executor_at_gate(&uid).process.kill();
    let second = world.executor_at_gate(&uid);
    second.process.go_on();
    let running = world.phase("s1", 1, Phase::Running);
    second.process.kill();
    let claim = running.executor.unwrap();
    assert_eq!((claim.epoch, claim.launch, claim.lost), (Some(1), Some(2), Some(1)));
    let local = world.node().identity(&uid);
    assert!(local.is_some());
    world.executor_at_gate(&uid).process.kill();

    let failed = world.phase("s1", 1, Phase::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.code, "BackoffLimitExceeded");
    assert!(error.message.contains("3 executors were lost") && error.message.contains("retry"), "{}", error.message);
    assert_eq!(failed.executor.unwrap().lost, Some(3));
    assert_eq!(Some(world.node().settle_keeping(&uid)), local, "a retry needs the local snapshot");
    let version = world.version("s1");
    world.assert_left_alone("s1", &version);

    world.open_gate();
    fill(&data.join("a"), 9, 1);
    world.ok(&["snapshot", "retry", "s1", "--wait", "--timeout", "60s"]);
    let done = world.phase("s1", 2, Phase::Succeeded);
    assert_eq!(done.executor.unwrap().lost, None, "a new attempt has lost nobody");
    world.node().settle(&uid);
    let repository = world.repository("main", "data");
    let committed = repository.snapshots();
    let only = committed.only(&uid, 2);
    assert_eq!((committed.len(), done.snapshot_id.as_ref()), (1, Some(&only)), "{committed:?}");
    before.assert_same(&repository.restored(&only, "data"));
    let phases = world.history.phases(&uid);
    let expected =
        [(1, Phase::Pending), (1, Phase::Running), (1, Phase::Failed), (2, Phase::Pending), (2, Phase::Running)];
    assert_eq!(phases[..5], expected, "{phases:?}");
    world.finish();
}

fn a_hung_executor_is_ended_and_succeeded(engine: Engine) {
    let world = World::with(engine, Settings { lease: "4s", ..Settings::default() });
    let data = world.volume("data");
    fill(&data, 10, 8);
    let before = Tree::of(&data);
    world.storage("main");
    let uid = world.snapshot("s1", "data", &[]);
    world.phase("s1", 1, Phase::Running);
    let executor = world.executor(&uid);
    executor.process.stop();
    let silent = Instant::now();
    until("the agent ends it", || executor.process.is_gone().then_some(()));
    assert!(silent.elapsed() > Duration::from_secs(2), "it was not given the time of its lease");
    let done = world.phase("s1", 1, Phase::Succeeded);
    let claim = done.executor.unwrap();
    assert_eq!((claim.epoch, claim.launch, claim.lost), (Some(2), Some(2), Some(1)));
    world.node().settle(&uid);
    let repository = world.repository("main", "data");
    let only = repository.only(&uid, 1);
    assert_eq!(done.snapshot_id.as_ref(), Some(&only));
    before.assert_same(&repository.restored(&only, "data"));
    world.finish();
}
