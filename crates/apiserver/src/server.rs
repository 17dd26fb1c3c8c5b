//! One API server: opening it, using it, closing it.
//!
//! Holds: when `open` returns, everything that was acknowledged before is there, and the two namespaces that always exist
//! exist.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::defaults;
use crate::access::limits::{Gate, Limits};
use crate::access::observer::Observer;
use crate::access::policy::{Policies, Policy};
use crate::access::token::{Claims, KEY_LENGTH, Tokens};
use crate::access::user::User;
use crate::http::service::ApiService;
use crate::metadata;
use crate::refusal::Refusal;
use crate::registry::{ClusterKind, Nature, Registry, RegistryError};
use crate::schema::shape;
use crate::sources::{Clock, Identifiers, Sources, system_clock};
use crate::store::file::{FileError, Loaded, ObjectFile};
use crate::store::writer::{Shared, Writer};
use crate::store::{State, Stored};
use crate::verbs::{Answer, Core, FieldValidation, Outcome, Target, WriteOptions, create};

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In this file; an answered write is on disk. Its folder has to exist.
    File(PathBuf),
    /// In memory only, written in the caller's task: for tests and simulations, also under paused time.
    Memory,
}

/// What a server is made of.
#[derive(Clone)]
pub struct Config {
    /// Where objects are kept.
    pub storage: Storage,
    /// CustomResourceDefinition documents (`apiextensions.k8s.io/v1`) of the kinds to serve beside the built-in ones. Group
    /// "" is allowed, so that a test may declare Pods.
    pub crds: Vec<Value>,
    /// Kinds of clusters to serve beside those.
    pub kinds: Vec<ClusterKind>,
    /// How many changes a watch can catch up on, at most. Independent of it, 32 MiB of changes are kept at most.
    pub watch_history: usize,
    /// How long events are kept.
    pub event_lifetime: Duration,
    /// The clock.
    pub clock: Clock,
    /// Where UIDs and generated names come from.
    pub identifiers: Identifiers,
    /// How much may be under way at a time.
    pub limits: Limits,
    /// Told of every decision about who may do what.
    pub observer: Option<Observer>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Config {
    /// A server in a file.
    pub fn in_file(file: impl Into<PathBuf>, crds: Vec<Value>) -> Config {
        Config { storage: Storage::File(file.into()), ..Config::in_memory(crds) }
    }

    /// A server in memory.
    pub fn in_memory(crds: Vec<Value>) -> Config {
        Config {
            storage: Storage::Memory,
            crds,
            kinds: Vec::new(),
            watch_history: 8192,
            event_lifetime: Duration::from_secs(60 * 60),
            clock: system_clock(),
            identifiers: Identifiers::Random,
            limits: Limits::default(),
            observer: None,
        }
    }

    /// The same with these kinds of clusters served, too.
    pub fn with_kinds(self, kinds: &[ClusterKind]) -> Config {
        Config { kinds: kinds.to_vec(), ..self }
    }
}

/// Why a server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A kind cannot be registered.
    #[error("cannot register the kinds to serve")]
    Registry(#[from] RegistryError),
    /// The file cannot be used. Nothing was changed in it.
    #[error("cannot open the store")]
    File(#[from] FileError),
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the store")]
    Thread(#[source] std::io::Error),
    /// The objects that always exist could not be made.
    #[error("cannot create the namespaces and roles that every server has: {why}")]
    Defaults {
        /// What the server said.
        why: String,
    },
    /// The key of ServiceAccounts' tokens could not be made or kept.
    #[error("cannot make the key that tokens are signed with: {why}")]
    TokenKey {
        /// What is in the way.
        why: String,
    },
}

/// What all handles of one server share.
pub(crate) struct Server {
    pub(crate) core: Arc<Core>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) tokens: Tokens,
    pub(crate) gate: Gate,
    pub(crate) observer: Option<Observer>,
    policies: Policies,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.subscribe().borrow().closed
    }

    /// Who may do what, as of now.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policies.current(&self.core.registry, &self.shared)
    }

    /// The user that a token of a ServiceAccount makes known, and what it says.
    pub(crate) fn user_of_token(&self, token: &str, audiences: &[&str]) -> Option<(User, Claims)> {
        let now = self.core.sources.now();
        self.tokens.user(token, audiences, now, &self.core.registry, &self.shared.read())
    }
}

/// An embedded API server. Cheap to clone; all clones are one server. When the last handle, service and listener are gone,
/// the file is released in the background; [`ApiServer::close`] waits for it.
#[derive(Debug, Clone)]
pub struct ApiServer {
    pub(crate) server: Arc<Server>,
}

