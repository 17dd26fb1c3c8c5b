//! Packs and their index: sealed blobs are collected, written as packs, and named in index files.
//!
//! What holds here: an index file is written only when each pack it names is on disk, and soon after, so that whoever
//! comes after a killed process finds what it uploaded. Packs wait in a short queue for the threads that write them.

use super::Run;
use crate::backend::{file_name, lock};
use crate::fault::Fault;
use crate::index::{IndexFile, IndexedBlob, IndexedPack};
use crate::seal::{Pressed, Seal, hash};
use crate::storage::{Put, Storage};
use bytes::Bytes;
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A pack of files' parts is closed when it has this many bytes.
const DATA_PACK: usize = 16 << 20;
/// A pack of trees is closed when it has this many bytes.
const TREE_PACK: usize = 4 << 20;
/// A pack is closed when it has this many blobs, so that its header stays small.
const BLOBS: usize = 10_000;
/// An index file is written when what waits for it is this part of all that was written.
const UNINDEXED_PART: u64 = 100;
/// An index file is written when this many blobs wait for it.
const UNINDEXED_BLOBS: usize = 50_000;

/// A blob in a pack that is being filled.
struct Packed {
    hash: [u8; 32],
    length: u32,
    raw_length: Option<u32>,
}

/// A pack that is being filled.
pub(crate) struct Pack {
    kind: BlobType,
    bytes: Vec<u8>,
    blobs: Vec<Packed>,
}

impl Pack {
    pub(crate) fn new(kind: BlobType) -> Self {
        Self { kind, bytes: Vec::new(), blobs: Vec::new() }
    }

    fn target(&self) -> usize {
        match self.kind {
            BlobType::Data => DATA_PACK,
            BlobType::Tree => TREE_PACK,
        }
    }

    pub(crate) fn add(&mut self, pressed: &Pressed<'_>) {
        if self.bytes.capacity() == 0 {
            // Most packs end within the last blob; growing step by step would copy everything several times.
            self.bytes.reserve_exact(self.target() + self.target() / 8);
        }
        self.bytes.extend_from_slice(pressed.sealed);
        let length = u32::try_from(pressed.sealed.len()).unwrap_or(u32::MAX);
        self.blobs.push(Packed { hash: pressed.hash, length, raw_length: pressed.raw_length });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= self.target() || self.blobs.len() >= BLOBS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Appends the sealed header and its length: what is stored, and what the index says of it.
    pub(crate) fn close(mut self, seal: &Seal) -> Result<(Bytes, IndexedPack), Fault> {
        let mut header = Vec::with_capacity(self.blobs.len() * 41);
        let (mut offset, mut blobs) = (0, Vec::with_capacity(self.blobs.len()));
        for blob in &self.blobs {
            let kind = match self.kind {
                BlobType::Data => 0,
                BlobType::Tree => 1,
            };
            header.push(if blob.raw_length.is_some() { kind + 2 } else { kind });
            header.extend_from_slice(&blob.length.to_le_bytes());
            blob.raw_length.iter().for_each(|length| header.extend_from_slice(&length.to_le_bytes()));
            header.extend_from_slice(&blob.hash);
            blobs.push(IndexedBlob {
                id: Id::new(blob.hash),
                kind: self.kind,
                offset,
                length: blob.length,
                uncompressed_length: blob.raw_length,
            });
            offset += blob.length;
        }
        let header = seal.seal(&header)?;
        self.bytes.extend_from_slice(&header);
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        let id = Id::new(hash(&self.bytes));
        Ok((self.bytes.into(), IndexedPack { id, blobs }))
    }
}

/// Packs that are on disk and stand in no index file yet.
#[derive(Default)]
struct Unindexed {
    packs: Vec<IndexedPack>,
    bytes: u64,
    blobs: usize,
}

/// Where sealed blobs go.
pub(super) struct Packer {
    storage: Storage,
    seal: Seal,
    data: Mutex<Pack>,
    trees: Mutex<Pack>,
    unindexed: Mutex<Unindexed>,
    /// No more packs but the last ones will come, which share an index file.
    is_ending: AtomicBool,
    packed_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

/// A full pack on its way to the disk.
pub(super) struct FullPack(Pack);

/// The way to the threads that write packs; short, since each pack waits in memory.
pub(super) fn pack_queue() -> (SyncSender<FullPack>, Mutex<Receiver<FullPack>>) {
    let (sender, receiver) = sync_channel(1);
    (sender, Mutex::new(receiver))
}

impl Packer {
    pub(super) fn new(storage: &Storage, seal: &Seal) -> Self {
        Self {
            storage: storage.clone(),
            seal: seal.clone(),
            data: Mutex::new(Pack::new(BlobType::Data)),
            trees: Mutex::new(Pack::new(BlobType::Tree)),
            unindexed: Mutex::default(),
            is_ending: AtomicBool::new(false),
            packed_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
        }
    }

