//! What interferes with a backup at chosen moments, on real files and a real repository.

use super::*;
use crate::pipeline::Moment;
use crate::{ChangeDetection, Location, Password, RepositoryPath, Silent};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
    repository: Repository,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["storage", "volume", "volume/inner"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let location = Location::Local { root: folder.path().join("storage") };
        let path = RepositoryPath::parse("a/b").unwrap();
        let repository = Repository::open_or_init(&location, &path, &Password::new("secret").unwrap()).unwrap();
        Self { folder, repository }
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.volume().join(name), content).unwrap();
    }

    fn what(&self) -> BackUp {
        BackUp {
            root: self.volume(),
            as_path: SourcePath::new("/some/path").unwrap(),
            host: Host::new("host").unwrap(),
            key: Key::new("uid", 1).unwrap(),
            tags: Vec::new(),
            time: Timestamp::now(),
            change_detection: ChangeDetection::ChangeTime,
            on_read_error: OnReadError::Fail,
        }
    }

    /// Runs a backup that is interfered with once `name` is open, and answers with what was unreadable.
    fn unreadable_when(
        &self,
        name: &'static str,
        interfere: impl Fn(&Path) + Send + Sync + 'static,
    ) -> Vec<Unreadable> {
        self.unreadable_at(Moment::Opened, name, interfere)
    }

    /// The same, at any moment.
    fn unreadable_at(
        &self,
        moment: Moment,
        name: &'static str,
        interfere: impl Fn(&Path) + Send + Sync + 'static,
    ) -> Vec<Unreadable> {
        let volume = self.volume();
        let hook = move |now: Moment, path: &Path| {
            if (now, path) == (moment, Path::new(name)) {
                interfere(&volume);
            }
        };
        let result = self.repository.back_up_hooked(&self.what(), Arc::new(Silent), Some(Arc::new(hook)));
        assert_eq!(self.repository.snapshots().unwrap(), [], "a snapshot was committed");
        match result {
            Err(BackUpError::Unreadable { files, count }) => {
                assert_eq!(files.len() as u64, count);
                files
            }
            other => panic!("{other:?}"),
        }
    }
}

fn names(files: &[Unreadable]) -> Vec<&str> {
    files.iter().map(|it| it.path.to_str().unwrap()).collect()
}

#[test]
fn a_file_that_shrinks_while_it_is_read_commits_nothing() {
    let bench = Bench::new();
    bench.write("file", &"x".repeat(100_000));
    bench.write("inner/other", "fine");
    let files = bench.unreadable_when("file", |volume| {
        std::fs::File::options().write(true).open(volume.join("file")).unwrap().set_len(10).unwrap();
    });
    assert_eq!(names(&files), ["file"]);
    assert!(files[0].reason.contains("99990 bytes shorter"), "{files:?}");
    // Once the cause is gone, the same call works.
    let report = bench.repository.back_up(&bench.what(), Arc::new(Silent)).unwrap();
    assert_eq!((report.files, report.folders, report.total_bytes), (2, 2, 14));
}

#[test]
fn a_file_that_changes_while_it_is_read_commits_nothing() {
    let bench = Bench::new();
    bench.write("inner/file", "before");
    let files = bench.unreadable_when("inner/file", |volume| {
        std::fs::write(volume.join("inner/file"), "after!").unwrap();
    });
    assert_eq!(names(&files), ["inner/file"]);
    assert!(files[0].reason.contains("changed while it was read"), "{files:?}");
}

#[test]
fn a_file_that_grows_while_it_is_read_commits_nothing() {
    let bench = Bench::new();
    bench.write("file", "before");
    let files =
        bench.unreadable_when("file", |volume| std::fs::write(volume.join("file"), "before and after").unwrap());
    assert_eq!(names(&files), ["file"]);
}

