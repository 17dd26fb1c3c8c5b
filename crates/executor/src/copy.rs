//! The work itself, on a thread that may block: into the repository, out of it, or removing what is in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use lvault_api::Progress as Written;
use lvault_api::task::{MountedFolder, Task, Work};
use lvault_api::{Incomplete, ReadBackPolicy};
use lvault_backup::{
    BackUp, BackUpError, BackUpReport, CauseKind, ChangeDetection, Host, Key, KeyCache, Location, OnReadError,
    OpenError, Password, Progress, Repository, RepositoryPath, RestoreError, Retry, Snapshot, SnapshotId, SourcePath,
    Step, Unreadable, VerifyDepth,
};
use lvault_core::Bytes;
use lvault_storages::Purpose;
use tokio::sync::{mpsc, oneshot};

use crate::meter::Meter;

/// What a finished piece of work says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Copied {
    /// The id of the repository's snapshot; empty after a removal.
    pub snapshot: String,
    /// For people.
    pub message: String,
    /// The final counts, where they are known better than by counting along.
    pub progress: Option<Written>,
    /// How many snapshots were removed.
    pub removed: usize,
    /// What could not be read and is missing.
    pub incomplete: Option<Incomplete>,
}

/// Why the work ended without a result, after everything that could help was tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CopyError {
    /// A stable word for `status.*.error.code`.
    pub code: &'static str,
    /// What was tried, what happened, and what to do next.
    pub message: String,
}

impl CopyError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        CopyError { code, message: message.into() }
    }

    pub(crate) fn ended() -> Self {
        CopyError::new("Unexpected", "the copying thread ended without a result; see the executor's log")
    }
}

/// Does the work of a task.
pub trait CopyWork: Send + Sync + 'static {
    /// Blocks until the work is done or cannot be done. `may_commit` is asked once before anything becomes visible.
    fn copy(&self, task: &Task, meter: &Arc<Meter>, may_commit: &MayCommit) -> Result<Copied, CopyError>;
}

/// Whether the claim still holds; asked directly before a commit.
pub type MayCommit = Arc<dyn Fn() -> bool + Send + Sync>;

/// Carries out the work of a task beside the event loop.
pub trait Worker: Send + Sync + 'static {
    /// Begins the work, and answers when it is done or cannot be done. Nobody waits any more when the answer's other end is
    /// dropped; the work then commits nothing.
    fn start(
        self: Arc<Self>,
        task: Task,
        meter: Arc<Meter>,
        gate: CommitGate,
    ) -> oneshot::Receiver<Result<Copied, CopyError>>;
}

/// Work that blocks runs on a thread of its own.
impl<W: CopyWork> Worker for W {
    fn start(
        self: Arc<Self>,
        task: Task,
        meter: Arc<Meter>,
        gate: CommitGate,
    ) -> oneshot::Receiver<Result<Copied, CopyError>> {
        let (tell, outcome) = oneshot::channel();
        std::thread::spawn(move || {
            let may_commit: MayCommit = Arc::new(move || gate.ask_blocking());
            // Where the loop has ended already, nobody wants to know.
            drop(tell.send(self.copy(&task, &meter, &may_commit)));
        });
        outcome
    }
}

/// The question that stands before every commit: does the claim still hold? The event loop answers it. Where that has
/// ended, the claim does not hold.
pub struct CommitGate {
    questions: Option<mpsc::Sender<Question>>,
}

/// Where the answer goes.
pub(crate) type Question = oneshot::Sender<bool>;

impl CommitGate {
    /// A gate whose questions go to an event loop.
    pub(crate) fn asking(questions: mpsc::Sender<Question>) -> Self {
        CommitGate { questions: Some(questions) }
    }

    /// A gate for work that holds no claim.
    pub(crate) fn open() -> Self {
        CommitGate { questions: None }
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self) -> bool {
        let Some(questions) = &self.questions else { return true };
        let (question, answer) = oneshot::channel();
        questions.send(question).await.is_ok() && answer.await.unwrap_or(false)
    }

    fn ask_blocking(&self) -> bool {
        let Some(questions) = &self.questions else { return true };
        let (question, answer) = oneshot::channel();
        questions.blocking_send(question).is_ok() && answer.blocking_recv().unwrap_or(false)
    }
}

/// The work on real repositories.
pub struct Repositories;

impl CopyWork for Repositories {
    fn copy(&self, task: &Task, meter: &Arc<Meter>, may_commit: &MayCommit) -> Result<Copied, CopyError> {
        copy_work(task, meter, may_commit)
    }
}

