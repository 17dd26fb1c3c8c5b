//! A place to run executors in: the embedded API, a folder with files, and a repository.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use lvault_api::task::{ApiAccess, LeaseTerms, MountedFolder, Secret, Task, Work, lease_name};
use lvault_api::{LogicalVolume, Operation, StorageReference, TransferStatus, status};
use lvault_apiserver::{ApiServer, Config};
use lvault_backup::{Location, Password, Repository, RepositoryPath, Snapshot};
use lvault_core::{Transition, next};
use lvault_executor::{Connection, Exit, Repositories, Settings, Worker, run};
use serde_json::json;
use tower::ServiceExt;

pub(crate) const PASSWORD: &str = "correct horse";

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is carried out, and the answer never arrives.
    LostAnswer,
    /// It never arrives.
    LostRequest,
    /// It is refused as a conflict although it is none.
    Conflict,
    /// The server says that it has a problem.
    ServerError,
}

pub(crate) struct Bench {
    server: ApiServer,
    pub(crate) client: Client,
    root: Arc<tempfile::TempDir>,
    name: String,
    uid: String,
}

pub(crate) struct Breakable {
    pub(crate) client: Client,
    pub(crate) broken: Arc<AtomicBool>,
}

static NONCES: AtomicU32 = AtomicU32::new(0);

pub(crate) fn settings() -> Settings {
    Settings {
        nonce: format!("n{}", NONCES.fetch_add(1, Ordering::SeqCst)),
        patience: Duration::from_secs(2),
        stall: Duration::from_secs(60),
        now: Timestamp::now,
    }
}

impl Bench {
    /// A volume with two files whose snapshot is asked for and Pending.
    pub(crate) async fn new() -> Bench {
        let root = Arc::new(tempfile::tempdir().unwrap());
        let files = root.path().join("mounted");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::create_dir_all(root.path().join("repository")).unwrap();
        std::fs::write(files.join("a"), "alpha").unwrap();
        std::fs::write(files.join("b"), "beta").unwrap();
        let server = ApiServer::open(Config::in_memory(lvault_api::crds::all())).await.unwrap();
        let client = Client::new(server.service(), "default");
        Bench::with(server, client, root, "snap").await
    }

    /// Another snapshot beside one that is there.
    pub(crate) async fn beside(other: &Bench) -> Bench {
        Bench::with(other.server.clone(), other.client.clone(), Arc::clone(&other.root), "other").await
    }

