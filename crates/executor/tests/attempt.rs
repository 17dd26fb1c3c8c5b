//! Executors against the embedded API and real repositories: who may write, when, and what is left in the repository.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lvault_api::conditions::Said;
use lvault_api::task::Work;
use lvault_api::{LogicalVolume, Phase, conditions};
use lvault_core::{Launch, Transition};
use lvault_executor::{Connection, CopyError, CopyWork, Exit, Meter, Repositories, Settings, Worker, copy_work, run};
use support::{Bench, Fault};

#[tokio::test]
async fn a_backup_succeeds_and_says_what_it_did() {
    let bench = Bench::new().await;
    assert_eq!(bench.run(bench.task(1)).await, Exit::Reported);
    let status = bench.transfer().await;
    assert_eq!(status.phase, Phase::Succeeded);
    let progress = status.progress.expect("progress");
    assert_eq!((progress.percentage.as_str(), progress.total_files), ("100%", 2));
    assert!(status.duration.is_some() && status.completion_time.is_some() && status.error.is_none());
    let snapshots = bench.snapshots();
    assert_eq!(status.snapshot_id.as_deref(), Some(snapshots[0].id.as_str()));
    assert_eq!(snapshots.len(), 1);
}

/// Not the moment of the copy, which may be long after the cut: a change in between would be taken for an old one.
#[tokio::test]
async fn a_snapshots_time_is_when_it_was_asked_for() {
    let bench = Bench::new().await;
    let mut task = bench.task(1);
    let Work::Backup { asked_at, .. } = &mut task.work else { panic!("a backup") };
    let time = bench.object().await.creation_timestamp().expect("the API gives one").0;
    let an_hour_ago = time - Duration::from_secs(3600);
    *asked_at = Some(an_hour_ago);
    assert_eq!(bench.run(task).await, Exit::Reported);
    assert_eq!(bench.snapshots()[0].time, an_hour_ago);
}

#[tokio::test]
async fn what_cannot_be_read_fails_an_attempt_or_is_told_as_the_policy_says() {
    for skip in [false, true] {
        let bench = Bench::new().await;
        // A name of an attribute that no repository can hold: unreadable to everybody.
        for number in 0..25 {
            let path = bench.folder().join(format!("odd-{number}"));
            std::fs::write(&path, "content").unwrap();
            rustix::fs::lsetxattr(&path, b"user.\xff".as_slice(), b"", rustix::fs::XattrFlags::empty()).unwrap();
        }
        let mut task = bench.task(1);
        let Work::Backup { skip_unreadable, .. } = &mut task.work else { panic!("a backup") };
        *skip_unreadable = skip;
        assert_eq!(bench.run(task).await, Exit::Reported);
        let (object, transfer) = (bench.object().await, bench.transfer().await);
        let said = object.status.unwrap().conditions.into_iter().find(|it| it.type_ == conditions::INCOMPLETE);
        if !skip {
            assert_eq!((transfer.phase, transfer.incomplete, said), (Phase::Failed, None, None));
            assert_eq!(transfer.error.unwrap().code, "UnreadableFiles");
            continue;
        }
        assert_eq!(transfer.phase, Phase::Succeeded);
        let (missing, said) = (transfer.incomplete.unwrap(), said.unwrap());
        assert_eq!((missing.count, missing.first.len()), (25, 10));
        assert!(missing.first.iter().all(|it| it.contains("odd-") && it.contains("attribute")), "{missing:?}");
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("True", "UnreadableFiles"));
        assert!(said.message.starts_with("25 files or folders: ") && said.message.contains("and 15 more"), "{said:?}");
        assert_eq!(bench.snapshots().len(), 1);
    }
}

#[tokio::test]
async fn of_two_executors_for_one_attempt_one_leaves_without_writing() {
    let bench = Bench::new().await;
    let gate = Gate::closed();
    let first = tokio::spawn(bench.start(bench.task(1), Arc::clone(&gate) as Arc<dyn Worker>, bench.client.clone()));
    bench.wait_for(|transfer| transfer.phase == Phase::Running).await;
    let before = bench.object().await.resource_version();
    let twin = bench.run(bench.task(1)).await;
    assert!(matches!(twin, Exit::Superseded(_)), "{twin:?}");
    assert_eq!(bench.object().await.resource_version(), before, "the one that left wrote nothing");
    assert!(bench.snapshots().is_empty(), "and copied nothing");
    gate.open();
    assert_eq!(first.await.unwrap(), Exit::Reported);
    assert_eq!(bench.transfer().await.executor.and_then(|executor| executor.epoch), Some(1));
    assert_eq!(bench.snapshots().len(), 1);
}

