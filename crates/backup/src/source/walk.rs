//! The walk: depth first, each folder before what it holds, names in byte order, as restic's trees want them.

use super::Shared;
use super::reader::OpenFile;
use crate::metadata::{Folder, node};
use rustic_core::repofile::Node;
use rustic_core::{ReadSourceEntry, RusticResult};
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A folder that is being walked.
struct Frame {
    folder: Arc<Folder>,
    names: std::vec::IntoIter<OsString>,
    /// Its path in the snapshot.
    snapshot_path: PathBuf,
    /// Its path in the volume, for people.
    path: PathBuf,
}

/// Yields everything below a folder, the folder itself first. What cannot be read goes to the ledger instead.
pub(crate) struct Walk {
    root: Option<Arc<Folder>>,
    as_path: PathBuf,
    device: u64,
    frames: Vec<Frame>,
    shared: Arc<Shared>,
}

impl Walk {
    pub(super) fn new(root: Arc<Folder>, as_path: PathBuf, shared: Arc<Shared>) -> Self {
        Self { root: Some(root), as_path, device: 0, frames: Vec::new(), shared }
    }

    fn begin(&mut self, root: Arc<Folder>) -> io::Result<ReadSourceEntry<OpenFile>> {
        let stat = std::fs::metadata(root.followed())?;
        self.device = stat.dev();
        let name = self.as_path.file_name().unwrap_or(OsStr::new("/")).to_owned();
        let node = node(&root.followed(), &name, &stat)?;
        let names = root.names()?.into_iter();
        let (snapshot_path, path) = (self.as_path.clone(), PathBuf::new());
        self.frames.push(Frame { folder: root, names, snapshot_path, path });
        self.shared.ledger.folders.fetch_add(1, Ordering::Relaxed);
        Ok(ReadSourceEntry { path: self.as_path.clone(), node, open: None })
    }

    /// The next entry, or its path and why it cannot be had.
    fn step(&mut self) -> Option<Result<ReadSourceEntry<OpenFile>, (PathBuf, io::Error)>> {
        if let Some(root) = self.root.take() {
            return Some(self.begin(root).map_err(|err| (PathBuf::from("/"), err)));
        }
        let (folder, name, snapshot_path, path) = loop {
            let frame = self.frames.last_mut()?;
            if let Some(name) = frame.names.next() {
                let (snapshot_path, path) = (frame.snapshot_path.join(&name), frame.path.join(&name));
                break (Arc::clone(&frame.folder), name, snapshot_path, path);
            }
            self.frames.pop();
        };
        Some(self.entry(&folder, &name, snapshot_path, &path).map_err(|err| (path, err)))
    }

    fn entry(
        &mut self,
        folder: &Arc<Folder>,
        name: &OsStr,
        snapshot_path: PathBuf,
        path: &Path,
    ) -> io::Result<ReadSourceEntry<OpenFile>> {
        let at = folder.entry(name);
        let stat = std::fs::symlink_metadata(&at)?;
        if stat.dev() != self.device {
            return Err(io::Error::other("another file system is mounted here; unmount it, or back it up by itself"));
        }
        let node = node(&at, name, &stat)?;
        if stat.is_dir() {
            self.descend(&at, &stat, snapshot_path.clone(), path)?;
            self.shared.ledger.folders.fetch_add(1, Ordering::Relaxed);
            return Ok(ReadSourceEntry { path: snapshot_path, node, open: None });
        }
        self.shared.ledger.files.fetch_add(1, Ordering::Relaxed);
        let open = self.opener(folder, name, path, &stat, &node);
        Ok(ReadSourceEntry { path: snapshot_path, node, open })
    }

    fn descend(&mut self, at: &Path, stat: &Metadata, snapshot_path: PathBuf, path: &Path) -> io::Result<()> {
        let folder = Folder::open(at)?;
        let now = std::fs::metadata(folder.followed())?;
        if (now.dev(), now.ino()) != (stat.dev(), stat.ino()) {
            return Err(io::Error::other("the folder was replaced while it was read"));
        }
        let names = folder.names()?.into_iter();
        self.frames.push(Frame { folder: Arc::new(folder), names, snapshot_path, path: path.to_owned() });
        Ok(())
    }

    fn opener(
        &self,
        folder: &Arc<Folder>,
        name: &OsStr,
        path: &Path,
        stat: &Metadata,
        node: &Node,
    ) -> Option<OpenFile> {
        if node.is_file() {
            let (folder, shared) = (Arc::clone(folder), Arc::clone(&self.shared));
            return Some(OpenFile::new(folder, name.to_owned(), path.to_owned(), stat.clone(), shared));
        }
        self.shared.progress.file_done();
        None
    }
}

impl Iterator for Walk {
    type Item = RusticResult<ReadSourceEntry<OpenFile>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.shared.must_end() {
                return None;
            }
            match self.step()? {
                Ok(entry) => return Some(Ok(entry)),
                Err((path, err)) => self.shared.ledger.record(&path, err),
            }
        }
    }
}

/// Bytes and files below a folder, as far as they can be seen.
pub(super) fn count(root: &Arc<Folder>, shared: &Shared) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let mut folders = vec![Arc::clone(root)];
    let mut pending: Vec<(Arc<Folder>, std::vec::IntoIter<OsString>)> = Vec::new();
    loop {
        if let Some(folder) = folders.pop() {
            pending.push((Arc::clone(&folder), folder.names().unwrap_or_default().into_iter()));
        }
        let Some((folder, names)) = pending.last_mut() else { return (bytes, files) };
        let Some(name) = names.next() else {
            pending.pop();
            continue;
        };
        if shared.gate.is_closed() {
            return (bytes, files);
        }
        let at = folder.entry(&name);
        match std::fs::symlink_metadata(&at) {
            Ok(stat) if stat.is_dir() => folders.extend(Folder::open(&at).ok().map(Arc::new)),
            Ok(stat) => {
                files += 1;
                bytes += if stat.is_file() { stat.len() } else { 0 };
            }
            Err(_) => {}
        }
    }
}
