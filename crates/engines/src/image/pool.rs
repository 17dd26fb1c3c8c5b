//! The pool: the filesystem with reflinks on which the images lie.
//!
//! Where the state folder's own filesystem can share blocks, the pool is a folder of it. Elsewhere it is a sparse XFS
//! image, `<state>/pool.xfs`, mounted at `<state>/pool`. What holds: nothing is read or written below `<state>/pool`
//! unless it is the very filesystem that was recognised when it was mounted; an unmounted, empty folder is an error and
//! never an empty pool.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use lvault_core::{Bytes, VolumeId};
use rustix::fs::statvfs;

use super::kernel::{FileId, Kernel};
use super::mounting::{mount, mount_error, unmount, wait_for_release};
use crate::directory::reflinks;
use crate::engine::{Change, Filesystem, Options};
use crate::error::{EngineError, Retry};
use crate::store::{Store, sync_folder};
use crate::tools::{Tool, Tools};

const FILE: &str = "pool.xfs";
const HALF_MADE: &str = ".pool-";
/// The name of the image in a volume's folder.
const IMAGE: &str = "image";

/// Where the images are; see the module's page.
#[derive(Debug)]
pub(super) struct Pool {
    folder: PathBuf,
    file: Option<PathBuf>,
    store: Store,
    /// The device number of the filesystem that was recognised; 0 while there is none.
    device: AtomicU64,
}

impl Pool {
    /// Opens the pool of a state folder: makes it where there is none, and mounts it where it is a file.
    pub(super) fn open(state: &Path, kernel: &Kernel, options: &Options) -> Result<Pool, EngineError> {
        let (folder, file) = (state.join("pool"), state.join(FILE));
        fs::create_dir_all(&folder).map_err(EngineError::io("making the folder", &folder))?;
        sweep(state)?;
        let has = |path: &Path| path.try_exists().map_err(EngineError::io("looking at", path));
        let own = has(&file)? || !(has(&folder.join("volumes"))? || reflinks(&folder));
        if own && !has(&file)? {
            make(state, &file, &kernel.tools, options)?;
        }
        let store = folder.join("volumes");
        if own {
            mount_pool(&folder, &file, kernel)?;
        }
        if !own && device_of(&folder)? != device_of(state)? {
            let what = "a filesystem that is mounted there without a pool.xfs beside it".to_owned();
            return Err(EngineError::Foreign { what, path: folder });
        }
        let pool = Pool { folder, file: own.then_some(file), store: Store::open(store)?, device: AtomicU64::new(0) };
        pool.recognise()?;
        Ok(pool)
    }

    fn recognise(&self) -> Result<(), EngineError> {
        self.device.store(device_of(&self.folder)?, Ordering::SeqCst);
        Ok(())
    }

    /// The volumes, once it is certain that they are the pool's.
    pub(super) fn store(&self) -> Result<&Store, EngineError> {
        if device_of(&self.folder)? == self.device.load(Ordering::SeqCst) {
            Ok(&self.store)
        } else {
            Err(EngineError::PoolGone { path: self.folder.clone() })
        }
    }

    /// The pool's file, where it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where it is mounted, or simply is.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The image of a volume.
    pub(super) fn image(&self, store: &Store, id: &VolumeId) -> PathBuf {
        store.folder(id).join(IMAGE)
    }

    /// The image in a volume's folder, wherever that is.
    pub(super) fn image_in(folder: &Path) -> PathBuf {
        folder.join(IMAGE)
    }

    /// Mounts the pool where it is not.
    pub(super) fn ensure_mounted(&self, kernel: &Kernel) -> Result<Change, EngineError> {
        let Some(file) = &self.file else { return Ok(Change::Unchanged) };
        let change = mount_pool(&self.folder, file, kernel)?;
        self.recognise()?;
        Ok(change)
    }

    /// Unmounts the pool where it is a file. Busy while a volume is attached.
    pub(super) fn ensure_unmounted(&self, kernel: &Kernel) -> Result<Change, EngineError> {
        let Some(file) = &self.file else { return Ok(Change::Unchanged) };
        let Some(id) = FileId::of(file)? else { return Ok(Change::Unchanged) };
        let view = kernel.view()?;
        if view.mounts_of(id).iter().all(|mount| mount.point != self.folder) {
            return Ok(Change::Unchanged);
        }
        self.device.store(0, Ordering::SeqCst);
        let outcome = unmount(&self.folder, "the pool").and_then(|()| wait_for_release(kernel, id));
        if outcome.is_err() {
            self.recognise()?;
        }
        outcome.map(|()| Change::Changed)
    }
}

