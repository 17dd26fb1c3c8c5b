//! Space is given back on a schedule: once when it is due, storage by storage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use lvault_api::StoragePhase;
use lvault_backup::{
    BackUp, ChangeDetection, Host, Key, Location, OnReadError, Password, Repository, RepositoryPath, Silent, SourcePath,
};
use lvault_controller::{Config, Pruned, RepositoryPrune, StoragePrune, Target, prune_with};
use serde_json::json;

use super::support::{PASSWORD, World, assert_secret_free, local, quick, slow};

/// A day and an hour ahead: what was made now is due.
fn tomorrow() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(25)
}

fn looking_often() -> Config {
    Config { prune_look: Duration::from_millis(10), clock: tomorrow, ..quick() }
}

/// Counts the prunes of each folder; those of folders that end with `stuck` never come back.
#[derive(Default)]
struct Counted(Mutex<BTreeMap<String, usize>>);

impl StoragePrune for Counted {
    fn prune(&self, target: Target, max_unused: u8) -> BoxFuture<'static, Pruned> {
        let folder = target.location.to_string();
        *self.0.lock().unwrap().entry(folder.clone()).or_default() += 1;
        if folder.ends_with("stuck") {
            return std::future::pending().boxed();
        }
        std::future::ready(Pruned { repositories: 3, freed: u64::from(max_unused), ..Pruned::default() }).boxed()
    }
}

fn with_policy(folder: &std::path::Path, policy: serde_json::Value) -> serde_json::Value {
    let mut spec = local(folder);
    spec["prune"] = policy;
    spec
}

#[tokio::test]
async fn a_storage_is_pruned_once_when_it_is_due_and_one_that_hangs_stops_no_other() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    for (name, policy) in [("a", json!({"maxUnusedPercent": 7})), ("stuck", json!({})), ("not", json!(null))] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        world.secret(name, json!({"RESTIC_PASSWORD": PASSWORD})).await;
        world.create(name, with_policy(&folder.path().join(name), policy)).await;
    }
    let counted = Arc::new(Counted::default());
    let pruning =
        tokio::spawn(prune_with(world.client.clone(), looking_often(), Arc::clone(&counted) as Arc<dyn StoragePrune>));
    world.until("a", |storage| storage.status.as_ref().is_some_and(|status| status.prune.is_some())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let status = world.get("a").await.status.unwrap();
    let prune = status.prune.unwrap();
    assert_eq!((prune.repositories, prune.freed_bytes, prune.message), (3, 7, None));
    let counts: Vec<usize> = counted.0.lock().unwrap().values().copied().collect();
    assert_eq!(counts, [1, 1], "once each, and not where it is not wanted");
    world.until_phase("a", StoragePhase::Ready).await;
    assert!(world.get("a").await.status.unwrap().prune.is_some(), "the check leaves it alone");
    assert!(world.get("stuck").await.status.unwrap_or_default().prune.is_none());
    pruning.abort();
    world.end().await;
}

#[tokio::test]
async fn what_was_forgotten_is_given_back_and_what_cannot_be_pruned_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("file"), vec![7; 300_000]).unwrap();
    let location = Location::Local { root: folder.path().to_owned() };
    let open = |path: &str, password: &str| {
        let (path, password) = (RepositoryPath::parse(path).unwrap(), Password::new(password).unwrap());
        Repository::open_or_init(&location, &path, &password).unwrap()
    };
    let repository = open("default/data", PASSWORD);
    let what = BackUp {
        root: volume.path().to_owned(),
        as_path: SourcePath::new("/data").unwrap(),
        host: Host::new("host").unwrap(),
        key: Key::new("uid", 1).unwrap(),
        tags: Vec::new(),
        time: Timestamp::now(),
        change_detection: ChangeDetection::ChangeTime,
        on_read_error: OnReadError::Fail,
    };
    repository.back_up(&what, Arc::new(Silent)).unwrap();
    repository.forget("uid").unwrap();
    open("default/other", "another password");

    let world = World::with(super::support::server().await, slow(), super::support::counted().1);
    world.secret("main", json!({"RESTIC_PASSWORD": PASSWORD})).await;
    world.create("main", with_policy(folder.path(), json!({"intervalHours": 1}))).await;
    let pruning = tokio::spawn(prune_with(world.client.clone(), looking_often(), Arc::new(RepositoryPrune)));
    world.until("main", |storage| storage.status.as_ref().is_some_and(|status| status.prune.is_some())).await;
    pruning.abort();
    let storage = world.get("main").await;
    assert_secret_free(&storage);
    let prune = storage.status.unwrap().prune.unwrap();
    assert_eq!((prune.repositories, prune.total_bytes, prune.reclaimable_bytes), (2, 0, 0));
    assert!(prune.freed_bytes > 0, "{prune:?}");
    let message = prune.message.unwrap();
    assert!(message.starts_with("default/other: ") && message.contains("password"), "{message}");
    world.end().await;
}
