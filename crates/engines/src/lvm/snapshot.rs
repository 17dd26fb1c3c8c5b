//! Cutting snapshots and clones.
//!
//! The instant is device-mapper's: `lvcreate` suspends the source, by which the kernel freezes its filesystem, puts the
//! snapshot beneath it and resumes. A filesystem that is frozen already cannot be suspended (the kernel says busy, and of
//! a thick source LVM then leaves pieces behind); so ours is frozen and thawed right before, within the freeze budget:
//! what is unwritten is written out then, and somebody else's freeze is noticed.

use std::fs::{self, File};
use std::path::Path;

use lvault_core::{Bytes, VolumeId};

use super::config::Kind;
use super::devices::{Active, Devices, node};
use super::error::LvmError;
use super::room::{Storage, storage};
use super::tags;
use super::volume::require_free_name;
use super::{Found, LvmEngine, Volume};
use crate::engine::{Access, Change, Filesystem, NewSnapshot};
use crate::error::EngineError;
use crate::filesystem::new_btrfs_identity;
use crate::image::freeze::{NotFrozen, while_frozen};
use crate::image::mounting::unmount;
use crate::locks::hold;

/// In a source's folder while it is frozen, for recovery.
pub(super) const FROZEN: &str = "frozen";
/// The least exception store of a thick snapshot.
const LEAST_STORE: u64 = 32 << 20;

impl LvmEngine {
    /// Cuts a snapshot. The caller holds the locks of both.
    pub(super) fn make_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError> {
        let report = self.lvm.report()?;
        match self.find(&report, &new.id)? {
            Found::Finished { group_name, group, lv, facts } => {
                return Volume { id: &new.id, group_name, group, lv, facts: &facts }.record().is_snapshot(new);
            }
            Found::HalfMade { group_name, .. } => {
                let held = self.hold_tools(&new.id)?;
                self.remove_lv(group_name, new.id.as_str(), &held)?;
            }
            Found::HalfRemoved => {
                self.remove_volume(&new.id)?;
            }
            Found::Nothing => {}
        }
        self.with(&report, &new.source, |source| self.cut(new, source))
    }

    fn cut(&self, new: &NewSnapshot, source: Volume<'_>) -> Result<Change, EngineError> {
        if source.lv.is_lost_snapshot() {
            return Err(LvmError::SnapshotOverflow { id: source.id.clone() }.into());
        }
        if source.lv.is_thick_snapshot() {
            return self.copy_thick(new, source);
        }
        let config = self.lvm.live.now();
        let class = self.class(&config, &source)?;
        // A tool that is left over from a former run may still be working on the source.
        let (source_held, held) = (self.hold_tools(source.id)?, self.hold_tools(&new.id)?);
        let device = self.activate(source, &source_held)?;
        let devices = Devices::now()?;
        let writable = devices.mounts_of(&device).find(|mount| !mount.read_only).map(|mount| mount.point.clone());
        {
            let _room = hold(&self.room);
            let report = self.lvm.report()?;
            let storage = storage(&report, &config, class)?;
            storage.require_sound()?;
            require_free_name(storage.group, &class.volume_group, &new.id)?;
            self.clear_leftover(storage.group, &class.volume_group, &new.id, &held)?;
            let args = self.cut_arguments(new, source, &storage)?;
            if let Some(point) = &writable {
                self.write_out(source.id, point, &device)?;
            }
            self.lvm.change(&args, Some(&held), &format!("cutting snapshot {} of volume {}", new.id, source.id))?;
        }
        let finished = self.finish(new, source, writable.is_some(), &held);
        self.or_take_back(finished, source.group_name, &new.id, &held)
    }

    fn cut_arguments(
        &self,
        new: &NewSnapshot,
        source: Volume<'_>,
        storage: &Storage<'_>,
    ) -> Result<Vec<String>, EngineError> {
        let mut args = ["lvcreate", "-s", "-y", "-k", "n", "-a", "y", "-p", "rw", "-n", new.id.as_str()]
            .map(str::to_owned)
            .to_vec();
        let (class, filesystem) = (&storage.class.name, source.facts.filesystem);
        args.extend(tags::made(&self.owner, class, filesystem, new.access, Some(source.id)));
        match (&storage.class.kind, new.access) {
            (Kind::Thin { .. }, Access::ReadOnly) => {}
            (Kind::Thin { .. }, Access::ReadWrite) => {
                storage.require_room(&new.id, Bytes(source.lv.size), &self.owner)?;
            }
            (Kind::Thick { .. }, access) => {
                let store = self.store_size(source, access, storage)?;
                args.extend(["-L".to_owned(), format!("{}b", store.0)]);
            }
        }
        args.push(source.full_name());
        Ok(args)
    }

