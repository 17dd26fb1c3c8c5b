//! An engine whose volumes are numbers in memory. Every call is a point.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};
use lvault_engines::{
    Access, Capabilities, Capacity, Change, EngineError, NewSnapshot, NewVolume, Recovered, VolumeEngine, VolumeInfo,
};

use crate::mutation::Planted;

use super::points::{Fault, Life};
use super::{Inner, Shared};

/// A volume in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeVolume {
    /// Its size.
    pub size: Bytes,
    /// Whether it may be written to.
    pub access: Access,
    /// What it was cut from.
    pub origin: Option<VolumeId>,
    /// It is mounted.
    pub attached: bool,
    /// What is in it: a number stands for all its data. 0 is empty.
    pub content: u64,
    /// It is being filled, and not all of it is there.
    pub partial: bool,
}

/// The engine as one agent's life sees it.
pub struct FakeEngine {
    /// What all lives share.
    pub shared: Arc<Shared>,
    /// Whose calls these are.
    pub life: Arc<Life>,
}

fn broken(life: &Life) -> EngineError {
    let source = io::Error::other(format!("injected for {}", life.name));
    EngineError::Io { attempted: "calling the engine for", path: PathBuf::from("/"), source }
}

impl FakeEngine {
    fn call<T>(&self, what: &str, act: impl FnOnce(&mut Inner) -> Result<T, EngineError>) -> Result<T, EngineError> {
        if self.life.is_over() {
            return Err(broken(&self.life));
        }
        self.shared.with(|inner| {
            let fault = inner.points.pass(&self.life.name, &format!("engine {what}"));
            match fault {
                Some(Fault::CrashBefore) => {
                    self.life.end();
                    return Err(broken(&self.life));
                }
                Some(Fault::Refused | Fault::Conflict | Fault::Stops) => return Err(broken(&self.life)),
                Some(Fault::CrashAfter | Fault::DoneButError | Fault::AnswerLost) | None => {}
            }
            let answer = act(inner);
            inner.look();
            match fault {
                Some(Fault::CrashAfter) => {
                    self.life.end();
                    Err(broken(&self.life))
                }
                Some(Fault::DoneButError) => Err(broken(&self.life)),
                Some(Fault::AnswerLost) => Err(EngineError::ToolTimedOut {
                    attempted: "calling the engine".to_owned(),
                    program: "sim",
                    limit: Duration::from_secs(120),
                    goes_on: false,
                }),
                Some(Fault::CrashBefore | Fault::Refused | Fault::Conflict | Fault::Stops) | None => answer,
            }
        })
    }
}

fn info(id: &VolumeId, volume: &FakeVolume) -> VolumeInfo {
    VolumeInfo {
        id: id.clone(),
        size: volume.size,
        origin: volume.origin.clone(),
        access: volume.access,
        filesystem: None,
        // A folder that is there on every machine: the agent looks at its device.
        attached: volume.attached.then(|| PathBuf::from("/")),
        used: None,
        problems: Vec::new(),
    }
}

fn missing(id: &VolumeId) -> EngineError {
    EngineError::NotFound { id: id.clone() }
}

