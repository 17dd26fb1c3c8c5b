//! Stretches of packs of trees, as they are stored: a bucket is asked once for trees that lie together, not once for each.
//!
//! What holds here: what is kept and what is under way are never more than [`MOST`] together. A stretch is fetched by one thread,
//! and whoever else wants something in it waits. Nothing is trusted: whoever reads a tree opens and hashes it, and asks for it alone
//! where it is not whole here.

use crate::backend::lock;
use crate::fault::{Fault, guarded_call};
use crate::index::Place;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// So many bytes at most are kept or under way.
const MOST: u64 = 24 << 20;

/// No stretch is longer; a tree that is, is not kept. Six can be under way, and as many wait for their readers.
pub(crate) const LONGEST: u64 = 2 << 20;

/// What is asked for first in a pack, around the tree that is wanted; then four times as much each time.
const FIRST: u64 = 256 << 10;

/// So many bytes between two trees are read for nothing rather than asking twice.
pub(crate) const GAP: u64 = 256 << 10;

/// What a stretch takes besides its bytes.
const OVERHEAD: u64 = 256;

/// What is kept of all packs of trees.
pub(crate) struct Stretches {
    /// All trees, in the order in which they lie in their packs.
    trees: Vec<Extent>,
    state: Mutex<State>,
    has_changed: Condvar,
}

/// Where a tree lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Extent {
    pack: u32,
    begin: u32,
    end: u32,
}

impl Extent {
    fn of(place: &Place) -> Self {
        let short = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        Self { pack: short(place.pack_number() as u64), begin: place.offset, end: short(place.end()) }
    }

    fn range(&self) -> Range<u64> {
        self.begin.into()..self.end.into()
    }
}

#[derive(Default)]
struct State {
    kept: HashMap<u32, Vec<Kept>>,
    /// The stretches by the time of their last use, the oldest first.
    by_use: BTreeMap<u64, u32>,
    uses: u64,
    /// How often each pack was asked for something.
    asked: HashMap<u32, u32>,
    under_way: Vec<Arc<UnderWay>>,
    bytes_kept: u64,
    bytes_under_way: u64,
}

struct Kept {
    stretch: Stretch,
    used: u64,
}

/// Some bytes of a pack.
#[derive(Clone)]
struct Stretch {
    begin: u64,
    bytes: Arc<[u8]>,
}

impl Stretch {
    fn get(&self, range: &Range<u64>) -> Option<&[u8]> {
        let begin = usize::try_from(range.start.checked_sub(self.begin)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.begin)?).ok()?;
        self.bytes.get(begin..end)
    }

    fn cost(length: u64) -> u64 {
        length + OVERHEAD
    }
}

/// A stretch that somebody fetches.
struct UnderWay {
    pack: u32,
    range: Range<u64>,
    outcome: OnceLock<Result<(), Fault>>,
}

