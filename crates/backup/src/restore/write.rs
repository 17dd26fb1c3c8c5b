//! Writing a snapshot's tree: this thread makes every entry, a few others fill the files.
//!
//! Workers reach files by descriptor only, so that a folder can get its final mode and times as soon as its last entry
//! was made. Nothing existing is ever opened for writing or followed: every entry is made exclusively.

use super::content::{Segment, is_hole, segments, write_sparse};
use super::early::{BATCHES, Batches};
use super::{LOST_AND_FOUND, Part, Restore, crew, safe_name};
use crate::fault::Fault;
use crate::metadata::{At, Folder, apply};
use crate::runs::Reader;
use crate::tree::{Nodes, link_of, read_nodes};
use rustic_core::repofile::{BlobType, Node, NodeType};
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

/// A file that is being filled, by one thread or by several.
pub(super) struct Filling {
    pub(super) file: File,
    pub(super) node: Node,
    pub(super) path: PathBuf,
    /// Segments that are not written.
    left: AtomicUsize,
    /// Segments that were not read back and found equal.
    pub(super) unequal: AtomicUsize,
    /// Whether a part of it could not be written; it is named once.
    pub(super) has_failed: AtomicBool,
}

/// A part of a file to fill.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) filling: Arc<Filling>,
    pub(super) segment: Segment,
}

impl Part for Job {
    fn bytes(&self) -> u64 {
        self.segment.data
    }
}

/// A folder whose entries are being made.
struct Frame {
    folder: Arc<Folder>,
    /// Its node; none for the root, which is finished last of all.
    node: Option<Node>,
    nodes: Nodes,
    path: PathBuf,
}

