//! A node in a test: the embedded API, the directory engine, and executors that the test plays.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

mod engine;
mod launcher;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use lvault_api::conditions::{self, Said};
use lvault_api::task::lease_name;
use lvault_api::{LogicalVolume, LogicalVolumeStatus, SnapshotBackupStorage, TransferStatus, status};
use lvault_apiserver::{ApiServer, ClusterKind, Config};
use lvault_core::{Claim, Held, Holder, Job, Launch, State, Transition, VolumeId, next};
use lvault_node::{Agent, AgentConfig};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

pub(crate) use engine::TestEngine;
pub(crate) use launcher::TestLauncher;

/// What happens to every other write of the agent, for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    LostAnswer,
    Conflict,
    ServerError,
}

pub(crate) struct Bench {
    server: ApiServer,
    pub(crate) client: Client,
    pub(crate) engine: Arc<TestEngine>,
    pub(crate) launcher: Arc<TestLauncher>,
    root: tempfile::TempDir,
    /// The agent's requests, by method and path.
    requests: Arc<Mutex<BTreeMap<(String, String), usize>>>,
}

pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    agent: JoinHandle<Result<(), lvault_node::AgentError>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.agent.await.unwrap().unwrap();
    }
}

impl Bench {
    pub(crate) async fn new() -> Bench {
        let root = tempfile::tempdir().unwrap();
        let server =
            ApiServer::open(Config::in_memory(lvault_api::crds::all()).with_kinds(&[ClusterKind::Node])).await.unwrap();
        let client = Client::new(server.service(), "default");
        let engine = Arc::new(TestEngine::open(root.path()));
        let bench = Bench { server, client, engine, launcher: Arc::default(), root, requests: Arc::default() };
        bench.create_storage("vault").await;
        bench
    }

    pub(crate) fn agent(&self) -> Running {
        self.agent_with(|_| {})
    }

    pub(crate) fn agent_with(&self, change: impl FnOnce(&mut AgentConfig)) -> Running {
        self.start(self.watched(None), change)
    }

    pub(crate) fn faulty_agent(&self, fault: Fault) -> Running {
        self.start(self.watched(Some(fault)), |_| {})
    }

    fn start(&self, client: Client, change: impl FnOnce(&mut AgentConfig)) -> Running {
        let state = self.root.path().to_owned();
        let mut config = AgentConfig::for_host("n".to_owned(), state.clone(), state.join("kubeconfig"));
        config.lease_duration = Duration::from_secs(6);
        change(&mut config);
        let agent = Agent::new(client, self.engine.clone(), self.launcher.clone(), config);
        let (stop, stopped) = oneshot::channel();
        let agent = tokio::spawn(agent.run(async move {
            let _ = stopped.await;
        }));
        Running { stop, agent }
    }

