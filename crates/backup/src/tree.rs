//! Reading trees of snapshots: every tree is checked against its id before it is used.

mod node;

use crate::fault::Fault;
use crate::follow::follow;
use crate::index::Indexed;
use crate::labels::{Snapshot, SnapshotId};
use crate::repository::{Repository, RepositoryError};
use crate::seal::hash;
use rustic_core::repofile::{BlobType, Node, SnapshotFile, Tree};
use rustic_core::{DataId, FileType, Id, TreeId};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;

use node::PORTION;
pub(crate) use node::{Nodes, node_json, parse_tree};

/// What a snapshot holds, before compression and with everything that is stored once counted where it appears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotSize {
    /// Bytes in files; files that are hard links of one another count once, holes count in full.
    pub bytes: u64,
    /// Everything that is not a folder.
    pub files: u64,
    /// Folders, without the root.
    pub folders: u64,
}

impl Repository {
    /// How much a restore of this snapshot writes at most, so that a volume that is too small is refused beforehand.
    ///
    /// # Errors
    /// [`RepositoryError::Size`] when a tree of the snapshot cannot be read, or what [`Repository::snapshot`] reports.
    pub fn size_of(&self, id: &SnapshotId) -> Result<SnapshotSize, RepositoryError> {
        let snapshot = self.snapshot(id.as_str())?;
        let size = self.indexed().and_then(|indexed| size_below(&indexed, &snapshot_root(&indexed, &snapshot)?));
        size.map_err(|fault| RepositoryError::Size { repository: self.shown().to_owned(), id: id.clone(), fault })
    }
}

/// What lies below a folder. A tree that stands for several folders, as that of all empty ones does, is read once.
pub(crate) fn size_below(indexed: &Indexed, root: &Node) -> Result<SnapshotSize, Fault> {
    let mut size = SnapshotSize::default();
    let mut links = HashSet::new();
    let roots: Vec<Id> = root.subtree.into_iter().map(TreeId::into_inner).collect();
    let mut times: HashMap<Id, u64> = roots.iter().map(|id| (*id, 1)).collect();
    let read = |id: &Id| {
        let (mut nodes, mut measures) = (read_nodes(indexed, id)?, Vec::new());
        while let Some(node) = nodes.next_node()? {
            measures.push(Measure::of(&node));
        }
        Ok(measures)
    };
    let flow = follow(indexed, roots, read, |id, tree, below| {
        let measures = match tree {
            Ok(measures) => measures,
            Err(fault) => return ControlFlow::Break(fault),
        };
        let count = times.remove(&id).unwrap_or(1);
        for measure in measures {
            size.add(&measure, count, &mut links);
            if let Some(subtree) = measure.subtree {
                let times = times.entry(subtree).or_insert_with(|| {
                    below.push(subtree);
                    0
                });
                *times = times.saturating_add(count);
            }
        }
        ControlFlow::Continue(())
    });
    flow.break_value().map_or(Ok(size), Err)
}

/// Fetches trees of a snapshot that is about to be walked, several at once, and as many as are kept. Best effort: whoever walks finds
/// what is wrong.
pub(crate) fn fetch_ahead(indexed: &Indexed, root: TreeId, must_end: impl Fn() -> bool) {
    if !indexed.may_fetch_ahead() {
        return;
    }
    let mut seen = HashSet::from([*root]);
    let flow = follow(
        indexed,
        vec![*root],
        |id| read_outline(indexed, id),
        |_, tree, below| {
            if must_end() || !indexed.may_fetch_ahead() {
                return ControlFlow::Break(());
            }
            let subtrees = tree.into_iter().flat_map(|tree| tree.nodes).filter_map(|node| node.subtree);
            below.extend(subtrees.filter(|id| seen.insert(*id)));
            ControlFlow::Continue(())
        },
    );
    tracing::debug!(is_all = flow.is_continue(), "fetched trees ahead");
}

impl SnapshotSize {
    /// Counts an entry of a tree that stands for so many folders. Sizes are what a tree claims: together they may be more than a number
    /// holds.
    pub(crate) fn add(&mut self, measure: &Measure, times: u64, links: &mut HashSet<(u64, u64)>) {
        if measure.subtree.is_some() {
            self.folders = self.folders.saturating_add(times);
            return;
        }
        self.files = self.files.saturating_add(times);
        let counted = match measure.link {
            Some(link) => u64::from(links.insert(link)),
            None => times,
        };
        self.bytes = self.bytes.saturating_add(measure.bytes.saturating_mul(counted));
    }
}

/// What of an entry counts for the size of a snapshot.
pub(crate) struct Measure {
    subtree: Option<Id>,
    link: Option<(u64, u64)>,
    bytes: u64,
}

