//! The simulated world: the real agent, executors and controller against the embedded API, in one thread and in paused
//! time, over an engine and repositories in memory.
//!
//! - [`points`]: every API call and effect is numbered, and can meet a fault.
//! - [`wire`], [`engine`], [`launcher`], [`repository`]: what the actors touch, each call a point.
//! - [`laws`]: the invariants, checked after every write and effect.
//! - [`users`]: what people do.

pub mod clock;
pub mod engine;
pub mod launcher;
pub mod laws;
pub mod points;
pub mod random;
pub mod repository;
pub mod users;
pub mod wire;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use lvault_apiserver::Identifiers;
use lvault_apiserver::{ApiServer, Config, OpenError};
use lvault_controller::{Finding, StorageCheck, Target};
use lvault_core::VolumeId;
use lvault_node::{Agent, AgentConfig, Wake};

use crate::mutation::Planted;
use engine::{FakeEngine, FakeVolume};
use launcher::{FakeLauncher, Folder};
use laws::Laws;
use points::{Fault, Life, Points};
use random::Random;
pub use repository::Commit;
use wire::Events;

/// The node's name.
pub const NODE: &str = "n";

/// What all actors share: one lock, never held across an await.
#[derive(Debug)]
pub struct Shared {
    inner: Mutex<Inner>,
}

/// Everything outside the API.
#[derive(Default)]
pub struct Inner {
    /// The points so far.
    pub points: Points,
    /// The watch events so far.
    pub events: Events,
    /// The node's volumes.
    pub volumes: BTreeMap<VolumeId, FakeVolume>,
    /// What each snapshot held when it was cut first.
    pub cuts: BTreeMap<VolumeId, u64>,
    /// Volumes that were lost as by a broken disk.
    pub lost: BTreeSet<VolumeId>,
    /// The newest executor of each volume.
    pub folders: BTreeMap<VolumeId, Folder>,
    /// Every executor's life.
    pub lives: Vec<Arc<Life>>,
    /// How many executors were started.
    pub started: u64,
    /// Repositories by path.
    pub repositories: BTreeMap<String, Vec<Commit>>,
    /// How many commits were made.
    pub commits: u64,
    /// Every copy of this attempt fails for good; 0 is none.
    pub broken_attempt: u32,
    /// Storages can be used.
    pub storage_usable: bool,
    /// A user has removed a storage.
    pub storage_was_removed: bool,
    /// Whom to tell when an executor ends.
    pub wake: Option<Wake>,
    /// What was seen, and what was wrong.
    pub laws: Laws,
    /// Requests take up to this much longer.
    pub jitter: Option<Random>,
    /// A defect of this world.
    pub planted: Option<Planted>,
    /// What each volume of a user has to hold: only users write to it.
    pub written: BTreeMap<VolumeId, u64>,
    /// How many agents were started.
    pub agents: u64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("points", &self.points.count).finish_non_exhaustive()
    }
}

impl Inner {
    /// The repository at a path.
    pub fn repository(&mut self, path: &str) -> &mut Vec<Commit> {
        self.repositories.entry(path.to_owned()).or_default()
    }

    /// What a request takes beyond the least.
    pub fn latency(&mut self) -> Duration {
        self.jitter.as_mut().map_or(Duration::ZERO, |random| Duration::from_millis(random.below(40)))
    }
}

impl Shared {
    /// A world in which nothing is yet.
    pub fn new() -> Arc<Shared> {
        let inner = Inner { storage_usable: true, ..Inner::default() };
        Arc::new(Shared { inner: Mutex::new(inner) })
    }

    /// Looks at, or changes, what is shared.
    pub fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops an executor for two minutes.
    pub fn stop(&self, life: &Arc<Life>) {
        life.freeze(true);
        let life = Arc::clone(life);
        drop(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(120)).await;
            life.freeze(false);
        }));
    }
}

/// A world that runs. Its actors end with the runtime.
pub struct World {
    /// What all actors share.
    pub shared: Arc<Shared>,
    /// The API.
    pub server: ApiServer,
    /// A client without faults.
    pub client: Client,
}

/// How long the agent may take to be started again after it has ended.
const RESTART: Duration = Duration::from_secs(1);

impl World {
    /// A world with an API, an agent and a controller. To be called inside a runtime with paused time.
    ///
    /// # Errors
    /// What the API server says when it cannot be opened.
    pub async fn new(seed: u64) -> Result<World, String> {
        clock::start();
        let server = api(seed).await.map_err(|error| format!("the API cannot be opened: {error}"))?;
        let shared = Shared::new();
        let client = wire::plain_client(&server, &shared);
        let world = World { shared, server, client };
        world.keep("agent", World::agent);
        world.keep("controller", World::controller);
        Ok(world)
    }

    /// Runs an actor, and starts it again whenever it has ended.
    fn keep(&self, what: &'static str, begin: fn(ApiServer, Arc<Shared>, Arc<Life>) -> BoxFuture<'static, ()>) {
        let (server, shared) = (self.server.clone(), Arc::clone(&self.shared));
        drop(tokio::spawn(async move {
            for number in 1.. {
                let life = Arc::new(Life::new(format!("{what}-{number}")));
                shared.with(|inner| {
                    inner.points.note(&format!("{} starts", life.name));
                    inner.agents += 1;
                    inner.lives.push(Arc::clone(&life));
                });
                let running = begin(server.clone(), Arc::clone(&shared), Arc::clone(&life));
                tokio::select! {
                    biased;
                    () = life.ended() => {}
                    () = running => {}
                }
                // Nothing that it began goes on.
                life.end();
                tokio::time::sleep(RESTART).await;
            }
        }));
    }

