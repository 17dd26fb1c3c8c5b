//! The story of an object: where it stands, what is in the way, what to do. Pure, so that its texts can be tested.

use std::fmt;

use jiff::Timestamp;
use kube::ResourceExt;
use lvault_api::{
    LogicalVolume, Phase, PruneStatus, StoragePhase, StorageReference, TransferStatus, conditions, validate,
};

use super::{Facts, StorageFacts};
use crate::follow::{code_word, retry_hint};
use crate::objects::{
    Kind, attempt_asked, current_transfer, is_deleting, is_ready, phase, problem, published_path, size_asked, size_now,
    title, transfer,
};
use crate::output::age;
use crate::output::bytes;
use crate::progress::line;
use lvault_executor::WAITS_FOR_LOCK;

/// What `lvault why` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// Where the object stands.
    pub headline: String,
    /// What explains it.
    pub because: Vec<String>,
    /// What to do.
    pub todo: Vec<String>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline)?;
        for fact in &self.because {
            writeln!(f, "  - {fact}")?;
        }
        if self.todo.is_empty() {
            return writeln!(f, "what to do: nothing");
        }
        writeln!(f, "what to do:")?;
        self.todo.iter().try_for_each(|step| writeln!(f, "  - {step}"))
    }
}

impl Story {
    fn because(&mut self, fact: impl Into<String>) {
        self.because.push(fact.into());
    }

    fn todo(&mut self, step: impl Into<String>) {
        let step = step.into();
        if !self.todo.contains(&step) {
            self.todo.push(step);
        }
    }
}

/// The story of a volume, snapshot or restore.
pub fn tell(facts: &Facts, now: Timestamp) -> Story {
    let object = &facts.object;
    let mut story = Story { headline: line(object), ..Story::default() };
    if is_deleting(object) {
        deletion(&mut story, facts);
    } else if let Err(invalid) = validate(object) {
        story.because(format!("its spec cannot be carried out: {invalid}"));
        story.todo(format!("delete {} and make it again with another value", object.name_any()));
    } else {
        match (Kind::of(object), object.spec.online_snapshot.is_some()) {
            (Kind::Snapshot, true) => online(&mut story, facts, Kind::Snapshot),
            (Kind::Restore, _) => online(&mut story, facts, Kind::Restore),
            (Kind::Volume | Kind::Snapshot, _) => local(&mut story, facts),
        }
    }
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(ailment) = conditions::ailment(conditions) {
        story.because(format!("the storage beneath it is not well ({}): {}", ailment.reason, ailment.message));
        story.todo("put the storage right as the message says; lvault sees within a minute that it is");
    }
    node(&mut story, facts);
    for event in facts.events.iter().rev().take(3).rev() {
        let when = event.last_timestamp.as_ref().map(|time| time.0).or(event.creation_timestamp().map(|time| time.0));
        let reason = event.reason.as_deref().unwrap_or("Event");
        let message = event.message.as_deref().unwrap_or_default();
        story.because(format!("{} ago: {reason}: {message}", age(when, now)));
    }
    story
}

/// Where nobody has looked at the object, the agent of its node may not be there.
fn node(story: &mut Story, facts: &Facts) {
    let object = &facts.object;
    let at = &object.spec.node_name;
    match &facts.node {
        Some(node) if node != at => {
            story.because(format!("it belongs to node {at}, and the agent here is that of node {node}"));
            story.todo(format!("run `lvault up --node {at}` where that node's state folder is"));
        }
        Some(_) | None if object.status.is_none() && !is_deleting(object) => {
            story.because(format!("the agent of node {at} has not looked at it yet"));
            story.todo(format!("see whether `lvault up` is running on node {at}, and what it says"));
        }
        Some(_) | None => {}
    }
}

fn deletion(story: &mut Story, facts: &Facts) {
    let object = &facts.object;
    story.because("it is being deleted: first its executor ends, then it is unmounted, then its local data goes, then what the deletion policy names in the repository");
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let kept_back = conditions.iter().find(|condition| condition.type_ == conditions::REPOSITORY_SNAPSHOT_REMOVED);
    if let Some(condition) = kept_back.filter(|condition| condition.status != "True") {
        story.because(format!("removing it from its repository failed and is tried again: {}", condition.message));
        story.todo(
            "put that right; to leave the data in the repository instead: `lvault snapshot delete --keep-repository`",
        );
    }
    if let Some((code, message)) = problem(object) {
        story.because(format!("{}: {message}", code_word(code)));
    }
    if !object.finalizers().is_empty() {
        story.because(format!("its finalizer is still there: {}", object.finalizers().join(", ")));
    }
    if story.todo.is_empty() {
        story.todo(format!(
            "see whether `lvault up` is running on node {}: only it finishes a deletion",
            object.spec.node_name
        ));
    }
}

