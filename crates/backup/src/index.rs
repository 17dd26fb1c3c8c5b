//! The index of a repository in memory: which blob lies where, and reading blobs, each checked against its id.
//!
//! An index is read once and does not change. It takes about 60 bytes for each blob. Packs that rustic has marked for
//! deletion do not count: what lies in them is stored again. On a bucket, trees are fetched with their neighbours, and kept for a
//! while, by whoever reads them: see [`crate::stretches`].

use crate::backend::{file_name, list_ids, read_each};
use crate::fault::Fault;
use crate::seal::{Opened, Seal, hash};
use crate::storage::Storage;
use crate::stretches::Stretches;
use bytes::Bytes;
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;

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
    pub(crate) fn encode(&self, seal: &Seal) -> Result<(Id, Bytes), Fault> {
        let json = serde_json::to_vec(self).map_err(|err| Fault::system(format!("it makes no JSON: {err}")))?;
        seal.encode_file(&json)
    }
}

/// A blob as it is stored, and the hash of its content.
pub(crate) type Sealed = (Vec<u8>, [u8; 32]);

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
    #[cfg(test)]
    pub(crate) fn new(pack: u32, offset: u32, length: u32) -> Self {
        Self { pack, offset, length, raw_length: 0 }
    }

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

    /// The number of its pack among [`Indexed::packs`].
    pub(crate) fn pack_number(&self) -> usize {
        self.pack as usize
    }

    pub(crate) fn raw_length(&self) -> Option<usize> {
        (self.raw_length > 0).then_some(self.raw_length as usize)
    }
}

/// What stands in one index file.
pub(crate) struct IndexContents {
    pub(crate) id: Id,
    pub(crate) packs: Vec<Id>,
    pub(crate) blobs: usize,
}

/// The whole index of a repository, and the way to its blobs.
pub(crate) struct Indexed {
    storage: Storage,
    seal: Seal,
    packs: Vec<Id>,
    data: Vec<(Id, Place)>,
    trees: Vec<(Id, Place)>,
    /// Trees that were fetched from a bucket; a folder of this machine is read at once.
    fetched: Option<Stretches>,
}

impl Indexed {
    /// Reads all index files.
    pub(crate) fn load(storage: &Storage, seal: &Seal) -> Result<Self, Fault> {
        Self::load_where(storage, seal, |_| true, Err, |_, _| ())
    }

    /// Reads all index files, and says what stands in each.
    pub(crate) fn load_with_files(storage: &Storage, seal: &Seal) -> Result<(Self, Vec<IndexContents>), Fault> {
        let mut files = Vec::new();
        let note = |id: &Id, file: &IndexFile| {
            let blobs = file.packs.iter().map(|pack| pack.blobs.len()).sum();
            files.push(IndexContents { id: *id, packs: file.packs.iter().map(|pack| pack.id).collect(), blobs });
        };
        let indexed = Self::load_where(storage, seal, |_| true, Err, note)?;
        Ok((indexed, files))
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
        Self::load_where(storage, seal, is_whole, Err, |_, _| ())
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
        Self::load_where(storage, seal, |_| true, note, |_, _| ())
    }

    fn load_where(
        storage: &Storage,
        seal: &Seal,
        wanted: impl Fn(&IndexedPack) -> bool,
        mut on_fault: impl FnMut(Fault) -> Result<(), Fault>,
        mut note: impl FnMut(&Id, &IndexFile),
    ) -> Result<Self, Fault> {
        let mut numbers = HashMap::new();
        let mut indexed = Self {
            storage: storage.clone(),
            seal: seal.clone(),
            packs: Vec::new(),
            data: Vec::new(),
            trees: Vec::new(),
            fetched: None,
        };
        let ids: Vec<Id> = list_ids(storage, FileType::Index)?.into_iter().map(|(id, _)| id).collect();
        read_each(storage, FileType::Index, &ids, |id, stored| {
            match stored.map_err(Fault::from).and_then(|stored| decode(storage, seal, FileType::Index, id, &stored)) {
                Ok(file) => {
                    note(id, &file);
                    file.packs.into_iter().filter(&wanted).for_each(|pack| indexed.add(pack, &mut numbers));
                    Ok(())
                }
                Err(fault) => on_fault(fault),
            }
        })?;
        for list in [&mut indexed.data, &mut indexed.trees] {
            // A pack may stand in two index files: after a prune or a repair that was killed.
            list.sort_unstable_by_key(|(id, place)| (*id, place.pack, place.offset));
            list.dedup_by_key(|(id, place)| (*id, place.pack, place.offset));
            list.shrink_to_fit();
        }
        let is_far = storage.folder().is_none();
        indexed.fetched = is_far.then(|| Stretches::new(indexed.trees.iter().map(|(_, place)| place)));
        Ok(indexed)
    }

