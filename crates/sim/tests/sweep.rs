//! Stories told by the real agent, executors and controller, undisturbed and disturbed.

use lvault_sim::run::{Disturbance, tell};
use lvault_sim::scenario;

#[test]
fn every_story_ends_well_and_the_same_each_time() {
    for scenario in scenario::all() {
        let began = std::time::Instant::now();
        let first = tell(&scenario, Disturbance::default());
        let took = began.elapsed();
        println!("{}: {} points, {} events, {took:?}", scenario.name, first.points, first.events);
        assert!(first.end.is_ok() && first.broken.is_empty(), "{}: {:?} {:?}\n{}", scenario.name, first.end, first.broken, first.log.join("\n"));
        let second = tell(&scenario, Disturbance::default());
        assert_eq!(first.log, second.log, "{}: the same story, told twice, differs", scenario.name);
    }
}
