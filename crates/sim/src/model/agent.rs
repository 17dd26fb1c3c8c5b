//! The agent's steps: read the object, look at the node and decide, do one effect. It may end between any two of them.

use lvault_core::{
    Action, Attempt, Bytes, Effect, Executor, Failure, Intent, Job, Lease, Life, Local, Observed, Online, Record,
    Repository, Seen, Source, State, Storage, Transition, Trouble, Volume, decide, next,
};

use super::settings::{Defect, Kind, Settings};
use super::state::{Agent, AgentAt, Content, ExecutorAt, Object, Process, View, World};
use super::{Actor, Step};

const SIZE: Bytes = Bytes(1);

/// What cannot be seen in a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unseen {
    Nothing,
    Volume,
    Mount,
    Executor,
    Lease,
    Elsewhere,
}

const UNSEEN: [Unseen; 5] = [Unseen::Volume, Unseen::Mount, Unseen::Executor, Unseen::Lease, Unseen::Elsewhere];

/// What of a look is not as it should be.
#[derive(Clone, Copy)]
struct Look {
    unseen: Unseen,
    /// A healthy executor's renewals have not arrived.
    missed: bool,
}

const CLEAR: Look = Look { unseen: Unseen::Nothing, missed: false };

/// The steps that this agent can take.
pub fn steps(settings: &Settings, world: &World, index: usize, into: &mut Vec<(Step, World)>) {
    let step = |what: String| Step { actor: Actor::Agent(index), what };
    let fault = |what: String| Step { actor: Actor::Fault, what };
    let agent = &world.agents[index];
    match &agent.at {
        AgentAt::Idle => {
            if let Some(view) = world.view() {
                let read = at(world, index, AgentAt::Read(view.clone()));
                if settings.planted == Some(Defect::EffectsOnOldView) && agent.cache.is_none() {
                    let mut kept = read.clone();
                    kept.agents[index].cache = Some(view.object);
                    into.push((fault("the agent keeps what it reads".to_owned()), kept));
                }
                into.push((step("reads the object".to_owned()), read));
            }
            if let Some(object) = agent.cache.clone() {
                let cached = AgentAt::Read(View { object, old: true });
                into.push((fault("the agent takes what it has kept".to_owned()), at(world, index, cached)));
            }
        }
        AgentAt::Read(view) => {
            let mut look = |look: Look, mut from: World, step: Step| {
                let observed = observe(settings, &from, index, &view.object, look);
                let to = match chosen(settings, &from, &observed) {
                    Action::Settled | Action::Wait(_) => AgentAt::Idle,
                    Action::Do(effect) => AgentAt::Decided(view.clone(), effect),
                };
                forget_old_trouble(&mut from.agents[index], &view.object);
                into.push((step, at(&from, index, to)));
            };
            look(CLEAR, world.clone(), step("looks at the node".to_owned()));
            if world.faults.unseen > 0 {
                for unseen in UNSEEN {
                    let mut from = world.clone();
                    from.faults.unseen -= 1;
                    look(Look { unseen, ..CLEAR }, from, fault(format!("the agent cannot see: {unseen:?}")));
                }
            }
            if world.faults.missed_renewals > 0 && world.holder().is_some_and(|process| !process.hung) {
                let mut from = world.clone();
                from.faults.missed_renewals -= 1;
                look(Look { missed: true, ..CLEAR }, from, fault("the agent sees no renewal".to_owned()));
            }
        }
        AgentAt::Decided(view, effect) => {
            let done = perform(settings, world, index, view, *effect);
            into.push((step(format!("does {effect:?}")), done.clone()));
            if settings.planted == Some(Defect::LaunchTwice) && matches!(effect, Effect::Launch(_)) {
                let again = AgentAt::Decided(view.clone(), *effect);
                let mut done = started(&done, index);
                done.agents[index].at = again;
                into.push((fault("the launch's answer is lost".to_owned()), done));
            }
            if let Some(trouble) = trouble_of(*effect).filter(|_| world.faults.broken_effects > 0) {
                let mut broken = at(world, index, AgentAt::Idle);
                broken.faults.broken_effects -= 1;
                if !view.object.deleting {
                    broken.agents[index].trouble = Some((trouble, circumstance(&view.object)));
                }
                into.push((fault(format!("{effect:?} fails for good")), broken));
            }
        }
        AgentAt::LeaseRemoved => {
            let mut after = at(world, index, AgentAt::Idle);
            // It refuses while one runs.
            if world.holder().is_none() || settings.planted == Some(Defect::EarlyCleaning) {
                after.node.folder = None;
            }
            into.push((step("removes the executor's folder".to_owned()), after));
        }
        AgentAt::FolderMade(_) => into.push((step("starts the process".to_owned()), started(world, index))),
    }
    if world.faults.agent_crashes > 0 && *agent != (Agent { at: AgentAt::Idle, trouble: None, cache: None }) {
        let mut after = at(world, index, AgentAt::Idle);
        after.faults.agent_crashes -= 1;
        after.agents[index].trouble = None;
        into.push((fault(format!("agent {index} ends and is started again")), after));
    }
}

