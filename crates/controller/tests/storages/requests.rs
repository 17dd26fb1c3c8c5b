//! A check that somebody asked for is made and answered, once.

use std::sync::atomic::Ordering;

use kube::ResourceExt;
use lvault_api::StoragePhase::{Error, Ready};
use lvault_controller::{CHECK_ANSWERED, CHECK_REQUESTED, check_is_answered};
use serde_json::json;

use crate::support::{World, counted, local, quick, server, slow};

async fn ask(world: &World, request: &str) {
    world.change("s", json!({"metadata": {"annotations": {CHECK_REQUESTED: request}}})).await;
    world.until("s", check_is_answered).await;
    assert_eq!(world.get("s").await.annotations().get(CHECK_ANSWERED).map(String::as_str), Some(request));
}

#[tokio::test]
async fn a_request_is_answered_also_where_nothing_changed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (checks, check) = counted();
    let world = World::with(server().await, slow(), check);
    world.add("s", folder.path()).await;
    world.until_phase("s", Ready).await;
    for (number, request) in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"].into_iter().enumerate() {
        ask(&world, request).await;
        assert_eq!(checks.load(Ordering::SeqCst), number + 2, "one check for each request");
        assert_eq!(world.get("s").await.status.unwrap_or_default().phase, Some(Ready));
    }
    std::fs::remove_dir(folder.path()).expect("the folder goes");
    ask(&world, "again").await;
    assert_eq!(world.get("s").await.status.unwrap_or_default().phase, Some(Error), "the answer is a new one");
    world.end().await;
}

#[tokio::test]
async fn a_request_is_answered_for_a_storage_that_is_not_checked_by_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (checks, check) = counted();
    let world = World::with(server().await, quick(), check);
    world.secret("s", json!({"RESTIC_PASSWORD": "p"})).await;
    let mut spec = local(folder.path());
    spec["validateOnCreate"] = json!(false);
    world.create("s", spec).await;
    ask(&world, "now").await;
    assert_eq!(world.until_phase("s", Ready).await.observed_generation, Some(1));
    let version = world.get("s").await.resource_version();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(checks.load(Ordering::SeqCst), 1, "it is not checked by itself");
    assert_eq!(world.get("s").await.resource_version(), version, "and its answer stays");
    world.end().await;
}
