//! One owner for each state folder. Two agents over the same volumes cannot be made safe, so there is only one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held as long as the agent lives; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct OwnerLock {
    _file: File,
}

/// Why the state folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Another process owns it.
    #[error("the state folder {folder} belongs to another lvault{holder}: stop that one, or use another --state-dir")]
    Owned {
        /// The folder.
        folder: PathBuf,
        /// The other process, where it is known.
        holder: String,
    },
    /// The lock could not be tried.
    #[error("cannot lock the state folder {folder}: {source}; does it exist, and may this user write to it?")]
    Lock {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}

/// Takes the state folder for this process.
pub fn lock_owner(folder: &Path) -> Result<OwnerLock, OwnerError> {
    let failed = |source: std::io::Error| OwnerError::Lock { folder: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join("owner.lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            let holder = if known { format!(" (process {})", pid.trim()) } else { String::new() };
            return Err(OwnerError::Owned { folder: folder.to_owned(), holder });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    // For the message above only; the lock is what counts.
    let note = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    note.map_err(failed)?;
    Ok(OwnerLock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = lock_owner(folder.path()).expect("nobody owns it");
        let refused = lock_owner(folder.path()).expect_err("it has an owner").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        assert!(lock_owner(folder.path()).is_ok());
    }
}
