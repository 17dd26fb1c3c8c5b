//! The executor's steps, in the order of its life: claim, look, copy, ask, commit, read back, report.

use lvault_core::{Held, Holder, Job, State, Transition, next};

use super::settings::{Defect, Kind, Settings};
use super::state::{Commit, Content, ExecutorAt, Object, Outcome, Process, View, World};
use super::{Actor, Step};

/// The steps that this executor can take.
pub fn steps(settings: &Settings, world: &World, process: &Process, into: &mut Vec<(Step, World)>) {
    if process.hung {
        return;
    }
    let name = process.name;
    let mut take = |what: &str, after: World| {
        into.push((Step { actor: Actor::Executor(name), what: what.to_owned() }, after));
    };
    let (attempt, launch) = match process.job {
        Job::Copy { attempt, launch } => (attempt, launch),
        Job::Forget => return forget(settings, world, process, into),
    };
    match &process.at {
        ExecutorAt::ReadForClaim => {
            let mut after = world.clone();
            after.node.lease = Some(process.job);
            let to = after.view().map(ExecutorAt::WriteClaim);
            take("reads the object to claim it", moved(&after, name, to));
        }
        ExecutorAt::WriteClaim(view) => {
            let first = match settings.kind {
                Kind::Snapshot => ExecutorAt::Look,
                Kind::Restore => ExecutorAt::Fill,
            };
            let standing = stands(&view.object, name, |state| matches!(state, State::Running(_)))
                .then(|| view.object.record.clone())
                .flatten();
            let transition = Transition::Claim { holder: holder(name), attempt, launch };
            let record = match (standing.clone(), next(view.object.record.as_ref(), &transition)) {
                (Some(record), _) | (None, Ok(record)) => record,
                (None, Err(_)) => match stolen(settings, view, process) {
                    Some(record) => record,
                    None => return take("is refused", moved(world, name, None)),
                },
            };
            let mut claimed = world.clone();
            if let (State::Running(claim), Some(me)) = (record.state.clone(), claimed.process(name)) {
                me.held = Some(Held { attempt, claim });
            }
            if standing.is_some() {
                return take("finds its claim", moved(&claimed, name, Some(first)));
            }
            let change = |object: &mut Object| {
                object.record = Some(record.clone());
                object.holder = Some(name);
            };
            written(settings, (world, &claimed), process, view, first, ExecutorAt::ReadForClaim, change, into);
        }
        ExecutorAt::Look => {
            let found = world.commits.iter().find(|commit| commit.attempt == attempt);
            let to = match found {
                Some(commit) if settings.planted != Some(Defect::NoAdoption) => ExecutorAt::ReadBack(commit.by),
                Some(_) | None => ExecutorAt::Copy,
            };
            take("looks for a commit", moved(world, name, Some(to)));
        }
        ExecutorAt::Copy => {
            // The device is compared before a byte is read.
            let readable = process.mounted && world.node.mounted && world.node.volume == Some(Content::Whole);
            let to = if !readable {
                ExecutorAt::ReadForResult(Outcome::Failed)
            } else if settings.planted == Some(Defect::EarlySuccess) {
                ExecutorAt::ReadForResult(Outcome::Done(Some(name)))
            } else {
                ExecutorAt::Ask
            };
            take("copies", moved(world, name, Some(to)));
            broken(world, name, into);
        }
        ExecutorAt::Ask => {
            let ours = world.object.as_ref().is_some_and(|object| {
                let report = process.held.clone().map(Transition::Report);
                report.is_some_and(|report| next(object.record.as_ref(), &report).is_ok())
            });
            take("asks whether the claim holds", moved(world, name, ours.then_some(ExecutorAt::Commit)));
        }
        ExecutorAt::Commit => {
            let mut after = world.clone();
            let found = after.commits.iter().find(|commit| commit.attempt == attempt).map(|commit| commit.by);
            let by = match found {
                Some(by) if settings.planted != Some(Defect::NoAdoption) => by,
                Some(_) | None => {
                    after.commits.push(Commit { attempt, by: name, verified: false });
                    name
                }
            };
            let to = if settings.planted == Some(Defect::NoReadBack) {
                ExecutorAt::ReadForResult(Outcome::Done(Some(by)))
            } else {
                ExecutorAt::ReadBack(by)
            };
            take("commits", moved(&after, name, Some(to)));
        }
        ExecutorAt::ReadBack(by) => {
            let mut after = world.clone();
            let outcome = match after.commits.iter_mut().find(|commit| commit.by == *by) {
                Some(commit) => {
                    commit.verified = true;
                    Outcome::Done(Some(*by))
                }
                None => Outcome::Failed,
            };
            take("reads the commit back", moved(&after, name, Some(ExecutorAt::ReadForResult(outcome))));
        }
        ExecutorAt::Fill => {
            let mut after = world.clone();
            let reachable = process.mounted && after.node.mounted;
            let to = match (after.node.volume, reachable) {
                (Some(Content::Empty | Content::Whole), true) => {
                    after.node.volume = Some(Content::Partial);
                    ExecutorAt::Fill
                }
                (Some(Content::Partial), true) => {
                    after.node.volume = Some(Content::Whole);
                    ExecutorAt::ReadForResult(Outcome::Done(None))
                }
                (None, _) | (Some(_), false) => ExecutorAt::ReadForResult(Outcome::Failed),
            };
            take("fills the volume", moved(&after, name, Some(to)));
            broken(world, name, into);
        }
        ExecutorAt::ReadForResult(outcome) => {
            let to = world.view().map(|view| ExecutorAt::WriteResult(*outcome, view));
            take("reads the object for its result", moved(world, name, to));
        }
        ExecutorAt::WriteResult(outcome, view) => {
            let Some(held) = process.held.clone() else {
                return take("has no claim", moved(world, name, None));
            };
            let (transition, ended) = match outcome {
                Outcome::Done(_) => (Transition::Succeed(held), State::Succeeded),
                Outcome::Failed => (Transition::Fail(held), State::Failed),
            };
            let same_attempt = view.object.record.as_ref().is_some_and(|record| record.attempt == attempt);
            if same_attempt && stands(&view.object, name, |state| *state == ended) {
                return take("finds its result", moved(world, name, None));
            }
            let Ok(record) = next(view.object.record.as_ref(), &transition) else {
                return take("is refused", moved(world, name, None));
            };
            let change = |object: &mut Object| {
                object.record = Some(record.clone());
                match outcome {
                    Outcome::Done(commit) => object.reported = *commit,
                    Outcome::Failed if settings.planted == Some(Defect::FailureReports) => object.reported = Some(name),
                    Outcome::Failed => {}
                }
            };
            let again = ExecutorAt::ReadForResult(*outcome);
            written(settings, (world, world), process, view, None, again, change, into);
        }
        ExecutorAt::Remove | ExecutorAt::ReadForNote | ExecutorAt::WriteNote(_) => {}
    }
}

