//! Two executors for one attempt: one that was taken for dead comes back, or two were started. Nobody ends the wrong one
//! here, for no agent runs: what keeps them apart is the claim alone.

use std::process::ExitStatus;
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use lvault_api::task::{Task, Work};
use lvault_api::{LogicalVolume, Phase};
use serde_json::json;

use crate::data::{Tree, fill};
use crate::history::transfer;
use crate::process::{DEADLINE, Process, until};
use crate::world::{Engine, World};

on_each_engine!(
    an_executor_that_comes_back_cannot_commit,
    an_executor_that_comes_back_cannot_report,
    of_two_executors_one_claims,
);

/// The task of the next launch, as an agent would write it.
fn successor(task: &Task) -> Task {
    let mut task = task.clone();
    let Work::Backup { launch, .. } = &mut task.work else { panic!("{task:?}") };
    *launch += 1;
    let next = *launch;
    let renamed = |name: &str| name.rsplit_once('-').map(|(stem, _)| format!("{stem}-{next}")).unwrap();
    task.name = renamed(&task.name);
    task.lease.name = renamed(&task.lease.name);
    task
}

/// What the agent writes when it has seen an executor end.
fn record_loss(world: &World, name: &str) {
    world.patch_status(name, &json!({"status": {"onlineSnapshot": {"executor": {"lost": 1}}}})).expect("a legal write");
}

/// No agent has started this one, so none cleans up after it.
fn remove_lease(world: &World, task: &Task) {
    let lease = &task.lease;
    let removed = world.ask(async |client| {
        let leases: Api<Lease> = Api::namespaced(client, &lease.namespace);
        leases.delete(&lease.name, &DeleteParams::default()).await.map(drop)
    });
    removed.expect("its lease");
}

fn ended(mut child: std::process::Child) -> ExitStatus {
    until("an executor ends", || child.try_wait().unwrap())
}

fn has_epoch(volume: &LogicalVolume, epoch: i32) -> bool {
    transfer(volume).and_then(|transfer| transfer.executor).and_then(|executor| executor.epoch) == Some(epoch)
}

fn an_executor_that_comes_back_cannot_commit(engine: Engine) {
    let mut world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 11, 1);
    world.storage("main");
    world.first_snapshot("data");
    fill(&data.join("a"), 34, 8);
    let before = Tree::of(&data);
    let uid = world.snapshot("s1", "data", &[]);
    world.phase("s1", 1, Phase::Running);
    let zombie = world.executor(&uid);
    zombie.process.stop();
    let task = successor(&zombie.process.task());
    let repository = world.repository("main", "data");
    assert_eq!(repository.commits(), 1, "it was too fast to be stopped");

    let api = world.api_alone();
    record_loss(&world, "s1");
    let heir = world.start_executor(&task);
    let heir_process = Process::hold(heir.id()).unwrap();
    world.wait("s1", "the successor has claimed", |volume| has_epoch(volume, 2));
    heir_process.stop();
    assert_eq!(repository.commits(), 1, "the successor was too fast to be stopped");
    let version = world.version("s1");

    zombie.process.go_on();
    until("the one that came back leaves", || zombie.process.is_gone().then_some(()));
    assert_eq!(world.version("s1"), version, "it wrote to what was no longer its own");
    assert_eq!(repository.commits(), 1, "it committed what was no longer its own");

    heir_process.go_on();
    let done = world.phase("s1", 1, Phase::Succeeded);
    assert!(ended(heir).success());
    let claim = done.executor.unwrap();
    assert!(claim.name.as_deref().is_some_and(|name| name.starts_with("backup-s1-1-2.")), "{claim:?}");
    assert_eq!((claim.epoch, claim.launch, claim.lost), (Some(2), Some(2), Some(1)));
    remove_lease(&world, &task);
    drop(api);
    world.start();
    world.node().settle(&uid);
    let only = repository.only(&uid, 1);
    assert_eq!(done.snapshot_id.as_ref(), Some(&only));
    before.assert_same(&repository.restored(&only, "data"));
    repository.check();
    world.finish();
}

