//! Putting right what a killed agent, or a machine that went down, has left: frozen or suspended volumes, half-made
//! ones, mounts of volumes that are gone.
//!
//! What holds: it may run at any time and as often as wanted; it touches only what bears this state folder's tag.

use std::fs;

use lvault_core::VolumeId;

use super::devices::{Active, Devices};
use super::snapshot::FROZEN;
use super::tags::{self, Ownership};
use super::{Found, LvmEngine};
use crate::engine::Recovered;
use crate::error::EngineError;
use crate::image::freeze::thaw;
use crate::image::mounting::unmount;
use crate::locks::hold;

impl LvmEngine {
    pub(super) fn put_right(&self) -> Result<Vec<Recovered>, EngineError> {
        let mut recovered = Vec::new();
        let mut note = |outcome: Result<Option<Recovered>, EngineError>| match outcome {
            Ok(one) => recovered.extend(one),
            Err(error) => tracing::warn!(%error, "left for the next start"),
        };
        let report = self.lvm.fresh_report()?;
        let devices = Devices::now()?;
        // Writers wait for these: they come first.
        for (group_name, group) in &report.groups {
            for (name, lv) in &group.volumes {
                let Ok(id) = VolumeId::parse(name) else { continue };
                let ours = tags::read(&lv.tags, &self.owner) != Ownership::Foreign;
                if let Some(device) = devices.of(group, lv).filter(|_| ours) {
                    note(self.resume(group_name, &id, device));
                    note(self.thaw_volume(&id, device, &devices));
                }
            }
        }
        // Whoever still works for a former run holds its volume's lock; what it leaves is seen only then.
        let folders = self.known_folders()?;
        for id in &folders {
            drop(self.hold_tools(id));
        }
        let report = self.lvm.fresh_report()?;
        for (group_name, group) in &report.groups {
            for (name, lv) in &group.volumes {
                match (tags::read(&lv.tags, &self.owner), VolumeId::parse(name)) {
                    (Ownership::HalfMade, Ok(id)) => note(self.sweep(group_name, &id)),
                    (Ownership::Gone(former), _) => note(self.finish_removal(group_name, name, former)),
                    (Ownership::HalfMade | Ownership::Foreign | Ownership::Finished(_) | Ownership::Damaged(_), _) => {}
                }
            }
        }
        self.stale_mounts(&mut note)?;
        let report = self.lvm.report()?;
        for id in folders {
            if matches!(self.find(&report, &id), Ok(Found::Nothing)) {
                // Only a lock and a note were in it.
                let _left = fs::remove_dir_all(self.folder(&id));
            }
        }
        Ok(recovered)
    }

    fn known_folders(&self) -> Result<Vec<VolumeId>, EngineError> {
        let entries = fs::read_dir(&self.folders).map_err(EngineError::io("listing", &self.folders))?;
        let folders = entries.flatten().filter(|entry| entry.path().is_dir());
        Ok(folders.filter_map(|entry| VolumeId::parse(entry.file_name().to_str()?).ok()).collect())
    }

    /// A program of LVM that was killed between suspending and resuming leaves everybody waiting.
    fn resume(&self, group: &str, id: &VolumeId, device: &Active) -> Result<Option<Recovered>, EngineError> {
        if !device.is_suspended() {
            return Ok(None);
        }
        let args = ["lvchange", "-y", "--refresh", &format!("{group}/{id}")].map(str::to_owned);
        self.lvm.change(&args, None, &format!("resuming volume {id}"))?;
        Ok((!device.is_suspended()).then(|| Recovered::Resumed(id.clone())))
    }

    /// Thaws a volume that carries the note of a freeze.
    fn thaw_volume(&self, id: &VolumeId, device: &Active, devices: &Devices) -> Result<Option<Recovered>, EngineError> {
        let mark = self.folder(id).join(FROZEN);
        if !mark.exists() {
            return Ok(None);
        }
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let thawed = match devices.mounts_of(device).next() {
            Some(mount) => thaw(&self.lvm.tools, &mount.point)?,
            None => false,
        };
        fs::remove_file(&mark).map_err(EngineError::io("removing the note", mark))?;
        Ok(thawed.then(|| Recovered::Thawed(id.clone())))
    }

    /// Removes a half-made volume, with whatever of it is mounted.
    fn sweep(&self, group: &str, id: &VolumeId) -> Result<Option<Recovered>, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        // It may have been finished while we waited.
        let report = self.lvm.fresh_report()?;
        if !matches!(self.find(&report, id)?, Found::HalfMade { .. }) {
            return Ok(None);
        }
        self.detach(id)?;
        let held = self.hold_tools(id)?;
        self.remove_lv(group, id.as_str(), &held)?;
        Ok(Some(Recovered::HalfMade(id.clone())))
    }

    /// Finishes the removal of a volume on which snapshots lived, or live yet.
    fn finish_removal(&self, group: &str, name: &str, id: VolumeId) -> Result<Option<Recovered>, EngineError> {
        let lock = self.locks.of(&id);
        let _held = hold(&lock);
        if name == id.as_str() {
            self.remove_volume(&id)?;
            return Ok(Some(Recovered::HalfRemoved(id)));
        }
        let held = self.hold_tools(&id)?;
        self.remove_gone(group, name, &held)?;
        let gone = !self.lvm.report()?.groups.get(group).is_some_and(|group| group.volumes.contains_key(name));
        Ok(gone.then_some(Recovered::HalfRemoved(id)))
    }

    /// Unmounts, at our mount points, volumes of ours that belong somewhere else; removes empty mount points.
    fn stale_mounts(&self, note: &mut impl FnMut(Result<Option<Recovered>, EngineError>)) -> Result<(), EngineError> {
        let (report, devices) = (self.lvm.report()?, Devices::now()?);
        for mount in devices.below(&self.mounts) {
            let id = mount.point.file_name().and_then(|name| VolumeId::parse(name.to_str()?).ok());
            let Some(id) = id else { continue };
            let lock = self.locks.of(&id);
            let _held = hold(&lock);
            let belongs = match self.find(&report, &id) {
                Ok(Found::Finished { group, lv, .. }) => {
                    devices.of(group, lv).is_some_and(|device| device.number == mount.device)
                }
                Ok(Found::Nothing | Found::HalfRemoved | Found::HalfMade { .. }) => false,
                Err(_) => true,
            };
            if !belongs && self.is_ours(&report, &devices, mount) {
                let what = format!("the former volume at {}", mount.point.display());
                note(unmount(&mount.point, &what).map(|()| Some(Recovered::StaleMount(mount.point.clone()))));
            }
        }
        // A folder on which something is mounted is busy, and stays.
        for entry in fs::read_dir(&self.mounts).into_iter().flatten().flatten() {
            let _busy_or_full = fs::remove_dir(entry.path());
        }
        Ok(())
    }
}
