//! Reading a snapshot back after it was committed.
//!
//! Memory: the index, two bytes for each blob in it, the ids of the trees, and where the parts lie that are read.

mod data;

use crate::backend::list_ids;
use crate::fault::Fault;
use crate::follow::follow;
use crate::index::Indexed;
use crate::labels::SnapshotId;
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::retry::Retry;
use crate::seal::hash;
use crate::tree::{Outline, OutlineKind, hex, read_outline, read_tree, snapshot_file};
use data::{chosen, read_data};
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id, TreeId};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// A share that is neither nothing nor everything: 1 to 99 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Percent(u8);

impl Percent {
    /// So many of a hundred; `None` for 0, which is nothing, and from 100 on, which is everything.
    pub fn new(percent: u8) -> Option<Self> {
        (1..100).contains(&percent).then_some(Self(percent))
    }

    /// How many of a hundred: 1 to 99.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// How much is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifyDepth {
    /// The snapshot file and every tree are read, decrypted and hashed; every part of every file has to be in the index,
    /// and its pack has to be there and long enough.
    Structure,
    /// The same, and about so many of a hundred parts of files are read, decrypted and hashed too. Which, follows from the
    /// snapshot's id and the part's: the same when it is repeated, others for the next snapshot.
    Sample(Percent),
    /// The same with every part of every file.
    Data,
}

impl VerifyDepth {
    /// The structure, and so many of a hundred parts of files; more than 100 is all of them.
    pub fn of_percent(percent: u8) -> Self {
        match (percent, Percent::new(percent)) {
            (_, Some(percent)) => Self::Sample(percent),
            (0, None) => Self::Structure,
            (_, None) => Self::Data,
        }
    }

    /// Whether a part of a snapshot's files is read.
    fn reads(self, snapshot: &SnapshotId, blob: &Id) -> bool {
        match self {
            Self::Structure => false,
            Self::Sample(percent) => {
                let drawn = hash(format!("{snapshot} {}", hex(blob)).as_bytes());
                let drawn = u32::from_be_bytes([drawn[0], drawn[1], drawn[2], drawn[3]]);
                (u64::from(drawn) * 100) >> 32 < u64::from(percent.get())
            }
            Self::Data => true,
        }
    }
}

/// What was read back and found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Trees.
    pub trees: u64,
    /// Parts of files, each counted once.
    pub blobs: u64,
    /// Bytes of these parts, before compression.
    pub bytes: u64,
    /// How many of these parts were read, decrypted and hashed; the others were found in the index.
    pub blobs_read: u64,
}

/// Why a snapshot does not read back whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Reading what is needed to begin: the index, the list of packs, the snapshot file.
    #[error("cannot read snapshot {snapshot} of {repository} back: {fault}")]
    Read {
        /// The repository.
        repository: String,
        /// The snapshot.
        snapshot: SnapshotId,
        /// What happened.
        fault: Fault,
    },
    /// Following the snapshot: something it refers to is missing or damaged.
    #[error(
        "snapshot {snapshot} of {repository} is not whole, {count} defects: {}; do not rely on it: `lvault storage check \
         --read-data` shows how far the damage goes",
        .defects.join("; ")
    )]
    Damaged {
        /// The repository.
        repository: String,
        /// The snapshot.
        snapshot: SnapshotId,
        /// Some of the defects.
        defects: Vec<String>,
        /// How many there are.
        count: u64,
    },
    /// Going on: the caller asked to stop.
    #[error("the verification was asked to stop")]
    Stopped,
}

impl VerifyError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Read { fault, .. } => fault.retry(),
            Self::Damaged { .. } => Retry::Never,
            Self::Stopped => Retry::Later,
        }
    }
}

/// Defects, some by name.
#[derive(Default)]
struct Defects {
    named: Vec<String>,
    count: u64,
}

impl Defects {
    const NAMED: usize = 10;

    fn add(&mut self, defect: String) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.push(defect);
        }
    }
}

