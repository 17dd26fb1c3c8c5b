//! The data path of a backup: one thread walks, all cores read, cut, hash, compress and seal, two threads write packs.
//!
//! ```text
//!   walk --files--> workers --sealed blobs--> packs --full packs--> writers --> packs, index files
//!     \--what needs no reading--> trees <--contents--/
//! ```
//!
//! Workers that have nothing to do walk along.
//!
//! What holds here:
//! - Every queue is bounded, and so is memory: by the workers' buffers, four packs, the folders being walked, and the index.
//! - Nothing is lost in silence: what cannot be read is in the [`Ledger`], and any other failure ends the run.
//! - No thread's panic passes the border: it fails the run.
//! - A run leaves packs and index files, and no snapshot. A crash leaves the packs in flight without an index.

mod branch;
mod chunk;
mod entries;
mod ledger;
mod pack;
mod queue;
mod read;
mod walk;

pub use ledger::Unreadable;
pub(crate) use ledger::{Counts, Ledger, get};
pub(crate) use pack::Pack;

use crate::back_up::ChangeDetection;
use crate::backend::lock;
use crate::fault::{Fault, guarded_call};
use crate::index::Indexed;
use crate::metadata::Folder;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::seal::{LongSealed, Press, Pressed, Seal, hash};
use chunk::Chunker;
use jiff::Timestamp;
use pack::{FullPack, Packer, pack_queue};
use queue::{Job, Queue};
use read::{ChunkJob, FileJob, press_chunk, read_file};
use rustic_core::Id;
use rustic_core::repofile::{BlobType, Node};
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock};
use walk::{FolderJob, walk, walk_folder};

/// At most so many workers: each has buffers of several megabytes.
const WORKERS: usize = 8;

/// The moments at which tests interfere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A folder's names were read, and none of its entries was looked at.
    Listed,
    /// A file is about to be handed to the workers.
    Seen,
    /// A file is open, and not read.
    Opened,
}

/// Called with a path in the volume, so that tests can interfere at that very moment.
pub(crate) type Hook = Option<Arc<dyn Fn(Moment, &Path) + Send + Sync>>;

/// What is to be copied, and where from.
pub(crate) struct Source<'a> {
    pub(crate) root: Folder,
    /// The path of the root in the snapshot.
    pub(crate) as_path: &'a Path,
    /// The root's node in the parent snapshot.
    pub(crate) parent: Option<Node>,
    /// Bytes and files, where they are known beforehand; otherwise they are counted.
    pub(crate) estimate: Option<(u64, u64)>,
}

/// What of the parent snapshot is trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trust {
    pub(crate) change_detection: ChangeDetection,
    /// Times before this one; none where there is no parent.
    pub(crate) settled_before: Option<Timestamp>,
    /// Whether its nodes are what lvault would write itself.
    pub(crate) takes_nodes: bool,
}

/// One run of the pipeline: what all its threads share.
pub(crate) struct Run {
    pub(crate) ledger: Ledger,
    pub(crate) counts: Counts,
    indexed: Indexed,
    seal: Seal,
    chunker: Chunker,
    trust: Trust,
    queue: Queue<FolderJob, FileJob, ChunkJob>,
    packer: Packer,
    /// Blobs that this run stores.
    added: Mutex<HashSet<(BlobType, [u8; 32])>>,
    zeros: OnceLock<Id>,
    tree: Mutex<Option<Id>>,
    progress: Arc<dyn Progress>,
    hook: Hook,
    failure: Mutex<Option<Fault>>,
    failed: AtomicBool,
    stopped: AtomicBool,
    /// Walks that are under way.
    walks: AtomicUsize,
    /// Whether all of them are over, so that everything was seen.
    walked: AtomicBool,
}

/// What a thread that stores blobs has for itself.
struct Worker {
    press: Press,
    /// What was read and is not cut yet.
    buffer: Vec<u8>,
    /// Whether the blob before was new, as the next one then mostly is.
    expects_new: bool,
    packs: SyncSender<FullPack>,
}

impl Run {
    pub(crate) fn new(
        repository: &Repository,
        indexed: Indexed,
        trust: Trust,
        progress: Arc<dyn Progress>,
        hook: Hook,
    ) -> Self {
        Self {
            ledger: Ledger::default(),
            counts: Counts::default(),
            indexed,
            seal: repository.seal().clone(),
            chunker: Chunker::new(repository.polynomial()),
            trust,
            queue: Queue::new(),
            packer: Packer::new(repository.storage(), repository.seal()),
            added: Mutex::default(),
            zeros: OnceLock::new(),
            tree: Mutex::default(),
            progress,
            hook,
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            walks: AtomicUsize::new(0),
            walked: AtomicBool::new(false),
        }
    }