fn an_executor_that_comes_back_cannot_report(engine: Engine) {
    const TRIES: usize = 10;
    let mut world = World::new(engine);
    fill(&world.volume("data"), 12, 1);
    world.storage("main");
    let repository = world.repository("main", "data");
    // Stopped after its commit and before its report.
    let mut caught = None;
    for number in 0..TRIES {
        let name = format!("s{number}");
        let uid = world.snapshot(&name, "data", &[]);
        let executor = world.executor(&uid);
        let started = Instant::now();
        while repository.commits() == number {
            assert!(started.elapsed() < DEADLINE, "it never committed\n{}", world.story());
        }
        executor.process.stop();
        let stands = world.get(&name).as_ref().and_then(transfer).map(|transfer| transfer.phase);
        if stands == Some(Phase::Running) {
            caught = Some((name, uid, executor));
            break;
        }
        executor.process.go_on();
        world.phase(&name, 1, Phase::Succeeded);
    }
    let (name, uid, zombie) = caught.expect("the moment was missed every time");
    let committed = repository.only(&uid, 1);
    let task = successor(&zombie.process.task());

    let api = world.api_alone();
    record_loss(&world, &name);
    let heir = world.start_executor(&task);
    let done = world.phase(&name, 1, Phase::Succeeded);
    assert!(ended(heir).success());
    assert_eq!(done.snapshot_id.as_ref(), Some(&committed), "the successor adopts the commit");
    let version = world.version(&name);
    zombie.process.go_on();
    until("the one that came back leaves", || zombie.process.is_gone().then_some(()));
    assert_eq!(world.version(&name), version, "it overwrote the end of the attempt");
    assert_eq!(done.executor.unwrap().epoch, Some(2));
    remove_lease(&world, &task);
    drop(api);

    world.start();
    world.node().settle(&uid);
    assert_eq!(repository.only(&uid, 1), committed);
    world.finish();
}

fn of_two_executors_one_claims(engine: Engine) {
    const ROUNDS: usize = 3;
    let mut world = World::new(engine);
    fill(&world.volume("data"), 13, 1);
    world.storage("main");
    world.close_gate();
    let mut waiting = Vec::new();
    for number in 0..ROUNDS {
        let name = format!("s{number}");
        let uid = world.snapshot(&name, "data", &[]);
        waiting.push((name, uid.clone(), world.executor_at_gate(&uid)));
    }
    let repository = world.repository("main", "data");
    let api = world.api_alone();
    for (name, uid, first) in &waiting {
        let second = world.start_executor(&first.process.task());
        first.process.go_on();
        let done = world.phase(name, 1, Phase::Succeeded);
        assert!(ended(second).success(), "whoever is too late leaves in peace\n{}", world.story());
        until("the first ends", || first.process.is_gone().then_some(()));
        let versions = world.history.of(uid);
        let transfers = versions.iter().filter_map(transfer);
        let mut phases: Vec<_> = transfers.clone().map(|transfer| transfer.phase).collect();
        phases.dedup();
        assert!(phases.ends_with(&[Phase::Running, Phase::Succeeded]), "{phases:?}");
        let writes = transfers.filter(|transfer| transfer.phase != Phase::Pending).count();
        assert_eq!(writes, 2, "the other one wrote, too: {versions:#?}");
        let claim = done.executor.unwrap();
        assert_eq!((claim.epoch, claim.launch, claim.lost), (Some(1), Some(1), None));
        assert_eq!(done.snapshot_id, Some(repository.only(uid, 1)));
    }
    drop(api);
    world.open_gate();
    world.start();
    for (_, uid, _) in &waiting {
        world.node().settle(uid);
    }
    assert_eq!(repository.snapshots().len(), ROUNDS);
    world.finish();
}
