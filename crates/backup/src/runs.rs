//! Reading many blobs of files: those that lie close together in one pack are read with one request.
//!
//! What holds here: each blob that is asked for is handed over once, opened and with its length checked, or with what is wrong
//! with it. Its hash is left to whoever compares what became of it. Memory is one run, and the largest blob.

use crate::fault::Fault;
use crate::index::{Indexed, Place, Sealed};
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
            let (run, others) = rest.split_at(run_length(rest.iter().map(|it| &it.place)));
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
fn run_length<'a>(wanted: impl IntoIterator<Item = &'a Place>) -> usize {
    let mut wanted = wanted.into_iter();
    let Some(first) = wanted.next() else { return 0 };
    let (begin, mut end) = (u64::from(first.offset), first.end());
    let fits = |place: &&Place| {
        // The same blob again costs nothing, however long it is.
        let fits = place.pack_number() == first.pack_number()
            && u64::from(place.offset) <= end + GAP
            && (place.end() <= end || place.end() - begin <= LONGEST);
        end = end.max(if fits { place.end() } else { 0 });
        fits
    };
    1 + wanted.take_while(fits).count()
}

/// Reads blobs as they are stored, which are given in the order of their places, each checked against its id: its bytes and its hash.
/// The first that fails ends it. Memory is one run beside what is answered.
pub(crate) fn read_sealed(indexed: &Indexed, blobs: &[(BlobType, Id, Place)]) -> Result<Vec<Sealed>, Fault> {
    let (mut read, mut rest, mut buffer) = (Vec::with_capacity(blobs.len()), blobs, Vec::new());
    while let [(_, _, first), ..] = rest {
        let (run, others) = rest.split_at(run_length(rest.iter().map(|(_, _, place)| place)));
        rest = others;
        let begin = u64::from(first.offset);
        let end = run.iter().map(|(_, _, place)| place.end()).max().unwrap_or(begin);
        let fetched = indexed.read_range(first, begin..end, &mut buffer);
        if let Err(fault) = &fetched
            && fault.retry() == Retry::Later
        {
            return Err(fault.clone());
        }
        for (kind, id, place) in run {
            let at = usize::try_from(u64::from(place.offset) - begin).unwrap_or(usize::MAX);
            let sealed = buffer.get(at..).and_then(|rest| rest.get(..place.length as usize));
            let whole = sealed
                .filter(|_| fetched.is_ok())
                .and_then(|sealed| Some((sealed.to_vec(), indexed.check_sealed(*kind, id, *place, sealed).ok()?)));
            // Once more and by itself: another one's end may have been in the way, or what happened on the way here.
            read.push(whole.map_or_else(|| indexed.read_sealed(*kind, id, *place), Ok)?);
        }
    }
    Ok(read)
}

#[cfg(test)]
pub(crate) mod tests;
