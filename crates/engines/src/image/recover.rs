//! Putting right what a killed agent has left: frozen filesystems, half-made volumes, mounts and loop devices of
//! volumes that are gone.
//!
//! What holds: it may run at any time and as often as wanted. It thaws only volumes that carry the note of a freeze,
//! unmounts and releases only what is backed by a file of our pool, and removes only folders named as half-made.

use std::fs;

use lvault_core::VolumeId;

use super::freeze::thaw;
use super::kernel::{FileId, is_loop};
use super::mounting::{release, unmount};
use super::{FROZEN, ImageEngine};
use crate::engine::{Change, Recovered};
use crate::error::EngineError;
use crate::locks::hold;
use crate::store::Store;

impl ImageEngine {
    pub(super) fn put_right(&self) -> Result<Vec<Recovered>, EngineError> {
        let mut recovered = Vec::new();
        if self.pool.ensure_mounted(&self.kernel)? == Change::Changed {
            recovered.push(Recovered::PoolMounted(self.pool.folder().to_owned()));
        }
        let store = self.pool.store()?;
        let mut note = |outcome: Result<Option<Recovered>, EngineError>| match outcome {
            Ok(one) => recovered.extend(one),
            Err(error) => tracing::warn!(%error, "left for the next start"),
        };
        // Writers wait for this: it comes first.
        for id in store.ids()? {
            note(self.thaw_volume(store, &id));
        }
        for leftover in store.leftovers(None)? {
            let lock = self.locks.of(&leftover.id);
            let _held = hold(&lock);
            note(leftover.sweep().map(Some));
        }
        self.stale_mounts(store, &mut note)?;
        self.stale_loops(store, &mut note)?;
        Ok(recovered)
    }

    /// Thaws a volume that carries the note of a freeze.
    fn thaw_volume(&self, store: &Store, id: &VolumeId) -> Result<Option<Recovered>, EngineError> {
        let mark = store.folder(id).join(FROZEN);
        if !mark.exists() {
            return Ok(None);
        }
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let mut thawed = None;
        if let Some(image) = FileId::of(&self.pool.image(store, id))? {
            let view = self.kernel.view()?;
            if let Some(mount) = view.mounts_of(image).first()
                && thaw(&self.kernel.tools, &mount.point)?
            {
                thawed = Some(Recovered::Thawed(id.clone()));
            }
        }
        fs::remove_file(&mark).map_err(EngineError::io("removing the note", mark))?;
        Ok(thawed)
    }

    /// Unmounts, at our mount points, images of our pool that belong to no volume of that name any more.
    fn stale_mounts(
        &self,
        store: &Store,
        note: &mut impl FnMut(Result<Option<Recovered>, EngineError>),
    ) -> Result<(), EngineError> {
        let view = self.kernel.view()?;
        // Topmost first.
        for mount in view.mounts().iter().rev().filter(|mount| is_loop(mount)) {
            let Ok(name) = mount.point.strip_prefix(&self.mounts) else { continue };
            let id = name.to_str().and_then(|name| VolumeId::parse(name).ok());
            let lock = id.as_ref().map(|id| self.locks.of(id));
            let _held = lock.as_deref().map(hold);
            let image = id.as_ref().map(|id| FileId::of(&self.pool.image(store, id))).transpose()?.flatten();
            let is_volume = image.is_some_and(|image| view.mounts_of(image).contains(&mount));
            if is_volume || !self.is_of_our_pool(store, &view, mount) {
                continue;
            }
            let what = format!("the former volume at {}", mount.point.display());
            note(unmount(&mount.point, &what).map(|()| Some(Recovered::StaleMount(mount.point.clone()))));
            self.remove_point(&mount.point);
        }
        Ok(())
    }

    /// Releases loop devices of our images that nobody has mounted and that do not go by themselves.
    fn stale_loops(
        &self,
        store: &Store,
        note: &mut impl FnMut(Result<Option<Recovered>, EngineError>),
    ) -> Result<(), EngineError> {
        let view = self.kernel.view()?;
        for device in view.loops() {
            if self.backed_by_our_pool(store, device) && !device.autoclear && !view.is_mounted(device) {
                note(
                    release(&self.kernel.tools, &device.path).map(|()| Some(Recovered::StaleLoop(device.path.clone()))),
                );
            }
        }
        Ok(())
    }
}
