//! The model check as a test: the whole space of every world, and a counterexample where the owner's lock is broken.

use lvault_sim::model::check;
use lvault_sim::model::settings::Settings;

#[test]
fn no_law_is_broken_in_any_world() {
    for settings in Settings::all() {
        let name = settings.name;
        let began = std::time::Instant::now();
        let found = check(settings);
        println!(
            "{name}: {} states, {} steps, depth {}, convergence {} in {:?}",
            found.states,
            found.steps,
            found.depth,
            found.convergence,
            began.elapsed()
        );
        if let Some(broken) = found.broken {
            panic!("{name}: {}\n{}", broken.law, broken.way.join("\n"));
        }
    }
}

#[test]
fn two_owners_break_a_law() {
    let found = check(Settings::two_owners());
    let broken = found.broken.expect("the check sees two owners");
    println!("{}\n{}", broken.law, broken.way.join("\n"));
    assert!(broken.law.starts_with("I"), "{}", broken.law);
}

#[test]
fn every_planted_defect_breaks_a_law() {
    let mut survived = Vec::new();
    for planted in lvault_sim::model::planted::all() {
        let began = std::time::Instant::now();
        let found = check(planted.world.clone());
        match found.broken {
            Some(broken) => println!(
                "{} {:?}: {} ({} states, {:?})",
                planted.line,
                planted.defect,
                broken.law,
                found.states,
                began.elapsed()
            ),
            None => survived.push(format!("{:?} after {} states", planted.defect, found.states)),
        }
    }
    assert!(survived.is_empty(), "{survived:?}");
}