fn covers(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

impl State {
    /// The stretch that holds a range, which counts as used now.
    fn find(&mut self, pack: u32, range: &Range<u64>) -> Option<Stretch> {
        let kept = self.kept.get_mut(&pack)?.iter_mut().find(|kept| kept.stretch.get(range).is_some())?;
        self.uses += 1;
        self.by_use.remove(&std::mem::replace(&mut kept.used, self.uses));
        self.by_use.insert(self.uses, pack);
        Some(kept.stretch.clone())
    }

    fn is_here_or_coming(&self, pack: u32, range: &Range<u64>) -> bool {
        let is_kept = || self.kept.get(&pack).is_some_and(|all| all.iter().any(|it| it.stretch.get(range).is_some()));
        is_kept() || self.coming(pack, range).is_some()
    }

    fn coming(&self, pack: u32, range: &Range<u64>) -> Option<&Arc<UnderWay>> {
        self.under_way.iter().find(|it| it.pack == pack && covers(&it.range, range))
    }

    /// Drops what was not used for longest until there is room; whether there can be, beside what is under way.
    fn make_room(&mut self, bytes: u64) -> bool {
        if self.bytes_under_way + bytes > MOST {
            return false;
        }
        while self.bytes_kept + self.bytes_under_way + bytes > MOST {
            let Some((used, pack)) = self.by_use.pop_first() else { break };
            let Some(all) = self.kept.get_mut(&pack) else { continue };
            if let Some(at) = all.iter().position(|kept| kept.used == used) {
                self.bytes_kept -= Stretch::cost(all.swap_remove(at).stretch.bytes.len() as u64);
            }
            if all.is_empty() {
                self.kept.remove(&pack);
            }
        }
        true
    }

    fn keep(&mut self, pack: u32, stretch: Stretch) {
        self.uses += 1;
        self.bytes_kept += Stretch::cost(stretch.bytes.len() as u64);
        self.by_use.insert(self.uses, pack);
        self.kept.entry(pack).or_default().push(Kept { stretch, used: self.uses });
    }
}

impl Stretches {
    /// Nothing of these trees yet.
    pub(crate) fn new<'a>(trees: impl Iterator<Item = &'a Place>) -> Self {
        let mut trees: Vec<_> = trees.map(Extent::of).collect();
        trees.sort_unstable();
        Self { trees, state: Mutex::default(), has_changed: Condvar::new() }
    }

    /// The tree at a place as it is stored. Where it is not kept, it is fetched with its neighbours. `None` when it is too long to be
    /// kept, or what was fetched ends before.
    pub(crate) fn get(
        &self,
        place: &Place,
        fetch: impl Fn(Range<u64>) -> Result<Bytes, Fault>,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let tree = Extent::of(place);
        let stretch = self.obtain(tree.pack, tree.range(), fetch)?;
        Ok(stretch.and_then(|stretch| stretch.get(&tree.range()).map(<[u8]>::to_vec)))
    }

    /// Fetches everything from the first of two places in one pack to the last, unless it is there; what is short with its neighbours.
    pub(crate) fn fetch(
        &self,
        first: &Place,
        last: &Place,
        fetch: impl Fn(Range<u64>) -> Result<Bytes, Fault>,
    ) -> Result<(), Fault> {
        let (first, last) = (Extent::of(first), Extent::of(last));
        self.obtain(first.pack, first.range().start..last.range().end, fetch).map(drop)
    }

    /// Whether a tree is kept, or somebody fetches it.
    pub(crate) fn has(&self, place: &Place) -> bool {
        let tree = Extent::of(place);
        lock(&self.state).is_here_or_coming(tree.pack, &tree.range())
    }

    /// Whether something has to go before much else is kept.
    pub(crate) fn is_full(&self) -> bool {
        let state = lock(&self.state);
        state.bytes_kept + state.bytes_under_way + LONGEST > MOST
    }

    fn obtain(
        &self,
        pack: u32,
        wanted: Range<u64>,
        fetch: impl Fn(Range<u64>) -> Result<Bytes, Fault>,
    ) -> Result<Option<Stretch>, Fault> {
        if wanted.end.saturating_sub(wanted.start) > LONGEST {
            return Ok(None);
        }
        let mine = match self.find_or_begin(pack, &wanted)? {
            Found::Kept(stretch) => return Ok(Some(stretch)),
            Found::Begun(mine) => mine,
        };
        let fetched = guarded_call(|| fetch(mine.range.clone())).and_then(|fetched| fetched);
        // A copy: what came may be a part of some larger buffer.
        let fetched = fetched.map(|bytes| Stretch { begin: mine.range.start, bytes: bytes.as_ref().into() });
        let mut state = lock(&self.state);
        state.under_way.retain(|it| !Arc::ptr_eq(it, &mine));
        state.bytes_under_way -= Stretch::cost(mine.range.end - mine.range.start);
        let fetched = fetched.inspect(|stretch| state.keep(pack, stretch.clone()));
        let _ = mine.outcome.set(fetched.as_ref().map(drop).map_err(Fault::clone));
        self.has_changed.notify_all();
        fetched.map(|stretch| stretch.get(&wanted).is_some().then_some(stretch))
    }

    /// The stretch that holds a range, after waiting for it where it is under way; or one that the caller has to fetch.
    fn find_or_begin(&self, pack: u32, wanted: &Range<u64>) -> Result<Found, Fault> {
        let mut state = lock(&self.state);
        loop {
            if let Some(stretch) = state.find(pack, wanted) {
                return Ok(Found::Kept(stretch));
            }
            if let Some(coming) = state.coming(pack, wanted).cloned() {
                while coming.outcome.get().is_none() {
                    state = self.has_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                // Whoever waited for a failure does not wait for it once more.
                if let Some(Err(fault)) = coming.outcome.get() {
                    return Err(fault.clone());
                }
                continue;
            }
            let range = self.around(&state, pack, wanted);
            let cost = Stretch::cost(range.end - range.start);
            if state.make_room(cost) {
                state.bytes_under_way += cost;
                *state.asked.entry(pack).or_default() += 1;
                let mine = Arc::new(UnderWay { pack, range, outcome: OnceLock::new() });
                state.under_way.push(Arc::clone(&mine));
                return Ok(Found::Begun(mine));
            }
            state = self.has_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A range and its neighbours on both sides, up to what is asked for in this pack this time, to a gap, or to what is there.
    fn around(&self, state: &State, pack: u32, wanted: &Range<u64>) -> Range<u64> {
        let asked = state.asked.get(&pack).copied().unwrap_or(0);
        let length = (FIRST << (2 * asked.min(8))).min(LONGEST);
        let spare = length.saturating_sub(wanted.end - wanted.start);
        let begin = self.reach_back(state, pack, wanted, spare / 2);
        let spare = spare - (wanted.start - begin);
        let end = self.reach_on(state, pack, &(begin..wanted.end), spare);
        let spare = spare - (end - wanted.end);
        self.reach_back(state, pack, &(begin..end), spare)..end
    }

    /// Where a range begins that reaches back over whole trees by no more than `spare` bytes.
    fn reach_back(&self, state: &State, pack: u32, from: &Range<u64>, spare: u64) -> u64 {
        let before = self.trees.partition_point(|tree| (tree.pack, tree.range().start) < (pack, from.start));
        let mut begin = from.start;
        for tree in self.trees[..before].iter().rev().take_while(|tree| tree.pack == pack) {
            let tree = tree.range();
            let is_near = tree.end + GAP >= begin && tree.end <= from.end && from.start - tree.start <= spare;
            if !is_near || state.is_here_or_coming(pack, &tree) {
                break;
            }
            begin = tree.start;
        }
        begin
    }

    /// Where a range ends that reaches on over whole trees by no more than `spare` bytes.
    fn reach_on(&self, state: &State, pack: u32, from: &Range<u64>, spare: u64) -> u64 {
        let next = self.trees.partition_point(|tree| (tree.pack, tree.range().start) < (pack, from.end));
        let mut end = from.end;
        for tree in self.trees[next..].iter().take_while(|tree| tree.pack == pack) {
            let tree = tree.range();
            let is_near = tree.start <= end + GAP && tree.end >= end && tree.end - from.end <= spare;
            if !is_near || state.is_here_or_coming(pack, &tree) {
                break;
            }
            end = tree.end;
        }
        end
    }
}

/// What somebody who wants something finds.
enum Found {
    Kept(Stretch),
    Begun(Arc<UnderWay>),
}

#[cfg(test)]
mod tests;
