//! Reading many blobs of files: those that lie close together in one pack are read with one request.
//!
//! What holds here: each blob that is asked for is handed over once, opened and with its length checked, or with what is wrong
//! with it. Its hash is left to whoever compares what became of it. Memory is one run, and the largest blob.

use crate::fault::Fault;
use crate::index::{Indexed, Place};
use crate::retry::Retry;
use rustic_core::repofile::BlobType;
use rustic_core::{DataId, Id};
use std::ops::ControlFlow;

/// No more than this is read at once, unless a single blob is longer.
const LONGEST: u64 = 4 << 20;

/// So many bytes between two blobs are read for nothing rather than asking twice.
const GAP: u64 = 64 << 10;

/// A blob that is asked for.
struct Wanted {
    number: usize,
    id: Id,
    place: Place,
}

/// Reads blobs, with one set of buffers.
pub(crate) struct Reader<'a> {
    indexed: &'a Indexed,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(indexed: &'a Indexed) -> Self {
        Self { indexed, sealed: Vec::new(), plain: Vec::new() }
    }

    /// Reads the blobs in the order in which they lie in their packs, and hands each over with its number in `ids`, until `take`
    /// breaks off.
    pub(crate) fn read(
        &mut self,
        ids: &[DataId],
        mut take: impl FnMut(usize, Result<&[u8], Fault>) -> ControlFlow<()>,
    ) {
        let (mut wanted, mut alone) = (Vec::with_capacity(ids.len()), Vec::new());
        for (number, id) in ids.iter().enumerate() {
            let mut places = self.indexed.places(BlobType::Data, id);
            match (places.next(), places.next()) {
                (Some(place), None) => wanted.push(Wanted { number, id: **id, place }),
                // Which of several copies is the whole one, only the hash tells.
                (Some(_) | None, _) => alone.push(number),
            }
        }
        wanted.sort_unstable_by_key(|it| (it.place.pack_number(), it.place.offset));
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let (run, others) = rest.split_at(run_length(rest));
            if self.read_run(run, &mut take).is_break() {
                return;
            }
            rest = others;
        }
        for number in alone {
            let content = self.indexed.read(BlobType::Data, &ids[number]);
            if take(number, content.as_deref().map_err(Fault::clone)).is_break() {
                return;
            }
        }
    }

    fn read_run(
        &mut self,
        run: &[Wanted],
        take: &mut impl FnMut(usize, Result<&[u8], Fault>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let [first, ..] = run else { return ControlFlow::Continue(()) };
        let begin = u64::from(first.place.offset);
        let read = self.indexed.read_range(&first.place, begin..end_of(run), &mut self.sealed);
        let away = read.as_ref().err().filter(|fault| fault.retry() == Retry::Later);
        let mut rest = run;
        while let [first, ..] = rest {
            // The same blob may be asked for several times, and is opened once, in place.
            let count = rest.iter().take_while(|it| it.place.offset == first.place.offset).count();
            let (blob, others) = rest.split_at(count);
            rest = others;
            let at = usize::try_from(u64::from(first.place.offset) - begin).unwrap_or(usize::MAX);
            let sealed = self.sealed.get_mut(at..).and_then(|rest| rest.get_mut(..first.place.length as usize));
            let opened = sealed
                .filter(|_| read.is_ok())
                .and_then(|sealed| self.indexed.open_in(&first.place, sealed, &mut self.plain).ok());
            match (opened, away) {
                (Some(content), _) => blob.iter().try_for_each(|it| take(it.number, Ok(content)))?,
                (None, Some(fault)) => blob.iter().try_for_each(|it| take(it.number, Err(fault.clone())))?,
                // Once more and by itself: another one's end may have been in the way, or what happened on the way here.
                (None, None) => {
                    let content = self.indexed.read(BlobType::Data, &first.id);
                    let content = content.as_deref();
                    blob.iter().try_for_each(|it| take(it.number, content.map_err(Fault::clone)))?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn end_of(run: &[Wanted]) -> u64 {
    run.iter().map(|it| it.place.end()).max().unwrap_or(0)
}

/// How many of these blobs, which are in the order of their places, are read at once.
fn run_length(wanted: &[Wanted]) -> usize {
    let [first, others @ ..] = wanted else { return 0 };
    let (begin, mut end) = (u64::from(first.place.offset), first.place.end());
    let fits = |it: &&Wanted| {
        // The same blob again costs nothing, however long it is.
        let fits = it.place.pack_number() == first.place.pack_number()
            && u64::from(it.place.offset) <= end + GAP
            && (it.place.end() <= end || it.place.end() - begin <= LONGEST);
        end = end.max(if fits { it.place.end() } else { 0 });
        fits
    };
    1 + others.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
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

    /// Blobs in packs.
    struct Bench {
        storage: Storage,
        seal: Seal,
        indexed: Indexed,
        blobs: Vec<(DataId, Vec<u8>)>,
        packs: Vec<IndexedPack>,
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

    /// Packs of blobs of these lengths.
    fn bench(packs: &[Vec<usize>]) -> Bench {
        let (storage, seal) = (Storage::over(Arc::new(InMemory::new())), Seal::new(&MasterKey::new(), 2));
        let mut press = Press::new(seal.clone()).unwrap();
        let (mut blobs, mut file) = (Vec::new(), IndexFile::default());
        for lengths in packs {
            let mut pack = Pack::new(BlobType::Data);
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
        Bench { storage, seal, indexed, blobs, packs: file.packs }
    }

    impl Bench {
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

        fn damage(&self, number: usize) {
            let id = *self.blobs[number].0;
            let (pack, blob) = self
                .packs
                .iter()
                .flat_map(|pack| pack.blobs.iter().map(move |blob| (pack.id, blob)))
                .find(|(_, blob)| blob.id == id)
                .unwrap();
            let name = file_name(FileType::Pack, &pack);
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
            let (id, bytes) = IndexFile { packs: std::mem::take(&mut bench.packs) }.encode(&bench.seal).unwrap();
            bench.storage.write(&file_name(FileType::Index, &id), vec![bytes], Put::Overwrite).unwrap();
            bench.indexed = Indexed::load(&bench.storage, &bench.seal).unwrap();
            assert_eq!(bench.indexed.places(BlobType::Data, &bench.blobs[right].0).count(), 2);
            assert_eq!(bench.read(&[right]), [[Ok(bench.blobs[right].1.clone())]]);
        }
    }

    #[test]
    fn a_run_is_neighbours_of_one_pack_and_not_too_long() {
        let bench = bench(&[vec![1 << 20; 8], vec![1 << 20]]);
        let length = |chosen: &[usize]| {
            let wanted = chosen.iter().map(|number| {
                let id = *bench.blobs[*number].0;
                Wanted { number: *number, id, place: bench.indexed.place(BlobType::Data, &id).unwrap() }
            });
            run_length(&wanted.collect::<Vec<_>>())
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
}
