//! The data that is backed up: the same bytes on every machine, for the same shape and size.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MIB: usize = 1 << 20;
const SMALL_AT_LEAST: u64 = 1 << 10;
const SMALL_SPREAD: u64 = 34 << 10;
const FILES_A_FOLDER: usize = 200;
const TINY_AT_LEAST: u64 = 100;
const TINY_SPREAD: u64 = 200;
const TINY_FILES_A_FOLDER: usize = 1000;
/// At [`USUAL_MIB`].
const TINY_FILES: usize = 1_000_000;
const USUAL_MIB: usize = 2048;

/// What kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A third is text (files of 1 MiB), a half is random (files of 1 MiB), and the rest is small files of 1 to 35 KiB, half
    /// text and half random. At 2048 MiB there are about 20,000 files.
    Mixed,
    /// One file with holes: at 2048 MiB it is 4 GiB long and holds 1 GiB, a MiB in every four, half text and half random.
    Sparse,
    /// Files of 100 to 300 bytes, a thousand in a folder, a million at 2048 MiB.
    Many,
}

/// xorshift64*: quick, and good enough to be incompressible.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        // Far apart for seeds that are close, and never 0.
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Noise,
}

/// What is written at once.
struct Piece {
    path: PathBuf,
    at: u64,
    kind: Kind,
    size: usize,
}

/// The tree, once it is there.
pub(crate) struct Tree {
    root: PathBuf,
    pieces: Vec<Piece>,
    words: Vec<String>,
    has_one_file: bool,
}

impl Tree {
    /// Makes a tree of that shape in a folder that is not there yet.
    pub(crate) fn make(root: &Path, shape: Shape, mib: usize) -> io::Result<Tree> {
        let has_one_file = shape == Shape::Sparse;
        let mut tree = Tree { root: root.to_owned(), pieces: Vec::new(), words: words(), has_one_file };
        match shape {
            Shape::Mixed => tree.plan_mixed(mib),
            Shape::Sparse => tree.plan_sparse(mib),
            Shape::Many => tree.plan_many(mib),
        }
        for number in 0..tree.pieces.len() {
            tree.write(number, 0)?;
        }
        if has_one_file {
            OpenOptions::new().write(true).open(tree.image())?.set_len((2 * mib * MIB) as u64)?;
        }
        Ok(tree)
    }

    fn plan_mixed(&mut self, mib: usize) {
        let (text, noise) = (mib / 3, mib / 2);
        (0..text).for_each(|_| self.plan(Kind::Text, MIB, FILES_A_FOLDER));
        (0..noise).for_each(|_| self.plan(Kind::Noise, MIB, FILES_A_FOLDER));
        let (mut left, mut sizes) = (mib.saturating_sub(text + noise) * MIB, Random::new(7));
        while left > 0 {
            let size = usize::try_from(SMALL_AT_LEAST + sizes.next() % SMALL_SPREAD).unwrap_or(MIB).min(left);
            let kind = if sizes.next().is_multiple_of(2) { Kind::Text } else { Kind::Noise };
            self.plan(kind, size, FILES_A_FOLDER);
            left -= size;
        }
    }

    fn plan_sparse(&mut self, mib: usize) {
        for number in 0..mib / 2 {
            let kind = if number % 2 == 0 { Kind::Text } else { Kind::Noise };
            self.pieces.push(Piece { path: self.image(), at: (number * 4 * MIB) as u64, kind, size: MIB });
        }
    }

    fn plan_many(&mut self, mib: usize) {
        let mut sizes = Random::new(7);
        for _ in 0..mib * TINY_FILES / USUAL_MIB {
            let size = usize::try_from(TINY_AT_LEAST + sizes.next() % TINY_SPREAD).unwrap_or(MIB);
            let kind = if sizes.next().is_multiple_of(2) { Kind::Text } else { Kind::Noise };
            self.plan(kind, size, TINY_FILES_A_FOLDER);
        }
    }

