//! When which volume is looked at: a watch, a clock, and executors that end, all into one ordered queue.
//!
//! There is at most one pass for a volume at a time, and any number of passes for different volumes. Nothing here
//! decides anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use lvault_api::{LogicalVolume, SnapshotBackupStorage, conditions};
use lvault_core::VolumeId;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::agent::{After, Agent, AgentError};
use crate::health;
use crate::observe::storage_of;

/// What the driver keeps of a volume: enough to know what concerns it.
struct Known {
    /// What a decision could depend on, hashed. Messages and progress are not in it: whoever writes them wakes nobody,
    /// and least of all himself.
    facts: u64,
    id: Option<VolumeId>,
    source: Option<String>,
    /// The storage it names, as namespace and name.
    storage: Option<(String, String)>,
}

impl Known {
    fn of(object: &LogicalVolume) -> Self {
        Known {
            facts: facts(object),
            id: VolumeId::parse(object.uid().as_deref().unwrap_or_default()).ok(),
            source: object.spec.source.clone(),
            storage: storage_of(object).map(|storage| (storage.namespace.clone(), storage.name.clone())),
        }
    }
}

fn facts(object: &LogicalVolume) -> u64 {
    let mut hasher = DefaultHasher::new();
    let metadata = &object.metadata;
    (&metadata.uid, metadata.generation, &metadata.finalizers).hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    if let Some(status) = &object.status {
        status.volume_id.hash(&mut hasher);
        for condition in &status.conditions {
            (&condition.type_, &condition.status).hash(&mut hasher);
            if condition.type_ == conditions::HEALTHY {
                condition.reason.hash(&mut hasher);
            }
        }
        for transfer in [&status.online_snapshot, &status.restore] {
            let Some(transfer) = transfer else { continue };
            let executor = transfer.executor.clone().unwrap_or_default();
            (transfer.phase as u8, transfer.attempt, executor.epoch, executor.lost).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[derive(Default)]
struct Queue {
    /// When each volume is due; the number keeps the order of those that are due at once.
    due: BTreeSet<(Instant, u64, String)>,
    at: HashMap<String, (Instant, u64)>,
    hints: HashMap<String, LogicalVolume>,
    count: u64,
}

impl Queue {
    /// Makes a volume due at `at`, or leaves it where it is due earlier.
    fn push(&mut self, name: &str, at: Instant) {
        if let Some((earlier, number)) = self.at.get(name).copied() {
            if earlier <= at {
                return;
            }
            self.due.remove(&(earlier, number, name.to_owned()));
        }
        self.count += 1;
        self.at.insert(name.to_owned(), (at, self.count));
        self.due.insert((at, self.count, name.to_owned()));
    }

    /// The next volume that is due and not in a pass, and what a watch has last shown of it.
    fn pop(&mut self, busy: &BTreeSet<String>, now: Instant) -> Option<(String, Option<LogicalVolume>)> {
        let free = |(at, _, name): &&(Instant, u64, String)| *at <= now && !busy.contains(name);
        let next = self.due.iter().take_while(|(at, _, _)| *at <= now).find(free).cloned()?;
        self.due.remove(&next);
        self.at.remove(&next.2);
        let hint = self.hints.remove(&next.2);
        Some((next.2, hint))
    }

    fn next_due(&self, busy: &BTreeSet<String>) -> Option<Instant> {
        self.due.iter().find(|(_, _, name)| !busy.contains(name)).map(|(at, _, _)| *at)
    }

    fn remove(&mut self, name: &str) {
        if let Some((at, number)) = self.at.remove(name) {
            self.due.remove(&(at, number, name.to_owned()));
        }
        self.hints.remove(name);
    }
}

/// Drives the agent's passes until the watch ends, which it never does.
pub(crate) async fn run(agent: Arc<Agent>) -> Result<(), AgentError> {
    // Volumes to be looked at: their executors have ended, or their storage has changed.
    let (tell, mut woken) = mpsc::unbounded_channel();
    let health = health::watch(&agent, agent.room.as_ref(), tell.clone());
    tokio::pin!(health);
    agent.launcher.on_exit(Arc::new(move |id| {
        // Nobody listens any more when the agent ends.
        let _ = tell.send(id);
    }));
    let volumes: Api<LogicalVolume> = Api::all(agent.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", agent.config.node_name));
    let mut volumes = watcher(volumes, config).boxed();
    let storages: Api<SnapshotBackupStorage> = Api::all(agent.client.clone());
    let mut storages = watcher(storages, watcher::Config::default()).boxed();

    let mut state = State { resync: agent.config.resync, ..State::default() };
    let mut passes = FuturesUnordered::new();
    loop {
        while let Some((name, hint)) = state.queue.pop(&state.busy, Instant::now()) {
            state.busy.insert(name.clone());
            let agent = Arc::clone(&agent);
            let pass = tokio::spawn({
                let name = name.clone();
                async move { agent.reconcile(&name, hint).await }
            });
            passes.push(async move { (name, pass.await) });
        }
        let due = state.queue.next_due(&state.busy).unwrap_or_else(|| Instant::now() + state.resync);
        tokio::select! {
            biased;
            Some((name, after)) = passes.next(), if !passes.is_empty() => {
                let after = after.unwrap_or_else(|panic| {
                    error!("a pass over {name} ended unexpectedly, which is a defect: {panic}");
                    After::Pause(Duration::from_secs(60))
                });
                state.passed(&name, after);
            }
            event = volumes.try_next() => match event {
                Ok(Some(event)) => state.volume(event),
                Ok(None) => return Err(AgentError::WatchEnded),
                // The watcher tries again by itself, with growing pauses.
                Err(problem) => pause_watch("volumes", &problem).await,
            },
            event = storages.try_next() => match event {
                Ok(Some(event)) => state.storage(event),
                Ok(None) => return Err(AgentError::WatchEnded),
                Err(problem) => pause_watch("storages", &problem).await,
            },
            Some(id) = woken.recv() => state.woken(&id),
            () = &mut health => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

async fn pause_watch(what: &str, problem: &watcher::Error) {
    warn!("the watch on {what} was interrupted: {problem}");
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[derive(Default)]
struct State {
    queue: Queue,
    known: BTreeMap<String, Known>,
    busy: BTreeSet<String>,
    /// The volumes for which nothing is to be done, whatever happens to others.
    idle: BTreeSet<String>,
    /// The names that the list at the beginning of a watch has shown so far.
    listed: BTreeSet<String>,
    resync: Duration,
}

impl State {
    fn passed(&mut self, name: &str, after: After) {
        self.busy.remove(name);
        self.idle.remove(name);
        let now = Instant::now();
        match after {
            After::Now => self.queue.push(name, now),
            After::Pause(pause) => self.queue.push(name, now + pause),
            After::Idle if self.known.contains_key(name) => {
                self.queue.push(name, now + self.spread(name));
                self.idle.insert(name.to_owned());
            }
            After::Idle => {}
            After::Gone(id) => {
                if self.known.get(name).is_some_and(|known| known.id.as_ref() == Some(&id)) {
                    self.forget(name);
                }
            }
        }
    }

    /// The resync, a little earlier for some than for others, so that they do not all come at once.
    fn spread(&self, name: &str) -> Duration {
        let sum: u32 = name.bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        self.resync - self.resync / 5 * (sum % 256) / 256
    }

    fn volume(&mut self, event: Event<LogicalVolume>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(object.name_any());
                self.seen(object);
            }
            Event::InitDone => {
                let gone: Vec<String> =
                    self.known.keys().filter(|name| !self.listed.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.forget(name));
            }
            Event::Apply(object) => self.seen(object),
            Event::Delete(object) => self.forget(&object.name_any()),
        }
    }

    fn seen(&mut self, object: LogicalVolume) {
        let (name, now) = (object.name_any(), Instant::now());
        let known = Known::of(&object);
        let same = self.known.get(&name).is_some_and(|before| before.facts == known.facts);
        self.known.insert(name.clone(), known);
        if same {
            return;
        }
        self.queue.hints.insert(name.clone(), object);
        self.queue.push(&name, now);
        self.wake(|known| known.source.as_deref() == Some(name.as_str()));
    }

    fn forget(&mut self, name: &str) {
        self.known.remove(name);
        self.idle.remove(name);
        self.queue.remove(name);
        self.wake(|known| known.source.as_deref() == Some(name));
    }

    fn storage(&mut self, event: Event<SnapshotBackupStorage>) {
        match event {
            Event::Apply(storage) | Event::InitApply(storage) | Event::Delete(storage) => {
                let name = (storage.namespace().unwrap_or_default(), storage.name_any());
                self.wake(|known| known.storage.as_ref() == Some(&name));
            }
            Event::Init | Event::InitDone => {}
        }
    }

    fn woken(&mut self, id: &VolumeId) {
        let now = Instant::now();
        for (name, _) in self.known.iter().filter(|(_, known)| known.id.as_ref() == Some(id)) {
            self.queue.push(name, now);
        }
    }

    /// Looks at the volumes that something else has happened to, unless they wait for nothing.
    fn wake(&mut self, concerned: impl Fn(&Known) -> bool) {
        let now = Instant::now();
        for (name, _) in self.known.iter().filter(|(name, known)| concerned(known) && !self.idle.contains(*name)) {
            self.queue.push(name, now);
        }
    }
}
