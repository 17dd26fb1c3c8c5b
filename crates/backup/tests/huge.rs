//! A sparse file of 100 GiB: its holes cost nothing on any way through the repository, neither reading nor memory.
//!
//! One test only, so that what the kernel counts for the process is what this test took.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{Silent, VerifyDepth};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use support::{Bench, PASSWORD, command, noise, restic};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 100 << 30;

/// What is no hole: where it begins, and how long it is. The middle is not in step with anything, and the end is the file's.
const ISLANDS: [(u64, usize); 4] =
    [(0, 5000), ((50 << 30) + 12_345, 3 << 20), ((70 << 30) + 524_288 * 3, 524_288), (SIZE - 70_001, 70_001)];

#[test]
fn a_sparse_file_of_100_gib_costs_what_its_data_costs() {
    let bench = Bench::new();
    let (original, target) = (bench.volume().join("image"), bench.empty("target"));
    make(&original);
    let map = data_of(&original);
    assert!((4..=6).contains(&map.len()), "this file system makes no holes: {map:?}");

    let repository = bench.repository();
    let first = bench.back_up(&repository, "huge", 1).unwrap();
    assert_eq!((first.files, first.total_bytes), (1, SIZE));
    assert!(first.read_bytes < 8 * MIB && first.added_bytes < 8 * MIB, "{first:?}");
    let again = bench.back_up(&repository, "huge", 2).unwrap();
    assert_eq!((again.changed_files, again.read_bytes), (0, 0));
    for depth in [VerifyDepth::Structure, VerifyDepth::Data] {
        let verified = repository.verify(&first.snapshot, depth, &Silent).unwrap();
        assert!(verified.bytes < 8 * MIB, "{verified:?}");
    }

    let restored = repository.restore(&first.snapshot, &target, &Silent).unwrap();
    assert_eq!((restored.size.bytes, restored.was_complete), (SIZE, false));
    assert_same(&target.join("image"), &map);
    assert!(repository.restore(&first.snapshot, &target, &Silent).unwrap().was_complete);

    // In place: where nothing is, again, and over something shorter that has data where a hole belongs and a hole where data does.
    let other = bench.folder.path().join("other");
    let in_place = || repository.restore_file(&first.snapshot, Path::new("image"), &other, &Silent).unwrap();
    let data: u64 = ISLANDS.iter().map(|(_, length)| *length as u64).sum();
    let made = in_place();
    assert!(made.bytes == SIZE && (data..data + MIB).contains(&made.written_bytes), "{made:?}");
    assert_same(&other, &map);
    assert_eq!(in_place().written_bytes, 0);
    let file = File::options().write(true).open(&other).unwrap();
    file.set_len(ISLANDS[2].0).unwrap();
    file.write_all_at(&noise(3, 2 << 20), (10 << 30) + 4321).unwrap();
    file.sync_all().unwrap();
    let mended = in_place().written_bytes;
    let wrong = (2 * MIB) + ISLANDS[2].1 as u64 + ISLANDS[3].1 as u64;
    // A block that two holes share is cleared with the first of them.
    assert!((wrong - (16 << 10)..wrong + MIB).contains(&mended), "{mended} bytes were written, and {wrong} were wrong");
    assert_same(&other, &map);
    assert_eq!(in_place().written_bytes, 0);

    let (read, written, peak) = taken();
    assert!(read < 512 * MIB && written < 512 * MIB, "{read} bytes were read, and {written} written");
    assert!(peak < 256 * MIB, "the peak of memory was {} MiB", peak / MIB);
    assert_restic_sees_the_same(&bench, first.snapshot.as_str());
}

fn make(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for (begin, length) in ISLANDS {
        file.write_all_at(&noise(begin, length), begin).unwrap();
    }
    file.sync_all().unwrap();
}

/// Where a file has data.
fn data_of(path: &Path) -> Vec<Range<u64>> {
    let file = File::open(path).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(begin) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, SeekFrom::Hole(begin)).unwrap();
        found.push(begin..at);
    }
    found
}

fn assert_same(path: &Path, map: &[Range<u64>]) {
    let (file, stat) = (File::open(path).unwrap(), path.metadata().unwrap());
    assert_eq!(stat.len(), SIZE);
    assert!(stat.blocks() * 512 < 8 * MIB, "it takes {} blocks", stat.blocks());
    assert_eq!(data_of(path), map);
    // With the zeros before and behind, as far as they are in the same block.
    for data in map {
        let mut found = vec![1; usize::try_from(data.end - data.start).unwrap()];
        file.read_exact_at(&mut found, data.start).unwrap();
        for (begin, length) in ISLANDS.into_iter().filter(|(begin, _)| data.contains(begin)) {
            let at = usize::try_from(begin - data.start).unwrap();
            assert!(found[at..at + length] == noise(begin, length), "the island at {begin}");
            found[at..at + length].fill(0);
        }
        assert!(found.iter().all(|byte| *byte == 0), "there is more at {data:?}");
    }
}

/// Bytes that this process has read and written so far, by any call on any file, and the peak of its memory.
fn taken() -> (u64, u64, u64) {
    let number = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    };
    let io = |name| number("/proc/self/io", name);
    (io("rchar:"), io("wchar:"), number("/proc/self/status", "VmHWM:") << 10)
}

fn assert_restic_sees_the_same(bench: &Bench, snapshot: &str) {
    bench.assert_restic_is_content();
    let said = |arguments: &[&str]| {
        let output = restic(&bench.repository_folder(), arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["ls", "--json", snapshot, "/data/image"]).contains(&format!("\"size\":{SIZE},")));
    assert!(said(&["stats", "--json", snapshot]).contains(&format!("\"total_size\":{SIZE},")));
    // All of it would take minutes.
    let mut dump = command("restic");
    dump.args(["--no-cache", "-r"]).arg(bench.repository_folder()).env("RESTIC_PASSWORD", PASSWORD);
    let mut dump = dump.args(["dump", snapshot, "/data/image"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut beginning = vec![1; 64 << 20];
    dump.stdout.take().unwrap().read_exact(&mut beginning).unwrap();
    let (data, zeros) = beginning.split_at(ISLANDS[0].1);
    assert!(data == noise(ISLANDS[0].0, data.len()) && zeros.iter().all(|byte| *byte == 0));
    // Its output is closed by now, which ends it.
    let _ = dump.wait();
}
