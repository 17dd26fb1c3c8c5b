//! Every observation there is, decided on: it converges, it never takes anything away for what was not seen, and the
//! whole policy is a file that a reviewer can read.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

mod support;

use std::fmt::Write;
use std::rc::Rc;

use lvault_core::{
    Action, Effect, Executor, Failure, Held, Holder, Intent, Job, Lease, Life, Observed, Record, Repository, Seen,
    Source, State, Storage, Transition, Trouble, Volume, Wait, decide, next,
};
use support::{ASKED, Field, KINDS, Kind, Setter, every, fields, local, nothing, online, source};

/// More steps than this are no convergence.
const BOUND: usize = 40;

/// What an effect leaves behind when it works. Every status write has to be legal.
fn apply(observed: &mut Observed, effect: Effect) {
    let write = |observed: &mut Observed, transition: Transition| {
        let online = online(observed).expect("only online operations have a record");
        let record = next(online.record.as_ref(), &transition);
        online.record = Some(record.unwrap_or_else(|refused| panic!("{transition:?} is not legal: {refused}")));
    };
    match effect {
        Effect::AddFinalizer => observed.finalizer = true,
        Effect::Begin(attempt) => write(observed, Transition::Begin { attempt }),
        Effect::CreateVolume | Effect::CutSnapshot | Effect::GrowVolume => {
            observed.volume = Seen::Present(Volume { size: ASKED });
        }
        Effect::Mount => {
            assert!(observed.volume.present().is_some(), "only what is there is mounted");
            observed.mount = Seen::Present(());
        }
        Effect::Publish => {
            let size = observed.volume.present().expect("only what is there is published").size;
            local(observed).expect("only local volumes are published").published = Some(size);
        }
        Effect::Launch(job) => {
            assert_eq!(observed.executor, Seen::Absent, "never a second executor");
            observed.executor = Seen::Present(Executor { job, life: Life::Alive });
            observed.lease = Seen::Present(Lease::Fresh);
        }
        Effect::EndExecutor => {
            let executor = *observed.executor.present().expect("only what is there is ended");
            observed.executor = Seen::Present(Executor { life: Life::Ended, ..executor });
        }
        Effect::RecordLoss(launch) => write(observed, Transition::RecordLoss { launch }),
        Effect::Fail(Failure::ExecutorsLost(limit)) => write(observed, Transition::ExceedBackoffLimit { limit }),
        Effect::Fail(
            Failure::SourceGone | Failure::SourceNotReady | Failure::StorageNotReady | Failure::Trouble(_),
        ) => write(observed, Transition::GiveUp),
        Effect::Unmount => {
            assert!(!matches!(observed.executor, Seen::Present(Executor { life: Life::Alive, .. })));
            observed.mount = Seen::Absent;
        }
        Effect::RemoveVolume => {
            assert_eq!(observed.mount, Seen::Absent, "unmounted before it is removed");
            observed.volume = Seen::Absent;
        }
        Effect::CleanExecutor => {
            let executor = observed.executor.present().expect("only what is there is cleaned");
            assert_eq!(executor.life, Life::Ended, "never under a living executor");
            observed.executor = Seen::Absent;
            observed.lease = Seen::Absent;
        }
        Effect::DropFinalizer => {
            assert_eq!(
                (observed.executor, observed.mount, observed.volume),
                (Seen::Absent, Seen::Absent, Seen::Absent)
            );
            observed.finalizer = false;
        }
    }
}

