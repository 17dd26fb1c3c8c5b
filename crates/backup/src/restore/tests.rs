//! What a restore must notice by itself: a target that does not keep what was written, and names that lead elsewhere.

use super::*;
use crate::{BackUp, ChangeDetection, Host, Key, Location, OnReadError, Password, RepositoryPath, Silent, SourcePath};
use rustic_core::repofile::NodeType;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

#[test]
fn names_lead_into_their_folder_or_are_refused() {
    for bad in ["", ".", "..", "a/b", "/etc", "../../up"] {
        let mut node = Node::new_node(OsStr::new("x"), NodeType::File, Default::default());
        node.name = bad.to_owned();
        assert!(safe_name(&node).is_err(), "{bad:?}");
    }
    let node = Node::new_node(OsStr::new("...\n"), NodeType::File, Default::default());
    assert_eq!(safe_name(&node).unwrap(), "...\n");
}

struct Bench {
    folder: TempDir,
    repository: Repository,
    snapshot: SnapshotId,
}

impl Bench {
    fn new() -> Self {
        Self::filled(|volume| {
            std::fs::create_dir(volume.join("inner")).unwrap();
            std::fs::write(volume.join("inner/file"), "content").unwrap();
            std::fs::write(volume.join("one"), "linked").unwrap();
            std::fs::hard_link(volume.join("one"), volume.join("two")).unwrap();
            std::fs::File::create(volume.join("hole")).unwrap().set_len(5 << 20).unwrap();
        })
    }

    fn filled(fill: fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["storage", "volume", "target"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        fill(&folder.path().join("volume"));
        let location = Location::Local { root: folder.path().join("storage") };
        let path = RepositoryPath::parse("r").unwrap();
        let repository = Repository::open_or_init(&location, &path, &Password::new("secret").unwrap()).unwrap();
        let what = BackUp {
            root: folder.path().join("volume"),
            as_path: SourcePath::new("/data").unwrap(),
            host: Host::new("host").unwrap(),
            key: Key::new("uid", 1).unwrap(),
            tags: Vec::new(),
            time: jiff::Timestamp::now(),
            change_detection: ChangeDetection::default(),
            on_read_error: OnReadError::Fail,
        };
        let snapshot = repository.back_up(&what, Arc::new(Silent)).unwrap().snapshot;
        Self { folder, repository, snapshot }
    }

    /// Restores, and changes the target between the writing and the reading back.
    fn restore_disturbed(&self, disturb: fn(&Path)) -> Result<RestoreReport, RestoreError> {
        self.restore_disturbed_at(Step::Verifying, 0, disturb).0
    }

    /// Restores, and changes the target when so many files of a step are done. Which step was the last comes with the result.
    fn restore_disturbed_at(
        &self,
        step: Step,
        files: u64,
        disturb: fn(&Path),
    ) -> (Result<RestoreReport, RestoreError>, Option<Step>) {
        let target = self.folder.path().join("target");
        std::fs::remove_dir_all(&target).unwrap();
        std::fs::create_dir(&target).unwrap();
        let at = (Some(step), files);
        let progress = Disturbing { target: target.clone(), at, disturb, now: Mutex::default() };
        let result = self.repository.restore(&self.snapshot, &target, &progress);
        let step = lock(&progress.now).0;
        (result, step)
    }
}

struct Disturbing {
    target: PathBuf,
    at: (Option<Step>, u64),
    disturb: fn(&Path),
    now: Mutex<(Option<Step>, u64)>,
}

impl Disturbing {
    fn is_at(&self, now: (Option<Step>, u64)) {
        if now == self.at {
            (self.disturb)(&self.target);
        }
    }
}

impl Progress for Disturbing {
    fn step(&self, step: Step) {
        *lock(&self.now) = (Some(step), 0);
        self.is_at((Some(step), 0));
    }

