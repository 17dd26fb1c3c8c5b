//! What happened to an object, told as Kubernetes events, so that `kubectl describe` shows the story.
//!
//! What holds here: an event is a courtesy. It is told once: its name is made of what it says, so that an agent that is
//! started again tells it no second time. Where it cannot be written, nothing else stops, and nobody tries again.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use lvault_api::{LogicalVolume, LogicalVolumeStatus, Operation, Phase, TransferStatus, conditions};
use lvault_core::VolumeId;
use tracing::debug;

/// Where events of objects that are in no namespace are.
const NAMESPACE: &str = "default";
/// How long one may take.
const ANSWER: Duration = Duration::from_secs(2);
/// What ended longer ago than this when an agent sees it first is history.
const HISTORY: Duration = Duration::from_secs(3600);
/// As long as the API allows a message to be.
const LONGEST: usize = 1024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    warning: bool,
    reason: String,
    message: String,
    /// What tells it from the same thing at another time.
    occasion: String,
}

impl Told {
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.reason, &self.occasion).hash(&mut hasher);
        hasher.finish()
    }
}

/// What was told of each volume.
#[derive(Default)]
pub(crate) struct Events {
    told: Mutex<HashMap<VolumeId, HashSet<u64>>>,
}

impl Events {
    /// Tells what the object's status says and was not told yet.
    pub(crate) async fn tell(&self, client: &Client, object: &LogicalVolume, node: &str, now: Timestamp) {
        let Ok(id) = VolumeId::parse(object.uid().as_deref().unwrap_or_default()) else { return };
        let (first, news) = self.news(&id, object, now);
        let api: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
        for told in news {
            let event = event(object, &told, node, now);
            // An agent that was started again may have told it before: that is looked up, and costs no write.
            let written = async {
                if first && api.get_opt(&event.name_any()).await?.is_some() {
                    return Ok(());
                }
                api.create(&PostParams::default(), &event).await.map(drop)
            };
            match tokio::time::timeout(ANSWER, written).await {
                Ok(Ok(())) => {}
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
                Ok(Err(problem)) => debug!("cannot write an event of {}: {problem}", object.name_any()),
                Err(_) => debug!("writing an event of {} took too long", object.name_any()),
            }
        }
    }

    /// What was not told yet, and whether this agent sees the object for the first time.
    fn news(&self, id: &VolumeId, object: &LogicalVolume, now: Timestamp) -> (bool, Vec<Told>) {
        let story = story(object);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !told.contains_key(id);
        let known = told.entry(id.clone()).or_default();
        let news: Vec<Told> = story.into_iter().filter(|told| known.insert(told.key())).collect();
        (first, if first && is_history(object, now) { Vec::new() } else { news })
    }

    /// Forgets a volume that is gone.
    pub(crate) fn forget(&self, id: &VolumeId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// Whether all of it happened long before this agent was started.
fn is_history(object: &LogicalVolume, now: Timestamp) -> bool {
    let status = object.status.clone().unwrap_or_default();
    let ended = |transfer: &TransferStatus| match &transfer.completion_time {
        Some(time) => now.duration_since(time.0).as_secs() > HISTORY.as_secs().cast_signed(),
        None => false,
    };
    match transfer(&status) {
        Some(transfer) => ended(transfer),
        None => status.volume_id.is_some(),
    }
}

fn transfer(status: &LogicalVolumeStatus) -> Option<&TransferStatus> {
    status.online_snapshot.as_ref().or(status.restore.as_ref())
}

/// Everything that the status says now, in order.
fn story(object: &LogicalVolume) -> Vec<Told> {
    let status = object.status.clone().unwrap_or_default();
    let mut story = Vec::new();
    if let Some(transfer) = transfer(&status) {
        story.extend(of_transfer(transfer));
    }
    if status.volume_id.is_some() && status.online_snapshot.is_none() {
        let size = status.current_size.as_ref().map(|size| size.0.clone()).unwrap_or_default();
        story.push(Told {
            warning: false,
            reason: "VolumeReady".to_owned(),
            message: format!("the volume has {size} and can be used"),
            occasion: size,
        });
    }
    if let Some(healthy) = status.conditions.iter().find(|condition| condition.type_ == conditions::HEALTHY) {
        story.push(Told {
            warning: healthy.status != "True",
            reason: if healthy.status == "True" { "StorageRecovered" } else { "StorageProblem" }.to_owned(),
            message: format!("{}: {}", healthy.reason, healthy.message),
            occasion: format!("{} {}", healthy.reason, healthy.last_transition_time.0),
        });
    }
    if let (true, Some(message)) = (status.code.unwrap_or(0) != 0, status.message.clone()) {
        story.push(Told { warning: true, reason: "Problem".to_owned(), occasion: message.clone(), message });
    }
    story
}

fn of_transfer(transfer: &TransferStatus) -> Vec<Told> {
    let what = match transfer.operation {
        Operation::Backup => "Snapshot",
        Operation::Restore => "Restore",
    };
    let attempt = transfer.attempt;
    let executor = transfer.executor.clone().unwrap_or_default();
    let said = transfer.message.clone();
    let mut story = Vec::new();
    let occasion = format!("{attempt}");
    let mut add = |warning, reason: String, message: String, occasion: String| {
        story.push(Told { warning, reason, message, occasion });
    };
    match transfer.phase {
        Phase::Pending => {
            add(false, format!("{what}Pending"), format!("attempt {attempt} begins"), occasion.clone());
            // While nobody has claimed the attempt, its message is what it waits for.
            if let Some(message) = said.filter(|_| executor.lost.unwrap_or(0) == 0) {
                add(true, format!("{what}Waiting"), message.clone(), format!("{attempt} {message}"));
            }
        }
        Phase::Running => {
            let holder = executor.name.clone().unwrap_or_default();
            let epoch = executor.epoch.unwrap_or_default();
            let message = format!("attempt {attempt} is copied by {holder}");
            add(false, format!("{what}Running"), message, format!("{attempt} {epoch}"));
        }
        Phase::Succeeded => add(false, format!("{what}Succeeded"), said.unwrap_or_default(), occasion.clone()),
        Phase::Failed => add(true, format!("{what}Failed"), said.unwrap_or_default(), occasion.clone()),
    }
    let lost = executor.lost.unwrap_or(0);
    if lost > 0 && matches!(transfer.phase, Phase::Pending | Phase::Running) {
        let message = transfer.message.clone().unwrap_or_default();
        add(true, "ExecutorLost".to_owned(), message, format!("{attempt} {lost}"));
    }
    story
}

fn event(object: &LogicalVolume, told: &Told, node: &str, now: Timestamp) -> Event {
    let name: String = object.name_any().chars().take(200).collect();
    let mut message = told.message.clone();
    if message.len() > LONGEST {
        let end = (0..=LONGEST - 3).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    let mut hasher = DefaultHasher::new();
    (object.uid(), told.key()).hash(&mut hasher);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:016x}", name.trim_end_matches(['.', '-']), hasher.finish())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(LogicalVolume::api_version(&()).into_owned()),
            kind: Some(LogicalVolume::kind(&()).into_owned()),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some(if told.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(told.reason.clone()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("lvault-node".to_owned()), host: Some(node.to_owned()) }),
        ..Event::default()
    }
}
