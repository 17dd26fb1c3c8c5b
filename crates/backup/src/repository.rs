//! An open repository, and the questions it answers about its snapshots.
//!
//! An open [`Repository`] holds the master key and no state of the storage: each operation reads what is there now. It
//! can be shared between threads, and it is no lock: other processes may use the repository at the same time.

use crate::backend::{Backend, Gate};
use crate::fault::{Fault, guarded};
use crate::index::Indexed;
use crate::labels::{Key, LabelError, Snapshot, SnapshotId, check_uid, uid_tag};
use crate::lock::{OURS, user_of};
use crate::retry::Retry;
use crate::seal::Seal;
use crate::storage::{Cause, CauseKind, Storage, StorageError};
use rustic_core::repofile::{MasterKey, SnapshotFile};
use rustic_core::{Credentials, NoProgressBars, OpenStatus, RepositoryBackends, RepositoryOptions, RusticResult};
use std::fmt;
use std::sync::Arc;

pub(crate) type Opened = rustic_core::Repository<OpenStatus>;

/// A repository whose password was right.
#[derive(Clone)]
pub struct Repository {
    storage: Storage,
    master_key: MasterKey,
    seal: Seal,
    /// The secret that decides where files are cut into chunks.
    polynomial: u64,
    id: String,
    /// For whom, in the locks of readers.
    reader: String,
}

/// Why a question about snapshots, or forgetting them, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// Reading the snapshots or the locks.
    #[error("cannot read the snapshots or locks of {repository}: {fault}")]
    List {
        /// The repository.
        repository: String,
        /// What happened.
        fault: Fault,
    },
    /// Finding one snapshot by its id.
    #[error("there is no snapshot {id:?} in {repository}; `restic snapshots` lists those there are")]
    NotFound {
        /// The repository.
        repository: String,
        /// What was asked for.
        id: String,
    },
    /// Finding one snapshot by the beginning of its id.
    #[error("{id:?} is the beginning of {count} snapshot ids in {repository}; give more digits")]
    Ambiguous {
        /// The repository.
        repository: String,
        /// What was asked for.
        id: String,
        /// How many snapshots begin so.
        count: usize,
    },
    /// What was given is neither an id nor the beginning of one. An empty id is never "the latest".
    #[error("{id:?} is not a snapshot id or the beginning of one: 1 to 64 hexadecimal digits are expected")]
    NotAnId {
        /// What was asked for.
        id: String,
    },
    /// Adding up what a snapshot holds.
    #[error("cannot read what snapshot {id} of {repository} holds: {fault}")]
    Size {
        /// The repository.
        repository: String,
        /// The snapshot.
        id: SnapshotId,
        /// What happened.
        fault: Fault,
    },
    /// Forgetting snapshots.
    #[error("cannot forget the snapshots of {uid} in {repository}: {fault}")]
    Forget {
        /// The repository.
        repository: String,
        /// Whose snapshots.
        uid: String,
        /// What happened.
        fault: Fault,
    },
    /// The UID whose snapshots are to be forgotten is none.
    #[error(transparent)]
    Label(#[from] LabelError),
}

impl RepositoryError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::List { fault, .. } | Self::Size { fault, .. } | Self::Forget { fault, .. } => fault.retry(),
            Self::NotFound { .. } | Self::Ambiguous { .. } | Self::NotAnId { .. } | Self::Label(_) => Retry::Never,
        }
    }
}

impl Repository {
    pub(crate) fn from_opened(storage: Storage, opened: &Opened) -> Result<Self, Fault> {
        let (master_key, config) = (opened.key(), opened.config());
        let polynomial = guarded(|| config.poly())?;
        let seal = Seal::new(&master_key, config.version);
        let (id, reader) = (config.id.to_hex().as_str().to_owned(), OURS.to_owned());
        Ok(Self { storage, master_key, seal, polynomial, id, reader })
    }

    /// The same repository, read on behalf of one attempt: its locks name the attempt, and those that earlier executors of it have
    /// left are removed when the first is taken.
    pub fn acting_for(self, key: &Key) -> Self {
        Self { reader: user_of(key), ..self }
    }

    /// The same repository where its files were copied to.
    #[cfg(test)]
    pub(crate) fn copied_to(&self, storage: Storage) -> Self {
        Self { storage, ..self.clone() }
    }

    pub(crate) fn reader(&self) -> &str {
        &self.reader
    }

    /// The repository's id, from its config: the same for everybody who opens it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the repository is, for people and for plain restic (`restic -r <shown>`).
    pub fn shown(&self) -> &str {
        self.storage.shown()
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.seal
    }

