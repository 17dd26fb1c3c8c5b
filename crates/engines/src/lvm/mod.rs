//! The LVM engine: logical volumes in the volume groups that TopoLVM's `lvmd.yaml` names, thick and thin.
//!
//! A volume is the logical volume that is named after its id. All that is known of it stands on it as tags ([`tags`]), made
//! in LVM's own transactions; what is active and mounted is asked of the kernel ([`devices`]); all the rest comes from
//! one report that LVM makes of all volumes together ([`command`], [`report`]).
//!
//! What holds: nothing is ever done to a volume that does not bear this state folder's tag; a volume is half-made until
//! one change of its tags finishes it; LVM runs only where something changes or knowledge has aged.

mod adopt;
mod attach;
mod command;
mod config;
mod copy;
mod devices;
mod error;
#[cfg(any(test, lvault_fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod recover;
mod reload;
mod report;
mod room;
mod snapshot;
mod tags;
mod volume;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};

use crate::engine::{
    Access, Adoption, Capabilities, Capacity, Change, Filesystem, NewSnapshot, NewVolume, Options, Recovered,
    VolumeEngine, VolumeInfo,
};
use crate::error::EngineError;
use crate::health::{ClassReport, Problem, ProblemKind};
use crate::locks::{Locks, hold, lock_folder};
use crate::record::{Record, replace};
use crate::tools::{Tool, Tools};
use command::Lvm;
use config::{Config, DeviceClass, Kind};
use devices::{Active, Devices};
pub use error::LvmError;
use reload::Live;
use report::{Group, Lv, Report};
use room::{storage, without_storage};
use tags::{Facts, Ownership};

const NAME: &str = "lvm";
const FILESYSTEMS: [Filesystem; 3] = [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs];
/// Where TopoLVM keeps its configuration.
const CONFIG: &str = "/etc/topolvm/lvmd.yaml";
/// The oldest that knowledge of a snapshot may be while somebody reads it: it may be lost under its reader.
const WATCHED: Duration = Duration::from_secs(5);
/// In the state folder: whose volumes are ours.
const OWNER: &str = "owner";

/// Volumes of LVM; see the module's page.
#[derive(Debug)]
pub struct LvmEngine {
    /// A folder per volume, for its lock.
    folders: PathBuf,
    mounts: PathBuf,
    /// In the tag of everything that is ours.
    owner: String,
    lvm: Lvm,
    locks: Locks,
    /// Held while room is looked at and taken: both by LVM, which lets only one do so at a time.
    room: Mutex<()>,
    /// Held while a thick volume or snapshot is removed.
    thick_removals: Mutex<()>,
    options: Options,
}

/// A finished volume of ours.
#[derive(Clone, Copy, Debug)]
struct Volume<'r> {
    id: &'r VolumeId,
    group_name: &'r str,
    group: &'r Group,
    lv: &'r Lv,
    facts: &'r Facts,
}

/// What is there under a volume's name.
enum Found<'r> {
    Nothing,
    /// Removed, but for its name.
    HalfRemoved,
    HalfMade {
        group_name: &'r str,
        group: &'r Group,
        lv: &'r Lv,
    },
    Finished {
        group_name: &'r str,
        group: &'r Group,
        lv: &'r Lv,
        facts: Facts,
    },
}

