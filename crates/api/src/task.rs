//! What the node agent hands to an executor: everything it needs. A process gets it over a file descriptor, so that no
//! secret stands in an argument, an environment or a file. A pod gets all but the secrets in its environment, and those
//! from the storage's Secret, which the kubelet mounts: the node agent never sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use lvault_core::{Attempt, Job, Launch};
use serde::{Deserialize, Serialize};

use crate::{SnapshotBackupStorageSpec, StorageReference};

/// One executor's work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The executor's name: of the object, its attempt and its launch.
    pub name: String,
    /// The LogicalVolume it works for.
    pub volume: String,
    /// That object's uid: an object of the same name made later is another one.
    pub uid: String,
    /// What is to be done.
    pub work: Work,
    /// The storage, for people.
    pub storage: StorageReference,
    /// The storage's spec as it was at the launch.
    pub storage_spec: SnapshotBackupStorageSpec,
    /// The repository's path inside the storage.
    pub path: String,
    /// The repository's password; empty where it is mounted into the executor's pod.
    pub password: Secret,
    /// The other keys of the storage's Secret that its provider needs, by name; likewise.
    #[serde(default)]
    pub credentials: Credentials,
    /// Where the API answers.
    pub api: ApiAccess,
    /// The heartbeat.
    pub lease: LeaseTerms,
    /// How often progress is written, in seconds.
    pub progress_seconds: u64,
    /// The folder on the node in which keys of repositories are kept; none where nothing of a repository's secrets is to stay.
    #[serde(default)]
    pub key_cache: Option<PathBuf>,
}

/// Keys of a storage's Secret, by name.
pub type Credentials = BTreeMap<String, Secret>;

/// The variable in an executor pod's environment that holds its task, without the secrets.
pub const TASK_VARIABLE: &str = "LVAULT_TASK";
/// The variable in an executor pod's environment that names the folder its storage's Secret is mounted at.
pub const SECRET_VARIABLE: &str = "LVAULT_SECRET";

impl Task {
    /// The task as text for an environment: everything but the secrets.
    ///
    /// # Errors
    /// A path in it is no text.
    pub fn without_secrets(&self) -> Result<String, serde_json::Error> {
        let task = Task { password: Secret(String::new()), credentials: Credentials::new(), ..self.clone() };
        serde_json::to_string(&task)
    }

    /// The same with the secrets that were mounted beside it.
    pub fn with_secrets(self, password: Secret, credentials: Credentials) -> Task {
        Task { password, credentials, ..self }
    }
}

/// What an executor does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Copy a mounted snapshot into the repository.
    Backup {
        /// For this attempt.
        attempt: u32,
        /// As this launch of it.
        launch: u32,
        /// The folder with the files.
        folder: MountedFolder,
        /// The host name of the repository's snapshot: the same for every run, so that the parent is found.
        host: String,
        /// The path of the repository's snapshot, likewise.
        as_path: String,
        /// The snapshot's files are copies of the volume's, with change times of their own.
        copies: bool,
        /// What cannot be read is left out, and told.
        #[serde(default)]
        skip_unreadable: bool,
        /// When the snapshot was asked for: what it shows is not older.
        #[serde(default)]
        asked_at: Option<Timestamp>,
    },
    /// Fill a mounted volume from the repository.
    Restore {
        /// For this attempt.
        attempt: u32,
        /// As this launch of it.
        launch: u32,
        /// The folder to fill.
        folder: MountedFolder,
        /// Which snapshot.
        snapshot: String,
        /// The size of the volume, in bytes.
        size: u64,
    },
    /// Remove the object's snapshots from the repository.
    Forget,
}

impl Work {
    /// The same as core names it, or `None` where a number is 0, which none is.
    pub fn job(&self) -> Option<Job> {
        match self {
            Work::Backup { attempt, launch, .. } | Work::Restore { attempt, launch, .. } => {
                Some(Job::Copy { attempt: Attempt::new(*attempt)?, launch: Launch::new(*launch)? })
            }
            Work::Forget => Some(Job::Forget),
        }
    }
}

/// A folder, and the device it has to be on: where something else is mounted there, or nothing, the folder is not ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountedFolder {
    /// The folder; `None` where the volume could not be mounted.
    pub path: Option<PathBuf>,
    /// The device number of the mounted filesystem (`st_dev`).
    pub device: Option<u64>,
}

/// How an executor reaches the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ApiAccess {
    /// With this kubeconfig, read anew whenever the server does not answer.
    Kubeconfig(PathBuf),
    /// With its pod's service account; where `KUBECONFIG` is set, with that instead.
    InCluster,
}

/// The heartbeat's lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// Its namespace.
    pub namespace: String,
    /// Its name; see [`lease_name`].
    pub name: String,
    /// How long a renewal holds, in seconds.
    pub duration_seconds: u64,
}

/// The name of the lease of one executor.
pub fn lease_name(uid: &str, job: Job) -> String {
    match job {
        Job::Copy { attempt, launch } => format!("{uid}-{attempt}-{launch}"),
        Job::Forget => format!("{uid}-forget"),
    }
}

/// A password. It is written for the task's reader only, and shown to nobody.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
