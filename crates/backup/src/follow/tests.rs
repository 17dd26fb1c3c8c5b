//! Following: everything that is handed out is answered once, whatever becomes of it.

use super::*;
use crate::runs::tests::Bench;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Trees in packs, and for each the trees below it: those with these numbers.
fn follow_all(bench: &Bench, below: &[Vec<usize>], roots: &[usize]) -> HashMap<Id, Vec<Result<Vec<u8>, Fault>>> {
    let number_to_id = |number: &usize| *bench.blobs[*number].0;
    let numbers: HashMap<Id, usize> = bench.blobs.iter().enumerate().map(|(number, (id, _))| (**id, number)).collect();
    let mut seen: HashSet<Id> = HashSet::new();
    let mut taken: HashMap<Id, Vec<_>> = HashMap::new();
    let roots: Vec<Id> = roots.iter().map(number_to_id).filter(|id| seen.insert(*id)).collect();
    let flow = follow(
        &bench.indexed,
        roots,
        |id| bench.indexed.read(BlobType::Tree, id),
        |id, tree, next| {
            taken.entry(id).or_default().push(tree);
            next.extend(below[numbers[&id]].iter().map(number_to_id).filter(|id| seen.insert(*id)));
            ControlFlow::<()>::Continue(())
        },
    );
    assert!(flow.is_continue());
    taken
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn each_tree_is_read_once_and_whole(
        packs in prop::collection::vec(prop::collection::vec(0_usize..100_000, 1..20), 1..5),
        seed in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        damaged: prop::sample::Index,
    ) {
        let bench = Bench::new(BlobType::Tree, &packs);
        let count = bench.blobs.len();
        // Each tree leads to two others, wherever they lie.
        let below: Vec<Vec<usize>> = (0..count)
            .map(|number| [number * 2, number * 2 + 1].map(|at| seed[at % seed.len()].index(count)).to_vec())
            .collect();
        let mut reached = HashSet::from([0]);
        let mut open = vec![0];
        while let Some(number) = open.pop() {
            open.extend(below[number].iter().filter(|number| reached.insert(**number)));
        }
        let damaged = damaged.index(count);
        bench.damage(damaged);
        let taken = follow_all(&bench, &below, &[0]);
        prop_assert_eq!(taken.len(), reached.len());
        for number in reached {
            let (id, content) = &bench.blobs[number];
            let [taken] = taken[&**id].as_slice() else { panic!("not once") };
            prop_assert_eq!(taken.as_ref().ok(), (number != damaged).then_some(content));
        }
    }
}

#[test]
fn what_is_in_no_index_is_answered_too() {
    let bench = Bench::new(BlobType::Tree, &[vec![10]]);
    let unknown = Id::new([7; 32]);
    let mut taken = Vec::new();
    let flow = follow(
        &bench.indexed,
        vec![unknown],
        |id| bench.indexed.read(BlobType::Tree, id),
        |id, tree, _| {
            taken.push((id, tree.is_err()));
            ControlFlow::<()>::Continue(())
        },
    );
    assert!(flow.is_continue());
    assert_eq!(taken, [(unknown, true)]);
}

#[test]
fn whoever_breaks_off_is_handed_nothing_more() {
    let bench = Bench::new(BlobType::Tree, &[vec![100; 200]]);
    let all: Vec<Id> = bench.blobs.iter().map(|(id, _)| **id).collect();
    let mut taken = 0;
    let flow = follow(
        &bench.indexed,
        all,
        |id| bench.indexed.read(BlobType::Tree, id),
        |_, _, _| {
            taken += 1;
            if taken == 5 { ControlFlow::Break("enough") } else { ControlFlow::Continue(()) }
        },
    );
    assert_eq!((flow, taken), (ControlFlow::Break("enough"), 5));
}

#[test]
fn a_panic_is_an_answer() {
    let bench = Bench::new(BlobType::Tree, &[vec![100; 50]]);
    let all: Vec<Id> = bench.blobs.iter().map(|(id, _)| **id).collect();
    let mut panicked = 0;
    let flow = follow(
        &bench.indexed,
        all,
        |_| -> Result<(), Fault> { panic!("boom") },
        |_, tree, _| {
            panicked += usize::from(matches!(tree, Err(Fault::Panicked { .. })));
            ControlFlow::<()>::Continue(())
        },
    );
    assert!(flow.is_continue());
    assert_eq!(panicked, 50);
}
