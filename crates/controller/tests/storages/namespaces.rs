//! Storages of two namespaces in one place, each with a password of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, PostParams};
use lvault_api::{SnapshotBackupStorage, StoragePhase};
use lvault_backup::{
    BackUp, ChangeDetection, Host, Key, Location, OnReadError, Password, ReadData, Repository, RepositoryPath, Silent,
    SourcePath,
};
use lvault_controller::{Config, RepositoryPrune, prune_with};
use serde_json::json;

use super::support::{LIMIT, World, local, quick};

const TEAMS: [&str; 2] = ["team-a", "team-b"];

fn password(team: &str) -> Password {
    Password::new(format!("the password of {team}")).unwrap()
}

fn open(folder: &Path, team: &str) -> Repository {
    let location = Location::Local { root: folder.to_owned() };
    let path = RepositoryPath::parse(format!("{team}/data")).unwrap();
    Repository::open_or_init(&location, &path, &password(team)).unwrap()
}

/// A repository with one snapshot, and as much again that nobody needs.
fn litter(folder: &Path, team: &str) {
    let volume = tempfile::tempdir().unwrap();
    let repository = open(folder, team);
    for (uid, byte) in [("kept", 1), ("forgotten", 2)] {
        std::fs::write(volume.path().join("file"), vec![byte; 300_000]).unwrap();
        let what = BackUp {
            root: volume.path().to_owned(),
            as_path: SourcePath::new("/data").unwrap(),
            host: Host::new("host").unwrap(),
            key: Key::new(uid, 1).unwrap(),
            tags: Vec::new(),
            time: Timestamp::now(),
            change_detection: ChangeDetection::ChangeTime,
            on_read_error: OnReadError::Fail,
        };
        repository.back_up(&what, Arc::new(Silent)).unwrap();
    }
    repository.forget("forgotten").unwrap();
}

async fn add(client: &Client, team: &str, folder: &Path) {
    let namespace = json!({"metadata": {"name": team}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    let secret = json!({
        "metadata": {"name": "vault"}, "stringData": {"RESTIC_PASSWORD": format!("the password of {team}")},
    });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), team);
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let mut spec = local(folder);
    spec["prune"] = json!({"maxUnusedPercent": 0});
    let storage = json!({
        "apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage", "metadata": {"name": "vault"}, "spec": spec,
    });
    let storages: Api<SnapshotBackupStorage> = Api::namespaced(client.clone(), team);
    storages.create(&PostParams::default(), &serde_json::from_value(storage).unwrap()).await.unwrap();
}

async fn until(client: &Client, team: &str, holds: impl Fn(&SnapshotBackupStorage) -> bool) -> SnapshotBackupStorage {
    let storages: Api<SnapshotBackupStorage> = Api::namespaced(client.clone(), team);
    let look = async {
        loop {
            let storage = storages.get("vault").await.unwrap();
            if holds(&storage) {
                return storage;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await.unwrap_or_else(|_| panic!("{team} did not come to that"))
}

fn tomorrow() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(25)
}

#[tokio::test]
async fn two_storages_in_one_place_keep_to_their_own_repositories() {
    let folder = tempfile::tempdir().unwrap();
    TEAMS.iter().for_each(|team| litter(folder.path(), team));
    let world = World::new().await;
    for team in TEAMS {
        add(&world.client, team, folder.path()).await;
    }
    for team in TEAMS {
        let is_ready = |storage: &SnapshotBackupStorage| {
            storage.status.as_ref().is_some_and(|status| status.phase == Some(StoragePhase::Ready))
        };
        until(&world.client, team, is_ready).await;
    }
    let often = Config { prune_look: Duration::from_millis(10), clock: tomorrow, ..quick() };
    let pruning = tokio::spawn(prune_with(world.client.clone(), often, Arc::new(RepositoryPrune)));
    for team in TEAMS {
        let is_pruned =
            |storage: &SnapshotBackupStorage| storage.status.as_ref().is_some_and(|status| status.prune.is_some());
        let status = until(&world.client, team, is_pruned).await.status.unwrap();
        assert_eq!((status.phase, status.message), (Some(StoragePhase::Ready), None), "{team}");
        let prune = status.prune.unwrap();
        assert_eq!((prune.repositories, &prune.message), (1, &None), "{team} sees its own only");
        assert!(prune.freed_bytes > 0 && prune.total_bytes > 0 && prune.reclaimable_bytes == 0, "{team}: {prune:?}");
    }
    pruning.abort();
    for (team, other) in [("team-a", "team-b"), ("team-b", "team-a")] {
        let repository = open(folder.path(), team);
        assert_eq!(repository.snapshots().unwrap().len(), 1);
        assert!(repository.check(ReadData::Everything, &Silent).unwrap().is_clean());
        let location = Location::Local { root: folder.path().to_owned() };
        let theirs = RepositoryPath::parse(format!("{other}/data")).unwrap();
        assert!(Repository::open(&location, &theirs, &password(team)).is_err());
    }
    world.end().await;
}
