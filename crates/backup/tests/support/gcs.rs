//! A bench whose storage is a bucket of an S3 server that speaks as Google Cloud Storage does, reached through a proxy that can
//! let things go wrong.

use super::bucket::PREFIX;
use super::{Bench, PASSWORD, PATH, bucket, password, path};
use lvault_backup::{Endpoint, Location, OpenError, Remote, RemoteOptions, Repository, Secret, Service};
use lvault_faults::gcs::GcsServer;
use lvault_faults::s3::{BUCKET, Proxy};
use std::time::Duration;

pub struct Google {
    pub bench: Bench,
    pub server: GcsServer,
    pub proxy: Proxy,
}

impl Google {
    pub fn new() -> Self {
        let server = GcsServer::start(7);
        let proxy = Proxy::start(server.port);
        Self { bench: Bench::new(), server, proxy }
    }

    /// The bucket through the proxy, with little patience.
    pub fn remote(&self) -> Remote {
        self.remote_with(&self.server.key)
    }

    pub fn remote_with(&self, key: &str) -> Remote {
        Remote {
            service: Service::Gcs {
                service_account: Secret::new(key),
                endpoint: Some(Endpoint::parse(&self.proxy.endpoint()).unwrap()),
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

    pub fn location(&self) -> Location {
        Location::Remote(self.remote())
    }

    pub fn open(&self) -> Result<Repository, OpenError> {
        Repository::open_or_init(&self.location(), &path(PATH), &password(PASSWORD))
    }

    /// restic finds Google's own host only: it reads the same files from the server behind.
    pub fn assert_restic_is_content(&self) {
        bucket::assert_restic_is_content(&self.server.s3);
    }
}
