//! Stories and histories of the real agent, executors and controller. `lvault-sim` runs all of them; here is enough of each to
//! see within a minute that a change broke something.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says why")]

use lvault_sim::run::{Disturbance, tell};
use lvault_sim::world::points::{Fault, Plan};
use lvault_sim::world::wire::Staleness;
use lvault_sim::{history, mutation, scenario, sweep};

fn story(name: &str) -> scenario::Scenario {
    scenario::all().into_iter().find(|story| story.name == name).expect("a story of this name")
}

#[test]
fn every_story_ends_well() {
    for scenario in scenario::all() {
        let told = tell(&scenario, Disturbance::default());
        let why = || format!("{}: {:?} {:?}\n{}", scenario.name, told.end, told.broken, told.log.join("\n"));
        assert!(told.end.is_ok() && told.broken.is_empty(), "{}", why());
    }
}

#[test]
fn a_story_is_told_the_same_way_each_time() {
    let disturbance =
        || Disturbance { plan: Plan { at: [(40, Fault::CrashAfter)].into(), chance: None }, ..Disturbance::default() };
    let first = tell(&story("restore"), disturbance());
    assert!(first.log.iter().any(|line| line.contains("!! CrashAfter")), "the fault was met");
    assert_eq!(first.log, tell(&story("restore"), disturbance()).log);
    let seeded = || history::tell(7, &history::Faults::Seeded).log;
    assert_eq!(seeded(), seeded());
}

#[test]
fn a_tenth_of_the_crash_points_of_a_backup() {
    let swept = sweep::sweep(&story("backup"), 0, 10);
    assert!(swept.runs >= 50, "{swept:?}");
    assert!(swept.wrong.is_empty(), "{}", swept.wrong[0].0);
}

#[test]
fn watch_events_may_be_lost_late_doubled_or_cut() {
    for event in [2, 5, 8] {
        for staleness in [Staleness::Dropped, Staleness::Late, Staleness::Twice, Staleness::Cut] {
            let told =
                tell(&story("backup"), Disturbance { stale: Some((event, staleness)), ..Disturbance::default() });
            assert!(
                told.end.is_ok() && told.broken.is_empty(),
                "{event} {staleness:?}: {:?} {:?}",
                told.end,
                told.broken
            );
        }
    }
}

#[test]
fn some_random_histories() {
    for seed in 1..=12 {
        let told = history::tell(seed, &history::Faults::Seeded);
        assert_eq!(told.wrong, None, "replay it: lvault-sim replay {seed}");
    }
}

#[test]
fn a_defect_of_the_repository_is_seen() {
    let garbage = mutation::all().into_iter().find(|one| one.planted == mutation::Planted::CommitsGarbage);
    let said = mutation::catch(&garbage.expect("it is planted"), None);
    assert!(matches!(&said, Ok(Some(law)) if law.contains("I3")), "{said:?}");
}

/// Found by the values of every field: a snapshot whose storage was changed, or whose `onlineSnapshot` was taken away, left what
/// it had committed in the repository when it was deleted.
#[test]
fn where_a_snapshot_was_copied_to_never_changes() {
    let said = lvault_sim::run::alone(async {
        let world = lvault_sim::world::World::new(1).await.expect("a world");
        world.create_storage().await.expect("a storage");
        world.create_volume("data").await.expect("a volume");
        world.create_snapshot("snap", "data").await.expect("a snapshot");
        let elsewhere = serde_json::json!({"onlineSnapshot": {"storage": {"name": "elsewhere"}}});
        let nothing = serde_json::json!({"onlineSnapshot": null});
        let added =
            serde_json::json!({"restore": {"storage": {"name": "vault"}, "path": "p", "snapshotID": "0123456789"}});
        let said = async |patch| world.patch("snap", patch).await.expect_err("a refusal").to_string();
        [said(elsewhere).await, said(nothing).await, said(added).await]
    });
    assert!(said[0].contains("the storage never changes"), "{said:?}");
    assert!(said[1].contains("neither added nor removed") && said[2].contains("neither added nor removed"), "{said:?}");
}