    fn add(&mut self, pack: IndexedPack, numbers: &mut HashMap<Id, u32>) {
        let packs = &mut self.packs;
        let number = *numbers.entry(pack.id).or_insert_with(|| {
            packs.push(pack.id);
            u32::try_from(packs.len() - 1).unwrap_or(u32::MAX)
        });
        for blob in pack.blobs {
            let raw_length = blob.uncompressed_length.unwrap_or(0);
            let place = Place { pack: number, offset: blob.offset, length: blob.length, raw_length };
            self.list_mut(blob.kind).push((blob.id, place));
        }
    }

    /// All blobs of a kind, in the order of their ids; copies of one blob are neighbours.
    pub(crate) fn list(&self, kind: BlobType) -> &[(Id, Place)] {
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
        list[self.first_of(kind, id)..].iter().take_while(move |(other, _)| other == id).map(|(_, place)| *place)
    }

    fn first_of(&self, kind: BlobType, id: &Id) -> usize {
        self.list(kind).partition_point(|(other, _)| other < id)
    }

    /// Where a blob's first copy stands in [`Self::list`].
    pub(crate) fn position(&self, kind: BlobType, id: &Id) -> Option<usize> {
        let first = self.first_of(kind, id);
        self.list(kind).get(first).filter(|(other, _)| other == id).map(|_| first)
    }

    /// All packs; a [`Place`] names one by its number here.
    pub(crate) fn packs(&self) -> &[Id] {
        &self.packs
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

    /// Reads one copy of a blob as it is stored, after checking that it is what its id says; and its hash.
    pub(crate) fn read_sealed(&self, kind: BlobType, id: &Id, place: Place) -> Result<Sealed, Fault> {
        let sealed = self.fetch(place)?;
        let hash = self.check_sealed(kind, id, place, &sealed)?;
        Ok((sealed, hash))
    }

    /// Checks that what is stored of a blob is what its id says; answers with its hash.
    pub(crate) fn check_sealed(&self, kind: BlobType, id: &Id, place: Place, sealed: &[u8]) -> Result<[u8; 32], Fault> {
        self.open(kind, id, place, &mut sealed.to_vec()).map(|(_, hash)| hash)
    }

    /// Reads a blob, and checks that it is what its id says. Of several copies, the first that is whole.
    pub(crate) fn read(&self, kind: BlobType, id: &Id) -> Result<Vec<u8>, Fault> {
        self.first_whole(kind, id, |place| {
            let alone = || Ok(self.open(kind, id, place, &mut self.fetch(place)?)?.0);
            self.read_fetched(kind, id, place).unwrap_or_else(alone)
        })
    }

    /// The same of a blob that is too long to be decompressed at once.
    pub(crate) fn read_long(&self, kind: BlobType, id: &Id) -> Result<Opened, Fault> {
        self.first_whole(kind, id, |place| {
            let damaged = |what: &str| self.damaged(kind, id, &place, what);
            let opened = Opened::of(&self.seal, self.fetch(place)?, place.raw_length().is_some());
            let opened = opened.map_err(|what| damaged(&what))?;
            let hash = opened.hash(place.data_length() as u64).map_err(|what| damaged(&what))?;
            if Id::new(hash) == *id { Ok(opened) } else { Err(damaged("it does not hash to its id")) }
        })
    }

    fn first_whole<T>(&self, kind: BlobType, id: &Id, read: impl Fn(Place) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut failure = None;
        for place in self.places(kind, id) {
            match read(place) {
                Ok(whole) => return Ok(whole),
                Err(fault) => failure = failure.or(Some(fault)),
            }
        }
        let nowhere = || Fault::damaged(format!("the {kind} blob {} is in no index", id.to_hex().as_str()));
        Err(failure.unwrap_or_else(nowhere))
    }

    /// Reads a tree out of what is fetched together; `None` where that is not done, or it is not whole there: what lies beside it, or what
    /// happened on the way here, is no word about the tree.
    fn read_fetched(&self, kind: BlobType, id: &Id, place: Place) -> Option<Result<Vec<u8>, Fault>> {
        let fetched = self.fetched.as_ref().filter(|_| kind == BlobType::Tree)?;
        match fetched.get(&place, |range| self.fetch_range(&place, range)) {
            Ok(sealed) => self.open(kind, id, place, &mut sealed?).ok().map(|(content, _)| Ok(content)),
            Err(fault) => Some(Err(fault)),
        }
    }

    /// Whether reading a tree asks no server.
    pub(crate) fn is_near(&self, tree: &Id) -> bool {
        let Some(fetched) = &self.fetched else { return true };
        self.place(BlobType::Tree, tree).is_none_or(|place| fetched.has(&place))
    }

    /// Fetches the trees from one place to another of the same pack, so that they are near.
    pub(crate) fn fetch_trees(&self, first: &Place, last: &Place) -> Result<(), Fault> {
        let Some(fetched) = &self.fetched else { return Ok(()) };
        fetched.fetch(first, last, |range| self.fetch_range(first, range))
    }

    /// Whether it is worth it to fetch trees before they are wanted: they are far, and there is room for them.
    pub(crate) fn may_fetch_ahead(&self) -> bool {
        self.fetched.as_ref().is_some_and(|fetched| !fetched.is_full())
    }

    #[cfg(test)]
    pub(crate) fn fetched(&self) -> Option<&Stretches> {
        self.fetched.as_ref()
    }

    /// How many threads read best at once.
    pub(crate) fn readers(&self) -> usize {
        self.storage.readers()
    }

    fn fetch_range(&self, place: &Place, range: Range<u64>) -> Result<Bytes, Fault> {
        Ok(self.storage.read_up_to(&file_name(FileType::Pack, &self.pack(place)), range)?)
    }

    /// Reads a range of the pack in which this place is.
    pub(crate) fn read_range(&self, place: &Place, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        let name = file_name(FileType::Pack, &self.pack(place));
        Ok(self.storage.read_part(&name, range.start, range.end - range.start, buffer)?)
    }

    /// Opens what lies at a place: its authentication tag is checked, and its length, not its hash. In words what is wrong.
    pub(crate) fn open_in<'a>(
        &self,
        place: &Place,
        sealed: &'a mut [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], String> {
        let content = self.seal.open_blob_into(sealed, place.raw_length(), buffer)?;
        if content.len() == place.data_length() {
            return Ok(content);
        }
        Err("it has not the length that the index says".to_owned())
    }

