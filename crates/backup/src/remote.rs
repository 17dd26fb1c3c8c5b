//! Buckets of object stores, as places that hold repositories.
//!
//! What holds here: nothing that is secret is shown; `http` is spoken only where the endpoint says so; a certificate that
//! cannot be verified is refused unless that was switched off by name.

mod connect;
mod create;
mod endpoint;
mod fault;
mod http;
mod pace;
mod tls;
mod token;

pub(crate) use self::connect::connect;
pub(crate) use self::create::{Created, WRITE, create};
pub use self::endpoint::{Endpoint, EndpointError};
pub(crate) use self::fault::{Answer, may_pass};

use crate::location::RepositoryPath;
use crate::secret::Secret;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// A bucket, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Whose bucket, and with which keys.
    pub service: Service,
    /// The bucket (with Azure, the container). It has to exist.
    pub bucket: String,
    /// What stands before every repository's path.
    pub prefix: Option<RepositoryPath>,
    /// How it is used.
    pub options: RemoteOptions,
}

/// An object store, and the keys to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// Anything that speaks S3.
    S3 {
        /// The server. Where its host begins with the bucket's name, requests go to that host (virtual-hosted style);
        /// otherwise the bucket stands in the path.
        endpoint: Endpoint,
        /// The region that requests are signed for.
        region: String,
        /// `AWS_ACCESS_KEY_ID`.
        key_id: String,
        /// `AWS_SECRET_ACCESS_KEY`.
        key: Secret,
        /// `AWS_SESSION_TOKEN`, for keys that are lent for a while.
        session_token: Option<Secret>,
    },
    /// Google Cloud Storage.
    Gcs {
        /// The service account's key, as the JSON document that Google hands out.
        service_account: Secret,
        /// The server, where it is not Google's public one.
        endpoint: Option<Endpoint>,
    },
    /// Azure Blob Storage.
    Azure {
        /// The storage account.
        account: String,
        /// One of the account's keys, in base64.
        key: Secret,
        /// The server, where it is not Azure's public cloud.
        endpoint: Option<Endpoint>,
    },
}

/// How a bucket is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// How many requests may be under way at once.
    pub max_connections: NonZeroUsize,
    /// How fast files may be uploaded, in bytes per second and over all connections.
    pub upload_rate: Option<NonZeroU64>,
    /// How fast files may be downloaded, in bytes per second and over all connections.
    pub download_rate: Option<NonZeroU64>,
    /// Certificates in PEM that are trusted besides the machine's.
    pub ca_certificates: Option<String>,
    /// Any certificate is accepted.
    pub insecure_tls: bool,
    /// For how long one operation is tried again while its failure may pass.
    pub patience: Duration,
    /// After how long without a byte a request counts as lost.
    pub stall: Duration,
}

impl Default for RemoteOptions {
    /// Five connections, as restic has; three minutes of patience; a minute of silence.
    fn default() -> Self {
        Self {
            max_connections: NonZeroUsize::MIN.saturating_add(4),
            upload_rate: None,
            download_rate: None,
            ca_certificates: None,
            insecure_tls: false,
            patience: Duration::from_secs(180),
            stall: Duration::from_secs(60),
        }
    }
}

/// As restic spells it.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = &self.bucket;
        let prefix = self.prefix.as_ref().map(RepositoryPath::as_str).unwrap_or_default();
        match &self.service {
            Service::S3 { endpoint, .. } => write!(f, "s3:{}/{bucket}", endpoint.without_bucket(bucket))?,
            Service::Gcs { .. } => write!(f, "gs:{bucket}:")?,
            Service::Azure { .. } => write!(f, "azure:{bucket}:")?,
        }
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn s3(endpoint: &str, prefix: Option<&str>) -> Remote {
        Remote {
            service: Service::S3 {
                endpoint: Endpoint::parse(endpoint).unwrap(),
                region: "us-east-1".to_owned(),
                key_id: "id".to_owned(),
                key: Secret::new("hunter2"),
                session_token: Some(Secret::new("hunter2")),
            },
            bucket: "b1".to_owned(),
            prefix: prefix.map(|prefix| RepositoryPath::parse(prefix).unwrap()),
            options: RemoteOptions::default(),
        }
    }

    #[test]
    fn a_bucket_is_shown_as_restic_spells_it_and_without_secrets() {
        for (endpoint, prefix, shown) in [
            ("https://s3.example.com", None, "s3:https://s3.example.com/b1"),
            ("s3.example.com:9000", Some("a/b"), "s3:https://s3.example.com:9000/b1/a/b"),
            ("http://127.0.0.1:5000", None, "s3:http://127.0.0.1:5000/b1"),
            ("https://b1.s3.example.com", Some("p"), "s3:https://s3.example.com/b1/p"),
        ] {
            let remote = s3(endpoint, prefix);
            assert_eq!(remote.to_string(), shown);
            assert!(!format!("{remote:?}").contains("hunter2"));
        }
        let gcs = Service::Gcs { service_account: Secret::new("hunter2"), endpoint: None };
        assert_eq!(Remote { service: gcs, ..s3("x", Some("p")) }.to_string(), "gs:b1:/p");
        let azure = Service::Azure { account: "a".to_owned(), key: Secret::new("k"), endpoint: None };
        assert_eq!(Remote { service: azure, ..s3("x", None) }.to_string(), "azure:b1:");
    }
}
