//! What fuzzing runs: every parser of bytes from outside, as a function of bytes that asserts what has to hold.
//!
//! Only there in tests, which run the targets over their corpus, and under `cfg(lvault_fuzzing)`, where libFuzzer searches for
//! inputs: `make fuzz`. The name is our own, for some dependencies behave differently under `cfg(fuzzing)`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that panics has found something")]

mod documents;
mod patches;
mod requests;
mod state_file;
mod texts;

/// A parser's name, and what runs it on bytes and asserts what has to hold.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name: their corpus lies in `fuzz/corpus/NAME`.
pub const TARGETS: &[Target] = &[
    ("archive", documents::archive),
    ("jsonpath", texts::jsonpath),
    ("patch", patches::patch),
    ("protobuf", documents::protobuf),
    ("query", texts::query),
    ("request", requests::request),
    ("schema", documents::schema),
    ("selector", texts::selector),
    ("state_file", state_file::state_file),
];

/// The parts of an input: texts with a NUL between them.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    [(); N].map(|()| parts.next().unwrap_or_default())
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_holds_over_its_corpus() {
        super::replay::corpus(super::TARGETS);
    }
}
