//! Reading a snapshot back after it was committed.

use crate::backend::list_ids;
use crate::fault::Fault;
use crate::index::Indexed;
use crate::labels::SnapshotId;
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::retry::Retry;
use crate::seal::hash;
use crate::tree::{OutlineKind, hex, read_data, read_outline, read_tree, snapshot_file};
use rustic_core::repofile::BlobType;
use rustic_core::{DataId, FileType, Id, TreeId};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        let mut defects = Defects::default();
        let (mut verified, mut blobs) =
            structure(&indexed, &packs, root, &mut defects, progress).map_err(unreadable)?;
        verified.blobs = blobs.len() as u64;
        blobs.retain(|(id, _)| depth.reads(snapshot, id));
        verified.blobs_read = blobs.len() as u64;
        progress.total(blobs.iter().map(|(_, bytes)| bytes).sum(), verified.blobs_read);
        data(&indexed, &blobs, &mut defects, progress).map_err(unreadable)?;
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

/// Reads every tree once, and looks every part of every file up.
fn structure(
    indexed: &Indexed,
    packs: &HashMap<Id, u64>,
    root: TreeId,
    defects: &mut Defects,
    progress: &dyn Progress,
) -> Result<(Verified, Vec<(DataId, u64)>), Fault> {
    let mut verified = Verified::default();
    let (mut trees, mut seen_trees, mut seen_data) = (vec![root], HashSet::from([root]), HashSet::new());
    let mut blobs = Vec::new();
    while let Some(id) = trees.pop() {
        if progress.should_stop() {
            break;
        }
        if let Err(defect) = present(indexed, packs, BlobType::Tree, &id) {
            defects.add(format!("tree {}: {defect}", hex(&id)));
            continue;
        }
        let tree = match read_outline(indexed, &id) {
            Ok(tree) => tree,
            Err(fault) => {
                defect_or_end(fault, defects, "a tree")?;
                continue;
            }
        };
        verified.trees += 1;
        for (number, node) in tree.nodes.iter().enumerate() {
            if node.kind == OutlineKind::Dir {
                match node.subtree.map(TreeId::from) {
                    Some(subtree) if seen_trees.insert(subtree) => trees.push(subtree),
                    Some(_) => {}
                    None => defects.add(format!("folder {} has no tree", name_of(indexed, id, number))),
                }
            }
            for blob in node.content.iter().flatten().copied().map(DataId::from) {
                if seen_data.insert(blob) {
                    match present(indexed, packs, BlobType::Data, &blob) {
                        Ok(bytes) => {
                            verified.bytes += bytes;
                            blobs.push((blob, bytes));
                        }
                        Err(defect) => {
                            defects.add(format!("a part of {}: {defect}", name_of(indexed, id, number)));
                        }
                    }
                }
            }
        }
    }
    Ok((verified, blobs))
}

/// The name of an entry, for people: names are not read while all is well.
fn name_of(indexed: &Indexed, tree: TreeId, number: usize) -> String {
    let tree = read_tree(indexed, tree).unwrap_or_default();
    tree.nodes.get(number).map_or_else(|| format!("entry {number}"), |node| format!("{:?}", node.name()))
}

/// Looks whether a blob is in the index and its pack is long enough; answers its size before compression.
fn present(indexed: &Indexed, packs: &HashMap<Id, u64>, kind: BlobType, id: &Id) -> Result<u64, String> {
    let mut defect = None;
    for place in indexed.places(kind, id) {
        let pack = indexed.pack(&place);
        let found = match packs.get(&pack) {
            None => format!("pack {} is missing", hex(&pack)),
            Some(size) if *size < place.end() => format!("pack {} is cut off after {size} bytes", hex(&pack)),
            Some(_) => return Ok(place.data_length() as u64),
        };
        defect = defect.or(Some(found));
    }
    Err(defect.unwrap_or_else(|| format!("blob {} is in no index", hex(id))))
}

/// Reads parts of files, on all cores.
fn data(
    indexed: &Indexed,
    blobs: &[(DataId, u64)],
    defects: &mut Defects,
    progress: &dyn Progress,
) -> Result<(), Fault> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let next = AtomicUsize::new(0);
    let found = Mutex::new((defects, Ok(())));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((id, _)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if progress.should_stop() {
                        return;
                    }
                    match read_data(indexed, *id) {
                        Ok(content) => progress.bytes(content.len() as u64),
                        Err(fault) => {
                            let mut found = crate::backend::lock(&found);
                            let ended = defect_or_end(fault, found.0, "a part of a file");
                            if ended.is_err() {
                                found.1 = ended;
                                next.store(blobs.len(), Ordering::Relaxed);
                            }
                        }
                    }
                    progress.file_done();
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1
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
