//! Cutting files into chunks where their content says so, so that an insertion moves only the cuts near it.
//!
//! FastCDC with normalised chunking: a rolling sum over a table of 256 numbers (the gear) is looked at from the minimal
//! length on, against a strict mask up to the normal length and a loose one beyond. Two rules of our own: the gear is
//! derived from the repository's secret chunker polynomial, so that the lengths of chunks tell nothing about known files;
//! and a chunk that begins with [`MIN`] zeros ends there, which is the one length of zeros that restic's sparse restore
//! recognises, and lets holes be skipped without reading.

use sha2::{Digest, Sha256};

/// No chunk but a file's last is shorter.
pub(crate) const MIN: usize = 512 << 10;
/// Up to here cuts are rare (22 bits of the sum have to be zero), beyond they are frequent (18 bits).
const NORMAL: usize = 1 << 20;
/// No chunk is longer.
pub(crate) const MAX: usize = 8 << 20;

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
        let (begin, mut sum) = (search.seen, search.sum);
        for (at, byte) in data.get(begin..end)?.iter().enumerate() {
            sum = (sum << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if sum & mask == 0 {
                return Some(begin + at + 1);
            }
        }
        (search.seen, search.sum) = (end, sum);
        None
    }
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
    fn repositories_cut_differently() {
        let data = noise(2, 8 << 20);
        assert_ne!(cuts(&Chunker::new(1), &data, MIN), cuts(&Chunker::new(2), &data, MIN));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn how_the_data_arrives_does_not_matter(seed: u64, portion in 1_usize..3_000_000) {
            let (chunker, data) = (Chunker::new(7), noise(seed, 5 << 20));
            prop_assert_eq!(cuts(&chunker, &data, portion.max(4096)), cuts(&chunker, &data, data.len()));
        }
    }
}