impl Restore<'_> {
    /// Writes everything but the root's own metadata.
    pub(super) fn write(&self) {
        let (sender, receiver) = sync_channel(1);
        let receiver = Arc::new(Mutex::new(receiver));
        std::thread::scope(|scope| {
            for _ in 0..BATCHES {
                let receiver = Arc::clone(&receiver);
                scope.spawn(move || self.read_back_early(&receiver));
            }
            drop(receiver);
            let batches = Batches::new(sender);
            let work = |reader: &mut Reader<'_>, jobs: &[Job]| self.work(reader, jobs, &batches);
            crew(self.indexed.readers(), || Reader::new(&self.indexed), work, |send| self.make_all(send));
        });
    }

    fn work(&self, reader: &mut Reader<'_>, jobs: &[Job], batches: &Batches) {
        self.fill(reader, jobs);
        for Job { filling, segment: _ } in jobs {
            let Filling { file, node, path, left, .. } = filling.as_ref();
            // Writing would change the times again: whoever writes the last segment gives the metadata.
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.give_metadata(At::Open(file.as_fd()), node, path);
                self.progress.file_done();
            }
        }
        batches.add(jobs);
    }

    /// Writes parts of files that have their sizes already. Whatever fails is recorded.
    fn fill(&self, reader: &mut Reader<'_>, jobs: &[Job]) {
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        for Job { filling, segment } in jobs {
            let mut offset = segment.offset;
            for id in segment.ids(&filling.node) {
                let length = self.indexed.place(BlobType::Data, id).map_or(0, |place| place.data_length() as u64);
                if is_hole(id, length) {
                    // It is one already, as the file has its size.
                    self.progress.bytes(length);
                } else {
                    ids.push(*id);
                    places.push((filling.as_ref(), offset));
                }
                offset += length;
            }
        }
        reader.read(&ids, |number, content| {
            let (filling, offset) = places[number];
            self.fill_part(filling, offset, content);
            if self.must_end() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Writes one part; its hash is compared when it is read back.
    fn fill_part(&self, filling: &Filling, offset: u64, content: Result<&[u8], Fault>) {
        let Filling { file, path, has_failed, .. } = filling;
        let is_first = || !has_failed.swap(true, Ordering::AcqRel);
        match content.map(|content| (write_sparse(file, offset, content), content.len())) {
            Ok((Ok(()), length)) => self.progress.bytes(length as u64),
            Ok((Err(err), _)) if is_first() => self.failures.add_io(path, "writing", &err),
            Err(fault) if is_first() => self.failures.add_fault(path, fault),
            Ok(_) | Err(_) => {}
        }
    }

    fn give_metadata(&self, at: At<'_>, node: &Node, path: &Path) {
        for (what, err) in apply(at, node) {
            self.failures.add_io(path, what, &err);
        }
    }

    fn make_all(&self, send: &dyn Fn(Job)) {
        let mut links = HashMap::new();
        let mut frames = Vec::new();
        frames.extend(self.frame(Arc::clone(&self.folder), None, &self.root, PathBuf::new()));
        while let Some(frame) = frames.last_mut() {
            if self.must_end() {
                return;
            }
            let next = frame.nodes.next_node().unwrap_or_else(|fault| {
                self.failures.add_fault(&frame.path, fault);
                None
            });
            let Some(node) = next else {
                if let Some(node) = &frame.node {
                    self.give_metadata(At::Open(frame.folder.fd().as_fd()), node, &frame.path);
                }
                frames.pop();
                continue;
            };
            let folder = Arc::clone(&frame.folder);
            let path = match safe_name(&node) {
                Ok(name) => frame.path.join(name),
                Err(reason) => {
                    self.failures.add(&frame.path, reason);
                    continue;
                }
            };
            if node.is_dir() {
                match self.make_folder(&folder, &node, &path) {
                    Ok(made) => frames.extend(self.frame(Arc::new(made), Some(node.clone()), &node, path)),
                    Err(err) => self.failures.add_io(&path, "making the folder", &err),
                }
            } else if let Err(err) = self.make(&folder, node, &path, &mut links, send) {
                self.failures.add_io(&path, "making the file", &err);
            }
        }
    }

    fn frame(&self, folder: Arc<Folder>, own: Option<Node>, node: &Node, path: PathBuf) -> Option<Frame> {
        let Some(tree) = node.subtree else {
            self.failures.add(&path, "the repository holds no tree for this folder");
            return None;
        };
        match read_nodes(&self.indexed, &tree) {
            Ok(nodes) => Some(Frame { folder, node: own, nodes, path }),
            Err(fault) => {
                self.failures.add_fault(&path, fault);
                None
            }
        }
    }

    fn make_folder(&self, parent: &Folder, node: &Node, path: &Path) -> io::Result<Folder> {
        let name = node.name();
        match rustix::fs::mkdirat(parent.fd(), &*name, Mode::RWXU) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) if path == Path::new(LOST_AND_FOUND) => {}
            Err(err) => return Err(err.into()),
        }
        Folder::open(&parent.entry(&name))
    }

    fn make(
        &self,
        folder: &Folder,
        node: Node,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
        send: &dyn Fn(Job),
    ) -> io::Result<()> {
        let name = node.name().into_owned();
        match &node.node_type {
            NodeType::File => return self.make_file(folder, &name, node, path, links, send),
            NodeType::Dir => return Err(io::Error::other("a folder without a tree")),
            NodeType::Symlink { .. } => rustix::fs::symlinkat(node.node_type.to_link(), folder.fd(), &name)?,
            NodeType::Dev { device } => make_node(folder, &name, FileType::BlockDevice, *device)?,
            NodeType::Chardev { device } => make_node(folder, &name, FileType::CharacterDevice, *device)?,
            NodeType::Fifo => make_node(folder, &name, FileType::Fifo, 0)?,
            NodeType::Socket => make_node(folder, &name, FileType::Socket, 0)?,
        }
        self.give_metadata(At::Path(&folder.entry(&name)), &node, path);
        self.progress.file_done();
        Ok(())
    }

    fn make_file(
        &self,
        folder: &Folder,
        name: &OsStr,
        node: Node,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
        send: &dyn Fn(Job),
    ) -> io::Result<()> {
        let link = link_of(&node);
        if let Some(first) = link.and_then(|link| links.get(&link)) {
            std::fs::hard_link(self.folder.entry(first.as_os_str()), folder.entry(name))?;
            self.progress.file_done();
            return Ok(());
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder.fd(), name, flags, Mode::RUSR | Mode::WUSR)?;
        if let Some(link) = link {
            links.insert(link, path.to_owned());
        }
        let file = File::from(file);
        let segments = match segments(&self.indexed, &node) {
            Ok(segments) => segments,
            Err(fault) => {
                self.failures.add_fault(path, fault);
                return Ok(());
            }
        };
        file.set_len(node.meta.size)?;
        let (left, unequal) = (AtomicUsize::new(segments.len()), AtomicUsize::new(segments.len()));
        let has_failed = AtomicBool::new(false);
        let filling = Arc::new(Filling { file, node, path: path.to_owned(), left, unequal, has_failed });
        segments.into_iter().for_each(|segment| send(Job { filling: Arc::clone(&filling), segment }));
        Ok(())
    }
}

fn make_node(folder: &Folder, name: &OsStr, kind: FileType, device: u64) -> io::Result<()> {
    Ok(rustix::fs::mknodat(folder.fd(), name, kind, Mode::RUSR | Mode::WUSR, device)?)
}
