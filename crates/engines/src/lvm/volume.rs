//! Making, growing and removing volumes.
//!
//! What holds: a volume is half-made until its tags say otherwise, which is its last step; whatever it consists of was
//! zeroed before anybody could read it; a growth counts when its filesystem has grown.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

use lvault_core::{Bytes, VolumeId};

use super::config::Kind;
use super::devices::{Devices, node, size_of};
use super::error::LvmError;
use super::report::{Group, Lv, Report};
use super::room::storage;
use super::tags::{self, Facts, OURS, Ownership};
use super::{Found, LvmEngine, Volume};
use crate::engine::{Access, Change, Filesystem, NewVolume};
use crate::error::{EngineError, Retry};
use crate::filesystem;
use crate::locks::hold;
use crate::tools::Tool;

/// How much one call zeroes: as much as a slow disk writes well within a tool's time.
const ZEROED_AT_ONCE: u64 = 4 << 30;

impl LvmEngine {
    /// Makes a volume. The caller holds its lock.
    pub(super) fn make_volume(&self, new: &NewVolume) -> Result<Change, EngineError> {
        let report = self.lvm.report()?;
        match self.find(&report, &new.id)? {
            Found::Finished { group_name, group, lv, facts } => {
                let volume = Volume { id: &new.id, group_name, group, lv, facts: &facts };
                let as_made = if new.size == facts.asked { facts.size } else { new.size };
                return volume.record().is_volume(&NewVolume { size: as_made, ..new.clone() });
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
        let filesystem = new.filesystem.unwrap_or(Filesystem::Ext4);
        let least = filesystem.least_size();
        if new.size < least {
            let what = filesystem.name();
            return Err(EngineError::TooSmall { id: new.id.clone(), asked: new.size, least, what });
        }
        let config = self.lvm.live.now();
        let class = config.class(new.placement.device_class.as_deref())?;
        let instead = new.placement.option_class.as_deref().map(|name| config.option_class(name)).transpose()?;
        // Nothing of a volume is noted that cannot have been made: it could not be told from one that is not shown.
        storage(&report, &config, class)?;
        let held = self.hold_tools(&new.id)?;
        {
            let _room = hold(&self.room);
            let report = self.lvm.report()?;
            let storage = storage(&report, &config, class)?;
            storage.require_sound()?;
            require_free_name(storage.group, &class.volume_group, &new.id)?;
            self.clear_leftover(storage.group, &class.volume_group, &new.id, &held)?;
            let size = storage.rounded(new.size).unwrap_or(Bytes(u64::MAX));
            storage.require_room(&new.id, size, &self.owner)?;
            let mut args = vec!["lvcreate".to_owned(), "-y".to_owned(), "-W".to_owned(), "y".to_owned()];
            args.extend(["-n".to_owned(), new.id.to_string()]);
            args.extend(tags::made(&self.owner, &class.name, filesystem, Access::ReadWrite, None));
            match &class.kind {
                Kind::Thick { .. } => args.extend(["-Z", "y", "-L"].map(str::to_owned)),
                Kind::Thin { .. } => args.push("-V".to_owned()),
            }
            args.push(format!("{}b", size.0));
            args.extend(class.create_options(instead));
            match &class.kind {
                Kind::Thick { .. } => args.push(class.volume_group.clone()),
                Kind::Thin { pool, .. } => {
                    args.extend(["-T".to_owned(), format!("{}/{pool}", class.volume_group)]);
                }
            }
            self.lvm.change(&args, Some(&held), &format!("making volume {}", new.id))?;
        }
        let group = &class.volume_group;
        let finished = self.fill(new, filesystem, group, matches!(class.kind, Kind::Thick { .. }), &held);
        self.or_take_back(finished, group, &new.id, &held)
    }

    /// Takes back what was begun when it was not finished, unless somebody may still be working on it.
    pub(super) fn or_take_back(
        &self,
        outcome: Result<(), EngineError>,
        group: &str,
        id: &VolumeId,
        held: &File,
    ) -> Result<Change, EngineError> {
        let Err(error) = outcome else { return Ok(Change::Changed) };
        if error.retry() != Retry::Unknown
            && let Err(left) = self.remove_lv(group, id.as_str(), held)
        {
            tracing::warn!(volume = %id, error = %left, "left half-made, for the next start");
        }
        Err(error)
    }

    /// Takes away a device of a volume that LVM does not know (any more): its records were lost on the way to the disk. Its
    /// name is in the way of a new one. The kernel refuses where somebody uses it. Idempotent.
    pub(super) fn clear_leftover(
        &self,
        group: &Group,
        group_name: &str,
        id: &VolumeId,
        held: &File,
    ) -> Result<(), EngineError> {
        let device = node(group_name, id.as_str());
        if !Devices::now()?.is_leftover(group, &device) {
            return Ok(());
        }
        let attempted = format!("removing {}, a device of which LVM knows nothing", device.display());
        let args = [OsStr::new("remove"), device.as_os_str()];
        let prefix = &self.lvm.live.now().command_prefix;
        let finished = self.lvm.tools.run_prefixed(prefix, Tool::Dmsetup, &args, Some(held), &attempted)?;
        finished.ok(&attempted, Retry::Later)?;
        tracing::warn!(volume = %id, device = %device.display(), "a device was left of which LVM knows nothing; removed");
        Ok(())
    }

    /// Zeroes a new volume, makes its filesystem, and finishes it.
    fn fill(
        &self,
        new: &NewVolume,
        filesystem: Filesystem,
        group: &str,
        thick: bool,
        held: &File,
    ) -> Result<(), EngineError> {
        let device = node(group, new.id.as_str());
        let size = size_of(&device)?;
        if thick {
            self.zero(&new.id, &device, 0, size, held)?;
        }
        filesystem::make(&self.lvm.tools, &new.id, filesystem, &device, Some(held))?;
        // Nobody has it open any more, so this is what the disk holds, and not what was written to it.
        if filesystem::found_on(&device).map_err(EngineError::io("reading", &device))? != Some(filesystem) {
            let what = format!("making {filesystem} on volume {}", new.id);
            let why = "what was written is not there when it is read again".to_owned();
            return Err(LvmError::Device { what, device, why }.into());
        }
        let mut args = ["lvchange", "-y"].map(str::to_owned).to_vec();
        args.extend(tags::publish(Bytes(size), new.size));
        args.push(format!("{group}/{}", new.id));
        self.lvm.change(&args, Some(held), &format!("finishing volume {}", new.id)).map(drop)
    }

    /// Writes zeros, or tells the device to, which comes to the same.
    fn zero(&self, id: &VolumeId, device: &Path, from: u64, to: u64, held: &File) -> Result<(), EngineError> {
        let mut at = from;
        while at < to {
            let length = ZEROED_AT_ONCE.min(to - at);
            let (offset, count) = (at.to_string(), length.to_string());
            let args = ["--force", "--zeroout", "--offset", &offset, "--length", &count].map(OsStr::new);
            let args = [args.as_slice(), &[device.as_os_str()]].concat();
            let attempted = format!("zeroing volume {id}");
            self.lvm.tools.run(Tool::Blkdiscard, &args, Some(held), &attempted)?.ok(&attempted, Retry::Later)?;
            at += length;
        }
        Ok(())
    }

    /// Grows a volume that has to have at least this size. The caller holds its lock.
    pub(super) fn grow(&self, volume: Volume<'_>, size: Bytes) -> Result<Change, EngineError> {
        let (id, facts) = (volume.id, volume.facts);
        // What was asked for is what counts, not what LVM has made of it.
        let least = facts.asked.min(facts.size);
        match size.cmp(&least) {
            Ordering::Less => return Err(EngineError::Shrink { id: id.clone(), size: facts.size, asked: size }),
            Ordering::Equal => return Ok(Change::Unchanged),
            Ordering::Greater if size <= facts.size => return Ok(Change::Unchanged),
            Ordering::Greater => {}
        }
        if facts.access == Access::ReadOnly {
            return Err(EngineError::ReadOnly { id: id.clone() });
        }
        if volume.lv.is_thick_snapshot() {
            return Err(LvmError::ThickSnapshot { id: id.clone(), what: "growing" }.into());
        }
        let snapshots = snapshots_of(volume.group, id.as_str());
        if !snapshots.is_empty() {
            let snapshots = snapshots.join(", ");
            return Err(LvmError::HasSnapshots { id: id.clone(), what: "grown", snapshots }.into());
        }
        let held = self.hold_tools(id)?;
        let device = self.activate(volume, &held)?;
        let mounted =
            Devices::now()?.mounts_of(&device).find(|mount| !mount.read_only).map(|mount| mount.point.clone());
        if mounted.is_some() && facts.filesystem == Filesystem::Ext4 {
            // Asked before anything is done, for LVM does not take back what it has given.
            filesystem::may_grow_ext4_online(&format!("growing ext4 on volume {id}"))?;
        }
        self.extend(volume, size, &held)?;
        let path = device.path()?;
        let real = size_of(&path)?;
        if !volume.lv.is_thin() && facts.zeroed != Some(real) {
            self.zero(id, &path, facts.size.0, real, &held)?;
            self.change_tags(volume, tags::zeroed(facts, real), &held)?;
        }
        self.grow_filesystem(volume, &path, mounted.as_deref(), &held)?;
        let zeroed = if volume.lv.is_thin() { None } else { Some(real) };
        let change = tags::grown(&Facts { zeroed, ..facts.clone() }, Bytes(real), size);
        self.change_tags(volume, change, &held)?;
        Ok(Change::Changed)
    }

    /// Gives a volume its extents, unless a growth that was cut short has done so.
    fn extend(&self, volume: Volume<'_>, size: Bytes, held: &File) -> Result<(), EngineError> {
        let config = self.lvm.live.now();
        let class = self.class(&config, &volume)?;
        let _room = hold(&self.room);
        let report = self.lvm.report()?;
        let storage = storage(&report, &config, class)?;
        storage.require_sound()?;
        let target = storage.rounded(size).unwrap_or(Bytes(u64::MAX));
        let Some(more) = target.0.checked_sub(volume.lv.size).filter(|more| *more > 0) else { return Ok(()) };
        storage.require_room(volume.id, Bytes(more), &self.owner)?;
        let args = ["lvextend", "-y", "-L", &format!("{}b", target.0), &volume.full_name()].map(str::to_owned);
        self.lvm.change(&args, Some(held), &format!("growing volume {}", volume.id)).map(drop)
    }

    fn grow_filesystem(
        &self,
        volume: Volume<'_>,
        device: &Path,
        mounted: Option<&Path>,
        held: &File,
    ) -> Result<(), EngineError> {
        let (tools, id) = (&self.lvm.tools, volume.id);
        let by_mount = |point: &Path| match volume.facts.filesystem {
            Filesystem::Ext4 => filesystem::grow_ext4(tools, id, device, held, true),
            Filesystem::Xfs => filesystem::grow_xfs(tools, id, point, held),
            Filesystem::Btrfs => filesystem::grow_btrfs(tools, id, point, held),
        };
        match (mounted, volume.facts.filesystem) {
            (Some(point), _) => by_mount(point),
            (None, Filesystem::Ext4) => {
                filesystem::check_ext4(tools, id, device, held)?;
                filesystem::grow_ext4(tools, id, device, held, false)
            }
            (None, Filesystem::Xfs | Filesystem::Btrfs) => {
                // These grow only while mounted.
                let point = self.attach(volume, held)?;
                let outcome = by_mount(&point);
                let detached = self.detach(id).map(drop);
                outcome.and(detached)
            }
        }
    }

    fn change_tags(&self, volume: Volume<'_>, change: Vec<String>, held: &File) -> Result<(), EngineError> {
        let mut args = ["lvchange", "-y"].map(str::to_owned).to_vec();
        args.extend(change);
        args.push(volume.full_name());
        self.lvm.change(&args, Some(held), &format!("noting the size of volume {}", volume.id)).map(drop)
    }

    /// Removes a volume, half-made or whole. The caller holds its lock.
    pub(super) fn remove_volume(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let report = self.lvm.report()?;
        let Some((group_name, _, lv)) = by_name(self, &report, id)? else {
            self.detach(id)?;
            self.remove_folder(id);
            return Ok(Change::Unchanged);
        };
        // LVM takes the snapshots of a thick volume away with it, so it is asked how things are now.
        // And a source and its snapshots are removed one after the other, for each looks whether it is the last.
        let _one_at_a_time = (!lv.is_thin()).then(|| hold(&self.thick_removals));
        let none_on_it = lv.is_thin() || lv.is_thick_snapshot();
        let report = if none_on_it { self.lvm.report()? } else { self.lvm.fresh_report()? };
        let Some((_, group, lv)) = by_name(self, &report, id)? else { return Ok(Change::Unchanged) };
        let devices = Devices::now()?;
        let mounts = devices.of(group, lv).map(|device| devices.mounts_of(device).collect::<Vec<_>>());
        if let Some(mount) = mounts.as_deref().and_then(|mounts| mounts.first()) {
            return Err(EngineError::Attached { id: id.clone(), at: mount.point.display().to_string() });
        }
        // What is mounted there now is somebody else's.
        self.detach(id)?;
        let held = self.hold_tools(id)?;
        let snapshots = snapshots_of(group, id.as_str());
        if snapshots.is_empty() {
            self.remove_lv(group_name, id.as_str(), &held)?;
            if let Some(origin) = lv.origin.as_ref().filter(|_| lv.is_thick_snapshot()) {
                self.remove_gone(group_name, origin, &held)?;
            }
        } else {
            let foreign = |name: &&str| tags::read(&group.volumes[*name].tags, &self.owner) == Ownership::Foreign;
            let foreign: Vec<&str> = snapshots.into_iter().filter(foreign).collect();
            if !foreign.is_empty() {
                let snapshots = foreign.join(", ");
                return Err(LvmError::HasSnapshots { id: id.clone(), what: "removed", snapshots }.into());
            }
            self.set_aside(group_name, lv, id, &held)?;
        }
        self.remove_folder(id);
        Ok(Change::Changed)
    }

    /// Removes a volume on which thick snapshots live, as far as that goes: it is nobody's volume from now on, its name is
    /// free, and it goes with its last snapshot.
    fn set_aside(&self, group: &str, lv: &Lv, id: &VolumeId, held: &File) -> Result<(), EngineError> {
        let attempted = format!("setting volume {id} aside for its snapshots");
        let mut args = ["lvchange", "-y"].map(str::to_owned).to_vec();
        args.extend(tags::gone(id));
        args.push(format!("{group}/{id}"));
        self.lvm.change(&args, Some(held), &attempted)?;
        let aside = format!("lvault-gone-{}", lv.uuid);
        let args = ["lvrename", "-y", group, id.as_str(), &aside].map(str::to_owned);
        self.lvm.change(&args, Some(held), &attempted).map(drop)
    }

    /// Removes what was set aside, once nothing lives on it.
    pub(super) fn remove_gone(&self, group: &str, name: &str, held: &File) -> Result<(), EngineError> {
        let report = self.lvm.report()?;
        let Some((of_group, lv)) = report.groups.get(group).and_then(|of| Some((of, of.volumes.get(name)?))) else {
            return Ok(());
        };
        match tags::read(&lv.tags, &self.owner) {
            Ownership::Gone(_) if snapshots_of(of_group, name).is_empty() => self.remove_lv(group, name, held),
            Ownership::Gone(_)
            | Ownership::Foreign
            | Ownership::HalfMade
            | Ownership::Finished(_)
            | Ownership::Damaged(_) => Ok(()),
        }
    }

    /// Removes a logical volume of ours. LVM itself looks again whether it is ours.
    pub(super) fn remove_lv(&self, group: &str, name: &str, held: &File) -> Result<(), EngineError> {
        let selected = format!("lv_tags=\"{OURS}\" && lv_tags=\"lvault.owner={}\"", self.owner);
        let args = ["lvremove", "-y", "-S", &selected, &format!("{group}/{name}")].map(str::to_owned);
        let attempted = format!("removing volume {name}");
        let said = self.lvm.change(&args, Some(held), &attempted)?;
        if said.contains("successfully removed") {
            return Ok(());
        }
        // It had gone, or had changed hands, since LVM was last asked.
        let report = self.lvm.fresh_report()?;
        if report.groups.get(group).is_none_or(|group| !group.volumes.contains_key(name)) {
            return Ok(());
        }
        Err(LvmError::Output { why: format!("{attempted}: it is still there") }.into())
    }

    fn remove_folder(&self, id: &VolumeId) {
        let folder = self.folder(id);
        if folder.exists()
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            tracing::warn!(path = %folder.display(), %error, "left");
        }
    }
}

/// A volume of ours, whole, half-made or with damaged tags.
fn by_name<'r>(
    engine: &LvmEngine,
    report: &'r Report,
    id: &VolumeId,
) -> Result<Option<(&'r str, &'r Group, &'r Lv)>, EngineError> {
    for (name, group) in &report.groups {
        if let Some(lv) = group.volumes.get(id.as_str())
            && tags::read(&lv.tags, &engine.owner) != Ownership::Foreign
        {
            return Ok(Some((name, group, lv)));
        }
    }
    engine.require_seen(report, id)?;
    Ok(None)
}

/// Thick snapshots of a volume, ours or not.
fn snapshots_of<'r>(group: &'r Group, name: &str) -> Vec<&'r str> {
    let of_it = |lv: &Lv| lv.is_thick_snapshot() && lv.origin.as_deref() == Some(name);
    group.volumes.iter().filter(|(_, lv)| of_it(lv)).map(|(name, _)| name.as_str()).collect()
}

/// A name that is taken in this group is not ours, or it would have been found.
pub(super) fn require_free_name(group: &Group, group_name: &str, id: &VolumeId) -> Result<(), EngineError> {
    if !group.volumes.contains_key(id.as_str()) {
        return Ok(());
    }
    let what = format!("a logical volume named like volume {id}");
    Err(EngineError::Foreign { what, path: node(group_name, id.as_str()) })
}
