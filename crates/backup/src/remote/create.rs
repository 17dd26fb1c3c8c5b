//! Creating a file that only the first writer may create, on servers of which some ignore that condition.
//!
//! With S3 the condition is `If-None-Match: *`, and some servers take no notice of it: all writers succeed, and the last
//! one's content stays. So it is tried: the same content is created again, which a server that honours the condition
//! refuses. On one that does not, every writer looks for the file right before it writes, has [`WRITE`] for each of these
//! three requests (a look that took longer is made again), waits for [`SETTLE`] afterwards, which is longer than all of
//! them, and reads again: by then all writers who found no file have written, and all of them see the same last content.
//! An answer that was lost is looked for in the same way. A server that honours the condition, but looks and writes in two steps,
//! lets writers through that come at the same instant: so the file is read again after [`PAUSE`] there too.

use crate::storage::{Cause, CauseKind, Storage, StorageError};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// A conditional write is given up after this time.
pub(crate) const WRITE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5000 });
/// After this time, nobody writes any more who found no file when we wrote: a look, a write and the trial of the condition
/// have ended.
pub(crate) const SETTLE: Duration = Duration::from_millis(if cfg!(test) { 1700 } else { 17_000 });
const _: () = assert!(SETTLE.as_millis() > 3 * WRITE.as_millis());
/// The pause before a write whose answer was lost is made again, and before the last look at a server that honours the condition.
const PAUSE: Duration = Duration::from_millis(500);

/// How a conditional write ended.
pub(crate) enum Created {
    /// The server says that it is written.
    Written,
    /// The server says that there is a file already.
    Exists,
    /// The server knows no conditions.
    Unconditional,
    /// There is no telling: the answer was lost, or the server could not answer.
    Unknown(Cause),
    /// Refused.
    Refused(Cause),
}

/// Creates `name`, or answers [`CauseKind::Exists`] when another content is or gets there.
///
/// Idempotent for the same content. A crash in the middle leaves the file or no file.
pub(crate) fn create(storage: &Storage, name: &str, content: &Bytes, patience: Duration) -> Result<(), StorageError> {
    let failed = |cause| StorageError::Write { path: storage.path(name), cause };
    let started = Instant::now();
    loop {
        let asked = Instant::now();
        match look(storage, name, content)? {
            Some(true) => return still_there(storage, name, content, SETTLE),
            Some(false) => return Err(failed(exists())),
            // What it says may be too old to act upon.
            None if asked.elapsed() > WRITE && started.elapsed() < patience => continue,
            None if asked.elapsed() > WRITE => return Err(failed(slow())),
            None => {}
        }
        match storage.create_once(name, content)? {
            Created::Written => break,
            Created::Unconditional => {
                storage.overwrite_once(name, content)?.map_err(failed)?;
                return still_there(storage, name, content, SETTLE);
            }
            Created::Refused(cause) => return Err(failed(cause)),
            Created::Exists if started.elapsed() >= patience => return Err(failed(exists())),
            Created::Unknown(cause) if started.elapsed() >= patience => return Err(failed(cause)),
            // Another one's, or our own whose answer was lost: the next look tells.
            Created::Exists | Created::Unknown(_) => std::thread::sleep(PAUSE),
        }
    }
    match storage.create_once(name, content)? {
        Created::Exists => still_there(storage, name, content, PAUSE),
        Created::Written | Created::Unconditional | Created::Unknown(_) | Created::Refused(_) => {
            still_there(storage, name, content, SETTLE)
        }
    }
}

/// Whether the file is there with this content (`true`) or with another one (`false`).
fn look(storage: &Storage, name: &str, content: &Bytes) -> Result<Option<bool>, StorageError> {
    match storage.read(name) {
        Ok(found) => Ok(Some(found == *content)),
        Err(err) if err.kind() == CauseKind::Missing => Ok(None),
        Err(err) => Err(err),
    }
}

/// Looks once more, after this time, whether the file is the one that was written here.
fn still_there(storage: &Storage, name: &str, content: &Bytes, after: Duration) -> Result<(), StorageError> {
    std::thread::sleep(after);
    match look(storage, name, content)? {
        Some(true) => Ok(()),
        Some(false) | None => Err(StorageError::Write { path: storage.path(name), cause: exists() }),
    }
}

fn slow() -> Cause {
    let text = format!("the server takes more than {} s to say that there is no such file", WRITE.as_secs());
    Cause { kind: CauseKind::Busy, text }
}

fn exists() -> Cause {
    Cause { kind: CauseKind::Exists, text: "there is such a file already".to_owned() }
}

#[cfg(test)]
mod tests;