#[tokio::test]
async fn a_zombie_neither_commits_nor_writes() {
    let bench = Bench::new().await;
    let gate = Gate::closed();
    let zombie = tokio::spawn(bench.start(bench.task(1), Arc::clone(&gate) as Arc<dyn Worker>, bench.client.clone()));
    bench.wait_for(|transfer| transfer.phase == Phase::Running).await;
    bench.agent_writes(&Transition::RecordLoss { launch: Launch::FIRST }).await;
    assert_eq!(bench.run(bench.task(2)).await, Exit::Reported);
    let before = bench.object().await;
    assert_eq!(before.status.as_ref().unwrap().online_snapshot.as_ref().unwrap().phase, Phase::Succeeded);
    gate.open();
    let end = zombie.await.unwrap();
    assert!(matches!(end, Exit::Superseded(_)), "{end:?}");
    assert_eq!(bench.object().await.resource_version(), before.resource_version());
    assert_eq!(bench.snapshots().len(), 1, "the zombie's copy was never committed");
}

/// The agent sees the storage, and says so while an executor copies.
#[tokio::test]
async fn nothing_is_committed_from_storage_that_spoils_copies() {
    for (reason, phase, commits) in
        [("PoolFailed,PoolNearlyFull", Phase::Failed, 0), ("PoolNearlyFull", Phase::Succeeded, 1)]
    {
        let bench = Bench::new().await;
        let gate = Gate::closed();
        let copying =
            tokio::spawn(bench.start(bench.task(1), Arc::clone(&gate) as Arc<dyn Worker>, bench.client.clone()));
        bench.wait_for(|transfer| transfer.phase == Phase::Running).await;
        let mut object = bench.object().await;
        let said = Said {
            kind: conditions::HEALTHY,
            holds: false,
            reason: reason.to_owned(),
            message: "the pool says no".to_owned(),
        };
        let mut status = object.status.take().unwrap();
        conditions::set(&mut status.conditions, said, None, jiff::Timestamp::now());
        let patch = serde_json::json!({"status": {"conditions": status.conditions}});
        let volumes: Api<LogicalVolume> = Api::all(bench.client.clone());
        let params = PatchParams::default();
        volumes.patch_status(&object.name_any(), &params, &Patch::Merge(&patch)).await.unwrap();
        gate.open();
        assert_eq!(copying.await.unwrap(), Exit::Reported, "{reason}");
        let status = bench.transfer().await;
        assert_eq!((status.phase, bench.snapshots().len()), (phase, commits), "{reason}: {:?}", status.error);
        if let Some(error) = status.error {
            assert_eq!(error.code, "PoolFailed");
            assert!(error.message.contains("the pool says no"), "{}", error.message);
        }
    }
}

/// Between the loss and the successor's claim the zombie's claim still stands in the status: its launch is what fences it.
#[tokio::test]
async fn a_zombie_does_not_commit_before_its_successor_has_claimed() {
    let bench = Bench::new().await;
    let gate = Gate::closed();
    let zombie = tokio::spawn(bench.start(bench.task(1), Arc::clone(&gate) as Arc<dyn Worker>, bench.client.clone()));
    bench.wait_for(|transfer| transfer.phase == Phase::Running).await;
    bench.agent_writes(&Transition::RecordLoss { launch: Launch::FIRST }).await;
    gate.open();
    assert!(matches!(zombie.await.unwrap(), Exit::Superseded(_)));
    assert!(bench.snapshots().is_empty());
    assert_eq!(bench.transfer().await.phase, Phase::Running, "what follows is the agent's to decide");
}

