//! Repositories in a bucket of a server that speaks as Google Cloud Storage is documented to: the same as in a folder, for
//! restic too; tokens; what is said when the server refuses; and what goes wrong on the way to it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    CauseKind, Location, OpenError, Probed, Prune, ReadData, Remote, RemoteOptions, Repository, Retry, Silent,
    StorageError, Unlock, VerifyDepth, probe,
};
use lvault_faults::s3::Mishap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::bucket::{PREFIX, restic};
use support::gcs::Google;
use support::{PASSWORD, PATH, inventory, noise, password, path, write};

fn fill(google: &Google) {
    let volume = google.bench.volume();
    for file in 0..20 {
        write(volume.join(file.to_string()), noise(file, 40_000));
    }
    write(volume.join("big"), noise(7, 20 << 20));
}

/// Names are sent with every character encoded that is no letter and no digit.
fn plain(path: &str) -> String {
    path.replace("%2F", "/").replace("%2D", "-")
}

#[test]
fn a_bucket_holds_what_a_folder_holds() {
    let google = Google::new();
    let bench = &google.bench;
    fill(&google);
    assert_eq!(probe(&google.location(), "default", &password(PASSWORD)).unwrap(), Probed { repository: None });
    let began = Instant::now();
    let repository = google.open().unwrap();
    assert!(began.elapsed() < Duration::from_secs(17), "the condition of the config was not honoured");
    let first = bench.back_up(&repository, "a", 1).unwrap();
    repository.verify(&first.snapshot, VerifyDepth::Data, &Silent).unwrap();
    let found = probe(&google.location(), "default", &password(PASSWORD)).unwrap();
    assert_eq!(found.repository, Some(path(PATH)));

    let again = google.open().unwrap();
    assert_eq!(again.id(), repository.id());
    write(bench.volume().join("new"), noise(99, 100_000));
    let second = bench.back_up(&again, "b", 1).unwrap();
    assert_eq!((second.parent, second.read_bytes), (Some(first.snapshot.clone()), 100_000));
    let target = bench.empty("target");
    again.restore(&second.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
    assert!(again.check(ReadData::Everything, &Silent).unwrap().is_clean());
    google.assert_restic_is_content();

    std::fs::remove_file(bench.volume().join("big")).unwrap();
    bench.back_up(&again, "c", 1).unwrap();
    assert_eq!(again.forget("a").unwrap(), [first.snapshot]);
    assert_eq!(again.forget("b").unwrap(), [second.snapshot]);
    assert_eq!(again.forget("b").unwrap(), [], "what is gone is gone");
    let pruned = again.prune(&Prune::default(), &Silent).unwrap();
    assert!(pruned.before.total - pruned.after.total > 19 << 20, "{pruned:?}");
    assert!(again.check(ReadData::Everything, &Silent).unwrap().is_clean());
    google.assert_restic_is_content();
    let log = google.proxy.log();
    let outside = log.iter().find(|(request, _)| !plain(&request.path).contains(PREFIX));
    assert!(outside.is_none(), "not below the prefix: {outside:?}");
}

#[test]
fn threads_at_once_make_one_repository() {
    let google = Google::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| google.open().unwrap().id().to_owned())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    google.assert_restic_is_content();
}

#[test]
fn the_lock_of_a_killed_restic_is_found_and_removed() {
    let google = Google::new();
    write(google.bench.volume().join("file"), noise(1, 1000));
    let repository = google.open().unwrap();
    // It waits for what it is to back up, and holds its lock meanwhile.
    let mut child = restic(&google.server.s3, &["backup", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while repository.locks().unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "no lock");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(repository.unlock(Unlock::Stale).unwrap().is_empty(), "its holder lives");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(repository.unlock(Unlock::Stale).unwrap().len(), 1);
    assert!(repository.locks().unwrap().is_empty());
    google.bench.back_up(&repository, "a", 1).unwrap();
    google.assert_restic_is_content();
}

/// What is said of a bucket that cannot be used. No secret is.
fn refused(remote: Remote, secret: &str) -> StorageError {
    let error = probe(&Location::Remote(remote.clone()), "default", &password("open sesame")).unwrap_err();
    let OpenError::Storage { ref fault, .. } = error else { panic!("{error}") };
    let opened = Repository::open_or_init(&Location::Remote(remote), &path(PATH), &password("sesame")).unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), opened.to_string(), format!("{opened:?}")] {
        assert!(!text.contains(secret) && !text.contains("sesame") && !text.contains("Bearer"), "{text}");
    }
    let OpenError::Storage { fault: ref other, .. } = opened else { panic!("{opened}") };
    assert_eq!(other.kind(), fault.kind(), "{opened} / {error}");
    fault.clone()
}

