//! Runs of blobs: what is handed over, of what is whole and of what is damaged.

use super::*;
use crate::backend::file_name;
use crate::index::{IndexFile, IndexedPack};
use crate::pipeline::Pack;
use crate::seal::{Press, Seal, hash};
use crate::storage::{Put, Storage};
use object_store::memory::InMemory;
use proptest::prelude::*;
use rustic_core::FileType;
use rustic_core::repofile::MasterKey;
use std::sync::Arc;

/// Blobs of one kind in packs of a storage that counts as far away.
pub(crate) struct Bench {
    pub(crate) storage: Storage,
    pub(crate) seal: Seal,
    pub(crate) indexed: Indexed,
    pub(crate) blobs: Vec<(DataId, Vec<u8>)>,
    pub(crate) packs: Vec<IndexedPack>,
}

/// A content that cannot be compressed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Packs of parts of files of these lengths.
fn bench(packs: &[Vec<usize>]) -> Bench {
    Bench::new(BlobType::Data, packs)
}

impl Bench {
    /// Packs of blobs of these lengths.
    pub(crate) fn new(kind: BlobType, packs: &[Vec<usize>]) -> Self {
        let (storage, seal) = (Storage::over(Arc::new(InMemory::new())), Seal::new(&MasterKey::new(), 2));
        let mut press = Press::new(seal.clone()).unwrap();
        let (mut blobs, mut file) = (Vec::new(), IndexFile::default());
        for lengths in packs {
            let mut pack = Pack::new(kind);
            for length in lengths {
                let content = [blobs.len().to_be_bytes().to_vec(), noise(blobs.len() as u64, *length)].concat();
                pack.add(&press.press(&content, None).unwrap());
                blobs.push((DataId::from(Id::new(hash(&content))), content));
            }
            let (bytes, described) = pack.close(&seal).unwrap();
            storage.write(&file_name(FileType::Pack, &described.id), vec![bytes], Put::Overwrite).unwrap();
            file.packs.push(described);
        }
        let (id, bytes) = file.encode(&seal).unwrap();
        storage.write(&file_name(FileType::Index, &id), vec![bytes], Put::Overwrite).unwrap();
        let indexed = Indexed::load(&storage, &seal).unwrap();
        Self { storage, seal, indexed, blobs, packs: file.packs }
    }

    /// Writes another index file, and reads all.
    pub(crate) fn index(&mut self, packs: Vec<IndexedPack>) {
        let (id, bytes) = IndexFile { packs }.encode(&self.seal).unwrap();
        self.storage.write(&file_name(FileType::Index, &id), vec![bytes], Put::Overwrite).unwrap();
        self.indexed = Indexed::load(&self.storage, &self.seal).unwrap();
    }

    /// What is handed over, by the number that was asked for.
    fn read(&self, wanted: &[usize]) -> Vec<Vec<Result<Vec<u8>, Fault>>> {
        let ids: Vec<DataId> = wanted.iter().map(|number| self.blobs[*number].0).collect();
        let mut taken = vec![Vec::new(); ids.len()];
        Reader::new(&self.indexed).read(&ids, |number, content| {
            taken[number].push(content.map(<[u8]>::to_vec));
            ControlFlow::Continue(())
        });
        taken
    }

    /// Stores the first pack once more, under another name.
    pub(crate) fn copy_pack(&mut self) {
        let name = |id: &Id| file_name(FileType::Pack, id);
        let mut copy: IndexedPack = serde_json::from_value(serde_json::to_value(&self.packs[0]).unwrap()).unwrap();
        let content = self.storage.read(&name(&copy.id)).unwrap();
        copy.id = Id::new(hash(b"copy"));
        self.storage.write(&name(&copy.id), vec![content], Put::Overwrite).unwrap();
        self.packs.push(copy);
        let copy = serde_json::from_value(serde_json::to_value(&self.packs[1]).unwrap()).unwrap();
        self.index(vec![copy]);
    }

    pub(crate) fn remove_pack(&self, pack: usize) {
        self.storage.delete(&file_name(FileType::Pack, &self.packs[pack].id)).unwrap();
    }

    /// Flips a bit of a blob in the first pack that holds it.
    pub(crate) fn damage(&self, number: usize) {
        let id = *self.blobs[number].0;
        let pack = self.packs.iter().position(|pack| pack.blobs.iter().any(|blob| blob.id == id)).unwrap();
        self.damage_in(pack, number);
    }

