//! The same rules through an API server: every legal step is taken with the patch that the writers use, and what is not
//! legal is refused with 422, whoever writes it.

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error, ResourceExt};
use lvault_api::{LogicalVolume, LogicalVolumeStatus, Operation, TransferStatus};
use lvault_apiserver::{ApiServer, Config};
use serde_json::{Value, json};

use crate::universe::Universe;
use crate::{Rules, object, status};

async fn volumes() -> Api<LogicalVolume> {
    let server = ApiServer::open(Config::in_memory(lvault_api::crds::all())).await.expect("a server in memory");
    Api::all(Client::new(server.service(), "default"))
}

async fn create(volumes: &Api<LogicalVolume>, name: &str) -> LogicalVolume {
    let mut volume: LogicalVolume = serde_json::from_value(object(None)).expect("a LogicalVolume");
    volume.metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..kube::api::ObjectMeta::default() };
    volumes.create(&PostParams::default(), &volume).await.expect("it is created")
}

/// Writes a status as agent and executor do: only what differs, on the version that was read.
async fn write(
    volumes: &Api<LogicalVolume>,
    volume: &LogicalVolume,
    transfer: &TransferStatus,
) -> Result<LogicalVolume, Error> {
    let next: LogicalVolumeStatus = serde_json::from_value(status(transfer)).expect("a status");
    let Some(patch) = lvault_api::status::patch(volume, &next) else { return Ok(volume.clone()) };
    volumes.patch_status(&volume.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await
}

fn assert_invalid<T: std::fmt::Debug>(what: &str, answer: Result<T, Error>) {
    match answer {
        Err(Error::Api(refusal)) if refusal.code == 422 && refusal.reason == "Invalid" => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// The shortest way of legal steps from nothing to each status.
fn ways(universe: &Universe) -> Vec<Vec<usize>> {
    let mut ways: Vec<Option<Vec<usize>>> = vec![None; universe.stands.len()];
    // Steps are found in the order of the walk: an origin has its way before its steps.
    for (from, _, to) in &universe.steps {
        let before = from.map_or(Some(Vec::new()), |from| ways[from].clone()).expect("the origin was reached");
        ways[*to].get_or_insert_with(|| [before, vec![*to]].concat());
    }
    ways.into_iter().map(|way| way.expect("every status was reached by a step")).collect()
}

#[tokio::test]
async fn every_legal_way_can_be_gone_and_no_other() {
    let (rules, volumes) = (Rules::of_the_crd(), volumes().await);
    let universe = Universe::of(Operation::Backup);
    let (mut taken, mut refused) = (0, 0);
    for (at, way) in ways(&universe).into_iter().enumerate() {
        let mut volume = create(&volumes, &format!("v{at}")).await;
        for step in way {
            let next = &universe.stands[step].status;
            volume = write(&volumes, &volume, next).await.expect("a legal step");
            assert_eq!(volume.status.clone().unwrap_or_default().online_snapshot.as_ref(), Some(next));
            taken += 1;
        }
        let old = &universe.stands[at].status;
        // A tenth of the others, another tenth for each status.
        for new in universe.stands.iter().skip(at % 10).step_by(10).map(|stand| &stand.status) {
            if rules.broken_by(Operation::Backup, Some(old), Some(new)).is_empty() {
                continue;
            }
            assert_invalid("an illegal step", write(&volumes, &volume, new).await);
            refused += 1;
        }
    }
    assert!(taken > 300 && refused > 1000, "{taken} steps were taken and {refused} refused");
}

#[tokio::test]
async fn what_stands_is_not_removed_by_any_verb() {
    let volumes = volumes().await;
    let universe = Universe::of(Operation::Backup);
    let volume = create(&volumes, "monday").await;
    let volume = write(&volumes, &volume, &universe.stands[0].status).await.expect("the first status");
    let params = PatchParams::default();
    let merge = |patch: Value| Patch::Merge(patch);
    assert_invalid(
        "the transfer",
        volumes.patch_status("monday", &params, &merge(json!({"status": {"onlineSnapshot": null}}))).await,
    );
    assert_invalid("the status", volumes.patch_status("monday", &params, &merge(json!({"status": null}))).await);
    let mut without = volume.clone();
    without.status = None;
    assert_invalid("a status left out", volumes.replace_status("monday", &PostParams::default(), &without).await);
    without.status = Some(LogicalVolumeStatus::default());
    assert_invalid("an empty status", volumes.replace_status("monday", &PostParams::default(), &without).await);
    // A write to the object itself does not touch the status.
    without.status = None;
    without.labels_mut().insert("touched".to_owned(), "yes".to_owned());
    let touched = volumes.replace("monday", &PostParams::default(), &without).await.expect("a label is no status");
    assert_eq!(touched.status, volume.status);
}

#[tokio::test]
async fn two_who_read_the_same_version_do_not_both_write() {
    let volumes = volumes().await;
    let universe = Universe::of(Operation::Backup);
    let volume = create(&volumes, "monday").await;
    let volume = write(&volumes, &volume, &universe.stands[0].status).await.expect("the first status");
    let mut claims =
        universe.after(Some(0)).filter(|status| status.executor.as_ref().is_some_and(|e| e.name.is_some()));
    let (first, second) = (claims.next().expect("a claim"), claims.next().expect("another"));
    write(&volumes, &volume, first).await.expect("the first claim");
    match write(&volumes, &volume, second).await {
        Err(Error::Api(refusal)) if refusal.code == 409 => {}
        other => panic!("both claimed: {other:?}"),
    }
}
