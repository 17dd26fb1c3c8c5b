//! What fuzzing runs: every parser of what people, LVM, `losetup` and the kernel write, as a function of bytes that asserts what
//! has to hold.
//!
//! Only there in tests, which run the targets over their corpus, and under `cfg(lvault_fuzzing)`, where libFuzzer searches for
//! inputs: `make fuzz`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that panics has found something")]

use crate::image::kernel;
use crate::lvm;
use crate::record::Record;

/// A parser's name, and what runs it on bytes and asserts what has to hold.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name: their corpus lies in `fuzz/corpus/NAME`.
pub const TARGETS: &[Target] = &[
    ("kernel", kernel),
    ("lvm_report", lvm::fuzzing::report),
    ("lvm_tags", lvm::fuzzing::tags),
    ("lvmd", lvm::fuzzing::config),
    ("record", record),
];

/// A volume's `meta.json`: what parses is written as what parses to the same.
fn record(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Record::parse(&text) {
        Ok(record) => {
            let written = record.written().expect("it makes JSON");
            assert_eq!(Record::parse(&written), Ok(record));
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

/// Loop devices as `losetup` lists them, and lines of the mount table.
fn kernel(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(devices) = kernel::parse_loops(&text) {
        assert!(devices.len() <= data.len());
    }
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(mount) = kernel::parse_mount(line) {
            assert!(mount.point.as_os_str().len() + mount.source.as_os_str().len() <= line.len());
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_holds_over_its_corpus() {
        super::replay::corpus(super::TARGETS);
    }
}
