//! A repository's files in an object store, read and written from ordinary threads.
//!
//! The object store is asynchronous and everything above is not: calls are spawned onto a runtime of this crate's own
//! and awaited over a channel, so that they also work on a thread that happens to belong to another runtime. A write has
//! reached the disk when it returns.

use crate::location::{Location, RepositoryPath};
use crate::retry::Retry;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, SystemTime};
use tokio::runtime::{Builder, Runtime};

/// What a storage answered, in words of its own and as a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which kind of answer it is.
    pub kind: CauseKind,
    /// The storage's own words.
    pub text: String,
}

/// The answers of a storage that call for different remedies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CauseKind {
    /// No space, or no quota, is left.
    Full,
    /// Access is denied.
    Denied,
    /// The file system is read-only.
    ReadOnly,
    /// There is no such file.
    Missing,
    /// There is such a file already.
    Exists,
    /// Anything else.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.kind {
            CauseKind::Full => "make room on the storage (forget and prune snapshots, or enlarge it), then try again",
            CauseKind::Denied => "give this process read and write access to the storage, then try again",
            CauseKind::ReadOnly => "make the storage writable, then try again",
            CauseKind::Missing => "check that the storage is mounted and complete",
            CauseKind::Exists => "another process wrote it first; try again",
            CauseKind::Other => "check the storage, then try again",
        };
        write!(f, "{} ({remedy})", self.text)
    }
}

/// What was attempted on a storage when it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The storage's folder is given as a relative path.
    #[error("the storage {path} is not an absolute path; give the whole path of the folder")]
    NotAbsolute {
        /// What was given.
        path: String,
    },
    /// The storage's folder is not there or is no folder.
    #[error("cannot use the storage {path}: {cause}; create the folder, or mount the storage")]
    Connect {
        /// The storage.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Reading a file.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Writing a file.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Listing files.
    #[error("cannot list {path}: {cause}")]
    List {
        /// The folder.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Deleting a file.
    #[error("cannot delete {path}: {cause}")]
    Delete {
        /// The file.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Starting the threads that talk to storages.
    #[error("cannot start the threads that talk to the storage: {what}; the machine is out of threads or memory")]
    Start {
        /// What happened.
        what: String,
    },
}

impl StorageError {
    pub(crate) fn not_absolute(path: &Path) -> Self {
        Self::NotAbsolute { path: path.display().to_string() }
    }

    pub(crate) fn connect(path: &Path, err: &io::Error) -> Self {
        Self::Connect { path: path.display().to_string(), cause: Cause::of(err) }
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotAbsolute { .. } => Retry::Never,
            Self::Connect { .. } => Retry::AfterRemedy,
            Self::Start { .. } => Retry::Later,
            Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::List { cause, .. }
            | Self::Delete { cause, .. } => match cause.kind {
                CauseKind::Full | CauseKind::Denied | CauseKind::ReadOnly | CauseKind::Missing => Retry::AfterRemedy,
                CauseKind::Exists | CauseKind::Other => Retry::Later,
            },
        }
    }

    pub(crate) fn kind(&self) -> CauseKind {
        match self {
            Self::NotAbsolute { .. } | Self::Start { .. } => CauseKind::Other,
            Self::Connect { cause, .. }
            | Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::List { cause, .. }
            | Self::Delete { cause, .. } => cause.kind,
        }
    }
}

impl Cause {
    /// Finds the operating system's own error in a chain, or else takes the chain's last word.
    pub(crate) fn of(err: &(dyn std::error::Error + 'static)) -> Self {
        let mut kind = CauseKind::Other;
        let mut text = err.to_string();
        let mut next = Some(err);
        while let Some(err) = next {
            if let Some(found) = err.downcast_ref::<object_store::Error>().and_then(object_kind) {
                kind = found;
            }
            if let Some(found) = err.downcast_ref::<io::Error>() {
                kind = io_kind(found.kind()).unwrap_or(kind);
            }
            text = err.to_string();
            next = err.source();
        }
        Self { kind, text }
    }
}

/// Only what an object store says itself; everything it passes on is found as an `io::Error` further down.
fn object_kind(err: &object_store::Error) -> Option<CauseKind> {
    if matches!(err, object_store::Error::NotFound { .. }) {
        Some(CauseKind::Missing)
    } else if matches!(err, object_store::Error::AlreadyExists { .. }) {
        Some(CauseKind::Exists)
    } else if matches!(err, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. })
    {
        Some(CauseKind::Denied)
    } else {
        None
    }
}

fn io_kind(kind: io::ErrorKind) -> Option<CauseKind> {
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        Some(CauseKind::Full)
    } else if kind == io::ErrorKind::PermissionDenied {
        Some(CauseKind::Denied)
    } else if kind == io::ErrorKind::ReadOnlyFilesystem {
        Some(CauseKind::ReadOnly)
    } else if kind == io::ErrorKind::NotFound {
        Some(CauseKind::Missing)
    } else if kind == io::ErrorKind::AlreadyExists {
        Some(CauseKind::Exists)
    } else {
        None
    }
}

