//! A folder with so many entries that its tree is compressed as they come, and decompressed as they are asked for.
//!
//! `LVAULT_LARGE_FOLDER=1000000` tests with so many.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{Silent, VerifyDepth};
use rustix::process::getpid;
use support::{Bench, inventory, restic, write};

/// More than a tree is in memory whole for.
const USUAL: usize = 21_000;

fn files() -> usize {
    std::env::var("LVAULT_LARGE_FOLDER").map_or(USUAL, |count| count.parse().unwrap())
}

/// The most memory that this process has had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", getpid().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn a_folder_with_very_many_files_survives() {
    let (bench, files) = (Bench::new(), files());
    let name = |number: usize| bench.volume().join(format!("many/file-{number:07}"));
    std::fs::create_dir(bench.volume().join("many")).unwrap();
    (0..files).for_each(|number| write(name(number), number.to_string()));
    std::fs::create_dir(name(files / 2).with_extension("folder")).unwrap();

    let repository = bench.repository();
    let first = bench.back_up(&repository, "a", 1).unwrap();
    assert_eq!((first.files, first.folders, first.changed_files), (files as u64, 3, files as u64));
    eprintln!("{files} files, first backup: {} MiB at most", peak());

    // The tree is the same, so that nothing is stored but the snapshot.
    let second = bench.back_up(&repository, "b", 1).unwrap();
    assert_eq!((second.read_bytes, second.changed_files, second.files), (0, 0, files as u64));
    assert!(second.added_bytes < 4096, "{second:?}");
    eprintln!("{files} files, second backup: {} MiB at most", peak());

    write(name(7), "changed");
    std::fs::remove_file(name(files - 1)).unwrap();
    let third = bench.back_up(&repository, "c", 1).unwrap();
    assert_eq!((third.read_bytes, third.changed_files, third.files), (7, 1, files as u64 - 1));
    let verified = repository.verify(&third.snapshot, VerifyDepth::Structure, &Silent).unwrap();
    assert_eq!((verified.trees, verified.blobs), (4, files as u64 - 1));
    eprintln!("{files} files, verified: {} MiB at most", peak());

    let target = bench.empty("target");
    repository.restore(&third.snapshot, &target, &Silent).unwrap();
    eprintln!("{files} files, restored: {} MiB at most", peak());
    assert!(inventory(&target) == inventory(&bench.volume()), "what was restored is something else");
    bench.assert_restic_is_content();
    let listed = restic(&bench.repository_folder(), &["ls", third.snapshot.as_str()]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert_eq!(listed.lines().filter(|line| line.contains("/many/file-")).count(), files);
}
