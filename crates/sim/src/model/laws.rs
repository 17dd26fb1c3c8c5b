//! What no step may break, and what has to hold at rest. The numbers are those of the design's invariants.

use lvault_core::{Job, Record, State};

use super::settings::{Kind, Settings};
use super::state::{Content, Object, World};
use super::{Actor, Step};

/// More executors than any world needs: two for each of two attempts, and for a deletion one more than may be lost.
const LAUNCHES: u8 = 12;

/// The law that a step breaks.
pub fn broken(settings: &Settings, before: &World, step: &Step, after: &World) -> Option<String> {
    let mut found = Vec::new();
    found.extend(phases(before, after));
    found.extend(commits(before, after));
    reported(settings, after, &mut found);
    removals(settings, before, after, &mut found);
    found.extend(executors(before, step, after));
    found.extend(gone(settings, before, after));
    counted(settings, found)
}

/// The first of the laws that is looked at.
fn counted(settings: &Settings, found: Vec<&'static str>) -> Option<String> {
    found.into_iter().find(|law| settings.without.is_none_or(|off| !is_of(law, off))).map(str::to_owned)
}

/// Whether a law belongs to an invariant.
pub fn is_of(law: &str, invariant: u8) -> bool {
    law.strip_prefix('I').and_then(|rest| rest.split(':').next()).and_then(|number| number.parse().ok())
        == Some(invariant)
}

fn record(world: &World) -> Option<&Record> {
    world.object.as_ref().and_then(|object| object.record.as_ref())
}

fn rank(state: &State) -> u8 {
    match state {
        State::Pending => 0,
        State::Running(_) => 1,
        State::Succeeded | State::Failed => 2,
    }
}

fn phases(before: &World, after: &World) -> Option<&'static str> {
    after.object.as_ref()?;
    match (record(before), record(after)) {
        (None, _) => None,
        (Some(_), None) => Some("I1: a status was wiped"),
        (Some(old), Some(new)) if new.attempt < old.attempt => Some("I1: the attempt went back"),
        (Some(old), Some(new)) if new.attempt > old.attempt => {
            (old.state != State::Failed).then_some("I1: a new attempt began over one that had not failed")
        }
        (Some(old), Some(new)) => {
            if rank(&new.state) < rank(&old.state) {
                Some("I1: a phase went back")
            } else if old.is_terminal() && new.state != old.state {
                Some("I1: a terminal phase changed")
            } else if new.lost < old.lost {
                Some("I1: a loss was forgotten")
            } else {
                None
            }
        }
    }
}

fn commits(before: &World, after: &World) -> Option<&'static str> {
    let mut new = after.commits.iter().filter(|commit| !before.commits.iter().any(|old| old.by == commit.by));
    let second = new.any(|commit| before.commits.iter().any(|old| old.attempt == commit.attempt));
    second.then_some("I2: a second commit of an attempt was made while the first was visible")
}

fn reported(settings: &Settings, after: &World, found: &mut Vec<&'static str>) {
    let Some(object) = &after.object else { return };
    let Some(record) = &object.record else { return };
    let whole = after.node.volume == Some(Content::Whole);
    match (&record.state, settings.kind) {
        (State::Succeeded, Kind::Snapshot) if !object.deleting => found.extend(is_good(after, object)),
        (State::Succeeded, Kind::Snapshot) => {}
        (State::Failed | State::Pending | State::Running(_), kind) => {
            if object.reported.is_some() {
                found.push("I4: something is reported of an attempt that did not succeed");
            }
            if kind == Kind::Restore && object.published {
                found.push("I8: a volume was published whose restore did not succeed");
            }
        }
        (State::Succeeded, Kind::Restore) if !whole && !object.deleting => {
            if object.published {
                found.push("I8: a volume was published that is not whole");
            }
            found.push("I3: a restore succeeded and its data is not there");
        }
        (State::Succeeded, Kind::Restore) => {}
    }
}

fn is_good(world: &World, object: &Object) -> Option<&'static str> {
    let attempt = object.record.as_ref().map(|record| record.attempt);
    match world.commits.iter().find(|commit| Some(commit.by) == object.reported) {
        None => Some("I3: a success reports a commit that is not there"),
        Some(commit) if !commit.verified => Some("I3: a success reports a commit that was not read back"),
        Some(commit) if Some(commit.attempt) != attempt => Some("I2: a success reports another attempt's commit"),
        Some(_) => None,
    }
}

