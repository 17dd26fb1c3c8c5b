//! Which repositories a storage holds.

use crate::location::{Location, RepositoryPath};
use crate::storage::{Storage, StorageError};

/// Repositories are looked for this many folders deep.
const DEPTH: usize = 4;
/// No more folders are looked into.
const FOLDERS: usize = 20_000;

/// The repositories of a storage, in the order of their paths: everything at most four folders deep that has a config and
/// keys. What lies inside a repository is not looked at. Changes nothing.
///
/// # Errors
/// [`StorageError`] when a folder cannot be listed. One that vanishes meanwhile is passed over.
pub fn repositories(location: &Location) -> Result<Vec<RepositoryPath>, StorageError> {
    let storage = Storage::of_location(location)?;
    let (mut found, mut looked) = (Vec::new(), 0);
    let mut level = vec![String::new()];
    for _ in 0..=DEPTH {
        let mut below = Vec::new();
        for folder in level {
            looked += 1;
            if looked > FOLDERS {
                tracing::warn!(storage = storage.shown(), "it holds so many folders that not all were looked into");
                return Ok(found);
            }
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
        level = below;
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Password, Repository};

    #[test]
    fn repositories_are_found_at_any_depth_and_nothing_inside_them() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Local { root: folder.path().to_owned() };
        assert_eq!(repositories(&location).unwrap(), []);
        let password = Password::new("p").unwrap();
        for path in ["b/c/d", "a", "b/a"] {
            Repository::open_or_init(&location, &RepositoryPath::parse(path).unwrap(), &password).unwrap();
        }
        for other in ["a/data/x/keys", "lost+found/y", "notes/keys"] {
            std::fs::create_dir_all(folder.path().join(other)).unwrap();
        }
        std::fs::write(folder.path().join("a/data/x/config"), "").unwrap();
        let found = repositories(&location).unwrap();
        assert_eq!(found.iter().map(RepositoryPath::as_str).collect::<Vec<_>>(), ["a", "b/a", "b/c/d"]);
    }
}
