//! A bucket behind a connection on which things go wrong: a backup is whole, or it fails and says why, and never commits
//! something that is not there.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    BackUpError, CauseKind, Fault, Key, Location, OpenError, Remote, RemoteOptions, Repository, RestoreError, Retry,
    Silent, StorageError, VerifyDepth, probe,
};
use lvault_faults::s3::{Mishap, S3Key};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::bucket::{Bucket, remote};
use support::{Bench, PASSWORD, PATH, command, inventory, noise, password, path, write};

/// How many bytes the volume of these tests holds, about.
const SIZE: usize = 40 << 20;

fn fill(bucket: &Bucket) {
    let volume = bucket.bench.volume();
    for file in 0..20 {
        write(volume.join(file.to_string()), noise(file, 50_000));
    }
    write(volume.join("big"), noise(77, SIZE));
}

/// A remote that is given up on soon.
fn impatient(bucket: &Bucket) -> Remote {
    let remote = bucket.remote();
    Remote { options: RemoteOptions { patience: Duration::from_secs(2), ..remote.options.clone() }, ..remote }
}

fn open(remote: Remote) -> Repository {
    Repository::open_or_init(&Location::Remote(remote), &path(PATH), &password(PASSWORD)).unwrap()
}

#[test]
fn a_backup_and_a_restore_get_through_mishaps_whole() {
    let bucket = Bucket::new();
    fill(&bucket);
    for (round, mishap) in [
        Mishap::Refuse(500, "InternalError"),
        Mishap::Refuse(503, "SlowDown"),
        Mishap::Drop,
        Mishap::Lose,
        Mishap::Tear,
        Mishap::Delay(Duration::from_millis(200)),
    ]
    .into_iter()
    .enumerate()
    {
        bucket.proxy.plan(move |request| (request.number % 4 == 1).then_some(mishap));
        let repository = bucket.open().unwrap();
        write(bucket.bench.volume().join("new"), noise(1000 + round as u64, 2 << 20));
        let uid = format!("round-{round}");
        let report = bucket.bench.back_up(&repository, &uid, 1).unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        let key = Key::new(uid, 1).unwrap();
        assert_eq!(repository.find(&key).unwrap().map(|found| found.id), Some(report.snapshot.clone()));
        let target = bucket.bench.empty(&format!("target-{round}"));
        repository.restore(&report.snapshot, &target, &Silent).unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        assert_eq!(inventory(&target), inventory(&bucket.bench.volume()), "{mishap:?}");
        let met = bucket.proxy.log().iter().filter(|(_, met)| met.is_some()).count();
        assert!(met > 5, "{mishap:?} was met {met} times only");
        assert_eq!(repository.snapshots().unwrap().len(), round + 1, "one commit for each");
    }
    bucket.assert_restic_is_content();
}

#[test]
fn answers_that_are_too_short_are_asked_for_again() {
    let bucket = Bucket::new();
    fill(&bucket);
    let repository = bucket.open().unwrap();
    let snapshot = bucket.bench.back_up(&repository, "a", 1).unwrap().snapshot;
    for mishap in [Mishap::Shorten, Mishap::Tear] {
        let of_data = |path: &str| path.contains("/data/") || path.contains("/keys/") || path.contains("/snapshots/");
        bucket.proxy.plan(move |request| {
            let is_read = request.method == "GET" && of_data(&request.path) && !request.path.contains("list-type");
            (is_read && request.number % 3 == 0).then_some(mishap)
        });
        let repository = bucket.open().unwrap();
        repository.verify(&snapshot, VerifyDepth::Data, &Silent).unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        assert!(bucket.proxy.log().iter().any(|(_, met)| met.is_some()), "{mishap:?} was not met");
    }
}

#[test]
fn a_server_that_stays_away_fails_the_backup_and_nothing_is_committed() {
    let bucket = Bucket::new();
    fill(&bucket);
    bucket.open().unwrap();
    for (mishap, kind) in [
        (Mishap::Refuse(503, "SlowDown"), CauseKind::Busy),
        (Mishap::Drop, CauseKind::Interrupted),
        (Mishap::Refuse(403, "AccessDenied"), CauseKind::Denied),
        (Mishap::Refuse(507, "XMinioStorageFull"), CauseKind::Full),
    ] {
        bucket.proxy.plan(|_| None);
        let repository = open(impatient(&bucket));
        bucket.proxy.plan(move |request| {
            (request.method == "PUT" && request.path.contains("/data/") && request.number > 12).then_some(mishap)
        });
        let error = bucket.bench.back_up(&repository, "a", 1).unwrap_err();
        let BackUpError::Repository { fault: Fault::Storage(ref fault), .. } = error else { panic!("{error:?}") };
        assert_eq!(fault.kind(), kind, "{error}");
        assert!(matches!(fault, StorageError::Write { .. }), "{error}");
        bucket.proxy.plan(|_| None);
        assert!(repository.snapshots().unwrap().is_empty(), "{mishap:?}");
    }
    let repository = bucket.open().unwrap();
    bucket.bench.back_up(&repository, "a", 1).unwrap();
    bucket.assert_restic_is_content();
}

