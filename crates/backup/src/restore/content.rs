//! Contents of files: written with holes where there are zeros, and read back against the repository's hashes.

use crate::index::Indexed;
use crate::restore::Restore;
use crate::tree::{hex, matches, read_data};
use rustic_core::DataId;
use rustic_core::repofile::{BlobType, Node};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Zeros are left out in steps of this size, which is that of a page and of most file systems' blocks.
const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

impl Restore<'_> {
    /// Writes a file's content. Whatever fails is recorded.
    pub(super) fn fill(&self, file: &File, node: &Node, path: &Path) {
        if let Err(err) = file.set_len(node.meta.size) {
            self.failures.add_io(path, "sizing the file", &err);
            return;
        }
        let mut offset = 0;
        for id in node.content.iter().flatten() {
            if self.must_end() {
                return;
            }
            let content = match read_data(&self.indexed, *id) {
                Ok(content) => content,
                Err(fault) => return self.failures.add_fault(path, fault),
            };
            if let Err(err) = write_sparse(file, offset, &content) {
                return self.failures.add_io(path, "writing", &err);
            }
            offset += content.len() as u64;
            self.progress.bytes(content.len() as u64);
        }
        if offset != node.meta.size {
            let size = node.meta.size;
            self.failures.add(path, format!("the repository holds {offset} of the file's {size} bytes"));
        }
    }

    /// Reads a file back from the disk and compares each part's hash.
    pub(super) fn compare_content(&self, file: &File, node: &Node, path: &Path) {
        // What is read back should come from the disk, not from what was just written to memory.
        if let Err(err) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed) {
            return self.failures.add_io(path, "reading back", &err.into());
        }
        let (mut offset, mut buffer) = (0, Vec::new());
        for id in node.content.iter().flatten() {
            if self.must_end() {
                return;
            }
            match part_matches(&self.indexed, file, offset, *id, &mut buffer) {
                Ok(true) => {}
                Ok(false) => return self.failures.add(path, format!("the content differs at offset {offset}")),
                Err(err) => return self.failures.add_io(path, "reading back", &err),
            }
            offset += buffer.len() as u64;
            self.progress.bytes(buffer.len() as u64);
        }
        if offset != node.meta.size {
            self.failures.add(path, format!("the content ends after {offset} of {} bytes", node.meta.size));
        }
    }
}

fn part_matches(indexed: &Indexed, file: &File, offset: u64, id: DataId, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let Some(place) = indexed.place(BlobType::Data, &id) else {
        return Err(io::Error::other(format!("blob {} is in no index", hex(&id))));
    };
    buffer.resize(place.data_length(), 0);
    file.read_exact_at(buffer, offset)?;
    Ok(matches(&id, buffer))
}

/// Writes everything but blocks of zeros; the file has its full size already, so these stay holes.
fn write_sparse(file: &File, offset: u64, content: &[u8]) -> io::Result<()> {
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
