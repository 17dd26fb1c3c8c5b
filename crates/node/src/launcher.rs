//! How executors are started, seen and ended, wherever they run.

use std::sync::Arc;

use lvault_api::task::Task;
use lvault_core::{Executor, Job, VolumeId};

/// Whether an effect had to change the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something was started, ended or removed.
    Changed,
    /// It was so already.
    Unchanged,
}

/// Why an executor could not be started, seen or ended.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// What is needed to start it is not there: starting it again fails again.
    #[error("cannot start an executor: {0}")]
    Impossible(String),
    /// Another executor of the same volume still runs.
    #[error("an executor of volume {0} runs already; a second one is never started")]
    Occupied(VolumeId),
    /// It did not work now.
    #[error("cannot {attempted}: {source}")]
    Io {
        /// What was tried.
        attempted: String,
        /// What happened.
        source: std::io::Error,
    },
}

impl LaunchError {
    /// Whether whoever was asked has refused, which stays so until somebody gives a right.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            LaunchError::Io { source, .. } => source.kind() == std::io::ErrorKind::PermissionDenied,
            LaunchError::Impossible(_) | LaunchError::Occupied(_) => false,
        }
    }
}

/// Called with the volume whose executor has just ended.
pub type Wake = Arc<dyn Fn(VolumeId) + Send + Sync>;

/// Starts and watches executors. At most one runs for a volume at any time. Calls block.
pub trait Launcher: Send + Sync {
    /// Told before every look at a volume: the namespace of its storage. Only executors that are objects need it.
    fn locate(&self, _id: &VolumeId, _namespace: &str) {}

    /// Told when a volume is gone, with all its executors.
    fn forget(&self, _id: &VolumeId) {}

    /// Whether executors find their storage's Secret themselves, so that their task needs no password.
    fn mounts_secrets(&self) -> bool {
        false
    }

    /// Whether the newest executor of a volume is still being started, so that nobody can expect its heart to beat.
    fn is_starting(&self, _id: &VolumeId) -> Result<bool, LaunchError> {
        Ok(false)
    }

    /// The newest executor of a volume that was not removed yet; one that still runs before any other.
    fn observe(&self, id: &VolumeId) -> Result<Option<Executor>, LaunchError>;

    /// Starts the executor of this job, unless it was started already. Idempotent. After a crash in the middle the
    /// executor either runs, or is seen as ended without having done anything.
    fn ensure_launched(&self, id: &VolumeId, job: Job, task: &Task) -> Result<Change, LaunchError>;

    /// Ends whatever executor of the volume runs. It may take a moment longer until it is seen as ended. Idempotent.
    fn ensure_ended(&self, id: &VolumeId) -> Result<Change, LaunchError>;

    /// Removes what ended executors of the volume have left. Idempotent; refuses while one runs.
    fn ensure_removed(&self, id: &VolumeId) -> Result<Change, LaunchError>;

    /// The last words of the newest executor of the volume, for people.
    fn last_words(&self, id: &VolumeId) -> Option<String>;

    /// Who is to be told when an executor ends. Executors of an earlier agent may end untold.
    fn on_exit(&self, wake: Wake);
}
