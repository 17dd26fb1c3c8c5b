//! A bench whose storage is a container of a real server of Azure's Blob Storage, reached through a proxy that can let things
//! go wrong.

use super::{Bench, PASSWORD, PATH, password, path, restic};
use lvault_backup::{Endpoint, Location, OpenError, Remote, RemoteOptions, Repository, Secret, Service};
use lvault_faults::azure::{ACCOUNT, AzureServer, CONTAINER};
use lvault_faults::s3::Proxy;
use std::time::Duration;

pub const PREFIX: &str = "some/prefix";

pub struct Container {
    pub bench: Bench,
    pub server: AzureServer,
    pub proxy: Proxy,
}

impl Container {
    pub fn new() -> Self {
        let server = AzureServer::start();
        let proxy = Proxy::start(server.port);
        Self { bench: Bench::new(), server, proxy }
    }

    /// The container through the proxy, with little patience.
    pub fn remote(&self) -> Remote {
        Remote {
            service: self.service(ACCOUNT, &self.server.key),
            bucket: CONTAINER.to_owned(),
            prefix: Some(path(PREFIX)),
            options: RemoteOptions {
                patience: Duration::from_secs(60),
                stall: Duration::from_secs(30),
                ..RemoteOptions::default()
            },
        }
    }

    pub fn service(&self, account: &str, key: &str) -> Service {
        let endpoint = Some(Endpoint::parse(&self.proxy.endpoint()).unwrap());
        Service::Azure { account: account.to_owned(), key: Secret::new(key), endpoint }
    }

    pub fn location(&self) -> Location {
        Location::Remote(self.remote())
    }

    pub fn open(&self) -> Result<Repository, OpenError> {
        Repository::open_or_init(&self.location(), &path(PATH), &password(PASSWORD))
    }

    /// restic speaks to Azure's own hosts only: it checks a copy of all files, which was made without lvault's client.
    pub fn assert_restic_is_content(&self, copy: &str) {
        let folder = self.bench.empty(copy);
        self.server.download(&format!("{PREFIX}/{PATH}/"), &folder);
        std::fs::create_dir_all(folder.join("locks")).unwrap();
        let output = restic(&folder, &["check", "--read-data"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("no errors were found"), "{output:?}");
    }
}
