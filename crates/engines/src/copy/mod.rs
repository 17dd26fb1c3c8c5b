//! Copying a tree of files with everything that belongs to them: how the directory engine cuts a snapshot.
//!
//! What holds: every entry is reached from its folder's descriptor and no symbolic link is followed, so that a writer
//! who swaps a folder for a link cannot lead the copy elsewhere; the source is only read; other filesystems mounted
//! inside the tree are not entered; one entry that cannot be copied fails the whole copy, by name. What vanishes while
//! it runs is taken as deleted before.

mod attributes;
mod content;

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Statx, StatxFlags, linkat, makedev, mkdirat, mknodat, openat,
    readlinkat, statx, symlinkat, syncfs,
};
use rustix::io::Errno;

use crate::error::EngineError;
use attributes::{Node, carry_over};

/// What a copy did, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Files, folders, links and the rest.
    pub(crate) entries: u64,
    /// Files that share their blocks with the source.
    pub(crate) shared: u64,
}

/// Copies the tree under `source` into the new folder `target`, and makes it durable. What is there after an error is
/// for the caller to remove.
pub(crate) fn copy_tree(source: &Path, target: &Path) -> Result<Copied, EngineError> {
    let mut walk = Walk { at: source.to_owned(), ..Walk::new(source, target)? };
    let from = open_folder(CWD, &c_path(source)?).map_err(EngineError::io("opening", source))?;
    walk.mount = walk.look(Node::Open(from.as_fd()))?.stx_mnt_id;
    let into = walk.target.try_clone().map_err(EngineError::io("opening", target))?;
    walk.folder(from.as_fd(), into.as_fd())?;
    syncfs(&into).map_err(EngineError::io("making durable", target))?;
    Ok(walk.copied)
}

fn c_path(path: &Path) -> Result<CString, EngineError> {
    let nul = |_| EngineError::io::<io::Error>("opening", path)(io::ErrorKind::InvalidInput.into());
    CString::new(path.as_os_str().as_bytes()).map_err(nul)
}

struct Walk {
    /// The path in the source that is being copied, for errors.
    at: PathBuf,
    /// The same path, below the target.
    below: PathBuf,
    target: OwnedFd,
    mount: u64,
    /// Where files with several names were copied to first, by inode.
    links: HashMap<(u32, u32, u64), PathBuf>,
    reflink: bool,
    root: bool,
    copied: Copied,
}

impl Walk {
    fn new(source: &Path, target: &Path) -> Result<Walk, EngineError> {
        std::fs::create_dir(target).map_err(EngineError::io("making the folder", target))?;
        Ok(Walk {
            at: source.to_owned(),
            below: PathBuf::new(),
            target: open_folder(CWD, &c_path(target)?).map_err(EngineError::io("opening", target))?,
            mount: 0,
            links: HashMap::new(),
            reflink: true,
            root: rustix::process::geteuid().is_root(),
            copied: Copied::default(),
        })
    }

    fn fail(&self, attempted: &'static str) -> impl FnOnce(Errno) -> EngineError {
        EngineError::io(attempted, self.at.clone())
    }

    fn look(&self, node: Node<'_>) -> Result<Statx, EngineError> {
        node.stat().map_err(self.fail("looking at"))
    }

    /// Copies a folder's entries, then its own attributes: they change while entries are added, and may forbid it.
    fn folder(&mut self, from: BorrowedFd<'_>, into: BorrowedFd<'_>) -> Result<(), EngineError> {
        let stat = self.look(Node::Open(from))?;
        if stat.stx_mnt_id == self.mount {
            for name in names(from).map_err(self.fail("listing"))? {
                let text = OsStr::from_bytes(name.to_bytes());
                self.at.push(text);
                self.below.push(text);
                self.entry(from, into, &name)?;
                self.at.pop();
                self.below.pop();
            }
        }
        self.finish(Node::Open(from), Node::Open(into), &stat)
    }

