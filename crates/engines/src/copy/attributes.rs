//! What belongs to a file beside its content: owner, mode, extended attributes (with them ACLs and capabilities), times.
//!
//! Root carries over everything. Others cannot give files away, nor set what only root may set: those stay behind, as
//! with `cp -a`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Statx, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, futimens, lgetxattr, llistxattr, lsetxattr, utimensat,
};
use rustix::io::Errno;

/// The most that Linux gives for the value of one attribute, and for the list of names.
const XATTR_MAX: usize = 64 << 10;

/// One entry: open, or named in an open folder where it cannot be opened (links, fifos, sockets, devices).
#[derive(Clone, Copy)]
pub(super) enum Node<'n> {
    Open(BorrowedFd<'n>),
    Named(BorrowedFd<'n>, &'n CStr),
}

/// Gives `into` the attributes of `from`. In this order: a change of owner clears setuid and capabilities; what may not be
/// written to takes no attributes of a user; and all of it changes times.
pub(super) fn carry_over(from: Node<'_>, into: Node<'_>, stat: &Statx, root: bool) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(stat.stx_mode.into());
    let is_link = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Symlink;
    if root {
        into.chown(Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid))?;
    }
    carry_xattrs(from, into, root)?;
    if !is_link {
        into.chmod(mode)?;
    }
    let time = |time: rustix::fs::StatxTimestamp| Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec.into() };
    into.set_times(&Timestamps { last_access: time(stat.stx_atime), last_modification: time(stat.stx_mtime) })
}

fn carry_xattrs(from: Node<'_>, into: Node<'_>, root: bool) -> Result<(), Errno> {
    let names = match from.xattr_names() {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let value = match from.xattr(name) {
            Ok(value) => value,
            // Removed since the names were read.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error),
        };
        match into.set_xattr(name, &value) {
            Err(Errno::PERM | Errno::OPNOTSUPP) if !root && only_root_may_set(name) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn only_root_may_set(name: &CStr) -> bool {
    [b"security.".as_slice(), b"trusted."].iter().any(|prefix| name.to_bytes().starts_with(prefix))
}

impl Node<'_> {
    fn chown(self, owner: Uid, group: Gid) -> Result<(), Errno> {
        match self {
            Node::Open(fd) => fchown(fd, Some(owner), Some(group)),
            Node::Named(at, name) => chownat(at, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn chmod(self, mode: Mode) -> Result<(), Errno> {
        match self {
            Node::Open(fd) => fchmod(fd, mode),
            Node::Named(at, name) => chmodat(at, name, mode, AtFlags::empty()),
        }
    }

    fn set_times(self, times: &Timestamps) -> Result<(), Errno> {
        match self {
            Node::Open(fd) => futimens(fd, times),
            Node::Named(at, name) => utimensat(at, name, times, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn xattr_names(self) -> Result<Vec<u8>, Errno> {
        let mut names = vec![0; XATTR_MAX];
        let length = match self {
            Node::Open(fd) => flistxattr(fd, names.as_mut_slice()),
            Node::Named(at, name) => llistxattr(path_of(at, name), names.as_mut_slice()),
        }?;
        names.truncate(length);
        Ok(names)
    }

    fn xattr(self, attribute: &CStr) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0; XATTR_MAX];
        let length = match self {
            Node::Open(fd) => fgetxattr(fd, attribute, value.as_mut_slice()),
            Node::Named(at, name) => lgetxattr(path_of(at, name), attribute, value.as_mut_slice()),
        }?;
        value.truncate(length);
        Ok(value)
    }

    fn set_xattr(self, attribute: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Node::Open(fd) => fsetxattr(fd, attribute, value, XattrFlags::empty()),
            Node::Named(at, name) => lsetxattr(path_of(at, name), attribute, value, XattrFlags::empty()),
        }
    }
}

/// These calls know no folder descriptors; the kernel's own path to the folder leads to the very one that is open.
fn path_of(at: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}
