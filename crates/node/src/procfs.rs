//! Ending the process that holds a lock, and no other.
//!
//! The executor of a volume is whoever has its lock file open: the agent opened it, locked it and handed it down. So
//! it is found by that file, not by a number that another process may have by now.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Kills every other process that has `lock` open. Returns how many there were. Idempotent.
pub(crate) fn kill_holders(lock: &File) -> io::Result<usize> {
    let metadata = lock.metadata()?;
    let file = (metadata.dev(), metadata.ino());
    let own = std::process::id();
    let mut killed = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()).filter(|pid| *pid != own) else {
            continue;
        };
        if !has_open(&entry.path(), file) {
            continue;
        }
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        // Once the pidfd is open the number cannot be another process's any more; so look again before the kill.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if has_open(&entry.path(), file) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            killed += 1;
        }
    }
    Ok(killed)
}

/// Whether a process has this file open. One that ended meanwhile has not.
fn has_open(process: &Path, file: (u64, u64)) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        fs::metadata(descriptor.path()).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == file)
    })
}
