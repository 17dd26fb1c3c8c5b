//! Opening a repository, and making it on first use.
//!
//! Any number of processes may make the same repository at once: the config is created, never overwritten, so one of them
//! wins. Each writes its key file before the config, so whoever loses, or is killed in between, leaves a key file that opens
//! with the password but fits no config. Such a dead key is recognised and removed by the next
//! [`Repository::open_or_init`] (the loser's own, mostly), because plain restic would stumble over it.

use crate::backend::{Backend, Gate, file_name, list_ids};
use crate::fault::{Fault, guarded_raw, storage_error_in};
use crate::key_cache::{Found, KeyCache};
use crate::location::{Location, RepositoryPath};
use crate::repository::{Opened, Repository, rustic_on};
use crate::retry::Retry;
use crate::secret::Password;
use crate::storage::{CauseKind, Storage, StorageError};
use rustic_core::{ConfigOptions, Credentials, FileType, Id, KeyOptions, RusticError};
use std::sync::Arc;

/// The folders of restic's layout.
const FOLDERS: [&str; 5] = ["data", "index", "keys", "locks", "snapshots"];

/// Data packs are cut at 16 MiB, as restic does, whatever the repository's size: a backup holds several in memory.
const DATA_PACK_SIZE: &str = "16MiB";

/// Why a repository could not be opened or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The storage failed.
    #[error("cannot open the repository {repository}: {fault}")]
    Storage {
        /// The repository.
        repository: String,
        /// What happened.
        fault: StorageError,
    },
    /// There is no repository.
    #[error("there is no repository at {repository}; check the storage and the path, or take a first snapshot there")]
    NotFound {
        /// The repository.
        repository: String,
    },
    /// No key of the repository opens with the password.
    #[error(
        "the password does not open the repository {repository}; correct RESTIC_PASSWORD in the storage's Secret, or, where \
         the repository is that of another storage, give this one a prefix or folder of its own"
    )]
    WrongPassword {
        /// The repository.
        repository: String,
    },
    /// The repository has a format this version does not know.
    #[error(
        "the repository {repository} has a newer format than restic's version 2: {what}; use a newer lvault for it"
    )]
    Newer {
        /// The repository.
        repository: String,
        /// What was found.
        what: String,
    },
    /// The config is there and is none.
    #[error(
        "the config of the repository {repository} is damaged: {what}; put the file {repository}/config back from a copy \
         of the repository (it never changes)"
    )]
    ConfigDamaged {
        /// The repository.
        repository: String,
        /// What was found.
        what: String,
    },
    /// There is data, but no config.
    #[error(
        "the repository {repository} holds data but has lost its config; put the file {repository}/config back from a \
         copy of the repository (it never changes); a new one would make the data unreadable"
    )]
    ConfigLost {
        /// The repository.
        repository: String,
    },
    /// No key file is there, or none can be read.
    #[error(
        "the repository {repository} has no usable key file: {what}; put the files of {repository}/keys back from a copy \
         of the repository"
    )]
    KeysDamaged {
        /// The repository.
        repository: String,
        /// What was found.
        what: String,
    },
    /// Something else lies where the repository should be made.
    #[error("{repository} is not a repository and holds {found:?}; choose another path, or empty the folder")]
    Foreign {
        /// The repository.
        repository: String,
        /// What lies there.
        found: String,
    },
    /// Another repository lies above this path.
    #[error("{repository} would lie inside the repository {outer}; choose another path")]
    Nested {
        /// The repository.
        repository: String,
        /// The repository it would lie in.
        outer: String,
    },
    /// The repository library failed.
    #[error("cannot open the repository {repository}: {fault}")]
    Library {
        /// The repository.
        repository: String,
        /// What happened.
        fault: Fault,
    },
}

impl OpenError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Storage { fault, .. } => fault.retry(),
            Self::Library { fault, .. } => fault.retry(),
            Self::NotFound { .. }
            | Self::WrongPassword { .. }
            | Self::Newer { .. }
            | Self::ConfigDamaged { .. }
            | Self::ConfigLost { .. }
            | Self::KeysDamaged { .. }
            | Self::Foreign { .. } => Retry::AfterRemedy,
            Self::Nested { .. } => Retry::Never,
        }
    }
}

