//! The image engine: a sparse image per volume on a filesystem with reflinks, attached by loop device. Needs root.
//!
//! `<pool>/volumes/<id>/image` is the volume, `<state>/mnt/<id>` is where it is mounted. A snapshot is a clone of the
//! image, cut while the source's filesystem is frozen ([`freeze`]); it shares all blocks with the source until either
//! changes. What is attached is asked of the kernel each time ([`kernel`]); how much fits is in [`capacity`].

mod capacity;
pub(crate) mod freeze;
mod grow;
pub(crate) mod kernel;
pub(crate) mod mounting;
mod pool;
mod probe;
mod recover;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lvault_core::{Bytes, VolumeId};
use rustix::fs::ioctl_ficlone;

use crate::engine::{
    Access, Capabilities, Capacity, Change, Filesystem, NewSnapshot, NewVolume, Options, Recovered, VolumeEngine,
    VolumeInfo,
};
use crate::error::EngineError;
use crate::filesystem;
use crate::locks::{Locks, hold, lock_folder};
use crate::record::Record;
use crate::store::{Staged, Store};
use crate::tools::{Tool, Tools};
use capacity::{Promises, allocated, room_to_share};
use freeze::{NotFrozen, while_frozen};
use kernel::{FileId, Kernel, Mount, View};
use mounting::{mount, mount_error, unmount, wait_for_release};
use pool::Pool;

const NAME: &str = "image";
const FILESYSTEMS: [Filesystem; 2] = [Filesystem::Ext4, Filesystem::Xfs];
/// Only root reads an image past its filesystem's own rights.
const FOLDER_MODE: u32 = 0o700;
/// Images are whole blocks of the filesystems on them.
const BLOCK: u64 = 4096;
/// In a source's folder while it is frozen, for [`recover`].
const FROZEN: &str = "frozen";

/// Volumes as images; see the module's page.
#[derive(Debug)]
pub struct ImageEngine {
    mounts: PathBuf,
    pool: Pool,
    kernel: Kernel,
    locks: Locks,
    promises: Promises,
    options: Options,
}

