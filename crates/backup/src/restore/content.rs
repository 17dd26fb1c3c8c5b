//! Contents of files: written with holes where there are zeros, and read back against the repository's hashes.
//!
//! Holes cost nothing, however large: parts of [`HOLE`] zeros are known by their id, are not read from the repository, are not written
//! into a file that is made, and are not read back where the file system says that there is a hole.

use crate::fault::Fault;
use crate::index::Indexed;
use crate::progress::Progress;
use crate::restore::Restore;
use crate::seal::hash;
use crate::tree::{hex, matches, read_data};
use rustic_core::repofile::{BlobType, Node};
use rustic_core::{DataId, Id};
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

/// Zeros are left out in steps of this size, which is that of a page and of most file systems' blocks.
pub(super) const BLOCK: usize = 4096;

pub(super) static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The one length of zeros that lvault, restic and rustic store holes in.
pub(super) const HOLE: usize = 512 << 10;

pub(super) static HOLE_ZEROS: [u8; HOLE] = [0; HOLE];

static HOLE_ID: LazyLock<Id> = LazyLock::new(|| Id::new(hash(&HOLE_ZEROS)));

/// Whether a part of this length is [`HOLE_ZEROS`].
pub(super) fn is_hole(id: &DataId, length: u64) -> bool {
    length == HOLE as u64 && **id == *HOLE_ID
}

/// What is longer is read back past the kernel's memory.
const DIRECT: u64 = 64 << 10;

/// So many parts of a file are written or compared by one thread, while others work on others.
const PARTS: usize = 16;

/// Some parts of a file, and where in it they begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Segment {
    pub(super) parts: Range<usize>,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// So many bytes of it are no holes.
    pub(super) data: u64,
}

impl Segment {
    /// The parts' ids.
    pub(super) fn ids<'a>(&self, node: &'a Node) -> &'a [DataId] {
        node.content.as_deref().and_then(|content| content.get(self.parts.clone())).unwrap_or_default()
    }
}

/// A file's content in segments, at least one; an error in words when it does not add up to the file's size.
pub(super) fn segments(indexed: &Indexed, node: &Node) -> Result<Vec<Segment>, Fault> {
    let (mut segments, mut offset) = (Vec::new(), 0);
    let content = node.content.as_deref().unwrap_or_default();
    for (number, parts) in content.chunks(PARTS).enumerate() {
        let (mut length, mut data) = (0, 0);
        for id in parts {
            let place = indexed.place(BlobType::Data, id);
            let place = place.ok_or_else(|| Fault::damaged(format!("blob {} is in no index", hex(id))))?;
            let bytes = place.data_length() as u64;
            length += bytes;
            data += if is_hole(id, bytes) { 0 } else { bytes };
        }
        let first = number * PARTS;
        segments.push(Segment { parts: first..first + parts.len(), offset, length, data });
        offset += length;
    }
    if offset != node.meta.size {
        let size = node.meta.size;
        return Err(Fault::damaged(format!("the repository holds {offset} of the file's {size} bytes")));
    }
    if segments.is_empty() {
        segments.push(Segment::default());
    }
    Ok(segments)
}

impl Restore<'_> {
    /// Reads a segment of a file back from the disk and compares each part's hash. Whether all of it is equal; why not, is recorded.
    pub(super) fn compare_content(
        &self,
        file: &File,
        node: &Node,
        segment: &Segment,
        path: &Path,
        buffer: &mut Vec<u8>,
        progress: &dyn Progress,
    ) -> bool {
        let Err(unequal) = self.find_unequal(file, node, segment, buffer, progress) else { return true };
        match unequal {
            Unequal::Content(offset) => self.failures.add(path, format!("the content differs at offset {offset}")),
            Unequal::Repository(fault) => self.failures.add_fault(path, fault),
            Unequal::Unreadable(err) => self.failures.add_io(path, "reading back", &err),
            Unequal::Unknown => {}
        }
        false
    }

    fn find_unequal(
        &self,
        file: &File,
        node: &Node,
        segment: &Segment,
        buffer: &mut Vec<u8>,
        progress: &dyn Progress,
    ) -> Result<(), Unequal> {
        let Some(length) = NonZeroU64::new(segment.length) else { return Ok(()) };
        // What is read back should come from the disk, not from what was just written to memory. Not every file system that lets us read
        // past its memory does so.
        rustix::fs::fadvise(file, segment.offset, Some(length), rustix::fs::Advice::DontNeed)
            .map_err(|err| Unequal::Unreadable(err.into()))?;
        let mut there = There::new(&self.indexed, file, segment.offset, buffer);
        if segment.length >= DIRECT {
            there = there.past_memory();
        }
        for id in segment.ids(node) {
            if self.must_end() {
                return Err(Unequal::Unknown);
            }
            let offset = there.offset;
            if !there.is(id).map_err(Unequal::Unreadable)? {
                // Either the repository holds something else than it says, or the disk does.
                read_data(&self.indexed, *id).map_err(Unequal::Repository)?;
                return Err(Unequal::Content(offset));
            }
            progress.bytes(there.offset - offset);
        }
        Ok(())
    }
}

/// Why a part of a file was not found equal.
enum Unequal {
    Content(u64),
    Repository(Fault),
    Unreadable(io::Error),
    /// Everything ends early.
    Unknown,
}

