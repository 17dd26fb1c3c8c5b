//! Stretches: each tree is got as it is stored, with few requests, within bounds, and by one thread for all.

use super::*;
use crate::index::Indexed;
use crate::runs::tests::Bench;
use proptest::prelude::*;
use rustic_core::Id;
use rustic_core::repofile::BlobType;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Packs as bytes, and how often they were asked.
struct Packs {
    packs: Vec<Vec<u8>>,
    places: Vec<Place>,
    stretches: Stretches,
    asked: AtomicUsize,
    fetched: AtomicUsize,
    longest: AtomicUsize,
}

impl Packs {
    /// Packs of trees of these lengths, with so many bytes between two of them.
    fn new(lengths: &[Vec<usize>], gap: usize) -> Self {
        let (mut packs, mut places) = (Vec::new(), Vec::new());
        for (number, lengths) in lengths.iter().enumerate() {
            let mut pack = Vec::new();
            for length in lengths {
                let offset = u32::try_from(pack.len()).unwrap();
                places.push(Place::new(u32::try_from(number).unwrap(), offset, u32::try_from(*length).unwrap()));
                let seed = places.len();
                pack.extend((0..*length).map(|at| (at * 31 + seed * 7) as u8));
                pack.extend(std::iter::repeat_n(0, gap));
            }
            packs.push(pack);
        }
        let stretches = Stretches::new(places.iter());
        let (asked, fetched, longest) = Default::default();
        Self { packs, places, stretches, asked, fetched, longest }
    }