#[tokio::test]
async fn a_commit_that_nobody_reported_is_adopted() {
    let bench = Bench::new().await;
    let gate = Gate::open_already();
    // The first executor commits, and is killed before it can write its result.
    let first = bench.task(1);
    let meter = Arc::new(Meter::default());
    gate.copy(&first, &meter, &(Arc::new(|| true) as _)).expect("a commit");
    let committed = bench.snapshots();
    std::fs::write(bench.folder().join("late"), "written after the commit").unwrap();
    assert_eq!(bench.run(bench.task(1)).await, Exit::Reported);
    assert_eq!(bench.snapshots(), committed, "no second snapshot was made");
    let status = bench.transfer().await;
    assert_eq!(status.snapshot_id.as_deref(), Some(committed[0].id.as_str()));
    assert!(status.message.unwrap().contains("earlier executor"));
}

/// The local snapshot may be gone by then: what was committed needs it no more.
#[tokio::test]
async fn a_commit_is_adopted_without_its_local_snapshot() {
    let bench = Bench::new().await;
    let gate = Gate::open_already();
    gate.copy(&bench.task(1), &Arc::new(Meter::default()), &(Arc::new(|| true) as _)).expect("a commit");
    let committed = bench.snapshots();
    let second = bench.task(1);
    std::fs::remove_dir_all(bench.folder()).unwrap();
    assert_eq!(bench.run(second).await, Exit::Reported);
    let status = bench.transfer().await;
    assert_eq!((status.phase, status.snapshot_id.as_deref()), (Phase::Succeeded, Some(committed[0].id.as_str())));
}

