//! What is needed, and what is to be done about the rest.

use super::{End, Space};
use crate::follow::follow;
use crate::index::Indexed;
use crate::progress::Progress;
use crate::tree::{hex, read_outline};
use rustic_core::Id;
use rustic_core::repofile::BlobType;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// A pack of so many bytes of data is full.
const FULL_DATA: u64 = 16 << 20;
/// The same of trees.
const FULL_TREES: u64 = 4 << 20;
/// A pack of so many blobs is full, whatever its size.
const FULL_BLOBS: u64 = 10_000;
/// Packs that are filled by less than this part are small.
const SMALL_PART: u64 = 4;
/// So many small packs are joined, even when they do not fill one.
pub(super) const MANY_PACKS: usize = 100;

/// So many missing parts are named.
const NAMED: usize = 3;

/// For each copy of each blob, in the order of [`Indexed::list`], whether it is the one that is needed.
pub(super) struct Needed {
    data: Vec<bool>,
    trees: Vec<bool>,
}

impl Needed {
    pub(super) fn of(&self, kind: BlobType) -> &[bool] {
        match kind {
            BlobType::Data => &self.data,
            BlobType::Tree => &self.trees,
        }
    }
}

/// Parts that are needed and not there.
#[derive(Default)]
struct Missing {
    some: Vec<String>,
    count: u64,
}

impl Missing {
    fn add(&mut self, kind: BlobType, id: &Id) {
        self.count += 1;
        if self.some.len() < NAMED {
            self.some.push(format!("{kind} blob {}", hex(id)));
        }
    }
}

/// Follows all snapshots, and chooses one copy of everything they need.
pub(super) fn needed(
    indexed: &Indexed,
    sizes: &HashMap<Id, u64>,
    roots: Vec<Id>,
    progress: &dyn Progress,
) -> Result<Needed, End> {
    let marks = |kind| vec![false; indexed.list(kind).len()];
    let mut needed = Needed { data: marks(BlobType::Data), trees: marks(BlobType::Tree) };
    let mut missing = Missing::default();
    let mut mark = |id: Id, missing: &mut Missing, open: &mut Vec<Id>| match indexed.position(BlobType::Tree, &id) {
        Some(position) if std::mem::replace(&mut needed.trees[position], true) => {}
        Some(_) => open.push(id),
        None => missing.add(BlobType::Tree, &id),
    };
    let mut open = Vec::new();
    roots.into_iter().for_each(|root| mark(root, &mut missing, &mut open));
    let flow = follow(
        indexed,
        open,
        |id| read_outline(indexed, id),
        |_, tree, open| {
            if progress.should_stop() {
                return ControlFlow::Break(End::Stopped);
            }
            let tree = match tree {
                Ok(tree) => tree,
                Err(fault) => return ControlFlow::Break(fault.into()),
            };
            for node in tree.nodes {
                for part in node.content.iter().flatten() {
                    match indexed.position(BlobType::Data, part) {
                        Some(position) => needed.data[position] = true,
                        None => missing.add(BlobType::Data, part),
                    }
                }
                node.subtree.into_iter().for_each(|subtree| mark(subtree, &mut missing, open));
            }
            ControlFlow::Continue(())
        },
    );
    if let ControlFlow::Break(end) = flow {
        return Err(end);
    }
    choose_copies(indexed, sizes, BlobType::Data, &mut needed.data, &mut missing);
    choose_copies(indexed, sizes, BlobType::Tree, &mut needed.trees, &mut missing);
    match missing {
        Missing { count: 0, .. } => Ok(needed),
        Missing { some, count } => Err(End::Missing { some, count }),
    }
}

/// The mark of a blob stands at its first copy; it goes to the first copy whose pack is there and long enough.
fn choose_copies(
    indexed: &Indexed,
    sizes: &HashMap<Id, u64>,
    kind: BlobType,
    marks: &mut [bool],
    missing: &mut Missing,
) {
    let list = indexed.list(kind);
    let whole: Vec<u64> = indexed.packs().iter().map(|pack| sizes.get(pack).copied().unwrap_or(0)).collect();
    let is_whole = |at: &usize| whole[list[*at].1.pack_number()] >= list[*at].1.end();
    let mut first = 0;
    while first < list.len() {
        let id = list[first].0;
        let end = first + list[first..].iter().take_while(|(other, _)| *other == id).count();
        if std::mem::replace(&mut marks[first], false) {
            match (first..end).find(is_whole) {
                Some(chosen) => marks[chosen] = true,
                None => missing.add(kind, &id),
            }
        }
        first = end;
    }
}

/// A pack to be written anew: one that holds something needed beside something that is not, or a small one.
pub(super) struct Mixed {
    pub(super) pack: Id,
    pub(super) number: usize,
    pub(super) size: u64,
    pub(super) unused: u64,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) space: Space,
    /// Packs in no index.
    pub(super) unindexed: Vec<(Id, u64)>,
    /// Packs in the index that hold nothing needed; those that are not there at all among them, with no size.
    pub(super) unused: Vec<(Id, u64)>,
    /// Packs to write anew: those first of which the most goes, and small ones, once they fill a pack or are many.
    pub(super) repack: Vec<Mixed>,
    /// The copies to keep of what lies in these, by the number of the pack.
    keep: HashMap<usize, Vec<(BlobType, usize)>>,
}

#[derive(Clone, Copy, Default)]
struct Use {
    needed: u64,
    all: u64,
    blobs: u64,
    has_data: bool,
}

