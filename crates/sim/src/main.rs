//! `lvault-sim`: runs the parts of the proof and prints their figures.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lvault_sim::model::settings::Settings;
use lvault_sim::model::{self, planted};
use lvault_sim::scenario::{self, Scenario};
use lvault_sim::sweep::{self, Swept};
use lvault_sim::{history, mutation, schema};

const USAGE: &str = "usage: lvault-sim <part>

  model               every interleaving of the model, and a counterexample with two owners
  sweep [STORY]       every fault at every point of every story, or of those whose names contain STORY
  stale [STORY]       every watch event dropped, late, doubled, cut; and lists from an older revision
  histories N [FROM]  N random histories, beginning with seed FROM (1)
  replay SEED         one random history, with its log
  schema              legal and illegal values for every field
  mutations           planted defects, and the check that catches each
  all N               all of these, with N histories
";

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its terminal")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    let done = match args.as_slice() {
        ["model"] => check_model(),
        ["sweep"] => sweeps("", false),
        ["sweep", story] => sweeps(story, false),
        ["stale"] => sweeps("", true),
        ["stale", story] => sweeps(story, true),
        ["histories", count] => number(count).map_or(Err(USAGE.to_owned()), |count| histories(count, 1)),
        ["histories", count, from] => match (number(count), number(from)) {
            (Some(count), Some(from)) => histories(count, from),
            _ => Err(USAGE.to_owned()),
        },
        ["replay", seed] => number(seed).map_or(Err(USAGE.to_owned()), replay),
        ["schema"] => schemas(),
        ["mutations"] => mutations(),
        ["all", count] => number(count).map_or(Err(USAGE.to_owned()), all),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn all(count: u64) -> Result<(), String> {
    let began = Instant::now();
    check_model()?;
    sweeps("", false)?;
    sweeps("", true)?;
    histories(count, 1)?;
    schemas()?;
    mutations()?;
    say(&format!("all of it holds; {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the figures are what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn check_model() -> Result<(), String> {
    let mut states = 0;
    let mut worlds = Settings::all();
    let broken_lock = Settings::two_owners();
    worlds.push(broken_lock.clone());
    for settings in worlds {
        let (name, began) = (settings.name, Instant::now());
        let expected = settings.agents > 1;
        let found = model::check(settings);
        let took = began.elapsed().as_secs_f64();
        match (&found.broken, expected) {
            (None, false) => {
                states += found.states;
                let figures = format!("{} states, {} steps, depth {}", found.states, found.steps, found.depth);
                let rest = format!("at rest after at most {} steps; {took:.1} s", found.convergence);
                say(&format!("model, {name}: {figures}, {rest}"));
            }
            (Some(broken), true) => say(&format!("model, {name}: counterexample, as it must be: {}", broken.law)),
            (Some(broken), false) => return Err(format!("model, {name}: {}\n{}", broken.law, broken.way.join("\n"))),
            (None, true) => return Err(format!("model, {name}: no counterexample: the check is blind")),
        }
    }
    say(&format!("model: {states} states, no law broken"));
    Ok(())
}

/// Does `work` for every item, on as many threads as there are processors.
fn on_all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicU64::new(0);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap_or(usize::MAX);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// In how many parts the points of a story are swept, so that all processors have something to do.
const PARTS: u64 = 8;

fn sweeps(story: &str, stale: bool) -> Result<(), String> {
    let (what, unit) = if stale { ("stale", "watch events") } else { ("sweep", "points") };
    let scenarios: Vec<Scenario> = scenario::all().into_iter().filter(|s| s.name.contains(story)).collect();
    let (mut points, mut runs, began) = (0, 0, Instant::now());
    for scenario in &scenarios {
        let parts: Vec<u64> = if stale { vec![0] } else { (0..PARTS).collect() };
        let swept =
            on_all(&parts, |part| if stale { sweep::stale(scenario) } else { sweep::sweep(scenario, *part, PARTS) });
        let of_story: u64 = swept.iter().map(|swept: &Swept| swept.points).max().unwrap_or(0);
        let its_runs: u64 = swept.iter().map(|swept| swept.runs).sum();
        if let Some((problem, log)) = swept.iter().flat_map(|swept| &swept.wrong).next() {
            return Err(format!("{what}: {}\n{problem}", log.join("\n")));
        }
        say(&format!("{what}, {}: {of_story} {unit}, {its_runs} runs", scenario.name));
        (points, runs) = (points + of_story, runs + its_runs);
    }
    let took = began.elapsed().as_secs_f64();
    say(&format!("{what}: {points} of {points} {unit} in {} stories, {runs} runs; {took:.0} s", scenarios.len()));
    Ok(())
}

fn histories(count: u64, from: u64) -> Result<(), String> {
    let began = Instant::now();
    let seeds: Vec<u64> = (from..from + count).collect();
    let failed = AtomicU64::new(0);
    let results = on_all(&seeds, |seed| {
        if failed.load(Ordering::SeqCst) > 2 {
            return (0, None);
        }
        let history = history::tell(*seed, &history::Faults::Seeded);
        let met = history.met.len();
        let wrong = history.wrong.is_some();
        if wrong {
            failed.fetch_add(1, Ordering::SeqCst);
        }
        (met, wrong.then_some(history))
    });
    if let Some(history) = results.iter().find_map(|(_, history)| history.as_ref()) {
        let short = history::shortened(history);
        let wrong = history.wrong.clone().unwrap_or_default();
        return Err(format!(
            "{}\nseed {}: {wrong}\nwith {} of {} faults: {:?}: {}\nreplay it: lvault-sim replay {}",
            short.log.join("\n"),
            history.seed,
            short.met.len(),
            history.met.len(),
            short.met,
            short.wrong.unwrap_or_default(),
            history.seed,
        ));
    }
    let faults: usize = results.iter().map(|(met, _)| met).sum();
    let took = began.elapsed().as_secs_f64();
    let rate = count as f64 / took.max(0.001);
    say(&format!("histories: {count} from seed {from}, {faults} faults met; {took:.0} s, {rate:.0} a second"));
    Ok(())
}

fn replay(seed: u64) -> Result<(), String> {
    let history = history::tell(seed, &history::Faults::Seeded);
    history.log.iter().for_each(|line| say(line));
    match history.wrong {
        None => {
            say(&format!("seed {seed}: all is well; {} faults met", history.met.len()));
            Ok(())
        }
        Some(wrong) => Err(format!("seed {seed}: {wrong}")),
    }
}

fn schemas() -> Result<(), String> {
    let done = schema::check()?;
    say(&format!(
        "schema: {} values of {} fields: {} taken, {} refused",
        done.values, done.fields, done.taken, done.refused
    ));
    Ok(())
}

/// A planted defect, in the model or around the real code.
enum Defect {
    Model(planted::Planted),
    World(mutation::Mutation),
}

impl Defect {
    fn words(&self) -> String {
        let (line, words, place) = match self {
            Defect::Model(planted) => (planted.line, planted.words, "the model".to_owned()),
            Defect::World(mutation) => (mutation.line, mutation.words, format!("story {:?}", mutation.story)),
        };
        format!("{line:8} {words}: {place}")
    }

    /// The law that catches it, when this invariant is not looked at.
    fn caught(&self, without: Option<u8>) -> Result<Option<String>, String> {
        match self {
            Defect::Model(planted) => {
                let found = model::check(Settings { without, ..planted.world.clone() });
                Ok(found.broken.map(|broken| broken.law))
            }
            Defect::World(mutation) => mutation::catch(mutation, without),
        }
    }
}

/// Every planted defect has to be caught; and for each invariant there has to be one that nothing else catches.
fn mutations() -> Result<(), String> {
    let began = Instant::now();
    let mut defects: Vec<Defect> = planted::all().into_iter().map(Defect::Model).collect();
    defects.extend(mutation::all().into_iter().map(Defect::World));
    let judged = on_all(&defects, |defect| -> Result<(Option<String>, Option<u8>), String> {
        let law = defect.caught(None)?;
        let of = law.as_deref().and_then(|law| (1..=9).find(|invariant| model::laws::is_of(law, *invariant)));
        let only = match of {
            Some(invariant) if defect.caught(Some(invariant))?.is_none() => Some(invariant),
            Some(_) | None => None,
        };
        Ok((law, only))
    });
    let (mut survived, mut alone) = (0, BTreeMap::<u8, u32>::new());
    for (defect, judged) in defects.iter().zip(judged) {
        let (law, only) = judged?;
        let law = law.as_deref().and_then(|law| law.lines().next()).unwrap_or_else(|| {
            survived += 1;
            "SURVIVED"
        });
        let only = only.inspect(|invariant| *alone.entry(*invariant).or_default() += 1);
        let only = only.map(|invariant| format!(" (nothing but I{invariant} sees it)")).unwrap_or_default();
        say(&format!("mutation {}: {law}{only}", defect.words()));
    }
    let seen: Vec<String> = alone.iter().map(|(invariant, count)| format!("I{invariant} {count}")).collect();
    say(&format!("mutations: caught by one invariant alone: {}", seen.join(", ")));
    let took = began.elapsed().as_secs_f64();
    say(&format!("mutations: {} planted, {survived} survived; {took:.0} s", defects.len()));
    let blind: Vec<String> = (1..=9).filter(|of| !alone.contains_key(of)).map(|of| format!("I{of}")).collect();
    match (survived, blind.is_empty()) {
        (0, true) => Ok(()),
        (0, false) => Err(format!("no planted defect shows that these are needed: {}", blind.join(", "))),
        _ => Err(format!("{survived} mutations survived: the checks are blind to them")),
    }
}
