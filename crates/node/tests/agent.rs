//! The agent against the embedded API and the directory engine, with executors that the test plays itself.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use lvault_api::{LogicalVolume, Phase, conditions};
use lvault_core::{Attempt, Bytes, Job, Launch};
use lvault_engines::{Capacity, ClassReport, Problem, ProblemKind};
use lvault_node::Room;
use support::Bench;

fn copy(attempt: u32, launch: u32) -> Job {
    Job::Copy { attempt: Attempt::new(attempt).unwrap(), launch: Launch::new(launch).unwrap() }
}

#[tokio::test]
async fn a_volume_is_made_published_and_taken_down() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.create_volume("data", "10Mi").await;
    let object = bench.wait_for("data", |object| object.status.as_ref().is_some_and(|s| s.volume_id.is_some())).await;
    let status = object.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Ready"));
    assert!(std::path::Path::new(&status.mount_path.unwrap()).is_dir());
    assert_eq!(bench.writes("data"), 2, "the finalizer and the status");
    bench.delete("data").await;
    bench.wait_gone("data").await;
    assert!(bench.engine.list().unwrap().is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn an_online_snapshot_goes_through_its_phases() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    bench.wait_launched("snap", copy(1, 1)).await;
    assert_eq!(bench.transfer("snap").await.phase, Phase::Pending, "only the executor writes Running");
    bench.executor("snap", copy(1, 1)).claims().await;
    bench.executor("snap", copy(1, 1)).succeeds().await;
    bench.executor("snap", copy(1, 1)).exits().await;
    bench.wait_settled("snap").await;
    assert_eq!(bench.launches("snap"), vec![copy(1, 1)]);
    assert!(bench.engine.list().unwrap().iter().all(|volume| volume.origin.is_none()), "the local snapshot is gone");
    agent.stop().await;
}

#[tokio::test]
async fn a_finished_snapshot_is_never_written_again() {
    let bench = Bench::new().await;
    bench.finished_snapshot("snap", "data").await;
    let before = bench.get("snap").await.resource_version();
    let writes = bench.all_writes();
    for _ in 0..3 {
        let agent = bench.agent_with(|config| config.resync = Duration::from_millis(50));
        bench.passes(20).await;
        agent.stop().await;
    }
    assert_eq!(bench.get("snap").await.resource_version(), before);
    assert_eq!(bench.all_writes(), writes, "no write to anything at all");
    assert_eq!(bench.launches("snap"), vec![copy(1, 1)]);
}

#[tokio::test]
async fn an_agent_that_starts_again_leaves_a_running_executor_alone() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    bench.wait_launched("snap", copy(1, 1)).await;
    bench.executor("snap", copy(1, 1)).claims().await;
    agent.stop().await;
    let before = bench.get("snap").await.resource_version();
    let agent = bench.agent();
    bench.passes(3).await;
    assert_eq!(bench.get("snap").await.resource_version(), before);
    bench.executor("snap", copy(1, 1)).succeeds().await;
    bench.executor("snap", copy(1, 1)).exits().await;
    bench.wait_settled("snap").await;
    assert_eq!(bench.launches("snap"), vec![copy(1, 1)]);
    agent.stop().await;
}

#[tokio::test]
async fn lost_executors_are_followed_up_to_the_limit() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    for launch in 1..=3 {
        bench.wait_launched("snap", copy(1, launch)).await;
        if launch > 1 {
            bench.executor("snap", copy(1, launch)).claims().await;
        }
        bench.executor("snap", copy(1, launch)).exits().await;
    }
    let failed = bench.wait_for_transfer("snap", |transfer| transfer.phase == Phase::Failed).await;
    assert_eq!(failed.error.unwrap().code, "BackoffLimitExceeded");
    assert_eq!(failed.executor.unwrap().lost, Some(3));
    assert_eq!(bench.launches("snap"), vec![copy(1, 1), copy(1, 2), copy(1, 3)]);

    bench.retry("snap", 2).await;
    bench.wait_launched("snap", copy(2, 1)).await;
    let again = bench.transfer("snap").await;
    assert!(again.attempt == 2 && again.error.is_none() && again.executor.is_none(), "{again:?}");
    agent.stop().await;
}

