//! Sealing and opening what a repository stores: AES-256 in counter mode with a Poly1305-AES tag, as restic does.
//!
//! Sealed bytes are a nonce of 16 bytes, the ciphertext, and a tag of 16 bytes. Files that are not packs hold JSON,
//! compressed behind a byte that says so where the repository's version allows it. Each thread that stores has a [`Press`]
//! of its own, whose buffers are used again for each blob.

mod long;

use crate::fault::Fault;
use aes256ctr_poly1305aes::aead::AeadInPlace;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag};
use bytes::Bytes;
use rustic_core::Id;
use rustic_core::repofile::MasterKey;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::io::{self, Read};
use zeroize::Zeroize;

pub(crate) use long::{LongBlob, LongSealed, Opened};

/// What sealing adds, in bytes.
pub(crate) const OVERHEAD: usize = NONCE + TAG;
const NONCE: usize = 16;
const TAG: usize = 16;

/// One below restic's: its compressor at its own default makes blobs of this size, and takes longer (docs/BENCHMARKS.md).
const LEVEL: i32 = 2;

/// The byte before compressed JSON; JSON that is not compressed begins with a bracket.
const COMPRESSED: u8 = 2;

/// A file of JSON that decompresses to more is none that any program writes: an index file has some 10 MiB.
pub(crate) const LARGEST_FILE: u64 = 128 << 20;

/// The SHA-256 hash of some bytes: the id of a blob or a file.
pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The keys of an open repository, and whether its version allows compression. The keys are wiped when dropped.
#[derive(Clone)]
pub(crate) struct Seal {
    cipher: Aes256CtrPoly1305Aes,
    compresses: bool,
}

impl Seal {
    pub(crate) fn new(key: &MasterKey, version: u32) -> Self {
        let mut whole = Key::default();
        let parts = key.encrypt.iter().chain(&key.mac.k).chain(&key.mac.r);
        whole.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        let cipher = Aes256CtrPoly1305Aes::new(&whole);
        whole.as_mut_slice().zeroize();
        Self { cipher, compresses: version >= 2 }
    }

    /// A seal of a key that is none of a repository's.
    pub(crate) fn of_raw(raw: &[u8; 64]) -> Self {
        Self { cipher: Aes256CtrPoly1305Aes::new(Key::from_slice(raw)), compresses: false }
    }

    /// Whether the repository's version allows compression.
    pub(crate) fn compresses(&self) -> bool {
        self.compresses
    }