/// Teardown order, and what is removed when.
fn removals(settings: &Settings, before: &World, after: &World, found: &mut Vec<&'static str>) {
    let locked = before.executors.iter().any(|process| process.locked);
    if before.node.volume.is_some() && after.node.volume.is_none() {
        if locked {
            found.push("I5: a volume was removed under its executor");
        }
        let deleting = before.object.as_ref().is_none_or(|object| object.deleting);
        let state = record(before).map(|record| &record.state);
        let allowed = match settings.kind {
            Kind::Snapshot => state == Some(&State::Succeeded) && !settings.keep_local,
            Kind::Restore => state == Some(&State::Failed),
        };
        if !deleting && !allowed {
            found.push("I9: a local volume was removed that was still needed");
        }
    }
    if before.node.mounted && !after.node.mounted && locked {
        found.push("I5: a volume was unmounted under its executor");
    }
    if before.node.folder.is_some() && after.node.folder.is_none() && before.holder().is_some() {
        found.push("I5: the lock of an executor was removed while it ran");
    }
}

fn executors(before: &World, step: &Step, after: &World) -> Option<&'static str> {
    if after.started > LAUNCHES {
        return Some("I7: executors are launched without end");
    }
    if after.executors.iter().filter(|process| process.locked).count() > 1 {
        return Some("two executors of one object run");
    }
    let (old, new) = (record(before)?, record(after)?);
    if old.attempt != new.attempt {
        return None;
    }
    let runs = |attempt, launch| {
        let job = Job::Copy { attempt, launch };
        before.executors.iter().any(|process| process.locked && process.job == job)
    };
    if new.lost > old.lost && runs(old.attempt, old.launch()) {
        return Some("an executor was counted as lost that runs");
    }
    if let (State::Running(was), State::Running(is)) = (&old.state, &new.state) {
        if was.holder != is.holder && runs(old.attempt, was.launch) {
            return Some("a claim was taken over from an executor that runs");
        }
        if was.holder != is.holder && is.epoch <= was.epoch {
            return Some("a claim was taken over without a higher epoch");
        }
    }
    let by_agent = matches!(step.actor, Actor::Agent(_));
    let failed = old.state != State::Failed && new.state == State::Failed;
    if by_agent && failed && before.executors.iter().any(|process| process.locked) {
        return Some("the agent failed an attempt whose executor runs");
    }
    None
}

/// The object is gone for good: nothing of it may be left.
fn gone(settings: &Settings, before: &World, after: &World) -> Option<&'static str> {
    if after.object.is_some() {
        return None;
    }
    if before.object.is_none() {
        let grew = after.node.volume.is_some() || after.node.mounted || after.node.folder.is_some();
        return grew.then_some("I5: something was made for an object that is gone");
    }
    left(settings, after)
}

fn left(settings: &Settings, world: &World) -> Option<&'static str> {
    if world.node.volume.is_some() || world.node.mounted {
        return Some("I5: the object is gone and its volume is not");
    }
    if world.node.folder.is_some() || world.node.lease.is_some() {
        return Some("I5: the object is gone, and what its executor left is not");
    }
    if world.executors.iter().any(|process| process.locked) {
        return Some("I5: the object is gone and its executor is not");
    }
    // Whoever removes the storage gives up what is in it.
    if !world.commits.is_empty() && settings.faults.storage_changes == 0 {
        return Some("I5: the object is gone and its repository snapshot is not");
    }
    None
}

/// What is wrong with resting here, once faults have stopped.
pub fn unsettled(settings: &Settings, world: &World) -> Option<String> {
    let mut found = Vec::new();
    match &world.object {
        None => found.extend(left(settings, world)),
        Some(object) => {
            if object.deleting {
                found.push("I7: a deletion never ends");
            }
            if world.node.folder.is_some() || lease_stays(settings, world) {
                found.push("I5: what an executor left stays");
            }
            if world.executors.iter().any(|process| process.locked) {
                found.push("I5: an executor stays");
            }
            if !object.deleting {
                found.extend(at_end(settings, world, object));
            }
        }
    }
    counted(settings, found)
}

/// A zombie may renew its lease after it was cleaned; the lease goes with the object then, which owns it.
fn lease_stays(settings: &Settings, world: &World) -> bool {
    world.node.lease.is_some() && settings.faults.zombies == 0
}

fn at_end(settings: &Settings, world: &World, object: &Object) -> Option<&'static str> {
    let Some(record) = &object.record else { return Some("I7: an attempt never begins") };
    match (&record.state, settings.kind) {
        (State::Pending | State::Running(_), _) => Some("I7: an attempt never ends"),
        (State::Failed, _) if object.wanted > record.attempt => Some("I7: a retry is never begun"),
        (State::Succeeded | State::Failed, Kind::Snapshot) if world.node.mounted => Some("I5: a mount stays"),
        (State::Succeeded, Kind::Snapshot) if world.node.volume.is_some() != settings.keep_local => {
            Some("I5: the local snapshot is not as it was asked for")
        }
        (State::Failed, Kind::Restore) if world.node.volume.is_some() || world.node.mounted => {
            Some("I4: something is left of a failed restore")
        }
        (State::Succeeded, Kind::Restore) if !object.published => Some("I7: a restored volume is never published"),
        (State::Succeeded | State::Failed, Kind::Snapshot | Kind::Restore) => None,
    }
}
