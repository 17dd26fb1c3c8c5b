//! The data that is backed up: the same bytes on every machine, for the same size.
//!
//! A third is text (files of 1 MiB), a half is random (files of 1 MiB), and the rest is small files of 1 to 35 KiB, half
//! text and half random. At 2048 MiB there are about 20,000 files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MIB: usize = 1 << 20;
const SMALL_AT_LEAST: u64 = 1 << 10;
const SMALL_SPREAD: u64 = 34 << 10;
const FILES_A_FOLDER: usize = 200;

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

/// The tree, once it is there.
pub(crate) struct Tree {
    root: PathBuf,
    files: Vec<(PathBuf, Kind, usize)>,
    words: Vec<String>,
}

impl Tree {
    /// Makes a tree of about so many MiB in a folder that is not there yet.
    pub(crate) fn make(root: &Path, mib: usize) -> io::Result<Tree> {
        let mut tree = Tree { root: root.to_owned(), files: Vec::new(), words: words() };
        let (text, noise) = (mib / 3, mib / 2);
        (0..text).for_each(|_| tree.plan(Kind::Text, MIB));
        (0..noise).for_each(|_| tree.plan(Kind::Noise, MIB));
        let (mut left, mut sizes) = (mib.saturating_sub(text + noise) * MIB, Random::new(7));
        while left > 0 {
            let size = usize::try_from(SMALL_AT_LEAST + sizes.next() % SMALL_SPREAD).unwrap_or(MIB).min(left);
            let kind = if sizes.next() % 2 == 0 { Kind::Text } else { Kind::Noise };
            tree.plan(kind, size);
            left -= size;
        }
        for number in 0..tree.files.len() {
            tree.write(number, 0)?;
        }
        Ok(tree)
    }

    fn plan(&mut self, kind: Kind, size: usize) {
        let number = self.files.len();
        let path = self.root.join(format!("folder-{:03}/file-{number:05}", number / FILES_A_FOLDER));
        self.files.push((path, kind, size));
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// How many bytes they hold.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, _, size)| *size as u64).sum()
    }

    /// Writes every hundredth file anew, of the large and of the small ones; `round` says with what, and where it begins.
    pub(crate) fn change_one_percent(&self, round: usize) -> io::Result<usize> {
        let changed: Vec<usize> = (round % 100..self.files.len()).step_by(100).collect();
        for &number in &changed {
            self.write(number, round as u64 + 1)?;
        }
        Ok(changed.len())
    }

    fn write(&self, number: usize, version: u64) -> io::Result<()> {
        let (path, kind, size) = &self.files[number];
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut random = Random::new(number as u64 + (version << 32));
        let content = match kind {
            Kind::Text => self.text(&mut random, *size),
            Kind::Noise => noise(&mut random, *size),
        };
        File::create(path)?.write_all(&content)
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let tree = Tree::make(&one, 12).expect("a tree");
        let other = Tree::make(&two, 12).expect("another tree");
        assert_eq!(tree.bytes(), 12 << 20);
        assert!(tree.files() > 100, "{} files", tree.files());
        let read = |tree: &Tree| -> Vec<Vec<u8>> {
            tree.files.iter().map(|(path, _, _)| fs::read(path).expect("a file")).collect()
        };
        let (before, same) = (read(&tree), read(&other));
        assert!(before == same, "two trees of one size differ");

        let changed = tree.change_one_percent(1).expect("a change");
        let after = read(&tree);
        assert_eq!(changed, tree.files().div_ceil(100));
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), changed);
    }
}