/// Does the work of a task on a real repository. Idempotent: a commit of the same attempt is found and adopted, a
/// half-filled volume is filled anew, what is removed already stays removed.
pub fn copy_work(task: &Task, meter: &Arc<Meter>, may_commit: &MayCommit) -> Result<Copied, CopyError> {
    let place = Place::of(task)?;
    match &task.work {
        Work::Backup { attempt, folder, host, as_path, copies, skip_unreadable, asked_at, .. } => {
            let back_up = BackUp {
                root: PathBuf::new(),
                as_path: SourcePath::new(as_path.as_str()).map_err(|e| invalid(&e))?,
                host: Host::new(host.as_str()).map_err(|e| invalid(&e))?,
                key: Key::new(task.uid.as_str(), *attempt).map_err(|e| invalid(&e))?,
                tags: Vec::new(),
                time: asked_at.unwrap_or_else(Timestamp::now),
                change_detection: match copies {
                    true => ChangeDetection::ModificationTime,
                    false => ChangeDetection::ChangeTime,
                },
                on_read_error: match skip_unreadable {
                    true => OnReadError::Skip,
                    false => OnReadError::Fail,
                },
            };
            let progress = Watched::new(meter, may_commit);
            retrying(meter, || place.back_up(&back_up, folder, &progress))
        }
        Work::Restore { folder, snapshot, size, attempt, .. } => {
            let key = Key::new(task.uid.as_str(), *attempt).map_err(|e| invalid(&e))?;
            let progress = Watched::new(meter, may_commit);
            retrying(meter, || place.restore(&key, snapshot, folder, Bytes(*size), &progress))
        }
        Work::Forget => retrying(meter, || place.forget(&task.uid)),
    }
}

/// An error, and whether the same work may succeed later without anybody acting.
struct Failed {
    error: CopyError,
    later: bool,
}

impl Failed {
    fn new(code: &'static str, error: &dyn std::error::Error, retry: Retry) -> Self {
        Failed { error: CopyError::new(code, error.to_string()), later: retry == Retry::Later }
    }
}

/// How often work whose cause of failure may pass is tried.
const TRIES: u32 = 5;

fn retrying(meter: &Meter, work: impl Fn() -> Result<Copied, Failed>) -> Result<Copied, CopyError> {
    let mut pause = Duration::from_secs(1);
    for _ in 1..TRIES {
        match work() {
            Ok(copied) => return Ok(copied),
            Err(failed) if !failed.later || meter.should_stop() => return Err(failed.error),
            Err(failed) => tracing::warn!("{}; trying again in {} s", failed.error, pause.as_secs()),
        }
        meter.restart();
        std::thread::sleep(pause);
        pause *= 2;
    }
    work().map_err(|failed| failed.error)
}

/// The repository of a task.
struct Place {
    location: Location,
    path: RepositoryPath,
    password: Password,
    cache: Option<KeyCache>,
    read_back: VerifyDepth,
}

impl Place {
    fn of(task: &Task) -> Result<Self, CopyError> {
        let location = location(task)?;
        let path = RepositoryPath::parse(task.path.as_str()).map_err(|e| invalid(&e))?;
        let password = Password::new(task.password.0.as_str())
            .map_err(|e| CopyError::new("InvalidPassword", format!("the storage {}: {e}", task.storage)))?;
        let percent = task.storage_spec.read_back.as_ref().map_or(0, ReadBackPolicy::data);
        let (cache, read_back) = (task.key_cache.clone().map(KeyCache::new), VerifyDepth::of_percent(percent));
        Ok(Place { location, path, password, cache, read_back })
    }

    fn back_up(&self, what: &BackUp, folder: &MountedFolder, progress: &Arc<Watched>) -> Result<Copied, Failed> {
        let open = Repository::open_or_init_cached(&self.location, &self.path, &self.password, self.cache.as_ref());
        let repository = open.map_err(|e| open_failed(&e))?.acting_for(&what.key);
        let found = repository.find(&what.key).map_err(|e| Failed::new("RepositoryError", &e, e.retry()))?;
        if let Some(snapshot) = found {
            return self.adopt(&repository, &snapshot, progress);
        }
        let root = checked(folder)?;
        let what = BackUp { root, ..what.clone() };
        let watched: Arc<dyn Progress> = Arc::clone(progress) as Arc<dyn Progress>;
        let report = match repository.back_up(&what, watched) {
            Ok(report) => report,
            Err(BackUpError::AlreadyCommitted { .. }) => {
                let found = repository.find(&what.key).map_err(|e| Failed::new("RepositoryError", &e, e.retry()))?;
                let vanished = || CopyError::new("RepositoryError", "a commit was there and is gone again");
                return self.adopt(
                    &repository,
                    &found.ok_or_else(|| Failed { error: vanished(), later: true })?,
                    progress,
                );
            }
            Err(error) => return Err(back_up_failed(&error)),
        };
        self.verify(&repository, &report.snapshot, progress)?;
        let parent = match &report.parent {
            Some(parent) => format!("compared with {}", short(parent.as_str())),
            None => "the first of its volume".to_owned(),
        };
        let message = format!(
            "snapshot {} holds {} in {} files ({parent}); {} were read, {} stored",
            short(report.snapshot.as_str()),
            Bytes(report.total_bytes),
            report.files,
            Bytes(report.read_bytes),
            Bytes(report.added_bytes),
        );
        let progress = Some(whole(report.total_bytes, report.files, progress));
        let incomplete = incomplete(&report);
        Ok(Copied { snapshot: report.snapshot.as_str().to_owned(), message, progress, removed: 0, incomplete })
    }