impl VolumeEngine for FakeEngine {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enforces_size: true,
            enforces_read_only: true,
            atomic_snapshots: true,
            reflink: true,
            independent_snapshots: true,
            needs_root: false,
            filesystems: &[],
        }
    }

    fn capacity(&self) -> Result<Capacity, EngineError> {
        Ok(Capacity { total: Bytes(1 << 40), available: Bytes(1 << 39) })
    }

    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        self.call("list", |inner| Ok(inner.volumes.iter().map(|(id, volume)| info(id, volume)).collect()))
    }

    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        self.call("observe", |inner| Ok(inner.volumes.get(id).map(|volume| info(id, volume))))
    }

    fn ensure_volume(&self, new: &NewVolume) -> Result<Change, EngineError> {
        self.call("ensure_volume", |inner| {
            if let Some(volume) = inner.volumes.get(&new.id) {
                return same_size(&new.id, volume.size, new.size);
            }
            if new.size > Bytes(1 << 39) {
                let available = Bytes(1 << 39);
                return Err(EngineError::NoSpace { id: new.id.clone(), asked: new.size, available });
            }
            let volume = FakeVolume {
                size: new.size,
                access: Access::ReadWrite,
                origin: None,
                attached: false,
                content: 0,
                partial: false,
            };
            inner.volumes.insert(new.id.clone(), volume);
            Ok(Change::Changed)
        })
    }

    fn ensure_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError> {
        self.call("ensure_snapshot", |inner| {
            if inner.volumes.contains_key(&new.id) {
                return Ok(Change::Unchanged);
            }
            let source = inner.volumes.get(&new.source).ok_or_else(|| missing(&new.source))?;
            let volume =
                FakeVolume { access: new.access, origin: Some(new.source.clone()), attached: false, ..source.clone() };
            // The first cut is the moment that every attempt copies.
            inner.cuts.entry(new.id.clone()).or_insert(source.content);
            if inner.planted == Some(Planted::CutChangesSource)
                && let Some(source) = inner.volumes.get_mut(&new.source)
            {
                source.content += 100;
            }
            inner.volumes.insert(new.id.clone(), volume);
            Ok(Change::Changed)
        })
    }

    fn ensure_size(&self, id: &VolumeId, size: Bytes) -> Result<Change, EngineError> {
        self.call("ensure_size", |inner| {
            let volume = inner.volumes.get_mut(id).ok_or_else(|| missing(id))?;
            if volume.access == Access::ReadOnly {
                return Err(EngineError::ReadOnly { id: id.clone() });
            }
            if volume.size >= size {
                return Ok(Change::Unchanged);
            }
            volume.size = size;
            Ok(Change::Changed)
        })
    }

    fn ensure_attached(&self, id: &VolumeId) -> Result<PathBuf, EngineError> {
        self.call("ensure_attached", |inner| {
            let volume = inner.volumes.get_mut(id).ok_or_else(|| missing(id))?;
            volume.attached = inner.planted != Some(Planted::NothingMounted);
            Ok(PathBuf::from("/"))
        })
    }

    fn ensure_detached(&self, id: &VolumeId) -> Result<Change, EngineError> {
        self.call("ensure_detached", |inner| {
            inner.check_idle(id, "unmounted");
            let Some(volume) = inner.volumes.get_mut(id) else { return Ok(Change::Unchanged) };
            let stays = volume.attached && inner.planted == Some(Planted::UnmountDoesNothing);
            let was = std::mem::replace(&mut volume.attached, stays);
            Ok(if was { Change::Changed } else { Change::Unchanged })
        })
    }

    fn ensure_absent(&self, id: &VolumeId) -> Result<Change, EngineError> {
        self.call("ensure_absent", |inner| {
            inner.check_idle(id, "removed");
            if inner.volumes.get(id).is_some_and(|volume| volume.attached) {
                return Err(EngineError::Attached { id: id.clone(), at: "/".to_owned() });
            }
            inner.check_removal(id);
            if inner.planted == Some(Planted::RemovesNothing) {
                return Ok(Change::Changed);
            }
            let was = inner.volumes.remove(id);
            if let (Some(Planted::RemovesSource), Some(source)) =
                (inner.planted, was.as_ref().and_then(|volume| volume.origin.clone()))
            {
                inner.volumes.remove(&source);
            }
            Ok(if was.is_some() { Change::Changed } else { Change::Unchanged })
        })
    }

    fn recover(&self) -> Result<Vec<Recovered>, EngineError> {
        Ok(Vec::new())
    }

    fn ensure_closed(&self) -> Result<Change, EngineError> {
        Ok(Change::Unchanged)
    }
}

fn same_size(id: &VolumeId, there: Bytes, asked: Bytes) -> Result<Change, EngineError> {
    if there >= asked {
        return Ok(Change::Unchanged);
    }
    Err(EngineError::Mismatch { id: id.clone(), there: there.to_string(), asked: asked.to_string() })
}
