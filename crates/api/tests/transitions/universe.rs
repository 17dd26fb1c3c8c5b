//! Every status that can be reached, written as the API crate writes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lvault_api::{Operation, TransferError, TransferStatus};
use lvault_core::{Attempt, Claim, Epoch, Held, Holder, Launch, Record, State, Transition, next};

const HOLDERS: [&str; 2] = ["a", "b"];
const ATTEMPTS: [u32; 2] = [1, 2];
const LOSSES: u32 = 2;

/// A status and what the core reads in it.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    pub(crate) status: TransferStatus,
    pub(crate) record: Record,
}

/// All statuses that can be reached, and the legal steps between them. The step from nothing has no origin.
pub(crate) struct Universe {
    pub(crate) stands: Vec<Stand>,
    pub(crate) steps: Vec<(Option<usize>, Transition, usize)>,
}

impl Universe {
    /// Walks from nothing along every legal transition.
    pub(crate) fn of(operation: Operation) -> Self {
        let mut universe = Universe { stands: Vec::new(), steps: Vec::new() };
        let mut known = BTreeMap::new();
        universe.walk(operation, None, &mut known);
        let mut at = 0;
        while at < universe.stands.len() {
            universe.walk(operation, Some(at), &mut known);
            at += 1;
        }
        universe
    }

    fn walk(&mut self, operation: Operation, from: Option<usize>, known: &mut BTreeMap<String, usize>) {
        let current = from.map(|at| self.stands[at].clone());
        for transition in transitions() {
            let Ok(record) = next(current.as_ref().map(|stand| &stand.record), &transition) else { continue };
            if record.lost > LOSSES {
                continue;
            }
            let before = current.as_ref().map(|stand| &stand.status);
            let status = written(operation, before, &transition, &record);
            assert_eq!(status.record().as_ref(), Ok(&record), "the status says something else: {status:?}");
            let name = serde_json::to_string(&status).expect("a status has a wire form");
            let to = *known.entry(name).or_insert_with(|| {
                self.stands.push(Stand { status, record });
                self.stands.len() - 1
            });
            self.steps.push((from, transition, to));
        }
    }

    /// What may stand after this status: the status itself, and where its legal steps lead.
    pub(crate) fn after(&self, from: Option<usize>) -> impl Iterator<Item = &TransferStatus> {
        let steps = self.steps.iter().filter(move |(start, _, _)| *start == from).map(|(_, _, end)| *end);
        from.into_iter().chain(steps).map(|at| &self.stands[at].status)
    }
}

fn transitions() -> Vec<Transition> {
    let attempts = || ATTEMPTS.into_iter().filter_map(Attempt::new);
    let launches = || (1..=LOSSES + 1).filter_map(Launch::new);
    let mut all = vec![Transition::GiveUp];
    all.extend(attempts().map(|attempt| Transition::Begin { attempt }));
    all.extend(launches().map(|launch| Transition::RecordLoss { launch }));
    all.extend((1..=LOSSES).map(|limit| Transition::ExceedBackoffLimit { limit }));
    for attempt in attempts() {
        for holder in HOLDERS.map(|name| Holder(name.to_owned())) {
            for launch in launches() {
                all.push(Transition::Claim { holder: holder.clone(), attempt, launch });
                for epoch in (1..=LOSSES + 1).filter_map(Epoch::new) {
                    let held = Held { attempt, claim: Claim { holder: holder.clone(), epoch, launch } };
                    all.push(Transition::Report(held.clone()));
                    all.push(Transition::Succeed(held.clone()));
                    all.push(Transition::Fail(held));
                }
            }
        }
    }
    all
}

/// The status that a writer leaves for this transition.
fn written(
    operation: Operation,
    before: Option<&TransferStatus>,
    transition: &Transition,
    record: &Record,
) -> TransferStatus {
    let now = Timestamp::UNIX_EPOCH;
    let mut status = match (before, transition) {
        (_, Transition::Begin { .. }) | (None, _) => return TransferStatus::begin(operation, record, now),
        (Some(before), _) => before.clone(),
    };
    status.set_record(record);
    match record.state {
        State::Pending | State::Running(_) => {}
        State::Succeeded => {
            status.complete(now);
            if operation == Operation::Backup {
                status.snapshot_id = Some("4f1c2b7a".to_owned());
            }
        }
        State::Failed => {
            status.complete(now);
            status.error = Some(TransferError { code: "Test".to_owned(), message: "it is a test".to_owned() });
        }
    }
    status
}
