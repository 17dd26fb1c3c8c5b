//! From a SnapshotBackupStorage and its Secret to the place where its repositories lie.
//!
//! Whoever uses a storage asks here, so that all of them understand a spec in the same way. Errors name the field or the
//! key that is wrong, and never what a key holds.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use lvault_api::task::Work;
use lvault_api::{
    AzureStorage, GcsStorage, InvalidStorage, Limits, Provider, S3Storage, SnapshotBackupStorageSpec, keys,
};
use lvault_backup::{Endpoint, Location, OpenError, Remote, RemoteOptions, RepositoryPath, Secret, Service};

/// The region that S3 requests are signed for where the spec names none.
const DEFAULT_REGION: &str = "us-east-1";

/// What a storage is used for, which decides about the flags that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A backup, and all that is neither a backup nor a restore: looking, checking, forgetting, pruning.
    BackUp,
    /// A restore.
    Restore,
}

impl Purpose {
    /// What an executor with this work uses its storage for.
    pub fn of(work: &Work) -> Self {
        match work {
            Work::Restore { .. } => Self::Restore,
            Work::Backup { .. } | Work::Forget => Self::BackUp,
        }
    }
}

/// The place that a storage's spec names, with the keys of its Secret: `key` answers with the text of a key, if it is
/// there. Nothing is contacted.
///
/// # Errors
/// [`InvalidStorage`] names the field of the spec, or the key of the Secret, that is missing or makes no sense.
pub fn location<'a>(
    spec: &SnapshotBackupStorageSpec,
    purpose: Purpose,
    key: impl Fn(&str) -> Option<&'a str>,
) -> Result<Location, InvalidStorage> {
    let flags = spec.flags()?;
    let limits = match purpose {
        Purpose::BackUp => flags.back_up,
        Purpose::Restore => flags.restore,
    };
    let asked = Asked { limits, key: |name: &str| key(name).map(str::trim).filter(|text| !text.is_empty()) };
    match spec.storage.provider {
        Provider::Local => Ok(Location::Local { root: PathBuf::from(spec.local_folder()?) }),
        Provider::S3 => asked.s3(settings(&spec.storage.s3, "spec.storage.s3")?),
        Provider::Gcs => asked.gcs(settings(&spec.storage.gcs, "spec.storage.gcs")?),
        Provider::Azure => asked.azure(settings(&spec.storage.azure, "spec.storage.azure")?),
    }
}

/// Whether a spec makes sense, whatever its Secret holds.
///
/// # Errors
/// As [`location`], about the spec alone.
pub fn check(spec: &SnapshotBackupStorageSpec) -> Result<(), InvalidStorage> {
    // Any text that makes sense for every key.
    location(spec, Purpose::BackUp, |name| Some(if name == keys::AZURE_ACCOUNT_NAME { "account" } else { "a2V5" }))
        .map(drop)
}

/// Whether a repository is that of another storage in the same place: the storage of this namespace has not its password, and it
/// does not lie below the folder of this namespace, where all repositories are that storage's own.
pub fn is_anothers(path: &RepositoryPath, namespace: &str, error: &OpenError) -> bool {
    matches!(error, OpenError::WrongPassword { .. }) && !path.is_below(namespace)
}

fn settings<'a, T>(settings: &'a Option<T>, field: &'static str) -> Result<&'a T, InvalidStorage> {
    settings.as_ref().ok_or_else(|| invalid(field, "is missing: it holds the settings of the provider".to_owned()))
}

fn invalid(field: &'static str, problem: String) -> InvalidStorage {
    InvalidStorage { field, problem }
}

struct Asked<K> {
    limits: Limits,
    key: K,
}