/// Whether a pass that begins or goes on now changes anything.
pub fn has_work(settings: &Settings, world: &World, index: usize) -> bool {
    match &world.agents[index].at {
        AgentAt::Idle => world.object.as_ref().is_some_and(|object| {
            let observed = observe(settings, world, index, object, CLEAR);
            matches!(chosen(settings, world, &observed), Action::Do(_))
        }),
        AgentAt::Read(_) | AgentAt::Decided(..) | AgentAt::LeaseRemoved | AgentAt::FolderMade(_) => true,
    }
}

fn at(world: &World, index: usize, to: AgentAt) -> World {
    let mut after = world.clone();
    after.agents[index].at = to;
    after
}

fn open(record: Option<&Record>) -> Option<&Record> {
    record.filter(|record| !record.is_terminal())
}

fn circumstance(object: &Object) -> Option<(Attempt, u32)> {
    open(object.record.as_ref()).map(|record| (record.attempt, record.lost))
}

fn forget_old_trouble(agent: &mut Agent, object: &Object) {
    agent.trouble = agent.trouble.filter(|(_, about)| *about == circumstance(object));
}

fn trouble_of(effect: Effect) -> Option<Trouble> {
    match effect {
        Effect::CreateVolume => Some(Trouble::Create),
        Effect::CutSnapshot => Some(Trouble::Cut),
        Effect::Mount => Some(Trouble::Mount),
        Effect::Launch(_) => Some(Trouble::Launch),
        Effect::GrowVolume => Some(Trouble::Grow),
        Effect::AddFinalizer
        | Effect::Begin(_)
        | Effect::Publish
        | Effect::EndExecutor
        | Effect::RecordLoss(_)
        | Effect::Fail(_)
        | Effect::Unmount
        | Effect::RemoveVolume
        | Effect::CleanExecutor
        | Effect::DropFinalizer => None,
    }
}

/// One look, the way the real agent looks.
fn observe(settings: &Settings, world: &World, index: usize, object: &Object, look: Look) -> Observed {
    let absent = settings.planted == Some(Defect::UnknownIsAbsent);
    let cannot = |what: Unseen| look.unseen == what;
    fn hidden<T>(absent: bool) -> Seen<T> {
        if absent { Seen::Absent } else { Seen::Unknown }
    }
    let volume = if cannot(Unseen::Volume) {
        hidden(absent)
    } else {
        Seen::known(world.node.volume.map(|_| Volume { size: SIZE }))
    };
    let mount = if cannot(Unseen::Mount) || cannot(Unseen::Volume) {
        hidden(absent)
    } else {
        Seen::known(world.node.mounted.then_some(()))
    };
    let holder = world.holder();
    let executor = if cannot(Unseen::Executor) {
        hidden(absent)
    } else {
        let life = if holder.is_some() { Life::Alive } else { Life::Ended };
        Seen::known(world.node.folder.map(|job| Executor { job, life }))
    };
    let lease = match executor {
        Seen::Present(Executor { life: Life::Alive, .. }) if cannot(Unseen::Lease) => hidden(absent),
        Seen::Present(Executor { life: Life::Alive, .. }) => {
            let beats = settings.planted.is_some_and(|p| [Defect::HangIgnored, Defect::ConflictHangs].contains(&p));
            let silent = look.missed || holder.is_some_and(|process| process.hung);
            Seen::Present(if silent && !beats { Lease::Expired } else { Lease::Fresh })
        }
        Seen::Present(Executor { life: Life::Ended, .. }) | Seen::Absent | Seen::Unknown => Seen::Absent,
    };
    let elsewhere = !cannot(Unseen::Elsewhere);
    let source = if volume != Seen::Absent || object.deleting {
        Seen::Unknown
    } else if elsewhere {
        Seen::known(world.source.then_some(Source::Ready))
    } else {
        hidden(absent)
    };
    let wanted = match settings.kind {
        Kind::Snapshot => executor == Seen::Absent,
        Kind::Restore => executor == Seen::Absent && !object.deleting,
    };
    let storage = if !wanted {
        Seen::Unknown
    } else if elsewhere {
        Seen::known(world.storage.then_some(Storage::Ready))
    } else {
        hidden(absent)
    };
    let may_have_committed =
        object.holder.is_some() || object.record.as_ref().is_some_and(|record| record.attempt > Attempt::FIRST);
    let repository = match settings.kind {
        Kind::Snapshot if may_have_committed && !object.removed => Repository::Holds,
        Kind::Snapshot | Kind::Restore => Repository::Nothing,
    };
    let online = Online {
        attempt: object.wanted,
        backoff_limit: settings.backoff_limit,
        keep_local: settings.keep_local,
        record: object.record.clone(),
        overdue: object.overdue,
        storage,
        repository,
    };
    let published = object.published.then_some(SIZE);
    let intent = match settings.kind {
        Kind::Snapshot => Intent::OnlineSnapshot(online, source),
        Kind::Restore => Intent::Restore(online, Local { size: SIZE, published, serve: true }),
    };
    let trouble = world.agents[index].trouble.filter(|(_, about)| *about == circumstance(object)).map(|(t, _)| t);
    Observed { intent, deleting: object.deleting, finalizer: object.finalizer, volume, mount, executor, lease, trouble }
}

