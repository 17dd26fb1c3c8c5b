//! Finding out whether the image engine works here, by doing what it does: a volume of its own, mounted, written to,
//! snapshotted while frozen, and taken away again.

use std::fs;
use std::path::Path;

use lvault_core::VolumeId;

use super::ImageEngine;
use crate::engine::{Access, Change, Filesystem, NewSnapshot, NewVolume, Options, Placement, VolumeEngine};
use crate::error::EngineError;

/// The names of the volumes it makes, which it also removes when an earlier probe died.
const VOLUME: &str = "lvault-probe";
const SNAPSHOT: &str = "lvault-probe-snapshot";
const CONTENT: &[u8] = b"lvault";

impl ImageEngine {
    /// Opens the engine in a state folder and tries it out. When it does not work, what opening has made is taken away
    /// again; a pool that was there before is left.
    pub(crate) fn probed(state: &Path, options: Options) -> Result<Self, EngineError> {
        let was_there = state.join("pool.xfs").exists() || state.join("pool/volumes").exists();
        let outcome = Self::open(state, options).and_then(|engine| match engine.probe() {
            Ok(()) => Ok(engine),
            Err(error) => {
                let _said_by_the_probe = engine.ensure_closed();
                Err(error)
            }
        });
        if outcome.is_err() && !was_there {
            take_back(state);
        }
        outcome
    }

    fn probe(&self) -> Result<(), EngineError> {
        let id = |text: &str| {
            VolumeId::parse(text).map_err(|error| EngineError::Damaged { path: text.into(), why: error.to_string() })
        };
        let (volume, snapshot) = (id(VOLUME)?, id(SNAPSHOT)?);
        let clear = || -> Result<(), EngineError> {
            for id in [&snapshot, &volume] {
                self.ensure_detached(id)?;
                self.ensure_absent(id)?;
            }
            Ok(())
        };
        clear()?;
        let outcome = self.try_out(&volume, &snapshot);
        let cleared = clear();
        outcome.and(cleared)
    }

    fn try_out(&self, volume: &VolumeId, snapshot: &VolumeId) -> Result<(), EngineError> {
        let size = Filesystem::Ext4.least_size();
        self.ensure_volume(&NewVolume { id: volume.clone(), size, filesystem: None, placement: Placement::default() })?;
        let file = self.ensure_attached(volume)?.join("probe");
        fs::write(&file, CONTENT).map_err(EngineError::io("writing", &file))?;
        let new = NewSnapshot { id: snapshot.clone(), source: volume.clone(), access: Access::ReadOnly };
        let change = self.ensure_snapshot(&new)?;
        let copy = self.ensure_attached(snapshot)?.join("probe");
        let read = fs::read(&copy).map_err(EngineError::io("reading", &copy))?;
        if change == Change::Changed && read == CONTENT {
            return Ok(());
        }
        Err(EngineError::Damaged { path: copy, why: "the snapshot does not hold what was written".into() })
    }
}

/// Removes what opening a new pool has made. What cannot be removed is in use or is not empty: then it is left.
fn take_back(state: &Path) {
    let folders = ["mnt", "pool/volumes", "pool"].map(|name| fs::remove_dir(state.join(name)));
    // A mount point cannot be removed: so the pool is not mounted.
    let file = folders[2].is_ok().then(|| fs::remove_file(state.join("pool.xfs")));
    tracing::debug!(?folders, ?file, "taken back");
}
