//! Repositories in a bucket of a real S3 server: the same as in a folder, for restic too; and what is said when the server
//! refuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    CauseKind, Endpoint, Location, OpenError, Probed, ReadData, Remote, RemoteOptions, Repository, Retry, Secret,
    Service, Silent, StorageError, VerifyDepth, probe,
};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};
use support::bucket::{Bucket, PREFIX, remote};
use support::{PASSWORD, PATH, inventory, noise, password, path, write};

fn fill(bucket: &Bucket) {
    let volume = bucket.bench.volume();
    for folder in 0..3 {
        std::fs::create_dir(volume.join(folder.to_string())).unwrap();
        for file in 0..10 {
            write(volume.join(format!("{folder}/{file}")), noise(folder * 100 + file, 40_000));
        }
    }
    write(volume.join("big"), noise(7, 20 << 20));
}

#[test]
fn a_bucket_holds_what_a_folder_holds() {
    let bucket = Bucket::new();
    fill(&bucket);
    assert_eq!(
        probe(&bucket.location(), "default", &password(PASSWORD)).unwrap(),
        Probed { repository: None },
        "empty and healthy"
    );
    let repository = bucket.open().unwrap();
    let first = bucket.bench.back_up(&repository, "a", 1).unwrap();
    repository.verify(&first.snapshot, VerifyDepth::Data, &Silent).unwrap();
    let found = probe(&bucket.location(), "default", &password(PASSWORD)).unwrap();
    assert_eq!(found.repository, Some(path(PATH)));

    let again = bucket.open().unwrap();
    assert_eq!(again.id(), repository.id());
    let second = bucket.bench.back_up(&again, "b", 1).unwrap();
    assert_eq!((second.parent, second.read_bytes), (Some(first.snapshot.clone()), 0));
    let target = bucket.bench.empty("target");
    again.restore(&first.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bucket.bench.volume()));
    assert!(again.check(ReadData::Everything, &Silent).unwrap().is_clean());
    assert_eq!(again.forget("a").unwrap(), [first.snapshot]);
    bucket.assert_restic_is_content();
}

/// One request for each blob would make a restore of many small files as slow as the line's latency.
#[test]
fn what_lies_together_is_asked_for_together() {
    let bucket = Bucket::new();
    let volume = bucket.bench.volume();
    for file in 0..400 {
        write(volume.join(file.to_string()), noise(file, 3000));
    }
    write(volume.join("big"), noise(1000, 12 << 20));
    let repository = bucket.open().unwrap();
    let backed_up = bucket.bench.back_up(&repository, "a", 1).unwrap();
    bucket.proxy.plan(|_| None);
    let target = bucket.bench.empty("target");
    repository.restore(&backed_up.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&volume));
    let log = bucket.proxy.log();
    let reads = log.iter().filter(|(asked, _)| asked.method == "GET" && asked.path.contains("/data/")).count();
    assert!((5..=40).contains(&reads), "{reads} requests for 401 files");
}

#[test]
fn restic_and_lvault_read_what_the_other_wrote() {
    let bucket = Bucket::new();
    fill(&bucket);
    let volume = bucket.bench.volume();
    assert!(bucket.restic(&["init"]).status.success());
    assert!(bucket.restic(&["backup", "--host", "volume-1", volume.to_str().unwrap()]).status.success());
    let repository = bucket.open().unwrap();
    let theirs = repository.snapshots().unwrap().remove(0).id;
    repository.verify(&theirs, VerifyDepth::Data, &Silent).unwrap();
    let ours = bucket.bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let target = bucket.bench.empty("target");
    let output = bucket.restic(&["restore", ours.as_str(), "--target", target.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(inventory(&target.join("data")).len(), inventory(&volume).len());
    assert!(bucket.restic(&["forget", "--prune", theirs.as_str()]).status.success());
    write(volume.join("new"), noise(99, 100_000));
    bucket.bench.back_up(&repository, "b", 1).unwrap();
    bucket.assert_restic_is_content();
}

#[test]
fn threads_at_once_make_one_repository() {
    let bucket = Bucket::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bucket.open().unwrap().id().to_owned())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    bucket.assert_restic_is_content();
}

/// What is said of a bucket that cannot be used. No secret is.
fn refused(remote: Remote) -> StorageError {
    let location = Location::Remote(remote);
    let error = probe(&location, "default", &password("open sesame")).unwrap_err();
    let OpenError::Storage { ref fault, .. } = error else { panic!("{error}") };
    let opened = Repository::open_or_init(&location, &path(PATH), &password("open sesame")).unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), opened.to_string(), format!("{opened:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("sesame"), "{text}");
    }
    let OpenError::Storage { fault: ref other, .. } = opened else { panic!("{opened}") };
    assert_eq!(other.kind(), fault.kind(), "{opened} / {error}");
    fault.clone()
}

