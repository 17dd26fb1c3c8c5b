//! All pairs of reachable statuses: what the table allows is accepted, what no writer may do is refused, and what lies
//! between is listed.

use std::collections::BTreeMap;

use lvault_api::{Operation, Phase, TransferStatus};

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
    let part = |status: &TransferStatus| status.executor.clone().unwrap_or_default();
    let (before, after) = (part(old), part(new));
    if after.lost.unwrap_or(0) < before.lost.unwrap_or(0) {
        return Some("losses are taken back");
    }
    let (old_epoch, new_epoch) = (before.epoch.unwrap_or(0), after.epoch.unwrap_or(0));
    if new_epoch < old_epoch {
        return Some("the epoch goes back");
    }
    if new_epoch > old_epoch + 1 && old_epoch > 0 {
        return Some("an epoch is left out");
    }
    if old_epoch > 0 && new_epoch == old_epoch && after.name != before.name {
        return Some("the executor changes without a new epoch");
    }
    None
}

#[test]
fn what_the_table_allows_is_accepted() {
    for operation in [Operation::Backup, Operation::Restore] {
        let (rules, universe) = (Rules::of_the_crd(), Universe::of(operation));
        assert!(universe.stands.len() > 100 && universe.steps.len() > 200, "the walk ended early");
        for (from, transition, to) in &universe.steps {
            let old = from.map(|at| &universe.stands[at].status);
            let broken = rules.broken_by(old, Some(&universe.stands[*to].status));
            assert_eq!(broken, Vec::<String>::new(), "{transition:?} from {old:?}");
        }
    }
}

#[test]
fn what_nobody_may_do_is_refused() {
    for operation in [Operation::Backup, Operation::Restore] {
        let (rules, universe) = (Rules::of_the_crd(), Universe::of(operation));
        let mut met = BTreeMap::new();
        for (from, old) in with_nothing(&universe) {
            for (to, new) in universe.stands.iter().enumerate() {
                let Some(why) = forbidden(old, &new.status) else { continue };
                assert!(!universe.legal(from, to), "the table allows what is forbidden: {why}");
                *met.entry(why).or_insert(0) += 1;
                let broken = rules.broken_by(old, Some(&new.status));
                assert!(!broken.is_empty(), "{why}, and it is accepted: {old:?} -> {:?}", new.status);
            }
        }
        assert_eq!(met.len(), 9, "each reason is met: {met:?}");
    }
}

#[test]
fn where_the_rules_are_weaker_than_the_table_is_known() {
    let (rules, universe) = (Rules::of_the_crd(), Universe::of(Operation::Backup));
    let mut weaker: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (from, old) in with_nothing(&universe) {
        for (to, new) in universe.stands.iter().enumerate() {
            let new = &new.status;
            if universe.legal(from, to) || !rules.broken_by(old, Some(new)).is_empty() {
                continue;
            }
            let example = format!("{} -> {}", old.map_or("nothing".to_owned(), shown), shown(new));
            weaker.entry(class(old, new)).or_insert((0, example)).0 += 1;
        }
    }
    let lines: Vec<String> =
        weaker.iter().map(|(class, (pairs, example))| format!("{class}: {pairs} pairs, as {example}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

fn with_nothing(universe: &Universe) -> impl Iterator<Item = (Option<usize>, Option<&TransferStatus>)> {
    let stands = universe.stands.iter().enumerate().map(|(at, stand)| (Some(at), Some(&stand.status)));
    std::iter::once((None, None)).chain(stands)
}

fn shown(status: &TransferStatus) -> String {
    let executor = status.executor.clone().unwrap_or_default();
    let number = |n: Option<i32>| n.unwrap_or(0);
    format!(
        "{}:{:?}({} epoch {} launch {}, lost {})",
        status.attempt,
        status.phase,
        executor.name.as_deref().unwrap_or("-"),
        number(executor.epoch),
        number(executor.launch),
        number(executor.lost),
    )
}

/// What kind of a change this is.
fn class(old: Option<&TransferStatus>, new: &TransferStatus) -> String {
    let Some(old) = old else { return format!("nothing -> {:?}, attempt {}", new.phase, new.attempt) };
    let part = |status: &TransferStatus| status.executor.clone().unwrap_or_default();
    let (before, after) = (part(old), part(new));
    let lost = after.lost.unwrap_or(0) - before.lost.unwrap_or(0);
    let claim = match (before.epoch, after.epoch) {
        (None, None) => "unclaimed",
        (None, Some(_)) => "first claim",
        (Some(_), None) => "claim removed",
        (Some(a), Some(b)) if a != b => "next claim",
        (Some(_), Some(_)) if before.launch != after.launch => "same claim, other launch",
        (Some(_), Some(_)) => "same claim",
    };
    let fits = after.launch.is_none_or(|launch| launch == after.lost.unwrap_or(0) + 1);
    let launch = if fits { "of the launch that is due" } else { "of another launch" };
    let raised = if new.attempt == old.attempt { "" } else { ", attempt raised" };
    format!("{:?} -> {:?}{raised}, {lost} more lost, {claim} {launch}", old.phase, new.phase)
}
