//! Metadata of files between the file system and restic's tree nodes.
//!
//! Modes are stored as Go's `FileMode` bits. Times are kept to the nanosecond; the access time is stored as the
//! modification time, as restic does, so that reading a file does not change its folder's tree. User and group names are
//! not stored: on another machine, or in a container, they mean somebody else. The device number is stored as zero: a
//! snapshot is mounted on another device each time, and hard links within one file system are told apart by inode.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rustic_core::repofile::Metadata as NodeMetadata;
use rustic_core::repofile::{Node, NodeType};
use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, FileType, Metadata};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHARDEV: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;

/// An open folder. Its entries are reached through it, so that no path gets too long and nobody can swap a parent.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
}

impl Folder {
    /// Opens a folder; a symbolic link is refused.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// The path of an entry, valid in this process as long as the folder is open.
    pub(crate) fn entry(&self, name: &OsStr) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()));
        path.push(name);
        path
    }

    /// The path of the folder itself, which is a link: only for calls that follow it.
    pub(crate) fn followed(&self) -> PathBuf {
        self.entry(OsStr::new("."))
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Opens a file for reading, without touching its access time where that is allowed (to the owner and root).
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        use rustix::fs::{Mode, OFlags};
        // A fifo that took the file's place must not block the open.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        let fd = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            other => other,
        }?;
        Ok(File::from(fd))
    }

    /// The names of all entries, in byte order (the order of restic's trees).
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = std::fs::read_dir(self.followed())?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }
}

/// A folder's or file's mode as Go writes it.
fn go_mode(mode: u32, kind: FileType) -> u32 {
    let mut go = mode & 0o777;
    for (unix, bit) in [(0o4000, GO_SETUID), (0o2000, GO_SETGID), (0o1000, GO_STICKY)] {
        if mode & unix != 0 {
            go |= bit;
        }
    }
    go | if kind.is_dir() {
        GO_DIR
    } else if kind.is_symlink() {
        GO_SYMLINK
    } else if kind.is_block_device() {
        GO_DEVICE
    } else if kind.is_char_device() {
        GO_DEVICE | GO_CHARDEV
    } else if kind.is_fifo() {
        GO_FIFO
    } else if kind.is_socket() {
        GO_SOCKET
    } else {
        0
    }
}

/// The permission bits, with setuid, setgid and sticky, of a mode as Go writes it.
pub(crate) fn permissions(go: u32) -> u32 {
    let mut mode = go & 0o777;
    for (unix, bit) in [(0o4000, GO_SETUID), (0o2000, GO_SETGID), (0o1000, GO_STICKY)] {
        if go & bit != 0 {
            mode |= unix;
        }
    }
    mode
}

/// Makes the tree node of what lies at `path`, under the name `name`.
///
/// Fails when anything of it cannot be read or cannot be stored: a node is whole or it is an error.
pub(crate) fn node(path: &Path, name: &OsStr, stat: &Metadata) -> io::Result<Node> {
    let kind = stat.file_type();
    let node_type = node_type(path, stat)?;
    let mtime = timestamp(stat.mtime(), stat.mtime_nsec())?;
    let is_file = kind.is_file();
    let meta = NodeMetadata {
        mode: Some(go_mode(stat.mode(), kind)),
        mtime: Some(mtime),
        atime: Some(mtime),
        ctime: Some(timestamp(stat.ctime(), stat.ctime_nsec())?),
        uid: Some(stat.uid()),
        gid: Some(stat.gid()),
        user: None,
        group: None,
        inode: stat.ino(),
        device_id: 0,
        size: if is_file { stat.len() } else { 0 },
        links: if kind.is_dir() { 0 } else { stat.nlink() },
        extended_attributes: Vec::new(),
    };
    let mut node = Node::new_node(name, node_type, meta);
    let mut stored = Vec::new();
    for (name, value) in attributes(path)? {
        let name = name.into_string().map_err(|name| {
            io::Error::other(format!("the extended attribute {name:?} has a name that restic's format cannot hold"))
        })?;
        stored.push(serde_json::json!({ "name": name, "value": BASE64_STANDARD.encode(value) }));
    }
    // The attribute's type is not exported: it is made the way it is read.
    node.meta.extended_attributes = serde_json::from_value(stored.into())?;
    Ok(node)
}

