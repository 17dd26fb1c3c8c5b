//! Writing packs anew without what nobody needs, in batches: so much room is needed beside what there is, and no more.

use super::indexes::IndexFiles;
use super::plan::{Mixed, Plan};
use super::{End, PruneReport, Pruning, Unfinished};
use crate::backend::file_name;
use crate::fault::Fault;
use crate::index::{Indexed, IndexedPack};
use crate::pipeline::Pack;
use crate::runs::read_sealed;
use crate::seal::Pressed;
use crate::storage::{CauseKind, Put};
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use std::collections::HashSet;
use std::time::Instant;

/// The old packs of a batch go when so many bytes were written for them.
const BATCH: u64 = 128 << 20;

/// Old packs whose content is being written anew.
pub(super) struct Batch {
    data: Pack,
    trees: Pack,
    old: Vec<(Id, u64, u64)>,
    pub(super) written: Vec<IndexedPack>,
    bytes: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        let (data, trees) = (Pack::new(BlobType::Data), Pack::new(BlobType::Tree));
        Self { data, trees, old: Vec::new(), written: Vec::new(), bytes: 0 }
    }
}

impl Pruning<'_> {
    /// Writes packs anew until all are done, the time is over, or there is no more room.
    pub(super) fn repack(
        &self,
        indexed: &Indexed,
        plan: &Plan,
        files: &mut IndexFiles,
        until: Instant,
        report: &mut PruneReport,
    ) -> Result<(), End> {
        let mut batch = Batch::new();
        for pack in &plan.repack {
            if Instant::now() >= until {
                report.unfinished = Some(Unfinished::Time);
                break;
            }
            let blobs = match self.read_kept(indexed, plan, pack)? {
                Ok(blobs) => blobs,
                Err(damage) => {
                    tracing::warn!(repository = self.repository.shown(), "a pack is not written anew: {damage}");
                    report.damaged.push(damage);
                    continue;
                }
            };
            let added = blobs.into_iter().try_for_each(|blob| self.add(&mut batch, blob));
            if self.is_out_of_room(added, &batch, report)? {
                return Ok(());
            }
            batch.old.push((pack.pack, pack.size, pack.unused));
            if batch.bytes >= BATCH {
                let full = std::mem::replace(&mut batch, Batch::new());
                if self.finish(full, files, report)? {
                    return Ok(());
                }
            }
        }
        self.finish(batch, files, report).map(drop)
    }

    /// What is to be kept of a pack, each blob checked; in words which of it is damaged.
    fn read_kept(&self, indexed: &Indexed, plan: &Plan, pack: &Mixed) -> Result<Result<Vec<Blob>, String>, End> {
        let place = |(kind, at): &(BlobType, usize)| {
            let (id, place) = indexed.list(*kind)[*at];
            (*kind, id, place)
        };
        let kept: Vec<_> = plan.kept(pack).iter().map(place).collect();
        match read_sealed(indexed, &kept) {
            Ok(read) => Ok(Ok(kept
                .iter()
                .zip(read)
                .map(|((kind, _, place), (sealed, hash))| {
                    let raw_length = place.raw_length().and_then(|length| u32::try_from(length).ok());
                    Blob { kind: *kind, hash, sealed, raw_length }
                })
                .collect())),
            Err(Fault::Damaged { what }) => Ok(Err(what)),
            Err(fault @ (Fault::Storage(_) | Fault::Locked { .. } | Fault::System { .. } | Fault::Panicked { .. })) => {
                Err(fault.into())
            }
        }
    }

    /// Adds a blob to a batch; a pack that is full is written.
    pub(super) fn add(&self, batch: &mut Batch, blob: Blob) -> Result<(), End> {
        let pack = match blob.kind {
            BlobType::Data => &mut batch.data,
            BlobType::Tree => &mut batch.trees,
        };
        pack.add(&Pressed { hash: blob.hash, sealed: &blob.sealed, raw_length: blob.raw_length });
        if pack.is_full() {
            let full = std::mem::replace(pack, Pack::new(blob.kind));
            self.write(batch, full)?;
        }
        Ok(())
    }

    fn write(&self, batch: &mut Batch, pack: Pack) -> Result<(), End> {
        if pack.is_empty() {
            return Ok(());
        }
        self.may_go_on()?;
        let (bytes, pack) = pack.close(self.repository.seal())?;
        let (name, size) = (file_name(FileType::Pack, &pack.id), bytes.len() as u64);
        self.repository.storage().write(&name, vec![bytes], Put::Overwrite)?;
        if self.repository.storage().size(&name)? != Some(size) {
            return Err(Fault::damaged(format!("{name} was written and is not there")).into());
        }
        batch.bytes += size;
        batch.written.push(pack);
        Ok(())
    }

    /// Writes the last packs of a batch.
    pub(super) fn write_rest(&self, batch: &mut Batch) -> Result<(), End> {
        let data = std::mem::replace(&mut batch.data, Pack::new(BlobType::Data));
        let trees = std::mem::replace(&mut batch.trees, Pack::new(BlobType::Tree));
        [data, trees].into_iter().try_for_each(|pack| self.write(batch, pack))
    }

    /// Writes the last packs of a batch and their index, and removes the old packs. Whether there was no room for that.
    fn finish(&self, mut batch: Batch, files: &mut IndexFiles, report: &mut PruneReport) -> Result<bool, End> {
        if batch.old.is_empty() {
            return Ok(false);
        }
        let written = self.write_rest(&mut batch);
        if self.is_out_of_room(written, &batch, report)? {
            return Ok(true);
        }
        let packs = std::mem::take(&mut batch.written);
        let written: Vec<Id> = packs.iter().map(|pack| pack.id).collect();
        if let Err(end) = self.index_packs(files, packs) {
            return self.out_of_room(end, &written, report).map(|()| true);
        }
        // From here on the new packs are in the index; whatever of the old ones stays is for the next prune.
        let old: HashSet<Id> = batch.old.iter().map(|(pack, ..)| *pack).collect();
        if let Err(end) = self.drop_packs(files, &old) {
            return self.out_of_room(end, &[], report).map(|()| true);
        }
        let (mut gone, mut unused) = (0, 0);
        for (_, size, of_it) in &batch.old {
            gone += size;
            unused += of_it;
            self.done(*size);
        }
        report.packs_repacked += batch.old.len() as u64;
        report.bytes_written += batch.bytes;
        report.after.total = (report.after.total + batch.bytes).saturating_sub(gone);
        report.after.reclaimable = report.after.reclaimable.saturating_sub(unused);
        Ok(false)
    }

    fn is_out_of_room(&self, written: Result<(), End>, batch: &Batch, report: &mut PruneReport) -> Result<bool, End> {
        let Err(end) = written else { return Ok(false) };
        let packs: Vec<Id> = batch.written.iter().map(|pack| pack.id).collect();
        self.out_of_room(end, &packs, report).map(|()| true)
    }

    /// On a full storage the new packs of the batch go again, and that is all; any other end is one.
    fn out_of_room(&self, end: End, written: &[Id], report: &mut PruneReport) -> Result<(), End> {
        match end {
            End::Fault(Fault::Storage(err)) if err.kind() == CauseKind::Full => {
                tracing::warn!(repository = self.repository.shown(), "no room to write packs anew: {err}");
                report.unfinished = Some(Unfinished::Full);
                written.iter().try_for_each(|pack| self.remove_pack(pack))
            }
            end @ (End::Fault(_) | End::Missing { .. } | End::LostLock | End::Stopped) => Err(end),
        }
    }
}

/// A blob as it is stored.
pub(super) struct Blob {
    pub(super) kind: BlobType,
    pub(super) hash: [u8; 32],
    pub(super) sealed: Vec<u8>,
    pub(super) raw_length: Option<u32>,
}