#[test]
fn each_thing_that_is_wrong_with_a_bucket_has_a_message_of_its_own() {
    let bucket = Bucket::new();
    let good = bucket.remote();
    let with_key = |id: &str, key: &str, token: Option<&str>| {
        let endpoint = Endpoint::parse(&bucket.server.endpoint()).unwrap();
        let session_token = token.map(Secret::new);
        let (key_id, key) = (id.to_owned(), Secret::new(key));
        Remote {
            service: Service::S3 { endpoint, region: "us-east-1".to_owned(), key_id, key, session_token },
            ..good.clone()
        }
    };
    let server = &bucket.server;
    let impatient = RemoteOptions { patience: Duration::from_secs(1), ..good.options.clone() };
    let nobody = remote("http://127.0.0.1:1", &server.key);
    let tls = remote(&server.endpoint().replace("http:", "https:"), &server.key);
    let no_host = remote("http://no-such-host.invalid", &server.key);
    for (remote, kind, words) in [
        (with_key("AKIAUNKNOWN", "hunter2", None), CauseKind::Credentials, "does not know the access key"),
        (with_key(&server.key.id, "hunter2", None), CauseKind::Credentials, "secret key does not belong"),
        (with_key(&server.lent.id, &server.lent.key, Some("hunter2")), CauseKind::Credentials, "session token"),
        (with_key(&server.powerless.id, &server.powerless.key, None), CauseKind::Denied, "may not do this"),
        (Remote { bucket: "nowhere".to_owned(), ..good.clone() }, CauseKind::Bucket, "no such bucket"),
        (Remote { options: impatient.clone(), ..nobody }, CauseKind::Unreachable, "Connection refused"),
        (Remote { options: impatient.clone(), ..no_host }, CauseKind::Unreachable, "no connection"),
        (tls, CauseKind::Certificate, "does not speak TLS"),
    ] {
        let fault = refused(remote);
        let text = fault.to_string();
        assert!(fault.kind() == kind && text.contains(words), "expected {words:?}: {text} {fault:?}");
        let retry = if kind == CauseKind::Unreachable { Retry::Later } else { Retry::AfterRemedy };
        assert_eq!(fault.retry(), retry, "{text}");
    }
}

#[test]
fn lent_keys_work_with_their_token() {
    let bucket = Bucket::new();
    let location = Location::Remote(remote(&bucket.server.endpoint(), &bucket.server.lent));
    assert_eq!(probe(&location, "default", &password(PASSWORD)).unwrap().repository, None);
}

#[test]
fn uploads_keep_to_their_limit() {
    let bucket = Bucket::new();
    write(bucket.bench.volume().join("file"), noise(1, 3 << 20));
    let mut remote = bucket.remote();
    remote.options.upload_rate = NonZeroU64::new(1 << 20);
    let location = Location::Remote(remote);
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let began = Instant::now();
    bucket.bench.back_up(&repository, "a", 1).unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2500), "3 MiB at 1 MiB/s took {took:?}");
    bucket.assert_restic_is_content();
}

/// Both one large file, which is read in ranges of megabytes, and blobs that are read one by one and fit into one piece each.
#[test]
fn downloads_keep_to_their_limit() {
    let bucket = Bucket::new();
    for file in 0..48 {
        write(bucket.bench.volume().join(file.to_string()), noise(file, 64 << 10));
    }
    let snapshot = bucket.bench.back_up(&bucket.open().unwrap(), "a", 1).unwrap().snapshot;
    let mut remote = bucket.remote();
    remote.options.download_rate = NonZeroU64::new(1 << 20);
    // What is meant is no stall, also where one piece takes longer.
    remote.options.stall = Duration::from_secs(2);
    let location = Location::Remote(remote);
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let began = Instant::now();
    repository.verify(&snapshot, VerifyDepth::Data, &Silent).unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2900), "3 MiB at 1 MiB/s, blob by blob, took {took:?}");
    let began = Instant::now();
    let target = bucket.bench.empty("target");
    repository.restore(&snapshot, &target, &Silent).unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(2900) && took < Duration::from_secs(60), "3 MiB at 1 MiB/s took {took:?}");
    assert_eq!(inventory(&target), inventory(&bucket.bench.volume()));
    write(bucket.bench.volume().join("new"), noise(99, 8 << 20));
    let began = Instant::now();
    bucket.bench.back_up(&repository, "b", 1).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "uploads were slowed down: {:?}", began.elapsed());
}

#[test]
fn no_more_connections_are_open_than_allowed() {
    let bucket = Bucket::new();
    fill(&bucket);
    let mut remote = bucket.remote();
    remote.options.max_connections = std::num::NonZeroUsize::MIN;
    bucket.proxy.plan(|_| Some(lvault_faults::s3::Mishap::Delay(Duration::from_millis(5))));
    let repository = Repository::open_or_init(&Location::Remote(remote), &path(PATH), &password(PASSWORD)).unwrap();
    bucket.bench.back_up(&repository, "a", 1).unwrap();
    assert_eq!(bucket.proxy.most_at_once(), 1);
    let repository = bucket.open().unwrap();
    bucket.proxy.plan(|_| Some(lvault_faults::s3::Mishap::Delay(Duration::from_millis(50))));
    write(bucket.bench.volume().join("more"), noise(8, 60 << 20));
    bucket.bench.back_up(&repository, "b", 1).unwrap();
    assert!((2..=5).contains(&bucket.proxy.most_at_once()), "{}", bucket.proxy.most_at_once());
    let log = bucket.proxy.log();
    let outside = log.iter().find(|(request, _)| !request.path.replace("%2F", "/").contains(PREFIX));
    assert!(outside.is_none(), "not below the prefix: {outside:?}");
}