impl Repository {
    /// Reads a snapshot back as it is stored now. Changes nothing.
    ///
    /// # Errors
    /// See [`VerifyError`]. A storage that fails in the middle is [`VerifyError::Read`], and no word about the snapshot.
    pub fn verify(
        &self,
        snapshot: &SnapshotId,
        depth: VerifyDepth,
        progress: &dyn Progress,
    ) -> Result<Verified, VerifyError> {
        let unreadable =
            |fault| VerifyError::Read { repository: self.shown().to_owned(), snapshot: snapshot.clone(), fault };
        progress.step(Step::Verifying);
        let _lock = self.lock_for_reading(progress).map_err(unreadable)?;
        let indexed = self.indexed().map_err(unreadable)?;
        let packs = list_ids(self.storage(), FileType::Pack).map_err(|err| unreadable(err.into()))?;
        let packs: HashMap<Id, u64> = packs.into_iter().collect();
        let root = snapshot_file(&indexed, snapshot).map_err(unreadable)?.tree;
        let mut structure = Structure::new(&indexed, &packs, progress);
        structure.follow(root).map_err(unreadable)?;
        let Structure { mut verified, mut defects, parts, .. } = structure;
        let blobs = chosen(&indexed, &parts, |id| depth.reads(snapshot, id));
        drop(parts);
        verified.blobs_read = blobs.len() as u64;
        progress.total(blobs.iter().map(|(_, place)| place.data_length() as u64).sum(), verified.blobs_read);
        read_data(&indexed, &blobs, &mut defects, progress).map_err(unreadable)?;
        if progress.should_stop() {
            Err(VerifyError::Stopped)
        } else if defects.count > 0 {
            let (repository, snapshot) = (self.shown().to_owned(), snapshot.clone());
            Err(VerifyError::Damaged { repository, snapshot, defects: defects.named, count: defects.count })
        } else {
            Ok(verified)
        }
    }
}

/// A damaged blob is a defect; a storage that fails is the end.
fn defect_or_end(fault: Fault, defects: &mut Defects, of: &str) -> Result<(), Fault> {
    match fault {
        Fault::Damaged { what } => defects.add(format!("{of}: {what}")),
        Fault::Storage(_) | Fault::Locked { .. } | Fault::System { .. } | Fault::Panicked { .. } => return Err(fault),
    }
    Ok(())
}

/// Reading every tree once, and looking every part of every file up.
struct Structure<'a> {
    indexed: &'a Indexed,
    progress: &'a dyn Progress,
    /// How long each pack is, by its number; those that are not there, not at all.
    packs: Vec<Option<u64>>,
    trees: HashSet<Id>,
    /// Which parts of files were seen, in the order of the index, and of these, which can be read.
    seen: Vec<bool>,
    parts: Vec<bool>,
    unindexed: HashSet<Id>,
    verified: Verified,
    defects: Defects,
}

impl<'a> Structure<'a> {
    fn new(indexed: &'a Indexed, sizes: &HashMap<Id, u64>, progress: &'a dyn Progress) -> Self {
        let count = indexed.list(BlobType::Data).len();
        Self {
            indexed,
            progress,
            packs: indexed.packs().iter().map(|pack| sizes.get(pack).copied()).collect(),
            trees: HashSet::new(),
            seen: vec![false; count],
            parts: vec![false; count],
            unindexed: HashSet::new(),
            verified: Verified::default(),
            defects: Defects::default(),
        }
    }

    fn follow(&mut self, root: TreeId) -> Result<(), Fault> {
        let mut roots = Vec::new();
        self.add(*root, &mut roots);
        let indexed = self.indexed;
        let flow = follow(
            indexed,
            roots,
            |id| read_outline(indexed, id),
            |id, tree, below| {
                if self.progress.should_stop() {
                    return ControlFlow::Break(Ok(()));
                }
                match tree {
                    Ok(tree) => self.look_at(id, &tree, below),
                    Err(fault) => {
                        if let Err(fault) = defect_or_end(fault, &mut self.defects, "a tree") {
                            return ControlFlow::Break(Err(fault));
                        }
                    }
                }
                ControlFlow::Continue(())
            },
        );
        flow.break_value().unwrap_or(Ok(()))
    }