#[test]
fn what_vanishes_after_it_was_seen_is_recorded() {
    let bench = Bench::new();
    bench.write("inner/a", "a");
    bench.write("inner/b", "b");
    let remove = |name: &'static str| move |volume: &Path| std::fs::remove_file(volume.join(name)).unwrap();
    assert_eq!(names(&bench.unreadable_at(Moment::Listed, "inner", remove("inner/b"))), ["inner/b"]);
    assert_eq!(names(&bench.unreadable_at(Moment::Seen, "inner/a", remove("inner/a"))), ["inner/a"]);
}

#[test]
fn what_is_replaced_after_it_was_seen_is_recorded() {
    let bench = Bench::new();
    bench.write("file", "one");
    bench.write("inner/other", "another");
    let files = bench.unreadable_at(Moment::Seen, "file", |volume| {
        std::fs::rename(volume.join("inner/other"), volume.join("file")).unwrap();
    });
    assert_eq!(names(&files), ["file"]);
    assert!(files[0].reason.contains("was replaced"), "{files:?}");
}

#[test]
fn an_entry_that_is_lost_on_the_way_commits_nothing() {
    let bench = Bench::new();
    let run = Run::new(
        &bench.repository,
        bench.repository.indexed().unwrap(),
        Trust { change_detection: ChangeDetection::default(), settled_before: None, takes_nodes: false },
        Arc::new(Silent),
        None,
    );
    let complete = |tree| bench.repository.complete(Ok(tree), &run, &bench.what());
    // The folder above the root's own, /some, stands in a tree; nothing was stored.
    assert!(matches!(complete(Some(Id::default())), Err(BackUpError::Lost { seen: 1, lost: 1, .. })));
    run.counts.entries.fetch_add(1, Ordering::Relaxed);
    complete(Some(Id::default())).unwrap();
    assert!(matches!(complete(None), Err(BackUpError::Lost { .. })));
}

/// Whatever fails to be written, nothing is committed.
#[test]
fn a_write_that_failed_is_the_end() {
    for broken in ["index", "data", "snapshots"] {
        let bench = Bench::new();
        bench.write("file", "content");
        let folder = bench.folder.path().join("storage/a/b").join(broken);
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::write(&folder, "no folder").unwrap();
        let result = bench.repository.back_up(&bench.what(), Arc::new(Silent));
        assert!(
            matches!(&result, Err(BackUpError::Repository { fault: Fault::Storage(_), .. })),
            "{broken}: {result:?}"
        );
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(bench.repository.snapshots().unwrap(), []);
        bench.repository.back_up(&bench.what(), Arc::new(Silent)).unwrap();
    }
}

#[test]
fn a_file_that_changes_can_be_skipped_and_is_named() {
    let bench = Bench::new();
    bench.write("file", "before");
    bench.write("inner/other", "fine");
    let volume = bench.volume();
    let hook = move |moment: Moment, path: &Path| {
        if (moment, path) == (Moment::Opened, Path::new("file")) {
            std::fs::write(volume.join("file"), "after!").unwrap();
        }
    };
    let mut what = bench.what();
    what.on_read_error = OnReadError::Skip;
    let report = bench.repository.back_up_hooked(&what, Arc::new(Silent), Some(Arc::new(hook))).unwrap();
    assert_eq!((names(&report.unreadable), report.unreadable_count), (vec!["file"], 1));
    assert_eq!((report.files, report.total_bytes), (1, 4));
    let found = bench.repository.snapshot(report.snapshot.as_str()).unwrap();
    assert_eq!(bench.repository.size_of(&found.id).unwrap().files, 1);
}

/// A defect of ours is an error, and leaves nobody waiting.
#[test]
fn a_panic_in_the_middle_is_an_error() {
    for moment in [Moment::Listed, Moment::Seen, Moment::Opened] {
        let bench = Bench::new();
        for number in 0..200 {
            bench.write(&format!("inner/{number}"), "content");
        }
        let hook = move |now: Moment, _: &Path| assert!(now != moment, "boom");
        let result = bench.repository.back_up_hooked(&bench.what(), Arc::new(Silent), Some(Arc::new(hook)));
        let Err(BackUpError::Repository { fault: Fault::Panicked { what }, .. }) = result else { panic!("{result:?}") };
        assert!(what.contains("boom"), "{what}");
        assert_eq!(bench.repository.snapshots().unwrap(), []);
    }
}