/// How a file is put where another one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// Names are hashes of contents: writing again writes the same.
    Overwrite,
    /// The first writer wins; every other one gets [`CauseKind::Exists`].
    Create,
}

/// The files of one repository (or, with an empty base, of a whole storage).
#[derive(Clone)]
pub(crate) struct Storage {
    objects: Arc<dyn ObjectStore>,
    base: String,
    shown: String,
    folder: Option<PathBuf>,
}

impl Storage {
    /// The files below `path`.
    pub(crate) fn of_repository(location: &Location, path: &RepositoryPath) -> Result<Self, StorageError> {
        Ok(Self {
            objects: location.connect()?,
            base: path.as_str().to_owned(),
            shown: format!("{location}/{path}"),
            folder: location.folder(path),
        })
    }

    /// All files of the storage.
    pub(crate) fn of_location(location: &Location) -> Result<Self, StorageError> {
        Ok(Self {
            objects: location.connect()?,
            base: String::new(),
            shown: location.to_string(),
            folder: location.root().map(Path::to_owned),
        })
    }

    /// Where this is, for people.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The folder on this machine, where there is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn object(&self, name: &str) -> ObjectPath {
        ObjectPath::from_iter(self.base.split('/').chain(name.split('/')).filter(|part| !part.is_empty()))
    }

    fn path(&self, name: &str) -> String {
        if name.is_empty() { self.shown.clone() } else { format!("{}/{name}", self.shown) }
    }

    /// Reads a whole file.
    pub(crate) fn read(&self, name: &str) -> Result<Bytes, StorageError> {
        let (objects, object) = (self.objects.clone(), self.object(name));
        wait(async move { objects.get(&object).await?.bytes().await })?
            .map_err(|err| StorageError::Read { path: self.path(name), cause: Cause::of(&err) })
    }

    /// Reads exactly `length` bytes from `offset`. From a folder of this machine they are read at once, since going through
    /// the object store costs more than reading a small blob.
    pub(crate) fn read_part(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, StorageError> {
        let failed = |cause| StorageError::Read { path: self.path(name), cause };
        if let Some(folder) = &self.folder {
            return read_part_of(&folder.join(name), offset, length).map_err(|err| failed(Cause::of(&err)));
        }
        let (objects, object) = (self.objects.clone(), self.object(name));
        let bytes = wait(async move { objects.get_range(&object, offset..offset + length).await })?
            .map_err(|err| failed(Cause::of(&err)))?;
        if bytes.len() as u64 == length {
            Ok(bytes.into())
        } else {
            Err(failed(Cause::of(&cut_off(bytes.len() as u64, offset, length))))
        }
    }

    /// Writes a file, durably: it is on disk, whole and under its name, when this returns; never in part.
    pub(crate) fn write(&self, name: &str, parts: Vec<Bytes>, put: Put) -> Result<(), StorageError> {
        let (objects, object) = (self.objects.clone(), self.object(name));
        let mode = match put {
            Put::Overwrite => PutMode::Overwrite,
            Put::Create => PutMode::Create,
        };
        let payload = PutPayload::from_iter(parts);
        wait(async move { objects.put_opts(&object, payload, PutOptions::from(mode)).await })?
            .map_err(|err| StorageError::Write { path: self.path(name), cause: Cause::of(&err) })?;
        Ok(())
    }

    /// Deletes a file, durably. A file that is not there is deleted.
    pub(crate) fn delete(&self, name: &str) -> Result<(), StorageError> {
        let (objects, object) = (self.objects.clone(), self.object(name));
        match wait(async move { objects.delete(&object).await })? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(err) => return Err(StorageError::Delete { path: self.path(name), cause: Cause::of(&err) }),
        }
        self.sync_folder_of(name).map_err(|err| StorageError::Delete { path: self.path(name), cause: Cause::of(&err) })
    }

    /// `LocalFileSystem` never syncs a deletion, so this does.
    fn sync_folder_of(&self, name: &str) -> io::Result<()> {
        let Some(parent) = self.folder.as_ref().and_then(|folder| folder.join(name).parent().map(Path::to_owned))
        else {
            return Ok(());
        };
        match std::fs::File::open(parent) {
            Ok(folder) => folder.sync_all(),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// The size of a file in bytes, or `None` where there is none.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        let (objects, object) = (self.objects.clone(), self.object(name));
        match wait(async move { objects.head(&object).await })? {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(err) => Err(StorageError::Read { path: self.path(name), cause: Cause::of(&err) }),
        }
    }

    /// All files below `folder`, at any depth: their own names (without folders) and sizes.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StorageError> {
        let (objects, object) = (self.objects.clone(), self.object(folder));
        wait(async move {
            objects
                .list(Some(&object))
                .try_filter_map(
                    |meta| async move { Ok(meta.location.filename().map(|name| (name.to_owned(), meta.size))) },
                )
                .try_collect()
                .await
        })?
        .map_err(|err| StorageError::List { path: self.path(folder), cause: Cause::of(&err) })
    }

    /// The names of the files and of the folders directly in `folder`.
    pub(crate) fn children(&self, folder: &str) -> Result<(Vec<String>, Vec<String>), StorageError> {
        let (objects, object) = (self.objects.clone(), self.object(folder));
        let prefix = (!object.as_ref().is_empty()).then_some(object);
        let found = wait(async move { objects.list_with_delimiter(prefix.as_ref()).await })?
            .map_err(|err| StorageError::List { path: self.path(folder), cause: Cause::of(&err) })?;
        let name = |path: &ObjectPath| path.filename().map(str::to_owned);
        Ok((
            found.objects.iter().filter_map(|meta| name(&meta.location)).collect(),
            found.common_prefixes.iter().filter_map(name).collect(),
        ))
    }

    /// Removes what killed writers left behind: staging files (`<name>#<n>`) last written before `before`. Best effort:
    /// whatever cannot be removed stays and is harmless, since no name of a repository holds a `#`.
    pub(crate) fn sweep_leftovers(&self, before: SystemTime) {
        let Some(folder) = &self.folder else { return };
        let mut folders = vec![folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if is_staging_name(&entry.file_name().to_string_lossy())
                    && meta.modified().is_ok_and(|written| written < before)
                    && std::fs::remove_file(entry.path()).is_ok()
                {
                    tracing::info!(file = %entry.path().display(), "removed what a killed writer left behind");
                }
            }
        }
    }
}