    fn restore(
        &self,
        key: &Key,
        snapshot: &str,
        folder: &MountedFolder,
        size: Bytes,
        progress: &Arc<Watched>,
    ) -> Result<Copied, Failed> {
        let open = Repository::open_cached(&self.location, &self.path, &self.password, self.cache.as_ref());
        let repository = open.map_err(|e| open_failed(&e))?.acting_for(key);
        let found = repository.snapshot(snapshot).map_err(|e| Failed::new("SnapshotNotFound", &e, e.retry()))?;
        let target = checked(folder)?;
        let holds = repository.size_of(&found.id).map_err(|e| Failed::new("RepositoryError", &e, e.retry()))?;
        progress.meter.total(holds.bytes, holds.files);
        let report = repository
            .restore(&found.id, &target, progress.as_ref())
            .map_err(|e| restore_failed(&e, Bytes(holds.bytes), size))?;
        let message = format!(
            "{} in {} files were restored from snapshot {} and read back",
            Bytes(report.size.bytes),
            report.size.files,
            short(found.id.as_str()),
        );
        let progress = Some(whole(report.size.bytes, report.size.files, progress));
        Ok(Copied { snapshot: found.id.as_str().to_owned(), message, progress, ..Copied::default() })
    }

    fn forget(&self, uid: &str) -> Result<Copied, Failed> {
        let open = Repository::open_to_change(&self.location, &self.path, &self.password, self.cache.as_ref());
        let repository = match open {
            Ok(repository) => repository,
            Err(OpenError::NotFound { .. }) => return Ok(Copied::default()),
            Err(error) => return Err(open_failed(&error)),
        };
        let removed = repository.forget(uid).map_err(|e| Failed::new("RepositoryError", &e, e.retry()))?;
        Ok(Copied { removed: removed.len(), ..Copied::default() })
    }

    /// An earlier executor of the same attempt committed and could not say so. What it committed is read back as our own.
    fn adopt(&self, repository: &Repository, snapshot: &Snapshot, progress: &Arc<Watched>) -> Result<Copied, Failed> {
        self.verify(repository, &snapshot.id, progress)?;
        let size = repository.size_of(&snapshot.id).map_err(|e| Failed::new("RepositoryError", &e, e.retry()))?;
        let message = format!(
            "snapshot {} holds {} in {} files; an earlier executor of this attempt had committed it",
            short(snapshot.id.as_str()),
            Bytes(size.bytes),
            size.files,
        );
        let progress = Some(whole(size.bytes, size.files, progress));
        Ok(Copied { snapshot: snapshot.id.as_str().to_owned(), message, progress, ..Copied::default() })
    }

    /// A commit counts when all of its structure was read back, all of its data was found where the index says, and as much
    /// of it as the storage wants was read and compared with its hash.
    fn verify(&self, repository: &Repository, id: &SnapshotId, progress: &Arc<Watched>) -> Result<(), Failed> {
        repository
            .verify(id, self.read_back, progress.as_ref())
            .map(drop)
            .map_err(|e| Failed::new("VerificationFailed", &e, e.retry()))
    }
}

/// So many missing files are named in a status.
const NAMED: usize = 10;
/// As long as the naming of one may be.
const LONGEST: usize = 300;

fn incomplete(report: &BackUpReport) -> Option<Incomplete> {
    let named = |it: &Unreadable| format!("{:?} ({})", it.path, it.reason).chars().take(LONGEST).collect();
    let first = report.unreadable.iter().take(NAMED).map(named).collect();
    let count = i64::try_from(report.unreadable_count).unwrap_or(i64::MAX);
    (count > 0).then_some(Incomplete { count, first })
}

/// The folder, if what is mounted there is what the agent mounted there.
fn checked(folder: &MountedFolder) -> Result<PathBuf, Failed> {
    let not_mounted = |message: String| Failed { error: CopyError::new("NotMounted", message), later: false };
    let Some(path) = &folder.path else {
        return Err(not_mounted(
            "the volume is not mounted on its node; `lvault why` says what stands in the way".into(),
        ));
    };
    let device = std::fs::metadata(path)
        .map(|metadata| std::os::unix::fs::MetadataExt::dev(&metadata))
        .map_err(|e| not_mounted(format!("cannot look at the mounted volume at {}: {e}", path.display())))?;
    match folder.device {
        Some(expected) if expected != device => Err(not_mounted(format!(
            "what is mounted at {} is not the volume (device {device}, expected {expected}); nothing was copied",
            path.display()
        ))),
        Some(_) | None => Ok(path.clone()),
    }
}

