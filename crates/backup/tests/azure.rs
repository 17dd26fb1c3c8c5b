//! Repositories in a container of a real server of Azure's Blob Storage: the same as in a folder, for restic too; what is said
//! when the server refuses; and what goes wrong on the way to it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{
    CauseKind, Location, OpenError, Probed, Prune, ReadData, Remote, RemoteOptions, Repository, Retry, Silent,
    StorageError, VerifyDepth, probe,
};
use lvault_faults::azure::ACCOUNT;
use lvault_faults::s3::Mishap;
use std::time::{Duration, Instant};
use support::azure::{Container, PREFIX};
use support::{PASSWORD, PATH, inventory, noise, password, path, write};

fn fill(container: &Container) {
    let volume = container.bench.volume();
    for file in 0..20 {
        write(volume.join(file.to_string()), noise(file, 40_000));
    }
    write(volume.join("big"), noise(7, 20 << 20));
}

#[test]
fn a_container_holds_what_a_folder_holds() {
    let container = Container::new();
    let bench = &container.bench;
    fill(&container);
    assert_eq!(probe(&container.location(), "default", &password(PASSWORD)).unwrap(), Probed { repository: None });
    let began = Instant::now();
    let repository = container.open().unwrap();
    assert!(began.elapsed() < Duration::from_secs(17), "the condition of the config was not honoured");
    let first = bench.back_up(&repository, "a", 1).unwrap();
    repository.verify(&first.snapshot, VerifyDepth::Data, &Silent).unwrap();
    let found = probe(&container.location(), "default", &password(PASSWORD)).unwrap();
    assert_eq!(found.repository, Some(path(PATH)));

    let again = container.open().unwrap();
    assert_eq!(again.id(), repository.id());
    write(bench.volume().join("new"), noise(99, 100_000));
    let second = bench.back_up(&again, "b", 1).unwrap();
    assert_eq!((second.parent, second.read_bytes), (Some(first.snapshot.clone()), 100_000));
    let target = bench.empty("target");
    again.restore(&second.snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
    assert!(again.check(ReadData::Everything, &Silent).unwrap().is_clean());
    container.assert_restic_is_content("before");

    std::fs::remove_file(bench.volume().join("big")).unwrap();
    bench.back_up(&again, "c", 1).unwrap();
    assert_eq!(again.forget("a").unwrap(), [first.snapshot]);
    assert_eq!(again.forget("b").unwrap(), [second.snapshot]);
    let pruned = again.prune(&Prune::default(), &Silent).unwrap();
    assert!(pruned.before.total - pruned.after.total > 19 << 20, "{pruned:?}");
    assert!(again.check(ReadData::Everything, &Silent).unwrap().is_clean());
    container.assert_restic_is_content("after");
    let log = container.proxy.log();
    // Files are deleted by requests to the container that name them in their bodies.
    let outside = log.iter().find(|(request, _)| {
        !request.path.replace("%2F", "/").contains(PREFIX) && !request.path.ends_with("comp=batch")
    });
    assert!(outside.is_none(), "not below the prefix: {outside:?}");
}

#[test]
fn threads_at_once_make_one_repository() {
    let container = Container::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| container.open().unwrap().id().to_owned())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    container.assert_restic_is_content("copy");
}

/// What is said of a container that cannot be used. No secret is.
fn refused(remote: Remote) -> StorageError {
    let error = probe(&Location::Remote(remote.clone()), "default", &password("open sesame")).unwrap_err();
    let OpenError::Storage { ref fault, .. } = error else { panic!("{error}") };
    let opened = Repository::open_or_init(&Location::Remote(remote), &path(PATH), &password("sesame")).unwrap_err();
    for text in [error.to_string(), format!("{error:?}"), opened.to_string(), format!("{opened:?}")] {
        assert!(!text.contains("aHVudGVyMg") && !text.contains("sesame") && !text.contains("hunter2"), "{text}");
    }
    let OpenError::Storage { fault: ref other, .. } = opened else { panic!("{opened}") };
    assert_eq!(other.kind(), fault.kind(), "{opened} / {error}");
    fault.clone()
}

#[test]
fn each_thing_that_is_wrong_with_a_container_has_a_message_of_its_own() {
    let container = Container::new();
    let good = container.remote();
    let with_key = |account: &str, key: &str| Remote { service: container.service(account, key), ..good.clone() };
    for (remote, kind, words) in [
        (with_key(ACCOUNT, "aHVudGVyMg=="), CauseKind::Credentials, "does not accept the key"),
        (with_key(ACCOUNT, "hunter2!"), CauseKind::Credentials, "AZURE_ACCOUNT_KEY is not an account's key in base64"),
        (with_key("nobody", "aHVudGVyMg=="), CauseKind::Bucket, "no such bucket, or no such account"),
        (Remote { bucket: "nowhere".to_owned(), ..good.clone() }, CauseKind::Bucket, "no such bucket"),
        (Remote { bucket: "No_Name".to_owned(), ..good.clone() }, CauseKind::Bucket, "the bucket's name is none"),
    ] {
        let began = Instant::now();
        let fault = refused(remote);
        let text = fault.to_string();
        assert!(fault.kind() == kind && text.contains(words), "expected {words:?}: {text} {fault:?}");
        assert_eq!(fault.retry(), Retry::AfterRemedy, "{text}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}: {text}", began.elapsed());
    }
}

#[test]
fn a_backup_and_a_restore_get_through_mishaps_whole() {
    let container = Container::new();
    fill(&container);
    for (round, mishap) in [Mishap::Refuse(503, "ServerBusy"), Mishap::Lose, Mishap::Tear].into_iter().enumerate() {
        container.proxy.plan(move |request| (request.number % 4 == 1).then_some(mishap));
        let repository = container.open().unwrap();
        write(container.bench.volume().join("new"), noise(1000 + round as u64, 2 << 20));
        let report = container.bench.back_up(&repository, &format!("round-{round}"), 1);
        let report = report.unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        let target = container.bench.empty(&format!("target-{round}"));
        repository.restore(&report.snapshot, &target, &Silent).unwrap_or_else(|err| panic!("{mishap:?}: {err}"));
        assert_eq!(inventory(&target), inventory(&container.bench.volume()), "{mishap:?}");
        let met = container.proxy.log().iter().filter(|(_, met)| met.is_some()).count();
        assert!(met > 5, "{mishap:?} was met {met} times only");
        assert_eq!(repository.snapshots().unwrap().len(), round + 1, "one commit for each");
    }
    container.assert_restic_is_content("copy");
}

#[test]
fn a_server_that_stays_away_fails_the_backup_and_nothing_is_committed() {
    let container = Container::new();
    fill(&container);
    let good = container.remote();
    let impatient = RemoteOptions { patience: Duration::from_secs(2), ..good.options.clone() };
    let location = Location::Remote(Remote { options: impatient, ..good });
    let repository = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap();
    let of_data = |path: &str| path.contains("/data/") || path.contains("%2Fdata%2F");
    container.proxy.plan(move |request| {
        (request.method == "PUT" && of_data(&request.path)).then_some(Mishap::Refuse(503, "ServerBusy"))
    });
    let error = container.bench.back_up(&repository, "a", 1).unwrap_err();
    assert!(error.to_string().contains("cannot answer now"), "{error}");
    container.proxy.plan(|_| None);
    assert!(repository.snapshots().unwrap().is_empty());
    container.bench.back_up(&container.open().unwrap(), "a", 1).unwrap();
    container.assert_restic_is_content("copy");
}