fn local(story: &mut Story, facts: &Facts) {
    let object = &facts.object;
    let grown = size_now(object).zip(size_asked(object)).filter(|(now, asked)| now < asked);
    if let Some((now, asked)) = grown {
        story.because(format!("it has {now} and is to grow to {asked}"));
    }
    if let Some((code, message)) = problem(object) {
        story.because(format!("{}: {message}", code_word(code)));
        story.todo("remove what the message names; the agent tries again by itself");
    }
    if is_ready(object) {
        if let Some(path) = published_path(object) {
            story.because(format!("it is ready; its files are in {path}"));
        }
        return;
    }
    if let Some(source) = &facts.source {
        source_of(story, object, source.as_ref());
    }
}

fn online(story: &mut Story, facts: &Facts, kind: Kind) {
    let object = &facts.object;
    let Some(transfer) = current_transfer(object) else {
        if let (Some(old), Some(asked)) = (transfer(object), attempt_asked(object)) {
            story.because(format!("attempt {} failed, and attempt {asked} is about to begin", old.attempt));
        }
        needs(story, facts);
        return;
    };
    match transfer.phase {
        Phase::Pending => needs(story, facts),
        Phase::Running => running(story, facts, transfer),
        Phase::Succeeded => succeeded(story, object, transfer),
        Phase::Failed => failed(story, facts, transfer, kind),
    }
}

/// What an attempt needs before it can run: its source, its storage, a place of its own.
fn needs(story: &mut Story, facts: &Facts) {
    let object = &facts.object;
    if let Some((code, message)) = problem(object) {
        story.because(format!("{}: {message}", code_word(code)));
    }
    if let Some(source) = &facts.source {
        source_of(story, object, source.as_ref());
    }
    if let Some((at, storage)) = &facts.storage {
        storage_of(story, at, storage.as_ref());
    }
    if story.because.is_empty() {
        story.because("nothing is in its way: the agent is preparing it");
    }
}

fn running(story: &mut Story, facts: &Facts, transfer: &TransferStatus) {
    let executor = transfer.executor.clone().unwrap_or_default();
    if let Some(name) = executor.name {
        story.because(format!("executor {name} is working on it (claim {})", executor.epoch.unwrap_or(1)));
    }
    if let Some(lost) = executor.lost.filter(|lost| *lost > 0) {
        let limit = limit(&facts.object);
        story.because(format!("executors of this attempt that were lost: {lost}; at {limit} the attempt fails"));
    }
    // The message itself stands in the headline.
    if transfer.message.as_ref().is_some_and(|message| message.starts_with(WAITS_FOR_LOCK)) {
        let storage = facts.storage.as_ref().map(|(at, _)| at.to_string()).unwrap_or_default();
        story.todo(format!("wait for its holder; if that is gone for good, `lvault storage unlock {storage}`"));
    }
    if let Some((at, storage)) = &facts.storage {
        storage_of(story, at, storage.as_ref());
    }
    if story.todo.is_empty() {
        story.todo(format!("wait: `lvault snapshot watch {}` shows how far it is", facts.object.name_any()));
    }
}

fn limit(object: &LogicalVolume) -> i32 {
    let online = object.spec.online_snapshot.as_ref().map(|online| online.backoff_limit);
    online.or(object.spec.restore.as_ref().map(|restore| restore.backoff_limit)).unwrap_or(3)
}

fn succeeded(story: &mut Story, object: &LogicalVolume, transfer: &TransferStatus) {
    if let (Some(id), Some(path), Some(storage)) = (&transfer.snapshot_id, &transfer.path, &transfer.repository) {
        story.because(format!("it is snapshot {id} of repository {path} in storage {storage}"));
    }
    if let Some(missing) = &transfer.incomplete {
        story.because(format!(
            "{} files or folders could not be read and are missing: {}",
            missing.count,
            missing.first.join("; ")
        ));
        story.todo("make them readable, and take another snapshot");
    }
    if Kind::of(object) == Kind::Restore {
        match published_path(object) {
            Some(path) if is_ready(object) => story.because(format!("it is ready; its files are in {path}")),
            Some(_) | None => story.because(format!("the data is complete; the volume is {}", phase(object))),
        }
    }
}

fn failed(story: &mut Story, facts: &Facts, transfer: &TransferStatus, kind: Kind) {
    if let Some(error) = &transfer.error {
        story.because(format!("{}: {}", error.code, error.message));
        if let Some(step) = remedy(&error.code) {
            story.todo(step);
        }
    }
    if let Some((at, storage)) = &facts.storage {
        storage_of(story, at, storage.as_ref());
    }
    // Where the snapshot was cut, the next attempt copies it again and needs no source.
    let cut = !transfer.error.as_ref().is_some_and(|error| NOT_CUT.contains(&error.code.as_str()));
    if let (Some(source), Kind::Snapshot, false) = (&facts.source, kind, cut) {
        source_of(story, &facts.object, source.as_ref());
    }
    story.todo(retry_hint(&facts.object));
}