impl Measure {
    pub(crate) fn of(node: &Node) -> Self {
        Self { subtree: node.subtree.map(TreeId::into_inner), link: link_of(node), bytes: node.meta.size }
    }
}

/// The key under which hard links of one file find each other.
pub(crate) fn link_of(node: &Node) -> Option<(u64, u64)> {
    (node.is_file() && node.meta.links > 1).then_some((node.meta.device_id, node.meta.inode))
}

/// Reads a snapshot's own file.
pub(crate) fn snapshot_file(indexed: &Indexed, id: &SnapshotId) -> Result<SnapshotFile, Fault> {
    let id: Id = id.as_str().parse().map_err(|_| Fault::damaged(format!("{id} is no id")))?;
    indexed.read_file(FileType::Snapshot, &id)
}

/// The node of the folder that was backed up, with its own metadata and its tree.
///
/// Snapshots of lvault have one path, and the folder lies there. For any other snapshot it is the whole tree, with no
/// metadata of its own.
pub(crate) fn snapshot_root(indexed: &Indexed, snapshot: &Snapshot) -> Result<Node, Fault> {
    let file = snapshot_file(indexed, &snapshot.id)?;
    let mut whole = Node::new_node(OsStr::new(""), rustic_core::repofile::NodeType::Dir, Default::default());
    whole.subtree = Some(file.tree);
    let [path] = snapshot.paths.as_slice() else { return Ok(whole) };
    let mut node = whole.clone();
    for part in Path::new(path).components().skip(1) {
        let Some(tree) = node.subtree else { return Ok(whole) };
        let found = read_tree(indexed, tree)?.nodes.into_iter().find(|node| *node.name() == *part.as_os_str());
        match found {
            Some(found) => node = found,
            None => return Ok(whole),
        }
    }
    Ok(if node.is_dir() { node } else { whole })
}

/// Reads a tree, and checks that it hashes to its id.
pub(crate) fn read_tree(indexed: &Indexed, id: TreeId) -> Result<Tree, Fault> {
    let blob = indexed.read(BlobType::Tree, &id)?;
    parse_tree(&blob).map_err(|err| no_tree(&id, err))
}

/// A tree that is longer is decompressed while its nodes are asked for. In bytes before compression.
const LONG_TREE: usize = 8 << 20;

/// Reads a tree whose nodes are asked for one by one, and checks that it hashes to its id.
pub(crate) fn read_nodes(indexed: &Indexed, id: &Id) -> Result<Nodes, Fault> {
    let nodes = if is_long(indexed, id) {
        indexed.read_long(BlobType::Tree, id)?.into_reader().and_then(Nodes::stream)
    } else {
        Nodes::open(indexed.read(BlobType::Tree, id)?)
    };
    nodes.map_err(|err| no_tree(id, err))
}

fn is_long(indexed: &Indexed, id: &Id) -> bool {
    indexed.place(BlobType::Tree, id).is_some_and(|place| place.data_length() > LONG_TREE)
}

fn no_tree(id: &Id, err: impl std::fmt::Display) -> Fault {
    Fault::damaged(format!("tree {} is no tree: {err}", hex(id)))
}

/// What of a tree says which blobs it needs: far quicker to read than the whole of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Outline {
    pub(crate) nodes: Vec<OutlineNode>,
}

/// The same of one entry.
#[derive(Debug, Deserialize)]
pub(crate) struct OutlineNode {
    #[serde(rename = "type")]
    pub(crate) kind: OutlineKind,
    #[serde(default)]
    pub(crate) content: Option<Vec<Id>>,
    #[serde(default)]
    pub(crate) subtree: Option<Id>,
}

/// Whether an entry is a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OutlineKind {
    /// A folder.
    Dir,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// Reads which blobs a tree needs, and checks that it hashes to its id.
pub(crate) fn read_outline(indexed: &Indexed, id: &Id) -> Result<Outline, Fault> {
    let outline = if is_long(indexed, id) {
        let content = indexed.read_long(BlobType::Tree, id)?.into_reader().map_err(|err| no_tree(id, err))?;
        serde_json::from_reader(BufReader::with_capacity(PORTION, content))
    } else {
        serde_json::from_slice(&indexed.read(BlobType::Tree, id)?)
    };
    outline.map_err(|err| no_tree(id, err))
}

/// Reads the content of a file's part, and checks that it hashes to its id.
pub(crate) fn read_data(indexed: &Indexed, id: DataId) -> Result<Vec<u8>, Fault> {
    indexed.read(BlobType::Data, &id)
}

/// Whether these bytes are the blob's content.
pub(crate) fn matches(id: &Id, content: &[u8]) -> bool {
    Id::new(hash(content)) == *id
}

/// A whole id.
pub(crate) fn hex(id: &Id) -> String {
    id.to_hex().as_str().to_owned()
}

#[cfg(test)]
mod tests;