impl ImageEngine {
    /// Opens the volumes of a state folder, making and mounting the pool where needed. What is missing for it (root,
    /// loop devices, a program) is named in the error, with what helps.
    pub fn open(state: &Path, options: Options) -> Result<Self, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EngineError::NeedsRoot);
        }
        let tools = Tools::find(options.tool_limit);
        tools.require(&Tool::IMAGE)?;
        kernel::require_loop_control()?;
        let mounts = state.join("mnt");
        fs::create_dir_all(&mounts).map_err(EngineError::io("making the folder", &mounts))?;
        // The mount table knows real paths only.
        let state = fs::canonicalize(state).map_err(EngineError::io("resolving", state))?;
        let kernel = Kernel::new(tools);
        let pool = Pool::open(&state, &kernel, &options)?;
        let (locks, promises) = (Locks::default(), Promises::default());
        Ok(ImageEngine { mounts: state.join("mnt"), pool, kernel, locks, promises, options })
    }

    fn point(&self, id: &VolumeId) -> PathBuf {
        self.mounts.join(id.as_str())
    }

    fn image_of(&self, store: &Store, id: &VolumeId) -> Result<FileId, EngineError> {
        let path = self.pool.image(store, id);
        FileId::of(&path)?.ok_or(EngineError::Damaged { path, why: "the image is missing".into() })
    }

    fn info(&self, store: &Store, record: Record, view: &View) -> Result<VolumeInfo, EngineError> {
        let path = self.pool.image(store, &record.id);
        let point = self.point(&record.id);
        let ours = |mount: &Mount| mount.point == point;
        let attached = FileId::of(&path)?.is_some_and(|image| view.mounts_of(image).into_iter().any(ours));
        Ok(VolumeInfo {
            used: Some(Bytes(allocated(&path)?)),
            id: record.id,
            size: record.size,
            origin: record.origin,
            access: record.access,
            filesystem: record.filesystem,
            attached: attached.then_some(point),
            problems: Vec::new(),
        })
    }

    /// Whether a mount is of an image that lies, or lay, in our pool, even if it belongs to no volume any more.
    fn is_of_our_pool(&self, store: &Store, view: &View, mount: &Mount) -> bool {
        view.backing(mount).is_some_and(|device| self.backed_by_our_pool(store, device))
    }

    fn backed_by_our_pool(&self, store: &Store, device: &kernel::LoopDevice) -> bool {
        let pool = FileId::of(self.pool.folder()).ok().flatten();
        pool.is_some_and(|pool| pool.device == device.backing.device) && device.backing_path.starts_with(store.root())
    }

    /// Mounts a volume at its mount point. The caller holds its lock.
    fn attach(&self, store: &Store, record: &Record, held: &File) -> Result<PathBuf, EngineError> {
        let (id, point) = (&record.id, self.point(&record.id));
        let image = self.image_of(store, id)?;
        loop {
            let view = self.kernel.view()?;
            let Some(there) = view.at(&point) else { break };
            if view.mounts_of(image).contains(&there) {
                return Ok(point);
            }
            if !self.is_of_our_pool(store, &view, there) {
                let what = format!("a mounted {} filesystem", there.filesystem);
                return Err(EngineError::Foreign { what, path: point });
            }
            tracing::warn!(volume = %id, "unmounting a former volume of this name");
            unmount(&point, &format!("a former volume {id}"))?;
        }
        fs::create_dir_all(&point).map_err(EngineError::io("making the mount point", &point))?;
        let filesystem = self.filesystem(store, record)?;
        let options = mounting::options(filesystem, record.access, record.origin.is_some());
        mount(&self.kernel.tools, &self.pool.image(store, id), &point, filesystem, options, Some(held))
            .map_err(mount_error(&format!("volume {id} ({filesystem})")))?;
        let view = self.kernel.view()?;
        match view.at(&point) {
            Some(there) if view.mounts_of(image).contains(&there) => Ok(point),
            Some(_) | None => Err(EngineError::Foreign { what: "something mounted meanwhile".into(), path: point }),
        }
    }

    fn filesystem(&self, store: &Store, record: &Record) -> Result<Filesystem, EngineError> {
        let path = store.folder(&record.id);
        record.filesystem.ok_or(EngineError::Damaged { path, why: "its record names no filesystem".into() })
    }

    /// Unmounts what of ours is at a volume's mount point. The caller holds its lock.
    fn detach(&self, store: &Store, id: &VolumeId) -> Result<Change, EngineError> {
        let point = self.point(id);
        let image = FileId::of(&self.pool.image(store, id))?;
        let mut change = Change::Unchanged;
        loop {
            let view = self.kernel.view()?;
            let Some(there) = view.at(&point) else { break };
            let is_image = image.is_some_and(|image| view.mounts_of(image).contains(&there));
            if !is_image && !self.is_of_our_pool(store, &view, there) {
                tracing::warn!(path = %point.display(), "a foreign mount is left alone");
                return Ok(change);
            }
            unmount(&point, &format!("volume {id}"))?;
            change = Change::Changed;
        }
        if let Some(image) = image {
            wait_for_release(&self.kernel, image)?;
        }
        self.remove_point(&point);
        Ok(change)
    }

    /// An unmounted mount point is of no use; one that holds something is for a person to look at.
    fn remove_point(&self, point: &Path) {
        if point.exists()
            && let Err(error) = fs::remove_dir(point)
        {
            tracing::warn!(path = %point.display(), %error, "left");
        }
    }

    fn make_image(&self, staged: &Staged<'_>, new: &NewVolume, filesystem: Filesystem) -> Result<(), EngineError> {
        let path = Pool::image_in(staged.path());
        let image = create(&path)?;
        image.set_len(whole_blocks(new.size)).map_err(EngineError::io("giving its size to", &path))?;
        let held = lock_folder(staged.path())?;
        filesystem::make(&self.kernel.tools, &new.id, filesystem, &path, held.as_ref())?;
        image.sync_all().map_err(EngineError::io("making durable", path))
    }

    /// Clones the source's image into a staged folder: frozen where it is mounted for writing.
    fn cut(&self, store: &Store, staged: &Staged<'_>, source: &Record, new: &VolumeId) -> Result<(), EngineError> {
        let (from, into) = (self.pool.image(store, &source.id), Pool::image_in(staged.path()));
        let (from_file, into_file) = (File::open(&from).map_err(EngineError::io("opening", &from))?, create(&into)?);
        let clone = || ioctl_ficlone(&into_file, &from_file).map_err(EngineError::io("cloning", &from));
        let view = self.kernel.view()?;
        let mounts = view.mounts_of(self.image_of(store, &source.id)?);
        match mounts.into_iter().find(|mount| !mount.read_only) {
            Some(mount) => self.cut_frozen(store, &source.id, &mount.point, clone)?,
            None => {
                clone()?;
                if source.access == Access::ReadWrite {
                    self.settle(store, staged, source, new)?;
                }
            }
        }
        into_file.sync_all().map_err(EngineError::io("making durable", into))
    }

    /// Lets the filesystem of a clone recover. Its source is not mounted, but may not have been unmounted either when
    /// the machine crashed: then its latest changes stand in the journal only, which a read-only mount does not look
    /// at. The source is for its own next mount to recover.
    fn settle(&self, store: &Store, staged: &Staged<'_>, source: &Record, new: &VolumeId) -> Result<(), EngineError> {
        let (image, point) = (Pool::image_in(staged.path()), self.point(new));
        self.detach(store, new)?;
        fs::create_dir_all(&point).map_err(EngineError::io("making the mount point", &point))?;
        let filesystem = self.filesystem(store, source)?;
        let held = lock_folder(staged.path())?;
        let options = mounting::options(filesystem, Access::ReadWrite, true);
        mount(&self.kernel.tools, &image, &point, filesystem, options, held.as_ref())
            .map_err(mount_error(&format!("a clone of volume {} ({filesystem})", source.id)))?;
        unmount(&point, &format!("a clone of volume {}", source.id))?;
        self.remove_point(&point);
        FileId::of(&image)?.map_or(Ok(()), |image| wait_for_release(&self.kernel, image))
    }

    fn cut_frozen(
        &self,
        store: &Store,
        source: &VolumeId,
        point: &Path,
        clone: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        // What is written out before need not be while writers wait.
        let root = File::open(point).map_err(EngineError::io("opening", point))?;
        rustix::fs::syncfs(&root).map_err(EngineError::io("writing out", point))?;
        drop(root);
        let mark = store.folder(source).join(FROZEN);
        File::create(&mark).and_then(|file| file.sync_all()).map_err(EngineError::io("noting the freeze in", &mark))?;
        let budget = self.options.freeze_budget;
        match while_frozen(&self.kernel.tools, point, budget, clone) {
            Ok(()) => {}
            // The note stays: a guard that is still waiting for its freeze may die before it thaws.
            Err(NotFrozen::Budget) => return Err(EngineError::FreezeBudget { id: source.clone(), budget }),
            Err(NotFrozen::Failed(reason)) => return Err(EngineError::Freeze { id: source.clone(), reason }),
            Err(NotFrozen::Work(error)) => {
                fs::remove_file(&mark).map_err(EngineError::io("removing the note", mark))?;
                return Err(error);
            }
        }
        fs::remove_file(&mark).map_err(EngineError::io("removing the note", mark))
    }
}

