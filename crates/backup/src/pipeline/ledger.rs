//! What happened during a run: what could not be read, by name, and how much of everything there was.

use crate::backend::lock;
use rustic_core::Id;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// What the walk and the readers met.
#[derive(Default)]
pub(crate) struct Ledger {
    unreadable: Mutex<Vec<Unreadable>>,
    unreadable_count: AtomicU64,
    files: AtomicU64,
    folders: AtomicU64,
    bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl Ledger {
    pub(super) fn record(&self, path: &Path, reason: String) {
        add(&self.unreadable_count, 1);
        let mut named = lock(&self.unreadable);
        if named.len() < NAMED {
            named.push(Unreadable { path: path.to_owned(), reason });
        }
    }

    pub(super) fn count_folder(&self) {
        add(&self.folders, 1);
    }

    pub(super) fn count_file(&self, bytes: u64) {
        add(&self.files, 1);
        add(&self.bytes, bytes);
    }

    /// Takes a file out of the count that could not be read to its end.
    pub(super) fn uncount_file(&self, bytes: u64) {
        self.files.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self, bytes: u64) {
        add(&self.read_bytes, bytes);
    }

    /// What could not be read: names of some, and the count of all.
    pub(crate) fn unreadable(&self) -> (Vec<Unreadable>, u64) {
        (lock(&self.unreadable).clone(), get(&self.unreadable_count))
    }

    /// How many files (all that is not a folder) were seen and could be read.
    pub(crate) fn files(&self) -> u64 {
        get(&self.files)
    }

    /// How many folders, with the root, were seen.
    pub(crate) fn folders(&self) -> u64 {
        get(&self.folders)
    }

    /// Bytes of these files.
    pub(crate) fn bytes(&self) -> u64 {
        get(&self.bytes)
    }

    /// How many bytes were read from files; holes are not.
    pub(crate) fn read_bytes(&self) -> u64 {
        get(&self.read_bytes)
    }
}

/// What was stored, and how it compares with the parent.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) entries: AtomicU64,
    pub(crate) tree_bytes: AtomicU64,
    pub(crate) files_new: AtomicU64,
    pub(crate) files_changed: AtomicU64,
    pub(crate) files_unmodified: AtomicU64,
    pub(crate) folders_new: AtomicU64,
    pub(crate) folders_changed: AtomicU64,
    pub(crate) folders_unmodified: AtomicU64,
    pub(crate) data: Added,
    pub(crate) trees: Added,
}

/// Blobs of one kind that were not there before.
#[derive(Default)]
pub(crate) struct Added {
    pub(crate) blobs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) packed: AtomicU64,
}

impl Added {
    pub(super) fn count(&self, bytes: usize, packed: usize) {
        add(&self.blobs, 1);
        add(&self.bytes, bytes as u64);
        add(&self.packed, packed as u64);
    }
}

impl Counts {
    /// A finished tree, with so many entries and bytes.
    pub(super) fn count_tree(&self, entries: u64, bytes: u64) {
        add(&self.entries, entries);
        add(&self.tree_bytes, bytes);
    }

    pub(super) fn compare_tree(&self, parent: Option<Id>, id: Id) {
        add(
            match parent {
                None => &self.folders_new,
                Some(parent) if parent == id => &self.folders_unmodified,
                Some(_) => &self.folders_changed,
            },
            1,
        );
    }

    pub(super) fn compare_file(&self, is_known: bool, is_unchanged: bool) {
        add(
            match (is_known, is_unchanged) {
                (_, true) => &self.files_unmodified,
                (true, false) => &self.files_changed,
                (false, false) => &self.files_new,
            },
            1,
        );
    }
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
