//! How much room a device class has, whether it is fit for use, and what is wrong with it.
//!
//! What holds: spare extents of a volume group are never used; volumes of a thin pool are never promised more than the
//! pool's size times the class's ratio; read-only snapshots promise nothing, but none is cut in a pool that is nearly
//! full. All of it is computed from one report.

use lvault_core::{Bytes, VolumeId};

use super::config::{Config, DeviceClass, Kind};
use super::error::LvmError;
use super::report::{Group, Lv, Report};
use super::tags::{self, Ownership};
use crate::engine::{Access, Capacity};
use crate::error::EngineError;
use crate::health::{ClassReport, PoolReport, Problem};

/// From this many percent of a pool's data or metadata on, nothing new is begun in it.
const MOST_PERCENT: u32 = 90;

/// A device class with what there really is of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'r> {
    pub(super) class: &'r DeviceClass,
    pub(super) group: &'r Group,
    pool: Option<(&'r str, &'r Lv)>,
}

/// Finds the storage of a class, which has to be there and to be what the configuration says.
pub(super) fn storage<'r>(
    report: &'r Report,
    config: &'r Config,
    class: &'r DeviceClass,
) -> Result<Storage<'r>, LvmError> {
    let (name, path) = (class.name.clone(), config.path.clone());
    let Some(group) = report.groups.get(&class.volume_group) else {
        return Err(LvmError::GroupMissing { class: name, group: class.volume_group.clone(), path });
    };
    let pool = match &class.kind {
        Kind::Thick { .. } => None,
        Kind::Thin { pool, .. } => {
            let full_name = format!("{}/{pool}", class.volume_group);
            let Some(found) = group.volumes.get(pool) else {
                return Err(LvmError::PoolMissing { class: name, pool: full_name, path });
            };
            if !found.is_thin_pool() {
                return Err(LvmError::NoPool { class: name, pool: full_name, layout: found.layout.clone(), path });
            }
            Some((pool.as_str(), found))
        }
    };
    Ok(Storage { class, group, pool })
}

impl Storage<'_> {
    /// Refuses what must not be begun: on a group without its disks, or in a pool that fails, is nearly full, or shows
    /// old data.
    pub(super) fn require_sound(&self) -> Result<(), LvmError> {
        let first = self.problems().into_iter().next();
        first.map_or(Ok(()), Err)
    }

    pub(super) fn problems(&self) -> Vec<LvmError> {
        let mut problems = Vec::new();
        if !self.group.missing.is_empty() {
            let group = self.class.volume_group.clone();
            problems.push(LvmError::DevicesMissing { group, devices: self.group.missing.join(", ") });
        }
        let Some((name, pool)) = self.pool else { return problems };
        let full_name = || format!("{}/{name}", self.class.volume_group);
        if let Some(health) = pool.problem() {
            problems.push(LvmError::PoolFailed { pool: full_name(), health });
        }
        let most = f64::from(MOST_PERCENT);
        if [pool.data.0, pool.metadata.0].into_iter().flatten().any(|used| used >= most) {
            let (data, metadata) = (pool.data, pool.metadata);
            problems.push(LvmError::PoolFull { pool: full_name(), data, metadata, most: MOST_PERCENT });
        }
        if !pool.zeroes() {
            problems.push(LvmError::PoolShowsOldData { pool: full_name() });
        }
        problems
    }

    /// All there is, and the largest new volume that would fit.
    pub(super) fn capacity(&self, owner: &str) -> Capacity {
        let (total, available) = match (&self.class.kind, self.pool) {
            (Kind::Thick { spare, .. }, _) => (self.group.size, self.group.free.saturating_sub(*spare)),
            (Kind::Thin { overprovision, .. }, Some((name, pool))) => {
                let may_promise = (pool.size as f64 * overprovision) as u64;
                (may_promise, may_promise.saturating_sub(promised(self.group, name, owner)))
            }
            (Kind::Thin { .. }, None) => (0, 0),
        };
        Capacity { total: Bytes(total), available: Bytes(available / self.group.extent * self.group.extent) }
    }

    /// A size as LVM will make it: whole extents, the same number on every stripe.
    pub(super) fn rounded(&self, size: Bytes) -> Option<Bytes> {
        let stripes = match &self.class.kind {
            Kind::Thick { stripes, .. } => stripes.unwrap_or(1),
            Kind::Thin { .. } => 1,
        };
        size.0.checked_next_multiple_of(self.group.extent * u64::from(stripes)).map(Bytes)
    }

    /// Refuses what does not fit. `asked` is what comes on top of what is there.
    pub(super) fn require_room(&self, id: &VolumeId, asked: Bytes, owner: &str) -> Result<(), EngineError> {
        let available = self.capacity(owner).available;
        if asked <= available { Ok(()) } else { Err(EngineError::NoSpace { id: id.clone(), asked, available }) }
    }

    /// For metrics and for people.
    pub(super) fn report(&self, owner: &str) -> ClassReport {
        let available = self.capacity(owner).available;
        ClassReport {
            name: self.class.name.clone(),
            default: self.class.default,
            volume_group: self.class.volume_group.clone(),
            volume_group_size: Bytes(self.group.size),
            volume_group_free: Bytes(self.group.free),
            available,
            pool: self.pool.map(|(name, pool)| PoolReport {
                name: name.to_owned(),
                size: Bytes(pool.size),
                data_percent: pool.data.0,
                metadata_percent: pool.metadata.0,
                overprovisioned_available: available,
            }),
            problems: self.problems().iter().filter_map(LvmError::problem).collect(),
        }
    }
}

/// The report of a class whose storage is not there.
pub(super) fn without_storage(class: &DeviceClass, why: &LvmError) -> ClassReport {
    let none = Bytes(0);
    ClassReport {
        name: class.name.clone(),
        default: class.default,
        volume_group: class.volume_group.clone(),
        volume_group_size: none,
        volume_group_free: none,
        available: none,
        pool: None,
        problems: why.problem().into_iter().collect::<Vec<Problem>>(),
    }
}

/// The sizes of all volumes in a pool that may come to fill it: everybody's, but for our own read-only snapshots.
fn promised(group: &Group, pool: &str, owner: &str) -> u64 {
    let in_pool = group.volumes.values().filter(|volume| volume.is_thin() && volume.pool.as_deref() == Some(pool));
    let sizes = in_pool.map(|volume| match tags::read(&volume.tags, owner) {
        Ownership::Finished(facts) if facts.access == Access::ReadOnly => 0,
        Ownership::Finished(_)
        | Ownership::Foreign
        | Ownership::HalfMade
        | Ownership::Gone(_)
        | Ownership::Damaged(_) => volume.size,
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
