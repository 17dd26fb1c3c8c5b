//! Trying a storage: whether it can be written and read, and whether the password is the right one.

use crate::fault::Fault;
use crate::location::{Location, RepositoryPath};
use crate::open::OpenError;
use crate::repository::Repository;
use crate::secret::Password;
use crate::storage::{Put, Storage, StorageError};
use bytes::Bytes;
use rustic_core::Id;
use std::time::Duration;

/// A probe gives up on a server after this time.
const PROBE: Duration = Duration::from_secs(15);

/// What a probe of a storage found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The repository the password was tried on; `None` where the storage holds none yet, which is fine.
    pub repository: Option<RepositoryPath>,
}

/// So many repositories of a place are tried with a storage's password.
const TRIED: usize = 8;

/// Looks whether a storage can be used: writes, reads and deletes a small file below its root, and tries the password on a
/// repository found there (at most three folders deep). An empty storage is fine.
///
/// Other storages, with other passwords, may be in the same place: a repository below the folder of this storage's namespace
/// has to open; where there is none, one of the first eight others has to.
///
/// Idempotent; a crash in the middle leaves a small file named `lvault-probe-*` at the root.
///
/// # Errors
/// See [`OpenError`].
pub fn probe(location: &Location, namespace: &str, password: &Password) -> Result<Probed, OpenError> {
    let location = &location.with_patience(PROBE);
    let shown = location.to_string();
    let failed = |fault| OpenError::Storage { repository: shown.clone(), fault };
    let storage = Storage::of_location(location).map_err(failed)?;
    let name = format!("lvault-probe-{}", Id::random().to_hex().as_str());
    let content = Bytes::from(name.clone());
    storage.write(&name, vec![content.clone()], Put::Overwrite).map_err(failed)?;
    let read = storage.read(&name);
    storage.delete(&name).map_err(failed)?;
    if read.map_err(failed)? != content {
        let fault = Fault::damaged(format!("{shown}/{name} does not read back as it was written"));
        return Err(OpenError::Library { repository: shown, fault });
    }
    let mut found = first_repositories(&storage, namespace, 1).map_err(failed)?;
    if found.is_empty() {
        found = first_repositories(&storage, "", TRIED).map_err(failed)?;
    }
    let mut refused = None;
    for repository in found {
        match Repository::open(location, &repository, password) {
            Ok(_) => return Ok(Probed { repository: Some(repository) }),
            Err(error @ OpenError::WrongPassword { .. }) => {
                refused.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    refused.map_or(Ok(Probed { repository: None }), Err)
}

/// Searches below a folder breadth first, bounded in depth and in the number of folders looked into, and ends with so many.
fn first_repositories(storage: &Storage, below: &str, most: usize) -> Result<Vec<RepositoryPath>, StorageError> {
    let (mut found, mut level) = (Vec::new(), vec![below.to_owned()]);
    let mut budget = 256_usize;
    for _depth in 0..=3 {
        let mut below = Vec::new();
        for folder in level {
            if budget == 0 || found.len() == most {
                return Ok(found);
            }
            budget -= 1;
            let (files, folders) = storage.children(&folder)?;
            let is_repository = files.iter().any(|file| file == "config") && folders.iter().any(|name| name == "keys");
            match RepositoryPath::parse(folder.clone()) {
                Ok(path) if is_repository => found.push(path),
                Ok(_) | Err(_) => {
                    let joined =
                        |name: &String| if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                    below.extend(folders.iter().filter(|name| *name != "lost+found").map(joined));
                }
            }
        }
        below.sort();
        level = below;
    }
    found.truncate(most);
    Ok(found)
}
