//! Growing a volume: its image, then its loop device, then its filesystem, with or without users meanwhile.
//!
//! What holds: the new size is noted as wanted first and as reached last. So a crash in between leaves a volume with its
//! old size and all its data, whose growth a repeat finishes, and whose room is kept meanwhile.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::Path;

use lvault_core::{Bytes, VolumeId};

use super::{ImageEngine, whole_blocks};
use crate::engine::{Change, Filesystem};
use crate::error::{EngineError, Retry};
use crate::locks::lock_folder;
use crate::record::Record;
use crate::store::Store;
use crate::tools::{Finished, Tool};

/// CAP_SYS_RESOURCE: without it the kernel does not let ext4 grow while it is mounted.
const CAP_SYS_RESOURCE: u32 = 24;

impl ImageEngine {
    /// Grows a volume that is smaller than this. The caller holds its lock.
    pub(super) fn grow(&self, store: &Store, record: Record, size: Bytes) -> Result<Change, EngineError> {
        let (id, folder) = (record.id.clone(), store.folder(&record.id));
        // A growth that was cut short may have come further than its record says, and is never taken back.
        let target = size.max(record.promised());
        let more = Bytes(target.0 - record.promised().0);
        let _promise = self.promises.keep(&self.pool, &id, more)?;
        let filesystem = self.filesystem(store, &record)?;
        let Some(held) = lock_folder(&folder)? else { return Err(EngineError::NotFound { id }) };

        let before = Record { growing_to: None, ..record.clone() };
        Record { growing_to: Some(target), ..record }.write(&folder)?;
        let path = self.pool.image(store, &id);
        lengthen(&path, whole_blocks(target))?;
        match self.grow_filesystem(store, &before, filesystem, &path, &held) {
            Ok(()) => {}
            Err(error @ EngineError::MissingCapability { .. }) => {
                // Nothing has grown but the image's end, which is a hole: the request is as if never made.
                before.write(&folder)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        Record { size: target, ..before }.write(&folder)?;
        Ok(Change::Changed)
    }

    fn grow_filesystem(
        &self,
        store: &Store,
        record: &Record,
        filesystem: Filesystem,
        image: &Path,
        held: &File,
    ) -> Result<(), EngineError> {
        let file = self.image_of(store, &record.id)?;
        let view = self.kernel.view()?;
        let mut device = None;
        for attached in view.loops_of(file) {
            let attempted = format!("telling {} that volume {} has grown", attached.path.display(), record.id);
            let args = [OsStr::new("--set-capacity"), attached.path.as_os_str()];
            self.kernel.tools.run(Tool::Losetup, &args, Some(held), &attempted)?.ok(&attempted, Retry::Later)?;
            device = device.or_else(|| view.is_mounted(attached).then_some(&attached.path));
        }
        let point = view.mounts_of(file).first().map(|mount| mount.point.clone());
        match (filesystem, device, point) {
            (Filesystem::Ext4, Some(device), _) => self.resize_ext4(&record.id, device, held, true),
            (Filesystem::Ext4, None, _) => {
                self.check_ext4(&record.id, image, held)?;
                self.resize_ext4(&record.id, image, held, false)
            }
            (Filesystem::Xfs, _, Some(point)) => self.grow_xfs(&record.id, &point, held),
            (Filesystem::Xfs, _, None) => {
                // XFS grows only while mounted.
                let point = self.attach(store, record, held)?;
                let outcome = self.grow_xfs(&record.id, &point, held);
                let detached = self.detach(store, &record.id).map(|_| ());
                outcome.and(detached)
            }
        }
    }

    /// `resize2fs` wants a checked filesystem, and the check also finishes what is in the journal.
    fn check_ext4(&self, id: &VolumeId, image: &Path, held: &File) -> Result<(), EngineError> {
        let attempted = format!("checking volume {id} before it grows");
        let args = [OsStr::new("-f"), OsStr::new("-p"), image.as_os_str()];
        let finished = self.kernel.tools.run(Tool::E2fsck, &args, Some(held), &attempted)?;
        match finished.code() {
            // 1: errors were found and corrected.
            Some(0 | 1) => Ok(()),
            Some(_) | None => {
                let said = Finished { stderr: finished.stdout.clone() + &finished.stderr, ..finished };
                Err(said.failed(&attempted, Retry::Never))
            }
        }
    }

    fn resize_ext4(&self, id: &VolumeId, what: &Path, held: &File, online: bool) -> Result<(), EngineError> {
        let attempted = format!("growing ext4 on volume {id}");
        let finished = self.kernel.tools.run(Tool::Resize2fs, &[what.as_os_str()], Some(held), &attempted)?;
        let refused = finished.code() != Some(0) && finished.stderr.contains("Permission denied");
        if online && refused && !has_capability(CAP_SYS_RESOURCE) {
            return Err(EngineError::MissingCapability { attempted, capability: "CAP_SYS_RESOURCE" });
        }
        finished.ok(&attempted, Retry::Later).map(|_| ())
    }

    fn grow_xfs(&self, id: &VolumeId, point: &Path, held: &File) -> Result<(), EngineError> {
        let attempted = format!("growing XFS on volume {id}");
        let finished = self.kernel.tools.run(Tool::XfsGrowfs, &[point.as_os_str()], Some(held), &attempted)?;
        finished.ok(&attempted, Retry::Later).map(|_| ())
    }
}

/// Never shortens: an earlier growth may have been larger.
fn lengthen(image: &Path, length: u64) -> Result<(), EngineError> {
    let file = OpenOptions::new().write(true).open(image).map_err(EngineError::io("opening", image))?;
    let now = file.metadata().map_err(EngineError::io("looking at", image))?.len();
    file.set_len(now.max(length)).and_then(|()| file.sync_all()).map_err(EngineError::io("lengthening", image))
}

/// Whether this process has a capability in effect, by its number. When that cannot be read, it is taken to have it, so
/// that nobody is told of a cause that was not seen.
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_none_or(|set| set & (1 << number) != 0)
}
