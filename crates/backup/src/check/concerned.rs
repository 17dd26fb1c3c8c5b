//! Which snapshots and files need what is damaged.

use super::{CheckReport, Damage};
use crate::fault::Fault;
use crate::follow::follow;
use crate::index::Indexed;
use crate::labels::SnapshotId;
use crate::progress::Progress;
use crate::tree::{hex, read_tree};
use rustic_core::repofile::{BlobType, Tree};
use rustic_core::{Id, TreeId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// So many files are named for each damage.
const NAMED: usize = 100;

/// Damages, and the trees on the way to what they concern.
pub(super) struct Concerned<'a> {
    indexed: &'a Indexed,
    damages: Vec<String>,
    /// Which damage a blob suffers from, and how many of its copies do.
    broken: HashMap<(BlobType, Id), (usize, usize)>,
    /// For each tree, the trees it stands in.
    above: HashMap<Id, Vec<Id>>,
    /// Trees that hold something damaged themselves.
    hit: HashSet<Id>,
    /// The damage that parts of files suffer from that are in no index.
    unindexed: Option<usize>,
}

impl<'a> Concerned<'a> {
    pub(super) fn new(indexed: &'a Indexed) -> Self {
        let (above, hit, unindexed) = (HashMap::new(), HashSet::new(), None);
        Self { indexed, damages: Vec::new(), broken: HashMap::new(), above, hit, unindexed }
    }

    /// A damaged pack, and the blobs in it that are lost.
    pub(super) fn add(&mut self, pack: Id, what: String, blobs: Vec<(BlobType, Id)>) {
        let number = self.damages.len();
        self.damages.push(format!("pack {}: {what}", hex(&pack)));
        for blob in blobs {
            self.broken.entry(blob).or_insert((number, 0)).1 += 1;
        }
    }

    fn blame(&mut self, blob: (BlobType, Id), what: impl FnOnce() -> String) {
        if self.damage_of(&blob).is_none() {
            self.broken.insert(blob, (self.damages.len(), usize::MAX));
            self.damages.push(what());
        }
    }

    /// All parts of files that are in no index are one damage: of a pack that is lost they are thousands.
    fn blame_unindexed(&mut self, blob: (BlobType, Id)) {
        let number = *self.unindexed.get_or_insert_with(|| {
            self.damages.push(format!("parts of files are in no index, such as blob {}", hex(&blob.1)));
            self.damages.len() - 1
        });
        self.broken.entry(blob).or_insert((number, usize::MAX));
    }

    /// The damage of a blob that has no whole copy.
    fn damage_of(&self, blob: &(BlobType, Id)) -> Option<usize> {
        let (number, copies) = self.broken.get(blob)?;
        (*copies >= self.indexed.places(blob.0, &blob.1).count()).then_some(*number)
    }

    /// Reads every tree once, and looks whether all blobs it names are in the index.
    pub(super) fn read_trees(&mut self, snapshots: &[(SnapshotId, Id)], progress: &dyn Progress) -> Result<(), Fault> {
        let mut seen: HashSet<Id> = HashSet::new();
        let trees: Vec<Id> = snapshots.iter().map(|(_, tree)| *tree).filter(|tree| seen.insert(*tree)).collect();
        let indexed = self.indexed;
        let read = |id: &Id| read_tree(indexed, TreeId::from(*id));
        let flow = follow(indexed, trees, read, |id, tree, below| {
            if progress.should_stop() {
                return ControlFlow::Break(Ok(()));
            }
            match tree {
                Ok(tree) => self.look_at(id, &tree, |subtree| {
                    if seen.insert(subtree) {
                        below.push(subtree);
                    }
                }),
                Err(fault @ (Fault::System { .. } | Fault::Locked { .. } | Fault::Panicked { .. })) => {
                    return ControlFlow::Break(Err(fault));
                }
                Err(fault @ (Fault::Damaged { .. } | Fault::Storage(_))) => {
                    self.blame((BlobType::Tree, id), || format!("tree {}: {fault}", hex(&id)));
                    self.hit.insert(id);
                }
            }
            ControlFlow::Continue(())
        });
        flow.break_value().unwrap_or(Ok(()))
    }

    fn look_at(&mut self, id: Id, tree: &Tree, mut goes_on_below: impl FnMut(Id)) {
        for node in &tree.nodes {
            for part in node.content.iter().flatten() {
                let blob = (BlobType::Data, **part);
                if self.indexed.place(BlobType::Data, part).is_none() {
                    self.blame_unindexed(blob);
                }
                if self.damage_of(&blob).is_some() {
                    self.hit.insert(id);
                }
            }
            if let Some(subtree) = node.subtree {
                self.above.entry(*subtree).or_default().push(id);
                goes_on_below(*subtree);
            }
        }
    }

    /// All trees that lead to something damaged.
    fn tainted(&self) -> HashSet<Id> {
        let mut tainted = self.hit.clone();
        let mut next: Vec<Id> = self.hit.iter().copied().collect();
        while let Some(tree) = next.pop() {
            for above in self.above.get(&tree).into_iter().flatten() {
                if tainted.insert(*above) {
                    next.push(*above);
                }
            }
        }
        tainted
    }

    /// Names all damages with the snapshots and files that need what is damaged.
    pub(super) fn report(self, snapshots: &[(SnapshotId, Id)], report: &mut CheckReport) -> Result<(), Fault> {
        let tainted = self.tainted();
        let damage =
            |what: &String| Damage { what: what.clone(), snapshots: Vec::new(), files: Vec::new(), files_count: 0 };
        let mut damages: Vec<Damage> = self.damages.iter().map(damage).collect();
        for (snapshot, root) in snapshots {
            let mut trees = vec![(*root, PathBuf::from("/"))];
            while let Some((id, path)) = trees.pop() {
                if !tainted.contains(&id) {
                    continue;
                }
                if let Some(number) = self.damage_of(&(BlobType::Tree, id)) {
                    damages[number].add(snapshot, path);
                    continue;
                }
                for node in read_tree(self.indexed, TreeId::from(id))?.nodes {
                    let path = path.join(node.name());
                    let parts = node.content.iter().flatten();
                    let hits: BTreeSet<usize> =
                        parts.filter_map(|part| self.damage_of(&(BlobType::Data, **part))).collect();
                    hits.into_iter().for_each(|number| damages[number].add(snapshot, path.clone()));
                    trees.extend(node.subtree.map(|subtree| (subtree.into_inner(), path)));
                }
            }
        }
        report.damages.extend(damages);
        Ok(())
    }
}

impl Damage {
    fn add(&mut self, snapshot: &SnapshotId, file: PathBuf) {
        if self.snapshots.last() != Some(snapshot) {
            self.snapshots.push(snapshot.clone());
        }
        self.files_count += 1;
        if self.files.len() < NAMED {
            self.files.push(file);
        }
    }
}