fn forget(settings: &Settings, world: &World, process: &Process, into: &mut Vec<(Step, World)>) {
    let name = process.name;
    let mut take = |what: &str, after: World| {
        into.push((Step { actor: Actor::Executor(name), what: what.to_owned() }, after));
    };
    match &process.at {
        ExecutorAt::Remove => {
            let mut after = world.clone();
            after.node.lease = Some(process.job);
            after.commits.clear();
            take("removes the repository's snapshots", moved(&after, name, Some(ExecutorAt::ReadForNote)));
        }
        ExecutorAt::ReadForNote => {
            let to = world.view().map(ExecutorAt::WriteNote);
            take("reads the object to note it", moved(world, name, to));
        }
        ExecutorAt::WriteNote(view) => {
            let change = |object: &mut Object| object.removed = true;
            written(settings, (world, world), process, view, None, ExecutorAt::ReadForNote, change, into);
        }
        ExecutorAt::ReadForClaim
        | ExecutorAt::WriteClaim(_)
        | ExecutorAt::Look
        | ExecutorAt::Copy
        | ExecutorAt::Ask
        | ExecutorAt::Commit
        | ExecutorAt::ReadBack(_)
        | ExecutorAt::Fill
        | ExecutorAt::ReadForResult(_)
        | ExecutorAt::WriteResult(..) => {}
    }
}

fn holder(name: u8) -> Holder {
    Holder(name.to_string())
}

/// Whether a write was made already, by this very process: an earlier answer was lost.
fn stands(object: &Object, name: u8, wanted: impl Fn(&State) -> bool) -> bool {
    object.holder == Some(name) && object.record.as_ref().is_some_and(|record| wanted(&record.state))
}

/// The claim that a planted defect makes although it is refused.
fn stolen(settings: &Settings, view: &View, process: &Process) -> Option<lvault_core::Record> {
    if settings.planted != Some(Defect::ClaimSteals) {
        return None;
    }
    let Job::Copy { launch, .. } = process.job else { return None };
    let record = view.object.record.clone()?;
    let State::Running(claim) = &record.state else { return None };
    let epoch = claim.epoch.next();
    let state = State::Running(lvault_core::Claim { holder: holder(process.name), epoch, launch });
    Some(lvault_core::Record { state, ..record })
}

/// The world after the executor has moved on, or has ended.
fn moved(world: &World, name: u8, to: impl Into<Option<ExecutorAt>>) -> World {
    let mut after = world.clone();
    match to.into() {
        Some(to) => {
            if let Some(process) = after.process(name) {
                process.at = to;
            }
        }
        None => after.end(name),
    }
    after
}

/// A copy that fails for good.
fn broken(world: &World, name: u8, into: &mut Vec<(Step, World)>) {
    if world.faults.broken_copies > 0 {
        let mut after = moved(world, name, Some(ExecutorAt::ReadForResult(Outcome::Failed)));
        after.faults.broken_copies -= 1;
        into.push((Step { actor: Actor::Fault, what: format!("the copy of executor {name} fails") }, after));
    }
}

/// A compare-and-swap: made and answered, made and not answered, or refused because somebody has written since. Where it
/// is refused, or nobody knows, the executor reads again.
#[allow(clippy::too_many_arguments, reason = "each is one end of the same write")]
fn written(
    settings: &Settings,
    (before, claimed): (&World, &World),
    process: &Process,
    view: &View,
    to: impl Into<Option<ExecutorAt>>,
    again: ExecutorAt,
    change: impl Fn(&mut Object),
    into: &mut Vec<(Step, World)>,
) {
    let name = process.name;
    let step = |what: &str| Step { actor: Actor::Executor(name), what: what.to_owned() };
    if before.object.is_none() {
        into.push((step("finds the object gone"), moved(before, name, None)));
        return;
    }
    let blind = settings.planted == Some(Defect::BlindExecutorWrite);
    if view.old && !blind {
        let mut after = moved(before, name, Some(again));
        if settings.planted == Some(Defect::ConflictHangs)
            && let Some(process) = after.process(name)
        {
            process.hung = true;
        }
        into.push((step("meets a conflict"), after));
        return;
    }
    let mut after = moved(claimed, name, to);
    after.write(&change);
    into.push((step("writes"), after));
    if before.faults.lost_answers > 0 {
        let mut after = moved(before, name, Some(again));
        after.faults.lost_answers -= 1;
        after.write(&change);
        into.push((
            Step { actor: Actor::Fault, what: format!("executor {name} writes, and the answer is lost") },
            after,
        ));
    }
}