    /// A client that counts requests, and meets a fault with every other of its first writes.
    fn watched(&self, fault: Option<Fault>) -> Client {
        let (service, requests) = (self.server.service(), Arc::clone(&self.requests));
        let count = Arc::new(AtomicU32::new(0));
        let watched = tower::service_fn(move |request: Request<Body>| {
            let (service, requests, count) = (service.clone(), Arc::clone(&requests), Arc::clone(&count));
            async move {
                let key = (request.method().to_string(), request.uri().path().to_owned());
                *requests.lock().unwrap().entry(key).or_default() += 1;
                let hit = request.method() == Method::PATCH && {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    number < 20 && number.is_multiple_of(2)
                };
                match fault.filter(|_| hit) {
                    None => {}
                    Some(Fault::LostAnswer) => {
                        let _ = service.oneshot(request).await;
                        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
                    }
                    Some(Fault::Conflict) => return Ok(refusal(StatusCode::CONFLICT)),
                    Some(Fault::ServerError) => return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR)),
                }
                let answer = service.oneshot(request).await.unwrap_or_else(|never| match never {});
                Ok(answer.map(boxed))
            }
        });
        Client::new(watched, "default")
    }

    fn counted(&self, matches: impl Fn(&str, &str) -> bool) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|((method, path), _)| matches(method, path)).map(|(_, count)| count).sum()
    }

    /// How often the agent has written to one volume.
    pub(crate) fn writes(&self, name: &str) -> usize {
        let path = format!("/logicalvolumes/{name}");
        self.counted(|method, at| method != "GET" && (at.ends_with(&path) || at.contains(&format!("{path}/"))))
    }

    /// How often the agent has written to anything.
    pub(crate) fn all_writes(&self) -> usize {
        self.counted(|method, _| method != "GET")
    }

    /// Waits until the agent has looked at volumes this many more times.
    pub(crate) async fn passes(&self, more: usize) {
        let looks = || self.counted(|method, path| method == "GET" && path.contains("/logicalvolumes/"));
        let before = looks();
        wait_until("passes of the agent", async || looks() >= before + more).await;
    }

    fn volumes(&self) -> Api<LogicalVolume> {
        Api::all(self.client.clone())
    }

    async fn create(&self, name: &str, spec: Value) {
        let object = json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume",
                            "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).unwrap();
        self.volumes().create(&PostParams::default(), &object).await.unwrap();
    }

    pub(crate) async fn create_volume(&self, name: &str, size: &str) {
        self.create(name, json!({"name": name, "nodeName": "n", "size": size})).await;
    }

    pub(crate) async fn create_snapshot(&self, name: &str, source: &str) {
        self.create_snapshot_on(name, source, "vault").await;
    }

    pub(crate) async fn create_snapshot_on(&self, name: &str, source: &str, storage: &str) {
        let spec = json!({"name": name, "nodeName": "n", "size": "10Mi", "source": source,
                          "onlineSnapshot": {"storage": {"name": storage}}});
        self.create(name, spec).await;
    }

    pub(crate) async fn create_restore(&self, name: &str) {
        let restore = json!({"storage": {"name": "vault"}, "path": "default/data", "snapshotID": "0123456789abcdef"});
        self.create(name, json!({"name": name, "nodeName": "n", "size": "10Mi", "restore": restore})).await;
    }

    async fn create_storage(&self, name: &str) {
        let spec = json!({"storage": {"provider": "local", "local": {"path": "/repository"}},
                          "validateOnCreate": false});
        let storage = json!({"apiVersion": "topolvm.io/v1", "kind": "SnapshotBackupStorage",
                             "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let storages: Api<SnapshotBackupStorage> = Api::namespaced(self.client.clone(), "default");
        storages.create(&PostParams::default(), &serde_json::from_value(storage).unwrap()).await.unwrap();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                            "stringData": {"RESTIC_PASSWORD": "correct horse"}});
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.client.clone(), "default");
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.volumes().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn retry(&self, name: &str, attempt: u32) {
        let patch = json!({"spec": {"onlineSnapshot": {"attempt": attempt}}});
        self.volumes().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub(crate) async fn get(&self, name: &str) -> LogicalVolume {
        self.volumes().get(name).await.unwrap()
    }

    pub(crate) async fn transfer(&self, name: &str) -> TransferStatus {
        transfer(&self.get(name).await).expect("it has begun")
    }

    pub(crate) async fn wait_for(&self, name: &str, holds: impl Fn(&LogicalVolume) -> bool) -> LogicalVolume {
        wait_until(name, async || holds(&self.get(name).await)).await;
        self.get(name).await
    }

    pub(crate) async fn wait_for_transfer(
        &self,
        name: &str,
        holds: impl Fn(&TransferStatus) -> bool,
    ) -> TransferStatus {
        self.wait_for(name, |object| transfer(object).is_some_and(|transfer| holds(&transfer))).await;
        self.transfer(name).await
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        wait_until(name, async || self.volumes().get_opt(name).await.unwrap().is_none()).await;
    }

    /// Waits until nothing of an ended operation is left but its result.
    pub(crate) async fn wait_settled(&self, name: &str) {
        let id = VolumeId::parse(&self.get(name).await.uid().unwrap()).unwrap();
        wait_until(name, async || {
            let ended = transfer(&self.get(name).await).is_some_and(|t| t.record().unwrap().is_terminal());
            let kept = self.get(name).await.spec.restore.is_some() && self.transfer(name).await.error.is_none();
            ended && self.launcher.is_clean(&id) && (kept || self.engine.is_absent(&id))
        })
        .await;
    }

    pub(crate) async fn ready_source(&self, name: &str) -> LogicalVolume {
        self.create_volume(name, "10Mi").await;
        self.wait_for(name, |object| object.status.as_ref().is_some_and(|s| s.volume_id.is_some())).await
    }

    /// Brings a snapshot all the way to its end.
    pub(crate) async fn finished_snapshot(&self, name: &str, source: &str) {
        let agent = self.agent();
        self.ready_source(source).await;
        self.create_snapshot(name, source).await;
        let job = Job::Copy { attempt: lvault_core::Attempt::FIRST, launch: Launch::FIRST };
        self.wait_launched(name, job).await;
        let executor = self.executor(name, job);
        executor.claims().await;
        executor.succeeds().await;
        executor.exits().await;
        self.wait_settled(name).await;
        agent.stop().await;
    }

    pub(crate) async fn wait_launched(&self, name: &str, job: Job) {
        let id = VolumeId::parse(&self.get(name).await.uid().unwrap()).unwrap();
        wait_until("a launch", async || self.launcher.is_alive(&id, job)).await;
    }

    /// The jobs that were launched for an object, in order.
    pub(crate) fn launches(&self, name: &str) -> Vec<Job> {
        self.launcher.launches(name)
    }

    pub(crate) async fn leases(&self) -> Vec<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "default");
        leases.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect()
    }

    pub(crate) fn executor<'a>(&'a self, name: &'a str, job: Job) -> Player<'a> {
        Player { bench: self, name, job }
    }
}