fn device_of(path: &Path) -> Result<u64, EngineError> {
    Ok(fs::metadata(path).map_err(EngineError::io("looking at", path))?.dev())
}

/// Removes what a crash has left of a pool in the making.
fn sweep(state: &Path) -> Result<(), EngineError> {
    let entries = fs::read_dir(state).map_err(EngineError::io("listing", state))?;
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(HALF_MADE.as_bytes()) {
            fs::remove_file(entry.path()).map_err(EngineError::io("removing", entry.path()))?;
        }
    }
    Ok(())
}

fn make(state: &Path, file: &Path, tools: &Tools, options: &Options) -> Result<(), EngineError> {
    let size = pool_size(state, options)?;
    let private = fs::Permissions::from_mode(0o600);
    let new = tempfile::Builder::new().prefix(HALF_MADE).permissions(private).tempfile_in(state);
    let new = new.map_err(EngineError::io("making the pool in", state))?;
    new.as_file().set_len(size.0).map_err(EngineError::io("making room for the pool in", state))?;
    let args = [OsStr::new("-q"), OsStr::new("-f"), OsStr::new("-m"), OsStr::new("reflink=1"), new.path().as_os_str()];
    let attempted = format!("making the pool of {size} in {}", state.display());
    tools.run(Tool::MkfsXfs, &args, None, &attempted)?.ok(&attempted, Retry::Never)?;
    new.as_file().sync_all().map_err(EngineError::io("making durable the pool", file))?;
    new.persist_noclobber(file).map_err(|error| EngineError::io("giving its name to", file)(error.error))?;
    sync_folder(state)?;
    tracing::info!(pool = %file.display(), %size, "made");
    Ok(())
}

/// Half of what is free, unless told otherwise. It is a sparse file: it takes what is written to it.
fn pool_size(state: &Path, options: &Options) -> Result<Bytes, EngineError> {
    let room = statvfs(state).map_err(EngineError::io("asking for the free space of", state))?;
    let free = room.f_bavail * room.f_frsize;
    let size = options.pool_size.map_or(free / 2, |size| size.0) / 4096 * 4096;
    let least = Filesystem::Xfs.least_size();
    if size < least.0 {
        let (free, size) = (Bytes(free), Bytes(size));
        return Err(EngineError::PoolTooSmall { path: state.to_owned(), size, least, free });
    }
    if size > free {
        let (free, size) = (Bytes(free), Bytes(size));
        return Err(EngineError::PoolTooLarge { path: state.to_owned(), size, free });
    }
    Ok(Bytes(size))
}

/// Mounts the pool's file, unless it is what is mounted there.
fn mount_pool(folder: &Path, file: &Path, kernel: &Kernel) -> Result<Change, EngineError> {
    let missing = || EngineError::Damaged { path: file.to_owned(), why: "it is missing".into() };
    let id = FileId::of(file)?.ok_or_else(missing)?;
    let view = kernel.view()?;
    match view.at(folder) {
        Some(there) if view.backing(there).is_some_and(|device| device.backing == id) => return Ok(Change::Unchanged),
        Some(there) => {
            let what = format!("a mounted {} filesystem", there.filesystem);
            return Err(EngineError::Foreign { what, path: folder.to_owned() });
        }
        None => {}
    }
    // What is freed in the pool goes back to the host's filesystem.
    mount(&kernel.tools, file, folder, Filesystem::Xfs, "loop,discard", None).map_err(mount_error("the pool"))?;
    let view = kernel.view()?;
    if view.mounts_of(id).iter().any(|mount| mount.point == folder) {
        let file = File::open(folder).map_err(EngineError::io("opening", folder))?;
        file.set_permissions(fs::Permissions::from_mode(0o711)).map_err(EngineError::io("opening up", folder))?;
        Ok(Change::Changed)
    } else {
        Err(EngineError::PoolGone { path: folder.to_owned() })
    }
}
