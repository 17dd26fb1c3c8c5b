//! What happens meanwhile: others write, delete, hang, or the answer is lost.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::{Client, ResourceExt};
use lvault_api::StoragePhase::{Error, Pending, Ready};
use lvault_controller::{Config, Finding, RepositoryCheck, StorageCheck, Target};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{
    Before, LIMIT, World, assert_secret_free, change_of, counted, create, local, more, quick, server,
};

/// Checks, and does something to the API before each check.
fn meddling<F>(client: &Client, action: F) -> (Arc<AtomicUsize>, Arc<dyn StorageCheck>)
where
    F: Fn(usize, Client) -> BoxFuture<'static, ()> + Send + Sync + 'static,
{
    let checks = Arc::new(AtomicUsize::new(0));
    let client = client.clone();
    let action = move |number, _: &Target| action(number, client.clone());
    (Arc::clone(&checks), Arc::new(Before { checks, action }))
}

#[tokio::test]
async fn a_conflict_means_read_again_and_decide_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = server().await;
    let (checks, check) = meddling(&client, |number, client| {
        let label = json!({"metadata": {"labels": {"written-meanwhile": number.to_string()}}});
        async move { change_of(&client, "s", label).await }.boxed()
    });
    let slow = Config { interval: LIMIT * 100, ..quick() };
    let world = World::with(client, slow, check);
    world.add("s", folder.path()).await;
    world.until_phase("s", Ready).await;
    let storage = world.get("s").await;
    assert_eq!(storage.labels().get("written-meanwhile").map(String::as_str), Some("1"), "the other write stays");
    assert_eq!(checks.load(Ordering::SeqCst), 1, "what was found still held: no second check");
    world.end().await;
}

#[tokio::test]
async fn what_was_found_about_an_old_spec_is_not_said_of_a_new_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = server().await;
    let (_, check) = meddling(&client, |number, client| {
        async move {
            if number == 1 {
                let gone = json!({"spec": {"storage": {"local": {"path": "/nowhere"}}}});
                change_of(&client, "s", gone).await;
            }
        }
        .boxed()
    });
    let world = World::with(client, quick(), check);
    world.add("s", folder.path()).await;
    world.until("s", |storage| storage.status.is_some()).await;
    let status = world.get("s").await.status.unwrap_or_default();
    assert_eq!((status.phase, status.observed_generation), (Some(Error), Some(2)), "the first answer is the new one's");
    world.end().await;
}

#[tokio::test]
async fn a_storage_deleted_while_it_is_checked_is_no_trouble() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let client = server().await;
    let (checks, check) = meddling(&client, |number, client| {
        async move {
            if number == 1 {
                let storages = kube::Api::<lvault_api::SnapshotBackupStorage>::default_namespaced(client.clone());
                storages.delete("s", &kube::api::DeleteParams::default()).await.expect("it is deleted");
            }
            if number == 2 {
                let storages = kube::Api::<lvault_api::SnapshotBackupStorage>::default_namespaced(client.clone());
                storages.delete("t", &kube::api::DeleteParams::default()).await.expect("it is deleted");
                create(&client, "t", local(Path::new("/nowhere"))).await;
            }
        }
        .boxed()
    });
    let world = World::with(client, quick(), check);
    world.add("s", folder.path()).await;
    more(&checks, 1).await;
    world.add("t", folder.path()).await;
    world.until("t", |storage| storage.status.is_some()).await;
    let phase = world.get("t").await.status.unwrap_or_default().phase;
    assert_eq!(phase, Some(Error), "the answer about the old t is not said of the new one");
    world.add("u", folder.path()).await;
    world.until_phase("u", Ready).await;
    assert!(world.storages().get_opt("s").await.expect("an answer").is_none());
    world.end().await;
}

/// Never answers for folders of this name while `stuck` says so.
struct Stuck {
    checks: Arc<AtomicUsize>,
    stuck: Arc<Mutex<bool>>,
}