#[test]
fn each_thing_that_is_wrong_with_a_bucket_has_a_message_of_its_own() {
    let google = Google::new();
    let server = &google.server;
    let key: serde_json::Value = serde_json::from_str(&server.key).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut key = key.clone();
        key[field] = value;
        key.to_string()
    };
    // Another one's name on a key, and one key under the other's number.
    let (not_mine, mixed) =
        (with("client_email", "a@b.c".into()), with("private_key_id", of(&server.powerless, "private_key_id").into()));
    let elsewhere = with("gcs_base_url", "https://elsewhere.example.com".into());
    let nowhere = Remote { bucket: "nowhere".to_owned(), ..google.remote() };
    for (remote, kind, words) in [
        (google.remote_with(&server.deleted), CauseKind::Credentials, "the service account's key is not accepted"),
        (google.remote_with(&not_mine), CauseKind::Credentials, "the service account's key is not accepted"),
        (google.remote_with(&mixed), CauseKind::Credentials, "the service account's key is not accepted"),
        (google.remote_with(&server.powerless), CauseKind::Denied, "may not do this"),
        (google.remote_with("{}"), CauseKind::Credentials, "is not the key of a service account"),
        (google.remote_with(&elsewhere), CauseKind::Credentials, "'gcs_base_url'"),
        (nowhere, CauseKind::Bucket, "no such bucket"),
    ] {
        let began = Instant::now();
        let fault = refused(remote, &of(&server.key, "private_key")[100..150]);
        let text = fault.to_string();
        assert!(fault.kind() == kind && text.contains(words), "expected {words:?}: {text} {fault:?}");
        assert_eq!(fault.retry(), Retry::AfterRemedy, "{text}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {text}", began.elapsed());
    }
    assert_eq!(probe(&google.location(), "default", &password(PASSWORD)).unwrap(), Probed { repository: None });
}

fn of(key: &str, field: &str) -> String {
    let key: serde_json::Value = serde_json::from_str(key).unwrap();
    key[field].as_str().unwrap().to_owned()
}

#[test]
fn a_token_that_expires_on_the_way_is_made_anew() {
    let google = Google::new();
    fill(&google);
    let repository = google.open().unwrap();
    let before = google.server.tokens();
    google.server.expire_tokens();
    let report = google.bench.back_up(&repository, "a", 1).unwrap();
    assert_eq!(google.server.tokens(), before + 1, "one token serves all connections");
    google.server.expire_tokens();
    repository.verify(&report.snapshot, VerifyDepth::Data, &Silent).unwrap();
    google.server.expire_tokens();
    let target = google.bench.empty("target");
    repository.restore(&report.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&google.bench.volume()));
    google.assert_restic_is_content();
}

/// Under way: all connections are refused at once, and one of them may meet the new token before the others have heard.
#[test]
fn a_backup_goes_on_when_tokens_expire_in_the_middle() {
    let google = Google::new();
    fill(&google);
    write(google.bench.volume().join("more"), noise(8, 60 << 20));
    let repository = google.open().unwrap();
    google.proxy.plan(|request| (request.method == "PUT").then_some(Mishap::Delay(Duration::from_millis(300))));
    let has_ended = AtomicBool::new(false);
    let puts = || google.proxy.log().iter().filter(|(request, _)| request.path.contains("%2Fdata%2F")).count();
    std::thread::scope(|scope| {
        let expiring = scope.spawn(|| {
            for at in [2, 4] {
                while puts() < at && !has_ended.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(2));
                }
                google.server.expire_tokens();
            }
            !has_ended.load(Ordering::SeqCst)
        });
        let report = google.bench.back_up(&repository, "a", 1);
        has_ended.store(true, Ordering::SeqCst);
        assert!(expiring.join().unwrap(), "the backup was over before its tokens expired");
        repository.verify(&report.unwrap().snapshot, VerifyDepth::Data, &Silent).unwrap();
    });
    google.assert_restic_is_content();
}