impl ApiServer {
    /// Opens a server. A file that is not there is created; one that is open elsewhere, damaged, foreign or newer is
    /// refused and left alone. Idempotent; after a crash in the middle the next open continues.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(config: Config) -> Result<ApiServer, OpenError> {
        let registry = Arc::new(Registry::with_kinds(&config.crds, &config.kinds)?);
        ApiServer::open_with(config, registry).await
    }

    /// Opens another server with the same kinds as this one, whatever `config` says of them. Their schemas and rules are not
    /// read again, which is most of what opening an empty server takes.
    ///
    /// # Errors
    /// As [`ApiServer::open`].
    pub async fn open_another(&self, config: Config) -> Result<ApiServer, OpenError> {
        ApiServer::open_with(config, Arc::clone(&self.server.core.registry)).await
    }

    async fn open_with(config: Config, registry: Arc<Registry>) -> Result<ApiServer, OpenError> {
        let (file, loaded) = match &config.storage {
            Storage::Memory => (None, Loaded::default()),
            Storage::File(path) => {
                let (file, loaded) = ObjectFile::open(path, &registry)?;
                (Some(file), loaded)
            }
        };
        for resource in &loaded.unclaimed {
            tracing::warn!(
                resource,
                "the store holds objects of a kind that is not registered; they are kept, not served"
            );
        }
        let token_key = match (loaded.token_key, &file) {
            (Some(key), _) => key,
            (None, None) => new_key()?,
            (None, Some(file)) => {
                let key = new_key()?;
                file.keep_token_key(&key).map_err(|error| OpenError::TokenKey { why: error.to_string() })?;
                key
            }
        };
        let state = restore(&registry, loaded, config.watch_history);
        let shared = Arc::new(Shared::new(Arc::clone(&registry), state));
        let writer = match file {
            None => Writer::in_memory(),
            Some(file) => Writer::into_file(Arc::clone(&shared), file).map_err(OpenError::Thread)?,
        };
        let policies = Policies::new(&registry);
        let core = Arc::new(Core {
            registry,
            sources: Sources::new(config.clock, config.identifiers),
            event_lifetime: config.event_lifetime,
            last_sweep: AtomicI64::new(0),
        });
        let tokens = Tokens::new(&token_key);
        let (gate, observer) = (Gate::new(config.limits), config.observer);
        let server = ApiServer { server: Arc::new(Server { core, shared, writer, tokens, gate, observer, policies }) };
        server.ensure_defaults().await?;
        Ok(server)
    }

    /// The API as a service, with the rights of the owner.
    pub fn service(&self) -> ApiService {
        self.service_as(User::owner())
    }

    /// The API as a service, with the rights of this user. What the user may do is asked anew for every request.
    pub fn service_as(&self, user: User) -> ApiService {
        ApiService::new(Arc::clone(&self.server), Arc::new(user))
    }

    /// Closes the server: writes that were taken are finished, later ones refused with 503, watches end, and the file is
    /// released. Idempotent. Reads go on answering what was there.
    pub async fn close(&self) {
        self.server.writer.close(&self.server.shared).await;
    }

    /// Makes what every server has and what is not there, in one commit.
    async fn ensure_defaults(&self) -> Result<(), OpenError> {
        let core = Arc::clone(&self.server.core);
        let namespaces =
            ["default", "kube-system"].map(|name| (Nature::Namespace, json!({"metadata": {"name": name}})));
        let access = defaults::objects().into_iter().map(|(kind, object)| (Nature::Access(kind), object));
        let wanted: Vec<(Nature, Value)> = namespaces.into_iter().chain(access).collect();
        let options = WriteOptions {
            dry_run: false,
            field_validation: FieldValidation::Ignore,
            manager: String::from("apiserver"),
        };
        let work = Box::new(move |tx: &mut crate::store::transaction::Transaction<'_>| {
            let mut last = Outcome { code: 200, answer: Answer::Objects(Vec::new()), warnings: Vec::new() };
            for (nature, object) in wanted {
                let Some(id) = core.registry.find_nature(nature) else {
                    continue;
                };
                let view = core.registry.resource(id).storage;
                let target = Target { view, namespace: String::new(), name: String::new() };
                match create::create(&core, tx, target, options.clone(), object) {
                    Ok(made) => last = made,
                    Err(Refusal::AlreadyExists { .. }) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            Ok(last)
        });
        let made = self.server.writer.submit(&self.server.shared, work, false).await;
        made.map(drop).map_err(|refusal| OpenError::Defaults { why: refusal.to_string() })
    }
}

/// A new key for tokens.
fn new_key() -> Result<[u8; KEY_LENGTH], OpenError> {
    let drawn: ring::rand::Random<[u8; KEY_LENGTH]> = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| OpenError::TokenKey { why: String::from("the system has no random numbers") })?;
    Ok(drawn.expose())
}

/// Memory as the file has it. Defaults that were declared since an object was written are shown from now on, and become
/// part of it with its next write.
fn restore(registry: &Registry, loaded: Loaded, watch_history: usize) -> State {
    let mut state = State::new(registry, loaded.revision, watch_history);
    for (key, json) in loaded.objects {
        let resource = registry.resource(key.resource);
        let mut object: Value = serde_json::from_slice(&json).unwrap_or_default();
        let revision = metadata::text(&object, "resourceVersion").parse().unwrap_or(loaded.revision);
        shape::default_in(&registry.view(resource.storage).schema, &mut object);
        let stored = Stored::of(resource, object, revision);
        state.load(key, Arc::new(stored));
    }
    state
}
