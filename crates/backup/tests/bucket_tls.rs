//! A real S3 server behind TLS: whose certificate is accepted, and what is said when it is not. And one where the bucket
//! stands in the host's name.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{CauseKind, Location, OpenError, Remote, Repository, Retry, Silent, StorageError, probe};
use lvault_faults::s3::{HOSTED_BUCKET, S3Server};
use std::time::{Duration, Instant};
use support::bucket::{PREFIX, remote};
use support::{Bench, PASSWORD, PATH, command, inventory, noise, password, path, write};

/// The server at this port, with TLS. Nobody but the storage's Secret knows the server's authority.
fn tls(server: &S3Server, port: u16, trusts_authority: bool) -> Remote {
    let mut remote = remote(&format!("https://127.0.0.1:{port}"), &server.key);
    remote.options.ca_certificates = trusts_authority.then(|| server.tls.authority.clone());
    remote
}

/// Backs up, restores what was backed up, and has plain restic check it, at `restic`.
fn check_round_trip(server: &S3Server, remote: Remote, restic: &str) {
    let bench = Bench::new();
    for file in 0..5 {
        write(bench.volume().join(file.to_string()), noise(file, 300_000));
    }
    let repository = Repository::open_or_init(&Location::Remote(remote), &path(PATH), &password(PASSWORD)).unwrap();
    let snapshot = bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let target = bench.empty("target");
    repository.restore(&snapshot, &target, &Silent).unwrap();
    assert_eq!(inventory(&target), inventory(&bench.volume()));
    let authority = bench.folder.path().join("authority.pem");
    write(&authority, server.tls.authority.as_bytes());
    let mut restic_check = command("restic");
    restic_check.args(["--no-cache", "-r", &format!("s3:{restic}/{PREFIX}/{PATH}"), "--cacert"]).arg(authority);
    restic_check.args(["check", "--read-data"]).envs(server.key.environment()).env("RESTIC_PASSWORD", PASSWORD);
    let output = restic_check.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("no errors were found"), "{output:?}");
}

#[test]
fn a_bucket_behind_tls_works_with_the_authority_or_with_any_certificate() {
    let server = S3Server::start(1000);
    let port = server.tls.good;
    let restic = format!("https://127.0.0.1:{port}/backups");
    check_round_trip(&server, tls(&server, port, true), &restic);
    for port in [port, server.tls.other_host, server.tls.expired] {
        let mut any = tls(&server, port, false);
        any.options.insecure_tls = true;
        let found = probe(&Location::Remote(any), "default", &password(PASSWORD)).unwrap();
        assert_eq!(found.repository, Some(path(PATH)));
    }
}

#[test]
fn a_certificate_that_is_not_accepted_is_named_at_once() {
    let server = S3Server::start(1000);
    let ports = &server.tls;
    for (remote, words) in [
        (tls(&server, ports.good, false), "certificate is not accepted: this machine does not know its authority"),
        (tls(&server, ports.other_host, true), "certificate is not accepted: it is another host's"),
        (tls(&server, ports.expired, true), "certificate is not accepted: it has expired"),
        (tls(&server, server.port, true), "does not speak TLS"),
        (remote(&format!("http://127.0.0.1:{}", ports.good), &server.key), "speaks TLS; write its endpoint with https"),
    ] {
        assert!(remote.options.patience > Duration::from_secs(30), "it has to be refused, not given up");
        let began = Instant::now();
        let errors = [
            probe(&Location::Remote(remote.clone()), "default", &password(PASSWORD)).unwrap_err(),
            Repository::open_or_init(&Location::Remote(remote), &path(PATH), &password(PASSWORD)).unwrap_err(),
        ];
        assert!(began.elapsed() < Duration::from_secs(15), "after {:?}: {words}", began.elapsed());
        for error in errors {
            let text = error.to_string();
            let fault = fault(error);
            assert!(fault.kind() == CauseKind::Certificate && text.contains(words), "expected {words:?}: {text}");
            assert_eq!(fault.retry(), Retry::AfterRemedy, "{text}");
        }
    }
}

fn fault(error: OpenError) -> StorageError {
    let OpenError::Storage { fault, .. } = error else { panic!("not the storage's: {error:?}") };
    fault
}

#[test]
fn a_bucket_may_stand_in_the_hosts_name() {
    let server = S3Server::start(1000);
    let mut remote = remote(&format!("http://127.0.0.1:{}", server.hosted), &server.key);
    remote.bucket = HOSTED_BUCKET.to_owned();
    let restic = format!("http://127.0.0.1:{}/{HOSTED_BUCKET}", server.port);
    check_round_trip(&server, remote, &restic);
}
