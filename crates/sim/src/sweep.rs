//! The crash-point sweep: each story once undisturbed, and then once for every point and every fault.

use crate::run::{Disturbance, Outcome, tell, wrong};
use crate::scenario::Scenario;
use crate::world::points::{Plan, SWEPT};
use crate::world::wire::STALE;

/// What a sweep of one story found.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Points (or watch events) of the undisturbed run.
    pub points: u64,
    /// Runs that were made beside it.
    pub runs: u64,
    /// What was wrong, with the log of the first run that shows it.
    pub wrong: Vec<(String, Vec<String>)>,
}

/// What is wrong is listed up to this many times.
const LISTED: usize = 5;

fn undisturbed(scenario: &Scenario) -> Result<(Outcome, String), Swept> {
    let outcome = tell(scenario, Disturbance::default());
    match (&outcome.end, outcome.broken.first()) {
        (Ok(end), None) => {
            let end = end.clone();
            Ok((outcome, end))
        }
        (Err(error), _) => Err(failed(error, outcome.log)),
        (Ok(_), Some(broken)) => Err(failed(broken, outcome.log)),
    }
}

fn failed(error: &str, log: Vec<String>) -> Swept {
    Swept { wrong: vec![(format!("undisturbed: {error}"), log)], ..Swept::default() }
}

impl Swept {
    fn add(&mut self, what: &str, outcome: Outcome, end: &str) {
        self.runs += 1;
        if let Some(problem) = wrong(&outcome, end)
            && self.wrong.len() < LISTED
        {
            self.wrong.push((format!("{what}: {problem}"), outcome.log));
        }
    }
}

/// Every fault at every point of a story. With `part` of `parts`, only the points that fall to this part.
pub fn sweep(scenario: &Scenario, part: u64, parts: u64) -> Swept {
    let (first, end) = match undisturbed(scenario) {
        Ok(done) => done,
        Err(swept) => return swept,
    };
    let mut swept = Swept { points: first.points, ..Swept::default() };
    for point in (0..first.points).filter(|point| point % parts == part) {
        for fault in SWEPT {
            let plan = Plan { at: [(point, fault)].into(), chance: None };
            let outcome = tell(scenario, Disturbance { plan, ..Disturbance::default() });
            swept.add(&format!("{}: {fault:?} at point {point}", scenario.name), outcome, &end);
        }
    }
    swept
}

/// Every staleness of every watch event of a story, and lists from an older revision after a start of the agent.
pub fn stale(scenario: &Scenario) -> Swept {
    let (first, end) = match undisturbed(scenario) {
        Ok(done) => done,
        Err(swept) => return swept,
    };
    let mut swept = Swept { points: first.events, ..Swept::default() };
    for event in 0..first.events {
        for staleness in STALE {
            let outcome = tell(scenario, Disturbance { stale: Some((event, staleness)), ..Disturbance::default() });
            swept.add(&format!("{}: watch event {event} {staleness:?}", scenario.name), outcome, &end);
        }
    }
    let outcome = tell(scenario, Disturbance { old_lists: true, ..Disturbance::default() });
    swept.add(&format!("{}: old lists", scenario.name), outcome, &end);
    swept
}