    fn entry(&mut self, from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &CStr) -> Result<(), EngineError> {
        let source = Node::Named(from, name);
        let stat = match source.stat() {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.fail("looking at")(error)),
        };
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if kind == FileType::Directory {
            return self.subfolder(from, into, name);
        }
        if stat.stx_nlink > 1 && self.linked(into, name, &stat)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(from, into, name),
            FileType::Symlink => self.symlink(from, into, name, &stat),
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                let device = makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
                mknodat(into, name, kind, Mode::RUSR, device).map_err(self.fail("making a copy of"))?;
                self.finish(source, Node::Named(into, name), &stat)
            }
            FileType::Directory | FileType::Unknown => Err(self.fail("telling the kind of")(Errno::INVAL)),
        }
    }

    fn subfolder(&mut self, from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &CStr) -> Result<(), EngineError> {
        let Some(source) = gone_or(open_folder(from, name)).map_err(self.fail("opening"))? else { return Ok(()) };
        mkdirat(into, name, Mode::RWXU).map_err(self.fail("making a copy of"))?;
        let target = open_folder(into, name).map_err(self.fail("opening the copy of"))?;
        self.folder(source.as_fd(), target.as_fd())
    }

    /// Makes another name for a file that was copied before; false when this is its first name.
    fn linked(&mut self, into: BorrowedFd<'_>, name: &CStr, stat: &Statx) -> Result<bool, EngineError> {
        let inode = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let Some(first) = self.links.get(&inode) else {
            self.links.insert(inode, self.below.clone());
            return Ok(false);
        };
        match linkat(&self.target, first, into, name, AtFlags::empty()) {
            Ok(()) => {
                self.copied.entries += 1;
                Ok(true)
            }
            // The first name vanished before its content was copied: this one is the first now.
            Err(Errno::NOENT) => {
                self.links.insert(inode, self.below.clone());
                Ok(false)
            }
            Err(error) => Err(self.fail("linking the copy of")(error)),
        }
    }

    fn file(&mut self, from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &CStr) -> Result<(), EngineError> {
        let Some(source) = gone_or(open_file(from, name)).map_err(self.fail("opening"))? else { return Ok(()) };
        let stat = self.look(Node::Open(source.as_fd()))?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(self.fail("copying, while somebody replaces it,")(Errno::AGAIN));
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let target = openat(into, name, flags, Mode::RUSR | Mode::WUSR).map_err(self.fail("making a copy of"))?;
        let shared = content::copy(source.as_fd(), target.as_fd(), stat.stx_size, &mut self.reflink);
        self.copied.shared += u64::from(shared.map_err(self.fail("copying"))?);
        self.finish(Node::Open(source.as_fd()), Node::Open(target.as_fd()), &stat)
    }

    fn symlink(
        &mut self,
        from: BorrowedFd<'_>,
        into: BorrowedFd<'_>,
        name: &CStr,
        stat: &Statx,
    ) -> Result<(), EngineError> {
        let Some(leads_to) = gone_or(readlinkat(from, name, Vec::new())).map_err(self.fail("reading the link"))? else {
            return Ok(());
        };
        symlinkat(leads_to, into, name).map_err(self.fail("making a copy of"))?;
        self.finish(Node::Named(from, name), Node::Named(into, name), stat)
    }

    fn finish(&mut self, from: Node<'_>, into: Node<'_>, stat: &Statx) -> Result<(), EngineError> {
        self.copied.entries += 1;
        carry_over(from, into, stat, self.root).map_err(self.fail("copying the attributes of"))
    }
}

fn gone_or<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn names(folder: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    open_quietly(at, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Without `NONBLOCK`, a fifo put in the file's place would be waited for.
fn open_file(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    open_quietly(at, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
}

/// Opens without leaving an access time behind, where the file's owner or root asks.
fn open_quietly(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(at, name, flags, Mode::empty()),
        other => other,
    }
}

impl Node<'_> {
    fn stat(self) -> Result<Statx, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        match self {
            Node::Open(fd) => statx(fd, c"", AtFlags::EMPTY_PATH, wanted),
            Node::Named(at, name) => statx(at, name, AtFlags::SYMLINK_NOFOLLOW, wanted),
        }
    }
}