fn node_type(path: &Path, stat: &Metadata) -> io::Result<NodeType> {
    let kind = stat.file_type();
    if kind.is_file() {
        Ok(NodeType::File)
    } else if kind.is_dir() {
        Ok(NodeType::Dir)
    } else if kind.is_symlink() {
        Ok(NodeType::from_link(&std::fs::read_link(path)?))
    } else if kind.is_block_device() {
        Ok(NodeType::Dev { device: stat.rdev() })
    } else if kind.is_char_device() {
        Ok(NodeType::Chardev { device: stat.rdev() })
    } else if kind.is_fifo() {
        Ok(NodeType::Fifo)
    } else if kind.is_socket() {
        Ok(NodeType::Socket)
    } else {
        Err(io::Error::other("this kind of file cannot be stored"))
    }
}

fn timestamp(seconds: i64, nanoseconds: i64) -> io::Result<Timestamp> {
    let out_of_range = || io::Error::other("a time that restic's format cannot hold");
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| out_of_range())?;
    Timestamp::new(seconds, nanoseconds).map_err(|_| out_of_range())
}

/// Seconds and nanoseconds as the kernel counts them: nanoseconds are never negative.
pub(crate) fn kernel_time(time: Timestamp) -> (i64, i64) {
    let (seconds, nanoseconds) = (time.as_second(), i64::from(time.subsec_nanosecond()));
    if nanoseconds < 0 { (seconds - 1, nanoseconds + 1_000_000_000) } else { (seconds, nanoseconds) }
}

/// All extended attributes (ACLs and capabilities among them) of what lies at `path`, links not followed, sorted by name.
/// A file system without extended attributes has none.
pub(crate) fn attributes(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    attributes_by(|buffer| llistxattr(path, buffer), |name, buffer| lgetxattr(path, name, buffer))
}

/// The same of an open file.
fn attributes_of(file: &File) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    attributes_by(|buffer| flistxattr(file, buffer), |name, buffer| fgetxattr(file, name, buffer))
}

fn attributes_by(
    list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let names = match grown(list) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(err) => return Err(err.into()),
    };
    let mut attributes = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| Ok((OsString::from_vec(name.to_vec()), grown(|buffer| get(name, buffer))?)))
        .collect::<io::Result<Vec<_>>>()?;
    attributes.sort();
    Ok(attributes)
}

/// Asks again with a larger buffer, up to the kernel's own limit of 64 KiB, until the answer fits.
fn grown(mut ask: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match ask(buffer.as_mut_slice()) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(err) => return Err(err),
        }
    }
}

/// What metadata is given to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// What lies at this path, which may be a symbolic link.
    Path(&'a Path),
    /// An open file or folder, whatever its name is by now and whoever may search its folder.
    Open(BorrowedFd<'a>),
}

/// Gives an entry the owner, extended attributes, mode and times of its node.
///
/// The order matters: changing the owner clears setuid and capabilities, and setting attributes needs write access, so
/// modes come after both; times come last. Everything is tried; what failed is returned by name.
pub(crate) fn apply(at: At<'_>, node: &Node) -> Vec<(&'static str, io::Error)> {
    let mut failed = Vec::new();
    let mut note = |what, result: rustix::io::Result<()>| {
        if let Err(err) = result {
            failed.push((what, err.into()));
        }
    };
    note("the owner", apply_owner(at, node));
    for attribute in &node.meta.extended_attributes {
        note("an extended attribute", apply_attribute(at, &attribute.name, attribute.value.as_deref()));
    }
    if !node.is_symlink()
        && let Some(mode) = node.meta.mode
    {
        let mode = rustix::fs::Mode::from_raw_mode(permissions(mode));
        let done = match at {
            At::Path(path) => rustix::fs::chmod(path, mode),
            At::Open(file) => rustix::fs::fchmod(file, mode),
        };
        note("the mode", done);
    }
    note("the times", apply_times(at, node));
    failed
}

fn apply_owner(at: At<'_>, node: &Node) -> rustix::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat, fchown, fstat, lstat};
    let (Some(uid), Some(gid)) = (node.meta.uid, node.meta.gid) else { return Ok(()) };
    let now = match at {
        At::Path(path) => lstat(path),
        At::Open(file) => fstat(file),
    }?;
    if (now.st_uid, now.st_gid) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match at {
        At::Path(path) => chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        At::Open(file) => fchown(file, uid, gid),
    }
}

fn apply_attribute(at: At<'_>, name: &str, value: Option<&[u8]>) -> rustix::io::Result<()> {
    let (value, flags) = (value.unwrap_or_default(), rustix::fs::XattrFlags::empty());
    match at {
        At::Path(path) => rustix::fs::lsetxattr(path, name, value, flags),
        At::Open(file) => rustix::fs::fsetxattr(file, name, value, flags),
    }
}

fn apply_times(at: At<'_>, node: &Node) -> rustix::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, futimens, utimensat};
    let Some(mtime) = node.meta.mtime else { return Ok(()) };
    let kernel = |time| {
        let (tv_sec, tv_nsec) = kernel_time(time);
        Timespec { tv_sec, tv_nsec }
    };
    let times = Timestamps { last_access: kernel(node.meta.atime.unwrap_or(mtime)), last_modification: kernel(mtime) };
    match at {
        At::Path(path) => utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW),
        At::Open(file) => futimens(file, &times),
    }
}

