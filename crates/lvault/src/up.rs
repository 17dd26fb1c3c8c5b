//! `lvault up`: the API server, the node agent and the controller in one process, over one state folder.
//!
//! What holds here: the state folder is owned before anything in it is touched; a part that ends by itself ends the
//! whole; executors outlive it and are found again by the next start.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use kube::Client;
use kube::client::Body;
use lvault_apiserver::tls::{Identity, kubeconfig};
use lvault_apiserver::{ApiServer, Config};
use lvault_engines::{Chosen, Options, VolumeEngine, Wish, choose};
use lvault_node::{Agent, AgentConfig, ExecutorCommand, OwnerLock, ProcessLauncher, lock_owner};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tracing::info;

use crate::args::{Engine, Place, UpArgs};
use crate::error::CliError;
use crate::names;
use crate::say;
use crate::server::{Server, user_agent, with_causes};
use crate::state::StateDir;

/// Runs until a signal asks it to end, or a part of it cannot go on.
pub async fn run(place: &Place, args: UpArgs) -> Result<(), CliError> {
    let state = StateDir::find(place.state_dir.as_deref())?;
    let asked_to_end = ended_by_signal()?;
    let mut running = start(&state, &args).await?;
    say::result(&running.summary());
    let outcome = tokio::select! {
        name = asked_to_end => {
            info!("{name}: ending; executors go on and are picked up by the next start");
            Ok(())
        }
        error = running.broken() => Err(error),
    };
    running.stop().await;
    outcome
}