impl LvmEngine {
    /// Opens the volumes of a state folder. What is missing for it (root, a program, the configuration) is named in the
    /// error, with what helps. A volume group that is missing is no error yet: other classes may work.
    pub fn open(state: &Path, options: Options) -> Result<Self, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EngineError::NeedsRoot);
        }
        let tools = Tools::find(options.tool_limit);
        tools.require(&Tool::LVM)?;
        let live = Live::open(options.lvmd_config.as_deref().unwrap_or(Path::new(CONFIG)))?;
        let (folders, mounts) = (state.join("lvm"), state.join("mnt"));
        for folder in [&folders, &mounts] {
            fs::create_dir_all(folder).map_err(EngineError::io("making the folder", folder))?;
        }
        // The mount table knows real paths only.
        let mounts = fs::canonicalize(&mounts).map_err(EngineError::io("resolving", &mounts))?;
        let owner = owner(&folders)?;
        let lvm = Lvm::open(tools, live, options.report_age)?;
        Ok(LvmEngine {
            folders,
            mounts,
            owner,
            lvm,
            locks: Locks::default(),
            room: Mutex::default(),
            thick_removals: Mutex::default(),
            options,
        })
    }

    /// Opens the engine and looks whether the storage of every class is there and sound.
    pub(crate) fn probed(state: &Path, options: Options) -> Result<Self, EngineError> {
        let engine = Self::open(state, options)?;
        let (report, config) = (engine.lvm.report()?, engine.lvm.live.now());
        for class in &config.classes {
            storage(&report, &config, class)?.require_sound()?;
        }
        Ok(engine)
    }

    /// How many processes of LVM this engine has started, for measuring.
    pub fn lvm_processes(&self) -> u64 {
        self.lvm.processes()
    }

    fn point(&self, id: &VolumeId) -> PathBuf {
        self.mounts.join(id.as_str())
    }

    fn folder(&self, id: &VolumeId) -> PathBuf {
        self.folders.join(id.as_str())
    }

    /// Locks a volume against tools left over from a former run.
    fn hold_tools(&self, id: &VolumeId) -> Result<File, EngineError> {
        let folder = self.folder(id);
        fs::create_dir_all(&folder).map_err(EngineError::io("making the folder", &folder))?;
        lock_folder(&folder)?.ok_or(EngineError::NotFound { id: id.clone() })
    }

    fn find<'r>(&self, report: &'r Report, id: &VolumeId) -> Result<Found<'r>, EngineError> {
        for (group_name, group) in &report.groups {
            let Some(lv) = group.volumes.get(id.as_str()) else { continue };
            match tags::read(&lv.tags, &self.owner) {
                Ownership::Foreign => {}
                Ownership::Gone(_) => return Ok(Found::HalfRemoved),
                Ownership::HalfMade => return Ok(Found::HalfMade { group_name, group, lv }),
                Ownership::Finished(facts) => return Ok(Found::Finished { group_name, group, lv, facts }),
                Ownership::Damaged(why) => {
                    return Err(EngineError::Damaged { path: devices::node(group_name, id.as_str()), why });
                }
            }
        }
        self.require_seen(report, id)?;
        Ok(Found::Nothing)
    }

    /// What LVM does not show is gone only where it shows all volume groups: those of a disk that does not answer are left
    /// out of the report without a word. A volume that never had a folder here was never made here.
    fn require_seen(&self, report: &Report, id: &VolumeId) -> Result<(), LvmError> {
        let config = self.lvm.live.now();
        let unseen = config.classes.iter().find(|class| !report.groups.contains_key(&class.volume_group));
        match unseen.filter(|_| self.folder(id).exists()) {
            Some(class) => Err(LvmError::GroupUnseen { id: id.clone(), group: class.volume_group.clone() }),
            None => Ok(()),
        }
    }

    /// Does something with a volume that has to be there.
    fn with<T>(
        &self,
        report: &Report,
        id: &VolumeId,
        work: impl FnOnce(Volume<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match self.find(report, id)? {
            Found::Finished { group_name, group, lv, facts } => {
                work(Volume { id, group_name, group, lv, facts: &facts })
            }
            Found::Nothing | Found::HalfRemoved | Found::HalfMade { .. } => {
                Err(EngineError::NotFound { id: id.clone() })
            }
        }
    }

    /// One volume, as a report and the kernel show it.
    fn look(&self, report: &Report, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        match self.find(report, id)? {
            Found::Nothing | Found::HalfRemoved | Found::HalfMade { .. } => Ok(None),
            Found::Finished { group_name, group, lv, facts } => {
                let volume = Volume { id, group_name, group, lv, facts: &facts };
                Ok(Some(self.info(report, &self.lvm.live.now(), volume, &Devices::now()?)))
            }
        }
    }

    fn class<'c>(&self, config: &'c Config, volume: &Volume<'_>) -> Result<&'c DeviceClass, LvmError> {
        let (id, class, path) = (volume.id.clone(), volume.facts.class.clone(), config.path.clone());
        config.class(Some(&volume.facts.class)).map_err(|_| LvmError::ClassGone { id, class, path })
    }

    fn info(&self, report: &Report, config: &Config, volume: Volume<'_>, devices: &Devices) -> VolumeInfo {
        let point = self.point(volume.id);
        let mounted = |device: &Active| devices.mounts_of(device).any(|mount| mount.point == point);
        let attached = devices.of(volume.group, volume.lv).is_some_and(mounted);
        let share = volume.lv.data.0.unwrap_or_default() / 100.0;
        VolumeInfo {
            id: volume.id.clone(),
            size: volume.facts.size,
            origin: volume.facts.origin.clone(),
            access: volume.facts.access,
            filesystem: Some(volume.facts.filesystem),
            attached: attached.then_some(point),
            used: Some(Bytes(if volume.lv.is_thin() {
                (volume.lv.size as f64 * share) as u64
            } else {
                volume.lv.size
            })),
            problems: self.problems_of(report, config, volume),
        }
    }
}

impl Volume<'_> {
    /// What is known of it, for comparing with what is asked for.
    fn record(&self) -> Record {
        Record {
            id: self.id.clone(),
            size: self.facts.size,
            filesystem: Some(self.facts.filesystem),
            origin: self.facts.origin.clone(),
            access: self.facts.access,
            growing_to: None,
        }
    }

    /// As LVM calls it.
    fn full_name(&self) -> String {
        format!("{}/{}", self.group_name, self.id)
    }
}