    /// Seals in place: the plain bytes lie in `buffer[16..16 + length]`; the sealed ones are its first `length + 32`.
    fn seal_in<'a>(&self, buffer: &'a mut [u8], length: usize) -> Result<&'a mut [u8], Fault> {
        let whole = &mut buffer[..length + OVERHEAD];
        let (nonce, rest) = whole.split_at_mut(NONCE);
        let (content, tag) = rest.split_at_mut(length);
        getrandom::fill(nonce).map_err(|err| Fault::system(format!("it gives no random numbers: {err}")))?;
        // The cipher counts blocks in the nonce's lower half, and restic in all of it: so the lower half has to have room.
        nonce[8] &= 0x7f;
        let made = self.cipher.encrypt_in_place_detached(Nonce::from_slice(nonce), &[], content);
        let made = made.map_err(|_| Fault::system("it cannot encrypt that much at once"))?;
        tag.copy_from_slice(&made);
        Ok(whole)
    }

    /// Seals bytes that are not worth a [`Press`].
    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut buffer = vec![0; plain.len() + OVERHEAD];
        buffer[NONCE..NONCE + plain.len()].copy_from_slice(plain);
        self.seal_in(&mut buffer, plain.len())?;
        Ok(buffer)
    }

    /// Opens in place; `None` when the bytes are not what was sealed with this key.
    pub(crate) fn open<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let length = sealed.len().checked_sub(OVERHEAD)?;
        let (nonce, rest) = sealed.split_at_mut(NONCE);
        let (content, tag) = rest.split_at_mut(length);
        self.cipher
            .decrypt_in_place_detached(Nonce::from_slice(nonce), &[], content, Tag::from_slice(tag))
            .ok()
            .map(|()| content)
    }

    /// A file of JSON as it is stored, and its id.
    pub(crate) fn encode_file(&self, json: &[u8]) -> Result<(Id, Bytes), Fault> {
        let sealed = if self.compresses {
            let packed = zstd::bulk::compress(json, LEVEL).map_err(|err| cannot_compress(&err))?;
            self.seal(&[&[COMPRESSED], packed.as_slice()].concat())
        } else {
            self.seal(json)
        }?;
        Ok((Id::new(hash(&sealed)), sealed.into()))
    }

    /// The JSON of a stored file; in words what is wrong with it otherwise.
    pub(crate) fn decode_file(&self, stored: &[u8]) -> Result<Vec<u8>, String> {
        let mut stored = stored.to_vec();
        let plain = self.open(&mut stored).ok_or("it is not what was written: its authentication tag does not fit")?;
        Self::unpack(plain)
    }

    /// The JSON of an opened file, decompressed where it is compressed.
    pub(crate) fn unpack(plain: &[u8]) -> Result<Vec<u8>, String> {
        match plain.split_first() {
            Some((&COMPRESSED, packed)) => {
                let broken = |err: io::Error| format!("it does not decompress: {err}");
                let mut json = Vec::new();
                let decoder = zstd::stream::Decoder::new(packed).map_err(broken)?;
                decoder.take(LARGEST_FILE + 1).read_to_end(&mut json).map_err(broken)?;
                if json.len() as u64 > LARGEST_FILE {
                    return Err(format!("it decompresses to more than {LARGEST_FILE} bytes"));
                }
                Ok(json)
            }
            Some((b'{' | b'[', _)) => Ok(plain.to_vec()),
            Some(_) | None => Err("it is in no format that is known".to_owned()),
        }
    }

    /// Opens a blob; `raw_length` is its length before compression, where it was compressed.
    pub(crate) fn open_blob(&self, sealed: &mut [u8], raw_length: Option<usize>) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let plain = self.open_blob_into(sealed, raw_length, &mut content)?;
        if raw_length.is_none() {
            return Ok(plain.to_vec());
        }
        Ok(content)
    }

    /// The same, with a buffer for what was compressed, which can be used again.
    pub(crate) fn open_blob_into<'a>(
        &self,
        sealed: &'a mut [u8],
        raw_length: Option<usize>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], String> {
        let plain = self.open(sealed).ok_or("its authentication tag does not fit")?;
        let Some(length) = raw_length else { return Ok(plain) };
        decompress(plain, length, buffer).map_err(|err| format!("it does not decompress: {err}"))?;
        Ok(buffer)
    }
}

thread_local! {
    /// Making one costs more than decompressing a small blob.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses into the buffer, in place of what it holds, `length` bytes at most.
fn decompress(packed: &[u8], length: usize, buffer: &mut Vec<u8>) -> io::Result<()> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(kept) => kept,
            None => kept.insert(zstd::bulk::Decompressor::new()?),
        };
        // An index may claim any length: what is not there takes no memory.
        let length = zstd::bulk::Decompressor::upper_bound(packed).map_or(length, |bound| bound.min(length));
        buffer.clear();
        buffer.reserve(length);
        decompressor.decompress_to_buffer(packed, buffer)?;
        if buffer.len() > length {
            return Err(io::Error::other(format!("it has {} bytes and not {length}", buffer.len())));
        }
        Ok(())
    })
}

fn cannot_compress(err: &io::Error) -> Fault {
    Fault::system(format!("it cannot compress: {err}"))
}

/// Compresses and seals blobs, with one set of buffers.
pub(crate) struct Press {
    seal: Seal,
    compressor: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
    proof: Proof,
}

/// What sealed bytes are opened with again, before they are stored.
#[derive(Default)]
struct Proof {
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

/// A blob as it is stored.
pub(crate) struct Pressed<'a> {
    /// The hash of what it opens to.
    pub(crate) hash: [u8; 32],
    pub(crate) sealed: &'a [u8],
    /// Its length before compression, where it was compressed.
    pub(crate) raw_length: Option<u32>,
}

impl Press {
    pub(crate) fn new(seal: Seal) -> Result<Self, Fault> {
        let compressor = zstd::bulk::Compressor::new(LEVEL).map_err(|err| cannot_compress(&err))?;
        Ok(Self { seal, compressor, buffer: Vec::new(), proof: Proof::default() })
    }

    /// Compresses and seals one blob, opens it again, and compares: so memory or a processor that erred is found before anything is
    /// stored that nobody can read. `expected` is its hash, where that was computed before.
    pub(crate) fn press(&mut self, content: &[u8], expected: Option<&[u8; 32]>) -> Result<Pressed<'_>, Fault> {
        let room = zstd::zstd_safe::compress_bound(content.len()) + OVERHEAD;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let raw_length = u32::try_from(content.len())
            .map_err(|_| Fault::system("a folder has so many entries that its tree exceeds 4 GiB"))?;
        let (length, raw_length) = if self.seal.compresses && !content.is_empty() {
            let packed = self.compressor.compress_to_buffer(content, &mut self.buffer[NONCE..]);
            (packed.map_err(|err| cannot_compress(&err))?, Some(raw_length))
        } else {
            self.buffer[NONCE..NONCE + content.len()].copy_from_slice(content);
            (content.len(), None)
        };
        let sealed = self.seal.seal_in(&mut self.buffer, length)?;
        let hash = self.proof.hash(&self.seal, sealed, raw_length, content)?;
        if expected.is_some_and(|expected| *expected != hash) {
            return Err(unreliable_machine());
        }
        Ok(Pressed { hash, sealed, raw_length })
    }
}

