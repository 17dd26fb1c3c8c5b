//! One run of a story in a world of its own, and what came of it.

use std::future::Future;

use crate::mutation::Planted;
use crate::scenario::Scenario;
use crate::world::World;
use crate::world::points::{Fault, Plan};
use crate::world::wire::Staleness;

/// What a run met and left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What there was in the end, or what went wrong.
    pub end: Result<String, String>,
    /// Every law that was broken.
    pub broken: Vec<String>,
    /// How many points there were until the story ended.
    pub points: u64,
    /// How many watch events.
    pub events: u64,
    /// The faults that were met.
    pub met: Vec<(u64, Fault)>,
    /// What happened.
    pub log: Vec<String>,
}

impl Outcome {
    fn failed(error: String) -> Outcome {
        let (broken, met, log) = (Vec::new(), Vec::new(), Vec::new());
        Outcome { end: Err(error), broken, points: 0, events: 0, met, log }
    }
}

/// What is done to a run.
#[derive(Debug, Default)]
pub struct Disturbance {
    /// Faults at points.
    pub plan: Plan,
    /// This watch event meets this.
    pub stale: Option<(u64, Staleness)>,
    /// This defect is planted.
    pub planted: Option<Planted>,
    /// This invariant is not looked at.
    pub without: Option<u8>,
    /// Lists are answered as they were answered first, from this point on; the agent is started again there.
    pub old_lists: bool,
}

/// Runs a future on a runtime of its own, single-threaded, in paused time.
///
/// # Panics
/// When no runtime can be made.
pub fn alone<T>(future: impl Future<Output = T>) -> T {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match built {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// Tells one story in a new world.
pub fn tell(scenario: &Scenario, disturbance: Disturbance) -> Outcome {
    alone(async {
        let world = match World::new(1).await {
            Ok(world) => world,
            Err(error) => return Outcome::failed(error),
        };
        let Disturbance { plan, stale, planted, without, old_lists } = disturbance;
        world.shared.with(|inner| {
            inner.points.plan = plan;
            inner.planted = planted;
            inner.laws.without = without;
            inner.events.at.extend(stale);
        });
        let mut end = (scenario.tell)(&world).await;
        let (points, events) = world.shared.with(|inner| (inner.points.count, inner.events.count));
        if old_lists && end.is_ok() {
            world.shared.with(|inner| {
                inner.events.old_lists = true;
                inner.lives.iter().for_each(|life| life.end());
            });
        }
        if end.is_ok() {
            end = world.rest().await;
        }
        let end = match end {
            Ok(()) => world.summary().await,
            Err(error) => Err(error),
        };
        world.shared.with(|inner| Outcome {
            end,
            broken: inner.laws.broken.clone(),
            points,
            events,
            met: inner.points.met.clone(),
            log: std::mem::take(&mut inner.points.log),
        })
    })
}

/// What is wrong with a run, beside the same story undisturbed.
pub fn wrong(outcome: &Outcome, undisturbed: &str) -> Option<String> {
    if let Some(broken) = outcome.broken.first() {
        return Some(broken.clone());
    }
    match &outcome.end {
        Err(error) if error.starts_with('I') => Some(error.clone()),
        Err(error) => Some(format!("I7: {error}")),
        Ok(end) if end != undisturbed => {
            Some(format!("I7: it ended otherwise than undisturbed:\n{end}\ninstead of\n{undisturbed}"))
        }
        Ok(_) => None,
    }
}
