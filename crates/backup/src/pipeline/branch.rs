//! Trees of folders, finished from the leaves up by whoever finishes the last entry.

use super::entries::{Entries, TreeContent};
use super::{Run, Worker};
use crate::backend::lock;
use crate::fault::Fault;
use crate::tree::node_json;
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
    /// The entries; none once the tree is finished.
    entries: Mutex<Option<Entries>>,
    /// Entries that are not done, and one for the walk that is still in this folder.
    open: AtomicUsize,
    /// The folder's tree in the parent snapshot.
    parent: Option<Id>,
}

impl Branch {
    /// A folder with so many entries, each of which has to be [`Self::close`]d, and the folder once.
    pub(super) fn new(
        run: &Run,
        up: Option<(Arc<Branch>, usize)>,
        node: Option<Node>,
        count: usize,
        parent: Option<Id>,
    ) -> Arc<Self> {
        let entries = Entries::new(count, run.seal.compresses()).map_err(|fault| run.fail(fault));
        let (node, entries) = (Mutex::new(node), Mutex::new(entries.ok()));
        Arc::new(Self { up, node, entries, open: AtomicUsize::new(count + 1), parent })
    }

    /// Sets an entry, which does not close it.
    pub(super) fn set(&self, run: &Run, slot: usize, node: &Node) {
        match node_json(node) {
            Ok(json) => self.set_json(run, slot, Some(json.into())),
            Err(err) => run.fail(cannot_write(&err)),
        }
    }

    /// Sets an entry as it stood in another tree; `None` leaves it out.
    pub(super) fn set_json(&self, run: &Run, slot: usize, json: Option<Box<[u8]>>) {
        if let Some(Err(fault)) = lock(&self.entries).as_mut().map(|entries| entries.set(slot, json)) {
            run.fail(fault);
        }
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
        let Some(entries) = lock(&self.entries).take() else { return Ok(None) };
        let (tree, count, length) = entries.finish(&run.seal)?;
        run.counts.count_tree(count, length);
        let id = match tree {
            TreeContent::Short(json) => run.store(BlobType::Tree, &json, worker)?,
            TreeContent::Long(tree) => run.store_long_tree(tree, worker)?,
        };
        run.counts.compare_tree(self.parent, id);
        let Some((up, slot)) = &self.up else {
            *lock(&run.tree) = Some(id);
            return Ok(None);
        };
        if let Some(mut node) = lock(&self.node).take() {
            node.subtree = Some(TreeId::from(id));
            up.set(run, *slot, &node);
        }
        Ok(Some(Arc::clone(up)))
    }
}

fn cannot_write(err: &serde_json::Error) -> Fault {
    Fault::system(format!("it cannot write a tree: {err}"))
}
