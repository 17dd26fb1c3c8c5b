//! Cutting files into chunks where their content says so, so that an insertion moves only the cuts near it.
//!
//! FastCDC with normalised chunking: a rolling sum over a table of 256 numbers (the gear) is looked at from the minimal
//! length on, against a strict mask up to the normal length and a loose one beyond. Three rules of our own: the gear is
//! derived from the repository's secret chunker polynomial, so that the lengths of chunks tell nothing about known files;
//! a chunk that begins with [`MIN`] zeros ends there, which is the one length of zeros that restic's sparse restore
//! recognises; and a chunk ends where so many zeros begin, so that a hole is no part of what lies before it. Holes are skipped
//! without reading thus, and what lies between two of them is stored alone.

use sha2::{Digest, Sha256};

/// No chunk is shorter but a file's last and one before so many zeros.
pub(crate) const MIN: usize = 512 << 10;
/// Up to here cuts are rare (22 bits of the sum have to be zero), beyond they are frequent (18 bits).
const NORMAL: usize = 1 << 20;
/// No chunk is longer.
pub(crate) const MAX: usize = 8 << 20;

/// So much is looked at before the zeros in it are. Shorter than [`MIN`].
const BLOCK: usize = 64 << 10;

const STRICT: u64 = top_bits(22);
const LOOSE: u64 = top_bits(18);

const fn top_bits(count: u32) -> u64 {
    !(u64::MAX >> count)
}

/// The gear of one repository.
pub(crate) struct Chunker {
    gear: Box<[u64; 256]>,
}

/// How far the search for the next cut has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Search {
    seen: usize,
    sum: u64,
    /// So many zeros end at `seen`.
    zeros: usize,
}

impl Chunker {
    pub(crate) fn new(polynomial: u64) -> Self {
        let mut gear = Box::new([0; 256]);
        for (byte, number) in (0_u8..=255).zip(gear.iter_mut()) {
            let hash = Sha256::new()
                .chain_update(b"lvault gear 1")
                .chain_update(polynomial.to_be_bytes())
                .chain_update([byte])
                .finalize();
            *number = hash.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
        }
        Self { gear }
    }

    /// The length of the chunk that `data` begins with; `None` when that takes more data than there is. Called again with
    /// the same search and more of the same data, it goes on where it ended.
    pub(crate) fn cut(&self, data: &[u8], search: &mut Search) -> Option<usize> {
        if data.len() < MIN {
            return None;
        }
        if search.seen < MIN {
            if is_zero(&data[..MIN]) {
                return Some(MIN);
            }
            search.seen = MIN;
            search.zeros = zeros_at_end(&data[..MIN]);
        }
        for (end, mask) in [(NORMAL, STRICT), (MAX, LOOSE)] {
            let end = end.min(data.len());
            if let Some(cut) = self.find(data, search, end, mask) {
                return Some(cut);
            }
        }
        (search.seen >= MAX).then_some(MAX)
    }

    fn find(&self, data: &[u8], search: &mut Search, end: usize, mask: u64) -> Option<usize> {
        for block in data.get(search.seen..end)?.chunks(BLOCK) {
            let zeros = zeros_at_beginning(block);
            let run = search.zeros + zeros;
            if run >= MIN {
                // The chunk's own beginning is no run of that length, or it had ended there.
                let before = search.seen - search.zeros;
                return self.find_in(&block[..MIN - search.zeros], search, mask).or(Some(before));
            }
            // Zeros alone leave the sum as it is, once there were as many as it has bits.
            let is_steady = (search.sum << 1).wrapping_add(self.gear[0]) == search.sum && search.sum & mask != 0;
            if !(zeros == block.len() && is_steady)
                && let Some(cut) = self.find_in(block, search, mask)
            {
                return Some(cut);
            }
            search.seen += block.len();
            search.zeros = if zeros == block.len() { run } else { zeros_at_end(block) };
        }
        None
    }

