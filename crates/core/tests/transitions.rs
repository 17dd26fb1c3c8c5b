//! The transition table, whole: from every record, by every transition.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::fmt::Write;

use lvault_core::{Attempt, Claim, Epoch, Held, Holder, Launch, Record, Refused, State, Transition, next};

fn launch(number: u32) -> Launch {
    Launch::new(number).expect("launches count from 1")
}

fn claim(holder: &str, epoch: Epoch, number: u32) -> Claim {
    Claim { holder: Holder(holder.to_owned()), epoch, launch: launch(number) }
}

fn records() -> Vec<(&'static str, Option<Record>)> {
    let first = Attempt::FIRST;
    let record = |lost, state| Some(Record { attempt: first, lost, state });
    vec![
        ("none", None),
        ("Pending", record(0, State::Pending)),
        ("Pending, 1 lost", record(1, State::Pending)),
        ("Pending, 3 lost", record(3, State::Pending)),
        ("Running by a", record(0, State::Running(claim("a", Epoch::FIRST, 1)))),
        ("Running by a, 1 lost", record(1, State::Running(claim("a", Epoch::FIRST, 1)))),
        ("Running by b, 1 lost", record(1, State::Running(claim("b", Epoch::FIRST.next(), 2)))),
        ("Running by a, 3 lost", record(3, State::Running(claim("a", Epoch::FIRST, 1)))),
        ("Succeeded", record(0, State::Succeeded)),
        ("Failed", record(0, State::Failed)),
    ]
}

fn transitions() -> Vec<(&'static str, Transition)> {
    let first = Attempt::FIRST;
    let held = |claim| Held { attempt: first, claim };
    let by_a = held(claim("a", Epoch::FIRST, 1));
    let by_b = held(claim("b", Epoch::FIRST.next(), 2));
    let a_of_another_attempt = Held { attempt: first.next(), ..by_a.clone() };
    let claims = |holder: &str, attempt, number| Transition::Claim {
        holder: Holder(holder.to_owned()),
        attempt,
        launch: launch(number),
    };
    vec![
        ("begin 1", Transition::Begin { attempt: first }),
        ("begin 2", Transition::Begin { attempt: first.next() }),
        ("lose launch 1", Transition::RecordLoss { launch: launch(1) }),
        ("lose launch 2", Transition::RecordLoss { launch: launch(2) }),
        ("give up", Transition::GiveUp),
        ("exceed limit 3", Transition::ExceedBackoffLimit { limit: 3 }),
        ("claim by a, launch 1", claims("a", first, 1)),
        ("claim by a's twin, launch 1", claims("twin", first, 1)),
        ("claim by b, launch 2", claims("b", first, 2)),
        ("claim by c, attempt 2", claims("c", first.next(), 1)),
        ("report by a", Transition::Report(by_a.clone())),
        ("report by b", Transition::Report(by_b.clone())),
        ("succeed by a", Transition::Succeed(by_a.clone())),
        ("succeed by b", Transition::Succeed(by_b.clone())),
        ("succeed by a, attempt 2", Transition::Succeed(a_of_another_attempt)),
        ("fail by a", Transition::Fail(by_a)),
        ("fail by b", Transition::Fail(by_b)),
    ]
}

fn shown(record: &Record) -> String {
    let state = match &record.state {
        State::Pending => "Pending".to_owned(),
        State::Running(claim) => {
            format!("Running by {} (epoch {}, launch {})", claim.holder, claim.epoch, claim.launch)
        }
        State::Succeeded => "Succeeded".to_owned(),
        State::Failed => "Failed".to_owned(),
    };
    format!("{state}, attempt {}, {} lost", record.attempt, record.lost)
}

#[test]
fn the_transition_table_is_the_one_that_was_reviewed() {
    let mut table = String::new();
    for (from, record) in records() {
        writeln!(table, "{from}").expect("a string");
        for (name, transition) in transitions() {
            let to = match next(record.as_ref(), &transition) {
                Ok(record) => shown(&record),
                Err(refused) => format!("refused: {refused}"),
            };
            writeln!(table, "  {name:<28} {to}").expect("a string");
        }
    }
    insta::assert_snapshot!(table);
}

/// I1: within an attempt a phase never goes back, and what has ended stays as it is.
#[test]
fn no_transition_goes_back() {
    let rank = |record: &Record| match record.state {
        State::Pending => 0,
        State::Running(_) => 1,
        State::Succeeded | State::Failed => 2,
    };
    for (_, record) in records() {
        let Some(from) = record else { continue };
        for (name, transition) in transitions() {
            let Ok(to) = next(Some(&from), &transition) else { continue };
            assert!(to.attempt >= from.attempt, "{name}");
            if to.attempt == from.attempt {
                assert!(rank(&to) >= rank(&from) && !from.is_terminal(), "{name} from {}", shown(&from));
                assert!(to.lost >= from.lost, "{name}");
            } else {
                assert_eq!((&from.state, &to.state), (&State::Failed, &State::Pending), "{name}");
            }
        }
    }
}

/// A holder whose loss was recorded changes nothing any more, whatever it does: neither before its successor has claimed
/// nor after.
#[test]
fn a_zombie_is_refused() {
    let held = Held { attempt: Attempt::FIRST, claim: claim("a", Epoch::FIRST, 1) };
    let lost = Record { attempt: Attempt::FIRST, lost: 1, state: State::Running(held.claim.clone()) };
    let taken = next(
        Some(&lost),
        &Transition::Claim { holder: Holder("b".to_owned()), attempt: Attempt::FIRST, launch: launch(2) },
    )
    .expect("the successor takes over");
    let refused = [(&lost, Refused::OtherLaunch), (&taken, Refused::OtherClaim)];
    for (record, why) in refused {
        for transition in
            [Transition::Report(held.clone()), Transition::Succeed(held.clone()), Transition::Fail(held.clone())]
        {
            assert_eq!(next(Some(record), &transition), Err(why), "{transition:?} on {}", shown(record));
        }
    }
}