    async fn with(server: ApiServer, client: Client, root: Arc<tempfile::TempDir>, name: &str) -> Bench {
        let api: Api<LogicalVolume> = Api::all(client.clone());
        let object: LogicalVolume = serde_json::from_value(json!({
            "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": name},
            "spec": {"name": name, "nodeName": "n", "size": "1Gi", "source": "data",
                     "onlineSnapshot": {"storage": {"name": "vault"}}},
        }))
        .unwrap();
        let object = api.create(&PostParams::default(), &object).await.unwrap();
        let bench = Bench { server, client, root, name: name.to_owned(), uid: object.uid().unwrap() };
        bench.agent_writes(&Transition::Begin { attempt: lvault_core::Attempt::FIRST }).await;
        bench
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("mounted")
    }

    pub(crate) fn task(&self, launch: u32) -> Task {
        let path = self.folder();
        let device = std::fs::metadata(&path).unwrap().dev();
        let folder = MountedFolder { path: Some(path), device: Some(device) };
        let work = Work::Backup {
            attempt: 1,
            launch,
            folder,
            host: "lvault".to_owned(),
            as_path: "/data".to_owned(),
            copies: false,
            skip_unreadable: false,
            asked_at: None,
        };
        self.task_for(work)
    }

    pub(crate) fn forget_task(&self) -> Task {
        self.task_for(Work::Forget)
    }

    fn task_for(&self, work: Work) -> Task {
        let local = json!({"storage": {"provider": "local", "local": {"path": self.root.path().join("repository")}}});
        Task {
            name: "backup-snap-1-1".to_owned(),
            volume: self.name.clone(),
            uid: self.uid.clone(),
            lease: LeaseTerms {
                namespace: "default".to_owned(),
                name: lease_name(&self.uid, work.job().unwrap()),
                duration_seconds: 1,
            },
            work,
            storage: StorageReference { name: "vault".to_owned(), namespace: "default".to_owned() },
            storage_spec: serde_json::from_value(local).unwrap(),
            path: "default/data".to_owned(),
            password: Secret(PASSWORD.to_owned()),
            api: ApiAccess::InCluster,
            credentials: std::collections::BTreeMap::new(),
            progress_seconds: 1,
            key_cache: None,
        }
    }

    pub(crate) async fn run(&self, task: Task) -> Exit {
        self.start(task, Arc::new(Repositories), self.client.clone()).await
    }

    pub(crate) fn start(
        &self,
        task: Task,
        work: Arc<dyn Worker>,
        client: Client,
    ) -> impl Future<Output = Exit> + Send + 'static {
        run(task, Connection::fixed(client), work, settings())
    }

    pub(crate) async fn object(&self) -> LogicalVolume {
        Api::all(self.client.clone()).get(&self.name).await.unwrap()
    }

    pub(crate) async fn transfer(&self) -> TransferStatus {
        self.object().await.status.unwrap().online_snapshot.unwrap()
    }

    pub(crate) async fn wait_for(&self, holds: impl Fn(&TransferStatus) -> bool) {
        for _ in 0..600 {
            if holds(&self.transfer().await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not come about within 30 s: {:?}", self.transfer().await);
    }

    /// Writes a transition as the node agent does.
    pub(crate) async fn agent_writes(&self, transition: &Transition) {
        for _ in 0..100 {
            let object = self.object().await;
            let mut written = object.status.clone().unwrap_or_default();
            let current = written.online_snapshot.as_ref().map(|transfer| transfer.record().unwrap());
            let record = next(current.as_ref(), transition).unwrap();
            let fresh = || TransferStatus::begin(Operation::Backup, &record, Timestamp::now());
            written.online_snapshot.get_or_insert_with(fresh).set_record(&record);
            let patch = status::patch(&object, &written).expect("a change");
            let api: Api<LogicalVolume> = Api::all(self.client.clone());
            match api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return,
                Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
                Err(other) => panic!("{other}"),
            }
        }
        panic!("a hundred conflicts");
    }

    pub(crate) async fn lease_version(&self) -> Option<String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), "default");
        let lease = api.get_opt(&self.task(1).lease.name).await.unwrap();
        lease.and_then(|lease| lease.resource_version())
    }

    /// The lease's version once it is another than `than`, or `None` after 5 s.
    pub(crate) async fn lease_renewed_after(&self, than: Option<String>) -> Option<String> {
        for _ in 0..100 {
            let version = self.lease_version().await;
            if version != than {
                return version;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        let location = Location::Local { root: self.root.path().join("repository") };
        let path = RepositoryPath::parse("default/data").unwrap();
        match Repository::open(&location, &path, &Password::new(PASSWORD).unwrap()) {
            Ok(repository) => repository.snapshots().unwrap(),
            Err(lvault_backup::OpenError::NotFound { .. }) => Vec::new(),
            Err(other) => panic!("{other}"),
        }
    }

    /// A client whose first writes to the status meet a fault, every other one.
    pub(crate) fn faulty(&self, fault: Fault, times: u32) -> Client {
        let service = self.server.service();
        let count = Arc::new(AtomicU32::new(0));
        let faulty = tower::service_fn(move |request: Request<Body>| {
            let (service, count) = (service.clone(), Arc::clone(&count));
            async move {
                let hit = request.method() == Method::PATCH && request.uri().path().ends_with("/status") && {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    number < times && number.is_multiple_of(2)
                };
                let lost = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                match (hit, fault) {
                    (false, _) => {}
                    (true, Fault::LostRequest) => return Err(lost()),
                    (true, Fault::LostAnswer) => {
                        let _ = service.oneshot(request).await;
                        return Err(lost());
                    }
                    (true, Fault::Conflict) => return Ok(refusal(StatusCode::CONFLICT)),
                    (true, Fault::ServerError) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)),
                }
                let answer = service.oneshot(request).await.unwrap_or_else(|never| match never {});
                Ok(answer.map(boxed))
            }
        });
        Client::new(faulty, "default")
    }

    /// A client that reaches nobody once it is broken.
    pub(crate) fn breakable(&self) -> Breakable {
        let service = self.server.service();
        let broken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&broken);
        let breaking = tower::service_fn(move |request: Request<Body>| {
            let (service, flag) = (service.clone(), Arc::clone(&flag));
            async move {
                if flag.load(Ordering::SeqCst) {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                }
                let answer = service.oneshot(request).await.unwrap_or_else(|never| match never {});
                Ok(answer.map(boxed))
            }
        });
        Breakable { client: Client::new(breaking, "default"), broken }
    }
}

type Answer = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

fn boxed<B>(body: B) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    UnsyncBoxBody::new(body.map_err(Into::into))
}

fn refusal(code: StatusCode) -> Response<Answer> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Injected",
                        "message": "injected", "code": code.as_u16()});
    Response::builder().status(code).body(boxed(Full::new(Bytes::from(status.to_string())))).unwrap()
}
