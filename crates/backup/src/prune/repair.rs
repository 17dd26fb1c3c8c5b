//! Taking damaged packs out of the index, so that the next backup stores again what they held.
//!
//! What holds here:
//! - Whether a pack is damaged is looked at once more, under the exclusive lock. A storage that does not answer is no
//!   damage: nothing is taken out then.
//! - What is whole in a damaged pack is written anew and put into the index, before the pack goes out of it. A repair that is
//!   killed at any moment leaves everything readable that was readable before.
//! - No pack is removed: a damaged one stays until a prune finds it in no index.

use super::indexes::IndexFiles;
use super::repack::{Batch, Blob};
use super::{End, Hook, Prune, Pruning};
use crate::backend::file_name;
use crate::check::PackId;
use crate::fault::Fault;
use crate::index::{Indexed, Place};
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::retry::Retry;
use crate::seal::hash;
use bytes::Bytes;
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use std::cell::Cell;
use std::collections::HashSet;

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairReport {
    /// Packs that are in the index no more.
    pub packs: u64,
    /// Packs that were whole when they were looked at again, and stay.
    pub whole: u64,
    /// Blobs of these packs that were whole, and stand in new packs now.
    pub saved: u64,
    /// Blobs of which no whole copy is left: a backup stores them again where the volume still has them.
    pub lost: u64,
}

/// Why nothing was repaired, or not everything. The repository is no worse with each of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// Reading, writing, or taking the lock.
    #[error("cannot repair {repository}: {fault}")]
    Repository {
        /// The repository.
        repository: String,
        /// What happened.
        fault: Fault,
    },
    /// Going on: the lock was removed by somebody, or could not be renewed.
    #[error("the repair of {repository} ended early, as its lock was removed or could not be renewed; repair again")]
    LostLock {
        /// The repository.
        repository: String,
    },
    /// Going on: the caller asked to stop.
    #[error("the repair of {repository} was asked to stop; repair again for the rest")]
    Stopped {
        /// The repository.
        repository: String,
    },
}

impl RepairError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Repository { fault, .. } => fault.retry(),
            Self::LostLock { .. } | Self::Stopped { .. } => Retry::Later,
        }
    }
}

impl Repository {
    /// Takes packs out of the index that a check found damaged, after what is whole in them was written anew. Waits two
    /// minutes for others who use the repository.
    ///
    /// Idempotent: a pack that is whole, or in no index, is left alone. A crash at any moment leaves everything readable that was,
    /// with packs that nobody refers to at most; calling again goes on.
    ///
    /// # Errors
    /// See [`RepairError`]. Where the storage fails to read one of the packs, the index stays as it is.
    pub fn repair(&self, damaged: &[PackId], progress: &dyn Progress) -> Result<RepairReport, RepairError> {
        self.repair_hooked(damaged, progress, None)
    }

    pub(super) fn repair_hooked(
        &self,
        damaged: &[PackId],
        progress: &dyn Progress,
        hook: Hook<'_>,
    ) -> Result<RepairReport, RepairError> {
        progress.step(Step::Verifying);
        let repair = || {
            let lock = self.lock_for_removing(progress, Prune::default().patience)?;
            Pruning { repository: self, progress, lock, looked: Cell::new(None), hook }.repair(damaged)
        };
        let repository = self.shown().to_owned();
        repair().map_err(|end| match end {
            End::Fault(fault) => RepairError::Repository { repository, fault },
            End::Missing { some, .. } => {
                RepairError::Repository { repository, fault: Fault::damaged(format!("it lacks {}", some.join(", "))) }
            }
            End::LostLock => RepairError::LostLock { repository },
            End::Stopped => RepairError::Stopped { repository },
        })
    }
}

/// A blob, and a place where it should be.
type Entry = (BlobType, Id, Place);

