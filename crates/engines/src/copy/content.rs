//! The content of one file: shared where the filesystem can share blocks, otherwise copied without its holes.

use std::os::fd::BorrowedFd;

use rustix::fs::{SeekFrom, copy_file_range, fstat, ftruncate, ioctl_ficlone, seek};
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

/// Copies what is not a hole. No more than `length`: a file that grows faster than it is copied must not keep us. A file
/// that is cut off meanwhile is copied as far as it goes.
fn copy_data(from: BorrowedFd<'_>, into: BorrowedFd<'_>, length: u64) -> Result<(), Errno> {
    ftruncate(into, length)?;
    let mut position = 0;
    while position < length {
        let Some((start, end)) = next_data(from, position)? else {
            let now = u64::try_from(fstat(from)?.st_size).unwrap_or(0);
            return if now < length { ftruncate(into, now) } else { Ok(()) };
        };
        let end = end.min(length);
        position = start;
        while position < end {
            let copied = copy_some(from, into, position, end - position)?;
            if copied == 0 {
                return ftruncate(into, position);
            }
            position += copied;
        }
    }
    Ok(())
}

/// Where the next data at or behind this position begins and ends; none where only a hole, or nothing, is left.
fn next_data(from: BorrowedFd<'_>, position: u64) -> Result<Option<(u64, u64)>, Errno> {
    let both = seek(from, SeekFrom::Data(position))
        .and_then(|start| seek(from, SeekFrom::Hole(start)).map(|end| (start, end)));
    match both {
        Ok(found) => Ok(Some(found)),
        // Also when the file is cut off between the two questions.
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Copies `from`, which was seen with this length, and answers with the copy.
    fn copied(from: &fs::File, folder: &Path, length: u64) -> Vec<u8> {
        let path = folder.join("copy");
        let into = fs::File::create(&path).unwrap();
        super::copy(from.as_fd(), into.as_fd(), length, &mut false).unwrap();
        fs::read(&path).unwrap()
    }

    #[test]
    fn what_was_cut_off_since_it_was_seen_is_not_zeros_in_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::write(&source, [7; 5000]).unwrap();
        let file = fs::File::options().read(true).write(true).open(&source).unwrap();
        assert_eq!(copied(&file, folder.path(), 9000), [7; 5000]);
        file.set_len(0).unwrap();
        assert_eq!(copied(&file, folder.path(), 9000), [0; 0]);
        file.set_len(6000).unwrap();
        assert_eq!(copied(&file, folder.path(), 9000), [0; 6000], "a hole is content");
        file.set_len(20_000).unwrap();
        assert_eq!(copied(&file, folder.path(), 9000), [0; 9000], "no more than was seen");
    }

    #[test]
    fn a_file_that_is_written_anew_all_the_time_can_be_copied() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::write(&source, [7; 20]).unwrap();
        let file = fs::File::open(&source).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::write(&source, [7; 20]).unwrap();
                }
            });
            let copies: Vec<_> = (0..5000).map(|_| copied(&file, folder.path(), 20)).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(copies.iter().all(|copy| copy.len() <= 20));
        });
    }
}