    /// The cut in what follows on what was seen.
    fn find_in(&self, block: &[u8], search: &mut Search, mask: u64) -> Option<usize> {
        let mut sum = search.sum;
        for (at, byte) in block.iter().enumerate() {
            sum = (sum << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if sum & mask == 0 {
                return Some(search.seen + at + 1);
            }
        }
        search.sum = sum;
        None
    }
}

/// How many zeros it begins with.
fn zeros_at_beginning(data: &[u8]) -> usize {
    if is_zero(data) { data.len() } else { data.iter().take_while(|byte| **byte == 0).count() }
}

/// How many zeros it ends with.
fn zeros_at_end(data: &[u8]) -> usize {
    if is_zero(data) { data.len() } else { data.iter().rev().take_while(|byte| **byte == 0).count() }
}

/// Whether all bytes are zero; ends at the first that is not.
pub(crate) fn is_zero(data: &[u8]) -> bool {
    data.chunks(4096).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// Cuts all of `data`, which arrives in portions.
    fn cuts(chunker: &Chunker, data: &[u8], portion: usize) -> Vec<usize> {
        let (mut cuts, mut begin, mut end, mut search) = (Vec::new(), 0, 0, Search::default());
        while begin < data.len() {
            match chunker.cut(&data[begin..end], &mut search) {
                Some(length) => {
                    cuts.push(length);
                    begin += length;
                    search = Search::default();
                }
                None if end == data.len() => {
                    cuts.push(end - begin);
                    begin = end;
                }
                None => end = data.len().min(end + portion),
            }
        }
        cuts
    }

    #[test]
    fn lengths_are_within_their_limits_and_average_about_a_mebibyte() {
        let data = noise(5, 64 << 20);
        let cuts = cuts(&Chunker::new(0x3d_a335_8b4d_c173), &data, 1 << 20);
        assert_eq!(cuts.iter().sum::<usize>(), data.len());
        assert!(cuts[..cuts.len() - 1].iter().all(|length| (MIN..=MAX).contains(length)), "{cuts:?}");
        assert!((48..=72).contains(&cuts.len()), "{} chunks", cuts.len());
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_near_it() {
        let chunker = Chunker::new(1);
        let data = noise(9, 20 << 20);
        let before = cuts(&chunker, &data, 1 << 20);
        let after = cuts(&chunker, &[b"inserted", data.as_slice()].concat(), 1 << 20);
        let ends = |cuts: &[usize]| {
            let mut rest: usize = cuts.iter().sum();
            let mut ends = std::collections::HashSet::new();
            for length in cuts {
                rest -= length;
                ends.insert(rest);
            }
            ends
        };
        let common = ends(&before).intersection(&ends(&after)).count();
        assert!(common + 3 >= before.len(), "{common} of {} cuts stayed", before.len());
    }

    #[test]
    fn zeros_are_cut_as_restic_expects_them() {
        let mut data = vec![0; 5 * MIN + 100];
        assert_eq!(cuts(&Chunker::new(1), &data, MIN), [MIN, MIN, MIN, MIN, MIN, 100]);
        data[3 * MIN - 1] = 1;
        assert_eq!(cuts(&Chunker::new(1), &data, MIN)[..2], [MIN, MIN]);
    }

    #[test]
    fn what_lies_between_two_holes_is_cut_alone() {
        for length in [1, 1000, MIN, MIN + 1, 700_000] {
            let island = noise(3, length);
            let data = [&island, &vec![0; 2 * MIN + 77][..], &island, &vec![0; MIN][..], &island].concat();
            let cuts = cuts(&Chunker::new(1), &data, MIN);
            let (mut rest, mut chunks) = (data.as_slice(), Vec::new());
            for cut in &cuts {
                let (chunk, others) = rest.split_at(*cut);
                chunks.push(chunk);
                rest = others;
            }
            let zeros = chunks.iter().filter(|chunk| chunk.len() == MIN && is_zero(chunk)).count();
            assert_eq!((chunks[0], zeros), (island.as_slice(), 3), "{length}: {cuts:?}");
        }
    }

    /// The rules, a byte at a time.
    fn plainly(chunker: &Chunker, data: &[u8]) -> Option<usize> {
        let (mut sum, mut zeros) = (0_u64, 0);
        for (at, byte) in data.iter().take(MAX).enumerate() {
            zeros = if *byte == 0 { zeros + 1 } else { 0 };
            if at >= MIN {
                sum = (sum << 1).wrapping_add(chunker.gear[usize::from(*byte)]);
                let mask = if at < NORMAL { STRICT } else { LOOSE };
                if sum & mask == 0 {
                    return Some(at + 1);
                }
            }
            if zeros == MIN {
                return Some(if at + 1 == MIN { MIN } else { at + 1 - MIN });
            }
        }
        (data.len() >= MAX).then_some(MAX)
    }

    #[test]
    fn repositories_cut_differently() {
        let data = noise(2, 8 << 20);
        assert_ne!(cuts(&Chunker::new(1), &data, MIN), cuts(&Chunker::new(2), &data, MIN));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn blocks_are_cut_as_single_bytes_are(
            polynomial: u64,
            parts in prop::collection::vec((any::<u64>(), 0_usize..900_000, 0_usize..1_200_000), 1..5),
            portion in 4096_usize..3_000_000,
        ) {
            let chunker = Chunker::new(polynomial);
            let parts = parts.into_iter().flat_map(|(seed, data, zeros)| [noise(seed, data), vec![0; zeros]]);
            let data: Vec<u8> = parts.flatten().collect();
            let (mut begin, mut expected) = (0, Vec::new());
            while begin < data.len() {
                expected.push(plainly(&chunker, &data[begin..]).unwrap_or(data.len() - begin));
                begin += expected[expected.len() - 1];
            }
            prop_assert_eq!(cuts(&chunker, &data, portion), expected);
        }

        #[test]
        fn how_the_data_arrives_does_not_matter(seed: u64, portion in 1_usize..3_000_000) {
            let (chunker, data) = (Chunker::new(7), noise(seed, 5 << 20));
            prop_assert_eq!(cuts(&chunker, &data, portion.max(4096)), cuts(&chunker, &data, data.len()));
        }
    }
}