/// The name in the tags of everything that is this state folder's: made once, and kept in it.
fn owner(folders: &Path) -> Result<String, EngineError> {
    let path = folders.join(OWNER);
    if let Ok(text) = fs::read_to_string(&path) {
        let owner = text.trim().to_owned();
        let plain = !owner.is_empty() && owner.chars().all(|c| c.is_ascii_alphanumeric());
        let why = "it has to be one word, the end of the tags lvault.owner= of this node's volumes".to_owned();
        return if plain { Ok(owner) } else { Err(EngineError::Damaged { path, why }) };
    }
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(EngineError::io("making", &path))?;
    let owner: String = random.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    replace(&path, &owner).map_err(EngineError::io("writing", path))?;
    Ok(owner)
}

impl VolumeEngine for LvmEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let thick = |class: &DeviceClass| matches!(class.kind, Kind::Thick { .. });
        Capabilities {
            enforces_size: true,
            enforces_read_only: true,
            atomic_snapshots: true,
            reflink: true,
            independent_snapshots: !self.lvm.live.now().classes.iter().any(thick),
            needs_root: true,
            filesystems: &FILESYSTEMS,
        }
    }

    fn capacity(&self) -> Result<Capacity, EngineError> {
        let (report, config) = (self.lvm.report()?, self.lvm.live.now());
        Ok(storage(&report, &config, config.class(None)?)?.capacity(&self.owner))
    }

    fn classes(&self) -> Result<Vec<ClassReport>, EngineError> {
        let (report, config) = (self.lvm.report()?, self.lvm.live.now());
        let refused = self.lvm.live.refused().map(|why| Problem {
            kind: ProblemKind::ConfigRefused,
            message: format!("the device classes are those from before: {why}"),
        });
        let one = |class: &DeviceClass| {
            let mut of_class = match storage(&report, &config, class) {
                Ok(storage) => storage.report(&self.owner),
                Err(error) => without_storage(class, &error),
            };
            of_class.problems.extend(refused.clone());
            of_class
        };
        Ok(config.classes.iter().map(one).collect())
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        let (report, config, devices) = (self.lvm.report()?, self.lvm.live.now(), Devices::now()?);
        let mut list = Vec::new();
        for (group_name, group) in &report.groups {
            for (name, lv) in &group.volumes {
                let Ok(id) = VolumeId::parse(name) else { continue };
                match tags::read(&lv.tags, &self.owner) {
                    Ownership::Finished(facts) => {
                        let volume = Volume { id: &id, group_name, group, lv, facts: &facts };
                        list.push(self.info(&report, &config, volume, &devices));
                    }
                    Ownership::Damaged(why) => tracing::warn!(volume = %id, why, "left out of the list"),
                    Ownership::Foreign | Ownership::HalfMade | Ownership::Gone(_) => {}
                }
            }
        }
        list.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(list)
    }

    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        let info = self.look(&*self.lvm.report()?, id)?;
        match &info {
            Some(seen) if seen.access == Access::ReadOnly && seen.attached.is_some() => {
                self.look(&*self.lvm.report_within(WATCHED)?, id)
            }
            Some(_) | None => Ok(info),
        }
    }

    fn ensure_volume(&self, new: &NewVolume) -> Result<Change, EngineError> {
        let lock = self.locks.of(&new.id);
        let _held = hold(&lock);
        self.make_volume(new)
    }

    fn ensure_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError> {
        let locks = self.locks.both(&new.id, &new.source);
        let _held = (hold(&locks.0), locks.1.as_deref().map(hold));
        self.make_snapshot(new)
    }

    fn ensure_adopted(&self, adoption: &Adoption) -> Result<Change, EngineError> {
        let lock = self.locks.of(&adoption.id);
        let _held = hold(&lock);
        self.adopt(adoption)
    }

    fn ensure_size(&self, id: &VolumeId, size: Bytes) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let report = self.lvm.report()?;
        self.with(&report, id, |volume| self.grow(volume, size))
    }

    fn ensure_attached(&self, id: &VolumeId) -> Result<PathBuf, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        let report = self.lvm.report()?;
        self.with(&report, id, |volume| {
            let tools = self.hold_tools(id)?;
            self.attach(volume, &tools)
        })
    }

    fn ensure_detached(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        self.detach(id)
    }

    fn ensure_absent(&self, id: &VolumeId) -> Result<Change, EngineError> {
        let lock = self.locks.of(id);
        let _held = hold(&lock);
        self.remove_volume(id)
    }

    fn recover(&self) -> Result<Vec<Recovered>, EngineError> {
        self.put_right()
    }

    fn ensure_closed(&self) -> Result<Change, EngineError> {
        let devices = Devices::now()?;
        if let Some(mount) = devices.below(&self.mounts).next() {
            let what = format!("the state folder, with a volume attached at {},", mount.point.display());
            return Err(EngineError::Busy { what, holders: Vec::new() });
        }
        Ok(Change::Unchanged)
    }
}
