//! Attaching volumes: making them active, and mounting them where they belong.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use lvault_core::VolumeId;

use super::devices::{Active, Devices};
use super::error::LvmError;
use super::report::{Group, Lv, Report};
use super::tags::{self, Ownership};
use super::{LvmEngine, Volume};
use crate::engine::{Access, Change, Filesystem};
use crate::error::EngineError;
use crate::image::kernel::Mount;
use crate::image::mounting::{self, mount, mount_error, unmount};

impl LvmEngine {
    /// Mounts a volume at its mount point. The caller holds its lock.
    pub(super) fn attach(&self, volume: Volume<'_>, held: &File) -> Result<PathBuf, EngineError> {
        if volume.lv.is_lost_snapshot() {
            return Err(LvmError::SnapshotOverflow { id: volume.id.clone() }.into());
        }
        let (device, point) = (self.activate(volume, held)?, self.point(volume.id));
        let devices = Devices::now()?;
        if let Some(there) = devices.at(&point) {
            if there.device == device.number {
                return Ok(point);
            }
            let what = format!("a mounted {} filesystem", there.filesystem);
            return Err(EngineError::Foreign { what, path: point });
        }
        let (filesystem, access) = (volume.facts.filesystem, volume.facts.access);
        self.mount_at(&device, &point, filesystem, access, volume.facts.origin.is_some(), volume.id, held)?;
        match Devices::now()?.at(&point) {
            Some(there) if there.device == device.number => Ok(point),
            Some(_) | None => Err(EngineError::Foreign { what: "something mounted meanwhile".into(), path: point }),
        }
    }

    /// The volume's device; it is made active where it is not.
    pub(super) fn activate(&self, volume: Volume<'_>, held: &File) -> Result<Active, EngineError> {
        self.activate_lv(volume.group_name, volume.group, volume.lv, volume.id, held)
    }

    /// The device of a logical volume, whoever's it is; it is made active where it is not.
    pub(super) fn activate_lv(
        &self,
        group_name: &str,
        group: &Group,
        lv: &Lv,
        id: &VolumeId,
        held: &File,
    ) -> Result<Active, EngineError> {
        if let Some(device) = Devices::now()?.of(group, lv) {
            return Ok(device.clone());
        }
        // Whoever made it may have said that it is not to be activated by itself.
        let args = ["lvchange", "-y", "-a", "y", "-K", &format!("{group_name}/{id}")].map(str::to_owned);
        let attempted = format!("activating volume {id}");
        self.lvm.change(&args, Some(held), &attempted)?;
        let why = || "LVM says that it is active, but there is no device of it".to_owned();
        let device = Devices::now()?.of(group, lv).cloned();
        device.ok_or_else(|| LvmError::Output { why: why() }.into())
    }

    /// Mounts a device, with what its filesystem needs.
    #[expect(clippy::too_many_arguments, reason = "each says another thing about one mount")]
    pub(super) fn mount_at(
        &self,
        device: &Active,
        point: &Path,
        filesystem: Filesystem,
        access: Access,
        clone: bool,
        id: &VolumeId,
        held: &File,
    ) -> Result<(), EngineError> {
        fs::create_dir_all(point).map_err(EngineError::io("making the mount point", point))?;
        let options = mounting::options(filesystem, access, clone).trim_start_matches("loop,");
        let path = device.path()?;
        mount(&self.lvm.tools, &path, point, filesystem, options, Some(held))
            .map_err(mount_error(&format!("volume {id} ({filesystem} on {})", path.display())))
    }

    /// Unmounts what of ours is at a volume's mount point. The caller holds its lock.
    pub(super) fn detach(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let point = self.point(id);
        let mut change = Change::Unchanged;
        loop {
            let devices = Devices::now()?;
            let Some(there) = devices.at(&point) else { break };
            let report = self.lvm.report()?;
            if !self.is_ours(&report, &devices, there) {
                self.require_seen(&report, id)?;
                tracing::warn!(path = %point.display(), "a foreign mount is left alone");
                return Ok(change);
            }
            unmount(&point, &format!("volume {id}"))?;
            change = Change::Changed;
        }
        self.remove_point(&point);
        Ok(change)
    }

    /// Whether what is mounted is a volume of ours, half-made ones included.
    pub(super) fn is_ours(&self, report: &Report, devices: &Devices, mount: &Mount) -> bool {
        report.groups.values().any(|group| {
            group.volumes.values().any(|lv| {
                tags::read(&lv.tags, &self.owner) != Ownership::Foreign
                    && devices.of(group, lv).is_some_and(|device| device.number == mount.device)
            })
        })
    }

    /// An unmounted mount point is of no use; one that holds something is for a person to look at.
    pub(super) fn remove_point(&self, point: &Path) {
        if point.exists()
            && let Err(error) = fs::remove_dir(point)
        {
            tracing::warn!(path = %point.display(), %error, "left");
        }
    }
}
