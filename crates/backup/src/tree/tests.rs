//! A repository whose every file is sound, but whose index sends readers to the wrong content.

use crate::backend::Snapshots;
use crate::{
    BackUp, ChangeDetection, Host, Key, Location, Password, Repository, RepositoryPath, RestoreError, Silent,
    SourcePath, VerifyDepth, VerifyError,
};
use aes256ctr_poly1305aes::aead::{AeadInPlace, Nonce};
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key as SealingKey};
use rustic_core::repofile::{BlobType, IndexFile, IndexId, MasterKey};
use std::path::Path;
use std::sync::Arc;

/// Writes an index as restic does: nonce, ciphertext, tag.
fn seal(key: &MasterKey, plain: &[u8]) -> Vec<u8> {
    let whole = [key.encrypt.as_slice(), &key.mac.k, &key.mac.r].concat();
    let nonce = Nonce::<Aes256CtrPoly1305Aes>::default();
    let mut sealed = plain.to_vec();
    let cipher = Aes256CtrPoly1305Aes::new(SealingKey::from_slice(&whole));
    let tag = cipher.encrypt_in_place_detached(&nonce, &[], &mut sealed).unwrap();
    [nonce.as_slice(), &sealed, tag.as_slice()].concat()
}

/// Swaps the ids of the first two parts of files in the only index.
fn cross_the_index(repository: &Repository, folder: &Path) {
    let (opened, _) = repository.session(Snapshots::Store).unwrap();
    let name = std::fs::read_dir(folder.join("index")).unwrap().next().unwrap().unwrap().file_name();
    let id: rustic_core::Id = name.to_str().unwrap().parse().unwrap();
    let mut index: IndexFile = opened.get_file(&IndexId::from(id)).unwrap();
    let pack = index.packs.iter_mut().find(|pack| pack.blob_type() == BlobType::Data).unwrap();
    let (first, second) = (pack.blobs[0].id, pack.blobs[1].id);
    (pack.blobs[0].id, pack.blobs[1].id) = (second, first);
    let sealed = seal(&repository.master_key(), &serde_json::to_vec(&index).unwrap());
    std::fs::write(folder.join("index").join(name), sealed).unwrap();
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
    };
    let snapshot = repository.back_up(&what, Arc::new(Silent)).unwrap().snapshot;
    cross_the_index(&repository, &folder.path().join("storage/r"));

    let verified = repository.verify(&snapshot, VerifyDepth::Data, &Silent);
    assert!(matches!(&verified, Err(VerifyError::Damaged { count: 2, .. })), "{verified:?}");
    let err = repository.restore(&snapshot, &folder.path().join("target"), &Silent).unwrap_err();
    let RestoreError::Incomplete { failures, count: 2, .. } = err else { panic!("{err:?}") };
    assert!(failures.iter().all(|it| it.reason.contains("does not hash to its id")), "{failures:?}");
}
