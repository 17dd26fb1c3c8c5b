//! The entries of a folder on their way into its tree: of most folders in memory until the last is there, of those with very many
//! compressed as they come. A tree is JSON of some 350 bytes an entry; that of a million would take several times its length
//! otherwise.

use crate::fault::Fault;
use crate::seal::{LongBlob, LongSealed, Seal};
use std::collections::BTreeMap;

/// From so many entries on a tree is compressed as they come.
pub(super) const MANY: usize = 20_000;

const BEGIN: &[u8] = b"{\"nodes\":[";
const END: &[u8] = b"]}\n";

/// The entries, each as it stands in the tree; what could not be read is left out.
pub(super) enum Entries {
    Few(Vec<Option<Box<[u8]>>>),
    Many(Box<InOrder>),
}

/// A whole tree.
pub(super) enum TreeContent {
    Short(Vec<u8>),
    Long(LongSealed),
}

impl Entries {
    /// For so many entries; `compresses` says whether the repository's version allows it.
    pub(super) fn new(count: usize, compresses: bool) -> Result<Self, Fault> {
        if count < MANY || !compresses { Ok(Self::Few(vec![None; count])) } else { InOrder::new().map(Self::Many) }
    }

    /// Sets an entry, once; `None` leaves it out.
    pub(super) fn set(&mut self, slot: usize, json: Option<Box<[u8]>>) -> Result<(), Fault> {
        match self {
            Self::Few(entries) => {
                if let Some(entry) = entries.get_mut(slot) {
                    *entry = json;
                }
                Ok(())
            }
            Self::Many(entries) => entries.set(slot, json),
        }
    }

    /// The tree, the number of its entries, and its length.
    pub(super) fn finish(self, seal: &Seal) -> Result<(TreeContent, u64, u64), Fault> {
        match self {
            Self::Few(entries) => {
                let json = tree_json(&entries);
                let (count, length) = (entries.iter().flatten().count() as u64, json.len() as u64);
                Ok((TreeContent::Short(json), count, length))
            }
            Self::Many(entries) => {
                let (sealed, count) = entries.finish(seal)?;
                let length = u64::from(sealed.raw_length);
                Ok((TreeContent::Long(sealed), count, length))
            }
        }
    }
}

/// Entries that are written in their order. One that comes before its turn waits: as many do as are being read at once, and more only while
/// a large file among them takes its time.
pub(super) struct InOrder {
    blob: LongBlob,
    /// The entry whose turn it is.
    next: usize,
    waiting: BTreeMap<usize, Option<Box<[u8]>>>,
    written: u64,
}

impl InOrder {
    fn new() -> Result<Box<Self>, Fault> {
        let mut blob = LongBlob::new()?;
        blob.add(BEGIN)?;
        Ok(Box::new(Self { blob, next: 0, waiting: BTreeMap::new(), written: 0 }))
    }

    fn set(&mut self, slot: usize, json: Option<Box<[u8]>>) -> Result<(), Fault> {
        if slot != self.next {
            self.waiting.insert(slot, json);
            return Ok(());
        }
        self.write(json)?;
        self.next += 1;
        while let Some(json) = self.waiting.remove(&self.next) {
            self.write(json)?;
            self.next += 1;
        }
        Ok(())
    }

    fn write(&mut self, json: Option<Box<[u8]>>) -> Result<(), Fault> {
        let Some(json) = json else { return Ok(()) };
        if self.written > 0 {
            self.blob.add(b",")?;
        }
        self.written += 1;
        self.blob.add(&json)
    }

    fn finish(mut self, seal: &Seal) -> Result<(LongSealed, u64), Fault> {
        // An entry that was never set leaves a gap, and no entry behind it may be lost.
        for (_, json) in std::mem::take(&mut self.waiting) {
            self.write(json)?;
        }
        self.blob.add(END)?;
        Ok((self.blob.seal(seal)?, self.written))
    }
}

/// A tree as restic writes it, with a line feed at its end.
fn tree_json(entries: &[Option<Box<[u8]>>]) -> Vec<u8> {
    let length: usize = entries.iter().flatten().map(|entry| entry.len() + 1).sum();
    let mut json = Vec::with_capacity(length + BEGIN.len() + END.len());
    json.extend_from_slice(BEGIN);
    for (number, entry) in entries.iter().flatten().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        json.extend_from_slice(entry);
    }
    json.extend_from_slice(END);
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::node_json;
    use proptest::prelude::*;
    use rustic_core::repofile::{MasterKey, Node, NodeType, Tree};
    use std::ffi::OsStr;

    /// The same bytes, so that trees that rustic wrote are found again.
    #[test]
    fn trees_are_written_as_rustic_writes_them() {
        for names in [vec![], vec!["a"], vec!["a", "b\n", "ü"]] {
            let node = |name: &&str| Node::new_node(OsStr::new(name), NodeType::File, Default::default());
            let nodes: Vec<Node> = names.iter().map(node).collect();
            let entries: Vec<_> = nodes.iter().map(|node| Some(node_json(node).unwrap().into_boxed_slice())).collect();
            assert_eq!(tree_json(&entries), Tree { nodes }.serialize().unwrap().0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        /// In whatever order they come, and whatever is left out or never set.
        #[test]
        fn many_entries_make_the_tree_that_few_make(
            order in Just((0..60_usize).collect::<Vec<_>>()).prop_shuffle(),
            left_out in prop::collection::hash_set(0..60_usize, 0..4),
            never_set in prop::collection::hash_set(0..60_usize, 0..2),
        ) {
            let seal = Seal::new(&MasterKey::new(), 2);
            let (mut few, mut many) = (Entries::new(60, true).unwrap(), Entries::Many(InOrder::new().unwrap()));
            for slot in order.into_iter().filter(|slot| !never_set.contains(slot)) {
                let json = (!left_out.contains(&slot)).then(|| format!("{{\"n\":{slot}}}").into_bytes().into());
                few.set(slot, Clone::clone(&json)).unwrap();
                many.set(slot, json).unwrap();
            }
            let (TreeContent::Short(short), count, length) = few.finish(&seal).unwrap() else { panic!("it is short") };
            let (TreeContent::Long(mut long), ..) = many.finish(&seal).map(|(tree, of, bytes)| {
                assert_eq!((of, bytes), (count, length));
                (tree, ())
            }).unwrap() else { panic!("it is long") };
            prop_assert_eq!(seal.open_blob(&mut long.sealed, Some(short.len())).unwrap(), short);
        }
    }

    #[test]
    fn only_large_folders_of_repositories_that_compress_are_long() {
        for (count, compresses, is_long) in [(MANY - 1, true, false), (MANY, true, true), (MANY, false, false)] {
            assert_eq!(matches!(Entries::new(count, compresses).unwrap(), Entries::Many(_)), is_long);
        }
    }
}