impl Repository {
    /// Opens the repository at `path`, or makes it there.
    ///
    /// Idempotent, and safe when several processes do it at once: all of them end with the same repository. A crash in the
    /// middle leaves at most folders and a key file without a config, which the next call takes for what they are.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing is written over a folder that holds anything else.
    pub fn open_or_init(location: &Location, path: &RepositoryPath, password: &Password) -> Result<Self, OpenError> {
        Self::open_or_init_cached(location, path, password, None)
    }

    /// As [`Self::open_or_init`], with keys that were kept.
    ///
    /// # Errors
    /// As [`Self::open_or_init`].
    pub fn open_or_init_cached(
        location: &Location,
        path: &RepositoryPath,
        password: &Password,
        cache: Option<&KeyCache>,
    ) -> Result<Self, OpenError> {
        let place = Place::new(location, path)?;
        let made = match place.state()? {
            State::Repository => None,
            State::Free => {
                place.refuse_nesting(location, path)?;
                place.init(password)?
            }
        };
        match made {
            Some((opened, others)) => place.finish_tidied(&opened, &others, password, cache),
            None => place.open_tidied(password, cache),
        }
    }

    /// Opens the repository at `path` in order to change it, and never makes one: keys that killed initialisers left are removed, as
    /// by [`Self::open_or_init`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_change(
        location: &Location,
        path: &RepositoryPath,
        password: &Password,
        cache: Option<&KeyCache>,
    ) -> Result<Self, OpenError> {
        Place::existing(location, path)?.open_tidied(password, cache)
    }

    /// Opens the repository at `path`, and never makes one.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::NotFound`] where there is none.
    pub fn open(location: &Location, path: &RepositoryPath, password: &Password) -> Result<Self, OpenError> {
        Self::open_cached(location, path, password, None)
    }

    /// As [`Self::open`], with keys that were kept.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_cached(
        location: &Location,
        path: &RepositoryPath,
        password: &Password,
        cache: Option<&KeyCache>,
    ) -> Result<Self, OpenError> {
        let place = Place::existing(location, path)?;
        if let Some(found) = cache.and_then(|cache| cache.open(&place, password)) {
            return place.finish(&found.opened);
        }
        let (opened, _) = place.open(password)?;
        cache.into_iter().for_each(|cache| cache.keep(&place, password, &opened, &[]));
        place.finish(&opened)
    }
}

/// What lies at a repository's path.
enum State {
    /// A config: this is a repository.
    Repository,
    /// Nothing, or what an unfinished init leaves.
    Free,
}

/// How one key file answered to the password.
pub(crate) enum Tried {
    Opened(Box<Opened>),
    WrongPassword,
    /// The key opens with the password, but it does not fit the config.
    Misfit(String),
    Unreadable(String),
}

/// Where a repository is, or is to be.
pub(crate) struct Place {
    storage: Storage,
}

impl Place {
    fn new(location: &Location, path: &RepositoryPath) -> Result<Self, OpenError> {
        let storage = Storage::of_repository(location, path)
            .map_err(|fault| OpenError::Storage { repository: format!("{location}/{path}"), fault })?;
        Ok(Self { storage })
    }

