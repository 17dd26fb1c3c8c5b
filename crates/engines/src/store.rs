//! The folders in which an engine keeps its volumes: `<root>/<id>/`, one per volume, each with its record.
//!
//! What holds: a volume is made in `.new-<id>.<random>` and appears under its own name by one rename, after everything
//! in it is durable; a removal renames it to `.gone-<id>.<random>` first. So a name without a dot is a finished volume,
//! whatever crashed when, and everything else can be swept.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lvault_core::VolumeId;

use crate::engine::{Change, Recovered};
use crate::error::EngineError;
use crate::record::Record;

const HALF_MADE: &str = ".new-";
const HALF_REMOVED: &str = ".gone-";

/// The folder of all volumes of one engine.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// What a crash has left of one volume.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) path: PathBuf,
    pub(crate) id: VolumeId,
    half_made: bool,
}

impl Leftover {
    /// Removes it.
    pub(crate) fn sweep(self) -> Result<Recovered, EngineError> {
        remove_tree(&self.path)?;
        Ok(if self.half_made { Recovered::HalfMade(self.id) } else { Recovered::HalfRemoved(self.id) })
    }
}

impl Store {
    /// The store in this folder; makes the folder where it is missing.
    pub(crate) fn open(root: PathBuf) -> Result<Store, EngineError> {
        fs::create_dir_all(&root).map_err(EngineError::io("making the folder", &root))?;
        Ok(Store { root })
    }

    /// Where all volumes are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a volume is, or would be.
    pub(crate) fn folder(&self, id: &VolumeId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// The finished volumes, in order.
    pub(crate) fn ids(&self) -> Result<Vec<VolumeId>, EngineError> {
        let mut ids: Vec<_> = self.names()?.iter().filter_map(|name| VolumeId::parse(name).ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The record of every finished volume whose record can be read; the others are logged.
    pub(crate) fn records(&self) -> Result<Vec<Record>, EngineError> {
        let mut records = Vec::new();
        for id in self.ids()? {
            match self.read(&id) {
                Ok(record) => records.extend(record),
                Err(error) => tracing::warn!(volume = %id, %error, "left out of the list"),
            }
        }
        Ok(records)
    }

    fn names(&self) -> Result<Vec<String>, EngineError> {
        let listing = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(&self.root)?.collect::<io::Result<Vec<_>>>()?;
            Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        };
        listing().map_err(EngineError::io("listing", &self.root))
    }

    /// The record of a volume, or `None` when there is no such volume.
    pub(crate) fn read(&self, id: &VolumeId) -> Result<Option<Record>, EngineError> {
        let folder = self.folder(id);
        if !folder.try_exists().map_err(EngineError::io("looking at", &folder))? {
            return Ok(None);
        }
        match Record::read(&folder) {
            Ok(record) if record.id == *id => Ok(Some(record)),
            Ok(record) => Err(EngineError::Damaged {
                path: folder,
                why: format!("its record names volume {}, so it was copied or renamed by hand", record.id),
            }),
            // It may have been removed since we looked.
            Err(_) if !folder.exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The record of a volume that has to be there.
    pub(crate) fn require(&self, id: &VolumeId) -> Result<Record, EngineError> {
        self.read(id)?.ok_or_else(|| EngineError::NotFound { id: id.clone() })
    }

    /// An empty folder in which a volume can be made, unseen. Unless published, it is removed when dropped.
    pub(crate) fn stage(&self, id: &VolumeId) -> Result<Staged<'_>, EngineError> {
        for leftover in self.leftovers(Some(id))? {
            leftover.sweep()?;
        }
        let path = self.hidden(HALF_MADE, id)?;
        Ok(Staged { store: self, path, id: id.clone() })
    }

    fn hidden(&self, prefix: &str, id: &VolumeId) -> Result<PathBuf, EngineError> {
        let made = tempfile::Builder::new().prefix(&format!("{prefix}{id}.")).tempdir_in(&self.root);
        Ok(made.map_err(EngineError::io("making a folder in", &self.root))?.keep())
    }

    /// Removes a volume's folder. Its name is free at once; bytes that a crash leaves are a [`Leftover`].
    pub(crate) fn remove(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let folder = self.folder(id);
        let mut change = Change::Unchanged;
        if folder.try_exists().map_err(EngineError::io("looking at", &folder))? {
            let gone = self.hidden(HALF_REMOVED, id)?;
            // A rename replaces an empty folder.
            fs::rename(&folder, &gone).map_err(EngineError::io("taking away", &folder))?;
            sync_folder(&self.root)?;
            change = Change::Changed;
        }
        for leftover in self.leftovers(Some(id))? {
            leftover.sweep()?;
            change = Change::Changed;
        }
        Ok(change)
    }

    /// What crashes have left, of one volume or of all.
    pub(crate) fn leftovers(&self, of: Option<&VolumeId>) -> Result<Vec<Leftover>, EngineError> {
        let mut found = Vec::new();
        for name in self.names()? {
            let parsed = [(HALF_MADE, true), (HALF_REMOVED, false)].into_iter().find_map(|(prefix, half_made)| {
                let (id, _random) = name.strip_prefix(prefix)?.split_once('.')?;
                Some((VolumeId::parse(id).ok()?, half_made))
            });
            if let Some((id, half_made)) = parsed
                && of.is_none_or(|of| *of == id)
            {
                found.push(Leftover { path: self.root.join(&name), id, half_made });
            }
        }
        Ok(found)
    }
}

/// A volume in the making.
#[derive(Debug)]
pub(crate) struct Staged<'s> {
    store: &'s Store,
    path: PathBuf,
    id: VolumeId,
}

impl Staged<'_> {
    /// The folder to make it in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the volume its name. All data in it must be durable already; the record and the name are when this
    /// returns. After a crash in the middle the volume is there whole, or it is a leftover.
    pub(crate) fn publish(self, record: &Record, mode: u32) -> Result<(), EngineError> {
        record.write(&self.path)?;
        let path = &self.path;
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(EngineError::io("opening up", path))?;
        sync_folder(path)?;
        let folder = self.store.folder(&self.id);
        // A volume's folder is never empty, and a rename replaces no folder that is not.
        fs::rename(path, &folder).map_err(EngineError::io("giving its name to", &folder))?;
        sync_folder(&self.store.root)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "left for the next sweep");
        }
    }
}

