//! All pairs of statuses: a write is accepted exactly when the table has a transition for it.

use std::collections::{BTreeMap, BTreeSet};

use lvault_api::{ExecutorStatus, Operation, Phase, TransferStatus};

use crate::Rules;
use crate::universe::Universe;

/// What must be refused whoever writes it, said once more in its own words. `None` is no status.
fn forbidden(old: Option<&TransferStatus>, new: &TransferStatus) -> Option<&'static str> {
    use Phase::{Failed, Pending, Running, Succeeded};
    let Some(old) = old else {
        return (new.phase != Pending).then_some("the first phase is not Pending");
    };
    if new.attempt < old.attempt {
        return Some("the attempt goes back");
    }
    if new.attempt > old.attempt {
        let retried = old.phase == Failed && new.phase == Pending;
        return (!retried)
            .then_some("the attempt is raised from another phase than Failed, or to another than Pending");
    }
    match (old.phase, new.phase) {
        (Pending, Pending | Running | Failed) | (Running, Running | Succeeded | Failed) => {}
        (Succeeded, Succeeded) | (Failed, Failed) => {}
        (Pending, Succeeded) => return Some("Running is left out"),
        (Running, Pending) => return Some("the phase goes back"),
        (Succeeded, Pending | Running | Failed) | (Failed, Pending | Running | Succeeded) => {
            return Some("a terminal phase changes");
        }
    }
    let (before, after) = (executor(old), executor(new));
    if after.lost.unwrap_or(0) < before.lost.unwrap_or(0) {
        return Some("losses are taken back");
    }
    let (old_epoch, new_epoch) = (before.epoch.unwrap_or(0), after.epoch.unwrap_or(0));
    if new_epoch < old_epoch {
        return Some("the epoch goes back");
    }
    if new_epoch > old_epoch + 1 {
        return Some("an epoch is left out");
    }
    if old_epoch > 0 && new_epoch == old_epoch && after.name != before.name {
        return Some("the executor changes without a new epoch");
    }
    None
}

fn executor(status: &TransferStatus) -> ExecutorStatus {
    status.executor.clone().unwrap_or_default()
}

#[test]
fn what_the_table_allows_is_accepted() {
    for operation in [Operation::Backup, Operation::Restore] {
        let (rules, universe) = (Rules::of_the_crd(), Universe::of(operation));
        assert!(universe.stands.len() > 100 && universe.steps.len() > 200, "the walk ended early");
        for (from, transition, to) in &universe.steps {
            let old = from.map(|at| &universe.stands[at].status);
            let broken = rules.broken_by(operation, old, Some(&universe.stands[*to].status));
            assert_eq!(broken, Vec::<String>::new(), "{transition:?} from {old:?}");
        }
    }
}

#[test]
fn what_the_table_does_not_allow_is_refused() {
    for operation in [Operation::Backup, Operation::Restore] {
        let (rules, universe) = (Rules::of_the_crd(), Universe::of(operation));
        let mut met: BTreeMap<&str, usize> = BTreeMap::new();
        let mut accepted = Vec::new();
        for (from, old) in with_nothing(&universe) {
            let legal: BTreeSet<String> = universe.after(from).map(essence).collect();
            for new in universe.stands.iter().map(|stand| &stand.status) {
                if let Some(why) = forbidden(old, new) {
                    *met.entry(why).or_default() += 1;
                    assert!(!legal.contains(&essence(new)), "the table allows what is forbidden: {why}");
                }
                if !legal.contains(&essence(new)) && rules.broken_by(operation, old, Some(new)).is_empty() {
                    accepted.push(format!("{} -> {}", shown(old), essence(new)));
                }
            }
        }
        assert_eq!(accepted, Vec::<String>::new());
        assert_eq!(met.len(), 10, "each reason is met: {met:?}");
    }
}

