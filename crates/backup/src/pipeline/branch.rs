//! Trees of folders, finished from the leaves up by whoever finishes the last entry.

use super::{Run, Worker};
use crate::backend::lock;
use crate::fault::Fault;
use rustic_core::repofile::{BlobType, Node};
use rustic_core::{Id, TreeId};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A folder whose tree is not complete yet.
pub(super) struct Branch {
    /// The folder it lies in and its place there; none for the outermost tree.
    up: Option<(Arc<Branch>, usize)>,
    /// The folder's own node.
    node: Mutex<Option<Node>>,
    /// Each entry as it stands in the tree; what could not be read stays empty.
    entries: Mutex<Vec<Option<Box<[u8]>>>>,
    /// Entries that are not done, and one for the walk that is still in this folder.
    open: AtomicUsize,
    /// The folder's tree in the parent snapshot.
    parent: Option<Id>,
}

impl Branch {
    /// A folder with so many entries, each of which has to be [`Self::close`]d, and the folder once.
    pub(super) fn new(
        up: Option<(Arc<Branch>, usize)>,
        node: Option<Node>,
        entries: usize,
        parent: Option<Id>,
    ) -> Arc<Self> {
        let node = Mutex::new(node);
        Arc::new(Self {
            up,
            node,
            entries: Mutex::new(vec![None; entries]),
            open: AtomicUsize::new(entries + 1),
            parent,
        })
    }

    /// Sets an entry, which does not close it.
    pub(super) fn set(&self, slot: usize, node: &Node) -> Result<(), Fault> {
        let json = serde_json::to_vec(node).map_err(|err| cannot_write(&err))?;
        if let Some(entry) = lock(&self.entries).get_mut(slot) {
            *entry = Some(json.into());
        }
        Ok(())
    }

    /// Closes one entry, or the walk. Whoever closes the last stores the tree, and goes on with the folder above.
    pub(super) fn close(self: Arc<Self>, run: &Run, worker: &mut Worker) {
        let mut branch = self;
        while branch.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            match branch.finish(run, worker) {
                Ok(Some(up)) => branch = up,
                Ok(None) => return,
                Err(fault) => return run.fail(fault),
            }
        }
    }

    fn finish(&self, run: &Run, worker: &mut Worker) -> Result<Option<Arc<Branch>>, Fault> {
        if run.has_ended() {
            return Ok(self.up.as_ref().map(|(up, _)| Arc::clone(up)));
        }
        let entries = std::mem::take(&mut *lock(&self.entries));
        let json = tree_json(&entries);
        run.counts.count_tree(entries.iter().flatten().count() as u64, json.len() as u64);
        drop(entries);
        let id = run.store(BlobType::Tree, &json, worker)?;
        run.counts.compare_tree(self.parent, id);
        let Some((up, slot)) = &self.up else {
            *lock(&run.tree) = Some(id);
            return Ok(None);
        };
        if let Some(mut node) = lock(&self.node).take() {
            node.subtree = Some(TreeId::from(id));
            up.set(*slot, &node)?;
        }
        Ok(Some(Arc::clone(up)))
    }
}

/// A tree as restic writes it, with a line feed at its end.
fn tree_json(entries: &[Option<Box<[u8]>>]) -> Vec<u8> {
    let length: usize = entries.iter().flatten().map(|entry| entry.len() + 1).sum();
    let mut json = Vec::with_capacity(length + 16);
    json.extend_from_slice(b"{\"nodes\":[");
    for (number, entry) in entries.iter().flatten().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        json.extend_from_slice(entry);
    }
    json.extend_from_slice(b"]}\n");
    json
}

fn cannot_write(err: &serde_json::Error) -> Fault {
    Fault::system(format!("it cannot write a tree: {err}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustic_core::repofile::{NodeType, Tree};
    use std::ffi::OsStr;

    /// The same bytes, so that trees that rustic wrote are found again.
    #[test]
    fn trees_are_written_as_rustic_writes_them() {
        for names in [vec![], vec!["a"], vec!["a", "b\n", "ü"]] {
            let node = |name: &&str| Node::new_node(OsStr::new(name), NodeType::File, Default::default());
            let nodes: Vec<Node> = names.iter().map(node).collect();
            let entries: Vec<_> =
                nodes.iter().map(|node| Some(serde_json::to_vec(node).unwrap().into_boxed_slice())).collect();
            assert_eq!(tree_json(&entries), Tree { nodes }.serialize().unwrap().0);
        }
    }
}
