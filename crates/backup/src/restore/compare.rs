//! Reading a restored folder back: every entry is there, nothing else is, and all of it equals the snapshot.

use super::content::{Segment, segments};
use super::{LOST_AND_FOUND, Part, Restore, crew, safe_name};
use crate::metadata::{Folder, differences};
use crate::tree::{link_of, read_tree};
use rustic_core::repofile::Node;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
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
    fn length(&self) -> u64 {
        self.segment.length
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
            self.note_differences(&self.folder.followed(), &self.root, Path::new("/"));
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
        let Some(nodes) = self.entries(node, path) else { return };
        self.compare_names(folder, &nodes, path);
        for node in nodes {
            let Ok(name) = safe_name(&node) else { continue };
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
    }

    /// The first segment of an entry, which comes with its metadata, and the others.
    fn parts(&self, node: &Node, path: &Path) -> Option<(Segment, Vec<Segment>)> {
        let segments = if node.is_file() { segments(&self.indexed, node) } else { Ok(Vec::new()) };
        match segments {
            Ok(mut segments) => {
                let others = segments.split_off(segments.len().min(1));
                Some((segments.pop().unwrap_or(Segment { parts: 0..0, offset: 0, length: 0 }), others))
            }
            Err(fault) => {
                self.failures.add_fault(path, fault);
                None
            }
        }
    }

    fn entries(&self, node: &Node, path: &Path) -> Option<Vec<Node>> {
        let Some(tree) = node.subtree else {
            self.failures.add(path, "the repository holds no tree for this folder");
            return None;
        };
        match read_tree(&self.indexed, tree) {
            Ok(tree) => Some(tree.nodes),
            Err(fault) => {
                self.failures.add_fault(path, fault);
                None
            }
        }
    }

    fn compare_names(&self, folder: &Folder, nodes: &[Node], path: &Path) {
        let there = match folder.names() {
            Ok(names) => names,
            Err(err) => return self.failures.add_io(path, "reading back", &err),
        };
        let expected: BTreeSet<OsString> = nodes.iter().filter_map(|node| safe_name(node).ok()).collect();
        let is_root = path.as_os_str().is_empty();
        for name in there {
            let ours = is_root && (name == self.marker || name == LOST_AND_FOUND);
            if !ours && !expected.contains(&name) {
                self.failures.add(&path.join(name), "is there, but not in the snapshot");
            }
        }
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
        if is_first {
            self.note_differences(&job.folder.entry(&job.name), &job.node, &job.path);
        }
        if job.node.is_file() {
            match job.folder.open_file(&job.name) {
                Ok(file) => self.compare_content(&file, &job.node, &job.segment, &job.path, buffer),
                Err(err) => self.failures.add_io(&job.path, "reading back", &err),
            }
        }
        if is_first && !job.node.is_dir() {
            self.progress.file_done();
        }
    }

    fn note_differences(&self, at: &Path, node: &Node, path: &Path) {
        match differences(at, node) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => self.failures.add(path, found.join(", ")),
            Err(err) => self.failures.add_io(path, "reading back", &err),
        }
    }
}