impl VolumeEngine for ImageEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enforces_size: true,
            enforces_read_only: true,
            atomic_snapshots: true,
            reflink: true,
            independent_snapshots: true,
            needs_root: true,
            filesystems: &FILESYSTEMS,
        }
    }

    fn capacity(&self) -> Result<Capacity, EngineError> {
        self.promises.capacity(&self.pool)
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        let store = self.pool.store()?;
        let view = self.kernel.view()?;
        store.records()?.into_iter().map(|record| self.info(store, record, &view)).collect()
    }

    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        let store = self.pool.store()?;
        let Some(record) = store.read(id)? else { return Ok(None) };
        let view = self.kernel.view()?;
        self.info(store, record, &view).map(Some)
    }

    fn ensure_volume(&self, new: &NewVolume) -> Result<Change, EngineError> {
        let lock = self.locks.of(&new.id);
        let _held = hold(&lock);
        let store = self.pool.store()?;
        if let Some(there) = store.read(&new.id)? {
            return there.is_volume(new);
        }
        let filesystem = new.filesystem.unwrap_or(Filesystem::Ext4);
        if filesystem == Filesystem::Btrfs {
            return Err(no_btrfs());
        }
        let least = filesystem.least_size();
        if new.size < least {
            let what = filesystem.name();
            return Err(EngineError::TooSmall { id: new.id.clone(), asked: new.size, least, what });
        }
        let _promise = self.promises.keep(&self.pool, &new.id, new.size)?;
        let staged = store.stage(&new.id)?;
        self.make_image(&staged, new, filesystem)?;
        staged.publish(&Record::volume(new, Some(filesystem)), FOLDER_MODE)?;
        Ok(Change::Changed)
    }

    fn ensure_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError> {
        let locks = self.locks.both(&new.id, &new.source);
        let _held = (hold(&locks.0), locks.1.as_deref().map(hold));
        let store = self.pool.store()?;
        if let Some(there) = store.read(&new.id)? {
            return there.is_snapshot(new);
        }
        let source = store.require(&new.source)?;
        room_to_share(&self.pool, &new.source)?;
        let _promise = match new.access {
            Access::ReadOnly => None,
            Access::ReadWrite => Some(self.promises.keep(&self.pool, &new.id, source.size)?),
        };
        let _tools = lock_folder(&store.folder(&new.source))?;
        let staged = store.stage(&new.id)?;
        self.cut(store, &staged, &source, &new.id)?;
        staged.publish(&Record::snapshot(new, &source), FOLDER_MODE)?;
        Ok(Change::Changed)
    }

    fn ensure_size(&self, id: &VolumeId, size: Bytes) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let store = self.pool.store()?;
        let record = store.require(id)?;
        if record.grows_to(size)? == Change::Unchanged {
            return Ok(Change::Unchanged);
        }
        self.grow(store, record, size)
    }

    fn ensure_attached(&self, id: &VolumeId) -> Result<PathBuf, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let store = self.pool.store()?;
        let record = store.require(id)?;
        let Some(tools) = lock_folder(&store.folder(id))? else {
            return Err(EngineError::NotFound { id: id.clone() });
        };
        self.attach(store, &record, &tools)
    }

    fn ensure_detached(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        self.detach(self.pool.store()?, id)
    }

    fn ensure_absent(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let store = self.pool.store()?;
        // The record is not needed: a volume whose record is damaged can be removed too.
        if let Some(image) = FileId::of(&self.pool.image(store, id))? {
            let view = self.kernel.view()?;
            if let Some(mount) = view.mounts_of(image).first() {
                return Err(EngineError::Attached { id: id.clone(), at: mount.point.display().to_string() });
            }
        }
        // What is mounted there now belongs to no volume.
        self.detach(store, id)?;
        let _tools = lock_folder(&store.folder(id))?;
        store.remove(id)
    }

    fn recover(&self) -> Result<Vec<Recovered>, EngineError> {
        self.put_right()
    }

    fn ensure_closed(&self) -> Result<Change, EngineError> {
        if let Ok(store) = self.pool.store() {
            let view = self.kernel.view()?;
            let ours = |mount: &&Mount| self.is_of_our_pool(store, &view, mount);
            if let Some(mount) = view.mounts().iter().find(ours) {
                let what = format!("the pool, with a volume attached at {},", mount.point.display());
                return Err(EngineError::Busy { what, holders: Vec::new() });
            }
        }
        self.pool.ensure_unmounted(&self.kernel)
    }
}

fn create(path: &Path) -> Result<File, EngineError> {
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    options.map_err(EngineError::io("making the image", path))
}

/// Every clone of a btrfs has its identity, and the kernel mounts no two of the same.
fn no_btrfs() -> EngineError {
    let (what, remedy) = ("a volume with btrfs".to_owned(), "ask for ext4 or xfs, or use the lvm engine");
    EngineError::Unsupported { what, engine: NAME, remedy }
}

fn whole_blocks(size: Bytes) -> u64 {
    size.0.next_multiple_of(BLOCK)
}
