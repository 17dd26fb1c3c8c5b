//! How often a bucket is asked: for what lies together once, not for each folder and each part of a file; and several at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    Fault, Location, Prune, ReadData, Remote, RemoteOptions, Repository, Retry, Silent, SnapshotId, VerifyDepth,
    VerifyError,
};
use lvault_faults::s3::{Mishap, Request};
use std::time::{Duration, Instant};
use support::bucket::Bucket;
use support::{PASSWORD, PATH, inventory, noise, password, path, write};

/// Folders in folders: 20 of 15 each.
const FOLDERS: usize = 320;

fn fill(bucket: &Bucket) {
    for outer in 0..20_u64 {
        for inner in 0..15_u64 {
            let folder = bucket.bench.volume().join(format!("{outer}/{inner}"));
            std::fs::create_dir_all(&folder).unwrap();
            for file in 0..2_u64 {
                write(folder.join(file.to_string()), noise(outer * 1000 + inner * 10 + file, 300));
            }
        }
    }
}

/// The repository lies at `default/data`, and its packs in `data` there.
fn is_read_of_data(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("/data/data/")
}

/// How often packs were read while something was done.
fn reads<T>(bucket: &Bucket, act: impl FnOnce() -> T) -> (usize, T) {
    bucket.proxy.plan(|_| None);
    let done = act();
    (bucket.proxy.log().iter().filter(|(request, _)| is_read_of_data(request)).count(), done)
}

#[test]
fn neighbouring_folders_are_read_with_one_request() {
    let bucket = Bucket::new();
    fill(&bucket);
    let repository = bucket.open().unwrap();
    let first = bucket.bench.back_up(&repository, "a", 1).unwrap().snapshot;
    // Trees have some 200 KB here, and data has as much.
    let few = |what: &str, most: usize, act: &dyn Fn()| {
        let (count, ()) = reads(&bucket, act);
        assert!((1..=most).contains(&count), "{what}: {count} requests for {FOLDERS} folders");
    };
    few("verify", 4, &|| {
        let verified = repository.verify(&first, VerifyDepth::Structure, &Silent).unwrap();
        assert!(verified.trees > FOLDERS as u64, "{verified:?}");
    });
    few("verify data", 8, &|| {
        let verified = repository.verify(&first, VerifyDepth::Data, &Silent).unwrap();
        assert_eq!(verified.blobs_read, 600);
    });
    few("back up again", 4, &|| {
        let report = bucket.bench.back_up(&repository, "b", 1).unwrap();
        assert_eq!((report.parent.as_ref(), report.read_bytes), (Some(&first), 0));
    });
    few("size", 4, &|| assert_eq!(repository.size_of(&first).unwrap().folders, FOLDERS as u64));
    // Files are restored in lots of 32.
    few("restore", 30, &|| {
        let target = bucket.bench.empty("target");
        repository.restore(&first, &target, &Silent).unwrap();
        assert_eq!(inventory(&target), inventory(&bucket.bench.volume()));
    });
    few("check", 4, &|| assert!(repository.check(ReadData::Nothing, &Silent).unwrap().is_clean()));
    few("prune", 4, &|| {
        repository.prune(&Prune::default(), &Silent).unwrap();
    });
}

/// Each backup writes a small pack of trees of its own, so that a snapshot's trees lie in many.
fn changes(bucket: &Bucket, repository: &Repository, count: u64) -> SnapshotId {
    let mut last = None;
    for change in 0..count {
        write(bucket.bench.volume().join(format!("{change}/3/new")), noise(70_000 + change, 300));
        last = Some(bucket.bench.back_up(repository, &format!("change-{change}"), 1).unwrap().snapshot);
    }
    last.unwrap()
}

#[test]
fn several_requests_are_under_way_at_once() {
    let bucket = Bucket::new();
    fill(&bucket);
    let repository = bucket.open().unwrap();
    bucket.bench.back_up(&repository, "a", 1).unwrap();
    let last = changes(&bucket, &repository, 8);
    bucket.proxy.plan(|request| is_read_of_data(request).then_some(Mishap::Delay(Duration::from_millis(100))));
    repository.verify(&last, VerifyDepth::Structure, &Silent).unwrap();
    let asked = bucket.proxy.log().iter().filter(|(_, met)| met.is_some()).count();
    assert!((9..=20).contains(&asked), "{asked} requests for trees in 9 packs");
    assert!((3..=5).contains(&bucket.proxy.most_at_once()), "{}", bucket.proxy.most_at_once());
    let report = bucket.bench.back_up(&repository, "again", 1).unwrap();
    assert_eq!(report.read_bytes, 0);
    assert!((3..=5).contains(&bucket.proxy.most_at_once()), "{}", bucket.proxy.most_at_once());
}

#[test]
fn a_bit_that_flips_on_the_way_is_read_again_and_one_that_stays_is_named() {
    let bucket = Bucket::new();
    fill(&bucket);
    let repository = bucket.open().unwrap();
    let snapshot = bucket.bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let flip = |which: fn(usize) -> bool| {
        let count = std::sync::atomic::AtomicUsize::new(0);
        bucket.proxy.plan(move |request| {
            let is_meant = is_read_of_data(request) && which(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
            is_meant.then_some(Mishap::Flip)
        });
    };
    flip(|number| number % 2 == 0);
    repository.verify(&snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert!(bucket.proxy.log().iter().any(|(_, met)| met.is_some()));
    flip(|_| true);
    let error = repository.verify(&snapshot, VerifyDepth::Structure, &Silent).unwrap_err();
    let VerifyError::Damaged { count, ref defects, .. } = error else { panic!("{error}") };
    assert!(count >= 1 && defects[0].contains("Tree blob"), "{error}");
    assert_eq!(error.retry(), Retry::Never);
}

#[test]
fn a_server_that_goes_away_ends_a_verification_once() {
    let bucket = Bucket::new();
    fill(&bucket);
    let remote = bucket.remote();
    let options = RemoteOptions { patience: Duration::from_secs(3), ..remote.options.clone() };
    let location = Location::Remote(Remote { options, ..remote });
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    bucket.bench.back_up(&repository, "a", 1).unwrap();
    let last = changes(&bucket, &repository, 8);
    bucket.proxy.plan(|request| is_read_of_data(request).then_some(Mishap::Drop));
    let began = Instant::now();
    let error = repository.verify(&last, VerifyDepth::Structure, &Silent).unwrap_err();
    assert!(matches!(error, VerifyError::Read { fault: Fault::Storage(_), .. }), "{error:?}");
    assert_eq!(error.retry(), Retry::Later);
    assert!(began.elapsed() < Duration::from_secs(12), "its patience is three seconds: {:?}", began.elapsed());
    bucket.proxy.plan(|_| None);
    repository.verify(&last, VerifyDepth::Data, &Silent).unwrap();
}
