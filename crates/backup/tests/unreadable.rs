//! What really cannot be read: another file system mounted in the middle (as root), folders and files without access (as
//! anybody else). Each is named, and nothing is committed.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{BackUpError, OnReadError, Retry, Silent, VerifyDepth};
use std::sync::Arc;
use support::{Bench, Mount, is_root, set_mode, write};

fn assert_unreadable(bench: &Bench, expected: &[&str], reason: &str) {
    let repository = bench.repository();
    let err = bench.back_up(&repository, "a", 1).unwrap_err();
    assert_eq!(err.retry(), Retry::Later);
    assert!(err.to_string().contains(expected[0]), "{err}");
    let BackUpError::Unreadable { files, count } = err else { panic!("{err:?}") };
    let mut named: Vec<_> = files.iter().map(|it| it.path.to_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!((named.as_slice(), count), (expected, expected.len() as u64));
    assert!(files.iter().all(|it| it.reason.contains(reason)), "{files:?}");
    assert_eq!(repository.snapshots().unwrap(), []);
    bench.assert_restic_is_content();
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_committed() {
    let bench = Bench::new();
    for folder in ["open", "closed"] {
        std::fs::create_dir(bench.volume().join(folder)).unwrap();
        write(bench.volume().join(folder).join("file"), "content");
    }
    let closed = bench.volume().join("closed");
    if is_root() {
        let mount = Mount::tmpfs(&closed, "size=1m");
        assert_unreadable(&bench, &["closed"], "another file system");
        drop(mount);
    } else {
        set_mode(&closed, 0o000);
        set_mode(&bench.volume().join("open/file"), 0o000);
        assert_unreadable(&bench, &["closed", "open/file"], "ermission denied");
        set_mode(&closed, 0o700);
        set_mode(&bench.volume().join("open/file"), 0o600);
    }
    // Once the cause is gone, the same call works.
    let report = bench.back_up(&bench.repository(), "a", 1).unwrap();
    assert_eq!((report.files, report.folders), (2, 3));
}

#[test]
fn hundreds_of_unreadable_files_are_counted_and_some_are_named() {
    let bench = Bench::new();
    let name: &[u8] = b"user.\xff";
    for number in 0..250 {
        let path = bench.volume().join(number.to_string());
        write(&path, "content");
        rustix::fs::lsetxattr(&path, name, b"", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let repository = bench.repository();
    let err = bench.back_up(&repository, "a", 1).unwrap_err();
    assert!(err.to_string().len() < 1000, "{err}");
    let BackUpError::Unreadable { files, count } = err else { panic!("{err:?}") };
    assert_eq!((files.len(), count), (100, 250));

    // Who wants the rest gets it, and is told what is missing.
    write(bench.volume().join("fine"), "content");
    let mut what = bench.what("a", 1);
    what.on_read_error = OnReadError::Skip;
    let report = repository.back_up(&what, Arc::new(Silent)).unwrap();
    assert_eq!((report.unreadable.len(), report.unreadable_count, report.files), (100, 250, 1));
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    let target = bench.empty("target");
    repository.restore(&report.snapshot, &target, &Silent).unwrap();
    let names: Vec<_> = std::fs::read_dir(target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["fine"]);
    bench.assert_restic_is_content();
}
