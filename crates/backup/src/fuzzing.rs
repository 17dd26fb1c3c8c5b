//! What fuzzing runs: every parser of what a repository holds and of what names one, as functions of bytes that assert what has
//! to hold.
//!
//! Only there in tests, which run the targets over their corpus, and under `cfg(lvault_fuzzing)`, where libFuzzer searches for
//! inputs: `make fuzz`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that panics has found something")]

use crate::index::{IndexFile, Indexed};
use crate::key_file;
use crate::labels::{Host, Key, Snapshot, SnapshotId, SourcePath, Tag};
use crate::location::{Location, RepositoryPath};
use crate::metadata::{kernel_time, permissions};
use crate::remote::Endpoint;
use crate::restore::safe_name;
use crate::runs::Reader;
use crate::seal::{LARGEST_FILE, Seal, hash};
use crate::storage::{Put, Storage};
use crate::tree::{self, Outline, OutlineKind};
use crate::{backend, lock};
use rustic_core::repofile::{BlobType, ConfigFile, Node, SnapshotFile, Tree};
use rustic_core::{FileType, Id};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A parser's name, and what runs it on bytes and asserts what has to hold.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name: their corpus lies in `fuzz/corpus/NAME`.
pub const TARGETS: &[Target] =
    &[("index", index), ("labels", labels), ("metadata", metadata), ("sealed", sealed), ("tree", tree)];

static SEAL: LazyLock<Seal> = LazyLock::new(|| Seal::of_raw(&[7; 64]));

/// Files that are no index and no tree, by their first byte: a config, a key file, a snapshot, a lock, and the compressed form
/// of each.
fn metadata(data: &[u8]) {
    let Some((kind, json)) = data.split_first() else { return };
    match kind {
        b'c' => drop(serde_json::from_slice::<ConfigFile>(json).map(|config| crate::fault::guarded(|| config.poly()))),
        b'k' => {
            if let Ok(cost) = key_file::cost(json) {
                assert!(cost.memory <= key_file::MOST_MEMORY && cost.work <= key_file::MOST_WORK, "{cost:?}");
            }
        }
        b's' => {
            let Ok(file) = serde_json::from_slice::<SnapshotFile>(json) else { return };
            let snapshot = Snapshot::from_file(&file);
            if let Some(key) = &snapshot.key {
                assert!(key.tags().iter().all(|tag| snapshot.tags.contains(tag)), "{snapshot:?}");
            }
        }
        b'l' => {
            let host = lock::fuzzing::host_name();
            lock::fuzzing::read(String::from_utf8_lossy(json).replace("THIS-HOST", &host).as_bytes());
        }
        _compressed => {
            let plain = [&[2], json].concat();
            if let Ok(json) = Seal::unpack(&plain) {
                assert!(json.len() as u64 <= LARGEST_FILE);
            }
        }
    }
}

/// Bytes of somebody who has not the key: they are no file, no blob, and nothing else.
fn sealed(data: &[u8]) {
    assert!(SEAL.open(&mut data.to_vec()).is_none(), "forged");
    assert!(SEAL.decode_file(data).is_err());
    for raw_length in [None, Some(0), Some(data.len())] {
        assert!(SEAL.open_blob(&mut data.to_vec(), raw_length).is_err());
    }
    let whole = SEAL.seal(data).expect("sealed");
    assert_eq!(SEAL.open(&mut whole.clone()).as_deref(), Some(data));
    if let (Some(at), Some(bits)) = (data.first(), data.get(1).filter(|bits| **bits != 0)) {
        let mut altered = whole;
        let at = usize::from(*at) % altered.len();
        altered[at] ^= bits;
        assert!(SEAL.open(&mut altered).is_none(), "{at} altered");
    }
}

/// A repository in memory's file system, with one index file and one pack.
static STORAGE: LazyLock<(PathBuf, Storage)> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let root = parent.join(format!("lvault-fuzzing-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a folder");
    let path = RepositoryPath::parse("r").expect("a path");
    let storage = Storage::of_repository(&Location::Local { root: root.clone() }, &path).expect("a storage");
    (root, storage)
});

