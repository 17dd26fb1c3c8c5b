//! A repository's files in an object store, read and written from ordinary threads.
//!
//! The object store is asynchronous and everything above is not: calls are spawned onto a runtime of this crate's own
//! and awaited over a channel, so that they also work on a thread that happens to belong to another runtime. A write has
//! reached the disk when it returns.

mod cause;

pub use self::cause::{Cause, CauseKind, StorageError};

use crate::location::{Location, RepositoryPath};
use crate::remote::{self, Created, may_pass};
use crate::seal::hash;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::ready;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use rustic_core::Id;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::{Builder, Runtime};

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
    /// For how long a call is made again while its failure may pass.
    patience: Duration,
    writers: usize,
    readers: usize,
}

/// The first pause before a call is made again; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Storage {
    /// The files below `path`.
    pub(crate) fn of_repository(location: &Location, path: &RepositoryPath) -> Result<Self, StorageError> {
        Ok(Self {
            base: [location.prefix(), path.as_str()].join("/"),
            shown: format!("{location}/{path}"),
            folder: location.folder(path),
            ..Self::of_location(location)?
        })
    }

    /// All files of the storage.
    pub(crate) fn of_location(location: &Location) -> Result<Self, StorageError> {
        Ok(Self {
            objects: location.connect()?,
            base: location.prefix().to_owned(),
            shown: location.to_string(),
            folder: location.root().map(Path::to_owned),
            patience: location.patience(),
            writers: location.writers(),
            readers: location.readers(),
        })
    }

    /// How many files are best written at once.
    pub(crate) fn writers(&self) -> usize {
        self.writers
    }

    /// How many threads read best at once.
    pub(crate) fn readers(&self) -> usize {
        self.readers
    }

    /// Makes a call, again and again while its failure may pass and there is patience.
    fn call<T, F>(
        &self,
        work: impl Fn(Arc<dyn ObjectStore>) -> F,
    ) -> Result<Result<T, object_store::Error>, StorageError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, object_store::Error>> + Send + 'static,
    {
        let (started, mut pause) = (Instant::now(), PAUSE);
        loop {
            let answer = wait(work(Arc::clone(&self.objects)))?;
            let Err(err) = &answer else { return Ok(answer) };
            if started.elapsed() + pause > self.patience {
                return Ok(answer);
            }
            let cause = Cause::of(err);
            if !may_pass(cause.kind) {
                return Ok(answer);
            }
            tracing::warn!(storage = self.shown, "{}; trying again in {} ms", cause.text, pause.as_millis());
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
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

    pub(crate) fn path(&self, name: &str) -> String {
        if name.is_empty() { self.shown.clone() } else { format!("{}/{name}", self.shown) }
    }

    /// Reads a whole file. What comes over a network and is not what its name says is read again; if it stays so, whoever
    /// asked finds the damage.
    pub(crate) fn read(&self, name: &str) -> Result<Bytes, StorageError> {
        let object = self.object(name);
        let read = || {
            self.call(|objects| {
                let object = object.clone();
                async move { objects.get(&object).await?.bytes().await }
            })?
            .map_err(|err| StorageError::Read { path: self.path(name), cause: Cause::of(&err) })
        };
        let content = read()?;
        if self.folder.is_none() && !is_named_after(name, &content) {
            return read();
        }
        Ok(content)
    }

    /// Reads exactly `length` bytes from `offset` into the buffer, in place of what it holds. From a folder of this machine they are
    /// read at once, since going through the object store costs more than reading a small blob.
    pub(crate) fn read_part(
        &self,
        name: &str,
        offset: u64,
        length: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let failed = |cause| StorageError::Read { path: self.path(name), cause };
        if let Some(folder) = &self.folder {
            return read_part_of(&folder.join(name), offset, length, buffer).map_err(|err| failed(Cause::of(&err)));
        }
        let object = self.object(name);
        let bytes = self
            .call(|objects| {
                let object = object.clone();
                async move {
                    let bytes = objects.get_range(&object, offset..offset + length).await?;
                    if bytes.len() as u64 == length {
                        return Ok(bytes);
                    }
                    let source = Box::new(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        cut_off(bytes.len() as u64, offset, length),
                    ));
                    Err(object_store::Error::Generic { store: "answer", source })
                }
            })?
            .map_err(|err| failed(Cause::of(&err)))?;
        *buffer = bytes.into();
        Ok(())
    }

    /// Reads a range of a file, or what there is of it where the file ends before.
    pub(crate) fn read_up_to(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        let object = self.object(name);
        self.call(|objects| {
            let (object, range) = (object.clone(), range.clone());
            async move { objects.get_range(&object, range).await }
        })?
        .map_err(|err| StorageError::Read { path: self.path(name), cause: Cause::of(&err) })
    }

    /// Writes a file, durably: it is stored, whole and under its name, when this returns; never in part.
    pub(crate) fn write(&self, name: &str, parts: Vec<Bytes>, put: Put) -> Result<(), StorageError> {
        let (object, payload) = (self.object(name), PutPayload::from_iter(parts));
        let mode = match put {
            Put::Overwrite => PutMode::Overwrite,
            Put::Create if self.folder.is_none() => {
                return remote::create(self, name, &Bytes::from(payload), self.patience);
            }
            Put::Create => PutMode::Create,
        };
        self.call(|objects| {
            let (object, payload, options) = (object.clone(), payload.clone(), PutOptions::from(mode.clone()));
            async move { objects.put_opts(&object, payload, options).await }
        })?
        .map_err(|err| StorageError::Write { path: self.path(name), cause: Cause::of(&err) })?;
        if payload.content_length() >= LONG_FILE {
            self.give_memory_back(name);
        }
        Ok(())
    }

    /// What was written long is not read soon: the kernel's memory of it serves what is written next, rather than that of others, whom a
    /// backup should not drive out. Best effort.
    fn give_memory_back(&self, name: &str) {
        if let Some(folder) = &self.folder
            && let Ok(file) = std::fs::File::open(folder.join(name))
        {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    /// Creates a file with one request, which ends within [`remote::WRITE`].
    pub(crate) fn create_once(&self, name: &str, content: &Bytes) -> Result<Created, StorageError> {
        Ok(match self.put_once(name, content, PutMode::Create)? {
            Ok(()) => Created::Written,
            Err(cause) if cause.kind == CauseKind::Exists => Created::Exists,
            Err(cause) if cause.kind == CauseKind::Other => Created::Unconditional,
            Err(cause) if may_pass(cause.kind) => Created::Unknown(cause),
            Err(cause) => Created::Refused(cause),
        })
    }

    /// Writes a file with one request, whatever is there; it ends within [`remote::WRITE`].
    pub(crate) fn overwrite_once(&self, name: &str, content: &Bytes) -> Result<Result<(), Cause>, StorageError> {
        self.put_once(name, content, PutMode::Overwrite)
    }

    fn put_once(&self, name: &str, content: &Bytes, mode: PutMode) -> Result<Result<(), Cause>, StorageError> {
        let (objects, object) = (Arc::clone(&self.objects), self.object(name));
        let payload = PutPayload::from_bytes(content.clone());
        wait(async move {
            let put = objects.put_opts(&object, payload, PutOptions::from(mode));
            match tokio::time::timeout(remote::WRITE, put).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(err)) => Err(Cause::of(&err)),
                Err(_) => {
                    let text = format!("no answer within {} s", remote::WRITE.as_secs());
                    Err(Cause { kind: CauseKind::Interrupted, text })
                }
            }
        })
    }

    /// Deletes a file, durably. A file that is not there is deleted.
    pub(crate) fn delete(&self, name: &str) -> Result<(), StorageError> {
        let object = self.object(name);
        let deleted = self.call(|objects| {
            let object = object.clone();
            async move { objects.delete(&object).await }
        })?;
        match deleted {
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
        let object = self.object(name);
        let found = self.call(|objects| {
            let object = object.clone();
            async move { objects.head(&object).await }
        })?;
        match found {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(err) => {
                let cause = Cause::of(&err);
                if self.folder.is_none() && !may_pass(cause.kind) {
                    // Servers refuse this question without a word; when they refuse to list, they say why.
                    self.children("")?;
                }
                Err(StorageError::Read { path: self.path(name), cause })
            }
        }
    }

    /// All files below `folder`, at any depth: their own names (without folders) and sizes.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StorageError> {
        let object = self.object(folder);
        self.call(|objects| {
            let object = object.clone();
            async move {
                let name = |meta: ObjectMeta| Some((meta.location.filename()?.to_owned(), meta.size));
                objects.list(Some(&object)).try_filter_map(|meta| ready(Ok(name(meta)))).try_collect().await
            }
        })?
        .map_err(|err| StorageError::List { path: self.path(folder), cause: Cause::of(&err) })
    }

    /// The names of the files and of the folders directly in `folder`.
    pub(crate) fn children(&self, folder: &str) -> Result<(Vec<String>, Vec<String>), StorageError> {
        let object = self.object(folder);
        let found = self
            .call(|objects| {
                let prefix = (!object.as_ref().is_empty()).then(|| object.clone());
                async move { objects.list_with_delimiter(prefix.as_ref()).await }
            })?
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

/// Whether a file's name, where it is a hash, is the hash of this content.
fn is_named_after(name: &str, content: &[u8]) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.parse::<Id>().map_or(true, |id| id == Id::new(hash(content)))
}

fn read_part_of(path: &Path, offset: u64, length: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(path)?;
    // An index may claim any length: what is not there takes no memory.
    let there = file.metadata()?.len().saturating_sub(offset);
    if there < length {
        return Err(cut_off(there, offset, length));
    }
    buffer.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
    file.read_exact_at(buffer, offset)
}

fn cut_off(there: u64, offset: u64, length: u64) -> io::Error {
    io::Error::other(format!("the file ends after {there} of {length} bytes from offset {offset}"))
}

/// The kernel keeps nothing of files from this size on: most packs of data are longer, and those of trees shorter, which are read back
/// at once.
const LONG_FILE: usize = 8 << 20;

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
impl Storage {
    /// A storage over any object store, as if it were a bucket.
    pub(crate) fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            objects,
            base: "r".to_owned(),
            shown: "memory".to_owned(),
            folder: None,
            patience: Duration::from_secs(20),
            writers: 2,
            readers: 2,
        }
    }
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
