//! Objects that nobody works for: their node does not exist, has no agent, or is gone before it could take its volume down. A
//! node's own agent says everything else about an object; this only the controller can say.
//!
//! What holds here: of all objects only those are kept in memory that no agent has put its finalizer on, and those that are
//! being deleted. What is said is said once, by compare-and-swap; an agent that begins to work takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use lvault_api::conditions::{self, Said};
use lvault_api::{LogicalVolume, keys, status};
use tokio::time::Instant;

use crate::abandoned::{ABANDONED, done};
use crate::api::ask;
use crate::events::{Told, tell};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Says of each object that nobody works for why that is so, for ever. An agent has `patience` to begin; what was said is looked at
/// again after the same time.
pub async fn name_unattended(client: Client, patience: Duration) {
    let volumes: Api<PartialObjectMeta<LogicalVolume>> = Api::all(client.clone());
    let mut events = watcher(volumes, watcher::Config::default()).default_backoff().boxed();
    let mut waiting = Waiting { patience, due: BTreeMap::new(), listed: BTreeSet::new() };
    loop {
        let next = waiting.due.values().min().copied();
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Ok(event)) => waiting.take_in(reduced(event)),
                Some(Err(problem)) => tracing::warn!("the watch of the volumes was cut; trying again: {problem}"),
                None => return,
            },
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                for name in waiting.take(Instant::now()) {
                    if let Err(problem) = look_at(&client, &name).await {
                        tracing::debug!(volume = name, "nobody knows who works for it: {problem}");
                    }
                }
            }
        }
    }
}

/// What is known of an object: its name, and whether somebody may be missing who works for it.
type Seen = (String, bool);

fn reduced<K: ResourceExt>(event: Event<K>) -> Event<Seen> {
    let seen = |object: K| (object.name_any(), is_in_question(object.meta()));
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(seen(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(seen(object)),
        Event::Delete(object) => Event::Delete(seen(object)),
    }
}

/// Whether an agent still has to take the object up, or to take it down.
fn is_in_question(metadata: &ObjectMeta) -> bool {
    let held = metadata.finalizers.iter().flatten().any(|name| name == keys::FINALIZER);
    held == metadata.deletion_timestamp.is_some()
}

/// The objects in question, each with the time at which it is looked at.
struct Waiting {
    patience: Duration,
    due: BTreeMap<String, Instant>,
    listed: BTreeSet<String>,
}

impl Waiting {
    fn take_in(&mut self, event: Event<Seen>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply((name, in_question)) => {
                if in_question {
                    self.listed.insert(name.clone());
                }
                self.seen(name, in_question);
            }
            Event::InitDone => self.due.retain(|name, _| self.listed.contains(name)),
            Event::Apply((name, in_question)) => self.seen(name, in_question),
            Event::Delete((name, _)) => self.seen(name, false),
        }
    }

    fn seen(&mut self, name: String, in_question: bool) {
        if in_question {
            self.due.entry(name).or_insert_with(|| Instant::now() + self.patience);
        } else {
            self.due.remove(&name);
        }
    }

    /// Those that are due; they are due again after the same time.
    fn take(&mut self, now: Instant) -> Vec<String> {
        let due: Vec<String> = self.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in &due {
            self.due.insert(name.clone(), now + self.patience);
        }
        due
    }
}

/// Reads the object and its node, and says what is missing.
async fn look_at(client: &Client, name: &str) -> Result<(), String> {
    let volumes: Api<LogicalVolume> = Api::all(client.clone());
    let Some(volume) = done(ask(LIMIT, volumes.get_opt(name)).await)? else { return Ok(()) };
    let metadata = &volume.metadata;
    if !is_in_question(metadata) {
        return Ok(());
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let exists = done(ask(LIMIT, nodes.get_opt(&volume.spec.node_name)).await)?.is_some();
    let Some((reason, message)) = missing(&volume, exists) else { return Ok(()) };
    let mut wanted = volume.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    let said =
        Said { kind: conditions::NODE_AVAILABLE, holds: false, reason: reason.to_owned(), message: message.clone() };
    conditions::set(&mut wanted.conditions, said, metadata.generation, now);
    wanted.phase.get_or_insert_with(|| "Unattended".to_owned());
    let Some(patch) = status::patch(&volume, &wanted) else { return Ok(()) };
    done(ask(LIMIT, volumes.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))).await)?;
    tracing::warn!(volume = name, "{message}");
    let about = ObjectReference {
        api_version: Some(LogicalVolume::api_version(&()).into_owned()),
        kind: Some(LogicalVolume::kind(&()).into_owned()),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    tell(client, about, Told { warning: true, reason, message: &message }, now).await;
    Ok(())
}