/// A key that is taken back while it is in use is no token that has expired.
#[test]
fn a_key_that_is_not_accepted_any_more_fails_the_backup_soon() {
    let google = Google::new();
    fill(&google);
    let repository = google.open().unwrap();
    google.proxy.plan(|request| {
        (request.method == "PUT" && request.number > 3).then_some(Mishap::Refuse(401, "AuthenticationRequired"))
    });
    let began = Instant::now();
    let error = google.bench.back_up(&repository, "a", 1).unwrap_err().to_string();
    assert!(error.contains("the service account's key is not accepted"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    google.proxy.plan(|_| None);
    assert!(google.open().unwrap().snapshots().unwrap().is_empty());
}

#[test]
fn a_backup_and_a_restore_get_through_mishaps_whole() {
    let google = Google::new();
    fill(&google);
    for (round, mishap) in [
        Mishap::Refuse(429, "SlowDown"),
        Mishap::Refuse(503, "ServiceUnavailable"),
        Mishap::Refuse(500, "InternalError"),
        Mishap::Lose,
        Mishap::Tear,
    ]
    .into_iter()
    .enumerate()
    {
        google.proxy.plan(move |request| (request.number % 4 == 1).then_some(mishap));
        let repository = google.open().unwrap();
        write(google.bench.volume().join("new"), noise(1000 + round as u64, 2 << 20));
        let report = google.bench.back_up(&repository, &format!("round-{round}"), 1);
        let report = report.unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        let target = google.bench.empty(&format!("target-{round}"));
        repository.restore(&report.snapshot, &target, &Silent).unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        assert_eq!(inventory(&target), inventory(&google.bench.volume()), "{mishap:?}");
        let met = google.proxy.log().iter().filter(|(_, met)| met.is_some()).count();
        assert!(met > 5, "{mishap:?} was met {met} times only");
        assert_eq!(repository.snapshots().unwrap().len(), round + 1, "one commit for each");
    }
    google.assert_restic_is_content();
}

/// A config that is created and tried again, a lock that is taken and given back: within a second.
#[test]
fn a_limit_of_one_write_a_second_for_each_object_is_kept_to() {
    let google = Google::new();
    google.server.limit_writes();
    write(google.bench.volume().join("file"), noise(1, 1000));
    let repository = google.open().unwrap();
    let first = google.bench.back_up(&repository, "a", 1).unwrap();
    assert_eq!(repository.forget("a").unwrap(), [first.snapshot]);
    let second = google.bench.back_up(&repository, "b", 1).unwrap();
    repository.prune(&Prune::default(), &Silent).unwrap();
    repository.verify(&second.snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert!(repository.locks().unwrap().is_empty());
    google.assert_restic_is_content();
}

#[test]
fn a_server_that_stays_away_fails_the_backup_and_nothing_is_committed() {
    let google = Google::new();
    fill(&google);
    let good = google.remote();
    let impatient = RemoteOptions { patience: Duration::from_secs(2), ..good.options.clone() };
    let location = Location::Remote(Remote { options: impatient, ..good });
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    google.proxy.plan(|request| {
        let is_upload = request.method == "PUT" && request.path.contains("%2Fdata%2F");
        is_upload.then_some(Mishap::Refuse(503, "ServiceUnavailable"))
    });
    let error = google.bench.back_up(&repository, "a", 1).unwrap_err();
    assert!(error.to_string().contains("cannot answer now"), "{error}");
    google.proxy.plan(|_| None);
    assert!(repository.snapshots().unwrap().is_empty());
    google.bench.back_up(&google.open().unwrap(), "a", 1).unwrap();
    google.assert_restic_is_content();
}