    fn plan(&mut self, kind: Kind, size: usize, in_a_folder: usize) {
        let number = self.pieces.len();
        let path = self.root.join(format!("folder-{:03}/file-{number:05}", number / in_a_folder));
        self.pieces.push(Piece { path, at: 0, kind, size });
    }

    fn image(&self) -> PathBuf {
        self.root.join("disk.img")
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        if self.has_one_file { 1 } else { self.pieces.len() }
    }

    /// How many bytes they hold, without holes.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size as u64).sum()
    }

    /// Writes every hundredth file (or MiB of the image) anew, of the large and of the small ones; `round` says with what, and where it
    /// begins.
    pub(crate) fn change_one_percent(&self, round: usize) -> io::Result<usize> {
        let changed: Vec<usize> = (round % 100..self.pieces.len()).step_by(100).collect();
        for &number in &changed {
            self.write(number, round as u64 + 1)?;
        }
        Ok(changed.len())
    }

    fn write(&self, number: usize, version: u64) -> io::Result<()> {
        let Piece { path, at, kind, size } = &self.pieces[number];
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut random = Random::new(number as u64 + (version << 32));
        let content = match kind {
            Kind::Text => self.text(&mut random, *size),
            Kind::Noise => noise(&mut random, *size),
        };
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all_at(&content, *at)
    }

    /// Words, the early ones far more often than the late ones.
    fn text(&self, random: &mut Random, size: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(size + 16);
        while text.len() < size {
            let drawn = random.next();
            let below = 1 + (drawn >> 32) as usize % self.words.len();
            text.extend_from_slice(self.words[drawn as u32 as usize % below].as_bytes());
            text.push(if drawn & 0xf == 0 { b'\n' } else { b' ' });
        }
        text.truncate(size);
        text
    }
}

fn noise(random: &mut Random, size: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(size + 8);
    while noise.len() < size {
        noise.extend_from_slice(&random.next().to_le_bytes());
    }
    noise.truncate(size);
    noise
}

fn words() -> Vec<String> {
    let mut random = Random::new(42);
    let mut word = || {
        let length = 2 + random.next() % 9;
        (0..length).map(|_| char::from(b'a' + (random.next() % 26) as u8)).collect()
    };
    (0..4096).map(|_| word()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_gives_the_same_bytes_and_a_change_touches_one_file_in_a_hundred() {
        for (shape, mib, files) in [(Shape::Mixed, 12, 100..200), (Shape::Sparse, 8, 1..2), (Shape::Many, 1, 488..489)]
        {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (one, two) = (folder.path().join("one"), folder.path().join("two"));
            let tree = Tree::make(&one, shape, mib).expect("a tree");
            let other = Tree::make(&two, shape, mib).expect("another tree");
            assert!(files.contains(&tree.files()), "{shape:?}: {} files", tree.files());
            let read = |tree: &Tree| -> Vec<Vec<u8>> {
                let bytes = |piece: &Piece| {
                    let mut content = vec![0; piece.size];
                    let file = fs::File::open(&piece.path).expect("a file");
                    file.read_exact_at(&mut content, piece.at).expect("its content");
                    content
                };
                tree.pieces.iter().map(bytes).collect()
            };
            let (before, same) = (read(&tree), read(&other));
            assert!(before == same, "two trees of one shape and size differ");

            let changed = tree.change_one_percent(1).expect("a change");
            let after = read(&tree);
            assert_eq!(changed, (tree.pieces.len() - 1).div_ceil(100));
            assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), changed);
        }
    }

    #[test]
    fn an_image_is_sparse() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tree = Tree::make(folder.path(), Shape::Sparse, 8).expect("a tree");
        let metadata = tree.image().metadata().expect("a file");
        assert_eq!((metadata.len(), tree.bytes()), (16 << 20, 4 << 20));
        assert!(metadata.blocks() * 512 < 8 << 20, "{} blocks", metadata.blocks());
    }
}