/// Who is missing, and what to do. `None` where somebody works for it, or the controller itself does.
fn missing(volume: &LogicalVolume, node_exists: bool) -> Option<(&'static str, String)> {
    let node = &volume.spec.node_name;
    let deleting = volume.metadata.deletion_timestamp.is_some();
    let abandoned = volume.labels().get(ABANDONED).is_some_and(|value| value == "true");
    match (deleting, node_exists) {
        (false, false) => Some((
            "NodeNotFound",
            format!(
                "there is no node {node}, so nobody works for this object: delete it and make it again with one of `kubectl \
                 get nodes`, or add that node"
            ),
        )),
        (false, true) => Some((
            "NoAgent",
            format!(
                "no agent of node {node} has taken this object up: see with `kubectl get pods -A -o wide -l \
                 app.kubernetes.io/name=lvault-node` whether one is ready there, and what it logs"
            ),
        )),
        (true, false) if !abandoned => Some((
            "NodeGone",
            format!(
                "node {node} does not exist any more, and only its agent removes its volumes: if it never comes back, give the \
                 volume up with `kubectl label lv {} {ABANDONED}=true`",
                volume.name_any()
            ),
        )),
        (true, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(finalizer: bool, deleting: bool) -> ObjectMeta {
        let deleted = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
        ObjectMeta {
            finalizers: finalizer.then(|| vec![keys::FINALIZER.to_owned()]),
            deletion_timestamp: deleting.then_some(deleted),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn who_is_missing() {
        for (finalizer, deleting, in_question) in
            [(false, false, true), (true, false, false), (true, true, true), (false, true, false)]
        {
            assert_eq!(is_in_question(&metadata(finalizer, deleting)), in_question, "{finalizer} {deleting}");
        }
        let volume = |deleting: bool, label: &str| {
            let spec = json!({"name": "v", "nodeName": "n", "size": "1Gi"});
            let mut volume: LogicalVolume =
                serde_json::from_value(json!({"metadata": {"name": "v", "labels": {ABANDONED: label}}, "spec": spec}))
                    .expect("a volume");
            volume.metadata.deletion_timestamp = metadata(true, deleting).deletion_timestamp;
            volume
        };
        for (deleting, exists, label, reason) in [
            (false, false, "", Some("NodeNotFound")),
            (false, true, "", Some("NoAgent")),
            (true, false, "", Some("NodeGone")),
            (true, false, "true", None),
            (true, true, "", None),
        ] {
            let found = missing(&volume(deleting, label), exists).map(|(reason, _)| reason);
            assert_eq!(found, reason, "{deleting} {exists} {label}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_in_question_is_kept_and_looked_at_again_and_again() {
        let patience = Duration::from_secs(30);
        let mut waiting = Waiting { patience, due: BTreeMap::new(), listed: BTreeSet::new() };
        let seen = |name: &str, in_question| (name.to_owned(), in_question);
        waiting.take_in(Event::Init);
        waiting.take_in(Event::InitApply(seen("new", true)));
        waiting.take_in(Event::InitApply(seen("held", false)));
        waiting.take_in(Event::InitDone);
        assert_eq!(waiting.take(Instant::now()), Vec::<String>::new(), "its agent has time to begin");
        for _ in 0..2 {
            tokio::time::advance(patience).await;
            assert_eq!(waiting.take(Instant::now()), ["new"]);
        }
        waiting.take_in(Event::Apply(seen("new", false)));
        waiting.take_in(Event::Apply(seen("held", true)));
        waiting.take_in(Event::Init);
        waiting.take_in(Event::InitDone);
        tokio::time::advance(patience).await;
        assert!(waiting.take(Instant::now()).is_empty() && waiting.due.is_empty(), "{:?}", waiting.due);
    }
}