    fn fetch(&self, pack: usize, range: Range<u64>) -> Result<Bytes, Fault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (begin, end) = (range.start as usize, range.end as usize);
        self.fetched.fetch_add(end - begin, Ordering::SeqCst);
        self.longest.fetch_max(end - begin, Ordering::SeqCst);
        let pack = &self.packs[pack];
        Ok(Bytes::copy_from_slice(&pack[begin.min(pack.len())..end.min(pack.len())]))
    }

    fn get(&self, number: usize) -> Result<Option<Vec<u8>>, Fault> {
        let place = &self.places[number];
        self.stretches.get(place, |range| self.fetch(place.pack_number(), range))
    }

    fn stored(&self, number: usize) -> Vec<u8> {
        let place = &self.places[number];
        self.packs[place.pack_number()][place.offset as usize..place.end() as usize].to_vec()
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }

    fn assert_within_bounds(&self) {
        let state = lock(&self.stretches.state);
        let kept = || state.kept.values().flatten();
        assert_eq!(kept().map(|it| Stretch::cost(it.stretch.bytes.len() as u64)).sum::<u64>(), state.bytes_kept);
        assert!(state.bytes_kept <= MOST && state.bytes_under_way == 0 && state.under_way.is_empty());
        assert_eq!(kept().count(), state.by_use.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn each_tree_is_got_as_it_is_stored(
        lengths in prop::collection::vec(prop::collection::vec(1_usize..400_000, 1..12), 1..5),
        gap in prop_oneof![Just(0_usize), Just(1000), Just(300_000)],
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        let packs = Packs::new(&lengths, gap);
        for number in order.iter().map(|it| it.index(packs.places.len())) {
            prop_assert_eq!(packs.get(number).unwrap(), Some(packs.stored(number)));
            packs.assert_within_bounds();
        }
        prop_assert!(packs.longest.load(Ordering::SeqCst) as u64 <= LONGEST);
    }
}

/// Walks go on through a pack, back through it, and from folder to folder.
#[test]
fn trees_that_lie_together_are_asked_for_together() {
    let packs = || Packs::new(&[vec![2000; 2000], vec![2000; 100]], 0);
    let on: Vec<usize> = (0..2100).collect();
    let back: Vec<usize> = on.iter().rev().copied().collect();
    let parents_first: Vec<usize> = (0..21).flat_map(|at| ((at * 100)..(at + 1) * 100).rev()).collect();
    for order in [on, back, parents_first] {
        let packs = packs();
        for number in order {
            assert_eq!(packs.get(number).unwrap(), Some(packs.stored(number)));
        }
        let asked = packs.asked();
        assert!((3..=8).contains(&asked), "{asked} requests for 2100 trees in 4 MB and 0.2 MB");
        assert_eq!(packs.fetched.load(Ordering::SeqCst), 2100 * 2000, "nothing is fetched twice");
    }
}

#[test]
fn one_tree_of_a_large_pack_costs_little() {
    let packs = Packs::new(&[vec![2000; 2000]], 0);
    packs.get(1000).unwrap();
    assert_eq!(packs.asked(), 1);
    assert!(packs.longest.load(Ordering::SeqCst) as u64 <= FIRST);
}

#[test]
fn what_was_not_used_for_longest_goes() {
    // 40 packs of 1 MiB, of which each is asked for a whole.
    let packs = Packs::new(&vec![vec![1 << 20]; 40], 0);
    packs.get(0).unwrap();
    for number in 1..40 {
        assert!(packs.stretches.has(&packs.places[0]), "used each time: {number}");
        packs.get(0).unwrap();
        packs.get(number).unwrap();
        packs.assert_within_bounds();
    }
    assert_eq!(packs.asked(), 40, "the first was never asked for again");
    assert!(packs.stretches.is_full() && !packs.stretches.has(&packs.places[1]));
    assert_eq!(packs.get(1).unwrap(), Some(packs.stored(1)));
    assert_eq!(packs.asked(), 1);
}

#[test]
fn gaps_and_long_trees_are_not_read() {
    let packs = Packs::new(&[vec![1000; 5]], 300_000);
    (0..5).for_each(|number| assert!(packs.get(number).unwrap().is_some()));
    assert_eq!((packs.asked(), packs.longest.load(Ordering::SeqCst)), (5, 1000));
    let packs = Packs::new(&[vec![10, 3 << 20, 10]], 0);
    assert_eq!(packs.get(1).unwrap(), None, "longer than what is kept");
    assert_eq!(packs.asked(), 0);
    assert_eq!(packs.get(2).unwrap(), Some(packs.stored(2)));
}

#[test]
fn what_lies_before_the_end_of_a_pack_that_was_cut_off_is_got() {
    let mut packs = Packs::new(&[vec![1000; 10]], 0);
    packs.packs[0].truncate(4500);
    for number in 0..4 {
        assert_eq!(packs.get(number).unwrap(), Some(packs.stored(number)));
    }
    assert_eq!(packs.asked(), 1);
    for number in [4, 9] {
        assert_eq!(packs.get(number).unwrap(), None, "it is for the caller to find out");
    }
}

/// Threads want different trees of one stretch while the first of them fetches it.
fn at_once(answer: impl Fn(Range<u64>) -> Result<Bytes, Fault> + Sync) -> (usize, Vec<Result<bool, Fault>>) {
    let packs = Packs::new(&[vec![1000; 100]], 0);
    let asked = AtomicUsize::new(0);
    let (let_go, held) = channel::<()>();
    let held = Mutex::new(held);
    let fetch = |range| {
        asked.fetch_add(1, Ordering::SeqCst);
        lock(&held).recv().unwrap();
        answer(range)
    };
    let results = std::thread::scope(|scope| {
        let get = |number: usize| packs.stretches.get(&packs.places[number], fetch).map(|found| found.is_some());
        let first = scope.spawn(move || get(0));
        while asked.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let others: Vec<_> = (1..5).map(|number| scope.spawn(move || get(number))).collect();
        // Long enough for the others to come; if one of them does not, this proves less, and does not fail.
        std::thread::sleep(Duration::from_millis(50));
        (0..5).for_each(|_| let_go.send(()).unwrap());
        std::iter::once(first).chain(others).map(|thread| thread.join().unwrap()).collect()
    });
    packs.assert_within_bounds();
    (asked.into_inner(), results)
}

#[test]
fn a_stretch_is_fetched_by_one_thread_for_all() {
    let (asked, results) = at_once(|range| Ok(vec![1; (range.end - range.start) as usize].into()));
    assert_eq!((asked, results), (1, vec![Ok(true); 5]));
}

#[test]
fn what_cannot_be_fetched_fails_for_all_who_wait() {
    let away = || Fault::system("away");
    let (asked, results) = at_once(|_| Err(away()));
    assert_eq!((asked, results), (1, vec![Err(away()); 5]));
    let (asked, results) = at_once(|_| panic!("boom"));
    assert_eq!((asked, results), (1, vec![Err(Fault::Panicked { what: "boom".to_owned() }); 5]));
}

fn read(indexed: &Indexed, id: &Id) -> Result<Vec<u8>, Fault> {
    indexed.read(BlobType::Tree, id)
}

#[test]
fn a_damaged_tree_in_a_stretch_is_named_and_its_neighbours_are_whole() {
    let bench = Bench::new(BlobType::Tree, &[vec![500; 40], vec![500; 3]]);
    bench.damage(17);
    for (number, (id, content)) in bench.blobs.iter().enumerate() {
        match read(&bench.indexed, id) {
            Ok(read) => assert!(number != 17 && read == *content),
            Err(fault) => assert!(number == 17 && fault.to_string().contains(id.to_hex().as_str()), "{fault}"),
        }
    }
    let fetched = bench.indexed.fetched().unwrap();
    assert_eq!(lock(&fetched.state).kept.values().flatten().count(), 2, "one stretch for each pack");
}

#[test]
fn of_two_copies_of_a_tree_the_whole_one_is_read() {
    // Which copy comes first, the index decides.
    for is_gone in [false, true] {
        for damaged in [vec![0], vec![1], vec![0, 1]] {
            let mut bench = Bench::new(BlobType::Tree, &[vec![500; 5]]);
            bench.copy_pack();
            for copy in &damaged {
                if is_gone { bench.remove_pack(*copy) } else { bench.damage_in(*copy, 3) }
            }
            let (id, content) = &bench.blobs[3];
            assert_eq!(bench.indexed.places(BlobType::Tree, id).count(), 2);
            match read(&bench.indexed, id) {
                Ok(read) => assert!(damaged.len() < 2 && read == *content, "{damaged:?}"),
                Err(fault) => assert!(damaged.len() == 2, "{damaged:?}: {fault}"),
            }
        }
    }
}
