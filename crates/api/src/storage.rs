//! The SnapshotBackupStorage resource: where repositories are kept.

#![allow(clippy::duplicated_attributes, reason = "every printcolumn repeats its keys")]

use std::num::NonZeroU32;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::keys;

/// Where snapshots are copied to.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "topolvm.io",
    version = "v1",
    kind = "SnapshotBackupStorage",
    plural = "snapshotbackupstorages",
    namespaced,
    status = "SnapshotBackupStorageStatus",
    derive = "PartialEq",
    doc = "SnapshotBackupStorage is a place that holds repositories of snapshots.",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.storage.provider"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SnapshotBackupStorageSpec {
    /// The repository format: `restic`.
    #[serde(default = "restic")]
    pub engine: String,
    /// What keeps the bytes.
    pub storage: StorageLocation,
    /// Flags for every operation: `--limit-upload=N` and `--limit-download=N`, in KiB per second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub global_flags: Vec<String>,
    /// Flags for everything but restores, before those for every operation: `--limit-upload=N` and `--limit-download=N`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backup_flags: Vec<String>,
    /// Flags for restores, before those for every operation: `--limit-download=N`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_flags: Vec<String>,
    /// Check the storage when it is created or changed.
    #[serde(default = "yes")]
    pub validate_on_create: bool,
    /// Give the space back that forgotten snapshots took. Where empty, nobody does it but `lvault storage prune`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<PrunePolicy>,
    /// What is read back of each snapshot before it counts, besides its structure. Where empty, only that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBackPolicy>,
}

/// What is read back of each snapshot when it has been copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadBackPolicy {
    /// About so much of the snapshot's data is read from the storage, decrypted and compared with its hash, in percent;
    /// another part of it for each snapshot.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub data_percent: i32,
}

impl ReadBackPolicy {
    /// How much of the data is read, in percent: 0 to 100.
    pub fn data(&self) -> u8 {
        u8::try_from(self.data_percent.clamp(0, 100)).unwrap_or(0)
    }
}

/// How often and how thoroughly space is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrunePolicy {
    /// Hours between two prunes of the storage's repositories.
    #[serde(default = "day")]
    #[schemars(range(min = 1, max = 8760))]
    pub interval_hours: i32,
    /// So much may stay unused, in percent of what is used: data is written anew only to get below it.
    #[serde(default = "five")]
    #[schemars(range(min = 0, max = 100))]
    pub max_unused_percent: i32,
}

impl Default for PrunePolicy {
    fn default() -> Self {
        PrunePolicy { interval_hours: day(), max_unused_percent: five() }
    }
}

impl PrunePolicy {
    /// The time between two prunes.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.interval_hours).unwrap_or(0).max(1) * 3600)
    }

    /// How much may stay unused, in percent.
    pub fn max_unused(&self) -> u8 {
        u8::try_from(self.max_unused_percent.clamp(0, 100)).unwrap_or(0)
    }
}

fn day() -> i32 {
    24
}

fn five() -> i32 {
    5
}

/// What keeps the bytes: a provider, and the settings under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StorageLocation {
    /// Which of the settings below counts.
    pub provider: Provider,
    /// A folder on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalStorage>,
    /// A bucket of an S3-compatible store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Storage>,
    /// A bucket of Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsStorage>,
    /// A container of Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureStorage>,
}

/// Kinds of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// A folder.
    Local,
    /// An S3-compatible store.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// A folder on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalStorage {
    /// The folder, as an absolute path.
    #[schemars(length(min = 1))]
    pub path: String,
    /// The Secret with `RESTIC_PASSWORD`; where empty, the Secret with the storage's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
}

/// A bucket of an S3-compatible store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Storage {
    /// The server's address.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What stands before every repository's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The Secret with the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// How many connections may be open at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i32>,
    /// Do not check the server's certificate.
    #[serde(default, rename = "insecureTLS")]
    pub insecure_tls: bool,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsStorage {
    /// The server, where it is not Google's public one: `https://HOST`, such as a regional endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// What stands before every repository's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How many connections may be open at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i32>,
    /// The Secret with the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureStorage {
    /// The server, where it is not Azure's public cloud: `https://ACCOUNT.HOST`, or a host that has the account in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The storage account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_account: Option<String>,
    /// The container.
    pub container: String,
    /// What stands before every repository's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How many connections may be open at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i32>,
    /// The Secret with the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
}

/// What is known of a storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotBackupStorageStatus {
    /// Whether it can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<StoragePhase>,
    /// Why it cannot be used, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When its phase or message was last found to be so, to the check that changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checked: Option<Time>,
    /// The generation of the spec that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the last prune found and did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneStatus>,
    /// Conditions, as the Kubernetes API conventions want them: `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What a prune of all repositories of a storage found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PruneStatus {
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Time>,
    /// How many repositories there are.
    #[serde(default)]
    pub repositories: i64,
    /// What all packs hold now, in bytes as they are stored.
    #[serde(default)]
    pub total_bytes: i64,
    /// What of it no snapshot needs.
    #[serde(default)]
    pub reclaimable_bytes: i64,
    /// What was given back.
    #[serde(default)]
    pub freed_bytes: i64,
    /// What could not be pruned, why, and what to do; empty when all was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Whether a storage can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StoragePhase {
    /// It was checked and can be used.
    Ready,
    /// It has not been checked yet.
    Pending,
    /// It was checked and cannot be used.
    Error,
}

/// A restore uploads nothing but its lock.
const RESTORE_FLAGS: &str = "spec.restoreFlags";

fn restic() -> String {
    "restic".to_owned()
}

