//! The model check: the real [`lvault_core::decide`] and [`lvault_core::next`] with everything around them as actors, and
//! every interleaving of their steps.
//!
//! - [`state`]: what there is: the object, the node, the repository, agents and executors, and the faults that may still come.
//! - [`agent`], [`executor`], [`outside`]: who takes which steps.
//! - [`laws`]: what no step may break, and what has to hold at rest.
//! - [`search`]: the search itself.
//! - [`settings`]: which worlds are searched; [`planted`]: defects that are put into them, to see the check find them.

pub mod agent;
pub mod executor;
pub mod laws;
pub mod outside;
pub mod planted;
pub mod search;
pub mod settings;
pub mod state;

use search::{Found, Model};
use settings::Settings;
use state::World;

/// Who took a step, and what it was, for people.
#[derive(Clone, Debug)]
pub struct Step {
    /// Who.
    pub actor: Actor,
    /// What.
    pub what: String,
}

/// Who takes steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The agent with this index.
    Agent(usize),
    /// The executor with this name.
    Executor(u8),
    /// Time, the disk, the network: what has to happen in the end.
    Nature,
    /// A user.
    User,
    /// Something breaks.
    Fault,
}

/// One world, ready to be searched.
pub struct Lvault {
    /// What is in it.
    pub settings: Settings,
}

impl Model for Lvault {
    type State = World;
    type Step = Step;

    fn initial(&self) -> World {
        World::new(&self.settings)
    }

    fn steps(&self, world: &World, into: &mut Vec<(Step, World)>) {
        for index in 0..world.agents.len() {
            agent::steps(&self.settings, world, index, into);
        }
        for process in &world.executors {
            executor::steps(&self.settings, world, process, into);
        }
        outside::steps(&self.settings, world, into);
    }

    fn broken(&self, before: &World, step: &Step, after: &World) -> Option<String> {
        laws::broken(&self.settings, before, step, after)
    }

    fn orders(&self) -> usize {
        2
    }

    /// Executors before the agent, or the agent before executors; nature when nobody else can do anything.
    fn quiet(&self, order: usize, world: &World, steps: &[(Step, World)]) -> Option<usize> {
        let find = |wanted: fn(Actor) -> bool| steps.iter().position(|(step, _)| wanted(step.actor));
        let busy = (0..world.agents.len()).any(|index| agent::has_work(&self.settings, world, index));
        let agents = || {
            if busy {
                steps.iter().position(|(step, _)| match step.actor {
                    Actor::Agent(index) => agent::has_work(&self.settings, world, index),
                    Actor::Executor(_) | Actor::Nature | Actor::User | Actor::Fault => false,
                })
            } else {
                None
            }
        };
        let executors = || find(|actor| matches!(actor, Actor::Executor(_)));
        let nature = || find(|actor| actor == Actor::Nature);
        match order {
            0 => executors().or_else(agents).or_else(nature),
            _ => agents().or_else(executors).or_else(nature),
        }
    }

    fn unsettled(&self, world: &World) -> Option<String> {
        laws::unsettled(&self.settings, world)
    }
}

/// Searches one world.
pub fn check(settings: Settings) -> Found {
    let (limit, without) = (settings.limit, settings.without);
    let mut found = search::search(&Lvault { settings }, limit);
    // Going round in circles is found after the search, by no law of a state.
    found.broken = found.broken.filter(|broken| without.is_none_or(|off| !laws::is_of(&broken.law, off)));
    found
}
