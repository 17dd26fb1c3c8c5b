//! A first snapshot from beginning to end, and what is done about it afterwards: nothing.

use std::collections::BTreeSet;

use kube::ResourceExt;
use lvault_api::{LogicalVolume, Phase};

use crate::data::{Tree, fill};
use crate::history::transfer;
use crate::world::{Engine, World};

on_each_engine!(a_first_snapshot_goes_through_its_phases, a_finished_snapshot_is_never_written_again);

fn a_first_snapshot_goes_through_its_phases(engine: Engine) {
    let world = World::new(engine);
    let data = world.volume("data");
    fill(&data, 1, 4);
    let before = Tree::of(&data);
    world.storage("main");
    let uid = world.snapshot("s1", "data", &[]);
    let done = world.phase("s1", 1, Phase::Succeeded);
    world.node().settle(&uid);

    assert_eq!(world.history.phases(&uid), [(1, Phase::Pending), (1, Phase::Running), (1, Phase::Succeeded)]);
    let versions = world.history.of(&uid);
    // Created, finalizer, Pending, Running, Succeeded: whatever else were written would be too much.
    // On a machine that is slow, progress is: once in ten seconds.
    let reports = |version: &&LogicalVolume| {
        transfer(version).is_some_and(|transfer| transfer.phase == Phase::Running && transfer.progress.is_some())
    };
    let versions: Vec<_> = versions.iter().filter(|version| !reports(version)).cloned().collect();
    let writes: Vec<_> = versions.iter().map(|version| transfer(version).map(|transfer| transfer.phase)).collect();
    let expected = [None, None, Some(Phase::Pending), Some(Phase::Running), Some(Phase::Succeeded)];
    assert_eq!(writes, expected, "{versions:#?}");
    let last = versions.last().and_then(|version| version.metadata.managed_fields.clone()).unwrap_or_default();
    let managers: BTreeSet<String> = last.into_iter().filter_map(|entry| entry.manager).collect();
    assert!(managers.contains("lvault-up") && managers.contains("lvault-executor"), "{managers:?}");
    let running = transfer(&versions[3]).and_then(|transfer| transfer.executor).expect("Running names its executor");
    assert!(running.name.as_deref().is_some_and(|name| name.starts_with("backup-s1-1-1.")), "{running:?}");
    assert_eq!((running.epoch, running.launch, running.lost), (Some(1), Some(1), None));
    assert_eq!(done.executor, Some(running));
    assert_eq!(done.progress.map(|progress| progress.percentage).as_deref(), Some("100%"));
    assert!(done.completion_time.is_some() && done.error.is_none(), "{:?}", done.error);

    assert!(world.node().is_attached(&world.uid("data")), "the source is in use as before");
    before.assert_same(&Tree::of(&data));
    let repository = world.repository("main", "data");
    let only = repository.only(&uid, 1);
    assert_eq!(done.snapshot_id.as_ref(), Some(&only));
    before.assert_same(&repository.restored(&only, "data"));
    repository.check();
    world.finish();
}

fn a_finished_snapshot_is_never_written_again(engine: Engine) {
    let mut world = World::new(engine);
    fill(&world.volume("data"), 2, 1);
    world.storage("main");
    let uid = world.snapshot("s1", "data", &[]);
    world.phase("s1", 1, Phase::Succeeded);
    world.node().settle(&uid);
    let mut version = world.version("s1");
    let effects = world.effects("s1");
    let launches = |effects: &[String]| effects.iter().filter(|effect| effect.starts_with("Launch")).count();
    assert_eq!(launches(&effects), 1, "{effects:?}");

    for restart in 0..5 {
        if restart % 2 == 0 {
            world.kill();
        } else {
            world.terminate();
        }
        world.start();
        // It looks at what there is: a volume asked for now is made.
        world.volume(&format!("made-{restart}"));
        assert_eq!(world.version("s1"), version, "restart {restart}");
        version = world.touch("s1", &restart.to_string()).resource_version().unwrap();
    }
    world.assert_left_alone("s1", &version);
    assert_eq!(world.effects("s1"), effects, "something was done about it");
    assert_eq!(world.node().traces(&uid), Vec::<String>::new());
    assert_eq!(world.repository("main", "data").snapshots().len(), 1);
    world.finish();
}
