//! Exhaustive search: every state that can be reached, breadth first, so that a counterexample is a shortest one.
//!
//! States are remembered by a 64-bit fingerprint. Among ten million states the chance that two share one is some three
//! in a million; in that case the search would pass over one of them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

/// What is searched.
pub trait Model {
    /// Everything there is at one moment.
    type State: Clone + Eq + Hash + Debug;
    /// One change of it.
    type Step: Clone + Debug;

    /// Where everything begins.
    fn initial(&self) -> Self::State;

    /// Every step that can be taken, with the state it leads to.
    fn steps(&self, state: &Self::State, into: &mut Vec<(Self::Step, Self::State)>);

    /// The law that a step breaks.
    fn broken(&self, before: &Self::State, step: &Self::Step, after: &Self::State) -> Option<String>;

    /// In how many fair orders things go on once faults stop.
    fn orders(&self) -> usize;

    /// The step that is taken in one of these orders once faults have stopped, as an index into `steps`; `None` at rest.
    fn quiet(&self, order: usize, state: &Self::State, steps: &[(Self::Step, Self::State)]) -> Option<usize>;

    /// What is wrong with resting in this state.
    fn unsettled(&self, state: &Self::State) -> Option<String>;
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Distinct states.
    pub states: usize,
    /// Steps from them, those to states known already included.
    pub steps: usize,
    /// The longest of the shortest ways to any state.
    pub depth: usize,
    /// The most steps that anything needs to come to rest once faults stop.
    pub convergence: usize,
    /// The first law that was broken, and the way there.
    pub broken: Option<Counterexample>,
}

/// How a law was broken.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Which law, and how.
    pub law: String,
    /// The steps from the beginning.
    pub way: Vec<String>,
}

/// Fingerprints are hashed already.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Known = HashMap<u64, u32, BuildHasherDefault<Plain>>;

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Nothing follows: the state is at rest.
const REST: u64 = 0;

/// Searches everything that can be reached, at most `limit` states. More than that is reported as a broken law: a search that
/// was cut short proves nothing.
pub fn search<M: Model>(model: &M, limit: usize) -> Found {
    let mut found = Found::default();
    let first = model.initial();
    let mut known = Known::default();
    known.insert(fingerprint(&first), 0);
    let mut parents: Vec<u32> = vec![0];
    // For each state and order the fingerprint of what follows once faults stop.
    let mut quiet: Vec<u64> = Vec::new();
    let mut level = vec![(first, 0_u32)];
    let mut steps = Vec::new();
    while !level.is_empty() {
        let mut below = Vec::new();
        for (state, index) in level {
            steps.clear();
            model.steps(&state, &mut steps);
            found.steps += steps.len();
            for order in 0..model.orders() {
                let next = model.quiet(order, &state, &steps).and_then(|chosen| steps.get(chosen));
                match next {
                    Some((_, after)) => quiet.push(fingerprint(after)),
                    None => {
                        if let Some(law) = model.unsettled(&state) {
                            let mut way = replay(model, &parents, index);
                            way.push(format!("and there it rests: {state:?}"));
                            found.broken = Some(Counterexample { law, way });
                            found.states = parents.len();
                            return found;
                        }
                        quiet.push(REST);
                    }
                }
            }
            for (step, after) in steps.drain(..) {
                if let Some(law) = model.broken(&state, &step, &after) {
                    let mut way = replay(model, &parents, index);
                    way.push(format!("{step:?}"));
                    way.push(format!("which leaves {after:?}"));
                    found.broken = Some(Counterexample { law, way });
                    found.states = parents.len();
                    return found;
                }
                let print = fingerprint(&after);
                if known.contains_key(&print) {
                    continue;
                }
                let number = u32::try_from(parents.len()).unwrap_or(u32::MAX);
                known.insert(print, number);
                parents.push(index);
                below.push((after, number));
            }
            if parents.len() > limit {
                let law = format!("there are more than {limit} states: the search was cut short and proves nothing");
                found.broken = Some(Counterexample { law, way: Vec::new() });
                found.states = parents.len();
                return found;
            }
        }
        if !below.is_empty() {
            found.depth += 1;
        }
        level = below;
    }
    found.states = parents.len();
    match converge(&known, &quiet, model.orders()) {
        Ok(longest) => found.convergence = longest,
        Err(index) => {
            let law = "I7: once faults stop, it goes round in circles".to_owned();
            found.broken = Some(Counterexample { law, way: replay(model, &parents, index) });
        }
    }
    found
}

