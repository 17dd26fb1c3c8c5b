//! A bench whose storage is a bucket of a real S3 server, reached through a proxy that can let things go wrong.

use super::{Bench, PASSWORD, PATH, command, password, path};
use lvault_backup::{Endpoint, Location, OpenError, Remote, RemoteOptions, Repository, Secret, Service};
use lvault_faults::s3::{BUCKET, Proxy, S3Key, S3Server};
use std::process::{Command, Output};
use std::time::Duration;

pub const PREFIX: &str = "some/prefix";

pub struct Bucket {
    pub bench: Bench,
    pub server: S3Server,
    pub proxy: Proxy,
}

impl Bucket {
    pub fn new() -> Self {
        let server = S3Server::start(7);
        let proxy = Proxy::start(server.port);
        Self { bench: Bench::new(), server, proxy }
    }

    /// The bucket through the proxy, with little patience.
    pub fn remote(&self) -> Remote {
        remote(&self.proxy.endpoint(), &self.server.key)
    }

    pub fn location(&self) -> Location {
        Location::Remote(self.remote())
    }

    pub fn open(&self) -> Result<Repository, OpenError> {
        Repository::open_or_init(&self.location(), &path(PATH), &password(PASSWORD))
    }

    /// Plain restic on the same repository, past the proxy.
    pub fn restic(&self, arguments: &[&str]) -> Output {
        restic(&self.server, arguments).output().expect("these tests need Debian's restic package")
    }

    pub fn assert_restic_is_content(&self) {
        assert_restic_is_content(&self.server);
    }
}

/// Plain restic on the repository in this server's bucket.
pub fn restic(server: &S3Server, arguments: &[&str]) -> Command {
    let at = format!("s3:{}/{BUCKET}/{PREFIX}/{PATH}", server.endpoint());
    let mut restic = command("restic");
    restic.args(["--no-cache", "-r", &at]).args(arguments);
    restic.envs(server.key.environment()).env("RESTIC_PASSWORD", PASSWORD);
    restic
}

pub fn assert_restic_is_content(server: &S3Server) {
    let output = restic(server, &["check", "--read-data"]).output().expect("these tests need Debian's restic package");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("no errors were found"), "{output:?}");
}

pub fn remote(endpoint: &str, key: &S3Key) -> Remote {
    Remote {
        service: Service::S3 {
            endpoint: Endpoint::parse(endpoint).unwrap(),
            region: "us-east-1".to_owned(),
            key_id: key.id.clone(),
            key: Secret::new(key.key.as_str()),
            session_token: key.token.as_deref().map(Secret::new),
        },
        bucket: BUCKET.to_owned(),
        prefix: Some(path(PREFIX)),
        options: RemoteOptions {
            patience: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            ..RemoteOptions::default()
        },
    }
}
