//! What interferes with a backup at chosen moments, on real files and a real repository.

use super::*;
use crate::{ChangeDetection, Location, Password, RepositoryPath, Silent};
use rustic_core::ReadSource;
use rustic_core::{ReadSourceEntry, ReadSourceOpen};
use std::io::Read;
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
        }
    }

    /// Runs a backup that is interfered with once `name` is open, and answers with what was unreadable.
    fn unreadable_when(
        &self,
        name: &'static str,
        interfere: impl Fn(&Path) + Send + Sync + 'static,
    ) -> Vec<Unreadable> {
        let volume = self.volume();
        let hook = move |path: &Path| {
            if path == Path::new(name) {
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

    fn source(&self) -> (Source, Arc<Shared>) {
        let shared = Shared::new(Gate::new(Snapshots::Hold), Arc::new(Silent), None);
        (Source::open(&self.volume(), &self.what().as_path, Arc::clone(&shared)).unwrap(), shared)
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
    let (source, shared) = bench.source();
    let mut entries = source.entries().map(Result::unwrap);
    let seen: Vec<ReadSourceEntry<_>> = entries.by_ref().take(3).collect();
    assert_eq!(seen[2].path, Path::new("/some/path/inner/a"));
    std::fs::remove_file(bench.volume().join("inner/a")).unwrap();
    std::fs::remove_file(bench.volume().join("inner/b")).unwrap();
    assert_eq!(entries.count(), 0);
    let opened = seen.into_iter().nth(2).unwrap().open.unwrap().open();
    assert!(opened.is_err());
    let (files, count) = shared.ledger.unreadable();
    assert_eq!((names(&files), count), (vec!["inner/b", "inner/a"], 2));
}

#[test]
fn what_is_replaced_after_it_was_seen_is_recorded() {
    let bench = Bench::new();
    bench.write("file", "one");
    bench.write("zz", "another");
    let (source, shared) = bench.source();
    let seen: Vec<_> = source.entries().map(Result::unwrap).filter_map(|entry| entry.open).collect();
    std::fs::rename(bench.volume().join("zz"), bench.volume().join("file")).unwrap();
    let opened: Vec<_> = seen.into_iter().map(ReadSourceOpen::open).map(|opened| opened.is_ok()).collect();
    assert_eq!(opened, [false, false]);
    assert_eq!(shared.ledger.unreadable().1, 2);
}

#[test]
fn a_file_that_is_not_read_to_its_end_is_recorded() {
    let bench = Bench::new();
    bench.write("file", "not all of this is read");
    let (source, shared) = bench.source();
    let open = source.entries().find_map(|entry| entry.unwrap().open).unwrap();
    let mut reader = open.open().unwrap();
    reader.read_exact(&mut [0; 5]).unwrap();
    drop(reader);
    let (files, _) = shared.ledger.unreadable();
    assert!(files[0].reason.contains("not read to its end"), "{files:?}");
}

#[test]
fn an_entry_that_is_lost_on_the_way_commits_nothing() {
    let bench = Bench::new();
    bench.write("file", "content");
    let (source, shared) = bench.source();
    source.entries().map(Result::unwrap).filter_map(|entry| entry.open).for_each(|open| {
        io::copy(&mut open.open().unwrap(), &mut io::sink()).unwrap();
    });
    let mut file = SnapshotFile::default();
    let mut summary = rustic_core::repofile::SnapshotSummary::default();
    // Two folders above the root's own and the outermost tree besides: /, /some, /some/path and its inner one.
    summary.total_dirs_processed = 4;
    summary.total_files_processed = 1;
    file.summary = Some(summary);
    let gate = Gate::new(Snapshots::Hold);
    let complete =
        |file: &SnapshotFile| bench.repository.complete(Ok(file.clone()), &shared, &gate, &bench.what()).map(|_| ());
    complete(&file).unwrap();
    file.summary.as_mut().unwrap().total_files_processed = 0;
    assert!(matches!(complete(&file), Err(BackUpError::Lost { seen: 5, lost: 1, .. })));
}

/// Whatever rustic makes of a write that failed, nothing is written after it and nothing is committed.
#[test]
fn a_write_that_failed_is_the_end() {
    use crate::backend::Backend;
    use rustic_core::{BytesList, Id, WriteBackend};
    let bench = Bench::new();
    let (_, shared) = bench.source();
    let gate = Gate::new(Snapshots::Hold);
    let backend = Backend::new(bench.repository.storage().clone(), Arc::clone(&gate));
    let write = |tpe| backend.write_bytes(tpe, &Id::random(), false, BytesList::from(vec![1, 2, 3]));
    let folder = bench.folder.path().join("storage/a/b");
    write(FileType::Pack).unwrap();
    std::fs::remove_dir_all(folder.join("index")).unwrap();
    std::fs::write(folder.join("index"), "no folder").unwrap();
    assert!(write(FileType::Index).is_err());
    assert!(write(FileType::Pack).is_err());
    assert!(write(FileType::Snapshot).is_err());
    assert!(gate.take_held().is_none());
    let completed = bench.repository.complete(Ok(SnapshotFile::default()), &shared, &gate, &bench.what());
    assert!(matches!(&completed, Err(BackUpError::Repository { fault: Fault::Storage(_), .. })), "{completed:?}");
}

#[test]
fn a_snapshot_that_another_executor_commits_meanwhile_stays_the_only_one() {
    let bench = Bench::new();
    bench.write("file", "content");
    let (other, what) = (bench.repository.clone(), bench.what());
    let made = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&made);
    let hook = move |_: &Path| {
        *seen.lock().unwrap() = Some(other.back_up(&what, Arc::new(Silent)).unwrap().snapshot);
    };
    let result = bench.repository.back_up_hooked(&bench.what(), Arc::new(Silent), Some(Arc::new(hook)));
    let made = made.lock().unwrap().clone().unwrap();
    assert!(matches!(&result, Err(BackUpError::AlreadyCommitted { snapshot, .. }) if *snapshot == made), "{result:?}");
    let snapshots = bench.repository.snapshots().unwrap();
    assert_eq!(snapshots.iter().map(|it| &it.id).collect::<Vec<_>>(), [&made]);
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