/// The executor died while nobody watched: the agent was down, and the claim stands.
#[tokio::test]
async fn an_executor_lost_while_the_agent_was_down_is_noticed() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    bench.wait_launched("snap", copy(1, 1)).await;
    bench.executor("snap", copy(1, 1)).claims().await;
    agent.stop().await;
    bench.executor("snap", copy(1, 1)).exits().await;
    let agent = bench.agent();
    bench.wait_launched("snap", copy(1, 2)).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_silent_executor_is_ended_and_followed() {
    let bench = Bench::new().await;
    let agent = bench.agent_with(|config| config.lease_duration = Duration::from_millis(600));
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    bench.wait_launched("snap", copy(1, 1)).await;
    let executor = bench.executor("snap", copy(1, 1));
    executor.claims().await;
    for _ in 0..8 {
        executor.beats().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(bench.launches("snap"), vec![copy(1, 1)], "a heart that beats is left alone");
    bench.wait_launched("snap", copy(1, 2)).await;
    assert_eq!(bench.launcher.ended.load(Ordering::SeqCst), 1, "it was ended before its successor started");
    assert_eq!(bench.leases().await, Vec::<String>::new(), "and its lease is gone");
    agent.stop().await;
}

#[tokio::test]
async fn conflicts_and_lost_answers_start_nothing_twice() {
    for fault in [support::Fault::LostAnswer, support::Fault::Conflict, support::Fault::ServerError] {
        let bench = Bench::new().await;
        let agent = bench.faulty_agent(fault);
        bench.ready_source("data").await;
        bench.create_snapshot("snap", "data").await;
        bench.wait_launched("snap", copy(1, 1)).await;
        bench.executor("snap", copy(1, 1)).claims().await;
        bench.executor("snap", copy(1, 1)).succeeds().await;
        bench.executor("snap", copy(1, 1)).exits().await;
        bench.wait_settled("snap").await;
        assert_eq!(bench.launches("snap"), vec![copy(1, 1)], "{fault:?}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_volume_that_is_stuck_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.engine.stuck.store(true, Ordering::SeqCst);
    let agent = bench.agent();
    bench.create_volume("stuck", "10Mi").await;
    bench.engine.wait_until_stuck().await;
    bench.create_volume("other", "10Mi").await;
    bench.wait_for("other", |object| object.status.as_ref().is_some_and(|s| s.volume_id.is_some())).await;
    assert!(bench.get("stuck").await.status.is_none_or(|status| status.volume_id.is_none()));
    bench.engine.stuck.store(false, Ordering::SeqCst);
    bench.wait_for("stuck", |object| object.status.as_ref().is_some_and(|s| s.volume_id.is_some())).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_snapshot_deleted_while_it_runs_leaves_nothing() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    bench.wait_launched("snap", copy(1, 1)).await;
    bench.executor("snap", copy(1, 1)).claims().await;
    bench.delete("snap").await;
    bench.wait_launched("snap", Job::Forget).await;
    assert_eq!(bench.launcher.ended.load(Ordering::SeqCst), 1, "the copy was ended first");
    assert!(bench.engine.list().unwrap().iter().all(|volume| volume.origin.is_none()));
    bench.executor("snap", Job::Forget).forgets().await;
    bench.executor("snap", Job::Forget).exits().await;
    bench.wait_gone("snap").await;
    agent.stop().await;
}

#[tokio::test]
async fn a_missing_storage_is_said_and_waited_for_and_then_failed() {
    let bench = Bench::new().await;
    let agent = bench.agent_with(|config| config.start_deadline = Duration::from_secs(2));
    bench.ready_source("data").await;
    bench.create_snapshot_on("snap", "data", "nowhere").await;
    let waiting = bench.wait_for_transfer("snap", |transfer| transfer.message.is_some()).await;
    assert!(waiting.message.unwrap().contains("default/nowhere does not exist"));
    let failed = bench.wait_for_transfer("snap", |transfer| transfer.phase == Phase::Failed).await;
    assert_eq!(failed.error.unwrap().code, "StorageNotReady");
    agent.stop().await;
}

#[tokio::test]
async fn a_snapshot_of_what_is_not_there_fails_clearly() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.create_snapshot("snap", "nothing").await;
    let failed = bench.wait_for_transfer("snap", |transfer| transfer.phase == Phase::Failed).await;
    let error = failed.error.unwrap();
    assert!(error.code == "SourceGone" && error.message.contains("nothing"), "{error:?}");
    assert!(bench.launches("snap").is_empty());
    agent.stop().await;
}

/// A restored volume is not usable before it is complete, and nothing is left of one that failed.
#[tokio::test]
async fn a_restore_is_published_when_it_is_complete_and_not_before() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.create_restore("back").await;
    bench.wait_launched("back", copy(1, 1)).await;
    let executor = bench.executor("back", copy(1, 1));
    executor.claims().await;
    bench.passes(3).await;
    assert!(bench.get("back").await.status.unwrap().volume_id.is_none(), "not while it is filled");
    executor.succeeds().await;
    executor.exits().await;
    bench.wait_for("back", |object| object.status.as_ref().is_some_and(|s| s.volume_id.is_some())).await;

    bench.create_restore("broken").await;
    bench.wait_launched("broken", copy(1, 1)).await;
    let executor = bench.executor("broken", copy(1, 1));
    executor.claims().await;
    executor.fails().await;
    executor.exits().await;
    bench.wait_settled("broken").await;
    assert_eq!(bench.engine.list().unwrap().len(), 1, "only the complete one is there");
    assert!(bench.get("broken").await.status.unwrap().volume_id.is_none());
    agent.stop().await;
}

/// A volume that was published and is gone is not replaced by an empty one.
#[tokio::test]
async fn a_lost_volume_is_said_and_not_made_anew() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    let object = bench.ready_source("data").await;
    agent.stop().await;
    let id = lvault_core::VolumeId::parse(&object.uid().unwrap()).unwrap();
    bench.engine.lose(&id);
    let agent = bench.agent();
    let said = bench.wait_for("data", |object| object.status.as_ref().is_some_and(|s| s.code != Some(0))).await;
    assert!(said.status.unwrap().message.unwrap().contains("no empty one is put in its place"));
    assert!(bench.engine.list().unwrap().is_empty());
    agent.stop().await;
}

