//! Restoring one file of a snapshot in place: into a file or onto a block device, by all cores, writing only what differs.
//!
//! What stands there is read and compared part by part; of a part that differs only the blocks that differ are written, and
//! blocks of zeros become holes. Memory is two parts for each thread.

use super::content::{BLOCK, HOLE_ZEROS, Segment, There, ZEROS, is_hole, segments};
use super::{Failures, Fatal, RestoreError, RestoreFailure};
use crate::backend::lock;
use crate::fault::Fault;
use crate::index::Indexed;
use crate::labels::SnapshotId;
use crate::progress::{Progress, Step};
use crate::repository::Repository;
use crate::runs::Reader;
use crate::storage::{Cause, CauseKind};
use crate::tree::{read_data, read_tree, snapshot_root};
use rustic_core::repofile::Node;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a restore in place did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileReport {
    /// The file's size.
    pub bytes: u64,
    /// So much of it stood there otherwise and was written.
    pub written_bytes: u64,
}

impl Repository {
    /// Restores the file at `file` (its path within the volume) into the file or onto the block device `target`, in place,
    /// makes it durable, reads it back and compares it. A file is made where there is none, and gets the snapshot's size; a
    /// device has to be large enough, and keeps what lies behind the file's end. Metadata is not restored.
    ///
    /// Idempotent. A crash leaves the target with a part of its content; calling again writes the rest.
    ///
    /// # Errors
    /// See [`RestoreError`]. With each of them, the target must not be used.
    pub fn restore_file(
        &self,
        snapshot: &SnapshotId,
        file: &Path,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<FileReport, RestoreError> {
        let found = self.snapshot(snapshot.as_str())?;
        let unreadable = |fault| {
            let (repository, snapshot) = (self.shown().to_owned(), snapshot.clone());
            RestoreError::Repository { repository, snapshot, fault }
        };
        let _lock = self.lock_for_reading(progress).map_err(unreadable)?;
        let indexed = self.indexed().map_err(unreadable)?;
        let root = snapshot_root(&indexed, &found).map_err(unreadable)?;
        let node = node_at(&indexed, root, file).map_err(unreadable)?;
        let segments = segments(&indexed, &node).map_err(unreadable)?;
        let shown = target.display().to_string();
        let on_target = |result: io::Result<File>| {
            result.map_err(|err| RestoreError::Target { target: shown.clone(), cause: Cause::of(&err) })
        };
        let opened = on_target(open(target, node.meta.size))?;
        let place = InPlace {
            indexed: &indexed,
            node: &node,
            segments: &segments,
            path: file,
            file: &opened,
            failures: Failures::default(),
            written: AtomicU64::new(0),
            progress,
        };
        progress.step(Step::Restoring);
        progress.total(node.meta.size, 1);
        place.on_all_cores(InPlace::write);
        if let Err(err) = opened.sync_all() {
            place.failures.add_io(file, "syncing", &err);
        }
        if place.failures.is_empty() {
            progress.step(Step::Verifying);
            progress.total(node.meta.size, 1);
            place.on_all_cores(InPlace::compare);
        }
        place.verdict(&shown, unreadable)
    }
}

/// Opens what is restored onto, with the size it needs.
fn open(target: &Path, size: u64) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(target)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        file.set_len(size)?;
    } else if !kind.is_block_device() {
        return Err(io::Error::other("it is neither a file nor a block device"));
    } else if file.seek(SeekFrom::End(0))? < size {
        return Err(io::Error::new(io::ErrorKind::StorageFull, format!("the device is smaller than {size} bytes")));
    }
    Ok(file)
}

fn node_at(indexed: &Indexed, root: Node, path: &Path) -> Result<Node, Fault> {
    let missing = || Fault::damaged(format!("the snapshot holds no file {path:?}"));
    let mut node = root;
    for part in path.components() {
        let tree = node.subtree.ok_or_else(missing)?;
        let nodes = read_tree(indexed, tree)?.nodes;
        node = nodes.into_iter().find(|node| *node.name() == *part.as_os_str()).ok_or_else(missing)?;
    }
    if node.is_file() { Ok(node) } else { Err(missing()) }
}

/// One restore in place.
struct InPlace<'a> {
    indexed: &'a Indexed,
    node: &'a Node,
    segments: &'a [Segment],
    path: &'a Path,
    file: &'a File,
    failures: Failures,
    written: AtomicU64,
    progress: &'a dyn Progress,
}