impl StorageCheck for Stuck {
    fn check(&self, target: Target) -> BoxFuture<'static, Finding> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        let stuck = *self.stuck.lock().expect("no panic") && target.location.to_string().ends_with("stuck");
        if stuck { std::future::pending().boxed() } else { RepositoryCheck::default().check(target) }
    }
}

#[tokio::test]
async fn a_storage_that_gives_no_answer_holds_up_nobody_and_changes_no_phase() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("stuck");
    std::fs::create_dir(&place).expect("the folder");
    let (checks, stuck) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(true)));
    let check = Arc::new(Stuck { checks: Arc::clone(&checks), stuck: Arc::clone(&stuck) });
    let config = Config { check_timeout: Duration::from_millis(300), ..quick() };
    let world = World::with(server().await, config, check);
    for name in ["stuck1", "stuck2"] {
        world.add(name, &place).await;
    }
    for name in ["a", "b", "c"] {
        world.add(name, folder.path()).await;
        world.until_phase(name, Ready).await;
    }
    let status = world.until_phase("stuck1", Pending).await;
    assert!(status.message.is_some_and(|message| message.contains("no answer within 0.3 s")));
    assert_eq!((status.observed_generation, status.last_checked), (None, None));

    *stuck.lock().expect("no panic") = false;
    world.until_phase("stuck1", Ready).await;
    *stuck.lock().expect("no panic") = true;
    more(&checks, 1).await;
    world.stays_untouched("stuck1", &checks).await;
    world.until_phase("stuck1", Ready).await;
    world.end().await;
}

#[tokio::test]
async fn the_end_is_not_held_up_by_a_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("stuck");
    std::fs::create_dir(&place).expect("the folder");
    let checks = Arc::new(AtomicUsize::new(0));
    let check = Arc::new(Stuck { checks: Arc::clone(&checks), stuck: Arc::new(Mutex::new(true)) });
    let world = World::with(server().await, Config { check_timeout: LIMIT * 100, ..quick() }, check);
    world.add("s", &place).await;
    more(&checks, 1).await;
    world.end().await;
}

/// Answers of status writes are lost after they were carried out.
#[tokio::test]
async fn a_lost_answer_is_looked_at_again_and_not_written_again() {
    type Request = http::Request<kube::client::Body>;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = lvault_apiserver::ApiServer::open(lvault_apiserver::Config::in_memory(lvault_api::crds::all())).await;
    let service = server.expect("a server").service();
    let writes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&writes);
    let lossy = tower::service_fn(move |request: Request| {
        let (service, counter) = (service.clone(), Arc::clone(&counter));
        async move {
            let write = request.method() == "PATCH" && request.uri().path().ends_with("/status");
            let answer = service.clone().oneshot(request).await?;
            if write && counter.fetch_add(1, Ordering::SeqCst) == 0 {
                let lost: Result<_, Box<dyn std::error::Error + Send + Sync>> = Err("the connection broke".into());
                return lost;
            }
            Ok(answer)
        }
    });
    let (checks, check) = counted();
    let world = World::with(Client::new(lossy, "default"), quick(), check);
    world.add("s", folder.path()).await;
    world.until_phase("s", Ready).await;
    more(&checks, 3).await;
    assert_eq!(writes.load(Ordering::SeqCst), 1, "the write whose answer was lost had been made");
    world.end().await;
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_password_is_logged() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    // Of the whole process: what other tests log meanwhile may hold no password either.
    tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let world = World::new().await;
    world.add("good", folder.path()).await;
    world.add("bad", Path::new("/sys")).await;
    world.until_phase("good", Ready).await;
    world.until_phase("bad", Error).await;
    world.end().await;
    let text = String::from_utf8_lossy(&logged.0.lock().expect("no panic")).into_owned();
    assert!(text.contains("the storage can be used") && text.contains("the storage cannot be used"), "{text}");
    assert_secret_free(&text);
}