    fn agent(server: ApiServer, shared: Arc<Shared>, life: Arc<Life>) -> BoxFuture<'static, ()> {
        let mut config = AgentConfig::for_host(NODE.to_owned(), "/".into(), "/kubeconfig".into());
        config.blocking_threads = false;
        config.now = clock::now;
        let client = wire::client(&server, &shared, Arc::clone(&life));
        let engine = Arc::new(FakeEngine { shared: Arc::clone(&shared), life: Arc::clone(&life) });
        let launcher = Arc::new(FakeLauncher { shared: Arc::clone(&shared), life: Arc::clone(&life), server });
        async move {
            let agent = Agent::new(client, engine, launcher, config);
            if let Err(error) = agent.run(std::future::pending()).await {
                shared.with(|inner| inner.points.note(&format!("{} ended: {error}", life.name)));
            }
        }
        .boxed()
    }

    fn controller(server: ApiServer, shared: Arc<Shared>, life: Arc<Life>) -> BoxFuture<'static, ()> {
        let client = wire::client(&server, &shared, Arc::clone(&life));
        let config = lvault_controller::Config { seed: 1, clock: clock::now, ..lvault_controller::Config::default() };
        let check = Arc::new(FakeCheck { shared: Arc::clone(&shared), life: Arc::clone(&life) });
        async move {
            let ended = lvault_controller::run_with(client, config, check, std::future::pending()).await;
            if let Err(error) = ended {
                shared.with(|inner| inner.points.note(&format!("{} ended: {error}", life.name)));
            }
        }
        .boxed()
    }

    /// Waits until nothing changes any more: for more than a minute no write but heartbeats, no executor, the same node.
    ///
    /// # Errors
    /// When that does not come about within an hour.
    pub async fn rest(&self) -> Result<(), String> {
        let mut before = String::new();
        let mut since = clock::elapsed();
        let limit = clock::elapsed() + Duration::from_secs(3600);
        while clock::elapsed() < limit {
            self.lawful()?;
            let now = self.state();
            let runs = self.shared.with(|inner| inner.folders.values().any(|folder| folder.process.is_some()));
            if now != before || runs {
                before = now;
                since = clock::elapsed();
            } else if clock::elapsed() > since + Duration::from_secs(75) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        Err(format!("I7: it does not come to rest within an hour: {before}"))
    }

    /// Nothing is waited for once a law is broken: a hot loop would take for ever.
    pub(crate) fn lawful(&self) -> Result<(), String> {
        self.shared.with(|inner| inner.laws.broken.first().map_or(Ok(()), |law| Err(law.clone())))
    }

    /// Everything but heartbeats, with versions, as a text.
    fn state(&self) -> String {
        self.shared.with(|inner| {
            let objects: Vec<String> = inner
                .laws
                .known
                .values()
                .map(|known| format!("{}@{:?}", known.name, known.object.metadata.resource_version))
                .collect();
            format!("{objects:?} {:?} {:?}", inner.volumes, inner.folders.keys())
        })
    }
}

thread_local! {
    /// The server whose kinds all worlds of this thread share.
    static FIRST: OnceCell<ApiServer> = const { OnceCell::new() };
}

/// An empty API.
async fn api(seed: u64) -> Result<ApiServer, OpenError> {
    let clock: lvault_apiserver::Clock = Arc::new(clock::now);
    let identifiers = Identifiers::Seeded(seed);
    match FIRST.with(|first| first.get().cloned()) {
        Some(first) => first.open_another(Config { clock, identifiers, ..Config::in_memory(Vec::new()) }).await,
        None => {
            let crds = lvault_api::crds::all();
            let first = ApiServer::open(Config { clock: Arc::clone(&clock), ..Config::in_memory(crds) }).await?;
            FIRST.with(|kept| drop(kept.set(first.clone())));
            first.open_another(Config { clock, identifiers, ..Config::in_memory(Vec::new()) }).await
        }
    }
}

/// A storage check that believes what the world says.
struct FakeCheck {
    shared: Arc<Shared>,
    life: Arc<Life>,
}

impl StorageCheck for FakeCheck {
    fn check(&self, _: Target) -> BoxFuture<'static, Finding> {
        let (shared, life) = (Arc::clone(&self.shared), Arc::clone(&self.life));
        async move {
            life.moving().await;
            let (fault, usable) =
                shared.with(|inner| (inner.points.pass(&life.name, "checks a storage"), inner.storage_usable));
            match fault {
                Some(Fault::CrashBefore | Fault::CrashAfter) => {
                    life.end();
                    life.moving().await;
                }
                Some(Fault::Refused | Fault::DoneButError | Fault::Conflict | Fault::Stops) => {
                    return Finding::Unknown("injected".to_owned());
                }
                Some(Fault::AnswerLost) => tokio::time::sleep(Duration::from_secs(3600)).await,
                None => {}
            }
            if usable { Finding::Usable } else { Finding::Unusable("the disk is away".to_owned()) }
        }
        .boxed()
    }
}