    /// How many threads are to write packs.
    pub(super) fn writers(&self) -> usize {
        self.storage.writers()
    }

    /// Adds a sealed blob; answers with a pack when that filled one.
    pub(super) fn add(&self, kind: BlobType, pressed: &Pressed<'_>) -> Option<FullPack> {
        let mut pack = lock(match kind {
            BlobType::Data => &self.data,
            BlobType::Tree => &self.trees,
        });
        pack.add(pressed);
        pack.is_full().then(|| FullPack(std::mem::replace(&mut *pack, Pack::new(kind))))
    }

    /// The packs that are not full, at the end.
    pub(super) fn rest(&self) -> Vec<FullPack> {
        self.is_ending.store(true, Ordering::Release);
        let take = |pack: &Mutex<Pack>, kind| std::mem::replace(&mut *lock(pack), Pack::new(kind));
        let packs = [take(&self.data, BlobType::Data), take(&self.trees, BlobType::Tree)];
        packs.into_iter().filter(|pack| !pack.blobs.is_empty()).map(FullPack).collect()
    }

    /// Writes packs until no more will come. After a failure, packs are thrown away.
    pub(super) fn write_packs(&self, run: &Run, packs: &Mutex<Receiver<FullPack>>) -> Result<(), Fault> {
        loop {
            let Ok(FullPack(pack)) = lock(packs).recv() else { return Ok(()) };
            if run.has_ended() {
                continue;
            }
            if let Err(fault) = self.write(pack) {
                run.fail(fault);
            }
        }
    }

    fn write(&self, pack: Pack) -> Result<(), Fault> {
        let (bytes, pack) = pack.close(&self.seal)?;
        let size = bytes.len() as u64;
        self.storage.write(&file_name(FileType::Pack, &pack.id), vec![bytes], Put::Overwrite)?;
        let packed = self.packed_bytes.fetch_add(size, Ordering::Relaxed) + size;
        self.count(size);
        let due = {
            let mut unindexed = lock(&self.unindexed);
            unindexed.bytes += size;
            unindexed.blobs += pack.blobs.len();
            unindexed.packs.push(pack);
            let is_due = unindexed.bytes >= packed / UNINDEXED_PART || unindexed.blobs >= UNINDEXED_BLOBS;
            (is_due && !self.is_ending.load(Ordering::Acquire)).then(|| std::mem::take(&mut *unindexed))
        };
        due.map_or(Ok(()), |due| self.write_index(due))
    }

    fn write_index(&self, due: Unindexed) -> Result<(), Fault> {
        if due.packs.is_empty() {
            return Ok(());
        }
        let (id, bytes) = IndexFile { packs: due.packs }.encode(&self.seal)?;
        self.count(bytes.len() as u64);
        Ok(self.storage.write(&file_name(FileType::Index, &id), vec![bytes], Put::Overwrite)?)
    }

    /// Names what is left in an index file.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        let due = std::mem::take(&mut *lock(&self.unindexed));
        self.write_index(due)
    }

    fn count(&self, bytes: u64) {
        self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of all packs and index files that were written.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }
}
