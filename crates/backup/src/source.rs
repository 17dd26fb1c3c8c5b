//! What rustic reads a volume through: our own walk and our own reads.
//!
//! rustic logs what it cannot read, skips it and reports success. So nothing is left to it: everything that cannot be
//! listed, opened or read whole, that vanishes, or that changes while it is read is written down in the [`Ledger`] by name,
//! and the ledger counts what was handed over, so that an entry lost on the way is noticed too.

mod reader;
mod walk;

use crate::backend::{Gate, lock};
use crate::labels::SourcePath;
use crate::metadata::Folder;
use crate::progress::Progress;
use reader::OpenFile;
use rustic_core::{ReadSource, RusticResult};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use walk::Walk;

/// A file or folder that could not be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its path within the volume.
    pub path: PathBuf,
    /// What happened.
    pub reason: String,
}

/// So many unreadable files are named; beyond that they are counted only.
const NAMED: usize = 100;

/// What happened while a volume was read.
#[derive(Default)]
pub(crate) struct Ledger {
    unreadable: Mutex<Vec<Unreadable>>,
    unreadable_count: AtomicU64,
    files: AtomicU64,
    folders: AtomicU64,
    read_bytes: AtomicU64,
}

impl Ledger {
    fn record(&self, path: &Path, reason: impl ToString) {
        self.unreadable_count.fetch_add(1, Ordering::Relaxed);
        let mut named = lock(&self.unreadable);
        if named.len() < NAMED {
            named.push(Unreadable { path: path.to_owned(), reason: reason.to_string() });
        }
    }

    /// What could not be read: names of some, and the count of all.
    pub(crate) fn unreadable(&self) -> (Vec<Unreadable>, u64) {
        (lock(&self.unreadable).clone(), self.unreadable_count.load(Ordering::Relaxed))
    }

    /// How many files (all that is not a folder) were handed over.
    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// How many folders, with the root, were handed over.
    pub(crate) fn folders(&self) -> u64 {
        self.folders.load(Ordering::Relaxed)
    }

    /// How many bytes were read from files.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

/// What the walk and the readers share.
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    gate: Arc<Gate>,
    progress: Arc<dyn Progress>,
    hook: ReadHook,
}

/// Called with a file's path in the volume after it was opened and before it is read, so that tests can interfere at
/// that very moment.
pub(crate) type ReadHook = Option<Arc<dyn Fn(&Path) + Send + Sync>>;

impl Shared {
    pub(crate) fn new(gate: Arc<Gate>, progress: Arc<dyn Progress>, hook: ReadHook) -> Arc<Self> {
        Arc::new(Self { ledger: Ledger::default(), gate, progress, hook })
    }

    /// Whether to end early: the caller wants to stop, or a write has failed.
    fn must_end(&self) -> bool {
        if self.progress.should_stop() {
            self.gate.stop();
        }
        self.gate.is_closed()
    }
}

/// A folder to back up, under the path it has in its snapshots.
pub(crate) struct Source {
    root: Arc<Folder>,
    as_path: PathBuf,
    shared: Arc<Shared>,
}

impl Source {
    /// Opens the folder. Fails when it is not there or is no folder.
    pub(crate) fn open(root: &Path, as_path: &SourcePath, shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self { root: Arc::new(Folder::open(root)?), as_path: as_path.as_path().to_owned(), shared })
    }
}

impl ReadSource for Source {
    type Open = OpenFile;
    type Iter = Walk;

    /// Counts ahead, while the backup already runs. Whatever cannot be read here is left to the walk proper to report.
    fn size(&self) -> RusticResult<Option<u64>> {
        let (bytes, files) = walk::count(&self.root, &self.shared);
        self.shared.progress.total(bytes, files);
        Ok(Some(bytes))
    }

    fn entries(&self) -> Walk {
        Walk::new(Arc::clone(&self.root), self.as_path.clone(), Arc::clone(&self.shared))
    }
}
