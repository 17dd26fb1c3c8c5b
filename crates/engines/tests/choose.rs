//! Choosing an engine: the best that really works here, the one asked for, or the one whose volumes are there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod support;

use std::fs;

use lvault_core::Bytes;
use lvault_engines::{Chosen, ENGINE_FILE, EngineError, Options, Retry, Wish, choose};
use support::{MIB, State, root_or_skip};

fn chosen(state: &State, wish: Wish) -> Result<Chosen, EngineError> {
    choose(state.path(), wish, &state.options)
}

#[test]
fn auto_takes_image_where_it_works_and_stays_with_it() {
    if !root_or_skip("the image engine") {
        return;
    }
    let state = State::new();
    let first = chosen(&state, Wish::Auto).unwrap();
    assert_eq!(first.engine.name(), "image", "{}", first.why);
    assert!(first.why.contains("tried out"), "{}", first.why);
    assert_eq!(first.engine.list().unwrap(), [], "the probe left nothing");
    assert_eq!(state.mounts(), [state.pool()]);
    let again = chosen(&state, Wish::Image).unwrap();
    assert_eq!((again.engine.name(), again.why.contains("its own")), ("image", true), "{}", again.why);
    let other = chosen(&state, Wish::Directory).unwrap_err();
    assert!(matches!(other, EngineError::OtherEngine { .. }) && other.to_string().contains(ENGINE_FILE), "{other}");
    assert_eq!(other.retry(), Retry::Never);
}

#[test]
fn auto_takes_directory_where_image_does_not_work_and_says_why() {
    let mut state = State::new();
    // Too small for a pool: as root this fails, and without root everything does.
    state.options = Options { pool_size: Some(Bytes(MIB)), ..Options::default() };
    let asked_for = chosen(&state, Wish::Image).unwrap_err();
    let chosen_here = chosen(&state, Wish::Auto).unwrap();
    assert_eq!(chosen_here.engine.name(), "directory");
    assert!(chosen_here.why.contains(&asked_for.to_string()), "{}", chosen_here.why);
    let mut left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [ENGINE_FILE, "volumes"], "nothing of a pool is left");
    assert_eq!(state.mounts(), Vec::<std::path::PathBuf>::new());

    // Now image would work; the volumes are the directory engine's.
    state.options = Options { pool_size: Some(Bytes(512 * MIB)), ..Options::default() };
    assert_eq!(chosen(&state, Wish::Auto).unwrap().engine.name(), "directory");
    assert!(matches!(chosen(&state, Wish::Image).unwrap_err(), EngineError::OtherEngine { .. }));
}

#[test]
fn a_damaged_note_of_the_engine_is_an_error_and_not_a_new_choice() {
    let state = State::new();
    chosen(&state, Wish::Directory).unwrap();
    for text in
        ["", "{\"version\":1}", "{\"version\":2,\"engine\":\"directory\"}", "{\"version\":1,\"engine\":\"zfs\"}"]
    {
        fs::write(state.path().join(ENGINE_FILE), text).unwrap();
        let error = chosen(&state, Wish::Auto).unwrap_err();
        assert!(matches!(error, EngineError::Damaged { .. }) && error.to_string().contains(ENGINE_FILE), "{error}");
    }
}

#[test]
fn a_wish_is_read_from_text() {
    for (text, wish) in
        [("auto", Wish::Auto), ("image", Wish::Image), ("directory", Wish::Directory), ("lvm", Wish::Lvm)]
    {
        assert_eq!(text.parse(), Ok(wish));
    }
    let error = "Image".parse::<Wish>().unwrap_err().to_string();
    assert!(error.contains("auto, image, directory or lvm"), "{error}");
}
