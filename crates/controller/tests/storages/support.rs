//! One API server in memory, one controller on it, and what tests say and ask.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use lvault_api::{SnapshotBackupStorage, SnapshotBackupStorageStatus, StoragePhase};
use lvault_apiserver::ApiServer;
use lvault_controller::{Config, ControllerError, Finding, RepositoryCheck, StorageCheck, Target};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No test waits longer for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// The password of the tests: it must turn up nowhere.
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// Pauses short enough to see what happens at rest.
pub(crate) fn quick() -> Config {
    Config {
        interval: Duration::from_millis(20),
        retry_first: Duration::from_millis(10),
        retry_longest: Duration::from_millis(20),
        check_timeout: Duration::from_secs(20),
        seed: 1,
        ..Config::default()
    }
}

/// Checks come only when something changed or somebody asked.
pub(crate) fn slow() -> Config {
    let long = LIMIT * 100;
    Config { interval: long, retry_first: long, retry_longest: long, ..quick() }
}

/// An API server with a controller.
pub(crate) struct World {
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
    controller: JoinHandle<Result<(), ControllerError>>,
}

pub(crate) async fn server() -> Client {
    let server = ApiServer::open(lvault_apiserver::Config::in_memory(lvault_api::crds::all())).await;
    Client::new(server.expect("a server in memory").service(), "default")
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(server().await, quick(), Arc::new(RepositoryCheck::default()))
    }

    pub(crate) fn with(client: Client, config: Config, check: Arc<dyn StorageCheck>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shutdown = stopped.map(|_| ());
        let controller = tokio::spawn(lvault_controller::run_with(client.clone(), config, check, shutdown));
        Self { client, stop: Some(stop), controller }
    }

    pub(crate) fn storages(&self) -> Api<SnapshotBackupStorage> {
        Api::default_namespaced(self.client.clone())
    }

    /// Ends the controller; it has to end by itself, and well.
    pub(crate) async fn end(mut self) {
        self.stop
            .take()
            .expect("it was not ended before")
            .send(())
            .expect("the controller runs until it is told to end");
        let ended = tokio::time::timeout(LIMIT, self.controller).await.expect("the shutdown is not held up");
        ended.expect("no panic").expect("no error");
    }

    /// A storage in a local folder, with its Secret.
    pub(crate) async fn add(&self, name: &str, folder: &Path) {
        self.secret(name, json!({"RESTIC_PASSWORD": PASSWORD})).await;
        self.create(name, local(folder)).await;
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) {
        create(&self.client, name, spec).await;
    }

    /// Creates the Secret, or sets its keys.
    pub(crate) async fn secret(&self, name: &str, keys: Value) {
        let secrets: Api<Secret> = Api::default_namespaced(self.client.clone());
        let object = json!({"metadata": {"name": name}, "stringData": keys});
        if secrets.get_opt(name).await.expect("an answer").is_some() {
            secrets.patch(name, &PatchParams::default(), &Patch::Merge(object)).await.expect("the Secret is changed");
        } else {
            let secret = serde_json::from_value(object).expect("a Secret");
            secrets.create(&PostParams::default(), &secret).await.expect("the Secret is created");
        }
    }

    pub(crate) async fn get(&self, name: &str) -> SnapshotBackupStorage {
        self.storages().get(name).await.expect("the storage")
    }

    pub(crate) async fn change(&self, name: &str, change: Value) {
        change_of(&self.client, name, change).await;
    }

    /// Waits until the status says so.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&SnapshotBackupStorage) -> bool + Send + Sync) {
        let holds = |object: Option<&SnapshotBackupStorage>| object.is_some_and(&wanted);
        let waited = tokio::time::timeout(LIMIT, await_condition(self.storages(), name, holds)).await;
        let Ok(found) = waited else {
            panic!("it did not come to that; {name} stands at {:?}", self.get(name).await);
        };
        found.expect("the watch works");
    }

    /// Waits for a phase, for the spec as it is now.
    pub(crate) async fn until_phase(&self, name: &str, phase: StoragePhase) -> SnapshotBackupStorageStatus {
        self.until(name, |storage| {
            let status = storage.status.clone().unwrap_or_default();
            let current = status.observed_generation == storage.metadata.generation;
            status.phase == Some(phase) && (current || phase == StoragePhase::Pending)
        })
        .await;
        self.get(name).await.status.expect("a status")
    }

    /// The storage is not written to while `checks` goes on counting.
    pub(crate) async fn stays_untouched(&self, name: &str, checks: &AtomicUsize) {
        let before = self.get(name).await.resource_version();
        more(checks, 12).await;
        let after = self.get(name).await;
        assert_eq!(after.resource_version(), before, "it was written at rest: {:?}", after.status);
    }
}

/// Waits until there were so many checks more.
pub(crate) async fn more(checks: &AtomicUsize, wanted: usize) {
    let goal = checks.load(Ordering::SeqCst) + wanted;
    let reached = async {
        while checks.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, reached).await.expect("the checks go on");
}

pub(crate) fn local(folder: &Path) -> Value {
    json!({"storage": {"provider": "local", "local": {"path": folder}}})
}

pub(crate) async fn create(client: &Client, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage", "metadata": {"name": name}, "spec": spec,
    });
    let object = serde_json::from_value(object).expect("a storage");
    let storages: Api<SnapshotBackupStorage> = Api::default_namespaced(client.clone());
    storages.create(&PostParams::default(), &object).await.expect("the storage is created");
}

pub(crate) async fn change_of(client: &Client, name: &str, change: Value) {
    let storages: Api<SnapshotBackupStorage> = Api::default_namespaced(client.clone());
    storages.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("the storage is changed");
}

/// Does something before the real check, and counts.
pub(crate) struct Before<F> {
    pub(crate) checks: Arc<AtomicUsize>,
    pub(crate) action: F,
}

impl<F> StorageCheck for Before<F>
where
    F: Fn(usize, &Target) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    fn check(&self, target: Target) -> BoxFuture<'static, Finding> {
        let number = self.checks.fetch_add(1, Ordering::SeqCst) + 1;
        let before = (self.action)(number, &target);
        async move {
            before.await;
            RepositoryCheck::default().check(target).await
        }
        .boxed()
    }
}

/// Counts the real checks.
pub(crate) fn counted() -> (Arc<AtomicUsize>, Arc<dyn StorageCheck>) {
    let checks = Arc::new(AtomicUsize::new(0));
    let action = |_: usize, _: &Target| std::future::ready(()).boxed();
    (Arc::clone(&checks), Arc::new(Before { checks, action }))
}

/// No password may turn up in this.
pub(crate) fn assert_secret_free(shown: &impl Debug) {
    let shown = format!("{shown:?}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("battery"), "a password is shown: {shown}");
}
