//! State folders that cannot be used: one clear error, and nothing in them is changed.

use std::fs;

use crate::world::{Engine, World};

#[test]
fn a_second_lvault_on_the_same_folder_is_refused_by_name() {
    let world = World::new(Engine::Directory);
    world.volume("data");
    let said = world.refused_start(Engine::Directory);
    let pid = format!("process {}", world.agent().pid);
    assert!(said.contains(&world.state.display().to_string()) && said.contains(&pid), "{said}");
    // The first one goes on.
    world.volume("more");
    world.finish();
}

#[test]
fn a_state_file_that_is_not_ours_or_not_whole_is_left_as_it_is() {
    let mut world = World::new(Engine::Directory);
    let uid = {
        world.volume("data");
        world.uid("data")
    };
    world.terminate();
    let file = world.state.join("state.redb");
    let good = fs::read(&file).unwrap();
    let text = b"This is somebody's letter, and no store.\n".repeat(500);
    let half = good[..good.len() / 2].to_vec();
    let scribbled = [&text[..4096], &good[4096..]].concat();
    for (what, bytes) in [("half", half), ("a letter", text), ("nothing", Vec::new()), ("scribbled over", scribbled)] {
        fs::write(&file, &bytes).unwrap();
        let said = world.refused_start(Engine::Directory);
        assert!(said.contains("state.redb") && said.contains("help: "), "{what}: {said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        assert!(fs::read(&file).unwrap() == bytes, "{what}: the file was changed");
    }
    fs::write(&file, &good).unwrap();
    world.start();
    assert_eq!(world.get("data").and_then(|volume| volume.metadata.uid), Some(uid));
    world.finish();
}

#[test]
fn a_folder_with_volumes_of_another_engine_is_refused() {
    if !Engine::Image.is_possible() {
        return;
    }
    let mut world = World::new(Engine::Directory);
    world.volume("data");
    world.terminate();
    let said = world.refused_start(Engine::Image);
    assert!(said.contains("directory") && said.contains("--engine"), "{said}");
    world.start();
    world.finish();
}
