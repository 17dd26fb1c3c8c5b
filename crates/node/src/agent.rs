//! The agent: what it holds, and one pass over one volume.

use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Client};
use lvault_api::LogicalVolume;
use lvault_core::{Action, Trouble, VolumeId, decide};
use lvault_engines::{EngineError, VolumeEngine};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::config::AgentConfig;
use crate::driver;
use crate::events::Events;
use crate::health::Room;
use crate::launcher::{LaunchError, Launcher};
use crate::lease::LeaseWatch;
use crate::observe::{View, answered};
use crate::perform::FAILED_PRECONDITION;
use crate::troubles::Troubles;

/// The node agent.
pub struct Agent {
    pub(crate) client: Client,
    pub(crate) engine: Arc<dyn VolumeEngine>,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) config: AgentConfig,
    pub(crate) leases: LeaseWatch,
    pub(crate) troubles: Troubles,
    pub(crate) events: Events,
    /// Where the room of the node is published.
    pub(crate) room: Option<watch::Sender<Option<Room>>>,
}

/// Why the agent ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The engine could not put right what a crash had left.
    #[error("cannot begin with the node's volumes: {0}")]
    Recover(EngineError),
    /// The watch on the volumes ended, which it never does.
    #[error("the watch on the volumes ended")]
    WatchEnded,
}

/// When a volume is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// At once: something was done, and what follows from it is to be seen.
    Now,
    /// After this time, if nothing happens before.
    Pause(Duration),
    /// When something happens, or with the next resync.
    Idle,
    /// Never: the object is gone.
    Gone(VolumeId),
}

impl Agent {
    /// An agent over one engine and one launcher. Its caller holds the state folder's [`crate::OwnerLock`].
    pub fn new(
        client: Client,
        engine: Arc<dyn VolumeEngine>,
        launcher: Arc<dyn Launcher>,
        config: AgentConfig,
    ) -> Self {
        let (leases, troubles, events) = (LeaseWatch::default(), Troubles::default(), Events::default());
        Agent { client, engine, launcher, config, leases, troubles, events, room: None }
    }

    /// Has the agent publish the room of its node, from its first look on, whenever it has changed.
    pub fn publishing(self, room: watch::Sender<Option<Room>>) -> Self {
        Agent { room: Some(room), ..self }
    }

    /// Works until `shutdown`. Executors go on without it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        let recovered = self.engine_call(|engine| engine.recover()).await.map_err(AgentError::Recover)?;
        for recovered in recovered {
            info!("{recovered}");
        }
        let agent = Arc::new(self);
        tokio::select! {
            biased;
            () = shutdown => Ok(()),
            ended = driver::run(Arc::clone(&agent)) => ended,
        }
    }

    /// One pass over one volume: look, decide, do at most one thing.
    ///
    /// `hint` is the object as a watch has shown it. It may be old, so it is good enough for finding that there is
    /// nothing to do, and for nothing else.
    pub(crate) async fn reconcile(&self, name: &str, hint: Option<LogicalVolume>) -> After {
        if let Some(object) = hint
            && let Ok(view) = self.observe(object).await
            && decide(&view.observed) == Action::Settled
        {
            let after = self.settle(&view).await;
            self.tell(&view).await;
            return after;
        }
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        let object = match answered(api.get_opt(name)).await {
            Ok(Some(object)) => object,
            Ok(None) => return After::Idle,
            Err(problem) => {
                debug!("cannot read {name}: {problem}");
                return After::Pause(Duration::from_secs(2));
            }
        };
        if object.spec.node_name != self.config.node_name {
            return After::Idle;
        }
        let view = match self.observe(object).await {
            Ok(view) => view,
            Err(problem) => {
                warn!("{name} is left alone: {problem}");
                return After::Idle;
            }
        };
        let after = match decide(&view.observed) {
            Action::Settled => self.settle(&view).await,
            Action::Wait(wait) => match view.given_up(wait) {
                Some(why) => self.note_trouble(&view, Trouble::Launch, FAILED_PRECONDITION, why).await,
                None => self.wait(&view, wait).await,
            },
            Action::Do(effect) => {
                info!("{name}: {effect:?}");
                self.perform(&view, effect).await
            }
        };
        if !matches!(after, After::Gone(_)) {
            self.tell(&view).await;
        }
        after
    }

    /// Tells what the pass has seen; what it has done is seen, and told, by the next one.
    async fn tell(&self, view: &View) {
        let now = (self.config.now)();
        self.events.tell(&self.client, &view.object, &self.config.node_name, now).await;
    }

    /// Calls the engine where it may block.
    pub(crate) async fn engine_call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn VolumeEngine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let engine = Arc::clone(&self.engine);
        if !self.config.blocking_threads {
            return call(engine.as_ref());
        }
        match tokio::task::spawn_blocking(move || call(engine.as_ref())).await {
            Ok(result) => result,
            Err(ended) => go_on_unwinding(ended),
        }
    }

    /// Calls the launcher where it may block.
    pub(crate) async fn launcher_call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Launcher) -> Result<T, LaunchError> + Send + 'static,
    ) -> Result<T, LaunchError> {
        let launcher = Arc::clone(&self.launcher);
        if !self.config.blocking_threads {
            return call(launcher.as_ref());
        }
        match tokio::task::spawn_blocking(move || call(launcher.as_ref())).await {
            Ok(result) => result,
            Err(ended) => go_on_unwinding(ended),
        }
    }
}

/// A panic on a blocking thread is a defect that ends this pass, and only this pass: see the driver. A thread that was
/// cancelled is so because the whole runtime ends.
fn go_on_unwinding<T>(ended: tokio::task::JoinError) -> T {
    match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => std::panic::resume_unwind(Box::new(cancelled.to_string())),
    }
}
