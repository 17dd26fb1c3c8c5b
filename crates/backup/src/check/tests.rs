//! Damage at any place of any file is found, and named with what it concerns.

use super::*;
use crate::{BackUp, ChangeDetection, Host, Key, Location, OnReadError, Password, RepositoryPath, Silent, SourcePath};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
    repository: Repository,
}

impl Bench {
    fn new() -> Self {
        // A disk that syncs would take most of the time.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        for name in ["storage", "volume", "volume/inner"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let location = Location::Local { root: folder.path().join("storage") };
        let path = RepositoryPath::parse("r").unwrap();
        let repository = Repository::open_or_init(&location, &path, &Password::new("secret").unwrap()).unwrap();
        Self { folder, repository }
    }

    fn write(&self, name: &str, seed: u32, length: u32) {
        let content: Vec<u8> = (0..length).map(|at| hash(&(seed + at / 32).to_be_bytes())[at as usize % 32]).collect();
        std::fs::write(self.folder.path().join("volume").join(name), content).unwrap();
    }

    fn back_up(&self, uid: &str) -> SnapshotId {
        let what = BackUp {
            root: self.folder.path().join("volume"),
            as_path: SourcePath::new("/data").unwrap(),
            host: Host::new("host").unwrap(),
            key: Key::new(uid, 1).unwrap(),
            tags: Vec::new(),
            time: jiff::Timestamp::now(),
            change_detection: ChangeDetection::default(),
            on_read_error: OnReadError::Fail,
        };
        self.repository.back_up(&what, Arc::new(Silent)).unwrap().snapshot
    }

    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.folder.path().join("storage/r")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    fn check(&self, read_data: ReadData) -> CheckReport {
        self.repository.check(read_data, &Silent).unwrap()
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let bench = Bench::new();
    bench.write("one", 1, 9000);
    bench.write("inner/two", 5000, 3000);
    bench.back_up("a");
    assert_eq!(bench.check(ReadData::Everything), CheckReport { packs_read: 2, ..CheckReport::default() });
    let files: Vec<_> = bench.files().into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    let total: usize = files.iter().map(|(content, _)| content.len()).sum();
    assert_eq!(files.len(), 6, "config, key, snapshot, index, a pack of data and one of trees");
    let mut tried = 0;
    for (content, path) in &files {
        // Every place of the small files, and of the large ones as many as make ten thousand in all.
        let step = (total / 10_000).max(1);
        for at in (0..content.len()).step_by(step) {
            let mut flipped = content.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(path, flipped).unwrap();
            let report = bench.repository.examine(ReadData::Everything, &Silent).unwrap();
            assert!(!report.is_clean(), "{path:?} at {at} of {}", content.len());
            tried += 1;
        }
        std::fs::write(path, content).unwrap();
    }
    assert!(tried >= 10_000, "{tried} places of {total}");
    assert!(bench.check(ReadData::Everything).is_clean());
}

#[test]
fn damage_is_named_with_the_snapshots_and_files_it_concerns() {
    let bench = Bench::new();
    bench.write("old", 1, 50_000);
    let first = bench.back_up("a");
    let before = bench.files();
    bench.write("inner/new", 90_000, 70_000);
    let second = bench.back_up("b");
    let pack = |files: Vec<PathBuf>| {
        let packs = files.into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "data"));
        packs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
    };
    let old_pack = pack(before.clone());
    let new_pack = pack(bench.files().into_iter().filter(|path| !before.contains(path)).collect());
    for (path, snapshots, file) in [
        (old_pack, vec![first.clone(), second.clone()], "/data/old"),
        (new_pack, vec![second.clone()], "/data/inner/new"),
    ] {
        let content = std::fs::read(&path).unwrap();
        let mut flipped = content.clone();
        flipped[1000] ^= 1;
        for (damaged, read_data) in [(Some(flipped), ReadData::Everything), (None, ReadData::Nothing)] {
            match damaged {
                Some(damaged) => std::fs::write(&path, damaged).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let report = bench.check(read_data);
            let [damage] = report.damages.as_slice() else { panic!("{report:?}") };
            assert!(damage.what.contains(path.file_name().unwrap().to_str().unwrap()), "{damage:?}");
            let mut concerned = damage.snapshots.clone();
            concerned.sort();
            let mut expected = snapshots.clone();
            expected.sort();
            assert_eq!(concerned, expected);
            assert!(damage.files.iter().all(|it| it == Path::new(file)), "{damage:?}");
            assert_eq!(damage.files_count, snapshots.len() as u64);
            std::fs::write(&path, &content).unwrap();
        }
    }
    assert!(bench.check(ReadData::Everything).is_clean());
}

#[test]
fn a_part_of_the_data_is_read_on_demand() {
    let bench = Bench::new();
    for number in 0..5 {
        bench.write("file", number * 100_000, 1000);
        bench.back_up(&number.to_string());
    }
    let read = |read_data| bench.check(read_data).packs_read;
    let all = read(ReadData::Everything);
    assert_eq!(all, 10, "a pack of data and one of trees for each backup");
    assert_eq!([read(ReadData::Nothing), read(ReadData::of_percent(25)), read(ReadData::of_percent(100))], [0, 3, 10]);
}