/// What the agent does about it: the real decision, and what a planted defect makes of it.
#[allow(clippy::wildcard_enum_match_arm, reason = "a defect that is not named here changes no decision")]
fn chosen(settings: &Settings, world: &World, observed: &Observed) -> Action {
    let action = decide(observed);
    let Some(planted) = settings.planted else { return action };
    let record = match &observed.intent {
        Intent::OnlineSnapshot(online, _) | Intent::Restore(online, _) => online.record.as_ref(),
        Intent::Volume(_) | Intent::LocalSnapshot(..) => None,
    };
    let running = record.is_some_and(|record| matches!(record.state, State::Running(_)));
    let failed = record.is_some_and(|record| record.state == State::Failed);
    let alive = matches!(observed.executor, Seen::Present(Executor { life: Life::Alive, .. }));
    let is_published = world.object.as_ref().is_some_and(|object| object.published);
    let has_volume = observed.volume.present().is_some();
    let is_loss = matches!(action, Action::Do(Effect::RecordLoss(_)));
    match planted {
        Defect::PhaseReset if running && !observed.deleting => Action::Do(Effect::Begin(Attempt::FIRST)),
        Defect::RetryOverRunning => match (&observed.intent, record) {
            (Intent::OnlineSnapshot(online, _) | Intent::Restore(online, _), Some(record))
                if online.attempt > record.attempt && running && !observed.deleting =>
            {
                Action::Do(Effect::Begin(online.attempt))
            }
            _ => action,
        },
        Defect::LossIgnored if is_loss => Action::Settled,
        Defect::NoFence if is_loss => match (observed.executor, record) {
            (Seen::Present(_), _) | (_, None) => Action::Do(Effect::CleanExecutor),
            (Seen::Absent | Seen::Unknown, Some(record)) => {
                let launch = record.launch().next();
                Action::Do(Effect::Launch(Job::Copy { attempt: record.attempt, launch }))
            }
        },
        Defect::EarlyRemoval if running && alive && has_volume => Action::Do(Effect::RemoveVolume),
        Defect::EarlyCleaning if alive && record.is_some_and(Record::is_terminal) => Action::Do(Effect::CleanExecutor),
        Defect::DeletionNeedsSource if observed.deleting && !world.source => Action::Settled,
        Defect::EarlyFinalizer if action == Action::Do(Effect::RemoveVolume) && observed.deleting => {
            Action::Do(Effect::DropFinalizer)
        }
        Defect::FailureRemoves if has_volume && action == Action::Settled && failed => Action::Do(Effect::RemoveVolume),
        Defect::EarlyPublish if running && has_volume && !is_published && !observed.deleting => {
            Action::Do(Effect::Publish)
        }
        Defect::DeletionIgnoresExecutor if action == Action::Do(Effect::EndExecutor) && observed.deleting => {
            Action::Do(if observed.mount == Seen::Present(()) { Effect::Unmount } else { Effect::RemoveVolume })
        }
        Defect::NoForget if action == Action::Do(Effect::Launch(Job::Forget)) => Action::Do(Effect::DropFinalizer),
        Defect::GiveUpTooEarly if alive && record.is_some_and(|record| record.state == State::Pending) => {
            Action::Do(Effect::Fail(Failure::Trouble(Trouble::Launch)))
        }
        _ => action,
    }
}