    /// One that holds a repository.
    pub(crate) fn existing(location: &Location, path: &RepositoryPath) -> Result<Self, OpenError> {
        let place = Self::new(location, path)?;
        match place.state()? {
            State::Free => Err(OpenError::NotFound { repository: place.shown() }),
            State::Repository => Ok(place),
        }
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn shown(&self) -> String {
        self.storage.shown().to_owned()
    }

    fn storage_error(&self, fault: StorageError) -> OpenError {
        OpenError::Storage { repository: self.shown(), fault }
    }

    fn finish(self, opened: &Opened) -> Result<Repository, OpenError> {
        let shown = self.shown();
        Repository::from_opened(self.storage, opened).map_err(|fault| OpenError::Library { repository: shown, fault })
    }

    /// Opens with a kept key, if no other key has appeared since it was kept, or else with the password, without dead keys then.
    fn open_tidied(self, password: &Password, cache: Option<&KeyCache>) -> Result<Repository, OpenError> {
        if let Some(Found { opened, has_untried: false }) = cache.and_then(|cache| cache.open(&self, password)) {
            return self.finish(&opened);
        }
        let (opened, others) = self.open(password)?;
        self.finish_tidied(&opened, &others, password, cache)
    }

    fn finish_tidied(
        self,
        opened: &Opened,
        others: &[Id],
        password: &Password,
        cache: Option<&KeyCache>,
    ) -> Result<Repository, OpenError> {
        let left = self.remove_dead_keys(others, password)?;
        cache.into_iter().for_each(|cache| cache.keep(&self, password, opened, &left));
        self.finish(opened)
    }

    fn state(&self) -> Result<State, OpenError> {
        if self.storage.size("config").map_err(|err| self.storage_error(err))?.is_some() {
            return Ok(State::Repository);
        }
        let (files, folders) = match self.storage.children("") {
            Ok(found) => found,
            Err(err) if err.kind() == CauseKind::Missing => return Ok(State::Free),
            Err(err) => return Err(self.storage_error(err)),
        };
        let foreign = files.iter().find(|name| !name.starts_with("config#"));
        let foreign = foreign.or_else(|| folders.iter().find(|name| !FOLDERS.contains(&name.as_str())));
        if let Some(found) = foreign {
            return Err(OpenError::Foreign { repository: self.shown(), found: found.clone() });
        }
        for tpe in [FileType::Snapshot, FileType::Index, FileType::Pack] {
            if !list_ids(&self.storage, tpe).map_err(|err| self.storage_error(err))?.is_empty() {
                return self.config_lost_unless_it_appeared();
            }
        }
        Ok(State::Free)
    }

    /// Another process may have made the repository, and used it, since the first look for the config.
    fn config_lost_unless_it_appeared(&self) -> Result<State, OpenError> {
        match self.storage.size("config").map_err(|err| self.storage_error(err))? {
            Some(_) => Ok(State::Repository),
            None => Err(OpenError::ConfigLost { repository: self.shown() }),
        }
    }

    fn refuse_nesting(&self, location: &Location, path: &RepositoryPath) -> Result<(), OpenError> {
        let root = Storage::of_location(location).map_err(|err| self.storage_error(err))?;
        for outer in path.ancestors() {
            let config = root.size(&format!("{outer}/config")).map_err(|err| self.storage_error(err))?;
            if config.is_some() {
                return Err(OpenError::Nested { repository: self.shown(), outer: format!("{location}/{outer}") });
            }
        }
        Ok(())
    }

    /// Makes the repository and names the other keys there are; `None` when another process has made it meanwhile.
    fn init(&self, password: &Password) -> Result<Option<(Opened, Vec<Id>)>, OpenError> {
        self.make_folders().map_err(|err| self.storage_error(err))?;
        let gate = Gate::new();
        let backend = Backend::new(self.storage.clone(), Arc::clone(&gate));
        let mut options = ConfigOptions::default().set_version(2_u32);
        options.set_datapack_growfactor = Some(0);
        options.set_treepack_growfactor = Some(0);
        options.set_datapack_size = DATA_PACK_SIZE.parse().ok();
        let made = guarded_raw(|| {
            rustic_on(backend)?.init(&Credentials::password(password.expose()), &KeyOptions::default(), &options)
        });
        let made = made.map_err(|fault| OpenError::Library { repository: self.shown(), fault })?;
        match made {
            Ok(opened) => {
                let ours = gate.keys_written();
                let others = self.keys()?.into_iter().filter(|key| !ours.contains(key)).collect();
                Ok(Some((opened, others)))
            }
            // The key this process wrote fits no config now; it is removed with the other dead keys.
            Err(_) if gate.config_existed() => Ok(None),
            Err(err) => Err(self.of_rustic(&err)),
        }
    }

    /// restic expects the folders of a local repository, and an object store has no word for making them.
    fn make_folders(&self) -> Result<(), StorageError> {
        use std::os::unix::fs::DirBuilderExt;
        let Some(folder) = self.storage.folder() else { return Ok(()) };
        for name in FOLDERS {
            let folder = folder.join(name);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|err| {
                StorageError::Write { path: folder.display().to_string(), cause: crate::storage::Cause::of(&err) }
            })?;
        }
        Ok(())
    }