    fn damaged(&self, kind: BlobType, id: &Id, place: &Place, what: &str) -> Fault {
        let (id, pack) = (id.to_hex(), self.pack(place).to_hex());
        Fault::damaged(format!("the {kind} blob {} in pack {}: {what}", id.as_str(), pack.as_str()))
    }

    fn fetch(&self, place: Place) -> Result<Vec<u8>, Fault> {
        let mut sealed = Vec::new();
        self.read_range(&place, place.offset.into()..place.end(), &mut sealed)?;
        Ok(sealed)
    }

    /// Opens a blob; answers with its content and its hash, which is its id.
    fn open(&self, kind: BlobType, id: &Id, place: Place, sealed: &mut [u8]) -> Result<(Vec<u8>, [u8; 32]), Fault> {
        let damaged = |what: &str| self.damaged(kind, id, &place, what);
        let content = self.seal.open_blob(sealed, place.raw_length()).map_err(|what| damaged(&what))?;
        let hash = hash(&content);
        if Id::new(hash) == *id { Ok((content, hash)) } else { Err(damaged("it does not hash to its id")) }
    }

    /// Reads a file of JSON, such as a snapshot or an index file.
    pub(crate) fn read_file<T: for<'a> Deserialize<'a>>(&self, tpe: FileType, id: &Id) -> Result<T, Fault> {
        read_file(&self.storage, &self.seal, tpe, id)
    }
}

/// Reads one index file.
pub(crate) fn read_index(storage: &Storage, seal: &Seal, id: &Id) -> Result<IndexFile, Fault> {
    read_file(storage, seal, FileType::Index, id)
}

fn read_file<T: for<'a> Deserialize<'a>>(storage: &Storage, seal: &Seal, tpe: FileType, id: &Id) -> Result<T, Fault> {
    decode(storage, seal, tpe, id, &storage.read(&file_name(tpe, id))?)
}

/// Opens a file of JSON that was read.
pub(crate) fn decode<T: for<'a> Deserialize<'a>>(
    storage: &Storage,
    seal: &Seal,
    tpe: FileType,
    id: &Id,
    stored: &[u8],
) -> Result<T, Fault> {
    let name = file_name(tpe, id);
    let damaged = |what: &str| Fault::damaged(format!("{}/{name}: {what}", storage.shown()));
    if Id::new(hash(stored)) != *id {
        return Err(damaged("its content is not what its name says"));
    }
    let json = seal.decode_file(stored).map_err(|what| damaged(&what))?;
    serde_json::from_slice(&json).map_err(|err| damaged(&err.to_string()))
}

#[cfg(test)]
mod tests;