    /// Copies everything, and answers with the id of the outermost tree; `None` when the run was stopped, or when the root
    /// could not be read (which is in the ledger). All that the tree needs is on disk and in an index then.
    pub(crate) fn copy(&self, source: Source<'_>) -> Result<Option<Id>, Fault> {
        let (packs, full_packs) = pack_queue();
        std::thread::scope(|scope| {
            for _ in 0..self.packer.writers() {
                scope.spawn(|| {
                    self.guard(|| self.packer.write_packs(self, &full_packs));
                    // Whatever happened, nobody waits for room in the queue: a failed run throws its packs away here.
                    self.guard(|| self.packer.write_packs(self, &full_packs));
                });
            }
            std::thread::scope(|scope| {
                let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, WORKERS));
                for _ in 0..threads {
                    let packs = packs.clone();
                    scope.spawn(move || self.guard(|| self.work(packs)));
                }
                self.guard(|| self.walk(source, packs.clone()));
                self.queue.close();
            });
            for pack in self.packer.rest() {
                // A writer that is gone has failed the run.
                let _ = packs.send(pack);
            }
            drop(packs);
        });
        if !self.has_ended() {
            self.guard(|| self.packer.finish());
        }
        match lock(&self.failure).take() {
            Some(fault) => Err(fault),
            None => Ok(lock(&self.tree).take().filter(|_| !self.is_stopped())),
        }
    }

    fn worker(&self, packs: SyncSender<FullPack>) -> Result<Worker, Fault> {
        let expects_new = self.indexed.list(BlobType::Data).is_empty();
        Ok(Worker { press: Press::new(self.seal.clone())?, buffer: Vec::new(), expects_new, packs })
    }

    fn walk(&self, source: Source<'_>, packs: SyncSender<FullPack>) -> Result<(), Fault> {
        let mut worker = self.worker(packs)?;
        let counted = Folder::open(&source.root.followed());
        std::thread::scope(|scope| {
            match (source.estimate, counted) {
                (Some((bytes, files)), _) => self.progress.total(bytes, files),
                (None, Ok(root)) => {
                    scope.spawn(move || {
                        let (bytes, files) = walk::count(&root, self);
                        if !self.walked.load(Ordering::Acquire) {
                            self.progress.total(bytes, files);
                        }
                    });
                }
                (None, Err(_)) => {}
            }
            walk(self, &mut worker, source.root, source.as_path, source.parent.as_ref());
        });
        Ok(())
    }

    fn work(&self, packs: SyncSender<FullPack>) -> Result<(), Fault> {
        let worker = &mut self.worker(packs)?;
        while let Some(job) = self.queue.next() {
            match job {
                Job::Folder(folder) => {
                    let _busy = Busy(&self.queue);
                    walk_folder(self, worker, folder);
                }
                Job::File(file) => {
                    let _busy = Busy(&self.queue);
                    read_file(self, worker, file);
                }
                Job::Chunk(chunk) => press_chunk(self, worker, chunk),
            }
        }
        Ok(())
    }

    /// Stores a blob, unless it is there already or on its way.
    fn store(&self, kind: BlobType, content: &[u8], worker: &mut Worker) -> Result<Id, Fault> {
        // Where the last one was new, this one is pressed at once: its hash comes from what it opens to again, and need not be computed
        // twice.
        let expected = (!worker.expects_new).then(|| hash(content));
        if let Some(hash) = expected
            && !self.claim(kind, hash)
        {
            return Ok(Id::new(hash));
        }
        let pressed = worker.press.press(content, expected.as_ref())?;
        let (hash, id) = (pressed.hash, Id::new(pressed.hash));
        if expected.is_none() && !self.claim(kind, hash) {
            worker.expects_new = false;
            return Ok(id);
        }
        worker.expects_new = true;
        self.add(kind, &pressed, content.len(), &worker.packs)?;
        Ok(id)
    }

    /// The same of a tree that is sealed already.
    fn store_long_tree(&self, tree: LongSealed, worker: &Worker) -> Result<Id, Fault> {
        let LongSealed { hash, sealed, raw_length } = tree;
        if self.claim(BlobType::Tree, hash) {
            let pressed = Pressed { hash, sealed: &sealed, raw_length: Some(raw_length) };
            self.add(BlobType::Tree, &pressed, raw_length as usize, &worker.packs)?;
        }
        Ok(Id::new(hash))
    }

    /// Puts a blob that has this length before compression into a pack.
    fn add(
        &self,
        kind: BlobType,
        pressed: &Pressed<'_>,
        length: usize,
        packs: &SyncSender<FullPack>,
    ) -> Result<(), Fault> {
        match kind {
            BlobType::Data => &self.counts.data,
            BlobType::Tree => &self.counts.trees,
        }
        .count(length, pressed.sealed.len());
        if let Some(pack) = self.packer.add(kind, pressed)
            && packs.send(pack).is_err()
        {
            return Err(Fault::Panicked { what: "the threads that write packs are gone".to_owned() });
        }
        Ok(())
    }

    /// Whether a blob is stored nowhere, so that whoever asks first has to store it.
    fn claim(&self, kind: BlobType, hash: [u8; 32]) -> bool {
        self.indexed.place(kind, &Id::new(hash)).is_none() && lock(&self.added).insert((kind, hash))
    }

    /// Bytes that were written to the storage.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.packer.stored_bytes()
    }

    /// Notes what could not be read.
    fn record(&self, path: &Path, reason: &std::io::Error) {
        let reason = reason.to_string();
        self.progress.unreadable(path, &reason);
        self.ledger.record(path, reason);
    }

    fn at(&self, moment: Moment, path: &Path) {
        if let Some(hook) = &self.hook {
            hook(moment, path);
        }
    }

    /// Ends the run with its first failure.
    fn fail(&self, fault: Fault) {
        lock(&self.failure).get_or_insert(fault);
        self.failed.store(true, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.failed.load(Ordering::Acquire) || self.is_stopped()
    }

    /// Whether the caller has asked to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Whether to end early; asks the caller.
    fn must_end(&self) -> bool {
        if self.progress.should_stop() {
            self.stopped.store(true, Ordering::Release);
        }
        self.has_ended()
    }

    /// Runs a thread's work; its error and its panic fail the run, and let nobody wait for it.
    fn guard(&self, work: impl FnOnce() -> Result<(), Fault>) {
        if let Err(fault) = guarded_call(work).and_then(|result| result) {
            self.fail(fault);
            self.queue.close();
        }
    }
}

/// Tells the queue that a job is done that may bring others, also when it panics.
struct Busy<'a>(&'a Queue<FolderJob, FileJob, ChunkJob>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}
