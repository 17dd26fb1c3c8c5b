//! Reading one file whole, or saying why not.

use super::Shared;
use crate::metadata::Folder;
use rustic_core::{ErrorKind, ReadSourceOpen, RusticError, RusticResult};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file that was seen and may be opened. Dropped unopened, it was found unchanged.
pub(crate) struct OpenFile(Option<Seen>);

/// A file as the walk saw it.
struct Seen {
    folder: Arc<Folder>,
    name: OsString,
    path: PathBuf,
    stat: Metadata,
    shared: Arc<Shared>,
}

impl OpenFile {
    pub(super) fn new(folder: Arc<Folder>, name: OsString, path: PathBuf, stat: Metadata, shared: Arc<Shared>) -> Self {
        Self(Some(Seen { folder, name, path, stat, shared }))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(seen) = &self.0 {
            seen.shared.progress.file_done();
        }
    }
}

impl ReadSourceOpen for OpenFile {
    type Reader = Reader;

    fn open(mut self) -> RusticResult<Reader> {
        let Some(seen) = self.0.take() else {
            return Err(RusticError::new(ErrorKind::Internal, "a file was opened twice"));
        };
        let opened = seen.folder.open_file(&seen.name).and_then(|file| {
            let now = file.metadata()?;
            let same =
                (now.dev(), now.ino(), now.file_type()) == (seen.stat.dev(), seen.stat.ino(), seen.stat.file_type());
            if same { Ok(file) } else { Err(io::Error::other("the file was replaced while the folder was read")) }
        });
        match opened {
            Ok(file) => {
                if let Some(hook) = &seen.shared.hook {
                    hook(&seen.path);
                }
                Ok(Reader { remaining: seen.stat.len(), state: State::Reading, file, seen })
            }
            Err(err) => {
                seen.shared.ledger.record(&seen.path, &err);
                Err(RusticError::with_source(ErrorKind::InputOutput, "a file could not be opened", err))
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// Read whole, and unchanged at the end.
    Whole,
    /// In the ledger.
    Failed,
}

/// Reads exactly as many bytes as the file had when it was seen.
pub(crate) struct Reader {
    file: File,
    remaining: u64,
    state: State,
    seen: Seen,
}

impl Reader {
    fn fail(&mut self, err: io::Error) -> io::Error {
        self.state = State::Failed;
        self.seen.shared.ledger.record(&self.seen.path, &err);
        err
    }

    fn finish(&mut self) -> io::Result<()> {
        let now = self.file.metadata().map_err(|err| self.fail(err))?;
        if fingerprint(&now) == fingerprint(&self.seen.stat) {
            self.state = State::Whole;
            return Ok(());
        }
        Err(self.fail(io::Error::other("the file changed while it was read")))
    }
}

/// What every change of a file's content changes.
fn fingerprint(stat: &Metadata) -> (u64, i64, i64, i64, i64) {
    (stat.len(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec())
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.seen.shared.must_end() {
            return Err(io::Error::other("the backup ends early"));
        }
        let wanted = usize::try_from(self.remaining).map_or(buffer.len(), |remaining| remaining.min(buffer.len()));
        if wanted == 0 {
            if self.remaining == 0 && self.state == State::Reading {
                self.finish()?;
            }
            return Ok(0);
        }
        let read = match self.file.read(&mut buffer[..wanted]) {
            Ok(read) => read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => return Err(err),
            Err(err) => return Err(self.fail(err)),
        };
        if read == 0 {
            let missing = self.remaining;
            let text = format!("the file is {missing} bytes shorter than it was when the backup saw it first");
            return Err(self.fail(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        self.remaining -= read as u64;
        self.seen.shared.ledger.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        if self.remaining == 0 {
            self.finish()?;
        }
        Ok(read)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let shared = &self.seen.shared;
        if self.state == State::Reading && !shared.gate.is_closed() {
            shared.ledger.record(&self.seen.path, "the file was not read to its end");
        }
        shared.progress.file_done();
    }
}