fn yes() -> bool {
    true
}

/// What the flags say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// For backups, and for all that is neither a backup nor a restore.
    pub back_up: Limits,
    /// For restores.
    pub restore: Limits,
}

/// How fast a bucket may be written and read, over all connections of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In KiB per second.
    pub upload: Option<NonZeroU32>,
    /// In KiB per second.
    pub download: Option<NonZeroU32>,
}

impl Provider {
    /// The keys of a storage's Secret that count, besides `RESTIC_PASSWORD`.
    pub fn secret_keys(self) -> &'static [&'static str] {
        match self {
            Provider::Local => &[],
            Provider::S3 => {
                &[keys::AWS_ACCESS_KEY_ID, keys::AWS_SECRET_ACCESS_KEY, keys::AWS_SESSION_TOKEN, keys::CA_CERT_DATA]
            }
            Provider::Gcs => &[keys::GOOGLE_SERVICE_ACCOUNT_JSON_KEY, keys::GOOGLE_PROJECT_ID, keys::CA_CERT_DATA],
            Provider::Azure => &[keys::AZURE_ACCOUNT_NAME, keys::AZURE_ACCOUNT_KEY, keys::CA_CERT_DATA],
        }
    }
}

/// Why a storage's spec cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidStorage {
    /// The field, as a path.
    pub field: &'static str,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

impl SnapshotBackupStorage {
    /// The name of the Secret with the storage's password and keys, in the storage's namespace.
    pub fn secret_name(&self) -> String {
        self.spec.secret_name(self.metadata.name.as_deref().unwrap_or_default())
    }

    /// Whether the storage may be used now: its check succeeded for this spec, or no check is wanted.
    pub fn is_ready(&self) -> bool {
        let status = self.status.as_ref();
        let checked = status.and_then(|s| s.observed_generation) == self.metadata.generation;
        let ready = status.and_then(|s| s.phase) == Some(StoragePhase::Ready);
        !self.spec.validate_on_create || (ready && checked)
    }
}

impl SnapshotBackupStorageSpec {
    /// The name of the Secret with the password and keys of the storage of this name, in that storage's namespace.
    pub fn secret_name(&self, storage_name: &str) -> String {
        let storage = &self.storage;
        let named = match storage.provider {
            Provider::Local => storage.local.as_ref().and_then(|local| local.secret_name.clone()),
            Provider::S3 => storage.s3.as_ref().and_then(|s3| s3.secret_name.clone()),
            Provider::Gcs => storage.gcs.as_ref().and_then(|gcs| gcs.secret_name.clone()),
            Provider::Azure => storage.azure.as_ref().and_then(|azure| azure.secret_name.clone()),
        };
        named.unwrap_or_else(|| storage_name.to_owned())
    }

    /// The engine and the flags, where they are such as are known.
    ///
    /// # Errors
    /// An engine that is not restic, and any flag but the limits of a bucket: `--limit-upload=KiB/s`, which restores have not of their own,
    /// and `--limit-download=KiB/s`.
    pub fn flags(&self) -> Result<Flags, InvalidStorage> {
        let invalid = |field, problem: String| InvalidStorage { field, problem };
        if self.engine != "restic" {
            return Err(invalid("spec.engine", format!("'{}' is unknown: the only engine is restic", self.engine)));
        }
        let global = self.limits("spec.globalFlags", &self.global_flags, Limits::default())?;
        let back_up = self.limits("spec.backupFlags", &self.backup_flags, global)?;
        let restore = self.limits(RESTORE_FLAGS, &self.restore_flags, global)?;
        Ok(Flags { back_up, restore })
    }

    /// The limits that flags set, and those that stand where they set none.
    fn limits(&self, field: &'static str, flags: &[String], mut limits: Limits) -> Result<Limits, InvalidStorage> {
        let invalid = |problem: String| InvalidStorage { field, problem };
        for flag in flags {
            let (limited, limit) = match flag.split_once('=') {
                Some(("--limit-upload", limit)) if field != RESTORE_FLAGS => (&mut limits.upload, limit),
                Some(("--limit-download", limit)) => (&mut limits.download, limit),
                Some(_) | None => return Err(invalid(format!("the flag '{flag}' is not supported: leave it out"))),
            };
            if self.storage.provider == Provider::Local {
                return Err(invalid(format!("the flag '{flag}' is for buckets: leave it out")));
            }
            let Ok(limit) = limit.parse::<NonZeroU32>() else {
                return Err(invalid(format!("'{flag}' is no limit: write a number of 1 or more, in KiB per second")));
            };
            *limited = Some(limit);
        }
        Ok(limits)
    }

    /// The local folder, for a spec that makes sense and is of provider `local`.
    pub fn local_folder(&self) -> Result<&str, InvalidStorage> {
        let invalid = |field, problem: String| InvalidStorage { field, problem };
        self.flags()?;
        match self.storage.provider {
            Provider::Local => {}
            Provider::S3 | Provider::Gcs | Provider::Azure => {
                let problem = "the storage is a bucket, and no folder".to_owned();
                return Err(invalid("spec.storage.provider", problem));
            }
        }
        let local = self.storage.local.as_ref();
        let path = local.map(|local| local.path.as_str()).unwrap_or_default();
        let plain = |part: &str| part != ".." && part != ".";
        if path.starts_with('/') && path.len() > 1 && path.split('/').all(plain) && !path.contains('\0') {
            Ok(path)
        } else {
            let problem = format!("'{path}' is no folder: write an absolute path without '.' and '..'");
            Err(invalid("spec.storage.local.path", problem))
        }
    }
}