    /// A tree that is to be read, if it was not seen before and can be.
    fn add(&mut self, id: Id, trees: &mut Vec<Id>) {
        if !self.trees.insert(id) {
            return;
        }
        let first = self.indexed.position(BlobType::Tree, &id);
        match first.map_or_else(|| Err(in_no_index(&id)), |first| self.present(BlobType::Tree, first)) {
            Ok(_) => trees.push(id),
            Err(defect) => self.defects.add(format!("tree {}: {defect}", hex(&id))),
        }
    }

    fn look_at(&mut self, id: Id, tree: &Outline, below: &mut Vec<Id>) {
        self.verified.trees += 1;
        for (number, node) in tree.nodes.iter().enumerate() {
            if node.kind == OutlineKind::Dir {
                match node.subtree {
                    Some(subtree) => self.add(subtree, below),
                    None => self.defects.add(format!("folder {} has no tree", self.name_of(id, number))),
                }
            }
            for part in node.content.iter().flatten() {
                if let Err(defect) = self.look_up(part) {
                    self.defects.add(format!("a part of {}: {defect}", self.name_of(id, number)));
                }
            }
        }
    }

    /// Looks a part of a file up, the first time that it is seen.
    fn look_up(&mut self, part: &Id) -> Result<(), String> {
        let Some(first) = self.indexed.position(BlobType::Data, part) else {
            return if self.unindexed.insert(*part) { Err(in_no_index(part)) } else { Ok(()) };
        };
        if std::mem::replace(&mut self.seen[first], true) {
            return Ok(());
        }
        self.verified.bytes += self.present(BlobType::Data, first)?;
        self.verified.blobs += 1;
        self.parts[first] = true;
        Ok(())
    }

    /// Looks whether the pack of a blob, which stands here in the index, is there and long enough; answers its size before compression.
    fn present(&self, kind: BlobType, first: usize) -> Result<u64, String> {
        let list = &self.indexed.list(kind)[first..];
        let mut defect = None;
        for (_, place) in list.iter().take_while(|(id, _)| *id == list[0].0) {
            let pack = self.indexed.pack(place);
            let found = match self.packs[place.pack_number()] {
                None => format!("pack {} is missing", hex(&pack)),
                Some(size) if size < place.end() => format!("pack {} is cut off after {size} bytes", hex(&pack)),
                Some(_) => return Ok(place.data_length() as u64),
            };
            defect = defect.or(Some(found));
        }
        Err(defect.unwrap_or_else(|| in_no_index(&list[0].0)))
    }

    /// The name of an entry, for people: names are not read while all is well.
    fn name_of(&self, tree: Id, number: usize) -> String {
        let tree = read_tree(self.indexed, TreeId::from(tree)).unwrap_or_default();
        tree.nodes.get(number).map_or_else(|| format!("entry {number}"), |node| format!("{:?}", node.name()))
    }
}

fn in_no_index(id: &Id) -> String {
    format!("blob {} is in no index", hex(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_snapshot_draws_anew_and_in_time_everything_is_looked_at() {
        let blobs: Vec<Id> = (0..1000_u32).map(|number| Id::new(hash(&number.to_be_bytes()))).collect();
        let drawn = |snapshot: u32| -> HashSet<Id> {
            let snapshot = SnapshotId::from_rustic(Id::new(hash(&snapshot.to_le_bytes())));
            let depth = VerifyDepth::of_percent(10);
            blobs.iter().copied().filter(|blob| depth.reads(&snapshot, blob)).collect()
        };
        let all: Vec<HashSet<Id>> = (0..60).map(drawn).collect();
        assert!(all.iter().all(|some| (50..=150).contains(&some.len())), "about a tenth for each");
        assert!(all[0] == drawn(0) && all[0] != all[1]);
        let together: HashSet<Id> = all.into_iter().flatten().collect();
        assert!(together.len() > 990, "{} of 1000 in sixty snapshots", together.len());
    }
}
