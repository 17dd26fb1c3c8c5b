//! What the kernel tells of one entry of a folder, asked for by the folder's descriptor.

use super::Folder;
use jiff::Timestamp;
use rustic_core::repofile::NodeType;
use rustix::fs::{AtFlags, CWD, FileType, RawMode, Statx, StatxFlags, StatxTimestamp, makedev, statx};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The state of an entry, links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The file system it lies on.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Type and permissions, as the kernel writes them.
    pub(crate) mode: u32,
    pub(crate) links: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The number of a device file.
    pub(crate) special: u64,
    /// In bytes.
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Seconds and nanoseconds.
    pub(crate) ctime: (i64, u32),
}

impl From<Statx> for Stat {
    fn from(stat: Statx) -> Self {
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Self {
            device: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            mode: stat.stx_mode.into(),
            links: stat.stx_nlink.into(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            special: makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
        }
    }
}

impl Stat {
    /// The state of an open file or folder.
    pub(crate) fn of(open: impl AsFd) -> io::Result<Self> {
        Ok(statx(open, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?.into())
    }

    /// The state of an entry.
    pub(crate) fn at(folder: &Folder, name: &OsStr) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(statx(folder.fd(), name, flags, StatxFlags::BASIC_STATS)?.into())
    }

    /// The state of what lies at a path.
    pub(crate) fn at_path(path: &Path) -> io::Result<Self> {
        Ok(statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?.into())
    }

    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode as RawMode)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether both are of one and the same thing, whatever became of it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode, self.kind()) == (other.device, other.inode, other.kind())
    }

    /// What every change of a file's content changes.
    pub(crate) fn fingerprint(&self) -> impl PartialEq + use<> {
        (self.size, self.mtime, self.ctime)
    }

    /// The size that a node has: only files have one.
    pub(crate) fn node_size(&self) -> u64 {
        if self.is_file() { self.size } else { 0 }
    }

    /// The number of links that a node has: folders have none.
    pub(crate) fn node_links(&self) -> u64 {
        if self.is_folder() { 0 } else { self.links }
    }

    /// The type that a node has; `link` reads a symbolic link's target.
    pub(crate) fn node_type(&self, link: impl FnOnce() -> io::Result<PathBuf>) -> io::Result<NodeType> {
        match self.kind() {
            FileType::RegularFile => Ok(NodeType::File),
            FileType::Directory => Ok(NodeType::Dir),
            FileType::Symlink => Ok(NodeType::from_link(&link()?)),
            FileType::BlockDevice => Ok(NodeType::Dev { device: self.special }),
            FileType::CharacterDevice => Ok(NodeType::Chardev { device: self.special }),
            FileType::Fifo => Ok(NodeType::Fifo),
            FileType::Socket => Ok(NodeType::Socket),
            FileType::Unknown => Err(io::Error::other("this kind of file cannot be stored")),
        }
    }
}

/// The target of a symbolic link.
pub(super) fn read_link(folder: &Folder, name: &OsStr) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(folder.fd(), name, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()).into())
}

/// A time of the kernel's.
pub(crate) fn timestamp((seconds, nanoseconds): (i64, u32)) -> io::Result<Timestamp> {
    let out_of_range = || io::Error::other("a time that restic's format cannot hold");
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| out_of_range())?;
    Timestamp::new(seconds, nanoseconds).map_err(|_| out_of_range())
}

/// The path that leads to an entry as long as the folder is open.
pub(super) fn path_at(folder: &Folder, name: &OsStr) -> Vec<u8> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let mut path = Vec::with_capacity(32 + name.len());
    // Writing to memory does not fail.
    let _ = write!(path, "/proc/self/fd/{}/", folder.fd().as_raw_fd());
    path.extend_from_slice(name.as_bytes());
    path
}