/// A client has to see the difference between what lasts and what is tried again: also when the agent has looked again.
#[tokio::test]
async fn a_lasting_problem_keeps_its_code() {
    let bench = Bench::new().await;
    bench.engine.full.store(true, Ordering::SeqCst);
    let agent = bench.agent();
    bench.create_volume("data", "10Mi").await;
    bench.wait_for("data", |object| object.status.as_ref().is_some_and(|s| s.code == Some(8))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = bench.get("data").await.status.unwrap();
    assert_eq!((status.code, status.volume_id), (Some(8), None), "{:?}", status.message);
    assert_eq!(bench.writes("data"), 2, "the finalizer and the problem");
    agent.stop().await;
}

#[tokio::test]
async fn an_exit_after_success_is_no_loss() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.create_snapshot("snap", "data").await;
    bench.wait_launched("snap", copy(1, 1)).await;
    let executor = bench.executor("snap", copy(1, 1));
    executor.claims().await;
    executor.succeeds().await;
    executor.exits().await;
    bench.wait_settled("snap").await;
    let done = bench.transfer("snap").await;
    assert_eq!((done.phase, done.executor.unwrap().lost), (Phase::Succeeded, None));
    agent.stop().await;
}

/// An engine that reports as done what it has not done is asked again, ever more rarely, and the status says so.
#[tokio::test]
async fn what_is_reported_as_done_and_is_not_makes_no_hot_loop() {
    let bench = Bench::new().await;
    let agent = bench.agent();
    bench.ready_source("data").await;
    bench.engine.lies.store(true, Ordering::SeqCst);
    bench.delete("data").await;
    let said = bench.wait_for("data", |object| object.status.as_ref().is_some_and(|s| s.code == Some(13))).await;
    assert!(said.status.unwrap().message.unwrap().contains("is not seen to be so"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = bench.engine.removals.load(Ordering::SeqCst);
    assert!((3..=7).contains(&asked), "{asked} times in two seconds");
    bench.engine.lies.store(false, Ordering::SeqCst);
    bench.wait_gone("data").await;
    agent.stop().await;
}

fn class(name: &str, default: bool, available: u64, problems: &[Problem]) -> ClassReport {
    ClassReport {
        name: name.to_owned(),
        default,
        volume_group: "vg".to_owned(),
        volume_group_size: Bytes(1000),
        volume_group_free: Bytes(available),
        available: Bytes(available),
        pool: None,
        problems: problems.to_vec(),
    }
}

/// Nothing wakes the volume but the look at the storage.
#[tokio::test]
async fn what_is_wrong_with_the_storage_becomes_a_condition_and_events() {
    let bench = Bench::new().await;
    *bench.engine.classes.lock().unwrap() = vec![class("only", true, 1, &[])];
    let agent = bench.agent_with(|config| config.health_interval = Duration::from_millis(50));
    bench.ready_source("data").await;
    let before = bench.get("data").await.resource_version();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.get("data").await.resource_version(), before, "what is well is not said to be well");
    let problem = |message: &str| Problem { kind: ProblemKind::PoolNearlyFull, message: message.to_owned() };
    *bench.engine.problems.lock().unwrap() = vec![problem("91%")];
    let healthy = |object: &LogicalVolume| {
        let conditions = object.status.as_ref().unwrap().conditions.clone();
        conditions.into_iter().find(|condition| condition.type_ == conditions::HEALTHY)
    };
    let ill = bench.wait_for("data", |object| healthy(object).is_some_and(|said| said.status == "False")).await;
    let said = healthy(&ill).unwrap();
    assert_eq!((said.reason.as_str(), said.message.as_str()), ("PoolNearlyFull", "91%"));
    assert_eq!(ill.status.as_ref().unwrap().phase.as_deref(), Some("Ready"), "it can be used");
    *bench.engine.problems.lock().unwrap() = vec![problem("92%")];
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.get("data").await.resource_version(), ill.resource_version(), "its figures are no news");
    bench.engine.problems.lock().unwrap().clear();
    bench.wait_for("data", |object| healthy(object).is_some_and(|said| said.status == "True")).await;
    support::wait_until("both are told", async || {
        let events = Api::<Event>::all(bench.client.clone()).list(&ListParams::default()).await.unwrap();
        let told: Vec<String> = events.items.into_iter().filter_map(|event| event.reason).collect();
        let count = |reason: &str| told.iter().filter(|told| *told == reason).count();
        (count("StorageProblem"), count("StorageRecovered")) == (1, 1)
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn the_room_of_every_class_is_written_on_the_node() {
    let bench = Bench::new().await;
    let nodes: Api<Node> = Api::all(bench.client.clone());
    let node = serde_json::json!({"metadata": {"name": "n", "annotations": {
        "capacity.topolvm.io/former": "7", "somebody.example/else": "8"}}});
    let node: Node = serde_json::from_value(node).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let room =
        |classes: Vec<ClassReport>| Some(Room { capacity: Capacity { total: Bytes(9), available: Bytes(9) }, classes });
    let (publish, seen) = tokio::sync::watch::channel(None);
    let publishing = tokio::spawn(lvault_node::publish_capacity(bench.client.clone(), "n".to_owned(), seen));
    let stands = async |wanted: &[(&str, &str)]| {
        let wanted: BTreeMap<String, String> =
            wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        support::wait_until("the annotations", async || {
            nodes.get("n").await.unwrap().metadata.annotations.unwrap_or_default() == wanted
        })
        .await;
    };
    publish.send_replace(room(vec![class("ssd", true, 5, &[]), class("hdd", false, 3, &[])]));
    let other = ("somebody.example/else", "8");
    stands(&[
        ("capacity.topolvm.io/00default", "5"),
        ("capacity.topolvm.io/hdd", "3"),
        ("capacity.topolvm.io/ssd", "5"),
        other,
    ])
    .await;
    // A class that is taken out takes its annotation along.
    publish.send_replace(room(vec![class("ssd", false, 4, &[])]));
    stands(&[("capacity.topolvm.io/ssd", "4"), other]).await;
    publishing.abort();
}

/// What TopoLVM has written of a volume, and the engine does not know as ours.
#[tokio::test]
async fn a_volume_of_topolvm_is_taken_over_and_one_of_ours_that_is_gone_is_not() {
    let bench = Bench::new().await;
    bench.create_volume("theirs", "10Mi").await;
    let uid = bench.get("theirs").await.uid().unwrap();
    let volumes: Api<LogicalVolume> = Api::all(bench.client.clone());
    let status = serde_json::json!({"status": {"volumeID": uid, "currentSize": "10Mi", "code": 0}});
    volumes.patch_status("theirs", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let agent = bench.agent();
    bench.wait_for("theirs", |object| object.status.as_ref().is_some_and(|status| status.mount_path.is_some())).await;
    let adoptions = || bench.engine.adoptions.lock().unwrap().len();
    assert_eq!((adoptions(), bench.engine.adoptions.lock().unwrap()[0].size), (1, Bytes(10 << 20)));
    bench.delete("theirs").await;
    bench.wait_gone("theirs").await;
    let ours = bench.ready_source("data").await;
    bench.engine.lose(&lvault_core::VolumeId::parse(&ours.uid().unwrap()).unwrap());
    agent.stop().await;
    let agent = bench.agent();
    bench.wait_for("data", |object| object.status.as_ref().is_some_and(|status| status.code != Some(0))).await;
    assert_eq!(adoptions(), 1, "an empty one was put in its place");
    agent.stop().await;
}
