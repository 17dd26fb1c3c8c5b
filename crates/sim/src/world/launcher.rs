//! Executors as tasks of this runtime: the real executor with a repository in memory. They outlive the agent that has
//! started them, end anywhere, and can be stopped.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lvault_api::task::Task;
use lvault_apiserver::ApiServer;
use lvault_core::{Executor, Job, Life as Alive, VolumeId};
use lvault_executor::{Connection, Exit, Settings, run};
use lvault_node::{Change, LaunchError, Launcher, Wake};

use crate::mutation::Planted;

use super::points::{Fault, Life};
use super::repository::FakeRepository;
use super::{Inner, Shared, clock, wire};

/// What is left of the newest executor of a volume, as its folder is in the real launcher.
#[derive(Clone, Debug)]
pub struct Folder {
    /// What it was launched for.
    pub job: Job,
    /// Its process, while it holds its lock.
    pub process: Option<Arc<Life>>,
}

/// The launcher as one agent's life sees it.
pub struct FakeLauncher {
    /// What all lives share.
    pub shared: Arc<Shared>,
    /// Whose calls these are.
    pub life: Arc<Life>,
    /// Where executors find the API.
    pub server: ApiServer,
}

fn broken(life: &Life) -> LaunchError {
    let source = io::Error::other(format!("injected for {}", life.name));
    LaunchError::Io { attempted: "call the launcher".to_owned(), source }
}

impl FakeLauncher {
    fn call<T>(&self, what: &str, act: impl FnOnce(&mut Inner) -> Result<T, LaunchError>) -> Result<T, LaunchError> {
        if self.life.is_over() {
            return Err(broken(&self.life));
        }
        self.shared.with(|inner| {
            let fault = inner.points.pass(&self.life.name, &format!("launcher {what}"));
            match fault {
                Some(Fault::CrashBefore) => {
                    self.life.end();
                    return Err(broken(&self.life));
                }
                Some(Fault::Refused | Fault::Conflict | Fault::Stops) => return Err(broken(&self.life)),
                Some(Fault::CrashAfter | Fault::DoneButError | Fault::AnswerLost) | None => {}
            }
            let answer = act(inner);
            inner.look();
            match fault {
                Some(Fault::CrashAfter) => {
                    self.life.end();
                    Err(broken(&self.life))
                }
                Some(Fault::DoneButError | Fault::AnswerLost) => Err(broken(&self.life)),
                Some(Fault::CrashBefore | Fault::Refused | Fault::Conflict | Fault::Stops) | None => answer,
            }
        })
    }

    fn start(&self, inner: &mut Inner, id: &VolumeId, job: Job, task: Task) {
        inner.started += 1;
        let number = inner.started;
        let life = Arc::new(Life::new(format!("executor-{number}")));
        inner.points.note(&format!("{} is {}", life.name, task.name));
        inner.folders.insert(id.clone(), Folder { job, process: Some(Arc::clone(&life)) });
        inner.lives.push(Arc::clone(&life));
        let client = wire::client(&self.server, &self.shared, Arc::clone(&life));
        let settings = Settings {
            nonce: format!("n{number}"),
            patience: Duration::from_secs(3600),
            stall: Duration::from_secs(900),
            now: clock::now,
        };
        let work = Arc::new(FakeRepository { shared: Arc::clone(&self.shared), life: Arc::clone(&life) });
        let (shared, id) = (Arc::clone(&self.shared), id.clone());
        let life_of = Arc::clone(&life);
        let running = Freezable {
            life: Arc::clone(&life),
            inner: Box::pin(run(task, Connection::fixed(client), work, settings)),
            thaw: None,
        };
        drop(tokio::spawn(async move {
            let exit = tokio::select! {
                biased;
                () = life_of.ended() => "killed".to_owned(),
                exit = running => said(&exit),
            };
            // Nothing that it began goes on.
            life_of.end();
            shared.with(|inner| {
                inner.points.note(&format!("{} ended: {exit}", life_of.name));
                if let Some(folder) = inner.folders.get_mut(&id)
                    && folder.process.as_ref().is_some_and(|process| Arc::ptr_eq(process, &life_of))
                {
                    folder.process = None;
                }
                if let Some(wake) = inner.wake.clone() {
                    wake(id.clone());
                }
                inner.look();
            });
        }));
    }
}

fn said(exit: &Exit) -> String {
    match exit {
        Exit::Reported => "reported".to_owned(),
        Exit::Superseded(why) => format!("superseded: {why}"),
        Exit::Unreported(why) => format!("unreported: {why}"),
    }
}

impl Launcher for FakeLauncher {
    fn observe(&self, id: &VolumeId) -> Result<Option<Executor>, LaunchError> {
        self.call("observe", |inner| {
            if inner.planted == Some(Planted::LauncherForgets) {
                return Ok(None);
            }
            let outlives = inner.planted == Some(Planted::LockOutlives);
            Ok(inner.folders.get(id).map(|folder| {
                let life = if folder.process.is_some() || outlives { Alive::Alive } else { Alive::Ended };
                Executor { job: folder.job, life }
            }))
        })
    }

    fn ensure_launched(&self, id: &VolumeId, job: Job, task: &Task) -> Result<Change, LaunchError> {
        self.call("ensure_launched", |inner| match inner.folders.get(id) {
            Some(_) if inner.planted == Some(Planted::LauncherForgets) => {
                inner.check_idle(id, "given to another executor");
                self.start(inner, id, job, task.clone());
                Ok(Change::Changed)
            }
            Some(folder) if folder.job == job => Ok(Change::Unchanged),
            Some(_) => Err(LaunchError::Occupied(id.clone())),
            None => {
                self.start(inner, id, job, task.clone());
                Ok(Change::Changed)
            }
        })
    }

    fn ensure_ended(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        self.call("ensure_ended", |inner| match inner.folders.get(id).and_then(|folder| folder.process.clone()) {
            Some(process) => {
                process.end();
                Ok(Change::Changed)
            }
            None => Ok(Change::Unchanged),
        })
    }

    fn ensure_removed(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        self.call("ensure_removed", |inner| match inner.folders.get(id) {
            Some(folder) if folder.process.is_some() => Err(LaunchError::Occupied(id.clone())),
            Some(_) => {
                inner.folders.remove(id);
                Ok(Change::Changed)
            }
            None => Ok(Change::Unchanged),
        })
    }

    fn last_words(&self, _: &VolumeId) -> Option<String> {
        Some("simulated".to_owned())
    }

    fn on_exit(&self, wake: Wake) {
        self.shared.with(|inner| inner.wake = Some(wake));
    }
}

/// A future that is not polled while its life stands still.
struct Freezable<F> {
    life: Arc<Life>,
    inner: Pin<Box<F>>,
    thaw: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.life.is_frozen() {
            let life = Arc::clone(&self.life);
            let thaw = self.thaw.get_or_insert_with(|| Box::pin(async move { life.moving().await }));
            if thaw.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.thaw = None;
        self.inner.as_mut().poll(context)
    }
}
