//! The last acknowledged resource version, in a small file beside the store: a witness against a disk that forgets.
//!
//! The store's own file may open one commit back when a disk loses part of the last one, and from that file alone this looks like a
//! crash before the commit. The witness is written after each commit was synced, without a sync of its own: so it never names more than
//! the file holds, and a file that holds less has lost what was acknowledged. After a power failure the witness itself may be a
//! little older; then it finds less, and accuses nobody wrongly.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// An open witness.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
}

/// Where the witness of a store lies.
pub(crate) fn path_of(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".acknowledged");
    PathBuf::from(name)
}

/// Forgets what was acknowledged in a store that is gone. Idempotent.
pub(super) fn forget(store: &Path) -> io::Result<()> {
    match fs::remove_file(path_of(store)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Witness {
    /// Opens it, or makes an empty one; and what it names. What cannot be read names nothing: a witness that is itself damaged must
    /// not keep a whole store closed.
    pub(super) fn open(store: &Path) -> io::Result<(Witness, Option<u64>)> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path_of(store))?;
        let mut text = String::new();
        let named = file.read_to_string(&mut text).ok().and_then(|_| text.trim_end().parse().ok());
        Ok((Witness { file }, named))
    }

    /// Names a resource version. A crash in the middle leaves the one before, for the text is of one length.
    pub(super) fn note(&self, revision: u64) -> io::Result<()> {
        self.file.write_all_at(format!("{revision:020}\n").as_bytes(), 0)
    }

    /// Makes it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