/// The longest way to rest, or a state from which there is none. States were expanded in the order of their numbers, so
/// `quiet` stands in that order too.
fn converge(known: &Known, quiet: &[u64], orders: usize) -> Result<usize, u32> {
    const NEW: u32 = u32::MAX;
    const OPEN: u32 = u32::MAX - 1;
    let states = quiet.len() / orders.max(1);
    let mut longest = 0;
    for order in 0..orders {
        let mut distance = vec![NEW; states];
        for start in 0..states {
            let mut way = Vec::new();
            let mut at = start;
            let mut base = loop {
                match distance[at] {
                    OPEN => return Err(u32::try_from(start).unwrap_or(u32::MAX)),
                    NEW => {}
                    done => break done,
                }
                distance[at] = OPEN;
                way.push(at);
                match quiet[at * orders + order] {
                    REST => break 0,
                    print => match known.get(&print) {
                        Some(next) => at = *next as usize,
                        None => return Err(u32::try_from(at).unwrap_or(u32::MAX)),
                    },
                }
            };
            // The last one pushed is at rest itself, or one step before what was known.
            let rests = way.last().is_some_and(|last| quiet[last * orders + order] == REST);
            if rests {
                if let Some(last) = way.pop() {
                    distance[last] = 0;
                }
                base = 0;
            }
            for state in way.into_iter().rev() {
                base += 1;
                distance[state] = base;
                longest = longest.max(base as usize);
            }
        }
    }
    Ok(longest)
}

/// The steps that lead to a state, found again by following the numbers of its ancestors.
fn replay<M: Model>(model: &M, parents: &[u32], index: u32) -> Vec<String> {
    let mut numbers = vec![index];
    while let Some(number) = numbers.last().copied().filter(|number| *number != 0) {
        numbers.push(parents[number as usize]);
    }
    // Numbers were given in the order of discovery: going through the same order again finds the same ones.
    let depth = numbers.len() - 1;
    numbers.reverse();
    let mut known = Known::default();
    let first = model.initial();
    known.insert(fingerprint(&first), 0);
    let mut level = vec![(first, 0_u32)];
    let mut count = 1_u32;
    let mut states: HashMap<u32, (M::State, Option<String>)> = HashMap::new();
    let mut steps = Vec::new();
    for _ in 0..depth {
        let mut below = Vec::new();
        for (state, _) in &level {
            steps.clear();
            model.steps(state, &mut steps);
            for (step, after) in steps.drain(..) {
                let print = fingerprint(&after);
                if known.contains_key(&print) {
                    continue;
                }
                known.insert(print, count);
                if numbers.contains(&count) {
                    states.insert(count, (after.clone(), Some(format!("{step:?}"))));
                }
                below.push((after, count));
                count += 1;
            }
        }
        level = below;
    }
    numbers.iter().filter_map(|number| states.get(number).and_then(|(_, step)| step.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts to `top`, one or two at a time; may be made to break a law, to rest early, or to go round.
    struct Counter {
        top: u8,
        forbidden: Option<u8>,
        circle: bool,
    }

    impl Model for Counter {
        type State = u8;
        type Step = u8;
        fn initial(&self) -> u8 {
            0
        }
        fn steps(&self, state: &u8, into: &mut Vec<(u8, u8)>) {
            into.extend([1, 2].into_iter().filter(|step| state + step <= self.top).map(|step| (step, state + step)));
            if self.circle && *state == self.top {
                into.push((0, self.top - 1));
            }
        }
        fn broken(&self, _: &u8, _: &u8, after: &u8) -> Option<String> {
            (Some(*after) == self.forbidden).then(|| format!("{after} is forbidden"))
        }
        fn orders(&self) -> usize {
            1
        }
        fn quiet(&self, _: usize, _: &u8, steps: &[(u8, u8)]) -> Option<usize> {
            (!steps.is_empty()).then_some(0)
        }
        fn unsettled(&self, state: &u8) -> Option<String> {
            (*state != 10).then(|| format!("it rests at {state}"))
        }
    }

    #[test]
    fn the_search_sees_every_state_and_each_kind_of_fault() {
        let good = search(&Counter { top: 10, forbidden: None, circle: false }, 100);
        assert!(good.broken.is_none(), "{good:?}");
        assert_eq!((good.states, good.depth, good.convergence), (11, 5, 10));
        let law = |top, forbidden, circle, limit| {
            search(&Counter { top, forbidden, circle }, limit).broken.expect("a counterexample")
        };
        let broken = law(10, Some(5), false, 100);
        assert_eq!((broken.law.as_str(), &broken.way[..3]), ("5 is forbidden", &["1", "2", "2"].map(String::from)[..]));
        assert_eq!(law(9, None, false, 100).law, "it rests at 9");
        assert!(law(10, None, true, 100).law.starts_with("I7"));
        assert!(law(10, None, false, 5).law.contains("cut short"));
    }
}