fn location(task: &Task) -> Result<Location, CopyError> {
    let key = |key: &str| task.credentials.get(key).map(|secret| secret.0.as_str());
    lvault_storages::location(&task.storage_spec, Purpose::of(&task.work), key)
        .map_err(|e| CopyError::new("InvalidStorage", format!("the storage {}: {e}", task.storage)))
}

fn invalid(error: &dyn std::error::Error) -> CopyError {
    CopyError::new("InvalidTask", error.to_string())
}

fn open_failed(error: &OpenError) -> Failed {
    let code = match error {
        OpenError::WrongPassword { .. } => "WrongPassword",
        OpenError::NotFound { .. } => "RepositoryNotFound",
        OpenError::Newer { .. } => "RepositoryTooNew",
        OpenError::ConfigDamaged { .. } | OpenError::ConfigLost { .. } | OpenError::KeysDamaged { .. } => {
            "RepositoryDamaged"
        }
        OpenError::Foreign { .. } | OpenError::Nested { .. } => "NotARepository",
        OpenError::Storage { .. } => "StorageFailed",
        OpenError::Library { .. } => "RepositoryError",
    };
    Failed::new(code, error, error.retry())
}

fn back_up_failed(error: &BackUpError) -> Failed {
    let code = match error {
        BackUpError::Root { .. } => "NotMounted",
        BackUpError::Unreadable { .. } => "UnreadableFiles",
        BackUpError::Repository { .. } => "StorageFailed",
        BackUpError::Lost { .. } => "IncompleteBackup",
        BackUpError::AlreadyCommitted { .. } => "AlreadyCommitted",
        BackUpError::Stopped => "Stopped",
    };
    // A snapshot is read-only: a file that cannot be read now cannot be read in a minute either.
    let retry = if matches!(error, BackUpError::Unreadable { .. }) { Retry::AfterRemedy } else { error.retry() };
    Failed::new(code, error, retry)
}

fn restore_failed(error: &RestoreError, holds: Bytes, size: Bytes) -> Failed {
    let full = matches!(error, RestoreError::Target { cause, .. } if cause.kind == CauseKind::Full);
    if full {
        let message = format!(
            "spec.size: the volume of {size} is too small for the snapshot, which holds up to {holds}; restore into a larger volume"
        );
        return Failed { error: CopyError::new("VolumeTooSmall", message), later: false };
    }
    Failed::new("RestoreFailed", error, error.retry())
}

fn whole(bytes: u64, files: u64, progress: &Watched) -> Written {
    let wire = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let rate = progress.meter.written(progress.meter.seconds()).bytes_per_second;
    Written {
        total_bytes: wire(bytes),
        bytes_done: wire(bytes),
        total_files: wire(files),
        files_done: wire(files),
        percentage: "100%".to_owned(),
        bytes_per_second: rate,
    }
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// The meter, with the question that stands before a commit.
struct Watched {
    meter: Arc<Meter>,
    may_commit: MayCommit,
    unreadable: AtomicU64,
}

/// So many unreadable files are named in the log.
const LOGGED: u64 = 100_000;

impl Watched {
    fn new(meter: &Arc<Meter>, may_commit: &MayCommit) -> Arc<Self> {
        let (meter, may_commit) = (Arc::clone(meter), Arc::clone(may_commit));
        Arc::new(Watched { meter, may_commit, unreadable: AtomicU64::new(0) })
    }
}

impl Progress for Watched {
    fn step(&self, step: Step) {
        self.meter.step(step);
    }
    fn total(&self, bytes: u64, files: u64) {
        self.meter.total(bytes, files);
    }
    fn bytes(&self, bytes: u64) {
        self.meter.bytes(bytes);
    }
    fn file_done(&self) {
        self.meter.file_done();
    }
    fn unreadable(&self, path: &Path, reason: &str) {
        // The whole list stands in the executor's log; a volume of which nothing can be read does not fill the disk with it.
        let number = self.unreadable.fetch_add(1, Ordering::Relaxed);
        if number < LOGGED {
            tracing::warn!("cannot read {path:?}: {reason}");
        } else if number == LOGGED {
            tracing::warn!("more cannot be read, and is counted only");
        }
    }
    fn waiting(&self, for_lock: &str) {
        self.meter.waiting(Some(for_lock.to_string()));
    }
    fn should_stop(&self) -> bool {
        self.meter.should_stop()
    }
    fn may_commit(&self) -> bool {
        (self.may_commit)()
    }
}