    /// Flips a bit of a blob in a pack.
    pub(crate) fn damage_in(&self, pack: usize, number: usize) {
        let pack = &self.packs[pack];
        let blob = pack.blobs.iter().find(|blob| blob.id == *self.blobs[number].0).unwrap();
        let name = file_name(FileType::Pack, &pack.id);
        let mut content = self.storage.read(&name).unwrap().to_vec();
        content[blob.offset as usize + 20] ^= 1;
        self.storage.write(&name, vec![content.into()], Put::Overwrite).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn each_blob_is_handed_over_once_and_whole(
        packs in prop::collection::vec(prop::collection::vec(0_usize..200_000, 1..12), 1..4),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        damaged: prop::sample::Index,
    ) {
        let bench = bench(&packs);
        let wanted: Vec<usize> = chosen.iter().map(|it| it.index(bench.blobs.len())).collect();
        for (number, taken) in wanted.iter().zip(bench.read(&wanted)) {
            prop_assert_eq!(taken, vec![Ok(bench.blobs[*number].1.clone())]);
        }
        let damaged = damaged.index(bench.blobs.len());
        bench.damage(damaged);
        for (number, taken) in wanted.iter().zip(bench.read(&wanted)) {
            let [taken] = taken.as_slice() else { panic!("{} times", taken.len()) };
            prop_assert_eq!(taken.is_err(), *number == damaged, "{:?}", taken);
        }
    }
}

/// The other copy is what a writer sealed whose memory erred before: it opens, and is something else.
#[test]
fn of_two_copies_the_one_with_the_right_content_is_handed_over() {
    for (wrong, right) in [(0, 1), (1, 0)] {
        let mut bench = bench(&[vec![100], vec![100]]);
        bench.packs[wrong].blobs[0].id = *bench.blobs[right].0;
        let packs = std::mem::take(&mut bench.packs);
        bench.index(packs);
        assert_eq!(bench.indexed.places(BlobType::Data, &bench.blobs[right].0).count(), 2);
        assert_eq!(bench.read(&[right]), [[Ok(bench.blobs[right].1.clone())]]);
    }
}

#[test]
fn a_run_is_neighbours_of_one_pack_and_not_too_long() {
    let bench = bench(&[vec![1 << 20; 8], vec![1 << 20]]);
    let length = |chosen: &[usize]| {
        let place = |number: &usize| bench.indexed.place(BlobType::Data, &bench.blobs[*number].0).unwrap();
        run_length(&chosen.iter().map(place).collect::<Vec<_>>())
    };
    assert_eq!(length(&[0, 1, 2, 3, 4]), 3, "a fourth would make it longer than four mebibytes");
    assert_eq!(length(&[0, 0, 1, 1, 2]), 5, "the same again costs nothing");
    assert_eq!(length(&[0, 2]), 1, "a mebibyte lies between them");
    assert_eq!(length(&[7, 8]), 1, "another pack");
    assert_eq!(length(&[]), 0);
}

#[test]
fn whoever_breaks_off_is_handed_nothing_more() {
    let bench = bench(&[vec![10, 20, 30], vec![40]]);
    let ids: Vec<DataId> = bench.blobs.iter().map(|(id, _)| *id).collect();
    for after in 1..=4 {
        let mut taken = 0;
        Reader::new(&bench.indexed).read(&ids, |_, _| {
            taken += 1;
            if taken == after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(taken, after);
    }
}

#[test]
fn sealed_blobs_are_read_in_runs_and_each_is_checked() {
    let bench = bench(&[vec![1000; 30], vec![3 << 20, 10, 2 << 20]]);
    let mut blobs: Vec<_> =
        bench.indexed.list(BlobType::Data).iter().map(|(id, place)| (BlobType::Data, *id, *place)).collect();
    blobs.sort_by_key(|(_, _, place)| (place.pack_number(), place.offset));
    let read = read_sealed(&bench.indexed, &blobs).unwrap();
    for ((kind, id, place), read) in blobs.iter().zip(&read) {
        assert_eq!(*read, bench.indexed.read_sealed(*kind, id, *place).unwrap());
        assert_eq!(Id::new(read.1), *id);
    }
    assert_eq!(read.len(), 33);
    bench.damage(17);
    let fault = read_sealed(&bench.indexed, &blobs).unwrap_err();
    let named = bench.blobs[17].0.to_hex();
    assert!(matches!(&fault, Fault::Damaged { what } if what.contains(named.as_str())), "{fault}");
}
