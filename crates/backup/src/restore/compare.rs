//! Reading a restored folder back: every entry is there, nothing else is, and all of it equals the snapshot.

use super::content::{Segment, segments};
use super::{LOST_AND_FOUND, Part, Restore, crew, safe_name};
use crate::metadata::{Folder, differences};
use crate::tree::{Nodes, link_of, read_nodes};
use rustic_core::repofile::Node;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An entry to compare.
#[derive(Clone)]
struct Job {
    folder: Arc<Folder>,
    name: OsString,
    node: Arc<Node>,
    path: PathBuf,
    segment: Segment,
}

impl Part for Job {
    fn bytes(&self) -> u64 {
        self.segment.data
    }
}

/// The names in a folder, in order, and which of them belong there.
struct Names {
    names: Vec<OsString>,
    is_expected: Vec<bool>,
}

impl Names {
    fn expect(&mut self, name: &OsStr) {
        if let Ok(at) = self.names.binary_search_by(|other| other.as_os_str().cmp(name)) {
            self.is_expected[at] = true;
        }
    }

    fn unexpected(&self) -> impl Iterator<Item = &OsString> {
        self.names.iter().zip(&self.is_expected).filter(|(_, is_expected)| !**is_expected).map(|(name, _)| name)
    }
}

impl Restore<'_> {
    /// Compares everything below the root.
    pub(super) fn compare(&self) {
        let work = |buffer: &mut Vec<u8>, jobs: &[Job]| jobs.iter().for_each(|job| self.compare_entry(job, buffer));
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        crew(cores, Vec::new, work, |send| self.compare_all(send));
    }

    /// Compares the root's own metadata.
    pub(super) fn compare_root(&self) {
        if self.has_root_metadata() {
            self.note_differences(&self.folder.followed(), None, &self.root, Path::new("/"));
        }
    }

    fn compare_all(&self, send: &dyn Fn(Job)) {
        let mut links = HashMap::new();
        // Folders are opened when their turn comes, so that only those on the way down are open.
        let mut pending = Vec::new();
        self.compare_folder(&self.folder, &self.root, Path::new(""), &mut links, &mut pending, send);
        while let Some(Job { folder, name, node, path, segment: _ }) = pending.pop() {
            if self.must_end() {
                return;
            }
            match Folder::open(&folder.entry(&name)) {
                Ok(inner) => self.compare_folder(&Arc::new(inner), &node, &path, &mut links, &mut pending, send),
                Err(err) => self.failures.add_io(&path, "reading back", &err),
            }
        }
    }

    fn compare_folder(
        &self,
        folder: &Arc<Folder>,
        node: &Node,
        path: &Path,
        links: &mut HashMap<(u64, u64), (u64, u64)>,
        pending: &mut Vec<Job>,
        send: &dyn Fn(Job),
    ) {
        let Some(mut nodes) = self.entries(node, path) else { return };
        let mut names = self.names(folder, path);
        loop {
            let node = match nodes.next_node() {
                Ok(Some(node)) => node,
                Ok(None) => break,
                Err(fault) => return self.failures.add_fault(path, fault),
            };
            let Ok(name) = safe_name(&node) else { continue };
            names.expect(&name);
            let path = path.join(&name);
            let Some((segment, others)) = self.parts(&node, &path) else { continue };
            let job = Job { folder: Arc::clone(folder), name, node: Arc::new(node), path, segment };
            if job.node.is_dir() {
                pending.push(job.clone());
            } else if let Err(err) = self.compare_links(&job, links) {
                self.failures.add_io(&job.path, "reading back", &err);
            }
            others.into_iter().for_each(|segment| send(Job { segment, ..job.clone() }));
            send(job);
        }
        for name in names.unexpected() {
            self.failures.add(&path.join(name), "is there, but not in the snapshot");
        }
    }

    /// The first segment of an entry, which comes with its metadata, and the others.
    fn parts(&self, node: &Node, path: &Path) -> Option<(Segment, Vec<Segment>)> {
        let segments = if node.is_file() { segments(&self.indexed, node) } else { Ok(Vec::new()) };
        match segments {
            Ok(mut segments) => {
                let others = segments.split_off(segments.len().min(1));
                Some((segments.pop().unwrap_or_default(), others))
            }
            Err(fault) => {
                self.failures.add_fault(path, fault);
                None
            }
        }
    }

    fn entries(&self, node: &Node, path: &Path) -> Option<Nodes> {
        let Some(tree) = node.subtree else {
            self.failures.add(path, "the repository holds no tree for this folder");
            return None;
        };
        match read_nodes(&self.indexed, &tree) {
            Ok(nodes) => Some(nodes),
            Err(fault) => {
                self.failures.add_fault(path, fault);
                None
            }
        }
    }

    /// What is there.
    fn names(&self, folder: &Folder, path: &Path) -> Names {
        let mut names = folder.names().unwrap_or_else(|err| {
            self.failures.add_io(path, "reading back", &err);
            Vec::new()
        });
        if path.as_os_str().is_empty() {
            names.retain(|name| *name != self.marker && name != LOST_AND_FOUND);
        }
        Names { is_expected: vec![false; names.len()], names }
    }

    /// Names that were one file have to be one file again.
    fn compare_links(&self, job: &Job, links: &mut HashMap<(u64, u64), (u64, u64)>) -> io::Result<()> {
        let Some(link) = link_of(&job.node) else { return Ok(()) };
        let stat = std::fs::symlink_metadata(job.folder.entry(&job.name))?;
        let is = (stat.dev(), stat.ino());
        if *links.entry(link).or_insert(is) != is {
            self.failures.add(&job.path, "is not the hard link it was");
        }
        Ok(())
    }

    fn compare_entry(&self, job: &Job, buffer: &mut Vec<u8>) {
        if self.must_end() {
            return;
        }
        let is_first = job.segment.offset == 0;
        let file = if job.node.is_file() { Some(job.folder.open_file(&job.name)) } else { None };
        if is_first {
            let open = file.as_ref().and_then(|file| file.as_ref().ok());
            self.note_differences(&job.folder.entry(&job.name), open, &job.node, &job.path);
        }
        match file {
            Some(Ok(file)) => self.compare_file(&file, job, buffer),
            Some(Err(err)) => self.failures.add_io(&job.path, "reading back", &err),
            None => {}
        }
        if is_first && !job.node.is_dir() {
            self.progress.file_done();
        }
    }

    fn compare_file(&self, file: &File, job: &Job, buffer: &mut Vec<u8>) {
        match self.equal.holds(file) {
            Ok(true) => self.progress.bytes(job.segment.length),
            Ok(false) => {
                self.compare_content(file, &job.node, &job.segment, &job.path, buffer, self.progress);
            }
            Err(err) => self.failures.add_io(&job.path, "reading back", &err),
        }
    }

    fn note_differences(&self, at: &Path, open: Option<&File>, node: &Node, path: &Path) {
        match differences(at, open, node) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => self.failures.add(path, found.join(", ")),
            Err(err) => self.failures.add_io(path, "reading back", &err),
        }
    }
}