    pub(crate) fn polynomial(&self) -> u64 {
        self.polynomial
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// A fresh view of the repository.
    pub(crate) fn session(&self) -> Result<Opened, Fault> {
        self.must_be_there()?;
        let backend = Backend::new(self.storage.clone(), Gate::new());
        let key = Credentials::Masterkey(self.master_key.clone());
        guarded(|| rustic_on(backend)?.open(&key))
    }

    /// A storage that is not mounted is an error, and nothing is written in its place.
    pub(crate) fn must_be_there(&self) -> Result<(), StorageError> {
        if self.storage.size("config")?.is_some() {
            return Ok(());
        }
        let text = "the repository is gone".to_owned();
        Err(StorageError::Read {
            path: format!("{}/config", self.shown()),
            cause: Cause { kind: CauseKind::Missing, text },
        })
    }

    /// The whole index as it is now, in memory.
    pub(crate) fn indexed(&self) -> Result<Indexed, Fault> {
        self.must_be_there()?;
        Indexed::load(&self.storage, &self.seal)
    }

    /// The index without what lies in packs that are gone, so that it is stored again.
    pub(crate) fn indexed_for_backup(&self) -> Result<Indexed, Fault> {
        self.must_be_there()?;
        Indexed::load_of_present_packs(&self.storage, &self.seal)
    }

    /// All snapshots, the oldest first. None is fine.
    ///
    /// # Errors
    /// [`RepositoryError::List`].
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, RepositoryError> {
        self.read_snapshots().map_err(|fault| self.cannot_list(fault))
    }

    pub(crate) fn cannot_list(&self, fault: Fault) -> RepositoryError {
        RepositoryError::List { repository: self.shown().to_owned(), fault }
    }

    pub(crate) fn read_snapshots(&self) -> Result<Vec<Snapshot>, Fault> {
        let opened = self.session()?;
        let mut snapshots: Vec<_> = snapshot_files(&opened)?.iter().map(Snapshot::from_file).collect();
        snapshots.sort_by(|a, b| (a.time, &a.id).cmp(&(b.time, &b.id)));
        Ok(snapshots)
    }

    /// The snapshot of this attempt of this volume. The tags have to match exactly.
    ///
    /// There is at most one unless two processes committed within the same instant; then it is the oldest (and of two
    /// equally old the one with the smaller id), so that everybody who asks gets the same one.
    ///
    /// # Errors
    /// [`RepositoryError::List`].
    pub fn find(&self, key: &Key) -> Result<Option<Snapshot>, RepositoryError> {
        self.find_key(key).map_err(|fault| self.cannot_list(fault))
    }

    pub(crate) fn find_key(&self, key: &Key) -> Result<Option<Snapshot>, Fault> {
        Ok(self.read_snapshots()?.into_iter().find(|snapshot| snapshot.key.as_ref() == Some(key)))
    }

    /// The snapshot with this id, or the only one whose id begins so. An empty string is an error, never the latest.
    ///
    /// # Errors
    /// [`RepositoryError::NotAnId`], [`RepositoryError::NotFound`], [`RepositoryError::Ambiguous`], or
    /// [`RepositoryError::List`].
    pub fn snapshot(&self, id: &str) -> Result<Snapshot, RepositoryError> {
        if id.is_empty() || id.len() > 64 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(RepositoryError::NotAnId { id: id.to_owned() });
        }
        let prefix = id.to_ascii_lowercase();
        let mut found: Vec<_> =
            self.snapshots()?.into_iter().filter(|it| it.id.as_str().starts_with(&prefix)).collect();
        let (repository, id, count) = (self.shown().to_owned(), id.to_owned(), found.len());
        match (found.pop(), count) {
            (Some(snapshot), 1) => Ok(snapshot),
            (None, _) => Err(RepositoryError::NotFound { repository, id }),
            (Some(_), count) => Err(RepositoryError::Ambiguous { repository, id, count }),
        }
    }

    /// Removes all snapshots made for this UID, of any attempt, and names them. Their data stays until a prune. Locks that
    /// its executors have left are removed too: none of them may be at work any more.
    ///
    /// Idempotent: what is gone already is fine. A crash in the middle leaves some of them; calling again removes the rest.
    ///
    /// # Errors
    /// [`RepositoryError::Forget`], or [`RepositoryError::Label`] when the UID is none.
    pub fn forget(&self, uid: &str) -> Result<Vec<SnapshotId>, RepositoryError> {
        check_uid(uid)?;
        self.remove_snapshots(uid).map_err(|fault| RepositoryError::Forget {
            repository: self.shown().to_owned(),
            uid: uid.to_owned(),
            fault,
        })
    }

    fn remove_snapshots(&self, uid: &str) -> Result<Vec<SnapshotId>, Fault> {
        let opened = self.session()?;
        let tag = uid_tag(uid);
        let files = snapshot_files(&opened)?;
        let ids: Vec<_> = files.iter().filter(|file| file.tags.contains(&tag)).map(|file| file.id).collect();
        guarded(|| opened.delete_snapshots(&ids))?;
        self.remove_locks_of(uid)?;
        Ok(ids.into_iter().map(|id| SnapshotId::from_rustic(*id)).collect())
    }
}

/// Everything rustic needs to know about where a repository is. Its cache would write to the home folder: off.
pub(crate) fn rustic_on(backend: Backend) -> RusticResult<rustic_core::Repository<()>> {
    let options = RepositoryOptions::default().no_cache(true);
    let backends = RepositoryBackends::new(Arc::new(backend), None);
    rustic_core::Repository::new_with_progress(&options, &backends, NoProgressBars {})
}

fn snapshot_files(opened: &Opened) -> Result<Vec<SnapshotFile>, Fault> {
    guarded(|| opened.get_all_snapshots())
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("shown", &self.storage.shown()).field("id", &self.id).finish_non_exhaustive()
    }
}