fn read_part_of(path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path)?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset).map_err(|err| {
        if err.kind() != io::ErrorKind::UnexpectedEof {
            return err;
        }
        let there = file.metadata().map_or(0, |stat| stat.len().saturating_sub(offset));
        cut_off(there, offset, length)
    })?;
    Ok(bytes)
}

fn cut_off(there: u64, offset: u64, length: u64) -> io::Error {
    io::Error::other(format!("the file ends after {there} of {length} bytes from offset {offset}"))
}

/// How old a staging file must be before nobody can still be writing it.
pub(crate) const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

fn is_staging_name(name: &str) -> bool {
    name.split_once('#').is_some_and(|(name, number)| {
        let written_by_us = name == "config" || (name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit()));
        written_by_us && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    })
}

/// The runtime lives as long as the process: dropping one inside another runtime would panic.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fn runtime() -> Result<&'static Runtime, StorageError> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let built = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("lvault-storage")
        .enable_all()
        .build()
        .map_err(|err| StorageError::Start { what: err.to_string() })?;
    if let Err(superfluous) = RUNTIME.set(built) {
        superfluous.shutdown_background();
    }
    RUNTIME.get().ok_or_else(|| StorageError::Start { what: "the runtime vanished".to_owned() })
}

/// Runs a future on the crate's runtime and waits for it on a channel. `block_on` would panic on a runtime's thread.
fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T, StorageError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        // The receiver waits right below; it can only be gone when its thread is.
        let _ = sender.send(future.await);
    });
    receiver
        .recv()
        .map_err(|_| StorageError::Start { what: "a storage thread ended in the middle of a call".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_staging_files_are_leftovers() {
        let id = "0".repeat(64);
        assert!(is_staging_name(&format!("{id}#1")));
        assert!(is_staging_name("config#12"));
        for other in [id.as_str(), "config", "notes#1", &format!("{id}#"), &format!("{id}#x")] {
            assert!(!is_staging_name(other), "{other}");
        }
    }

    #[tokio::test]
    async fn calls_work_on_a_thread_of_another_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Local { root: folder.path().to_owned() };
        let storage = Storage::of_location(&location).unwrap();
        storage.write("a", vec![Bytes::from_static(b"x")], Put::Overwrite).unwrap();
        assert_eq!(storage.read("a").unwrap(), "x");
    }
}