impl Pruning<'_> {
    pub(super) fn repair(&self, suspects: &[PackId]) -> Result<RepairReport, End> {
        self.repository.must_be_there()?;
        let (indexed, files) = Indexed::load_with_files(self.repository.storage(), self.repository.seal())?;
        let (mut files, mut by_pack) = (IndexFiles::new(files), indexed.by_pack());
        let suspects: HashSet<Id> = suspects.iter().map(|pack| pack.0).collect();
        let entries: Vec<(Id, Vec<Entry>)> =
            suspects.into_iter().filter_map(|pack| Some((pack, by_pack.remove(&pack)?))).collect();
        drop(by_pack);
        let mut report = RepairReport::default();
        let mut broken = HashSet::new();
        for (pack, blobs) in &entries {
            match self.look_again(pack, blobs)? {
                Some(_) => drop(broken.insert(*pack)),
                None => report.whole += 1,
            }
        }
        let (mut batch, mut saved, mut lost) = (Batch::new(), HashSet::new(), HashSet::new());
        for (pack, blobs) in entries.iter().filter(|(pack, _)| broken.contains(pack)) {
            // Read again rather than kept: a repository may have many of them.
            let content = self.look_again(pack, blobs)?.unwrap_or_default();
            for (kind, id, place) in blobs {
                if saved.contains(&(*kind, *id)) || self.is_whole_elsewhere(&indexed, *kind, id, &broken)? {
                    continue;
                }
                match self.open(&content, *kind, id, *place) {
                    Some(blob) => {
                        self.add(&mut batch, blob)?;
                        saved.insert((*kind, *id));
                    }
                    None => drop(lost.insert((*kind, *id))),
                }
            }
        }
        self.write_rest(&mut batch)?;
        if !batch.written.is_empty() {
            self.index_packs(&mut files, std::mem::take(&mut batch.written))?;
        }
        self.unindex(&mut files, &broken)?;
        report.packs = broken.len() as u64;
        report.saved = saved.len() as u64;
        report.lost = lost.difference(&saved).count() as u64;
        tracing::info!(repository = self.repository.shown(), ?report, "repaired");
        Ok(report)
    }

    /// The content of a pack, if it is not what its name and the index say; empty where there is no such pack.
    fn look_again(&self, pack: &Id, blobs: &[Entry]) -> Result<Option<Bytes>, End> {
        if self.progress.should_stop() {
            return Err(End::Stopped);
        }
        let name = file_name(FileType::Pack, pack);
        let content = match self.repository.storage().size(&name)? {
            None => Bytes::new(),
            Some(_) => self.repository.storage().read(&name)?,
        };
        self.progress.bytes(content.len() as u64);
        let is_long_enough = blobs.iter().all(|(_, _, place)| place.end() <= content.len() as u64);
        let is_whole = is_long_enough && Id::new(hash(&content)) == *pack;
        Ok((!is_whole).then_some(content))
    }

    /// Whether a copy of a blob can be read from a pack that is none of these.
    fn is_whole_elsewhere(
        &self,
        indexed: &Indexed,
        kind: BlobType,
        id: &Id,
        broken: &HashSet<Id>,
    ) -> Result<bool, End> {
        for place in indexed.places(kind, id).filter(|place| !broken.contains(&indexed.pack(place))) {
            match indexed.read_sealed(kind, id, place) {
                Ok(_) => return Ok(true),
                Err(Fault::Damaged { .. }) => {}
                Err(
                    fault @ (Fault::Storage(_) | Fault::Locked { .. } | Fault::System { .. } | Fault::Panicked { .. }),
                ) => return Err(fault.into()),
            }
        }
        Ok(false)
    }

    /// A blob of a pack's content, if it is what its id says.
    fn open(&self, content: &Bytes, kind: BlobType, id: &Id, place: Place) -> Option<Blob> {
        let (begin, end) = (place.offset as usize, usize::try_from(place.end()).ok()?);
        let sealed = content.get(begin..end)?.to_vec();
        let plain = self.repository.seal().open_blob(&mut sealed.clone(), place.raw_length()).ok()?;
        let raw_length = place.raw_length().and_then(|length| u32::try_from(length).ok());
        let hash = hash(&plain);
        (Id::new(hash) == *id).then_some(Blob { kind, hash, sealed, raw_length })
    }
}
