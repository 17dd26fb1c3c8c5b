//! rustic's storage trait over [`Storage`], and the gate every write passes.
//!
//! What holds here: once one write has failed, every later one is refused, so that nothing is built on a hole. The config is
//! created, never overwritten: the first initialiser wins. Backups do not come through here: they have their own data path.

use crate::fault::into_rustic;
use crate::key_file;
use crate::storage::{CauseKind, Put, Storage, StorageError};
use bytes::Bytes;
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one session with a repository has done and may do.
#[derive(Default)]
pub(crate) struct Gate {
    failure: Mutex<Option<StorageError>>,
    config_read: AtomicBool,
    config_exists: AtomicBool,
    keys_written: Mutex<Vec<Id>>,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The first write that failed.
    fn failure(&self) -> Option<StorageError> {
        lock(&self.failure).clone()
    }

    /// Whether the password opened a key, so that the config was read with it.
    pub(crate) fn config_was_read(&self) -> bool {
        self.config_read.load(Ordering::Relaxed)
    }

    /// Whether the config could not be created because there was one.
    pub(crate) fn config_existed(&self) -> bool {
        self.config_exists.load(Ordering::Relaxed)
    }

    /// The key files this session wrote.
    pub(crate) fn keys_written(&self) -> Vec<Id> {
        lock(&self.keys_written).clone()
    }

    fn admit(&self) -> RusticResult<()> {
        if let Some(err) = self.failure() {
            return Err(into_rustic(err));
        }
        Ok(())
    }

    fn record(&self, tpe: FileType, id: &Id, written: Result<(), StorageError>) -> RusticResult<()> {
        match written {
            Ok(()) => {
                if tpe == FileType::Key {
                    lock(&self.keys_written).push(*id);
                }
                Ok(())
            }
            Err(err) => {
                if tpe == FileType::Config && err.kind() == CauseKind::Exists {
                    self.config_exists.store(true, Ordering::Relaxed);
                }
                lock(&self.failure).get_or_insert_with(|| err.clone());
                Err(into_rustic(err))
            }
        }
    }
}

/// A poisoned lock only says that another thread panicked; what is inside is still whole here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A repository's files as rustic sees them.
pub(crate) struct Backend {
    storage: Storage,
    gate: Arc<Gate>,
    only_key: Option<Id>,
}

impl Backend {
    pub(crate) fn new(storage: Storage, gate: Arc<Gate>) -> Self {
        Self { storage, gate, only_key: None }
    }

    /// A backend that shows a single key file, so that each key can be tried by itself.
    pub(crate) fn with_only_key(storage: Storage, gate: Arc<Gate>, key: Id) -> Self {
        Self { storage, gate, only_key: Some(key) }
    }
}

/// Where a file lies in restic's layout.
pub(crate) fn file_name(tpe: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    match tpe {
        FileType::Config => "config".to_owned(),
        FileType::Pack => format!("data/{}/{}", &hex.as_str()[..2], hex.as_str()),
        FileType::Index | FileType::Key | FileType::Snapshot => format!("{}/{}", tpe.dirname(), hex.as_str()),
    }
}

/// Where a lock lies, which is a kind of file that rustic does not know.
pub(crate) fn file_name_of_lock(id: &Id) -> String {
    format!("locks/{}", id.to_hex().as_str())
}

/// All files of a kind whose name is an id, with their sizes. Other names are none of a repository's files.
pub(crate) fn list_ids(storage: &Storage, tpe: FileType) -> Result<Vec<(Id, u64)>, StorageError> {
    let files = storage.list(tpe.dirname())?;
    Ok(files.into_iter().filter_map(|(name, size)| Some((name.parse().ok()?, size))).collect())
}

/// Reads whole files and hands each over, until `take` fails. From a bucket several are read at once, and come in the order of the
/// answers; a few wait in memory.
pub(crate) fn read_each<E>(
    storage: &Storage,
    tpe: FileType,
    ids: &[Id],
    mut take: impl FnMut(&Id, Result<Bytes, StorageError>) -> Result<(), E>,
) -> Result<(), E> {
    let read = |id: &Id| storage.read(&file_name(tpe, id));
    if storage.folder().is_some() || ids.len() < 2 {
        return ids.iter().try_for_each(|id| take(id, read(id)));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(1);
        for _ in 0..storage.readers().min(ids.len()) {
            let (sender, next, read) = (sender.clone(), &next, &read);
            scope.spawn(move || {
                while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((id, read(id))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.into_iter().try_for_each(|(id, content)| take(id, content))
    })
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.storage.shown().to_owned()
    }

    fn list_with_size(&self, tpe: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if tpe == FileType::Config {
            let size = self.storage.size("config").map_err(into_rustic)?;
            return size.map(|size| Ok((Id::default(), in_u32(size)?))).into_iter().collect();
        }
        if tpe == FileType::Key
            && let Some(key) = self.only_key
        {
            return Ok(vec![(key, 0)]);
        }
        let ids = list_ids(&self.storage, tpe).map_err(into_rustic)?;
        ids.into_iter().map(|(id, size)| Ok((id, in_u32(size)?))).collect()
    }

    fn read_full(&self, tpe: FileType, id: &Id) -> RusticResult<Bytes> {
        if tpe == FileType::Config {
            self.gate.config_read.store(true, Ordering::Relaxed);
        }
        let content = self.storage.read(&file_name(tpe, id)).map_err(into_rustic)?;
        if tpe == FileType::Key {
            // rustic takes any parameters, and a process that runs out of memory ends.
            key_file::cost(&content).map_err(|what| RusticError::new(ErrorKind::Key, what))?;
        }
        Ok(content)
    }

    fn read_partial(&self, tpe: FileType, id: &Id, _: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        let mut bytes = Vec::new();
        let read = self.storage.read_part(&file_name(tpe, id), offset.into(), length.into(), &mut bytes);
        read.map(|()| bytes.into()).map_err(into_rustic)
    }

    fn warmup_path(&self, tpe: FileType, id: &Id) -> String {
        file_name(tpe, id)
    }
}

fn in_u32(size: u64) -> RusticResult<u32> {
    u32::try_from(size).map_err(|err| {
        RusticError::with_source(ErrorKind::Backend, "a file of the repository has more than 4 GiB", err)
    })
}

impl WriteBackend for Backend {
    fn write_bytes(&self, tpe: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
        self.gate.admit()?;
        let put = if tpe == FileType::Config { Put::Create } else { Put::Overwrite };
        let written = self.storage.write(&file_name(tpe, id), content.into_vec(), put);
        self.gate.record(tpe, id, written)
    }

    fn remove(&self, tpe: FileType, id: &Id, _: bool) -> RusticResult<()> {
        self.gate.admit()?;
        self.storage.delete(&file_name(tpe, id)).map_err(into_rustic)
    }
}
