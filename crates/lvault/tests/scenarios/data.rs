//! The files that are copied, and what two trees have to have in common to be the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::process::Dice;

/// Fills a folder with files of several kinds, the same for the same seed: `mebibytes` of noise in files of 1 MiB, and
/// small ones.
pub(crate) fn fill(folder: &Path, seed: u64, mebibytes: u64) {
    let mut dice = Dice::of(seed);
    for number in 0..mebibytes {
        noise(&folder.join(format!("noise-{number}")), &mut dice, 1 << 20);
    }
    let deep = folder.join("a/b c/d");
    fs::create_dir_all(&deep).unwrap();
    fs::create_dir(folder.join("empty folder")).unwrap();
    for number in 0..20 {
        fs::write(deep.join(format!("text {number}")), format!("file {number} of {seed}\n").repeat(number)).unwrap();
    }
    fs::set_permissions(deep.join("text 7"), fs::Permissions::from_mode(0o4711)).unwrap();
    symlink("text 7", deep.join("link")).unwrap();
    fs::hard_link(deep.join("text 8"), folder.join("hard link")).unwrap();
    let hole = File::create(folder.join("hole")).unwrap();
    hole.set_len(3 << 20).unwrap();
    (&hole).write_all(b"and then nothing").unwrap();
}

/// Writes a file that cannot be compressed.
pub(crate) fn noise(path: &Path, dice: &mut Dice, bytes: usize) {
    let mut content = Vec::with_capacity(bytes);
    while content.len() < bytes {
        content.extend_from_slice(&dice.next().to_le_bytes());
    }
    content.truncate(bytes);
    fs::write(path, content).unwrap();
}

/// All that is compared of a tree, by relative path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    /// Reads a tree whole. The filesystem's own `lost+found` is not of it.
    pub(crate) fn of(folder: &Path) -> Tree {
        let mut entries = BTreeMap::new();
        let mut links: BTreeMap<u64, PathBuf> = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for path in crate::process::list(&next) {
                let relative = path.strip_prefix(folder).unwrap().to_owned();
                if relative == Path::new("lost+found") {
                    continue;
                }
                let metadata = fs::symlink_metadata(&path).unwrap();
                let kind = metadata.file_type();
                let content = if kind.is_dir() {
                    folders.push(path);
                    "folder".to_owned()
                } else if kind.is_symlink() {
                    format!("link to {}", fs::read_link(&path).unwrap().display())
                } else if kind.is_fifo() {
                    "fifo".to_owned()
                } else {
                    let first = links.entry(metadata.ino()).or_insert_with(|| relative.clone());
                    let same =
                        if metadata.nlink() > 1 { format!(", same as {}", first.display()) } else { String::new() };
                    format!("{} bytes, {}{same}", metadata.len(), hash(&path))
                };
                let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
                let time = if kind.is_symlink() { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) };
                entries.insert(relative, format!("{content}; {mode:o} {owner:?} {time:?}"));
            }
        }
        assert!(!entries.is_empty(), "{} is empty", folder.display());
        Tree(entries)
    }

    /// Notes it in a file, which is on the disk when this returns.
    pub(crate) fn save(&self, path: &Path) {
        let mut file = File::create(path).unwrap();
        file.write_all(&serde_json::to_vec(&self.0).unwrap()).unwrap();
        file.sync_all().unwrap();
        File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
    }

    /// What was noted.
    pub(crate) fn load(path: &Path) -> Tree {
        Tree(serde_json::from_slice(&fs::read(path).unwrap()).expect("what was saved"))
    }

    /// Compares, and shows what differs rather than everything.
    pub(crate) fn assert_same(&self, other: &Tree) {
        let names = self.0.keys().chain(other.0.keys());
        let different: Vec<_> = names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| (name, self.0.get(name), other.0.get(name)))
            .collect();
        assert!(different.is_empty(), "{different:#?}");
    }
}

fn hash(path: &Path) -> String {
    let (mut file, mut hasher, mut buffer) = (File::open(path).unwrap(), Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
