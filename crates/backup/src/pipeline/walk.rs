//! The walk: depth first, names in byte order, as restic's trees want them. Unchanged files are taken from the parent
//! snapshot; files to read go to the workers; everything else is put into its folder's tree at once.

use super::branch::Branch;
use super::read::FileJob;
use super::{Moment, Run, Worker};
use crate::back_up::ChangeDetection;
use crate::metadata::{Folder, node};
use crate::tree::read_tree;
use rustic_core::repofile::{BlobType, Node, NodeType, Tree};
use rustic_core::{Id, TreeId};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder that is being walked.
struct Frame {
    folder: Arc<Folder>,
    names: std::iter::Enumerate<std::vec::IntoIter<OsString>>,
    path: PathBuf,
    branch: Arc<Branch>,
    parent: ParentFolder,
}

/// A folder of the parent snapshot, walked along with the volume's.
struct ParentFolder {
    nodes: std::iter::Peekable<std::vec::IntoIter<Node>>,
}

impl ParentFolder {
    /// A tree that is not there, or that cannot be read, is no parent: everything below is read.
    fn open(run: &Run, tree: Option<Id>) -> Self {
        let tree = tree.map_or(Ok(Tree::default()), |tree| read_tree(&run.indexed, TreeId::from(tree)));
        let tree = tree.unwrap_or_else(|fault| {
            tracing::warn!("a folder of the parent snapshot cannot be read, so its files are read anew: {fault}");
            Tree::default()
        });
        Self { nodes: tree.nodes.into_iter().peekable() }
    }

    /// The node of this name; names have to be asked for in order.
    fn find(&mut self, name: &OsStr) -> Option<Node> {
        while self.nodes.next_if(|node| *node.name() < *name).is_some() {}
        self.nodes.next_if(|node| *node.name() == *name)
    }
}