    fn file_done(&self) {
        let now = {
            let mut now = lock(&self.now);
            now.1 += 1;
            *now
        };
        self.is_at(now);
    }
}

fn put(path: &Path, offset: u64, content: &[u8]) {
    use std::os::unix::fs::FileExt;
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(content, offset).unwrap();
}

/// Puts a file's times back, so that only what else was changed differs.
fn keeping_times(path: &Path, change: impl FnOnce()) {
    let stat = std::fs::metadata(path).unwrap();
    change();
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(stat.modified().unwrap()).unwrap();
}

/// The path that is named, a word of the reason, and what is done to the target.
type Case = (&'static str, &'static str, fn(&Path));

#[test]
fn what_does_not_read_back_equal_is_named() {
    let bench = Bench::new();
    bench.restore_disturbed(|_| {}).unwrap();
    let cases: [Case; 8] = [
        ("hole", "content differs at offset 2097152", |target| {
            keeping_times(&target.join("hole"), || put(&target.join("hole"), 2_100_000, b"no zeros"));
        }),
        ("inner/file", "content differs", |target| {
            keeping_times(&target.join("inner/file"), || std::fs::write(target.join("inner/file"), "c0ntent").unwrap());
        }),
        ("inner/file", "size", |target| {
            keeping_times(&target.join("inner/file"), || {
                std::fs::write(target.join("inner/file"), "content and more").unwrap()
            });
        }),
        ("inner/file", "the mode", |target| {
            std::fs::set_permissions(target.join("inner/file"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        }),
        ("inner/file", "extended attributes", |target| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(target.join("inner/file"), "user.more", b"", flags).unwrap();
        }),
        ("inner/more", "not in the snapshot", |target| {
            keeping_times(&target.join("inner"), || std::fs::write(target.join("inner/more"), "").unwrap());
        }),
        ("inner/file", "modification time", |target| {
            let file = std::fs::File::open(target.join("inner/file")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
        ("two", "hard link", |target| {
            keeping_times(target, || {
                let (one, two) = (target.join("one"), target.join("two"));
                let stat = std::fs::metadata(&one).unwrap();
                std::fs::remove_file(&two).unwrap();
                std::fs::copy(&one, &two).unwrap();
                std::fs::File::open(two).unwrap().set_modified(stat.modified().unwrap()).unwrap();
            });
        }),
    ];
    for (path, reason, disturb) in cases {
        let err = bench.restore_disturbed(disturb).unwrap_err();
        let RestoreError::Incomplete { failures, count: 1, .. } = &err else { panic!("{reason}: {err:?}") };
        assert_eq!(failures[0].path, Path::new(path), "{failures:?}");
        assert!(failures[0].reason.contains(reason), "{failures:?}");
    }
}

#[test]
fn a_vanished_file_is_named() {
    let bench = Bench::new();
    let err = bench.restore_disturbed(|target| std::fs::remove_file(target.join("inner/file")).unwrap()).unwrap_err();
    let RestoreError::Incomplete { failures, .. } = &err else { panic!("{err:?}") };
    assert!(failures.iter().any(|it| it.path == Path::new("inner/file")), "{failures:?}");
}

/// Files that are large enough to be read back while others are written, and together fill a batch.
fn fill_a_batch(volume: &Path) {
    for (name, size) in [("first", 3 << 20), ("second", 80 << 20), ("third", 1 << 20)] {
        std::fs::write(volume.join(name), name.repeat(size / name.len())).unwrap();
    }
}

fn disturb_first(target: &Path) {
    keeping_times(&target.join("first"), || put(&target.join("first"), 12_345, b"other"));
}

#[test]
fn what_is_read_back_early_is_compared_then_and_again_when_it_changed() {
    let bench = Bench::filled(fill_a_batch);
    let (undisturbed, last) = bench.restore_disturbed_at(Step::Restoring, 100, |_| ());
    assert_eq!((undisturbed.unwrap().size.files, last), (3, Some(Step::Verifying)));
    for (step, files) in [(Step::Restoring, 1), (Step::Verifying, 0)] {
        let (result, last) = bench.restore_disturbed_at(step, files, disturb_first);
        let RestoreError::Incomplete { failures, count: 1, .. } = result.unwrap_err() else { panic!("{step:?}") };
        assert_eq!(failures[0].path, Path::new("first"));
        assert!(failures[0].reason.contains("content differs at offset 0"), "{failures:?}");
        assert_eq!(last, Some(step), "it was found too late");
    }
}