/// What happens while the agent waits, when things go well. `false`: this is where it rests.
fn pass_time(observed: &mut Observed, wait: Wait) -> bool {
    let exit = |observed: &mut Observed| {
        let executor = *observed.executor.present().expect("waited for");
        observed.executor = Seen::Present(Executor { life: Life::Ended, ..executor });
    };
    let record = online(observed).and_then(|online| online.record.clone());
    match wait {
        Wait::Claim => {
            let Seen::Present(Executor { job: Job::Copy { attempt, launch }, .. }) = observed.executor else {
                panic!("only a copy claims");
            };
            let claim = Transition::Claim { holder: Holder("next".to_owned()), attempt, launch };
            let claimed = next(record.as_ref(), &claim).expect("the executor that is waited for may claim");
            online(observed).expect("online").record = Some(claimed);
        }
        Wait::Copy => {
            let record = record.expect("a copy has a record");
            let State::Running(claim) = &record.state else { panic!("only a claimed attempt is copied") };
            let held = Held { attempt: record.attempt, claim: claim.clone() };
            let done = next(Some(&record), &Transition::Succeed(held)).expect("the holder may succeed");
            online(observed).expect("online").record = Some(done);
        }
        Wait::ExecutorExit => exit(observed),
        Wait::Forget => {
            online(observed).expect("online").repository = Repository::Nothing;
            exit(observed);
        }
        Wait::ForgetRetry => online(observed).expect("online").repository = Repository::Holds,
        Wait::StorageMissing | Wait::StorageNotReady => {
            online(observed).expect("online").storage = Seen::Present(Storage::Ready);
        }
        Wait::SourceNotReady => *source(observed).expect("a source") = Seen::Present(Source::Ready),
        // What could not be seen is seen some time, and that observation is in the table as well.
        Wait::VolumeUnknown
        | Wait::MountUnknown
        | Wait::ExecutorUnknown
        | Wait::LeaseUnknown
        | Wait::SourceUnknown
        | Wait::StorageUnknown
        | Wait::SourceGone
        | Wait::VolumeLost
        | Wait::Trouble(_) => return false,
    }
    true
}

/// What has to hold where nothing is left to be done.
fn check_rest(first: &Observed, last: &Observed) {
    if first.deleting {
        assert!(!last.finalizer, "a teardown ends without our finalizer");
        return;
    }
    assert!(last.finalizer);
    let gone = (last.executor, last.mount) == (Seen::Absent, Seen::Absent);
    match &last.intent {
        Intent::Volume(local) | Intent::LocalSnapshot(local, _) => {
            assert_eq!(local.published, last.volume.present().map(|volume| volume.size));
        }
        Intent::OnlineSnapshot(online, _) => {
            let record = online.record.as_ref().expect("it has begun");
            assert!(record.is_terminal() && gone, "nothing outlives its owner");
            let kept = online.keep_local || record.state == State::Failed;
            assert!(kept || last.volume == Seen::Absent);
        }
        Intent::Restore(online, local) => match online.record.as_ref().map(|record| &record.state) {
            Some(State::Succeeded) => assert_eq!(local.published, last.volume.present().map(|v| v.size)),
            Some(State::Failed) => assert!(gone && last.volume == Seen::Absent, "nothing half-filled is left"),
            other => panic!("a restore rests as {other:?}"),
        },
    }
}

fn converge(first: &Observed) {
    let mut observed = first.clone();
    for _ in 0..BOUND {
        match decide(&observed) {
            Action::Settled => return check_rest(first, &observed),
            Action::Do(effect) => apply(&mut observed, effect),
            Action::Wait(wait) => {
                if !pass_time(&mut observed, wait) {
                    return;
                }
            }
        }
    }
    panic!("no rest within {BOUND} steps:\n{first:#?}\nended as\n{observed:#?}");
}

#[test]
fn every_observation_converges_when_effects_work() {
    let mut count = 0;
    for kind in KINDS {
        count += every(kind, converge);
    }
    println!("{count} observations");
    assert!(count > 1_000_000, "the table has shrunk to {count} observations");
}

/// The fields that can be unknown, each with how it becomes so and how it becomes known.
fn blindable(kind: Kind) -> Vec<(Setter, Vec<Setter>)> {
    let can = |field: &Field| field.values.iter().any(|(label, _)| *label == "unknown");
    let part = |field: Field| {
        let (blind, seen): (Vec<_>, Vec<_>) = field.values.into_iter().partition(|(label, _)| *label == "unknown");
        let setters = |values: Vec<(&str, Setter)>| values.into_iter().map(|(_, set)| set).collect::<Vec<_>>();
        (setters(blind).remove(0), setters(seen))
    };
    fields(kind).into_iter().filter(can).map(part).collect()
}

