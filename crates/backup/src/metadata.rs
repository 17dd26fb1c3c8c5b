//! Metadata of files between the file system and restic's tree nodes.
//!
//! Modes are stored as Go's `FileMode` bits. Times are kept to the nanosecond; the access time is stored as the
//! modification time, as restic does, so that reading a file does not change its folder's tree. User and group names are
//! not stored: on another machine, or in a container, they mean somebody else. The device number is stored as zero: a
//! snapshot is mounted on another device each time, and hard links within one file system are told apart by inode.

mod stat;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use rustic_core::repofile::Metadata as NodeMetadata;
use rustic_core::repofile::Node;
use rustix::fs::{FileType, fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

pub(crate) use stat::{Stat, timestamp};

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

    /// Opens a folder in this one; a symbolic link is refused.
    pub(crate) fn open_in(&self, name: &OsStr) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::openat(&self.fd, name, flags, Mode::empty())? })
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
pub(crate) fn go_mode(mode: u32) -> u32 {
    let mut go = mode & 0o777;
    for (unix, bit) in [(0o4000, GO_SETUID), (0o2000, GO_SETGID), (0o1000, GO_STICKY)] {
        if mode & unix != 0 {
            go |= bit;
        }
    }
    go | match FileType::from_raw_mode(mode) {
        FileType::Directory => GO_DIR,
        FileType::Symlink => GO_SYMLINK,
        FileType::BlockDevice => GO_DEVICE,
        FileType::CharacterDevice => GO_DEVICE | GO_CHARDEV,
        FileType::Fifo => GO_FIFO,
        FileType::Socket => GO_SOCKET,
        FileType::RegularFile | FileType::Unknown => 0,
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

/// Makes the tree node of an entry, but for its extended attributes: see [`give_attributes`].
///
/// Fails when anything of it cannot be read or cannot be stored: a node is whole or it is an error.
pub(crate) fn bare_node(folder: &Folder, name: &OsStr, stat: &Stat) -> io::Result<Node> {
    let node_type = stat.node_type(|| stat::read_link(folder, name))?;
    let mtime = timestamp(stat.mtime)?;
    let meta = NodeMetadata {
        mode: Some(go_mode(stat.mode)),
        mtime: Some(mtime),
        atime: Some(mtime),
        ctime: Some(timestamp(stat.ctime)?),
        uid: Some(stat.uid),
        gid: Some(stat.gid),
        user: None,
        group: None,
        inode: stat.inode,
        device_id: 0,
        size: stat.node_size(),
        links: stat.node_links(),
        extended_attributes: Vec::new(),
    };
    Ok(Node::new_node(name, node_type, meta))
}

/// Puts extended attributes into a node; what the format cannot hold is an error.
pub(crate) fn give_attributes(node: &mut Node, attributes: Vec<(OsString, Vec<u8>)>) -> io::Result<()> {
    let mut stored = Vec::new();
    for (name, value) in attributes {
        let name = name.into_string().map_err(|name| {
            io::Error::other(format!("the extended attribute {name:?} has a name that restic's format cannot hold"))
        })?;
        stored.push(serde_json::json!({ "name": name, "value": BASE64_STANDARD.encode(value) }));
    }
    // The attribute's type is not exported: it is made the way it is read.
    node.meta.extended_attributes = serde_json::from_value(stored.into())?;
    Ok(())
}

/// Seconds and nanoseconds as the kernel counts them: nanoseconds are never negative.
pub(crate) fn kernel_time(time: Timestamp) -> (i64, i64) {
    let (seconds, nanoseconds) = (time.as_second(), i64::from(time.subsec_nanosecond()));
    if nanoseconds < 0 { (seconds - 1, nanoseconds + 1_000_000_000) } else { (seconds, nanoseconds) }
}

/// Extended attributes (ACLs and capabilities among them) by name, sorted.
type Attributes = Vec<(OsString, Vec<u8>)>;

/// All extended attributes of what lies at `path`, links not followed.
/// A file system without extended attributes has none.
pub(crate) fn attributes(path: &Path) -> io::Result<Attributes> {
    all_attributes(|buffer| llistxattr(path, buffer), |name, buffer| lgetxattr(path, name, buffer))
}

/// The same of an entry of a folder.
pub(crate) fn attributes_at(folder: &Folder, name: &OsStr) -> io::Result<Attributes> {
    let path = stat::path_at(folder, name);
    let path = path.as_slice();
    all_attributes(|buffer| llistxattr(path, buffer), |name, buffer| lgetxattr(path, name, buffer))
}

/// The same of an open file or folder.
pub(crate) fn attributes_of(open: impl AsFd) -> io::Result<Attributes> {
    let open = open.as_fd();
    all_attributes(|buffer| flistxattr(open, buffer), |name, buffer| fgetxattr(open, name, buffer))
}

fn all_attributes(
    list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    mut get: impl FnMut(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Attributes> {
    let names = match grown(list) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(err) => return Err(err.into()),
    };
    let mut attributes = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let value = grown(|buffer| get(name, buffer))?;
            Ok((OsString::from_vec(name.to_vec()), value))
        })
        .collect::<io::Result<Vec<_>>>()?;
    attributes.sort();
    Ok(attributes)
}

/// Asks again with a larger buffer, up to the kernel's own limit of 64 KiB, until the answer fits.
fn grown(mut ask: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    // Most files have no attributes.
    let mut small = [0; 256];
    match ask(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(err) => return Err(err),
    }
    let mut buffer = vec![0; 65536];
    let length = ask(buffer.as_mut_slice())?;
    buffer.truncate(length);
    Ok(buffer)
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
    let stat = open.map_or_else(|| Stat::at_path(path), Stat::of)?;
    let mut found = Vec::new();
    let mut differs = |what: &str, is: String, should: String| {
        found.push(format!("{what} is {is} and should be {should}"));
    };
    let now = stat.node_type(|| std::fs::read_link(path))?;
    if now != node.node_type {
        differs("the type", format!("{now:?}"), format!("{:?}", node.node_type));
    }
    if let Some(mode) = node.meta.mode.map(permissions)
        && !node.is_symlink()
        && stat.mode & 0o7777 != mode
    {
        differs("the mode", format!("{:04o}", stat.mode & 0o7777), format!("{mode:04o}"));
    }
    if let (Some(uid), Some(gid)) = (node.meta.uid, node.meta.gid)
        && (stat.uid, stat.gid) != (uid, gid)
    {
        differs("the owner", format!("{}:{}", stat.uid, stat.gid), format!("{uid}:{gid}"));
    }
    if let Some((seconds, nanoseconds)) = node.meta.mtime.map(kernel_time)
        && (stat.mtime.0, i64::from(stat.mtime.1)) != (seconds, nanoseconds)
    {
        differs("the modification time", format!("{:?}", stat.mtime), format!("{:?}", (seconds, nanoseconds)));
    }
    if node.is_file() && stat.size != node.meta.size {
        differs("the size", stat.size.to_string(), node.meta.size.to_string());
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
            for kind in [0o100_000, 0o040_000, 0o120_000] {
                prop_assert_eq!(permissions(go_mode(mode | kind)), mode);
            }
        }

        #[test]
        fn times_survive(seconds in -10_000_000_000_i64..10_000_000_000, nanoseconds in 0_u32..1_000_000_000) {
            let time = timestamp((seconds, nanoseconds)).unwrap();
            prop_assert_eq!(kernel_time(time), (seconds, i64::from(nanoseconds)));
        }
    }
}
