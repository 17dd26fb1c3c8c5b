//! The walk: depth first, names in byte order, as restic's trees want them. Unchanged files are taken from the parent
//! snapshot; files to read go to the workers; everything else is put into its folder's tree at once.
//!
//! What holds here: a walk hands folders over to workers that have nothing to do, and goes on with the others; so all
//! cores walk where there is little to read. Only the folders on the way down are open, in each walk.

use super::branch::Branch;
use super::read::{FileJob, read_file};
use super::{Moment, Run, Worker};
use crate::back_up::ChangeDetection;
use crate::metadata::{Folder, Stat, attributes_at, attributes_of, bare_node, give_attributes, go_mode, timestamp};
use crate::tree::{Nodes, read_nodes};
use jiff::Timestamp;
use rustic_core::repofile::{BlobType, Node, NodeType};
use rustic_core::{DataId, Id, TreeId};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A folder to walk, as it was seen in the one above.
pub(super) struct FolderJob {
    above: Arc<Folder>,
    name: OsString,
    path: PathBuf,
    stat: Stat,
    node: Node,
    branch: Arc<Branch>,
    slot: usize,
    /// Its tree in the parent snapshot.
    parent: Option<Id>,
}

/// A folder that is being walked.
struct Frame {
    folder: Arc<Folder>,
    names: std::iter::Enumerate<std::vec::IntoIter<OsString>>,
    path: PathBuf,
    branch: Arc<Branch>,
    parent: ParentFolder,
}

/// A folder of the parent snapshot, walked along with the volume's.
#[derive(Default)]
struct ParentFolder {
    nodes: Nodes,
    next: Option<Known>,
}

/// An entry of the parent snapshot.
struct Known {
    node: Node,
    /// The node as it stands in its tree.
    json: Box<[u8]>,
}

impl ParentFolder {
    /// A tree that is not there, or that cannot be read, is no parent: everything below is read.
    fn open(run: &Run, tree: Option<Id>) -> Self {
        let nodes = tree.map_or(Ok(Nodes::default()), |tree| read_nodes(&run.indexed, &tree));
        let nodes = nodes.unwrap_or_else(|fault| {
            tracing::warn!("a folder of the parent snapshot cannot be read, so its files are read anew: {fault}");
            Nodes::default()
        });
        let mut folder = Self { nodes, next: None };
        folder.next = folder.read();
        folder
    }

    fn read(&mut self) -> Option<Known> {
        match self.nodes.next() {
            Ok(next) => next.map(|(node, json)| Known { node, json: json.into() }),
            Err(err) => {
                tracing::warn!(
                    "a folder of the parent snapshot cannot be read further, so the rest is read anew: {err}"
                );
                self.nodes = Nodes::default();
                None
            }
        }
    }

    /// The entry of this name; names have to be asked for in order.
    fn find(&mut self, name: &OsStr) -> Option<Known> {
        while self.next.as_ref()?.node.name() < *name {
            self.next = self.read();
        }
        if self.next.as_ref()?.node.name() != *name {
            return None;
        }
        let next = self.read();
        std::mem::replace(&mut self.next, next)
    }
}

/// Counts a walk that is under way, also when it panics.
struct UnderWay<'a>(&'a Run);

impl<'a> UnderWay<'a> {
    fn begin(run: &'a Run) -> Self {
        run.walks.fetch_add(1, Ordering::AcqRel);
        Self(run)
    }
}

impl Drop for UnderWay<'_> {
    /// The last one has seen everything there is.
    fn drop(&mut self) {
        if self.0.walks.fetch_sub(1, Ordering::AcqRel) == 1 && !self.0.has_ended() {
            self.0.walked.store(true, Ordering::Release);
            self.0.progress.total(self.0.ledger.bytes(), self.0.ledger.files());
        }
    }
}

/// A walk over a volume, or over a part of it.
pub(super) struct Walk<'a> {
    run: &'a Run,
    worker: &'a mut Worker,
    device: u64,
    frames: Vec<Frame>,
    /// Whether to wait for somebody to read a file, or else read it here.
    waits: bool,
}

/// Walks everything below `root`, which stands at `as_path` in the snapshot and was `parent` in the one before.
pub(super) fn walk(run: &Run, worker: &mut Worker, root: Folder, as_path: &Path, parent: Option<&Node>) {
    let _under_way = UnderWay::begin(run);
    let mut walk = Walk { run, worker, device: 0, frames: Vec::new(), waits: true };
    match walk.begin(root, as_path, parent) {
        Ok(()) => walk.go_on(),
        Err(err) => run.record(Path::new("/"), &err),
    }
}

