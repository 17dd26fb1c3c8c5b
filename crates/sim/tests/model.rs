//! The model check as a test: the whole space of the ordinary world, a counterexample where the owner's lock is broken, and one
//! for every planted defect. `lvault-sim model` searches all worlds.

use lvault_sim::model::check;
use lvault_sim::model::settings::Settings;

#[test]
fn no_law_is_broken_in_the_ordinary_world() {
    let found = check(Settings::ordinary());
    if let Some(broken) = found.broken {
        panic!("{}\n{}", broken.law, broken.way.join("\n"));
    }
    assert!(found.states > 1_000_000, "the world has become small: {found:?}");
}

#[test]
fn two_owners_break_a_law() {
    let broken = check(Settings::two_owners()).broken.expect("the check sees two owners");
    assert!(broken.law.starts_with("I5"), "{}", broken.law);
}

#[test]
fn every_planted_defect_breaks_a_law() {
    for planted in lvault_sim::model::planted::all() {
        let found = check(planted.world.clone());
        assert!(found.broken.is_some(), "{:?} survived {} states", planted.defect, found.states);
    }
}
