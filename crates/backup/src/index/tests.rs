//! Long blobs: of two copies the one with the right content is read, and nothing else than what the id says.

use super::*;
use crate::pipeline::Pack;
use crate::seal::{LongBlob, LongSealed, Pressed};
use crate::storage::Put;
use object_store::memory::InMemory;
use rustic_core::repofile::MasterKey;
use std::io::Read;
use std::sync::Arc;

/// A repository with one pack for each content; all of them are called by the id of the last.
fn repository(contents: &[&str]) -> (Indexed, Id) {
    let (storage, seal) = (Storage::over(Arc::new(InMemory::new())), Seal::new(&MasterKey::new(), 2));
    let (mut file, mut id) = (IndexFile::default(), Id::default());
    for content in contents {
        let mut blob = LongBlob::new().unwrap();
        blob.add(content.as_bytes()).unwrap();
        let LongSealed { hash, sealed, raw_length } = blob.seal(&seal).unwrap();
        let mut pack = Pack::new(BlobType::Tree);
        pack.add(&Pressed { hash, sealed: &sealed, raw_length: Some(raw_length) });
        let (bytes, described) = pack.close(&seal).unwrap();
        storage.write(&file_name(FileType::Pack, &described.id), vec![bytes], Put::Overwrite).unwrap();
        file.packs.push(described);
        id = Id::new(hash);
    }
    file.packs.iter_mut().for_each(|pack| pack.blobs[0].id = id);
    let (name, bytes) = file.encode(&seal).unwrap();
    storage.write(&file_name(FileType::Index, &name), vec![bytes], Put::Overwrite).unwrap();
    (Indexed::load(&storage, &seal).unwrap(), id)
}

#[test]
fn a_long_blob_is_what_its_id_says() {
    for contents in [["wrong", "right"].as_slice(), &["other", "wrong", "right"], &["right"]] {
        let (indexed, id) = repository(contents);
        let mut read = String::new();
        let content = indexed.read_long(BlobType::Tree, &id).unwrap();
        content.into_reader().unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "right", "{contents:?}");
    }
    let (mut indexed, id) = repository(&["wrong", "right"]);
    indexed.trees.retain(|(_, place)| place.pack_number() == 0);
    let fault = indexed.read_long(BlobType::Tree, &id).map(drop).unwrap_err();
    assert!(fault.to_string().contains("does not hash to its id"), "{fault}");
    let fault = indexed.read_long(BlobType::Tree, &Id::default()).map(drop).unwrap_err();
    assert!(fault.to_string().contains("in no index"), "{fault}");
}