/// What of the entry at `path` differs from its node, in words; nothing where they agree. Contents are not looked at. Where the
/// entry is `open`, the open file is what is looked at.
pub(crate) fn differences(path: &Path, open: Option<&File>, node: &Node) -> io::Result<Vec<String>> {
    let stat = open.map_or_else(|| std::fs::symlink_metadata(path), File::metadata)?;
    let mut found = Vec::new();
    let mut compare = |what: &str, is: String, should: String| {
        if is != should {
            found.push(format!("{what} is {is} and should be {should}"));
        }
    };
    let now = node_type(path, &stat)?;
    compare("the type", format!("{now:?}"), format!("{:?}", node.node_type));
    if let Some(mode) = node.meta.mode
        && !node.is_symlink()
    {
        compare("the mode", format!("{:04o}", stat.mode() & 0o7777), format!("{:04o}", permissions(mode)));
    }
    if let (Some(uid), Some(gid)) = (node.meta.uid, node.meta.gid) {
        compare("the owner", format!("{}:{}", stat.uid(), stat.gid()), format!("{uid}:{gid}"));
    }
    if let Some(mtime) = node.meta.mtime {
        compare(
            "the modification time",
            format!("{:?}", (stat.mtime(), stat.mtime_nsec())),
            format!("{:?}", kernel_time(mtime)),
        );
    }
    if node.is_file() {
        compare("the size", stat.len().to_string(), node.meta.size.to_string());
    }
    found.extend(attribute_differences(path, open, node)?);
    Ok(found)
}

/// Attributes that the kernel or a security module gives every file by itself.
const GIVEN_BY_THE_SYSTEM: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

fn attribute_differences(path: &Path, open: Option<&File>, node: &Node) -> io::Result<Vec<String>> {
    let stored = &node.meta.extended_attributes;
    let mut should: Vec<_> = stored
        .iter()
        .map(|attribute| (attribute.name.as_bytes().to_vec(), attribute.value.clone().unwrap_or_default()))
        .collect();
    should.sort();
    let is: Vec<_> = open
        .map_or_else(|| attributes(path), attributes_of)?
        .into_iter()
        .map(|(name, value)| (name.into_vec(), value))
        .filter(|(name, _)| {
            !GIVEN_BY_THE_SYSTEM.contains(&name.as_slice()) || should.iter().any(|(wanted, _)| wanted == name)
        })
        .collect();
    if is == should {
        return Ok(Vec::new());
    }
    let names = |list: &[(Vec<u8>, Vec<u8>)]| {
        list.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>().join(", ")
    };
    let (is, should) = (names(&is), names(&should));
    Ok(vec![format!("the extended attributes differ (there: [{is}]; expected: [{should}])")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn modes_survive_gos_way_of_writing_them(mode in 0_u32..0o10000) {
            let file = std::fs::metadata("/").unwrap().file_type();
            prop_assert_eq!(permissions(go_mode(mode, file)), mode);
        }

        #[test]
        fn times_survive(seconds in -10_000_000_000_i64..10_000_000_000, nanoseconds in 0_i64..1_000_000_000) {
            let time = timestamp(seconds, nanoseconds).unwrap();
            prop_assert_eq!(kernel_time(time), (seconds, nanoseconds));
        }
    }
}
