//! What is in a folder: every name with its kind, metadata and content, so that two folders can be compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    attributes: BTreeMap<OsString, Vec<u8>>,
    /// The first other name, in order, of the same file.
    same_as: Option<PathBuf>,
    /// Half of it or more is holes.
    sparse: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    File { size: u64, content: [u8; 32] },
    Link { target: PathBuf },
    Fifo,
    Socket,
    Device { block: bool, number: u64 },
}

/// Everything in a folder, by relative path. The folder itself has the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    entries: BTreeMap<PathBuf, Entry>,
    bytes: u64,
}

/// Something that is in one folder and not so in the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The relative path.
    pub(crate) path: PathBuf,
    /// What is different.
    pub(crate) what: String,
}

impl Manifest {
    /// Reads a whole folder. `lost+found`, which belongs to the filesystem, is left out, and what `skip` names.
    pub(crate) fn read(root: &Path, skip: Option<&str>, stop: &AtomicBool) -> io::Result<Self> {
        let mut reader = Reader { root, skip, stop, manifest: Manifest::default(), inodes: HashMap::new() };
        reader.visit(PathBuf::new()).map(|()| reader.manifest)
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes in all files, each counted once.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same without one folder of the top.
    pub(crate) fn without(&self, folder: &str) -> Manifest {
        let kept = self.entries.iter().filter(|(path, _)| !path.starts_with(folder));
        Manifest { entries: kept.map(|(path, entry)| (path.clone(), entry.clone())).collect(), bytes: self.bytes }
    }

    /// What is different in `found`.
    pub(crate) fn differences(&self, found: &Manifest) -> Vec<Difference> {
        let mut all = Vec::new();
        for (path, expected) in &self.entries {
            match found.entries.get(path) {
                None => all.push(Difference { path: path.clone(), what: "it is missing".to_owned() }),
                Some(entry) => all.extend(
                    expected.differences(entry).into_iter().map(|what| Difference { path: path.clone(), what }),
                ),
            }
        }
        let added = found.entries.keys().filter(|path| !self.entries.contains_key(*path));
        all.extend(added.map(|path| Difference { path: path.clone(), what: "it was not there".to_owned() }));
        all
    }
}

impl Entry {
    fn differences(&self, found: &Entry) -> Vec<String> {
        let Entry { kind, mode, owner, modified, attributes, same_as, sparse } = self;
        let mut all = Vec::new();
        let mut differs = |what: &str, differ: bool, was: String, is: String| {
            if differ {
                all.push(format!("{what}: {was} became {is}"));
            }
        };
        differs("content", *kind != found.kind, kind.short(), found.kind.short());
        differs("mode", *mode != found.mode, format!("{mode:o}"), format!("{:o}", found.mode));
        differs("owner", *owner != found.owner, format!("{owner:?}"), format!("{:?}", found.owner));
        differs("time", *modified != found.modified, format!("{modified:?}"), format!("{:?}", found.modified));
        let names = |entry: &BTreeMap<OsString, Vec<u8>>| format!("{:?}", entry.keys().collect::<Vec<_>>());
        differs("attributes", *attributes != found.attributes, names(attributes), names(&found.attributes));
        differs("hard link", *same_as != found.same_as, format!("{same_as:?}"), format!("{:?}", found.same_as));
        differs("holes", *sparse && !found.sparse, "sparse".to_owned(), "filled".to_owned());
        all
    }
}

impl Kind {
    fn short(&self) -> String {
        match self {
            Kind::Folder => "a folder".to_owned(),
            Kind::File { size, content } => {
                let start: String = content.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                format!("a file of {size} bytes ({start}...)")
            }
            Kind::Link { target } => format!("a link to {}", target.display()),
            Kind::Fifo => "a fifo".to_owned(),
            Kind::Socket => "a socket".to_owned(),
            Kind::Device { block, number } => format!("device {number} (block: {block})"),
        }
    }
}

struct Reader<'a> {
    root: &'a Path,
    skip: Option<&'a str>,
    stop: &'a AtomicBool,
    manifest: Manifest,
    inodes: HashMap<(u64, u64), PathBuf>,
}

impl Reader<'_> {
    fn visit(&mut self, path: PathBuf) -> io::Result<()> {
        self.go_on()?;
        let full = self.root.join(&path);
        let metadata = fs::symlink_metadata(&full).map_err(|error| at(&full, &error))?;
        let kind = self.kind(&full, &metadata).map_err(|error| at(&full, &error))?;
        let same_as = self.same_as(&path, &metadata);
        if let (Kind::File { size, .. }, None) = (&kind, &same_as) {
            self.manifest.bytes += size;
        }
        let entry = Entry {
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            attributes: attributes(&full).map_err(|error| at(&full, &error))?,
            same_as,
            sparse: metadata.is_file() && metadata.len() > 1 << 20 && metadata.blocks() * 512 * 2 <= metadata.len(),
            kind,
        };
        let folder = entry.kind == Kind::Folder;
        self.manifest.entries.insert(path.clone(), entry);
        if folder {
            self.children(&path, &full)?;
        }
        Ok(())
    }

    fn children(&mut self, path: &Path, full: &Path) -> io::Result<()> {
        let top = path.as_os_str().is_empty();
        // In order, so that the first name of a file with several is the same in both folders.
        let mut names = Vec::new();
        for entry in fs::read_dir(full).map_err(|error| at(full, &error))? {
            names.push(entry?.file_name());
        }
        names.sort();
        for name in names {
            let left_out = top && (name == "lost+found" || self.skip.is_some_and(|skip| name == skip));
            if !left_out {
                self.visit(path.join(name))?;
            }
        }
        Ok(())
    }

    /// A manifest of a part of the folder would be a wrong one.
    fn go_on(&self) -> io::Result<()> {
        if self.stop.load(Ordering::Acquire) { Err(io::Error::other("asked to stop")) } else { Ok(()) }
    }

    fn same_as(&mut self, path: &Path, metadata: &Metadata) -> Option<PathBuf> {
        if metadata.is_dir() || metadata.nlink() < 2 {
            return None;
        }
        let first = self.inodes.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.to_path_buf());
        (first != path).then(|| first.clone())
    }

    fn kind(&self, full: &Path, metadata: &Metadata) -> io::Result<Kind> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            Ok(Kind::Folder)
        } else if kind.is_symlink() {
            Ok(Kind::Link { target: fs::read_link(full)? })
        } else if kind.is_fifo() {
            Ok(Kind::Fifo)
        } else if kind.is_socket() {
            Ok(Kind::Socket)
        } else if kind.is_block_device() || kind.is_char_device() {
            Ok(Kind::Device { block: kind.is_block_device(), number: metadata.rdev() })
        } else {
            Ok(Kind::File { size: metadata.len(), content: self.content(full)? })
        }
    }

    fn content(&self, file: &Path) -> io::Result<[u8; 32]> {
        let mut file = File::open(file)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(hash.finalize().into());
            }
            self.go_on()?;
            hash.update(buffer.get(..count).unwrap_or_default());
        }
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn attributes(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    const LONGEST: usize = 64 << 10;
    let mut names = vec![0u8; LONGEST];
    let length = match llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut all = BTreeMap::new();
    let listed = names.get(..length).unwrap_or_default();
    for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; LONGEST];
        let name = std::ffi::OsStr::from_bytes(name);
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Some are only for show.
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NODATA) => continue,
            Err(errno) => return Err(errno.into()),
        }
        all.insert(OsString::from_vec(name.as_bytes().to_vec()), value);
    }
    Ok(all)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