impl Proof {
    /// The hash of what is in a sealed blob, which has to be `content`.
    fn hash(&mut self, seal: &Seal, sealed: &[u8], raw_length: Option<u32>, content: &[u8]) -> Result<[u8; 32], Fault> {
        self.sealed.clear();
        self.sealed.extend_from_slice(sealed);
        let raw_length = raw_length.map(|length| length as usize);
        match seal.open_blob_into(&mut self.sealed, raw_length, &mut self.plain) {
            Ok(plain) if plain == content => Ok(hash(plain)),
            Ok(_) | Err(_) => Err(unreliable_machine()),
        }
    }
}

/// What was computed twice from the same bytes came out differently.
fn unreliable_machine() -> Fault {
    Fault::system(
        "what was compressed and encrypted does not open to what it was made of, so it was not stored: memory or a processor errs; \
         test this machine's memory before you trust it with anything",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealing(version: u32) -> Seal {
        Seal::new(&MasterKey::new(), version)
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(content in prop::collection::vec(any::<u8>(), 0..5000), version in 1_u32..=2) {
            let seal = sealing(version);
            let mut press = Press::new(seal.clone()).unwrap();
            for _ in 0..2 {
                let pressed = press.press(&content, None).unwrap();
                prop_assert_eq!(pressed.hash, hash(&content));
                let (mut sealed, raw) = (pressed.sealed.to_vec(), pressed.raw_length.map(|raw| raw as usize));
                prop_assert_eq!(seal.open_blob(&mut sealed, raw).unwrap(), content.clone());
            }
            let json = [b"{", content.as_slice()].concat();
            let (id, stored) = seal.encode_file(&json).unwrap();
            prop_assert_eq!(Id::new(hash(&stored)), id);
            prop_assert_eq!(seal.decode_file(&stored).unwrap(), json);
        }

        #[test]
        fn no_bit_can_be_flipped(content in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
            let seal = sealing(2);
            let sealed = seal.seal(&content).unwrap();
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= 1 << (at.index(sealed.len()) % 8);
            prop_assert!(seal.open(&mut flipped).is_none());
        }
    }

    #[test]
    fn what_does_not_open_to_what_it_was_made_of_is_not_stored() {
        let (content, seal) = (b"content that is compressed, content that is compressed".as_slice(), sealing(2));
        let mut press = Press::new(seal.clone()).unwrap();
        assert!(press.press(content, Some(&hash(b"other content"))).is_err());
        let pressed = press.press(content, Some(&hash(content))).unwrap();
        let (sealed, raw) = (pressed.sealed.to_vec(), pressed.raw_length);
        assert_eq!(Proof::default().hash(&seal, &sealed, raw, content), Ok(hash(content)));
        let error = Proof::default().hash(&seal, &sealed, raw, b"other content").unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(Proof::default().hash(&seal, &flipped, raw, content).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_file_that_grows_without_end_is_refused() {
        let seal = sealing(2);
        let stored = |length: u64| {
            let zeros = io::repeat(b'{').take(length);
            let packed = zstd::stream::encode_all(zeros, LEVEL).unwrap();
            assert!(packed.len() < 1 << 20);
            seal.seal(&[&[COMPRESSED], packed.as_slice()].concat()).unwrap()
        };
        assert_eq!(seal.decode_file(&stored(LARGEST_FILE)).unwrap().len() as u64, LARGEST_FILE);
        assert!(seal.decode_file(&stored(LARGEST_FILE + 1)).unwrap_err().contains("more than"));
    }

    /// Two nonces are never the same, and none lets the counter run out of its lower half.
    #[test]
    fn nonces_are_fresh_and_have_room() {
        let seal = sealing(2);
        let nonces: std::collections::HashSet<Vec<u8>> =
            (0..200).map(|_| seal.seal(b"").unwrap()[..NONCE].to_vec()).collect();
        assert_eq!(nonces.len(), 200);
        assert!(nonces.iter().all(|nonce| nonce[8] < 0x80));
    }
}