#[test]
fn an_answer_that_is_lost_is_looked_for() {
    for what in ["/config", "/data/", "/snapshots/"] {
        let bucket = Bucket::new();
        write(bucket.bench.volume().join("file"), noise(1, 1000));
        bucket.proxy.plan(move |request| {
            (request.method == "PUT" && request.path.contains(what) && request.number < 40).then_some(Mishap::Lose)
        });
        let began = Instant::now();
        let repository = match bucket.open() {
            Ok(repository) => repository,
            Err(error) => {
                assert!(began.elapsed() > Duration::from_secs(1), "given up at once: {what}: {error}");
                bucket.proxy.plan(|_| None);
                bucket.open().unwrap()
            }
        };
        bucket.proxy.plan(move |request| {
            (request.method == "PUT" && request.path.contains(what) && request.number < 6).then_some(Mishap::Lose)
        });
        bucket.bench.back_up(&repository, "a", 1).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(repository.snapshots().unwrap().len(), 1, "{what}");
        bucket.assert_restic_is_content();
    }
}

#[test]
fn a_request_in_which_nothing_moves_is_made_again() {
    let bucket = Bucket::new();
    let mut remote = bucket.remote();
    remote.options.stall = Duration::from_secs(3);
    open(remote.clone());
    bucket.proxy.plan(|request| (request.number == 2).then_some(Mishap::Delay(Duration::from_secs(600))));
    let began = Instant::now();
    open(remote);
    assert!(began.elapsed() > Duration::from_secs(3) && began.elapsed() < Duration::from_secs(300));
    assert!(bucket.proxy.log().iter().any(|(_, met)| met.is_some()));
}

#[test]
fn a_wrong_clock_and_a_wrong_region_are_named() {
    let bucket = Bucket::new();
    for (status, code, kind, words) in [
        (403, "RequestTimeTooSkewed", CauseKind::Clock, "set this machine's clock"),
        (400, "AuthorizationHeaderMalformed", CauseKind::Region, "correct the region"),
    ] {
        bucket.proxy.plan(move |_| Some(Mishap::Refuse(status, code)));
        let error = probe(&bucket.location(), "default", &password(PASSWORD)).unwrap_err();
        let OpenError::Storage { ref fault, .. } = error else { panic!("{error}") };
        assert_eq!((fault.kind(), fault.retry()), (kind, Retry::AfterRemedy));
        assert!(error.to_string().contains(words), "{error}");
        let error = bucket.open().unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_restore_that_loses_its_server_says_so() {
    let bucket = Bucket::new();
    fill(&bucket);
    let repository = open(impatient(&bucket));
    let snapshot = bucket.bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let asked = AtomicUsize::new(0);
    let is_beyond = move || asked.fetch_add(1, Ordering::SeqCst) >= 5;
    bucket.proxy.plan(move |request| (request.path.contains("/data/") && is_beyond()).then_some(Mishap::Drop));
    let target = bucket.bench.empty("target");
    let error = repository.restore(&snapshot, &target, &Silent).unwrap_err();
    assert!(matches!(error, RestoreError::Repository { .. }) && error.retry() == Retry::Later, "{error:?}");
    bucket.proxy.plan(|_| None);
    repository.restore(&snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bucket.bench.volume()));
}

const CHILD: [&str; 4] = ["LVAULT_TEST_VOLUME", "LVAULT_TEST_ENDPOINT", "LVAULT_TEST_ID", "LVAULT_TEST_KEY"];

/// Not a test by itself: backs a volume up into a bucket, as a process that can be killed.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_backs_up() {
    let [volume, endpoint, id, key] = CHILD.map(|name| std::env::var(name).unwrap());
    let mut what = Bench::new().what("killed", 1);
    what.root = volume.into();
    open(remote(&endpoint, &S3Key { id, key, token: None })).back_up(&what, Arc::new(Silent)).unwrap();
}

#[test]
fn what_a_killed_process_uploaded_is_not_uploaded_again() {
    let bucket = Bucket::new();
    fill(&bucket);
    for more in 78..82 {
        write(bucket.bench.volume().join(more.to_string()), noise(more, SIZE));
    }
    let puts = |what: &str| {
        let log = bucket.proxy.log();
        log.iter().filter(|(request, _)| request.method == "PUT" && request.path.contains(what)).count()
    };
    let volume = bucket.bench.volume().display().to_string();
    let values = [volume, bucket.proxy.endpoint(), bucket.server.key.id.clone(), bucket.server.key.key.clone()];
    // Slow enough to be met in the middle.
    bucket.proxy.plan(|request| (request.method == "PUT").then_some(Mishap::Delay(Duration::from_millis(200))));
    let mut child = command(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child_backs_up"])
        .envs(CHILD.into_iter().zip(values))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while puts("/data/") < 5 || puts("/index/") < 3 {
        assert!(began.elapsed() < Duration::from_secs(300) && child.try_wait().unwrap().is_none(), "nothing to kill");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    bucket.proxy.plan(|_| None);
    let repository = bucket.open().unwrap();
    assert_eq!(repository.find(&Key::new("killed", 1).unwrap()).unwrap(), None);
    let report = bucket.bench.back_up(&repository, "killed", 1).unwrap();
    let again = report.added_bytes as usize;
    assert!(again < 5 * SIZE + 1_000_000 - 2 * (16 << 20), "{again} bytes were uploaded by the successor");
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert!(bucket.restic(&["unlock"]).status.success());
    bucket.assert_restic_is_content();
}