/// Statuses that no writer ever leaves, one field away from those that they do.
#[test]
fn what_is_nearly_legal_is_refused_and_each_rule_is_needed() {
    let (rules, universe) = (Rules::of_the_crd(), Universe::of(Operation::Backup));
    let (mut refused, mut accepted) = (0, Vec::new());
    let mut alone = BTreeSet::new();
    for (from, old) in with_nothing(&universe) {
        let legal: BTreeSet<String> = universe.after(from).map(essence).collect();
        let ended = old.is_some_and(|old| old.phase == Phase::Succeeded);
        let beginning = universe.stands[0].status.clone();
        let near = universe.after(from).flat_map(|status| variants(status, ended)).chain([beginning]);
        let near = near.filter(|new| !legal.contains(&essence(new))).map(Some);
        // Nothing at all is near as well: the removal of the status.
        for new in near.chain(old.map(|_| None)) {
            let broken = rules.broken_by(Operation::Backup, old, new.as_ref());
            match broken.as_slice() {
                [] => accepted.push(format!("{} -> {}", shown(old), shown(new.as_ref()))),
                [one] => drop(alone.insert(one.clone())),
                [_, _, ..] => {}
            }
            refused += 1;
        }
    }
    assert_eq!(accepted, Vec::<String>::new());
    assert!(refused > 2000, "only {refused} were tried");
    let needless: Vec<String> = rules.about_snapshots().into_iter().filter(|rule| !alone.contains(rule)).collect();
    assert_eq!(needless, Vec::<String>::new(), "no write is refused by this rule alone");
}

fn shown(status: Option<&TransferStatus>) -> String {
    status.map_or("nothing".to_owned(), essence)
}

/// The status with one field changed, in every way; another snapshot only where the attempt had ended before.
fn variants(status: &TransferStatus, ended: bool) -> Vec<TransferStatus> {
    let mut all = Vec::new();
    let mut push = |change: &dyn Fn(&mut TransferStatus, &mut ExecutorStatus)| {
        let mut variant = status.clone();
        let mut executor = executor(status);
        change(&mut variant, &mut executor);
        variant.executor = (executor != ExecutorStatus::default()).then_some(executor);
        all.push(variant);
    };
    for phase in [Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed] {
        push(&|variant, _| variant.phase = phase);
        push(&|variant, _| {
            variant.phase = phase;
            variant.snapshot_id = Some("4f1c2b7a".to_owned());
        });
    }
    for number in 0..5 {
        let field = (number > 0).then_some(number);
        // A third attempt, a third loss, and another name below are legal, and beyond the statuses that were walked.
        push(&|variant, _| variant.attempt = number.clamp(1, 2));
        push(&|_, executor| executor.lost = field.map(|lost| lost.min(2)));
        push(&|_, executor| executor.epoch = field);
        push(&|_, executor| executor.launch = field);
    }
    for name in [None, Some("a".to_owned())] {
        push(&|_, executor| executor.name.clone_from(&name));
    }
    push(&|_, executor| *executor = ExecutorStatus { lost: executor.lost, ..ExecutorStatus::default() });
    push(&|variant, _| variant.snapshot_id = None);
    if ended {
        push(&|variant, _| variant.snapshot_id = Some("00000000".to_owned()));
    }
    push(&|variant, _| variant.operation = Operation::Restore);
    all
}

fn with_nothing(universe: &Universe) -> impl Iterator<Item = (Option<usize>, Option<&TransferStatus>)> {
    let stands = universe.stands.iter().enumerate().map(|(at, stand)| (Some(at), Some(&stand.status)));
    std::iter::once((None, None)).chain(stands)
}

/// What the table is about: the status without times and texts.
fn essence(status: &TransferStatus) -> String {
    let ExecutorStatus { name, epoch, launch, lost } = executor(status);
    let number = |n: Option<i32>| n.map_or("-".to_owned(), |n| n.to_string());
    format!(
        "{:?} {}:{:?}({} epoch {} launch {}, lost {}, snapshot {})",
        status.operation,
        status.attempt,
        status.phase,
        name.as_deref().unwrap_or("-"),
        number(epoch),
        number(launch),
        number(lost),
        status.snapshot_id.as_deref().unwrap_or("-"),
    )
}