/// Plays the executor of one job.
pub(crate) struct Player<'a> {
    bench: &'a Bench,
    name: &'a str,
    job: Job,
}

impl Player<'_> {
    fn holder(&self) -> Holder {
        Holder(format!("{:?}", self.job))
    }

    async fn id(&self) -> VolumeId {
        VolumeId::parse(&self.bench.get(self.name).await.uid().unwrap()).unwrap()
    }

    pub(crate) async fn claims(&self) {
        let Job::Copy { attempt, launch } = self.job else { panic!("only a copy claims") };
        self.write(&|_| Transition::Claim { holder: self.holder(), attempt, launch }).await;
    }

    pub(crate) async fn succeeds(&self) {
        self.write(&|claim| Transition::Succeed(self.held(claim))).await;
    }

    pub(crate) async fn fails(&self) {
        self.write(&|claim| Transition::Fail(self.held(claim))).await;
    }

    fn held(&self, claim: &Claim) -> Held {
        let Job::Copy { attempt, .. } = self.job else { panic!("only a copy holds") };
        Held { attempt, claim: claim.clone() }
    }

    pub(crate) async fn exits(&self) {
        self.bench.launcher.end(&self.id().await, self.job);
    }

    /// Renews its lease.
    pub(crate) async fn beats(&self) {
        let leases: Api<Lease> = Api::namespaced(self.bench.client.clone(), "default");
        let name = lease_name(self.id().await.as_str(), self.job);
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now());
        let lease = json!({"metadata": {"name": name}, "spec": {"renewTime": now}});
        let patched = leases.patch(&name, &PatchParams::default(), &Patch::Merge(&lease)).await;
        if patched.is_err() {
            leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
        }
    }

    pub(crate) async fn forgets(&self) {
        self.write_status(&|written| {
            let kind = conditions::REPOSITORY_SNAPSHOT_REMOVED;
            let said = Said { kind, holds: true, reason: "Removed".to_owned(), message: String::new() };
            conditions::set(&mut written.conditions, said, None, Timestamp::now());
        })
        .await;
    }

    async fn write(&self, transition: &dyn Fn(&Claim) -> Transition) {
        let none = Claim { holder: self.holder(), epoch: lvault_core::Epoch::FIRST, launch: Launch::FIRST };
        self.write_status(&|written| {
            let slot = written.online_snapshot.as_mut().or(written.restore.as_mut()).expect("it has begun");
            let current = slot.record().unwrap();
            let claim = match &current.state {
                State::Running(claim) => claim.clone(),
                State::Pending | State::Succeeded | State::Failed => none.clone(),
            };
            let record = next(Some(&current), &transition(&claim)).expect("a legal transition");
            slot.set_record(&record);
            if record.state == State::Succeeded {
                slot.snapshot_id = Some("0123456789abcdef".to_owned());
            }
            if record.state == State::Failed {
                let (code, message) = ("Played".to_owned(), "the test says so".to_owned());
                slot.error = Some(lvault_api::TransferError { code, message });
            }
        })
        .await;
    }

    async fn write_status(&self, edit: &dyn Fn(&mut LogicalVolumeStatus)) {
        for _ in 0..100 {
            let object = self.bench.get(self.name).await;
            let mut written = object.status.clone().unwrap_or_default();
            edit(&mut written);
            let patch = status::patch(&object, &written).expect("a change");
            let api = self.bench.volumes();
            match api.patch_status(self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return,
                Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
                Err(other) => panic!("{other}"),
            }
        }
        panic!("a hundred conflicts");
    }
}

fn transfer(object: &LogicalVolume) -> Option<TransferStatus> {
    let status = object.status.clone()?;
    status.online_snapshot.or(status.restore)
}

pub(crate) async fn wait_until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}: not within 30 s");
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
