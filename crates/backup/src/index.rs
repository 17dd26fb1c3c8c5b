//! The index of a repository in memory: which blob lies where, and reading blobs, each checked against its id.
//!
//! An index is read once and does not change. It takes about 60 bytes for each blob. Packs that rustic has marked for
//! deletion do not count: what lies in them is stored again.

use crate::backend::{file_name, list_ids};
use crate::fault::Fault;
use crate::seal::{Seal, hash};
use crate::storage::Storage;
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// An index file. Other fields (`supersedes`, which nobody uses, and packs that are marked for deletion) are ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    #[serde(default)]
    pub(crate) packs: Vec<IndexedPack>,
}

/// What one pack holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexedPack {
    pub(crate) id: Id,
    pub(crate) blobs: Vec<IndexedBlob>,
}

/// One blob of a pack.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IndexedBlob {
    pub(crate) id: Id,
    #[serde(rename = "type")]
    pub(crate) kind: BlobType,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// The length before compression, where it was compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uncompressed_length: Option<u32>,
}

impl IndexFile {
    pub(crate) fn encode(&self, seal: &Seal) -> Result<(Id, bytes::Bytes), Fault> {
        let json = serde_json::to_vec(self).map_err(|err| Fault::system(format!("it makes no JSON: {err}")))?;
        seal.encode_file(&json)
    }
}

/// Where a blob lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pack: u32,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Zero for a blob that is not compressed.
    raw_length: u32,
}

impl Place {
    /// The blob's length before compression.
    pub(crate) fn data_length(&self) -> usize {
        match self.raw_length {
            0 => (self.length as usize).saturating_sub(crate::seal::OVERHEAD),
            length => length as usize,
        }
    }

    /// Where the blob ends in its pack.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    pub(crate) fn raw_length(&self) -> Option<usize> {
        (self.raw_length > 0).then_some(self.raw_length as usize)
    }
}

/// The whole index of a repository, and the way to its blobs.
pub(crate) struct Indexed {
    storage: Storage,
    seal: Seal,
    packs: Vec<Id>,
    data: Vec<(Id, Place)>,
    trees: Vec<(Id, Place)>,
}

impl Indexed {
    /// Reads all index files.
    pub(crate) fn load(storage: &Storage, seal: &Seal) -> Result<Self, Fault> {
        Self::load_where(storage, seal, |_| true, Err)
    }

    /// Reads all index files, and leaves packs out that are not there, or are shorter than what the index looks for in
    /// them: what they held has to be stored again.
    pub(crate) fn load_of_present_packs(storage: &Storage, seal: &Seal) -> Result<Self, Fault> {
        let packs: HashMap<Id, u64> = list_ids(storage, FileType::Pack)?.into_iter().collect();
        let is_whole = |pack: &IndexedPack| {
            let end = pack.blobs.iter().map(|blob| u64::from(blob.offset) + u64::from(blob.length)).max();
            let whole = packs.get(&pack.id).is_some_and(|size| *size >= end.unwrap_or(0));
            if !whole {
                tracing::warn!(
                    repository = storage.shown(),
                    pack = pack.id.to_hex().as_str(),
                    "a pack is missing or cut off; what it held is stored again where the volume still has it"
                );
            }
            whole
        };
        Self::load_where(storage, seal, is_whole, Err)
    }

    /// Reads all index files that are whole, and tells of the others.
    pub(crate) fn load_what_is_whole(
        storage: &Storage,
        seal: &Seal,
        mut damaged: impl FnMut(String),
    ) -> Result<Self, Fault> {
        let note = |fault| match fault {
            Fault::Damaged { what } => {
                damaged(what);
                Ok(())
            }
            fault @ (Fault::Storage(_) | Fault::Locked { .. } | Fault::System { .. } | Fault::Panicked { .. }) => {
                Err(fault)
            }
        };
        Self::load_where(storage, seal, |_| true, note)
    }

    fn load_where(
        storage: &Storage,
        seal: &Seal,
        wanted: impl Fn(&IndexedPack) -> bool,
        mut on_fault: impl FnMut(Fault) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        let mut indexed = Self {
            storage: storage.clone(),
            seal: seal.clone(),
            packs: Vec::new(),
            data: Vec::new(),
            trees: Vec::new(),
        };
        for (id, _) in list_ids(storage, FileType::Index)? {
            match read_file::<IndexFile>(storage, seal, FileType::Index, &id) {
                Ok(file) => file.packs.into_iter().filter(&wanted).for_each(|pack| indexed.add(pack)),
                Err(fault) => on_fault(fault)?,
            }
        }
        for list in [&mut indexed.data, &mut indexed.trees] {
            list.sort_unstable_by_key(|(id, _)| *id);
            list.shrink_to_fit();
        }
        Ok(indexed)
    }

