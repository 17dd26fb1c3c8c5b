//! What a status says about each kind of storage, and that it is said once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lvault_api::StoragePhase::{Error, Pending, Ready};
use lvault_backup::{Location, Password, Repository, RepositoryPath};
use lvault_controller::{Config, ControllerError, RepositoryCheck};
use serde_json::{Value, json};

use crate::support::{LIMIT, PASSWORD, World, assert_secret_free, counted, local, quick, server, slow};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn repository(root: &Path, password: &str) {
    let location = Location::Local { root: root.to_owned() };
    let path = RepositoryPath::parse("default/data").expect("a path");
    let password = Password::new(password).expect("a password");
    Repository::open_or_init(&location, &path, &password).expect("a repository");
}

#[tokio::test]
async fn an_empty_folder_and_one_with_a_repository_are_ready() {
    let (empty, used) = (folder(), folder());
    repository(used.path(), PASSWORD);
    // One check only, so that none is under way when the folder is looked at.
    let world = World::with(server().await, slow(), Arc::new(RepositoryCheck::default()));
    world.add("empty", empty.path()).await;
    world.add("used", used.path()).await;
    for name in ["empty", "used"] {
        let status = world.until_phase(name, Ready).await;
        assert_eq!((status.message, status.observed_generation), (None, Some(1)));
        assert!(status.last_checked.is_some());
        assert!(world.get(name).await.is_ready());
    }
    world.end().await;
    assert_eq!(fs::read_dir(empty.path()).expect("the folder").count(), 0, "a check leaves nothing behind");
}

/// A storage that cannot be used says why and what to do, and is not written to again.
async fn refused(spec: Value, secret: Option<Value>, expected: &[&str]) {
    let (checks, check) = counted();
    let world = World::with(server().await, quick(), check);
    if let Some(keys) = secret {
        world.secret("s", keys).await;
    }
    world.create("s", spec.clone()).await;
    let status = world.until_phase("s", Error).await;
    let message = status.message.clone().expect("an error has a message");
    for part in expected {
        assert!(message.contains(part), "{spec}: '{part}' is missing in: {message}");
    }
    assert_secret_free(&status);
    if checks.load(std::sync::atomic::Ordering::SeqCst) > 0 {
        world.stays_untouched("s", &checks).await;
    }
    world.end().await;
}

fn password() -> Option<Value> {
    Some(json!({"RESTIC_PASSWORD": PASSWORD}))
}

#[tokio::test]
async fn a_spec_that_makes_no_sense_names_its_field() {
    let s3 = |endpoint: &str| json!({"storage": {"provider": "s3", "s3": {"endpoint": endpoint, "bucket": "b"}}});
    refused(s3("ftp://e"), password(), &["spec.storage.s3.endpoint", "https://HOST"]).await;
    refused(s3("https://e"), password(), &["AWS_ACCESS_KEY_ID", "missing", "Secret"]).await;
    refused(local(Path::new("backup")), password(), &["spec.storage.local.path", "absolute"]).await;
    refused(local(Path::new("/a/../b")), password(), &["spec.storage.local.path", "'..'"]).await;
    refused(json!({"storage": {"provider": "local"}}), password(), &["spec.storage.local.path"]).await;
    let mut engine = local(Path::new("/tmp"));
    engine["engine"] = json!("kopia");
    refused(engine, password(), &["spec.engine", "restic"]).await;
}

#[tokio::test]
async fn a_secret_that_is_no_use_is_named_with_its_remedy() {
    let folder = folder();
    let spec = local(folder.path());
    refused(spec.clone(), None, &["default/s", "not there", "RESTIC_PASSWORD"]).await;
    refused(spec.clone(), Some(json!({"PASSWORD": PASSWORD})), &["default/s", "no key RESTIC_PASSWORD"]).await;
    refused(spec.clone(), Some(json!({"RESTIC_PASSWORD": ""})), &["default/s", "empty"]).await;
    let named = json!({"storage": {"provider": "local", "local": {"path": folder.path(), "secretName": "other"}}});
    refused(named, password(), &["default/other", "not there"]).await;
}

#[tokio::test]
async fn a_place_that_is_no_use_is_named_with_what_happened() {
    let folder = folder();
    refused(local(&folder.path().join("gone")), password(), &["gone"]).await;
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("a file");
    refused(local(&file), password(), &["file"]).await;
    // Nobody may create a file there, root included.
    refused(local(&PathBuf::from("/sys")), password(), &["/sys"]).await;
    repository(folder.path(), "another one");
    refused(local(folder.path()), password(), &["password", "RESTIC_PASSWORD"]).await;
}