impl<'a, K: Fn(&str) -> Option<&'a str>> Asked<K> {
    fn s3(&self, s3: &S3Storage) -> Result<Location, InvalidStorage> {
        let endpoint =
            Endpoint::parse(&s3.endpoint).map_err(|error| invalid("spec.storage.s3.endpoint", error.to_string()))?;
        let region = s3.region.as_deref().filter(|region| !region.is_empty()).unwrap_or(DEFAULT_REGION);
        if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(invalid(
                "spec.storage.s3.region",
                format!("'{region}' is no region: write one like eu-west-1"),
            ));
        }
        let service = Service::S3 {
            endpoint,
            region: region.to_owned(),
            key_id: self.required(keys::AWS_ACCESS_KEY_ID)?.to_owned(),
            key: Secret::new(self.required(keys::AWS_SECRET_ACCESS_KEY)?),
            session_token: (self.key)(keys::AWS_SESSION_TOKEN).map(Secret::new),
        };
        self.remote(
            service,
            bucket(&s3.bucket, "spec.storage.s3.bucket")?,
            prefix(s3.prefix.as_deref(), "spec.storage.s3.prefix")?,
            RemoteOptions {
                insecure_tls: s3.insecure_tls,
                ..connections(s3.max_connections, "spec.storage.s3.maxConnections")?
            },
        )
    }

    fn gcs(&self, gcs: &GcsStorage) -> Result<Location, InvalidStorage> {
        let service_account = Secret::new(self.required(keys::GOOGLE_SERVICE_ACCOUNT_JSON_KEY)?);
        let endpoint = endpoint(gcs.endpoint.as_deref(), "spec.storage.gcs.endpoint")?;
        self.remote(
            Service::Gcs { service_account, endpoint },
            bucket(&gcs.bucket, "spec.storage.gcs.bucket")?,
            prefix(gcs.prefix.as_deref(), "spec.storage.gcs.prefix")?,
            connections(gcs.max_connections, "spec.storage.gcs.maxConnections")?,
        )
    }

    fn azure(&self, azure: &AzureStorage) -> Result<Location, InvalidStorage> {
        let account = match azure.storage_account.as_deref().filter(|account| !account.is_empty()) {
            Some(account) => account,
            None => self.required(keys::AZURE_ACCOUNT_NAME)?,
        };
        if !account.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            let problem = "is no storage account: these have small letters and digits only".to_owned();
            return Err(invalid("spec.storage.azure.storageAccount", problem));
        }
        let key = Secret::new(self.required(keys::AZURE_ACCOUNT_KEY)?);
        let endpoint = endpoint(azure.endpoint.as_deref(), "spec.storage.azure.endpoint")?;
        self.remote(
            Service::Azure { account: account.to_owned(), key, endpoint },
            bucket(&azure.container, "spec.storage.azure.container")?,
            prefix(azure.prefix.as_deref(), "spec.storage.azure.prefix")?,
            connections(azure.max_connections, "spec.storage.azure.maxConnections")?,
        )
    }

    fn remote(
        &self,
        service: Service,
        bucket: String,
        prefix: Option<RepositoryPath>,
        options: RemoteOptions,
    ) -> Result<Location, InvalidStorage> {
        let kib = |limit: std::num::NonZeroU32| NonZeroU64::from(limit).saturating_mul(KIB);
        let options = RemoteOptions {
            upload_rate: self.limits.upload.map(kib),
            download_rate: self.limits.download.map(kib),
            ca_certificates: (self.key)(keys::CA_CERT_DATA).map(str::to_owned),
            ..options
        };
        Ok(Location::Remote(Remote { service, bucket, prefix, options }))
    }

    fn required(&self, name: &'static str) -> Result<&'a str, InvalidStorage> {
        (self.key)(name)
            .ok_or_else(|| invalid(name, "is missing or empty: put it into the storage's Secret".to_owned()))
    }
}

const KIB: NonZeroU64 = NonZeroU64::MIN.saturating_add(1023);

/// Names of buckets are more or less alike everywhere; what no store allows is refused here.
fn bucket(name: &str, field: &'static str) -> Result<String, InvalidStorage> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 222 || !name.bytes().all(plain) {
        let problem = format!("'{name}' is no bucket: letters, digits, '-', '_' and '.' are expected");
        return Err(invalid(field, problem));
    }
    Ok(name.to_owned())
}

/// A server that is named only where it is not the provider's public one.
fn endpoint(endpoint: Option<&str>, field: &'static str) -> Result<Option<Endpoint>, InvalidStorage> {
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty()).map(Endpoint::parse);
    endpoint.transpose().map_err(|error| invalid(field, error.to_string()))
}

fn prefix(prefix: Option<&str>, field: &'static str) -> Result<Option<RepositoryPath>, InvalidStorage> {
    let prefix = prefix.unwrap_or_default().trim_matches('/');
    if prefix.is_empty() {
        return Ok(None);
    }
    RepositoryPath::parse(prefix).map(Some).map_err(|error| invalid(field, error.to_string()))
}

fn connections(max: Option<i32>, field: &'static str) -> Result<RemoteOptions, InvalidStorage> {
    let options = RemoteOptions::default();
    // Zero stands for no choice, as it does in Kubernetes' own types.
    let Some(max) = max.filter(|max| *max != 0) else { return Ok(options) };
    match usize::try_from(max).ok().and_then(NonZeroUsize::new) {
        Some(max_connections) => Ok(RemoteOptions { max_connections, ..options }),
        None => Err(invalid(field, format!("{max} connections are none: write 1 or more"))),
    }
}

#[cfg(test)]
mod tests;
