//! Checking packs: that they are there, long enough, and on demand that their content is what their name says.

use super::concerned::Concerned;
use super::{CheckReport, ReadData};
use crate::backend::{file_name, list_ids, lock};
use crate::fault::Fault;
use crate::index::{Indexed, Place};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::seal::hash;
use crate::storage::StorageError;
use crate::tree::hex;
use rustic_core::repofile::BlobType;
use rustic_core::{FileType, Id};
use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The name of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackId(pub(crate) Id);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What the index says of one pack.
type Blobs = Vec<(BlobType, Id, Place)>;

/// What reading a pack has shown.
struct Broken {
    pack: Id,
    what: String,
    blobs: Vec<(BlobType, Id)>,
}

impl Repository {
    pub(super) fn examine_packs(
        &self,
        indexed: &Indexed,
        read_data: ReadData,
        progress: &dyn Progress,
        report: &mut CheckReport,
        concerned: &mut Concerned<'_>,
    ) -> Result<(), Fault> {
        let sizes: HashMap<Id, u64> = list_ids(self.storage(), FileType::Pack)?.into_iter().collect();
        let packs = indexed.by_pack();
        let mut whole = Vec::new();
        for (id, blobs) in &packs {
            let end = blobs.iter().map(|(_, _, place)| place.end()).max().unwrap_or(0);
            let what = match sizes.get(id) {
                None => "it is missing".to_owned(),
                Some(size) if *size < end => format!("it is cut off after {size} bytes"),
                Some(_) => {
                    whole.push((*id, blobs));
                    continue;
                }
            };
            report.broken_packs.push(PackId(*id));
            concerned.add(*id, what, blobs.iter().map(|(kind, id, _)| (*kind, *id)).collect());
        }
        let unused = sizes.keys().filter(|id| !packs.contains_key(*id)).count();
        if unused > 0 {
            report.warnings.push(format!("{unused} packs stand in no index; a prune removes them"));
        }
        let chosen = choose(whole, read_data)?;
        progress.total(chosen.iter().filter_map(|(id, _)| sizes.get(id)).sum(), chosen.len() as u64);
        for broken in self.read_packs(&chosen, progress)? {
            report.broken_packs.push(PackId(broken.pack));
            concerned.add(broken.pack, broken.what, broken.blobs);
        }
        report.packs_read = chosen.len() as u64;
        Ok(())
    }

    /// Reads packs on all cores, and answers with those that are broken.
    fn read_packs(&self, chosen: &[(Id, &Blobs)], progress: &dyn Progress) -> Result<Vec<Broken>, Fault> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let (next, found) = (AtomicUsize::new(0), Mutex::new((Vec::new(), None)));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((id, blobs)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if progress.should_stop() {
                            return;
                        }
                        match self.read_pack(id, blobs, progress) {
                            Ok(broken) => lock(&found).0.extend(broken),
                            Err(err) => {
                                lock(&found).1.get_or_insert(err);
                                return;
                            }
                        }
                        progress.file_done();
                    }
                });
            }
        });
        match found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            (_, Some(err)) => Err(Fault::Storage(err)),
            (broken, None) => Ok(broken),
        }
    }

    fn read_pack(&self, id: &Id, blobs: &Blobs, progress: &dyn Progress) -> Result<Option<Broken>, StorageError> {
        let content = self.storage().read(&file_name(FileType::Pack, id))?;
        progress.bytes(content.len() as u64);
        if Id::new(hash(&content)) == *id {
            return Ok(None);
        }
        let is_broken = |(_, blob, place): &&(BlobType, Id, Place)| {
            let (begin, end) = (place.offset as usize, usize::try_from(place.end()).unwrap_or(usize::MAX));
            let Some(sealed) = content.get(begin..end) else { return true };
            let opened = self.seal().open_blob(&mut sealed.to_vec(), place.raw_length());
            opened.map_or(true, |plain| Id::new(hash(&plain)) != *blob)
        };
        let blobs: Vec<_> = blobs.iter().filter(is_broken).map(|(kind, id, _)| (*kind, *id)).collect();
        let what = match blobs.len() {
            0 => "its header is damaged, and no content".to_owned(),
            count => format!("{count} of the blobs in it are damaged"),
        };
        Ok(Some(Broken { pack: *id, what, blobs }))
    }
}

fn choose(packs: Vec<(Id, &Blobs)>, read_data: ReadData) -> Result<Vec<(Id, &Blobs)>, Fault> {
    let percent = match read_data {
        ReadData::Nothing => return Ok(Vec::new()),
        ReadData::Everything => return Ok(packs),
        ReadData::Percent(percent) => usize::from(percent.get()),
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|err| Fault::system(format!("it gives no random numbers: {err}")))?;
    let count = (packs.len() * percent).div_ceil(100);
    let mut shuffled: Vec<_> = packs
        .into_iter()
        .map(|pack| (hash(&[seed.as_slice(), pack.0.to_hex().as_str().as_bytes()].concat()), pack))
        .collect();
    shuffled.sort_unstable_by_key(|(order, _)| *order);
    Ok(shuffled.into_iter().take(count).map(|(_, pack)| pack).collect())
}