#[test]
fn nothing_is_taken_away_for_what_was_not_seen() {
    let mut checked = 0;
    for kind in KINDS {
        let fields = blindable(kind);
        every(kind, |observed| {
            let action = decide(observed);
            let Action::Do(effect) = action else { return };
            if !effect.is_destructive() && !matches!(effect, Effect::Launch(_)) {
                return;
            }
            // The one exception, of an attempt that nobody has claimed: where nobody may look for its executor, it fails at
            // its start deadline. An executor that is there all the same cannot claim it any more.
            if effect == Effect::Fail(Failure::Trouble(Trouble::Launch)) && observed.executor == Seen::Unknown {
                let mut observed = observed.clone();
                let record = online(&mut observed).and_then(|online| online.record.clone());
                assert!(record.is_some_and(|record| record.state == State::Pending), "{observed:#?}");
                return;
            }
            for (blind, seen) in &fields {
                let mut changed = observed.clone();
                blind(&mut changed);
                if changed != *observed {
                    continue;
                }
                for set in seen {
                    set(&mut changed);
                    assert_eq!(decide(&changed), action, "{effect:?} rests on what was not seen:\n{observed:#?}");
                    checked += 1;
                }
            }
        });
    }
    assert!(checked > 10_000, "only {checked} destructive decisions had an unknown field");
}

/// A decision, or a question and what follows from each answer.
#[derive(PartialEq)]
enum Tree {
    Leaf(Action),
    Node(&'static str, Vec<(Vec<&'static str>, Rc<Tree>)>),
}

/// Asks the fields in order, and leaves out every question whose answer makes no difference.
fn tree(fields: &[Field], observed: &Observed) -> Rc<Tree> {
    let Some((field, rest)) = fields.split_first() else {
        return Rc::new(Tree::Leaf(decide(observed)));
    };
    let mut branches: Vec<(Vec<&'static str>, Rc<Tree>)> = Vec::new();
    for (label, set) in &field.values {
        let mut observed = observed.clone();
        set(&mut observed);
        let branch = tree(rest, &observed);
        match branches.iter_mut().find(|(_, known)| *known == branch) {
            Some((labels, _)) => labels.push(label),
            None => branches.push((vec![label], branch)),
        }
    }
    match branches.as_slice() {
        [(_, only)] => Rc::clone(only),
        _ => Rc::new(Tree::Node(field.name, branches)),
    }
}

fn render(tree: &Tree, depth: usize, into: &mut String) {
    let indent = "  ".repeat(depth);
    match tree {
        Tree::Leaf(action) => writeln!(into, " -> {}", shown(action)).expect("a string"),
        Tree::Node(question, branches) => {
            writeln!(into).expect("a string");
            for (answers, branch) in branches {
                write!(into, "{indent}{question}: {}", answers.join(" | ")).expect("a string");
                render(branch, depth + 1, into);
            }
        }
    }
}

fn shown(action: &Action) -> String {
    match action {
        Action::Settled => "settled".to_owned(),
        Action::Wait(wait) => format!("wait: {wait}"),
        Action::Do(Effect::Launch(Job::Copy { launch, .. })) => format!("Launch copy, launch {launch}"),
        Action::Do(effect) => format!("{effect:?}"),
    }
}

#[test]
fn the_policy_is_the_one_that_was_reviewed() {
    for kind in KINDS {
        let mut text = String::new();
        render(&tree(&fields(kind), &nothing(kind)), 0, &mut text);
        insta::assert_snapshot!(format!("{kind:?}"), text);
    }
}

#[test]
fn a_retry_of_a_failed_attempt_starts_from_the_same_local_snapshot() {
    let mut observed = nothing(Kind::OnlineSnapshot);
    observed.finalizer = true;
    observed.volume = Seen::Present(Volume { size: ASKED });
    let first = lvault_core::Attempt::FIRST;
    let online = online(&mut observed).expect("online");
    online.record = Some(Record { attempt: first, lost: 0, state: State::Failed });
    assert_eq!(decide(&observed), Action::Settled);
    support::online(&mut observed).expect("online").attempt = first.next();
    assert_eq!(decide(&observed), Action::Do(Effect::Begin(first.next())));
    apply(&mut observed, Effect::Begin(first.next()));
    assert_eq!(decide(&observed), Action::Do(Effect::Mount), "the snapshot is there: it is not cut again");
}