    pub(crate) fn keys(&self) -> Result<Vec<Id>, OpenError> {
        let keys = list_ids(&self.storage, FileType::Key).map_err(|err| self.storage_error(err))?;
        let mut keys: Vec<Id> = keys.into_iter().map(|(id, _)| id).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Opens with the first key that fits, and names the other keys.
    pub(crate) fn open(&self, password: &Password) -> Result<(Opened, Vec<Id>), OpenError> {
        let keys = self.keys()?;
        let (mut misfit, mut unreadable, mut refused) = (None, None, false);
        for key in &keys {
            match self.try_key(*key, password)? {
                Tried::Opened(opened) => {
                    let others = keys.iter().copied().filter(|other| other != key).collect();
                    return Ok((*opened, others));
                }
                Tried::WrongPassword => refused = true,
                Tried::Misfit(what) => misfit = Some(what),
                Tried::Unreadable(what) => unreadable = Some(what),
            }
        }
        let repository = self.shown();
        Err(match (misfit, unreadable) {
            (Some(what), _) => OpenError::ConfigDamaged { repository, what },
            (None, _) if refused => OpenError::WrongPassword { repository },
            (None, Some(what)) => OpenError::KeysDamaged { repository, what },
            (None, None) => OpenError::KeysDamaged { repository, what: "there is none".to_owned() },
        })
    }

    pub(crate) fn try_key(&self, key: Id, password: &Password) -> Result<Tried, OpenError> {
        let gate = Gate::new();
        let backend = Backend::with_only_key(self.storage.clone(), Arc::clone(&gate), key);
        let opened = guarded_raw(|| rustic_on(backend)?.open(&Credentials::password(password.expose())));
        let err = match opened {
            Ok(Ok(opened)) => return Ok(Tried::Opened(Box::new(opened))),
            Ok(Err(err)) => err,
            // rustic panics on a key file whose scrypt parameters are nonsense.
            Err(Fault::Panicked { what }) => return Ok(Tried::Unreadable(what)),
            Err(fault) => return Err(OpenError::Library { repository: self.shown(), fault }),
        };
        if let Some(fault) = storage_error_in(&err) {
            let key_is_gone = fault.kind() == CauseKind::Missing && !gate.config_was_read();
            // An initialiser that lost has just removed its key.
            return if key_is_gone { Ok(Tried::Unreadable(fault.to_string())) } else { Err(self.storage_error(fault)) };
        }
        let what = message(&err);
        if err.is_incorrect_password() {
            Ok(Tried::WrongPassword)
        } else if !gate.config_was_read() {
            Ok(Tried::Unreadable(what))
        } else if what.contains("Config version") {
            Err(OpenError::Newer { repository: self.shown(), what })
        } else {
            Ok(Tried::Misfit(what))
        }
    }

    /// Removes key files that open with our password and fit no config: the config is readable with another key, so they
    /// can only be what a killed initialiser left. Every other key is somebody's and stays; these are returned.
    fn remove_dead_keys(&self, others: &[Id], password: &Password) -> Result<Vec<Id>, OpenError> {
        let mut left = Vec::new();
        for key in others {
            match self.try_key(*key, password)? {
                Tried::Misfit(_) => {
                    self.remove_key(key)?;
                    tracing::warn!(repository = self.storage.shown(), key = %key.to_hex().as_str(), "removed a key that fits no config");
                }
                Tried::Opened(_) | Tried::WrongPassword | Tried::Unreadable(_) => left.push(*key),
            }
        }
        Ok(left)
    }

    pub(crate) fn remove_key(&self, key: &Id) -> Result<(), OpenError> {
        self.storage.delete(&file_name(FileType::Key, key)).map_err(|err| self.storage_error(err))
    }

    pub(crate) fn of_rustic(&self, err: &RusticError) -> OpenError {
        match storage_error_in(err) {
            Some(fault) => self.storage_error(fault),
            None => OpenError::Library { repository: self.shown(), fault: Fault::damaged(message(err)) },
        }
    }
}

fn message(err: &RusticError) -> String {
    let text = err.display_log();
    text.strip_prefix("Error: ").unwrap_or(&text).lines().next().unwrap_or_default().to_owned()
}
