//! Taking packs out of the index files, and then away.
//!
//! The order makes a crash harmless: index files in which only such packs stand go first, then their packs, which needs
//! no room; then the others are written anew without them, the old ones go, and the packs at last.

use super::{End, Pruning};
use crate::backend::file_name;
use crate::fault::Fault;
use crate::index::{IndexContents, IndexFile, IndexedPack, read_index};
use crate::seal::Seal;
use crate::storage::{Put, Storage};
use rustic_core::{FileType, Id};
use std::collections::HashSet;

/// An index file is closed when it names so many blobs.
const BLOBS: usize = 50_000;
/// Index files that name fewer blobs are joined, once there are [`MANY`] of them.
const SMALL: usize = BLOBS / 10;
pub(super) const MANY: usize = 16;

/// The index files there are, and the packs in each.
pub(super) struct IndexFiles {
    files: Vec<IndexContents>,
}

impl IndexFiles {
    pub(super) fn new(files: Vec<IndexContents>) -> Self {
        Self { files }
    }

    /// Takes files out by a condition.
    fn take(&mut self, is_meant: impl Fn(&IndexContents) -> bool) -> Vec<IndexContents> {
        let (meant, others) = std::mem::take(&mut self.files).into_iter().partition(is_meant);
        self.files = others;
        meant
    }
}

/// Collects packs, and writes them as index files.
struct Writer<'a> {
    storage: &'a Storage,
    seal: &'a Seal,
    file: IndexFile,
    blobs: usize,
    written: Vec<IndexContents>,
}

impl<'a> Writer<'a> {
    fn new(pruning: &Pruning<'a>) -> Self {
        let (storage, seal) = (pruning.repository.storage(), pruning.repository.seal());
        Self { storage, seal, file: IndexFile::default(), blobs: 0, written: Vec::new() }
    }

    fn add(&mut self, pack: IndexedPack) -> Result<(), Fault> {
        self.blobs += pack.blobs.len();
        self.file.packs.push(pack);
        if self.blobs >= BLOBS { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Fault> {
        let (file, blobs) = (std::mem::take(&mut self.file), std::mem::take(&mut self.blobs));
        if file.packs.is_empty() {
            return Ok(());
        }
        let (id, bytes) = file.encode(self.seal)?;
        self.storage.write(&file_name(FileType::Index, &id), vec![bytes], Put::Overwrite)?;
        self.written.push(IndexContents { id, packs: file.packs.iter().map(|pack| pack.id).collect(), blobs });
        Ok(())
    }
}

impl Pruning<'_> {
    /// Names packs in an index file of their own.
    pub(super) fn index_packs(&self, files: &mut IndexFiles, packs: Vec<IndexedPack>) -> Result<(), End> {
        self.may_go_on()?;
        let mut writer = Writer::new(self);
        packs.into_iter().try_for_each(|pack| writer.add(pack))?;
        writer.write()?;
        files.files.append(&mut writer.written);
        Ok(())
    }

    /// Removes packs that hold nothing that is needed, or whose content stands elsewhere in the index now.
    pub(super) fn drop_packs(&self, files: &mut IndexFiles, packs: &HashSet<Id>) -> Result<(), End> {
        let is_small = |file: &IndexContents| file.blobs < SMALL;
        let join = files.files.iter().filter(|file| is_small(file)).count() >= MANY;
        if packs.is_empty() && !join {
            return Ok(());
        }
        for file in files.take(|file| file.packs.iter().all(|pack| packs.contains(pack))) {
            self.remove_index(&file.id)?;
        }
        let named: HashSet<Id> = files.files.iter().flat_map(|file| file.packs.iter().copied()).collect();
        let (later, now): (Vec<&Id>, Vec<&Id>) = packs.iter().partition(|pack| named.contains(pack));
        now.into_iter().try_for_each(|pack| self.remove_pack(pack))?;
        self.rewrite(files, packs, |file| join && is_small(file))?;
        later.into_iter().try_for_each(|pack| self.remove_pack(pack))
    }

    /// Takes packs out of the index, and leaves them where they are: index files that name one of them are written anew
    /// without it, and then removed.
    pub(super) fn unindex(&self, files: &mut IndexFiles, packs: &HashSet<Id>) -> Result<(), End> {
        self.rewrite(files, packs, |_| false)
    }

    /// Writes index files anew that name one of these packs, and such as are meant besides.
    fn rewrite(
        &self,
        files: &mut IndexFiles,
        without: &HashSet<Id>,
        besides: impl Fn(&IndexContents) -> bool,
    ) -> Result<(), End> {
        let old = files.take(|file| file.packs.iter().any(|pack| without.contains(pack)) || besides(file));
        let (mut writer, mut seen) = (Writer::new(self), HashSet::new());
        for file in &old {
            self.may_go_on()?;
            let stored = read_index(self.repository.storage(), self.repository.seal(), &file.id)?;
            for pack in stored.packs.into_iter().filter(|pack| !without.contains(&pack.id)) {
                if seen.insert(pack.id) {
                    writer.add(pack)?;
                }
            }
        }
        self.may_go_on()?;
        writer.write()?;
        let fresh: HashSet<Id> = writer.written.iter().map(|file| file.id).collect();
        files.files.append(&mut writer.written);
        old.iter().filter(|file| !fresh.contains(&file.id)).try_for_each(|file| self.remove_index(&file.id))
    }

    fn remove_index(&self, index: &Id) -> Result<(), End> {
        self.may_go_on()?;
        Ok(self.repository.storage().delete(&file_name(FileType::Index, index))?)
    }
}