/// Walks a volume.
pub(super) struct Walk<'a> {
    run: &'a Run,
    worker: &'a mut Worker,
    device: u64,
    frames: Vec<Frame>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(run: &'a Run, worker: &'a mut Worker) -> Self {
        Self { run, worker, device: 0, frames: Vec::new() }
    }

    /// Walks everything below `root`, which stands at `as_path` in the snapshot and was `parent` in the one before.
    pub(super) fn walk(mut self, root: Folder, as_path: &Path, parent: Option<&Node>) {
        if let Err(err) = self.begin(root, as_path, parent) {
            self.run.record(Path::new("/"), &err);
        }
        while let Some(frame) = self.frames.last_mut() {
            if self.run.must_end() {
                return;
            }
            let Some((slot, name)) = frame.names.next() else {
                let done = self.frames.pop();
                done.into_iter().for_each(|frame| frame.branch.close(self.run, self.worker));
                continue;
            };
            let (folder, branch) = (Arc::clone(&frame.folder), Arc::clone(&frame.branch));
            let known = frame.parent.find(&name);
            let path = frame.path.join(&name);
            if let Err(err) = self.entry(&folder, name, slot, &path, &branch, known) {
                self.run.record(&path, &err);
                branch.close(self.run, self.worker);
            }
        }
    }

    /// Opens the root, and a branch for each folder above it, which have no metadata.
    fn begin(&mut self, root: Folder, as_path: &Path, parent: Option<&Node>) -> io::Result<()> {
        let stat = std::fs::metadata(root.followed())?;
        self.device = stat.dev();
        let name = as_path.file_name().unwrap_or(OsStr::new("/"));
        let node = node(&root.followed(), name, &stat)?;
        let mut branch = Branch::new(None, None, 1, None);
        for above in as_path.parent().into_iter().flat_map(Path::components).skip(1) {
            let folder = Node::new_node(above.as_os_str(), NodeType::Dir, Default::default());
            let inner = Branch::new(Some((Arc::clone(&branch), 0)), Some(folder), 1, None);
            branch.close(self.run, self.worker);
            branch = inner;
        }
        self.push(root, node, PathBuf::new(), (Arc::clone(&branch), 0), parent)?;
        branch.close(self.run, self.worker);
        Ok(())
    }

    fn push(
        &mut self,
        folder: Folder,
        node: Node,
        path: PathBuf,
        up: (Arc<Branch>, usize),
        parent: Option<&Node>,
    ) -> io::Result<()> {
        let names = folder.names()?;
        self.run.at(Moment::Listed, &path);
        let tree = parent.and_then(|parent| parent.subtree).map(TreeId::into_inner);
        let branch = Branch::new(Some(up), Some(node), names.len(), tree);
        let (folder, names) = (Arc::new(folder), names.into_iter().enumerate());
        self.frames.push(Frame { folder, names, path, branch, parent: ParentFolder::open(self.run, tree) });
        self.run.ledger.count_folder();
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &Arc<Folder>,
        name: OsString,
        slot: usize,
        path: &Path,
        branch: &Arc<Branch>,
        known: Option<Node>,
    ) -> io::Result<()> {
        let at = folder.entry(&name);
        let stat = std::fs::symlink_metadata(&at)?;
        if stat.dev() != self.device {
            return Err(io::Error::other("another file system is mounted here; unmount it, or back it up by itself"));
        }
        let node = node(&at, &name, &stat)?;
        if stat.is_dir() {
            let inner = Folder::open(&at)?;
            let now = std::fs::metadata(inner.followed())?;
            if (now.dev(), now.ino()) != (stat.dev(), stat.ino()) {
                return Err(io::Error::other("the folder was replaced while it was read"));
            }
            return self.push(inner, node, path.to_owned(), (Arc::clone(branch), slot), known.as_ref());
        }
        self.run.ledger.count_file(if stat.is_file() { stat.len() } else { 0 });
        let content = known.as_ref().and_then(|known| self.unchanged(known, &node));
        self.run.counts.compare_file(known.is_some(), content.is_some());
        if !stat.is_file() || content.is_some() {
            self.take(Node { content: content.flatten(), ..node }, slot, branch);
            return Ok(());
        }
        let (folder, path, branch) = (Arc::clone(folder), path.to_owned(), Arc::clone(branch));
        self.run.at(Moment::Seen, &path);
        let job = FileJob { folder, name, path, stat, node, branch, slot };
        if let Err(job) = self.run.queue.add_file(job) {
            // Only a run that has ended closes the queue before the walk is over.
            job.branch.close(self.run, self.worker);
        }
        Ok(())
    }

    /// Puts an entry that needs no reading into its tree.
    fn take(&mut self, node: Node, slot: usize, branch: &Arc<Branch>) {
        if let Err(fault) = branch.set(slot, &node) {
            self.run.fail(fault);
        }
        self.run.progress.bytes(node.meta.size);
        self.run.progress.file_done();
        Arc::clone(branch).close(self.run, self.worker);
    }

    /// The content of a file that is the same as in the parent snapshot, and all of whose parts are still there.
    fn unchanged(&self, known: &Node, node: &Node) -> Option<Option<Vec<rustic_core::DataId>>> {
        let (then, now) = (&known.meta, &node.meta);
        let same = known.node_type == node.node_type && then.size == now.size && then.mtime == now.mtime;
        let trusted = match self.run.change_detection {
            ChangeDetection::ChangeTime => then.ctime == now.ctime && then.inode == now.inode,
            ChangeDetection::ModificationTime => true,
            ChangeDetection::ReadEverything => false,
        };
        let is_there = |id: &rustic_core::DataId| self.run.indexed.place(BlobType::Data, id).is_some();
        let whole = || known.content.iter().flatten().all(is_there);
        (same && trusted && whole()).then(|| known.content.clone())
    }
}

/// Bytes and files below a folder, as far as they can be seen.
pub(super) fn count(root: &Folder, run: &Run) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let listed = |folder: Folder| {
        let names = folder.names().unwrap_or_default().into_iter();
        (folder, names)
    };
    let mut pending: Vec<_> = Folder::open(&root.followed()).ok().map(listed).into_iter().collect();
    while let Some((folder, names)) = pending.last_mut() {
        let Some(name) = names.next() else {
            pending.pop();
            continue;
        };
        if run.has_ended() {
            break;
        }
        let at = folder.entry(&name);
        match std::fs::symlink_metadata(&at) {
            Ok(stat) if stat.is_dir() => pending.extend(Folder::open(&at).ok().map(listed)),
            Ok(stat) => {
                files += 1;
                bytes += if stat.is_file() { stat.len() } else { 0 };
            }
            Err(_) => {}
        }
    }
    (bytes, files)
}
