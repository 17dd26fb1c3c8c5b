//! Reading parts of files back: on several threads, and what lies together in a pack with one request.

use super::{Defects, defect_or_end};
use crate::backend::lock;
use crate::fault::Fault;
use crate::index::{Indexed, Place};
use crate::progress::Progress;
use crate::runs::Reader;
use crate::tree::{self, matches};
use rustic_core::repofile::BlobType;
use rustic_core::{DataId, Id};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A thread takes so many bytes at once, about, as they are stored: what one request brings at most.
const LOT: u64 = 4 << 20;

/// The parts that are to be read, of those that can be, in the order in which they lie in their packs.
pub(super) fn chosen(indexed: &Indexed, parts: &[bool], is_read: impl Fn(&Id) -> bool) -> Vec<(DataId, Place)> {
    let parts = indexed.list(BlobType::Data).iter().zip(parts);
    let mut chosen: Vec<_> = parts
        .filter(|((id, _), can_be_read)| **can_be_read && is_read(id))
        .map(|((id, place), _)| (DataId::from(*id), *place))
        .collect();
    chosen.sort_unstable_by_key(|(_, place)| (place.pack_number(), place.offset));
    chosen
}

/// Reads parts of files. What is damaged is a defect; a storage that fails is the end.
pub(super) fn read_data(
    indexed: &Indexed,
    parts: &[(DataId, Place)],
    defects: &mut Defects,
    progress: &dyn Progress,
) -> Result<(), Fault> {
    let (lots, next, has_ended) = (lots(parts), AtomicUsize::new(0), AtomicBool::new(false));
    let found = Mutex::new((defects, Ok(())));
    let note = |fault| {
        let mut found = lock(&found);
        if let Err(fault) = defect_or_end(fault, found.0, "a part of a file") {
            has_ended.store(true, Ordering::Relaxed);
            found.1 = Err(fault);
        }
    };
    let must_end = || has_ended.load(Ordering::Relaxed) || progress.should_stop();
    let read = || {
        let mut reader = Reader::new(indexed);
        while let Some(lot) = lots.get(next.fetch_add(1, Ordering::Relaxed)) {
            if must_end() {
                return;
            }
            let ids: Vec<DataId> = lot.iter().map(|(id, _)| *id).collect();
            reader.read(&ids, |number, content| {
                match length_of_whole(indexed, ids[number], content) {
                    Ok(length) => progress.bytes(length as u64),
                    Err(fault) => note(fault),
                }
                progress.file_done();
                if must_end() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..indexed.readers() {
            scope.spawn(read);
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1
}

/// The length of a part that hashes to its id. One that does not is read once more, by itself, which names what is wrong.
fn length_of_whole(indexed: &Indexed, id: DataId, content: Result<&[u8], Fault>) -> Result<usize, Fault> {
    let content = content?;
    if matches(&id, content) { Ok(content.len()) } else { Ok(tree::read_data(indexed, id)?.len()) }
}

/// Parts in lots of about the same size.
fn lots(parts: &[(DataId, Place)]) -> Vec<&[(DataId, Place)]> {
    let (mut lots, mut rest) = (Vec::new(), parts);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(_, place): &&(DataId, Place)| {
            bytes += u64::from(place.length);
            bytes <= LOT
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (lot, others) = rest.split_at(count);
        lots.push(lot);
        rest = others;
    }
    lots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::runs::tests::Bench;

    fn defects(bench: &Bench) -> Defects {
        let parts = vec![true; bench.indexed.list(BlobType::Data).len()];
        let mut defects = Defects::default();
        read_data(&bench.indexed, &chosen(&bench.indexed, &parts, |_| true), &mut defects, &Silent).unwrap();
        defects
    }

    /// A writer whose memory erred sealed something else: it opens, and only its hash tells.
    #[test]
    fn what_opens_and_is_something_else_is_a_defect_by_name() {
        let mut bench = Bench::new(BlobType::Data, &[vec![100; 20]]);
        assert_eq!(defects(&bench).count, 0);
        let other = Id::new([7; 32]);
        bench.packs[0].blobs[3].id = other;
        let packs = std::mem::take(&mut bench.packs);
        bench.index(packs);
        let defects = defects(&bench);
        assert_eq!(defects.count, 1, "{:?}", defects.named);
        assert!(defects.named[0].contains(other.to_hex().as_str()), "{:?}", defects.named);
    }

    #[test]
    fn lots_are_of_about_the_same_size_and_hold_all() {
        let bench = Bench::new(BlobType::Data, &[vec![5 << 20, 100, 1 << 20, 3 << 20, 2 << 20], vec![10; 50]]);
        let all = chosen(&bench.indexed, &[true; 55], |_| true);
        let lots = lots(&all);
        assert_eq!(lots.iter().map(|lot| lot.len()).sum::<usize>(), 55);
        let bytes = |lot: &&[(DataId, Place)]| lot.iter().map(|(_, place)| u64::from(place.length)).sum::<u64>();
        assert!(lots.iter().all(|lot| lot.len() == 1 || bytes(lot) <= LOT));
        assert!((3..=5).contains(&lots.len()), "{}", lots.len());
    }
}
