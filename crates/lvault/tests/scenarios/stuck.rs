//! One volume that hangs holds up no other.

use lvault_api::Phase;

use crate::data::fill;
use crate::world::{Engine, World};

on_each_engine!(a_hanging_snapshot_holds_up_nothing_else);

fn a_hanging_snapshot_holds_up_nothing_else(engine: Engine) {
    let world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 40, 1);
    fill(&world.volume("other"), 41, 1);
    world.storage("main");
    world.first_snapshot("data");
    fill(&data.join("a"), 42, 8);
    let stuck = world.snapshot("stuck", "data", &[]);
    let running = world.phase("stuck", 1, Phase::Running);
    let executor = world.executor(&stuck);
    executor.process.stop();

    // Of another volume, of the same volume, a new volume, a restore, and deletions.
    let wait = ["--wait", "--timeout", "60s"];
    world.snapshot("s1", "other", &wait);
    let same = world.snapshot("s2", "data", &wait);
    world.volume("new");
    world.ok(&[&["restore", "r1", "--from", "s1"][..], &wait].concat());
    world.ok(&[&["snapshot", "delete", "s2"][..], &wait].concat());
    world.ok(&[&["volume", "delete", "new"][..], &wait].concat());
    let repository = world.repository("main", "data");
    assert_eq!(repository.of(&same, 1), Vec::<String>::new());
    assert_eq!(world.phase("stuck", 1, Phase::Running), running, "it was left alone meanwhile");
    assert_eq!(executor.process.state(), Some('T'));

    executor.process.go_on();
    let done = world.phase("stuck", 1, Phase::Succeeded);
    assert_eq!(done.executor, running.executor);
    world.node().settle(&stuck);
    assert_eq!(done.snapshot_id, Some(repository.only(&stuck, 1)));
    repository.check();
    world.finish();
}
