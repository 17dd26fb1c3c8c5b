//! The directory engine: a folder per volume, `<state>/volumes/<id>/data`. No root, works everywhere.
//!
//! What it does not do, and says so in its capabilities: it enforces no size (it remembers it, and refuses one that the
//! filesystem could not hold), a read-only snapshot is returned as it is, and a snapshot is a copy made file by file,
//! not one instant: of a file written to meanwhile, a shared copy shows one moment, a plain copy may mix several.
//! Where the filesystem can share blocks (XFS, btrfs), a snapshot costs no space.
//!
//! Being attached is a mark in the volume's folder, so that callers can handle it like the other engines.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use lvault_core::{Bytes, VolumeId};
use rustix::fs::statvfs;

use crate::copy::copy_tree;
use crate::engine::{Capabilities, Capacity, Change, NewSnapshot, NewVolume, Recovered, VolumeEngine, VolumeInfo};
use crate::error::EngineError;
use crate::locks::{Locks, hold, lock_folder};
use crate::record::Record;
use crate::store::{Store, sync_folder};

const NAME: &str = "directory";
const DATA: &str = "data";
const ATTACHED: &str = "attached";
/// The volume's folder is open to all: who may see the data is for the data's own modes to say.
const FOLDER_MODE: u32 = 0o755;

/// Volumes as folders; see the module's page.
#[derive(Debug)]
pub struct DirectoryEngine {
    store: Store,
    locks: Locks,
}

impl DirectoryEngine {
    /// Opens the volumes below a state folder, making the folder where it is missing.
    pub fn open(state: &Path) -> Result<Self, EngineError> {
        fs::create_dir_all(state).map_err(EngineError::io("making the state folder", state))?;
        let state = fs::canonicalize(state).map_err(EngineError::io("resolving", state))?;
        Ok(DirectoryEngine { store: Store::open(state.join("volumes"))?, locks: Locks::default() })
    }

    fn data(&self, id: &VolumeId) -> PathBuf {
        self.store.folder(id).join(DATA)
    }

    fn mark(&self, id: &VolumeId) -> PathBuf {
        self.store.folder(id).join(ATTACHED)
    }

    fn info(&self, record: Record) -> Result<VolumeInfo, EngineError> {
        let mark = self.mark(&record.id);
        let attached = mark.try_exists().map_err(EngineError::io("looking at", mark))?.then(|| self.data(&record.id));
        Ok(VolumeInfo {
            id: record.id,
            size: record.size,
            origin: record.origin,
            access: record.access,
            filesystem: None,
            attached,
            used: None,
            problems: Vec::new(),
        })
    }

    fn room_for(&self, id: &VolumeId, asked: Bytes) -> Result<(), EngineError> {
        let available = self.capacity()?.available;
        if asked > available {
            return Err(EngineError::NoSpace { id: id.clone(), asked, available });
        }
        Ok(())
    }
}

