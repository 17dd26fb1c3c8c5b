//! Taking over volumes that TopoLVM has made: logical volumes named after their object, without tags of lvault.
//!
//! What holds: data is looked at and never written; one change of tags makes the volume ours, or nothing has happened;
//! whatever does not fit (another class, another lvault, no filesystem of a known kind) is left as it is, with a reason.

use lvault_core::{Bytes, VolumeId};

use super::config::{DeviceClass, Kind};
use super::devices::size_of;
use super::error::LvmError;
use super::report::Lv;
use super::room::storage;
use super::tags::{self, Facts, OURS};
use super::{Found, LvmEngine};
use crate::engine::{Adoption, Change};
use crate::error::EngineError;
use crate::filesystem;

impl LvmEngine {
    /// Takes a volume over. The caller holds its lock.
    pub(super) fn adopt(&self, wanted: &Adoption) -> Result<Change, EngineError> {
        // It decides about what others have made: that is looked at now.
        let report = self.lvm.fresh_report()?;
        match self.find(&report, &wanted.id)? {
            Found::Finished { .. } | Found::HalfMade { .. } | Found::HalfRemoved => return Ok(Change::Unchanged),
            Found::Nothing => {}
        }
        let config = self.lvm.live.now();
        let class = config.class(wanted.device_class.as_deref())?;
        let group = storage(&report, &config, class)?.group;
        let Some(lv) = group.volumes.get(wanted.id.as_str()) else { return Ok(Change::Unchanged) };
        let volume = format!("{}/{}", class.volume_group, wanted.id);
        let refused = |why: String| LvmError::NotAdopted { volume: volume.clone(), why };
        fits(class, lv).map_err(refused)?;
        let held = self.hold_tools(&wanted.id)?;
        let device = self.activate_lv(&class.volume_group, group, lv, &wanted.id, &held)?.path()?;
        let found = filesystem::found_on(&device).map_err(EngineError::io("reading", &device))?;
        let filesystem = found.ok_or_else(|| {
            refused(
                "it holds neither ext4 nor xfs nor btrfs, as a raw block volume does, and one that was never formatted"
                    .to_owned(),
            )
        })?;
        let size = size_of(&device)?;
        let facts = Facts {
            size: Bytes(size),
            // What is asked for beyond what there is, is a growth to come.
            asked: Bytes(wanted.size.0.min(size)),
            filesystem,
            origin: lv.origin.as_deref().and_then(|origin| VolumeId::parse(origin).ok()),
            access: wanted.access,
            class: class.name.clone(),
            zeroed: None,
        };
        let mut args = ["lvchange", "-y"].map(str::to_owned).to_vec();
        args.extend(tags::adopted(&self.owner, &facts));
        args.push(volume.clone());
        self.lvm.change(&args, Some(&held), &format!("taking volume {} over", wanted.id))?;
        tracing::info!(volume, "taken over, with its data as it is");
        Ok(Change::Changed)
    }
}

/// Whether a logical volume is one that its class could have made, and nobody else's.
fn fits(class: &DeviceClass, lv: &Lv) -> Result<(), String> {
    if lv.tags.iter().any(|tag| tag == OURS) {
        return Err("it belongs to another lvault, as its tag lvault.owner says".to_owned());
    }
    if lv.is_thick_snapshot() {
        return Err("it is a thick snapshot, which TopoLVM does not make".to_owned());
    }
    match (&class.kind, lv.pool.as_deref().filter(|_| lv.is_thin())) {
        (Kind::Thin { pool, .. }, Some(there)) if there == pool => Ok(()),
        (Kind::Thin { pool, .. }, _) => Err(format!(
            "it is of type {}, and not in the thin pool {pool} of device class '{}'",
            lv.layout, class.name
        )),
        (Kind::Thick { .. }, None) if lv.is_plain() => Ok(()),
        (Kind::Thick { .. }, _) => {
            Err(format!("it is of type {}, and device class '{}' is thick", lv.layout, class.name))
        }
    }
}
