//! Contents of files: written with holes where there are zeros, and read back against the repository's hashes.

use crate::fault::Fault;
use crate::index::Indexed;
use crate::restore::Restore;
use crate::tree::{hex, matches, read_data};
use rustic_core::DataId;
use rustic_core::repofile::{BlobType, Node};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Zeros are left out in steps of this size, which is that of a page and of most file systems' blocks.
pub(super) const BLOCK: usize = 4096;

pub(super) static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// So many parts of a file are written or compared by one thread, while others work on others.
const PARTS: usize = 16;

/// Some parts of a file, and where in it they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) parts: Range<usize>,
    pub(super) offset: u64,
    pub(super) length: u64,
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
        let mut length = 0;
        for id in parts {
            let place = indexed.place(BlobType::Data, id);
            let place = place.ok_or_else(|| Fault::damaged(format!("blob {} is in no index", hex(id))))?;
            length += place.data_length() as u64;
        }
        let first = number * PARTS;
        segments.push(Segment { parts: first..first + parts.len(), offset, length });
        offset += length;
    }
    if offset != node.meta.size {
        let size = node.meta.size;
        return Err(Fault::damaged(format!("the repository holds {offset} of the file's {size} bytes")));
    }
    if segments.is_empty() {
        segments.push(Segment { parts: 0..0, offset: 0, length: 0 });
    }
    Ok(segments)
}

impl Restore<'_> {
    /// Reads a segment of a file back from the disk and compares each part's hash.
    pub(super) fn compare_content(
        &self,
        file: &File,
        node: &Node,
        segment: &Segment,
        path: &Path,
        buffer: &mut Vec<u8>,
    ) {
        // What is read back should come from the disk, not from what was just written to memory.
        let Some(length) = NonZeroU64::new(segment.length) else { return };
        if let Err(err) = rustix::fs::fadvise(file, segment.offset, Some(length), rustix::fs::Advice::DontNeed) {
            return self.failures.add_io(path, "reading back", &err.into());
        }
        let mut offset = segment.offset;
        for id in segment.ids(node) {
            if self.must_end() {
                return;
            }
            match part_matches(&self.indexed, file, offset, *id, buffer) {
                Ok(true) => {}
                // Either the repository holds something else than it says, or the disk does.
                Ok(false) => match read_data(&self.indexed, *id) {
                    Ok(_) => return self.failures.add(path, format!("the content differs at offset {offset}")),
                    Err(fault) => return self.failures.add_fault(path, fault),
                },
                Err(err) => return self.failures.add_io(path, "reading back", &err),
            }
            offset += buffer.len() as u64;
            self.progress.bytes(buffer.len() as u64);
        }
    }
}

/// Reads what stands where a part belongs into the buffer, and tells whether it is the part.
pub(super) fn part_matches(
    indexed: &Indexed,
    file: &File,
    offset: u64,
    id: DataId,
    buffer: &mut Vec<u8>,
) -> io::Result<bool> {
    let Some(place) = indexed.place(BlobType::Data, &id) else {
        return Err(io::Error::other(format!("blob {} is in no index", hex(&id))));
    };
    buffer.resize(place.data_length(), 0);
    file.read_exact_at(buffer, offset)?;
    Ok(matches(&id, buffer))
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