#[test]
fn a_snapshot_that_another_executor_commits_meanwhile_stays_the_only_one() {
    let bench = Bench::new();
    bench.write("file", "content");
    let (other, what) = (bench.repository.clone(), bench.what());
    let made = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&made);
    let hook = move |moment: Moment, _: &Path| {
        if moment == Moment::Opened {
            *seen.lock().unwrap() = Some(other.back_up(&what, Arc::new(Silent)).unwrap().snapshot);
        }
    };
    let result = bench.repository.back_up_hooked(&bench.what(), Arc::new(Silent), Some(Arc::new(hook)));
    let made = made.lock().unwrap().clone().unwrap();
    assert!(matches!(&result, Err(BackUpError::AlreadyCommitted { snapshot, .. }) if *snapshot == made), "{result:?}");
    let snapshots = bench.repository.snapshots().unwrap();
    assert_eq!(snapshots.iter().map(|it| &it.id).collect::<Vec<_>>(), [&made]);
}

#[test]
fn a_backup_whose_lock_was_removed_commits_nothing() {
    let bench = Bench::new();
    bench.write("file", "content");
    let repository = bench.repository.clone();
    let hook = move |moment: Moment, _: &Path| {
        if moment == Moment::Opened {
            assert_eq!(repository.unlock(crate::Unlock::Stale).unwrap(), []);
            assert_eq!(repository.unlock(crate::Unlock::All).unwrap().len(), 1);
        }
    };
    let result = bench.repository.back_up_hooked(&bench.what(), Arc::new(Silent), Some(Arc::new(hook)));
    let err = result.unwrap_err();
    assert!(matches!(&err, BackUpError::Repository { fault: Fault::Locked { is_stale: false, .. }, .. }), "{err}");
    assert_eq!(err.retry(), Retry::Later);
    assert_eq!(bench.repository.snapshots().unwrap(), []);
    assert_eq!(bench.repository.locks().unwrap(), []);
}

/// Asks to stop once some bytes are done.
#[derive(Default)]
struct Stopping(AtomicU64);

impl Progress for Stopping {
    fn bytes(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
    fn should_stop(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

#[test]
fn a_backup_that_is_asked_to_stop_commits_nothing() {
    let bench = Bench::new();
    for number in 0..50 {
        bench.write(&format!("inner/{number}"), &number.to_string().repeat(50_000));
    }
    let result = bench.repository.back_up(&bench.what(), Arc::new(Stopping::default()));
    assert_eq!(result.unwrap_err(), BackUpError::Stopped);
    assert_eq!(bench.repository.snapshots().unwrap(), []);
}

#[test]
fn an_attribute_that_the_format_cannot_hold_is_named() {
    let bench = Bench::new();
    bench.write("inner/odd", "content");
    let odd = bench.volume().join("inner/odd");
    let name: &[u8] = b"user.\xff";
    rustix::fs::lsetxattr(&odd, name, b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let files = bench.unreadable_when("", |_| {});
    assert_eq!(names(&files), ["inner/odd"]);
    assert!(files[0].reason.contains("extended attribute"), "{files:?}");
    rustix::fs::lremovexattr(&odd, name).unwrap();
    bench.repository.back_up(&bench.what(), Arc::new(Silent)).unwrap();
}

#[test]
fn a_root_that_is_no_folder_is_named() {
    let bench = Bench::new();
    bench.write("file", "");
    for root in ["file", "nowhere"] {
        let mut what = bench.what();
        what.root = bench.volume().join(root);
        let err = bench.repository.back_up(&what, Arc::new(Silent)).unwrap_err();
        assert!(matches!(&err, BackUpError::Root { root: shown, .. } if shown.ends_with(root)), "{err}");
    }
}