/// Walks a folder that another walk has handed over.
pub(super) fn walk_folder(run: &Run, worker: &mut Worker, job: FolderJob) {
    // The walk that handed it over has counted this one.
    let _under_way = UnderWay(run);
    let mut walk = Walk { run, worker, device: job.stat.device, frames: Vec::new(), waits: false };
    walk.enter(job);
    walk.go_on();
}

impl Walk<'_> {
    fn go_on(&mut self) {
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
            if let Err(err) = self.entry(&folder, &name, slot, &branch, known) {
                let path = self.path_of(&name);
                self.failed(&path, &err, branch, slot);
            }
        }
    }

    /// Notes that an entry cannot be backed up; its tree goes without it.
    fn failed(&mut self, path: &Path, err: &io::Error, branch: Arc<Branch>, slot: usize) {
        self.run.record(path, err);
        branch.set_json(self.run, slot, None);
        branch.close(self.run, self.worker);
    }

    /// The path of an entry of the folder that is being walked.
    fn path_of(&self, name: &OsStr) -> PathBuf {
        self.frames.last().map_or_else(|| PathBuf::from(name), |frame| frame.path.join(name))
    }

    /// Opens the root, and a branch for each folder above it, which have no metadata.
    fn begin(&mut self, root: Folder, as_path: &Path, parent: Option<&Node>) -> io::Result<()> {
        let stat = Stat::of(root.fd())?;
        self.device = stat.device;
        let name = as_path.file_name().unwrap_or(OsStr::new("/"));
        let mut node = bare_node(&root, name, &stat)?;
        give_attributes(&mut node, attributes_of(root.fd())?)?;
        let mut branch = Branch::new(self.run, None, None, 1, None);
        for above in as_path.parent().into_iter().flat_map(Path::components).skip(1) {
            let folder = Node::new_node(above.as_os_str(), NodeType::Dir, Default::default());
            let inner = Branch::new(self.run, Some((Arc::clone(&branch), 0)), Some(folder), 1, None);
            branch.close(self.run, self.worker);
            branch = inner;
        }
        let parent = parent.and_then(|parent| parent.subtree).map(TreeId::into_inner);
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
        parent: Option<Id>,
    ) -> io::Result<()> {
        let names = folder.names()?;
        self.run.at(Moment::Listed, &path);
        let branch = Branch::new(self.run, Some(up), Some(node), names.len(), parent);
        let (folder, names) = (Arc::new(folder), names.into_iter().enumerate());
        self.frames.push(Frame { folder, names, path, branch, parent: ParentFolder::open(self.run, parent) });
        self.run.ledger.count_folder();
        Ok(())
    }

    /// Begins to walk a folder.
    fn enter(&mut self, job: FolderJob) {
        let FolderJob { above, name, path, stat, mut node, branch, slot, parent } = job;
        let mut open = || {
            let folder = Folder::open_in(&above, &name)?;
            if !Stat::of(folder.fd())?.is_same(&stat) {
                return Err(io::Error::other("the folder was replaced while it was read"));
            }
            give_attributes(&mut node, attributes_of(folder.fd())?)?;
            Ok(folder)
        };
        let entered =
            open().and_then(|folder| self.push(folder, node, path.clone(), (Arc::clone(&branch), slot), parent));
        if let Err(err) = entered {
            self.failed(&path, &err, branch, slot);
        }
    }

    fn entry(
        &mut self,
        folder: &Arc<Folder>,
        name: &OsStr,
        slot: usize,
        branch: &Arc<Branch>,
        known: Option<Known>,
    ) -> io::Result<()> {
        let stat = Stat::at(folder, name)?;
        if stat.device != self.device {
            return Err(io::Error::other("another file system is mounted here; unmount it, or back it up by itself"));
        }
        let known = match known {
            Some(known) if self.is_untouched(&known.node, &stat) => {
                self.run.ledger.count_file(stat.node_size());
                self.run.counts.compare_file(true, true);
                branch.set_json(self.run, slot, Some(known.json));
                self.taken(stat.node_size(), branch);
                return Ok(());
            }
            known => known,
        };
        let mut node = bare_node(folder, name, &stat)?;
        let (name, path) = (name.to_owned(), || self.path_of(name));
        if stat.is_folder() {
            let parent = known.and_then(|known| known.node.subtree).map(TreeId::into_inner);
            let (above, branch, path) = (Arc::clone(folder), Arc::clone(branch), path());
            self.folder(FolderJob { above, name, path, stat, node, branch, slot, parent });
            return Ok(());
        }
        let content = known.as_ref().and_then(|known| self.unchanged(&known.node, &node));
        if stat.is_file() && content.is_none() {
            self.run.ledger.count_file(stat.size);
            self.run.counts.compare_file(known.is_some(), false);
            let (folder, path, branch) = (Arc::clone(folder), path(), Arc::clone(branch));
            self.run.at(Moment::Seen, &path);
            self.file(FileJob { folder, name, path, stat, node, branch, slot });
            return Ok(());
        }
        give_attributes(&mut node, attributes_at(folder, &name)?)?;
        self.run.ledger.count_file(stat.node_size());
        self.run.counts.compare_file(known.is_some(), content.is_some());
        node.content = content.flatten();
        branch.set(self.run, slot, &node);
        self.taken(stat.node_size(), branch);
        Ok(())
    }

    /// Walks a folder after this one's entry, unless somebody has nothing to do.
    fn folder(&mut self, job: FolderJob) {
        // Counted before it is handed over, so that never none is under way.
        self.run.walks.fetch_add(1, Ordering::AcqRel);
        if let Err(job) = self.run.queue.offer_folder(job) {
            self.run.walks.fetch_sub(1, Ordering::AcqRel);
            self.enter(job);
        }
    }

    fn file(&mut self, job: FileJob) {
        if self.waits {
            if let Err(job) = self.run.queue.add_file(job) {
                // Only a run that has ended closes the queue before the walk is over.
                job.branch.close(self.run, self.worker);
            }
        } else if let Err(job) = self.run.queue.offer_file(job) {
            read_file(self.run, self.worker, job);
        }
    }

    /// An entry that needs no reading is in its tree.
    fn taken(&mut self, bytes: u64, branch: &Arc<Branch>) {
        self.run.progress.bytes(bytes);
        self.run.progress.file_done();
        Arc::clone(branch).close(self.run, self.worker);
    }

    /// Whether an entry that is no folder is the very same as in the parent snapshot, which lvault wrote, so that its node can be
    /// taken as it stands. Whatever changes an entry, its extended attributes too, changes its change time.
    fn is_untouched(&self, known: &Node, stat: &Stat) -> bool {
        let trust = &self.run.trust;
        let (then, time) = (&known.meta, |time| timestamp(time).ok());
        if !trust.takes_nodes || trust.change_detection != ChangeDetection::ChangeTime || stat.is_folder() {
            return false;
        }
        then.ctime == time(stat.ctime)
            && then.mtime == time(stat.mtime)
            && then.inode == stat.inode
            && then.mode == Some(go_mode(stat.mode))
            && (then.uid, then.gid) == (Some(stat.uid), Some(stat.gid))
            && (then.size, then.links) == (stat.node_size(), stat.node_links())
            && known.is_file() == known.content.is_some()
            && self.is_settled(then.ctime)
            && self.is_there(known)
    }

    /// The content of a file that is the same as in the parent snapshot, and all of whose parts are still there.
    fn unchanged(&self, known: &Node, node: &Node) -> Option<Option<Vec<DataId>>> {
        let (then, now) = (&known.meta, &node.meta);
        let same = known.node_type == node.node_type && then.size == now.size && then.mtime == now.mtime;
        let trusted = match self.run.trust.change_detection {
            ChangeDetection::ChangeTime => {
                then.ctime == now.ctime && then.inode == now.inode && self.is_settled(then.ctime)
            }
            ChangeDetection::ModificationTime => self.is_settled(then.mtime),
            ChangeDetection::ReadEverything => false,
        };
        (same && trusted && self.is_there(known)).then(|| known.content.clone())
    }

    /// Whether a change after the parent snapshot would have made another time of this.
    fn is_settled(&self, time: Option<Timestamp>) -> bool {
        time.is_some_and(|time| self.run.trust.settled_before.is_some_and(|before| time < before))
    }

    /// Whether all parts of a file are stored.
    fn is_there(&self, known: &Node) -> bool {
        let is_there = |id: &DataId| self.run.indexed.place(BlobType::Data, id).is_some();
        known.content.iter().flatten().all(is_there)
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
        match Stat::at(folder, &name) {
            Ok(stat) if stat.is_folder() => {
                let inner = Folder::open_in(folder, &name).ok().map(listed);
                pending.extend(inner);
            }
            Ok(stat) => {
                files += 1;
                bytes += stat.node_size();
            }
            Err(_) => {}
        }
    }
    (bytes, files)
}
