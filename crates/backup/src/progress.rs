//! How a long operation tells what it does, and how it is asked to stop.

use std::path::Path;

/// The part of an operation that runs now. Counts start again at zero with each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Data is read from the volume and written to the repository.
    Copying,
    /// Data is read from the repository and written to the volume.
    Restoring,
    /// What was written is read back and compared.
    Verifying,
    /// What nobody needs is searched and removed.
    Pruning,
}

/// Receives the progress of a backup, a verification or a restore.
///
/// The methods are called from several threads at once, often, and in the middle of the work: they have to be quick and
/// must not panic. All of them have an empty default.
pub trait Progress: Send + Sync {
    /// A step begins; bytes and files count from zero again.
    fn step(&self, _step: Step) {}
    /// The whole of this step: so many bytes in so many files (everything that is not a folder). Arrives once a step, at
    /// its beginning or a little later.
    fn total(&self, _bytes: u64, _files: u64) {}
    /// This many more bytes are done (unchanged files count with their full size).
    fn bytes(&self, _bytes: u64) {}
    /// One more file is done.
    fn file_done(&self) {}
    /// Something of the volume cannot be read, and why. Called for all of it, in no order.
    fn unreadable(&self, _path: &Path, _reason: &str) {}
    /// The operation waits for somebody else who holds a lock; called again and again meanwhile.
    fn waiting(&self, _for_lock: &str) {}
    /// Whether the operation should stop: it then ends soon with a `Stopped` error and leaves no snapshot.
    fn should_stop(&self) -> bool {
        false
    }
    /// Whether the backup may become visible: asked once, when all data is stored and directly before the snapshot file is
    /// written. It may block, for as long as the answer takes to find. After `false` the backup ends with a `Stopped`
    /// error and leaves no snapshot.
    fn may_commit(&self) -> bool {
        true
    }
}

/// Progress that nobody looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
