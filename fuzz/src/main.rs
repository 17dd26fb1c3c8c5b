//! libFuzzer around the targets of the crates: `LVAULT_FUZZ_TARGET` names the one, and without it they are listed.
//!
//! One program serves all targets, so that it is linked once. The targets themselves, and what they assert, are in the module
//! `fuzzing` of each crate, where `cargo test` runs them over the corpus.

#![no_main]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

type Target = (&'static str, fn(&[u8]));

thread_local! {
    /// The last panic of this thread, in words.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("LVAULT_FUZZ_TARGET").unwrap_or_default();
    let found = targets().find(|(name, _)| *name == wanted);
    let Some((_, target)) = found else {
        targets().for_each(|(name, _)| println!("{name}"));
        std::process::exit(if wanted.is_empty() { 0 } else { 2 });
    };
    // A panic that the code under test takes care of is none; libFuzzer's own hook ends the process at any.
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    target
});

fn targets() -> impl Iterator<Item = Target> {
    let crates = [
        lvault_apiserver::fuzzing::TARGETS,
        lvault_api::fuzzing::TARGETS,
        lvault_engines::fuzzing::TARGETS,
        lvault_backup::fuzzing::TARGETS,
    ];
    crates.into_iter().flatten().copied()
}

fuzz_target!(
    init: { LazyLock::force(&TARGET); },
    |data: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| TARGET(data))).is_err() {
            PANIC.with_borrow(|panic| eprintln!("{panic}"));
            std::process::abort();
        }
    }
);
