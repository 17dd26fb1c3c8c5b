//! Where repositories lie: the storage, and the path of one repository below it.
//!
//! Above [`crate::storage::Storage`], nothing knows whether a storage is a folder or a bucket.

use crate::remote::{self, Remote, RemoteOptions};
use crate::storage::StorageError;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// No more files than this are written at once, and no more are read.
const MOST_AT_ONCE: usize = 6;

/// A storage that holds repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one for each opening, and it is not moved about")]
pub enum Location {
    /// A folder of this machine. It has to exist: a storage that is not mounted is an error, not an empty storage.
    Local {
        /// The folder, as an absolute path.
        root: PathBuf,
    },
    /// A bucket of an object store. It has to exist.
    Remote(Remote),
}

impl Location {
    /// Connects to the storage. Nothing is written.
    pub(crate) fn connect(&self) -> Result<Arc<dyn ObjectStore>, StorageError> {
        match self {
            Self::Local { root } => {
                if !root.is_absolute() {
                    return Err(StorageError::not_absolute(root));
                }
                let folder = std::fs::metadata(root).map_err(|err| StorageError::folder(root, &err))?;
                if !folder.is_dir() {
                    return Err(StorageError::folder(root, &std::io::ErrorKind::NotADirectory.into()));
                }
                let store = LocalFileSystem::new_with_prefix(root)
                    .map_err(|err| StorageError::folder(root, &std::io::Error::other(err)))?;
                Ok(Arc::new(store.with_fsync(true)))
            }
            Self::Remote(remote) => remote::connect(remote),
        }
    }

    /// The same storage, given up on after `patience` at the latest.
    pub(crate) fn with_patience(&self, patience: Duration) -> Self {
        match self {
            Self::Local { .. } => self.clone(),
            Self::Remote(remote) => {
                let options = RemoteOptions { patience, stall: patience, ..remote.options.clone() };
                Self::Remote(Remote { options, ..remote.clone() })
            }
        }
    }

    /// What stands before every path in the storage.
    pub(crate) fn prefix(&self) -> &str {
        match self {
            Self::Local { .. } => "",
            Self::Remote(remote) => remote.prefix.as_ref().map(RepositoryPath::as_str).unwrap_or_default(),
        }
    }

    /// For how long a call is made again while its failure may pass. A folder's failures do not pass.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Local { .. } => Duration::ZERO,
            Self::Remote(remote) => remote.options.patience,
        }
    }

    /// How many files are best written at once: each waits in memory.
    pub(crate) fn writers(&self) -> usize {
        match self {
            // While one waits for the disk, the other hashes.
            Self::Local { .. } => 2,
            Self::Remote(remote) => remote.options.max_connections.get().min(MOST_AT_ONCE),
        }
    }

    /// How many threads read best at once: of a folder as many as there are cores, of a bucket as many as it has connections.
    pub(crate) fn readers(&self) -> usize {
        match self {
            Self::Local { .. } => std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
            Self::Remote(remote) => remote.options.max_connections.get().min(MOST_AT_ONCE),
        }
    }

    /// The folder of `path`, for the few things an object store has no word for (leftovers, syncing deletes).
    pub(crate) fn folder(&self, path: &RepositoryPath) -> Option<PathBuf> {
        match self {
            Self::Local { root } => Some(root.join(path.as_str())),
            Self::Remote(_) => None,
        }
    }

    /// The storage's root, when it is a folder.
    pub(crate) fn root(&self) -> Option<&Path> {
        match self {
            Self::Local { root } => Some(root),
            Self::Remote(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { root } => write!(f, "{}", root.display()),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

/// Why a string is not a repository path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is not relative and normal.
    #[error(
        "{path:?} is not a repository path: parts of letters, digits, '.', '_' and '-' are expected, parted by single \
         '/', none of them '.' or '..', such as default/data"
    )]
    NotARepositoryPath {
        /// What was given.
        path: String,
    },
}

/// The path of a repository below its storage, such as `default/data`: relative, `/`-separated, without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryPath(String);

impl RepositoryPath {
    /// Parses a path.
    ///
    /// # Errors
    /// [`PathError`] when a part is empty, `.`, `..`, longer than 253 bytes or holds other characters.
    pub fn parse(path: impl Into<String>) -> Result<Self, PathError> {
        let path = path.into();
        if path.split('/').all(is_part) && path.len() <= 1024 {
            Ok(Self(path))
        } else {
            Err(PathError::NotARepositoryPath { path })
        }
    }

    /// The path as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies below this folder of the storage.
    pub fn is_below(&self, folder: &str) -> bool {
        self.0.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The paths above this one: `a` and `a/b` for `a/b/c`.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

fn is_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 253 && part != "." && part != ".." && part.chars().all(allowed)
}

impl fmt::Display for RepositoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_and_normal() {
        for bad in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "a\\b", "ä"] {
            assert!(RepositoryPath::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["data", "default/data", "prefix/ns-1/claim.x_2", "..."] {
            assert!(RepositoryPath::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn what_is_below_a_folder_begins_with_all_of_its_name() {
        let path = RepositoryPath::parse("team-a/data").unwrap();
        assert!(path.is_below("team-a"));
        assert!(!["team", "team-a/data", "data", ""].iter().any(|folder| path.is_below(folder)));
    }

    #[test]
    fn ancestors_are_all_paths_above() {
        let path = RepositoryPath::parse("a/b/c").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
    }
}