fn perform(settings: &Settings, world: &World, index: usize, view: &View, effect: Effect) -> World {
    let mut after = at(world, index, AgentAt::Idle);
    match effect {
        Effect::AddFinalizer => swap(settings, &mut after, view, |object| object.finalizer = true),
        Effect::DropFinalizer => {
            if !view.old && view.object.deleting {
                after.object = None;
            }
        }
        Effect::Publish => swap(settings, &mut after, view, |object| object.published = true),
        Effect::Begin(attempt) => {
            let begun = match settings.planted {
                Some(Defect::PhaseReset | Defect::RetryOverRunning) => {
                    Ok(Record { attempt, lost: 0, state: State::Pending })
                }
                Some(_) | None => next(view.object.record.as_ref(), &Transition::Begin { attempt }),
            };
            if let Ok(record) = begun {
                swap(settings, &mut after, view, |object| {
                    *object =
                        Object { record: Some(record), holder: None, reported: None, overdue: false, ..object.clone() };
                });
            }
        }
        Effect::RecordLoss(launch) => write(settings, &mut after, view, &Transition::RecordLoss { launch }),
        Effect::Fail(failure) => {
            let transition = match failure {
                Failure::ExecutorsLost(limit) => Transition::ExceedBackoffLimit { limit },
                Failure::SourceGone | Failure::SourceNotReady | Failure::StorageNotReady | Failure::Trouble(_) => {
                    Transition::GiveUp
                }
            };
            write(settings, &mut after, view, &transition);
        }
        Effect::CreateVolume => {
            after.node.volume.get_or_insert(Content::Empty);
        }
        Effect::CutSnapshot => {
            if after.source {
                after.node.volume.get_or_insert(Content::Whole);
            }
        }
        Effect::GrowVolume => {}
        Effect::Mount => after.node.mounted = after.node.volume.is_some(),
        Effect::Unmount => after.node.mounted = false,
        Effect::RemoveVolume => {
            let forced = matches!(settings.planted, Some(Defect::EarlyRemoval | Defect::DeletionIgnoresExecutor));
            // An attached volume is refused.
            if !after.node.mounted || forced {
                after.node.volume = None;
            }
        }
        Effect::Launch(job) => {
            let free = after.node.folder.is_none() || settings.planted == Some(Defect::LaunchTwice);
            if after.storage && free {
                after.node.folder = Some(job);
                after.agents[index].at = AgentAt::FolderMade(job);
            }
        }
        Effect::EndExecutor => after.executors.retain(|process| !process.locked),
        Effect::CleanExecutor => {
            after.node.lease = None;
            after.agents[index].at = AgentAt::LeaseRemoved;
        }
    }
    after
}

/// The process of the folder that was just made.
fn started(world: &World, index: usize) -> World {
    let mut after = at(world, index, AgentAt::Idle);
    let AgentAt::FolderMade(job) = world.agents[index].at else { return after };
    let first = match job {
        Job::Copy { .. } => ExecutorAt::ReadForClaim,
        Job::Forget => ExecutorAt::Remove,
    };
    let process = Process {
        name: after.started,
        job,
        locked: true,
        hung: false,
        at: first,
        held: None,
        mounted: after.node.mounted,
    };
    after.started += 1;
    after.executors.push(process);
    after
}

fn write(settings: &Settings, world: &mut World, view: &View, transition: &Transition) {
    let written = next(view.object.record.as_ref(), transition).ok();
    if let Some(record) = written {
        swap(settings, world, view, |object| object.record = Some(record));
    }
}

/// A compare-and-swap on what was read.
fn swap(settings: &Settings, world: &mut World, view: &View, change: impl FnOnce(&mut Object)) {
    if settings.planted == Some(Defect::BlindAgentWrite) {
        let mut object = view.object.clone();
        change(&mut object);
        world.write(|current| *current = Object { wanted: current.wanted, deleting: current.deleting, ..object });
    } else if !view.old {
        world.write(change);
    }
}