/// Errors after which there is no local snapshot to copy again.
const NOT_CUT: [&str; 3] = ["SourceGone", "SourceNotReady", "SnapshotFailed"];

/// What usually helps against an error of this code.
fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "SourceGone" => "the volume it was to be cut from is gone: snapshot one that exists",
        "SourceNotReady" => "see why its source is not ready with `lvault why SOURCE`",
        "StorageNotReady" => "see what is wrong with the storage with `lvault why STORAGE`",
        "BackoffLimitExceeded" => {
            "its executors ended again and again: look for lack of memory (dmesg) and at the log of `lvault up`"
        }
        "InvalidSpec" => "delete it and make it again with another value",
        "MountFailed" => "see why the snapshot cannot be mounted: the message says what the system answered",
        "SnapshotFailed" | "CreateFailed" => "see whether the pool or the filesystem below it is full",
        "ExecutorCannotStart" => "see whether this node can start processes: limits, memory, the lvault binary itself",
        _ => return None,
    })
}

fn source_of(story: &mut Story, object: &LogicalVolume, source: Option<&LogicalVolume>) {
    let name = object.spec.source.clone().unwrap_or_default();
    let Some(source) = source else {
        story.because(format!("its source {name} does not exist"));
        story.todo(format!("make volume {name}, or delete this and name another source"));
        return;
    };
    if source.spec.node_name != object.spec.node_name {
        let (there, here) = (&source.spec.node_name, &object.spec.node_name);
        story.because(format!(
            "its source {name} is on node {there}, and a snapshot is cut on the same node, not on {here}"
        ));
        story.todo(format!("delete this and make it with node {there}"));
    } else if is_deleting(source) {
        story.because(format!("its source {name} is being deleted"));
        story.todo("delete this and name another source");
    } else if !is_ready(source) && source.spec.online_snapshot.is_none() {
        story.because(format!("its source, {}, is not ready: {}", title(source), phase(source)));
        story.todo(format!("see what that waits for: `lvault why {name}`"));
    }
}

fn storage_of(story: &mut Story, at: &StorageReference, facts: Option<&StorageFacts>) {
    let Some(facts) = facts else {
        story.because(format!("its storage {at} does not exist"));
        story.todo(format!("add it: `lvault storage add {} --namespace {} --local FOLDER`", at.name, at.namespace));
        return;
    };
    storage_problem(story, at, facts);
}

/// Tells what is wrong with a storage, and whether anything is.
fn storage_problem(
    story: &mut Story,
    at: &StorageReference,
    StorageFacts { storage, password }: &StorageFacts,
) -> bool {
    let status = storage.status.as_ref();
    let message = status.and_then(|status| status.message.clone()).unwrap_or_default();
    if let Err(invalid) = lvault_storages::check(&storage.spec) {
        story.because(format!("storage {at} cannot be used: {invalid}"));
        story.todo(format!("delete storage {at} and add it again with another value"));
    } else if !password {
        let secret = storage.secret_name();
        story.because(format!("storage {at} has no password: Secret {}/{secret} has no RESTIC_PASSWORD", at.namespace));
        story.todo("put the repositories' password into that Secret");
    } else {
        match status.and_then(|status| status.phase) {
            Some(StoragePhase::Error) => {
                story.because(format!("storage {at} cannot be used: {message}"));
                story.todo(format!("put that right, then `lvault storage check {at}`"));
            }
            Some(StoragePhase::Pending) | None if storage.spec.validate_on_create => {
                let more = if message.is_empty() { String::new() } else { format!(": {message}") };
                story.because(format!("storage {at} has not been checked yet{more}"));
                story.todo("see whether `lvault up` is running: it checks storages");
            }
            Some(StoragePhase::Ready | StoragePhase::Pending) | None => return false,
        }
    }
    true
}

/// The story of a storage.
pub fn tell_storage(facts: &StorageFacts) -> Story {
    let at = crate::command::reference(&facts.storage);
    let phase = crate::output::storage_phase(&facts.storage);
    let mut story = Story { headline: format!("storage {at}: {phase}"), ..Story::default() };
    if !storage_problem(&mut story, &at, facts) {
        story.because("it can be used");
    }
    match (&facts.storage.spec.prune, facts.storage.status.as_ref().and_then(|status| status.prune.as_ref())) {
        (_, Some(PruneStatus { message: Some(message), .. })) => {
            story.because(format!("its last prune did not do everything: {message}"));
            story.todo(format!("put that right, then `lvault storage prune {at}`"));
        }
        (_, Some(prune)) => {
            let (total, spare) = (bytes(prune.total_bytes), bytes(prune.reclaimable_bytes));
            story.because(format!("after its last prune {total} were stored, {spare} of it not needed"));
        }
        (Some(_), None) => {}
        (None, None) => story
            .because("nobody prunes it: the space of deleted snapshots comes back with `lvault storage prune` only"),
    }
    story
}

#[cfg(test)]
#[path = "tell_tests.rs"]
mod tests;