impl Use {
    fn full(&self) -> u64 {
        if self.has_data { FULL_DATA } else { FULL_TREES }
    }

    fn is_small(&self) -> bool {
        self.all < self.full() / SMALL_PART && self.blobs < FULL_BLOBS / SMALL_PART
    }
}

impl Plan {
    pub(super) fn new(indexed: &Indexed, sizes: &HashMap<Id, u64>, needed: &Needed, max_unused: u8) -> Self {
        let mut uses = vec![Use::default(); indexed.packs().len()];
        for kind in [BlobType::Data, BlobType::Tree] {
            for ((_, place), is_needed) in indexed.list(kind).iter().zip(needed.of(kind)) {
                let pack = &mut uses[place.pack_number()];
                pack.all += u64::from(place.length);
                pack.blobs += 1;
                pack.has_data |= kind == BlobType::Data;
                pack.needed += if *is_needed { u64::from(place.length) } else { 0 };
            }
        }
        let (mut unused, mut mixed, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (pack, used)) in indexed.packs().iter().zip(&uses).enumerate() {
            let size = sizes.get(pack).copied().unwrap_or(0);
            if used.needed == 0 {
                unused.push((*pack, size));
            } else if used.needed < used.all {
                mixed.push(Mixed { pack: *pack, number, size, unused: used.all - used.needed });
            } else if used.is_small() {
                whole.push((*used, Mixed { pack: *pack, number, size, unused: 0 }));
            }
        }
        let known: HashSet<&Id> = indexed.packs().iter().collect();
        let mut unindexed: Vec<(Id, u64)> =
            sizes.iter().filter(|(pack, _)| !known.contains(pack)).map(|(pack, size)| (*pack, *size)).collect();
        unindexed.sort_unstable();
        let lost = |packs: &[(Id, u64)]| packs.iter().map(|(_, size)| size).sum::<u64>();
        let space = Space {
            total: sizes.values().sum(),
            reclaimable: lost(&unindexed) + lost(&unused) + mixed.iter().map(|it| it.unused).sum::<u64>(),
        };
        let in_use: u64 = uses.iter().map(|used| used.needed).sum();
        let mut repack = choose(mixed, in_use / 100 * u64::from(max_unused));
        repack.extend(joined(whole));
        let keep = keep(indexed, needed, &repack);
        Self { space, unindexed, unused, repack, keep }
    }

    /// What is to be kept of a pack that is written anew, in the order in which it lies there.
    pub(super) fn kept(&self, pack: &Mixed) -> &[(BlobType, usize)] {
        self.keep.get(&pack.number).map_or(&[], Vec::as_slice)
    }

    fn packs(&self) -> impl Iterator<Item = u64> {
        let gone = self.unindexed.iter().chain(&self.unused).map(|(_, size)| *size);
        gone.chain(self.repack.iter().map(|pack| pack.size))
    }

    pub(super) fn bytes_to_do(&self) -> u64 {
        self.packs().sum()
    }

    pub(super) fn packs_to_do(&self) -> u64 {
        self.packs().count() as u64
    }
}

/// Takes the packs of which the largest part goes, until no more than `may_stay` bytes are unused.
fn choose(mut mixed: Vec<Mixed>, may_stay: u64) -> Vec<Mixed> {
    let part = |it: &Mixed| it.unused.saturating_mul(1000) / it.size.max(1);
    mixed.sort_unstable_by(|a, b| (part(b), a.pack).cmp(&(part(a), b.pack)));
    let mut left: u64 = mixed.iter().map(|it| it.unused).sum();
    let mut chosen = 0;
    while left > may_stay && chosen < mixed.len() {
        left -= mixed[chosen].unused;
        chosen += 1;
    }
    mixed.truncate(chosen);
    mixed
}

/// Of small packs that are needed whole, those of data and those of trees that fill a pack together, or are many. What is written
/// for them fills packs but for the last, so the next prune finds nothing to do.
fn joined(small: Vec<(Use, Mixed)>) -> impl Iterator<Item = Mixed> {
    let (data, trees): (Vec<_>, Vec<_>) = small.into_iter().partition(|(used, _)| used.has_data);
    let is_worth_it = |packs: &Vec<(Use, Mixed)>| {
        let sum = |of: fn(&Use) -> u64| packs.iter().map(|(used, _)| of(used)).sum::<u64>();
        let full = packs.first().map_or(u64::MAX, |(used, _)| used.full());
        packs.len() >= MANY_PACKS || sum(|used| used.all) >= full || sum(|used| used.blobs) >= FULL_BLOBS
    };
    [data, trees].into_iter().filter(is_worth_it).flatten().map(|(_, pack)| pack)
}

fn keep(indexed: &Indexed, needed: &Needed, repack: &[Mixed]) -> HashMap<usize, Vec<(BlobType, usize)>> {
    let mut keep: HashMap<usize, Vec<_>> = repack.iter().map(|pack| (pack.number, Vec::new())).collect();
    for kind in [BlobType::Data, BlobType::Tree] {
        for (at, (_, place)) in indexed.list(kind).iter().enumerate() {
            if needed.of(kind)[at]
                && let Some(kept) = keep.get_mut(&place.pack_number())
            {
                kept.push((kind, at));
            }
        }
    }
    for kept in keep.values_mut() {
        kept.sort_unstable_by_key(|(kind, at)| indexed.list(*kind)[*at].1.offset);
    }
    keep
}