#[tokio::test]
async fn lost_answers_conflicts_and_errors_change_nothing() {
    for fault in [Fault::LostAnswer, Fault::LostRequest, Fault::Conflict, Fault::ServerError] {
        let bench = Bench::new().await;
        let client = bench.faulty(fault, 6);
        let end = bench.start(bench.task(1), Arc::new(Repositories), client).await;
        assert_eq!(end, Exit::Reported, "{fault:?}");
        let status = bench.transfer().await;
        assert_eq!(status.phase, Phase::Succeeded, "{fault:?}");
        assert_eq!(status.executor.and_then(|executor| executor.epoch), Some(1), "{fault:?}");
        assert_eq!(bench.snapshots().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_api_that_stays_away_leaves_the_commit_for_a_successor() {
    let bench = Bench::new().await;
    let gate = Gate::closed();
    let client = bench.breakable();
    let running = tokio::spawn(bench.start(bench.task(1), Arc::clone(&gate) as Arc<dyn Worker>, client.client.clone()));
    bench.wait_for(|transfer| transfer.phase == Phase::Running).await;
    gate.open();
    gate.committed().await;
    client.broken.store(true, Ordering::SeqCst);
    gate.let_go();
    assert!(matches!(running.await.unwrap(), Exit::Unreported(_)));
    assert_eq!(bench.transfer().await.phase, Phase::Running);
    bench.agent_writes(&Transition::RecordLoss { launch: Launch::FIRST }).await;
    assert_eq!(bench.run(bench.task(2)).await, Exit::Reported);
    let status = bench.transfer().await;
    assert_eq!((status.phase, bench.snapshots().len()), (Phase::Succeeded, 1));
    let executor = status.executor.unwrap();
    assert_eq!((executor.epoch, executor.launch, executor.lost), (Some(2), Some(2), Some(1)));
}

#[tokio::test]
async fn what_is_not_our_mount_is_not_backed_up() {
    for wrong in [Some(1), None] {
        let bench = Bench::new().await;
        let mut task = bench.task(1);
        let Work::Backup { folder, .. } = &mut task.work else { panic!("a backup") };
        match wrong {
            Some(device) => folder.device = Some(device),
            None => folder.path = None,
        }
        assert_eq!(bench.run(task).await, Exit::Reported);
        let status = bench.transfer().await;
        assert_eq!(status.phase, Phase::Failed);
        assert_eq!(status.error.unwrap().code, "NotMounted");
        assert!(status.snapshot_id.is_none() && bench.snapshots().is_empty());
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_shown_nowhere() {
    let bench = Bench::new().await;
    assert_eq!(bench.run(bench.task(1)).await, Exit::Reported);
    let other = Bench::beside(&bench).await;
    let mut task = other.task(1);
    task.password = lvault_api::task::Secret("another-password".to_owned());
    assert_eq!(other.run(task).await, Exit::Reported);
    let object = other.object().await;
    let status = object.status.as_ref().unwrap().online_snapshot.clone().unwrap();
    assert_eq!((status.phase, status.error.unwrap().code.as_str()), (Phase::Failed, "WrongPassword"));
    assert!(!serde_json::to_string(&object).unwrap().contains("another-password"));
}

#[tokio::test]
async fn a_removal_is_noted_when_it_is_true_and_only_then() {
    let bench = Bench::new().await;
    assert_eq!(bench.run(bench.task(1)).await, Exit::Reported);
    let removed = |object: &LogicalVolume| {
        conditions::holds(&object.status.as_ref().unwrap().conditions, conditions::REPOSITORY_SNAPSHOT_REMOVED)
    };
    let mut wrong = bench.forget_task();
    wrong.password = lvault_api::task::Secret("another-password".to_owned());
    assert_eq!(bench.run(wrong).await, Exit::Reported);
    assert!(!removed(&bench.object().await) && bench.snapshots().len() == 1);
    assert_eq!(bench.run(bench.forget_task()).await, Exit::Reported);
    assert!(removed(&bench.object().await) && bench.snapshots().is_empty());
    assert_eq!(bench.run(bench.forget_task()).await, Exit::Reported, "again is fine");
    assert_eq!(bench.transfer().await.phase, Phase::Succeeded, "what has ended stays as it is");
}

#[tokio::test]
async fn an_object_made_anew_under_the_same_name_is_another_one() {
    let bench = Bench::new().await;
    let mut task = bench.task(1);
    task.uid = "00000000-0000-0000-0000-000000000000".to_owned();
    let before = bench.object().await.resource_version();
    assert!(matches!(bench.run(task).await, Exit::Superseded(_)));
    assert_eq!(bench.object().await.resource_version(), before);
    assert!(bench.snapshots().is_empty());
}

/// A copy that gets nowhere is not alive, whatever its threads do.
#[tokio::test]
async fn a_stalled_copy_stops_the_heartbeat() {
    let bench = Bench::new().await;
    let gate = Gate::closed();
    let connection = Connection::fixed(bench.client.clone());
    let settings = Settings { stall: Duration::from_millis(1500), ..support::settings() };
    let work = Arc::clone(&gate) as Arc<dyn Worker>;
    let executor = tokio::spawn(run(bench.task(1), connection, work, settings));
    bench.wait_for(|transfer| transfer.phase == Phase::Running).await;
    let first = bench.lease_renewed_after(None).await;
    assert!(first.is_some(), "it beats at first");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let last = bench.lease_version().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bench.lease_version().await, last, "no renewal without progress");
    gate.open();
    assert_eq!(executor.await.unwrap(), Exit::Reported);
}

/// The real work behind a gate, so that a test decides when an executor copies and when it hears that it has committed.
struct Gate {
    open: AtomicBool,
    committed: AtomicBool,
    let_go: AtomicBool,
}

impl Gate {
    fn closed() -> Arc<Gate> {
        Arc::new(Gate { open: false.into(), committed: false.into(), let_go: false.into() })
    }

    fn open_already() -> Arc<Gate> {
        Arc::new(Gate { open: true.into(), committed: false.into(), let_go: true.into() })
    }

    /// Lets the copy begin. Without [`Gate::committed`] it also reports at once.
    fn open(&self) {
        self.let_go.store(true, Ordering::SeqCst);
        self.open.store(true, Ordering::SeqCst);
    }

    async fn committed(&self) {
        self.let_go.store(false, Ordering::SeqCst);
        for _ in 0..600 {
            if self.committed.load(Ordering::SeqCst) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the copy did not commit within 30 s");
    }

    fn let_go(&self) {
        self.let_go.store(true, Ordering::SeqCst);
    }

    fn wait(flag: &AtomicBool) {
        for _ in 0..6000 {
            if flag.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the gate stayed closed for a minute");
    }
}

impl CopyWork for Gate {
    fn copy(
        &self,
        task: &lvault_api::task::Task,
        meter: &Arc<Meter>,
        may_commit: &lvault_executor::MayCommit,
    ) -> Result<lvault_executor::Copied, CopyError> {
        Gate::wait(&self.open);
        let done = copy_work(task, meter, may_commit);
        self.committed.store(true, Ordering::SeqCst);
        Gate::wait(&self.let_go);
        done
    }
}