/// Makes a folder's entries durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), EngineError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(EngineError::io("syncing", path))
}

/// Removes a folder and all in it, following no symbolic link. Without root, folders that their owner may not write to
/// are opened up first.
pub(crate) fn remove_tree(path: &Path) -> Result<(), EngineError> {
    let outcome = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path).and_then(|()| fs::remove_dir_all(path))
        }
        other => other,
    };
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(EngineError::io("removing", path)),
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Access;
    use lvault_core::Bytes;

    fn record(id: &str) -> Record {
        let id = VolumeId::parse(id).unwrap();
        Record { id, size: Bytes(1), filesystem: None, origin: None, access: Access::ReadWrite, growing_to: None }
    }

    #[test]
    fn a_volume_is_seen_only_when_published_and_unpublished_ones_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().join("volumes")).unwrap();
        let (a, b) = (record("a"), record("a-b"));
        let staged = store.stage(&a.id).unwrap();
        assert_eq!(store.ids().unwrap(), []);
        staged.publish(&a, 0o755).unwrap();
        assert_eq!(store.read(&a.id).unwrap(), Some(a.clone()));

        // What a crash leaves: a folder whose owner did not live to drop it.
        std::mem::forget(store.stage(&b.id).unwrap());
        let kept = store.hidden(HALF_REMOVED, &b.id).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        fs::create_dir(root.path().join("volumes/.new-other")).unwrap();
        assert_eq!(store.ids().unwrap(), std::slice::from_ref(&a.id));
        assert_eq!(store.leftovers(Some(&a.id)).unwrap().len(), 0, "a-b is another volume");
        let mut swept: Vec<_> =
            store.leftovers(None).unwrap().into_iter().map(|leftover| leftover.sweep().unwrap()).collect();
        swept.sort_by_key(ToString::to_string);
        assert_eq!(swept, [Recovered::HalfRemoved(b.id.clone()), Recovered::HalfMade(b.id)]);
        assert!(root.path().join("volumes/.new-other").exists(), "what is not ours is left alone");

        drop(store.stage(&a.id).unwrap());
        assert_eq!(store.leftovers(None).unwrap().len(), 0, "a dropped stage is gone");
        assert_eq!(store.remove(&a.id).unwrap(), Change::Changed);
        assert_eq!(store.remove(&a.id).unwrap(), Change::Unchanged);
        assert_eq!(store.read(&a.id).unwrap(), None);
    }

    #[test]
    fn a_published_name_is_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().to_owned()).unwrap();
        let a = record("a");
        let (first, second) = (store.stage(&a.id).unwrap(), Store::clone(&store));
        let second = second.hidden(HALF_MADE, &a.id).map(|path| Staged { store: &store, path, id: a.id.clone() });
        first.publish(&a, 0o700).unwrap();
        assert!(second.unwrap().publish(&a, 0o700).is_err());
    }

    #[test]
    fn a_copied_folder_and_an_unreadable_one_hide_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().to_owned()).unwrap();
        for name in ["a", "b", "c"] {
            store.stage(&record(name).id).unwrap().publish(&record(name), 0o700).unwrap();
        }
        fs::write(root.path().join("b/meta.json"), "{").unwrap();
        fs::copy(root.path().join("a/meta.json"), root.path().join("c/meta.json")).unwrap();
        assert_eq!(store.records().unwrap(), [record("a")]);
        assert!(matches!(store.read(&record("b").id), Err(EngineError::Damaged { .. })));
        assert!(matches!(store.read(&record("c").id), Err(EngineError::Damaged { .. })));
    }
}
