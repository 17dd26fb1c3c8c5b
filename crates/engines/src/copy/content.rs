//! The content of one file: shared where the filesystem can share blocks, otherwise copied without its holes.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

const BUFFER: usize = 1 << 20;

/// Makes the empty file `into` hold what `from` holds, of which `length` bytes were there when it was looked at; answers
/// whether the blocks are shared. `reflink` is cleared once the filesystem has said that it cannot share.
pub(super) fn copy(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: u64, reflink: &mut bool) -> Result<bool, Errno> {
    if *reflink {
        match ioctl_ficlone(into, from) {
            Ok(()) => return Ok(true),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => *reflink = false,
            // One file may be special (immutable, swapped on): its neighbours may still be shared.
            Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    copy_data(from, into, length)?;
    Ok(false)
}

/// Copies what is not a hole. No more than `length`: a file that grows faster than it is copied must not keep us.
fn copy_data(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: u64) -> Result<(), Errno> {
    ftruncate(into, length)?;
    let mut position = 0;
    while position < length {
        let start = match seek(from, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error),
        };
        let end = seek(from, SeekFrom::Hole(start))?.min(length);
        position = start;
        while position < end {
            let copied = copy_some(from, into, position, end - position)?;
            if copied == 0 {
                // The file was cut off meanwhile; so is the copy.
                return ftruncate(into, position);
            }
            position += copied;
        }
    }
    Ok(())
}

fn copy_some(from: BorrowedFd<'_>, into: BorrowedFd<'_>, position: u64, length: u64) -> Result<u64, Errno> {
    let (mut read_at, mut write_at) = (position, position);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
    match copy_file_range(from, Some(&mut read_at), into, Some(&mut write_at), wanted) {
        Ok(copied) if copied > 0 => return Ok(copied as u64),
        // Zero is also what some filesystems say that cannot; reading tells.
        Ok(_) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    let mut buffer = vec![0; wanted.min(BUFFER)];
    let read = pread(from, buffer.as_mut_slice(), position)?;
    let mut written = 0;
    while written < read {
        written += pwrite(into, &buffer[written..read], position + written as u64)?;
    }
    Ok(read as u64)
}