/// Completes when this process is asked to end, with the signal's name.
pub fn ended_by_signal() -> Result<impl Future<Output = &'static str>, CliError> {
    let listen = |kind| {
        signal(kind).map_err(|error| CliError::Server {
            tried: "listening for signals",
            happened: error.to_string(),
            remedy: "try again".to_owned(),
        })
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// A running lvault.
pub struct Running {
    state: StateDir,
    api: ApiServer,
    client: Client,
    address: SocketAddr,
    node: String,
    chosen: Chosen,
    stop: watch::Sender<bool>,
    parts: JoinSet<(&'static str, Result<(), String>)>,
    // The state folder is somebody else's only when all the rest is gone.
    _owner: OwnerLock,
}

/// Starts everything. What it makes in the state folder stays; all of it is found again by the next start.
pub async fn start(state: &StateDir, args: &UpArgs) -> Result<Running, CliError> {
    // What is wrong on the command line is said before anything is made.
    let asked = args.node.as_deref().map(|node| names::object_name("--node", node)).transpose()?;
    let pool_size = args.pool_size.as_deref().map(|size| names::size("--pool-size", size)).transpose()?;
    state.ensure()?;
    let owner = lock_owner(state.root()).map_err(|error| CliError::Server {
        tried: "taking the state folder",
        happened: error.to_string(),
        remedy: "one state folder has one lvault".to_owned(),
    })?;
    let node = node_name(state, asked)?;
    let wish = match args.engine {
        Engine::Auto => Wish::Auto,
        Engine::Image => Wish::Image,
        Engine::Directory => Wish::Directory,
        Engine::Lvm => Wish::Lvm,
    };
    let lvmd_config = args.lvmd_config.as_deref().map(std::path::absolute).transpose();
    let lvmd_config = lvmd_config
        .map_err(|error| CliError::input("--lvmd-config", error.to_string(), "name the file with its full path"))?;
    let chosen = open_engine(state, wish, Options { pool_size, lvmd_config, ..Options::default() }).await?;
    let (api, client) = open_api(state).await?;
    let (listener, address) = listen(state, args.listen).await?;
    let identity = identity(state)?;
    state.write("kubeconfig", &kubeconfig(address, identity.ca_pem(), identity.token()))?;
    state.keep_port(address.port())?;
    state.keep_node(&node)?;

    let (stop, _) = watch::channel(false);
    let mut running = Running {
        state: state.clone(),
        api,
        client,
        address,
        node,
        chosen,
        stop,
        parts: JoinSet::new(),
        _owner: owner,
    };
    running.serve(listener, identity);
    running.reconcile(args)?;
    Ok(running)
}

fn node_name(state: &StateDir, asked: Option<String>) -> Result<String, CliError> {
    match (asked, state.node()) {
        (Some(asked), Some(known)) if asked != known => Err(CliError::input(
            "--node",
            format!("the volumes in {} are those of node {known}, not of {asked}", state.root().display()),
            "leave it out, or use another --state-dir",
        )),
        (Some(asked), _) => Ok(asked),
        (None, Some(known)) => names::object_name("the node's name in the state folder", &known),
        (None, None) => names::host(),
    }
}

/// Opens the volume engine of a state folder.
pub async fn open_engine(state: &StateDir, wish: Wish, options: Options) -> Result<Chosen, CliError> {
    let failed = |happened: String| CliError::Server {
        tried: "opening the volume engine",
        happened,
        remedy: "put that right, or name another engine with --engine".to_owned(),
    };
    let root = state.root().to_path_buf();
    let opened = tokio::task::spawn_blocking(move || choose(&root, wish, &options)).await;
    opened.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(with_causes(&error)))
}

async fn open_api(state: &StateDir) -> Result<(ApiServer, Client), CliError> {
    let file = state.store();
    let opened = ApiServer::open(Config::in_file(&file, lvault_api::crds::all())).await;
    let api = opened.map_err(|error| {
        let remedy = "if it is damaged, put a copy of it back, or start over with another --state-dir";
        CliError::file("opening the API's store", &file, with_causes(&error), remedy)
    })?;
    let (name, agent) = user_agent("lvault-up");
    let named = api.service().map_request(move |mut request: Request<Body>| {
        request.headers_mut().insert(name.clone(), agent.clone());
        request
    });
    let client = Client::new(named, "default");
    Ok((api, client))
}

fn identity(state: &StateDir) -> Result<Identity, CliError> {
    let folder = state.tls();
    Identity::load_or_create(&folder).map_err(|error| {
        CliError::file(
            "loading the TLS identity from",
            &folder,
            with_causes(&error),
            "remove the file named, and start again",
        )
    })
}

/// Binds the address asked for; where any port will do, that of the last start if it is free.
async fn listen(state: &StateDir, asked: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    if !asked.ip().is_loopback() {
        return Err(CliError::input(
            "--listen",
            format!("{asked} can be reached from other machines"),
            "listen on 127.0.0.1 or [::1]",
        ));
    }
    let before = state.port().filter(|_| asked.port() == 0).map(|port| SocketAddr::new(asked.ip(), port));
    let kept = match before {
        Some(address) => TcpListener::bind(address).await.ok(),
        None => None,
    };
    let bound = match kept {
        Some(listener) => Ok(listener),
        None => TcpListener::bind(asked).await,
    };
    let failed = |error: std::io::Error| {
        CliError::input(
            "--listen",
            format!("{asked} cannot be listened on: {error}"),
            "choose another port, or 0 for any",
        )
    };
    let listener = bound.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

impl Running {
    fn serve(&mut self, listener: TcpListener, identity: Identity) {
        let (api, stop) = (self.api.clone(), self.stopped());
        self.parts.spawn(async move {
            let served = api.serve(listener, &identity, stop).await;
            ("the TLS port", served.map_err(|error| with_causes(&error)))
        });
    }

    /// Starts what works on the objects: the node agent, and the controller of storages.
    fn reconcile(&mut self, args: &UpArgs) -> Result<(), CliError> {
        let program = std::env::current_exe().map_err(|error| CliError::Server {
            tried: "finding the lvault binary, which also runs executors",
            happened: error.to_string(),
            remedy: "mount /proc".to_owned(),
        })?;
        let command = ExecutorCommand { program, arguments: vec!["executor".into()] };
        let launcher = Arc::new(ProcessLauncher::new(self.state.root(), command));
        let config = AgentConfig {
            lease_duration: args.knobs.lease_duration,
            progress_interval: args.knobs.progress_interval,
            start_deadline: args.knobs.start_deadline,
            resync: args.knobs.resync,
            ..AgentConfig::for_host(self.node.clone(), self.state.root().to_path_buf(), self.state.kubeconfig())
        };
        let agent = Agent::new(self.client.clone(), Arc::clone(&self.chosen.engine), launcher, config);
        let stop = self.stopped();
        self.parts.spawn(async move { ("the node agent", agent.run(stop).await.map_err(|error| with_causes(&error))) });
        let (client, stop) = (self.client.clone(), self.stopped());
        self.parts.spawn(async move {
            let ended = lvault_controller::run(client, lvault_controller::Config::default(), stop).await;
            ("the controller", ended.map_err(|error| with_causes(&error)))
        });
        Ok(())
    }

    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender is gone only when this lvault is.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }

    /// One line that says what runs and where.
    pub fn summary(&self) -> String {
        format!(
            "lvault is up: node {}, {}; API at https://{}; kubeconfig {}",
            self.node,
            self.chosen.why,
            self.address,
            self.state.kubeconfig().display()
        )
    }

    /// Why this engine.
    pub fn why_engine(&self) -> &str {
        &self.chosen.why
    }

    /// The engine.
    pub fn engine(&self) -> Arc<dyn VolumeEngine> {
        Arc::clone(&self.chosen.engine)
    }

    /// The API, as commands use it.
    pub fn server(&self) -> Server {
        Server::in_process(self.client.clone(), format!("https://{}", self.address), self.node.clone())
    }

    /// Completes when a part has ended that nobody asked to end.
    pub async fn broken(&mut self) -> CliError {
        let happened = match self.parts.join_next().await {
            Some(Ok((name, Ok(())))) => format!("{name} ended"),
            Some(Ok((name, Err(error)))) => format!("{name} ended: {error}"),
            Some(Err(error)) => format!("a part ended: {error}"),
            None => "nothing runs any more".to_owned(),
        };
        CliError::Server { tried: "running lvault", happened, remedy: "start it again; nothing is lost".to_owned() }
    }

    /// Ends everything but executors, and waits until it has ended. What was acknowledged is on disk.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.parts.join_next().await.is_some() {}
        self.api.close().await;
    }
}