#[tokio::test]
async fn a_password_that_is_no_text_is_not_shown() {
    let folder = folder();
    let world = World::new().await;
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(world.client.clone());
    // "battery" and a byte that is no UTF-8.
    let object = json!({"metadata": {"name": "s"}, "data": {"RESTIC_PASSWORD": "YmF0dGVyef8="}});
    let secret = serde_json::from_value(object).expect("a Secret");
    secrets.create(&kube::api::PostParams::default(), &secret).await.expect("the Secret is created");
    world.create("s", local(folder.path())).await;
    let status = world.until_phase("s", Error).await;
    assert!(status.message.as_deref().is_some_and(|message| message.contains("UTF-8")), "{status:?}");
    assert_secret_free(&status);
    world.end().await;
}

#[tokio::test]
async fn what_was_repaired_is_ready_again_and_says_nothing_old() {
    let folder = folder();
    // What is wrong is looked at again soon, however long the interval is.
    let config = Config { interval: LIMIT * 100, ..quick() };
    let world = World::with(server().await, config, Arc::new(RepositoryCheck::default()));
    let place = folder.path().join("later");
    world.create("s", local(&place)).await;
    world.until_phase("s", Error).await;
    world.secret("s", json!({"RESTIC_PASSWORD": "wrong"})).await;
    world.until("s", |s| message(s).contains("later")).await;
    fs::create_dir(&place).expect("the folder");
    repository(&place, PASSWORD);
    world.until("s", |s| message(s).contains("password does not open")).await;
    world.secret("s", json!({"RESTIC_PASSWORD": PASSWORD})).await;
    assert_eq!(world.until_phase("s", Ready).await.message, None);
    world.change("s", json!({"spec": {"storage": {"local": {"path": "/nowhere"}}}})).await;
    assert_eq!(world.until_phase("s", Error).await.observed_generation, Some(2));
    world.end().await;
}

fn message(storage: &lvault_api::SnapshotBackupStorage) -> String {
    storage.status.clone().unwrap_or_default().message.unwrap_or_default()
}

#[tokio::test]
async fn a_storage_at_rest_is_checked_and_never_written() {
    let folder = folder();
    let (checks, check) = counted();
    let world = World::with(server().await, quick(), check);
    world.add("s", folder.path()).await;
    world.until_phase("s", Ready).await;
    world.stays_untouched("s", &checks).await;
    world.end().await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_does_not_hide_the_others() {
    let folder = folder();
    let mut crds = lvault_api::crds::all();
    for crd in &mut crds {
        // As if an older CRD had let the object in.
        let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        *schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let server = lvault_apiserver::ApiServer::open(lvault_apiserver::Config::in_memory(crds)).await.expect("a server");
    let client = kube::Client::new(server.service(), "default");
    let resource = kube::api::ApiResource::erase::<lvault_api::SnapshotBackupStorage>(&());
    let objects: kube::Api<kube::api::DynamicObject> = kube::Api::default_namespaced_with(client.clone(), &resource);
    let mut object = kube::api::DynamicObject::new("odd", &resource);
    object.data = json!({"spec": {"storage": {"provider": "tape"}}});
    objects.create(&kube::api::PostParams::default(), &object).await.expect("it is created");

    let world = World::with(client, quick(), Arc::new(RepositoryCheck::default()));
    world.add("s", folder.path()).await;
    let status = || async { objects.get("odd").await.expect("it is there").data["status"].clone() };
    let said = async {
        while status().await["phase"] != "Error" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, said).await.expect("it is said what is wrong");
    assert!(status().await["message"].to_string().contains("tape"), "{}", status().await);
    while objects.get("s").await.expect("it is there").data["status"]["phase"] != "Ready" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.end().await;
}

#[tokio::test]
async fn without_the_crd_it_says_so_and_ends() {
    let server = lvault_apiserver::ApiServer::open(lvault_apiserver::Config::in_memory(Vec::new())).await;
    let client = kube::Client::new(server.expect("a server").service(), "default");
    let run = lvault_controller::run(client, quick(), std::future::pending());
    let ended = tokio::time::timeout(LIMIT, run).await.expect("it ends at once");
    let Err(error @ ControllerError::List { .. }) = ended else { panic!("it went on: {ended:?}") };
    assert!(error.to_string().contains("deploy/crds"), "{error}");
}

#[tokio::test]
async fn nothing_is_checked_that_nobody_wants_checked() {
    let folder = folder();
    let (checks, check) = counted();
    let world = World::with(server().await, quick(), check);
    let mut spec = local(folder.path());
    spec["validateOnCreate"] = json!(false);
    world.create("s", spec).await;
    let status = world.until_phase("s", Pending).await;
    assert!(status.message.is_some_and(|message| message.contains("validateOnCreate")));
    assert_eq!((status.observed_generation, status.last_checked), (None, None));
    assert!(world.get("s").await.is_ready(), "without a check it may be used");
    assert_eq!(checks.load(std::sync::atomic::Ordering::SeqCst), 0);
    world.end().await;
}