/// An index file, a NUL, and the pack it is about (each of its blobs is sealed here where the index says that it lies): what is read
/// is what hashes to its id, and everything else is called damaged.
fn index(data: &[u8]) {
    let (json, pack) =
        data.iter().position(|byte| *byte == 0).map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    let Ok(file) = serde_json::from_slice::<IndexFile>(json) else { return };
    let written = serde_json::to_vec(&file).expect("JSON");
    let again: IndexFile = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    let (root, storage) = &*STORAGE;
    drop(std::fs::remove_dir_all(root.join("r")));
    let put =
        |name: &str, content: Vec<u8>| storage.write(name, vec![content.into()], Put::Overwrite).expect("written");
    let (id, stored) = SEAL.encode_file(&written).expect("sealed");
    put(&backend::file_name(FileType::Index, &id), stored.to_vec());
    let mut content = SEAL.seal(pack).expect("sealed");
    content.extend(pack);
    for described in file.packs.iter().take(2) {
        put(&backend::file_name(FileType::Pack, &described.id), content.clone());
    }
    let indexed = Indexed::load(storage, &SEAL).expect("an index");
    let count: usize = file.packs.iter().map(|pack| pack.blobs.len()).sum();
    assert!(indexed.list(BlobType::Data).len() + indexed.list(BlobType::Tree).len() <= count);
    for blob in file.packs.iter().flat_map(|pack| &pack.blobs).take(4) {
        let place = indexed.place(blob.kind, &blob.id).expect("it is in the index");
        assert!(place.end() >= u64::from(place.length));
        match indexed.read(blob.kind, &blob.id) {
            Ok(content) => assert_eq!(Id::new(hash(&content)), blob.id),
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
        let mut taken = 0;
        Reader::new(&indexed).read(&[blob.id.into(), blob.id.into()], |_, content| {
            taken += 1;
            assert!(content.is_err() || indexed.place(BlobType::Data, &blob.id).is_some());
            ControlFlow::Continue(())
        });
        assert_eq!(taken, 2);
    }
}

/// A tree: no name of it leads out of its folder, and the outline by which a prune decides what is needed names what a restore
/// needs.
fn tree(data: &[u8]) {
    let read = tree::parse_tree(data);
    let Ok(tree) = serde_json::from_slice::<Tree>(data) else { return };
    if let Ok(read) = read {
        assert_eq!(read.nodes, tree.nodes);
    }
    let outline: Outline = serde_json::from_slice(data).expect("a prune reads what a restore reads");
    assert_eq!(outline.nodes.len(), tree.nodes.len());
    let mut size = tree::SnapshotSize::default();
    for (node, outlined) in tree.nodes.iter().zip(&outline.nodes) {
        let needed: Option<Vec<Id>> = node.content.as_ref().map(|content| content.iter().map(|id| **id).collect());
        assert_eq!(outlined.content, needed);
        assert_eq!(outlined.subtree, node.subtree.map(|id| *id));
        assert_eq!(matches!(outlined.kind, OutlineKind::Dir), node.is_dir());
        look_at(node);
        size.add(&tree::Measure::of(node), 1, &mut Default::default());
    }
}

fn look_at(node: &Node) {
    if let Ok(name) = safe_name(node) {
        let folder = Path::new("/target");
        let path = folder.join(&name);
        assert_eq!((path.parent(), path.file_name()), (Some(folder), Some(name.as_os_str())));
    }
    assert!(node.meta.mode.is_none_or(|mode| permissions(mode) <= 0o7777));
    for time in [node.meta.mtime, node.meta.atime, node.meta.ctime].into_iter().flatten() {
        assert!((0..1_000_000_000).contains(&kernel_time(time).1), "{time}");
    }
    assert!(tree::link_of(node).is_none() || node.is_file());
}

/// Texts of users: endpoints, paths of repositories, labels. What is taken reads back as itself, and keeps to its form.
fn labels(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Endpoint::parse(&text) {
        Ok(endpoint) => {
            let written = endpoint.to_string();
            assert_eq!(Endpoint::parse(&written).as_ref(), Ok(&endpoint));
            assert!(written.starts_with(if endpoint.is_http() { "http://" } else { "https://" }));
            assert!(written.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some()), "{written}");
        }
        Err(refused) => assert!(text.len() < 8 || !refused.to_string().contains(&*text), "{refused}"),
    }
    if let Ok(path) = RepositoryPath::parse(&*text) {
        assert!(Path::new("/r").join(path.as_str()).starts_with("/r"));
        assert!(path.as_str().split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        assert!(path.ancestors().all(|above| RepositoryPath::parse(above).is_ok()));
    }
    if let Ok(key) = Key::new(&*text, 3) {
        assert_eq!(Key::from_tags(key.tags().iter()), Some(key));
    }
    if let Ok(path) = SourcePath::new(&*text) {
        assert!(path.depth() > 0);
    }
    if let Ok(host) = Host::new(&*text) {
        assert_eq!(host.as_str(), text);
    }
    if let Ok(tag) = Tag::new(&*text) {
        assert!(!tag.as_str().contains(',') && !tag.as_str().starts_with("lvault-"));
    }
    if let Ok(id) = SnapshotId::new(&*text) {
        assert_eq!(id.as_str().parse::<Id>().expect("an id").to_hex().as_str(), id.as_str());
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn every_target_holds_over_its_corpus() {
        super::replay::corpus(super::TARGETS);
    }
}
