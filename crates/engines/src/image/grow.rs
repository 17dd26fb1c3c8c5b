//! Growing a volume: its image, then its loop device, then its filesystem, with or without users meanwhile.
//!
//! What holds: the new size is noted as wanted first and as reached last. So a crash in between leaves a volume with its
//! old size and all its data, whose growth a repeat finishes, and whose room is kept meanwhile.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::path::Path;

use lvault_core::Bytes;

use super::{ImageEngine, no_btrfs, whole_blocks};
use crate::engine::{Change, Filesystem};
use crate::error::{EngineError, Retry};
use crate::filesystem::{check_ext4, grow_ext4, grow_xfs};
use crate::locks::lock_folder;
use crate::record::Record;
use crate::store::Store;
use crate::tools::Tool;

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
        let tools = &self.kernel.tools;
        let file = self.image_of(store, &record.id)?;
        let view = self.kernel.view()?;
        let mut device = None;
        for attached in view.loops_of(file) {
            let attempted = format!("telling {} that volume {} has grown", attached.path.display(), record.id);
            let args = [OsStr::new("--set-capacity"), attached.path.as_os_str()];
            tools.run(Tool::Losetup, &args, Some(held), &attempted)?.ok(&attempted, Retry::Later)?;
            device = device.or_else(|| view.is_mounted(attached).then_some(&attached.path));
        }
        let point = view.mounts_of(file).first().map(|mount| mount.point.clone());
        match (filesystem, device, point) {
            (Filesystem::Ext4, Some(device), _) => grow_ext4(tools, &record.id, device, held, true),
            (Filesystem::Ext4, None, _) => {
                check_ext4(tools, &record.id, image, held)?;
                grow_ext4(tools, &record.id, image, held, false)
            }
            (Filesystem::Xfs, _, Some(point)) => grow_xfs(tools, &record.id, &point, held),
            (Filesystem::Xfs, _, None) => {
                // XFS grows only while mounted.
                let point = self.attach(store, record, held)?;
                let outcome = grow_xfs(tools, &record.id, &point, held);
                let detached = self.detach(store, &record.id).map(|_| ());
                outcome.and(detached)
            }
            (Filesystem::Btrfs, _, _) => Err(no_btrfs()),
        }
    }
}

/// Never shortens: an earlier growth may have been larger.
fn lengthen(image: &Path, length: u64) -> Result<(), EngineError> {
    let file = OpenOptions::new().write(true).open(image).map_err(EngineError::io("opening", image))?;
    let now = file.metadata().map_err(EngineError::io("looking at", image))?.len();
    file.set_len(now.max(length)).and_then(|()| file.sync_all()).map_err(EngineError::io("lengthening", image))
}