/// What stands in a file, part by part.
pub(super) struct There<'a> {
    indexed: &'a Indexed,
    file: &'a File,
    /// The same file, read past the kernel's memory.
    direct: Option<File>,
    /// Where the next part begins.
    pub(super) offset: u64,
    /// A hole that the file system has told of.
    hole: Range<u64>,
    buffer: &'a mut Vec<u8>,
}

impl<'a> There<'a> {
    pub(super) fn new(indexed: &'a Indexed, file: &'a File, offset: u64, buffer: &'a mut Vec<u8>) -> Self {
        Self { indexed, file, direct: None, offset, hole: 0..0, buffer }
    }

    /// Reads from the disk itself, where the file system lets us: cheaper than through pages that nobody will look at again.
    fn past_memory(mut self) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::NOATIME | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        self.direct = rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from);
        self
    }

    /// Whether the next part is this one, and goes on behind it.
    pub(super) fn is(&mut self, id: &DataId) -> io::Result<bool> {
        let Some(place) = self.indexed.place(BlobType::Data, id) else {
            return Err(io::Error::other(format!("blob {} is in no index", hex(id))));
        };
        let begin = self.offset;
        self.offset += place.data_length() as u64;
        let is_hole = is_hole(id, self.offset - begin);
        if is_hole && self.is_in_hole(begin..self.offset)? {
            return Ok(true);
        }
        let content = self.read(begin, place.data_length())?;
        Ok(if is_hole { *content == HOLE_ZEROS } else { matches(id, content) })
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        if let Some(direct) = &self.direct {
            match read_direct(direct, offset, length, self.buffer) {
                Ok(place) => return Ok(self.buffer.get(place).unwrap_or_default()),
                // It wants other steps than ours.
                Err(err) if err.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                Err(err) => return Err(err),
            }
        }
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let content = &mut self.buffer[..length];
        self.file.read_exact_at(content, offset)?;
        Ok(content)
    }

    /// Whether the file system says that there is no data in this range of the file, which then is all zeros.
    fn is_in_hole(&mut self, range: Range<u64>) -> io::Result<bool> {
        if !self.hole.contains(&range.start) {
            let end = match rustix::fs::seek(self.file, SeekFrom::Data(range.start)) {
                Ok(data) => data,
                // There is no data up to the file's end.
                Err(rustix::io::Errno::NXIO) => self.file.metadata()?.len(),
                // It is a device, or a file system that does not tell: it is read.
                Err(_) => range.start,
            };
            self.hole = range.start..end;
        }
        Ok(range.end <= self.hole.end)
    }
}

/// Reads into the buffer in steps of a block, as reading past the kernel's memory wants it; answers with the place in the buffer.
fn read_direct(file: &File, offset: u64, length: usize, buffer: &mut Vec<u8>) -> io::Result<Range<usize>> {
    let before = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
    let (begin, wanted) = (offset - before as u64, before + length);
    let room = wanted.next_multiple_of(BLOCK);
    if buffer.len() < room + BLOCK {
        buffer.resize(room + BLOCK, 0);
    }
    let skipped = buffer.as_ptr().align_offset(BLOCK);
    let into = buffer.get_mut(skipped..skipped + room).ok_or(io::ErrorKind::InvalidInput)?;
    let mut read = 0;
    while read < wanted {
        match file.read_at(&mut into[read..], begin + read as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(skipped + before..skipped + wanted)
}

/// Writes everything but blocks of zeros; the file has its full size already, so these stay holes.
pub(super) fn write_sparse(file: &File, offset: u64, content: &[u8]) -> io::Result<()> {
    let mut run: Option<usize> = None;
    let mut at = 0;
    while at < content.len() {
        // Blocks are those of the file, not of the blob.
        let in_block = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap_or(0);
        let end = content.len().min(at + BLOCK - in_block);
        let block = &content[at..end];
        if *block == ZEROS[..block.len()] {
            if let Some(start) = run.take() {
                file.write_all_at(&content[start..at], offset + start as u64)?;
            }
        } else {
            run.get_or_insert(at);
        }
        at = end;
    }
    match run {
        Some(start) => file.write_all_at(&content[start..], offset + start as u64),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reading_past_memory_reads_the_same(size in 1_usize..40_000, from: prop::sample::Index, to: prop::sample::Index) {
            let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&content, 0).unwrap();
            file.sync_all().unwrap();
            let (from, to) = (from.index(size), to.index(size + 1));
            let (from, to) = (from.min(to), from.max(to));
            let mut buffer = Vec::new();
            let place = read_direct(&file, from as u64, to - from, &mut buffer).unwrap();
            prop_assert_eq!(&buffer[place], &content[from..to]);
            let err = read_direct(&file, from as u64, size + 1 - from, &mut buffer).unwrap_err();
            prop_assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
        }

        #[test]
        fn sparse_writes_write_the_same(
            runs in prop::collection::vec((0_usize..9000, any::<bool>()), 1..8),
            offset in 0_u64..9000,
        ) {
            let content: Vec<u8> =
                runs.iter().flat_map(|(length, zero)| std::iter::repeat_n(u8::from(!zero), *length)).collect();
            let file = tempfile::tempfile().unwrap();
            file.set_len(offset + content.len() as u64).unwrap();
            write_sparse(&file, offset, &content).unwrap();
            let mut read = vec![9; content.len()];
            file.read_exact_at(&mut read, offset).unwrap();
            prop_assert_eq!(read, content);
        }
    }
}