impl InPlace<'_> {
    fn on_all_cores(&self, work: impl Fn(&Self, &Segment) + Sync) {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(segment) = self.segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                        work(self, segment);
                    }
                });
            }
        });
        self.progress.file_done();
    }

    fn must_end(&self) -> bool {
        self.progress.should_stop() || !self.failures.is_empty()
    }

    /// Compares what stands there, and writes the parts that are others.
    fn write(&self, segment: &Segment) {
        let (mut buffer, mut ids, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
        let mut there = There::new(self.indexed, self.file, segment.offset, &mut buffer);
        for (number, id) in segment.parts.clone().zip(segment.ids(self.node)) {
            if self.must_end() {
                return;
            }
            let offset = there.offset;
            match there.is(id) {
                Ok(true) => self.progress.bytes(there.offset - offset),
                Ok(false) if is_hole(id, there.offset - offset) => {
                    self.put(offset, &HOLE_ZEROS, &mut Vec::new());
                    self.join_holes(number, offset..there.offset);
                }
                Ok(false) => {
                    ids.push(*id);
                    offsets.push(offset);
                }
                Err(err) => return self.failures.add_io(self.path, "reading what is there", &err),
            }
        }
        Reader::new(self.indexed).read(&ids, |number, content| {
            match content {
                Ok(content) => self.put(offsets[number], content, &mut buffer),
                Err(fault) => self.failures.add_fault(self.path, fault),
            }
            if self.must_end() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }

    /// Makes holes of blocks that a part shares with the ones beside it, where all of them are zeros. The data is right without it.
    fn join_holes(&self, number: usize, part: Range<u64>) {
        let content = self.node.content.as_deref().unwrap_or_default();
        for (at, beside) in [(part.start, number.checked_sub(1)), (part.end, Some(number + 1))] {
            let in_block = at % BLOCK as u64;
            let beside = beside.and_then(|number| content.get(number));
            if in_block > 0 && beside.is_some_and(|id| is_hole(id, HOLE_ZEROS.len() as u64)) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let _ = fallocate(self.file, flags, at - in_block, BLOCK as u64);
            }
        }
    }

    /// Writes a part where it differs. Its hash is compared when it is read back.
    fn put(&self, offset: u64, content: &[u8], there: &mut Vec<u8>) {
        there.resize(content.len(), 0);
        match self.file.read_exact_at(there, offset).and_then(|()| write_differences(self.file, offset, there, content))
        {
            Ok(written) => {
                self.written.fetch_add(written, Ordering::Relaxed);
                self.progress.bytes(content.len() as u64);
            }
            Err(err) => self.failures.add_io(self.path, "writing", &err),
        }
    }

    fn compare(&self, segment: &Segment) {
        let Some(length) = std::num::NonZeroU64::new(segment.length) else { return };
        // Best effort: a device may keep what it wants.
        let _ = rustix::fs::fadvise(self.file, segment.offset, Some(length), rustix::fs::Advice::DontNeed);
        let mut buffer = Vec::new();
        let mut there = There::new(self.indexed, self.file, segment.offset, &mut buffer);
        for id in segment.ids(self.node) {
            if self.must_end() {
                return;
            }
            let offset = there.offset;
            match there.is(id) {
                Ok(true) => {}
                // Either the repository holds something else than it says, or the disk does.
                Ok(false) => match read_data(self.indexed, *id) {
                    Ok(_) => return self.failures.add(self.path, format!("the content differs at offset {offset}")),
                    Err(fault) => return self.failures.add_fault(self.path, fault),
                },
                Err(err) => return self.failures.add_io(self.path, "reading back", &err),
            }
            self.progress.bytes(there.offset - offset);
        }
    }

    fn verdict(&self, target: &str, unreadable: impl Fn(Fault) -> RestoreError) -> Result<FileReport, RestoreError> {
        match lock(&self.failures.fatal).take() {
            Some(Fatal::Target(cause)) => return Err(RestoreError::Target { target: target.to_owned(), cause }),
            Some(Fatal::Repository(fault)) => return Err(unreadable(fault)),
            None => {}
        }
        let failures: Vec<RestoreFailure> = lock(&self.failures.named).clone();
        if !failures.is_empty() {
            let count = self.failures.count.load(Ordering::Relaxed);
            return Err(RestoreError::Incomplete { target: target.to_owned(), failures, count });
        }
        if self.progress.should_stop() {
            return Err(RestoreError::Stopped);
        }
        Ok(FileReport { bytes: self.node.meta.size, written_bytes: self.written.load(Ordering::Relaxed) })
    }
}

/// What has to be done with a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Keep,
    Write,
    Clear,
}

/// Writes the blocks that differ, and punches holes where there should be zeros; answers how many bytes that concerned.
fn write_differences(file: &File, offset: u64, there: &[u8], content: &[u8]) -> io::Result<u64> {
    let action = |at: usize, end: usize| {
        let block = &content[at..end];
        match () {
            () if there.get(at..end) == Some(block) => Action::Keep,
            () if *block == ZEROS[..block.len()] => Action::Clear,
            () => Action::Write,
        }
    };
    let (mut at, mut written) = (0, 0);
    let block_end = |at: usize| {
        let in_block = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap_or(0);
        content.len().min(at + BLOCK - in_block)
    };
    while at < content.len() {
        let mut end = block_end(at);
        let first = action(at, end);
        while end < content.len() && action(end, block_end(end)) == first {
            end = block_end(end);
        }
        let begin = offset + at as u64;
        match first {
            Action::Keep => {}
            Action::Write => file.write_all_at(&content[at..end], begin)?,
            Action::Clear => clear(file, begin, &content[at..end])?,
        }
        written += if first == Action::Keep { 0 } else { (end - at) as u64 };
        at = end;
    }
    Ok(written)
}

/// Makes a hole, or writes zeros where the file system or the device makes none.
fn clear(file: &File, offset: u64, zeros: &[u8]) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fallocate(file, flags, offset, zeros.len() as u64) {
        Ok(()) => Ok(()),
        Err(err) if CauseKind::Full == Cause::of(&io::Error::from(err)).kind => Err(err.into()),
        Err(_) => file.write_all_at(zeros, offset),
    }
}
