//! A repository whose every file is sound, but whose index sends readers to the wrong content.

use crate::seal::hash;
use crate::{
    BackUp, ChangeDetection, Host, Key, Location, OnReadError, Password, Repository, RepositoryPath, RestoreError,
    Silent, SourcePath, VerifyDepth, VerifyError,
};
use rustic_core::repofile::{BlobType, IndexFile, IndexId};
use std::path::Path;
use std::sync::Arc;

/// Swaps the ids of the first two parts of files in the only index.
fn cross_the_index(repository: &Repository, folder: &Path) {
    let opened = repository.session().unwrap();
    let mut names = std::fs::read_dir(folder.join("index")).unwrap();
    let name = names.next().unwrap().unwrap().file_name();
    assert!(names.next().is_none(), "a small backup has one index file");
    let id: rustic_core::Id = name.to_str().unwrap().parse().unwrap();
    let mut index: IndexFile = opened.get_file(&IndexId::from(id)).unwrap();
    let pack = index.packs.iter_mut().find(|pack| pack.blob_type() == BlobType::Data).unwrap();
    let (first, second) = (pack.blobs[0].id, pack.blobs[1].id);
    (pack.blobs[0].id, pack.blobs[1].id) = (second, first);
    let sealed = repository.seal().seal(&serde_json::to_vec(&index).unwrap()).unwrap();
    std::fs::remove_file(folder.join("index").join(name)).unwrap();
    let name = rustic_core::Id::new(hash(&sealed)).to_hex();
    std::fs::write(folder.join("index").join(name.as_str()), sealed).unwrap();
}

#[test]
fn content_that_does_not_hash_to_its_id_is_never_taken() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["storage", "volume", "target"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let volume = folder.path().join("volume");
    std::fs::write(volume.join("one"), "wrong").unwrap();
    std::fs::write(volume.join("two"), "right").unwrap();
    let location = Location::Local { root: folder.path().join("storage") };
    let path = RepositoryPath::parse("r").unwrap();
    let repository = Repository::open_or_init(&location, &path, &Password::new("secret").unwrap()).unwrap();
    let what = BackUp {
        root: volume,
        as_path: SourcePath::new("/data").unwrap(),
        host: Host::new("host").unwrap(),
        key: Key::new("uid", 1).unwrap(),
        tags: Vec::new(),
        time: jiff::Timestamp::now(),
        change_detection: ChangeDetection::default(),
        on_read_error: OnReadError::Fail,
    };
    let snapshot = repository.back_up(&what, Arc::new(Silent)).unwrap().snapshot;
    cross_the_index(&repository, &folder.path().join("storage/r"));

    let verified = repository.verify(&snapshot, VerifyDepth::Data, &Silent);
    assert!(matches!(&verified, Err(VerifyError::Damaged { count: 2, .. })), "{verified:?}");
    let err = repository.restore(&snapshot, &folder.path().join("target"), &Silent).unwrap_err();
    let RestoreError::Incomplete { failures, count: 2, .. } = err else { panic!("{err:?}") };
    assert!(failures.iter().all(|it| it.reason.contains("does not hash to its id")), "{failures:?}");
}