    /// The exception store: for a snapshot the share that the options say, for a clone as much as it can ever need.
    fn store_size(&self, source: Volume<'_>, access: Access, storage: &Storage<'_>) -> Result<Bytes, EngineError> {
        let whole = source.lv.size;
        let wished = match access {
            Access::ReadOnly => (whole / 100 * self.options.exception_store_percent).max(LEAST_STORE),
            // LVM itself cuts off what is beyond the most that can be used.
            Access::ReadWrite => whole + whole / 50 + LEAST_STORE,
        };
        let asked = Bytes(wished.next_multiple_of(storage.group.extent));
        let available = storage.capacity(&self.owner).available;
        if asked <= available {
            return Ok(asked);
        }
        let (id, group) = (source.id.clone(), source.group_name.to_owned());
        Err(LvmError::NoRoomForStore { id, asked, available, group }.into())
    }

    /// Writes out what is unwritten, so that writers do not wait for it during the cut.
    fn write_out(&self, source: &VolumeId, point: &Path, device: &Active) -> Result<(), EngineError> {
        let written = File::open(point).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
        if let Err(why) = written {
            let what = format!("writing volume {source} out before it is cut");
            return Err(LvmError::Device { what, device: device.path()?, why: why.to_string() }.into());
        }
        let mark = self.folder(source).join(FROZEN);
        File::create(&mark).and_then(|file| file.sync_all()).map_err(EngineError::io("noting the freeze in", &mark))?;
        let budget = self.options.freeze_budget;
        match while_frozen(&self.lvm.tools, point, budget, || Ok(())) {
            Ok(()) => {}
            // The note stays: a guard that is still waiting for its freeze may die before it thaws.
            Err(NotFrozen::Budget) => return Err(EngineError::FreezeBudget { id: source.clone(), budget }),
            Err(NotFrozen::Failed(reason)) => return Err(EngineError::Freeze { id: source.clone(), reason }),
            Err(NotFrozen::Work(error)) => return Err(error),
        }
        fs::remove_file(&mark).map_err(EngineError::io("removing the note", mark))
    }

    /// Makes a cut mountable, lets its filesystem recover where the source was not mounted, and finishes it.
    pub(super) fn finish(
        &self,
        new: &NewSnapshot,
        source: Volume<'_>,
        mounted: bool,
        held: &File,
    ) -> Result<(), EngineError> {
        if source.facts.filesystem == Filesystem::Btrfs {
            let device = node(source.group_name, new.id.as_str());
            new_btrfs_identity(&self.lvm.tools, &new.id, &device, held)?;
        }
        if !mounted && source.facts.access == Access::ReadWrite {
            self.settle(new, source, held)?;
        }
        let mut args = ["lvchange", "-y"].map(str::to_owned).to_vec();
        match new.access {
            Access::ReadOnly => args.extend(["-p", "r"].map(str::to_owned)),
            Access::ReadWrite => {}
        }
        args.extend(tags::publish(source.facts.size, source.facts.asked));
        args.push(format!("{}/{}", source.group_name, new.id));
        self.lvm.change(&args, Some(held), &format!("finishing snapshot {}", new.id)).map(drop)
    }

    /// The source is not mounted, but may not have been unmounted either when the machine crashed: then its latest
    /// changes stand in the journal only, which a read-only mount does not look at.
    fn settle(&self, new: &NewSnapshot, source: Volume<'_>, held: &File) -> Result<(), EngineError> {
        let point = self.point(&new.id);
        let report = self.lvm.report()?;
        let Found::HalfMade { group, lv, .. } = self.find(&report, &new.id)? else {
            return Err(
                LvmError::Output { why: format!("the snapshot {} that was just cut is not there", new.id) }.into()
            );
        };
        let devices = Devices::now()?;
        let Some(device) = devices.of(group, lv) else {
            return Err(
                LvmError::Output { why: format!("the snapshot {} that was just cut is not active", new.id) }.into()
            );
        };
        self.mount_at(device, &point, source.facts.filesystem, Access::ReadWrite, true, &new.id, held)?;
        unmount(&point, &format!("the new snapshot {}", new.id))?;
        self.remove_point(&point);
        Ok(())
    }
}
