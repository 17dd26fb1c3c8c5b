//! Blobs too long to be in memory whole: compressed as they are made, and decompressed as they are read.
//!
//! Such a blob is in memory as it is stored, and besides a few hundred kilobytes of its content.

use super::{LEVEL, NONCE, Seal, TAG, cannot_compress, unreliable_machine};
use crate::fault::Fault;
use sha2::{Digest, Sha256};
use std::io::{self, Cursor, Read, Write};
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

/// A blob that is being made.
pub(crate) struct LongBlob {
    /// What comes out stands behind room for a nonce.
    encoder: Encoder<'static, Vec<u8>>,
    hasher: Sha256,
    length: u64,
}

/// A blob as it is stored.
pub(crate) struct LongSealed {
    pub(crate) hash: [u8; 32],
    pub(crate) sealed: Vec<u8>,
    /// Its length before compression.
    pub(crate) raw_length: u32,
}

impl LongBlob {
    pub(crate) fn new() -> Result<Self, Fault> {
        let encoder = Encoder::new(vec![0; NONCE], LEVEL).map_err(|err| cannot_compress(&err))?;
        Ok(Self { encoder, hasher: Sha256::new(), length: 0 })
    }

    pub(crate) fn add(&mut self, content: &[u8]) -> Result<(), Fault> {
        self.hasher.update(content);
        self.length += content.len() as u64;
        self.encoder.write_all(content).map_err(|err| cannot_compress(&err))
    }

    /// Seals what was added, opens it again and compares hashes.
    pub(crate) fn seal(self, seal: &Seal) -> Result<LongSealed, Fault> {
        let raw_length = u32::try_from(self.length)
            .map_err(|_| Fault::system("a folder has so many entries that its tree exceeds 4 GiB"))?;
        let hash = self.hasher.finalize().into();
        let mut sealed = self.encoder.finish().map_err(|err| cannot_compress(&err))?;
        let length = sealed.len() - NONCE;
        sealed.reserve_exact(TAG);
        sealed.resize(NONCE + length + TAG, 0);
        seal.seal_in(&mut sealed, length)?;
        let sealed = LongSealed { hash, sealed, raw_length };
        sealed.prove(seal)?;
        Ok(sealed)
    }
}

impl LongSealed {
    /// Opens it again, and compares hashes: what memory or a processor got wrong is not stored.
    fn prove(&self, seal: &Seal) -> Result<(), Fault> {
        let opened = Opened::of(seal, self.sealed.clone(), true).map_err(|_| unreliable_machine())?;
        match opened.hash(u64::from(self.raw_length)) {
            Ok(found) if found == self.hash => Ok(()),
            Ok(_) | Err(_) => Err(unreliable_machine()),
        }
    }
}

/// An opened blob, still compressed.
pub(crate) struct Opened {
    bytes: Vec<u8>,
    is_compressed: bool,
}

impl Opened {
    /// Opens what is sealed. In words what is wrong with it.
    pub(crate) fn of(seal: &Seal, mut sealed: Vec<u8>, is_compressed: bool) -> Result<Self, String> {
        let length = seal.open(&mut sealed).ok_or("its authentication tag does not fit")?.len();
        sealed.truncate(NONCE + length);
        sealed.drain(..NONCE);
        Ok(Self { bytes: sealed, is_compressed })
    }

    /// The hash of the content, which has to be of this length.
    pub(crate) fn hash(&self, length: u64) -> Result<[u8; 32], String> {
        let (mut hasher, mut found) = (Sha256::new(), 0);
        let mut portion = vec![0; 128 << 10];
        let mut content = reader(self.bytes.as_slice(), self.is_compressed).map_err(|err| broken(&err))?;
        loop {
            let count = content.read(&mut portion).map_err(|err| broken(&err))?;
            found += count as u64;
            if count == 0 || found > length {
                break;
            }
            hasher.update(&portion[..count]);
        }
        if found == length { Ok(hasher.finalize().into()) } else { Err(format!("it has not {length} bytes")) }
    }

    /// The content, to be read once.
    pub(crate) fn into_reader(self) -> Result<Box<dyn Read + Send>, String> {
        reader(Cursor::new(self.bytes), self.is_compressed).map_err(|err| broken(&err))
    }
}

fn reader<'a>(stored: impl io::BufRead + Send + 'a, is_compressed: bool) -> io::Result<Box<dyn Read + Send + 'a>> {
    if is_compressed { Ok(Box::new(Decoder::with_buffer(stored)?)) } else { Ok(Box::new(stored)) }
}

fn broken(err: &io::Error) -> String {
    format!("it does not decompress: {err}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::hash;
    use rustic_core::repofile::MasterKey;

    #[test]
    fn what_is_made_piece_by_piece_reads_back_both_ways() {
        let seal = Seal::new(&MasterKey::new(), 2);
        for count in [0, 1, 50_000] {
            let pieces: Vec<_> = (0..count).map(|number| format!("piece {number}, ")).collect();
            let whole = pieces.concat().into_bytes();
            let mut blob = LongBlob::new().unwrap();
            pieces.iter().for_each(|piece| blob.add(piece.as_bytes()).unwrap());
            let LongSealed { hash: found, sealed, raw_length } = blob.seal(&seal).unwrap();
            assert_eq!((found, raw_length as usize), (hash(&whole), whole.len()));
            assert_eq!(seal.open_blob(&mut sealed.clone(), Some(whole.len())).unwrap(), whole);

            let opened = Opened::of(&seal, sealed.clone(), true).unwrap();
            assert_eq!(opened.hash(whole.len() as u64), Ok(hash(&whole)));
            assert!(opened.hash(whole.len() as u64 + 1).is_err());
            assert!(count == 0 || opened.hash(whole.len() as u64 - 1).is_err());
            let mut read = Vec::new();
            opened.into_reader().unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, whole);
            let mut flipped = sealed;
            flipped[20] ^= 1;
            assert!(Opened::of(&seal, flipped, true).is_err());
        }
    }

    #[test]
    fn what_does_not_open_to_what_it_was_made_of_is_not_stored() {
        let seal = Seal::new(&MasterKey::new(), 2);
        let made = || {
            let mut blob = LongBlob::new().unwrap();
            blob.add(b"content").unwrap();
            blob.seal(&seal).unwrap()
        };
        made().prove(&seal).unwrap();
        let wrong: [fn(&mut LongSealed); 3] =
            [|blob| blob.hash[0] ^= 1, |blob| blob.raw_length += 1, |blob| blob.sealed[20] ^= 1];
        for (number, wrong) in wrong.into_iter().enumerate() {
            let mut blob = made();
            wrong(&mut blob);
            assert!(blob.prove(&seal).unwrap_err().to_string().contains("memory"), "{number}");
        }
    }

    #[test]
    fn what_is_not_compressed_is_read_too() {
        let seal = Seal::new(&MasterKey::new(), 1);
        let opened = Opened::of(&seal, seal.seal(b"content").unwrap(), false).unwrap();
        assert_eq!(opened.hash(7), Ok(hash(b"content")));
        let mut read = Vec::new();
        opened.into_reader().unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"content");
    }
}