    fn add(&mut self, pack: IndexedPack) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(pack.id);
        for blob in pack.blobs {
            let raw_length = blob.uncompressed_length.unwrap_or(0);
            let place = Place { pack: number, offset: blob.offset, length: blob.length, raw_length };
            self.list_mut(blob.kind).push((blob.id, place));
        }
    }

    fn list(&self, kind: BlobType) -> &[(Id, Place)] {
        match kind {
            BlobType::Data => &self.data,
            BlobType::Tree => &self.trees,
        }
    }

    fn list_mut(&mut self, kind: BlobType) -> &mut Vec<(Id, Place)> {
        match kind {
            BlobType::Data => &mut self.data,
            BlobType::Tree => &mut self.trees,
        }
    }

    /// Where a blob lies; `None` when no index names it.
    pub(crate) fn place(&self, kind: BlobType, id: &Id) -> Option<Place> {
        self.places(kind, id).next()
    }

    /// All places where a blob lies. There are several after something was stored again because a pack was gone.
    pub(crate) fn places<'a>(&'a self, kind: BlobType, id: &'a Id) -> impl Iterator<Item = Place> + 'a {
        let list = self.list(kind);
        let first = list.partition_point(|(other, _)| other < id);
        list[first..].iter().take_while(move |(other, _)| other == id).map(|(_, place)| *place)
    }

    /// The pack of a place.
    pub(crate) fn pack(&self, place: &Place) -> Id {
        self.packs.get(place.pack as usize).copied().unwrap_or_default()
    }

    /// What lies in each pack.
    pub(crate) fn by_pack(&self) -> HashMap<Id, Vec<(BlobType, Id, Place)>> {
        let mut packs: HashMap<Id, Vec<_>> = HashMap::new();
        for kind in [BlobType::Data, BlobType::Tree] {
            for (id, place) in self.list(kind) {
                packs.entry(self.pack(place)).or_default().push((kind, *id, *place));
            }
        }
        packs
    }

    /// Reads a blob, and checks that it is what its id says. Of several copies, the first that is whole.
    pub(crate) fn read(&self, kind: BlobType, id: &Id) -> Result<Vec<u8>, Fault> {
        let mut failure = None;
        for place in self.places(kind, id) {
            match self.read_at(kind, id, place) {
                Ok(content) => return Ok(content),
                Err(fault) => failure = failure.or(Some(fault)),
            }
        }
        let nowhere = || Fault::damaged(format!("the {kind} blob {} is in no index", id.to_hex().as_str()));
        Err(failure.unwrap_or_else(nowhere))
    }

    fn read_at(&self, kind: BlobType, id: &Id, place: Place) -> Result<Vec<u8>, Fault> {
        let pack = self.pack(&place);
        let name = file_name(FileType::Pack, &pack);
        let mut sealed = self.storage.read_part(&name, place.offset.into(), place.length.into())?;
        let damaged = |what: &str| {
            let (id, pack) = (id.to_hex(), pack.to_hex());
            Fault::damaged(format!("the {kind} blob {} in pack {}: {what}", id.as_str(), pack.as_str()))
        };
        let content = self.seal.open_blob(&mut sealed, place.raw_length()).map_err(|what| damaged(&what))?;
        if Id::new(hash(&content)) == *id { Ok(content) } else { Err(damaged("it does not hash to its id")) }
    }

    /// Reads a file of JSON, such as a snapshot.
    pub(crate) fn read_file<T: for<'a> Deserialize<'a>>(&self, tpe: FileType, id: &Id) -> Result<T, Fault> {
        read_file(&self.storage, &self.seal, tpe, id)
    }
}

fn read_file<T: for<'a> Deserialize<'a>>(storage: &Storage, seal: &Seal, tpe: FileType, id: &Id) -> Result<T, Fault> {
    let name = file_name(tpe, id);
    let stored = storage.read(&name)?;
    let damaged = |what: &str| Fault::damaged(format!("{}/{name}: {what}", storage.shown()));
    if Id::new(hash(&stored)) != *id {
        return Err(damaged("its content is not what its name says"));
    }
    let json = seal.decode_file(&stored).map_err(|what| damaged(&what))?;
    serde_json::from_slice(&json).map_err(|err| damaged(&err.to_string()))
}