impl VolumeEngine for DirectoryEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enforces_size: false,
            enforces_read_only: false,
            atomic_snapshots: false,
            reflink: reflinks(self.store.root()),
            independent_snapshots: true,
            needs_root: false,
            filesystems: &[],
        }
    }

    fn capacity(&self) -> Result<Capacity, EngineError> {
        let root = self.store.root();
        let room = statvfs(root).map_err(EngineError::io("asking for the free space of", root))?;
        Ok(Capacity { total: Bytes(room.f_blocks * room.f_frsize), available: Bytes(room.f_bavail * room.f_frsize) })
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        self.store.records()?.into_iter().map(|record| self.info(record)).collect()
    }

    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        self.store.read(id)?.map(|record| self.info(record)).transpose()
    }

    fn ensure_volume(&self, new: &NewVolume) -> Result<Change, EngineError> {
        let lock = self.locks.of(&new.id);
        let _held = hold(&lock);
        if let Some(filesystem) = new.filesystem {
            return Err(EngineError::Unsupported {
                what: format!("a volume with {filesystem}"),
                engine: NAME,
                remedy: "its volumes are folders of the host's filesystem; leave the filesystem out, or use the image engine",
            });
        }
        if let Some(there) = self.store.read(&new.id)? {
            return there.is_volume(new);
        }
        if new.size == Bytes(0) {
            let least = Bytes(1);
            return Err(EngineError::TooSmall { id: new.id.clone(), asked: new.size, least, what: "a volume" });
        }
        self.room_for(&new.id, new.size)?;
        let staged = self.store.stage(&new.id)?;
        let data = staged.path().join(DATA);
        fs::create_dir(&data).map_err(EngineError::io("making the folder", &data))?;
        staged.publish(&Record::volume(new, None), FOLDER_MODE)?;
        Ok(Change::Changed)
    }

    fn ensure_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError> {
        let locks = self.locks.both(&new.id, &new.source);
        let _held = (hold(&locks.0), locks.1.as_deref().map(hold));
        if let Some(there) = self.store.read(&new.id)? {
            return there.is_snapshot(new);
        }
        let source = self.store.require(&new.source)?;
        let staged = self.store.stage(&new.id)?;
        let copied = copy_tree(&self.data(&new.source), &staged.path().join(DATA))?;
        tracing::debug!(snapshot = %new.id, copied.entries, copied.shared, "copied");
        staged.publish(&Record::snapshot(new, &source), FOLDER_MODE)?;
        Ok(Change::Changed)
    }

    fn ensure_size(&self, id: &VolumeId, size: Bytes) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let record = self.store.require(id)?;
        if record.grows_to(size)? == Change::Unchanged {
            return Ok(Change::Unchanged);
        }
        self.room_for(id, Bytes(size.0 - record.size.0))?;
        Record { size, ..record }.write(&self.store.folder(id))?;
        Ok(Change::Changed)
    }

    fn ensure_attached(&self, id: &VolumeId) -> Result<PathBuf, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        self.store.require(id)?;
        let (data, mark) = (self.data(id), self.mark(id));
        if !data.is_dir() {
            return Err(EngineError::Damaged { path: data, why: "the folder with the files is missing".into() });
        }
        File::create(&mark).map_err(EngineError::io("marking as attached with", &mark))?;
        sync_folder(&self.store.folder(id))?;
        Ok(data)
    }

    fn ensure_detached(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let mark = self.mark(id);
        match fs::remove_file(&mark) {
            Ok(()) => sync_folder(&self.store.folder(id)).map(|()| Change::Changed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Change::Unchanged),
            Err(error) => Err(EngineError::io("removing the mark", mark)(error)),
        }
    }

    fn ensure_absent(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let mark = self.mark(id);
        if mark.try_exists().map_err(EngineError::io("looking at", &mark))? {
            return Err(EngineError::Attached { id: id.clone(), at: self.data(id).display().to_string() });
        }
        let _tools = lock_folder(&self.store.folder(id))?;
        self.store.remove(id)
    }

    fn recover(&self) -> Result<Vec<Recovered>, EngineError> {
        let mut recovered = Vec::new();
        for leftover in self.store.leftovers(None)? {
            let lock = self.locks.of(&leftover.id);
            let _held = hold(&lock);
            match leftover.sweep() {
                Ok(swept) => recovered.push(swept),
                Err(error) => tracing::warn!(%error, "left for the next start"),
            }
        }
        Ok(recovered)
    }

    fn ensure_closed(&self) -> Result<Change, EngineError> {
        Ok(Change::Unchanged)
    }
}

/// Whether files in this folder can share blocks, found out by sharing some.
pub(crate) fn reflinks(folder: &Path) -> bool {
    let clone = || -> io::Result<()> {
        let source = tempfile::tempfile_in(folder)?;
        rustix::fs::ftruncate(&source, 4096)?;
        let target = tempfile::tempfile_in(folder)?;
        Ok(rustix::fs::ioctl_ficlone(&target, &source)?)
    };
    clone().is_ok()
}
