//! What storages answer when something fails: kinds that call for different remedies, and words for people.

use crate::remote::Answer;
use crate::retry::Retry;
use std::fmt;
use std::io;
use std::path::Path;

/// What a storage answered, in words of its own and as a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which kind of answer it is.
    pub kind: CauseKind,
    /// The storage's own words.
    pub text: String,
}

/// The answers of a storage that call for different remedies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CauseKind {
    /// No space, or no quota, is left.
    Full,
    /// Access is denied.
    Denied,
    /// The file system is read-only.
    ReadOnly,
    /// There is no such file.
    Missing,
    /// There is such a file already.
    Exists,
    /// The storage does not know or accept the keys.
    Credentials,
    /// There is no such bucket.
    Bucket,
    /// The bucket is in another region than the one named.
    Region,
    /// The clocks differ too much for a signed request.
    Clock,
    /// TLS cannot be spoken with the server.
    Certificate,
    /// There is no connection to the server.
    Unreachable,
    /// The server cannot answer now.
    Busy,
    /// An answer was lost, or came in part.
    Interrupted,
    /// Anything else.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.kind {
            CauseKind::Full => "make room on the storage (forget and prune snapshots, or enlarge it), then try again",
            CauseKind::Denied => "give this process read and write access to the storage, then try again",
            CauseKind::ReadOnly => "make the storage writable, then try again",
            CauseKind::Missing => "check that the storage is mounted and complete",
            CauseKind::Exists => "another process wrote it first; try again",
            CauseKind::Credentials => "correct the keys in the storage's Secret",
            CauseKind::Bucket => "create the bucket, or correct its name in the storage",
            CauseKind::Region => "correct the region of the storage",
            CauseKind::Clock => "set this machine's clock",
            CauseKind::Certificate => {
                "put the certificate of the server's authority into CA_CERT_DATA of the storage's Secret, or correct the endpoint"
            }
            CauseKind::Unreachable => "check the storage's endpoint, and whether its server runs",
            CauseKind::Busy => "try again later; if it stays so, look at the server, or lower maxConnections",
            CauseKind::Interrupted => "check the connection to the storage, then try again",
            CauseKind::Other => "check the storage, then try again",
        };
        write!(f, "{} ({remedy})", self.text)
    }
}

/// What was attempted on a storage when it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The storage's folder is given as a relative path.
    #[error("the storage {path} is not an absolute path; give the whole path of the folder")]
    NotAbsolute {
        /// What was given.
        path: String,
    },
    /// The storage's folder is not there or is no folder.
    #[error("cannot use the storage {path}: {cause}; create the folder, or mount the storage")]
    Folder {
        /// The storage.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// What is known of a bucket is not enough to reach it.
    #[error("cannot use the storage {path}: {cause}")]
    Connect {
        /// The storage.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Reading a file.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// The file.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Writing a file.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Listing files.
    #[error("cannot list {path}: {cause}")]
    List {
        /// The folder.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Deleting a file.
    #[error("cannot delete {path}: {cause}")]
    Delete {
        /// The file.
        path: String,
        /// What happened.
        cause: Cause,
    },
    /// Starting the threads that talk to storages.
    #[error("cannot start the threads that talk to the storage: {what}; the machine is out of threads or memory")]
    Start {
        /// What happened.
        what: String,
    },
}

impl StorageError {
    pub(crate) fn not_absolute(path: &Path) -> Self {
        Self::NotAbsolute { path: path.display().to_string() }
    }

    pub(crate) fn folder(path: &Path, err: &io::Error) -> Self {
        Self::Folder { path: path.display().to_string(), cause: Cause::of(err) }
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotAbsolute { .. } => Retry::Never,
            Self::Folder { .. } | Self::Connect { .. } => Retry::AfterRemedy,
            Self::Start { .. } => Retry::Later,
            Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::List { cause, .. }
            | Self::Delete { cause, .. } => match cause.kind {
                CauseKind::Full
                | CauseKind::Denied
                | CauseKind::ReadOnly
                | CauseKind::Missing
                | CauseKind::Credentials
                | CauseKind::Bucket
                | CauseKind::Region
                | CauseKind::Clock
                | CauseKind::Certificate => Retry::AfterRemedy,
                CauseKind::Exists
                | CauseKind::Unreachable
                | CauseKind::Busy
                | CauseKind::Interrupted
                | CauseKind::Other => Retry::Later,
            },
        }
    }

    /// Which kind of answer the storage gave.
    pub fn kind(&self) -> CauseKind {
        match self {
            Self::NotAbsolute { .. } | Self::Start { .. } => CauseKind::Other,
            Self::Folder { cause, .. }
            | Self::Connect { cause, .. }
            | Self::Read { cause, .. }
            | Self::Write { cause, .. }
            | Self::List { cause, .. }
            | Self::Delete { cause, .. } => cause.kind,
        }
    }
}

impl Cause {
    /// Finds the operating system's own error in a chain, or else takes the chain's last word.
    pub(crate) fn of(err: &(dyn std::error::Error + 'static)) -> Self {
        let mut kind = CauseKind::Other;
        let mut text = err.to_string();
        let mut next = Some(err);
        while let Some(err) = next {
            if let Some(found) = err.downcast_ref::<object_store::Error>().and_then(object_kind) {
                kind = found;
            }
            if let Some(found) = err.downcast_ref::<io::Error>() {
                kind = io_kind(found.kind()).unwrap_or(kind);
            }
            if let Some(Answer { kind, text }) = Answer::of(err) {
                return Self { kind, text };
            }
            text = err.to_string();
            next = err.source();
        }
        Self { kind, text }
    }
}

/// Only what an object store says itself; everything it passes on is found as an `io::Error` further down.
fn object_kind(err: &object_store::Error) -> Option<CauseKind> {
    if matches!(err, object_store::Error::NotFound { .. }) {
        Some(CauseKind::Missing)
    } else if matches!(err, object_store::Error::AlreadyExists { .. }) {
        Some(CauseKind::Exists)
    } else if matches!(err, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. })
    {
        Some(CauseKind::Denied)
    } else {
        None
    }
}

fn io_kind(kind: io::ErrorKind) -> Option<CauseKind> {
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        Some(CauseKind::Full)
    } else if kind == io::ErrorKind::PermissionDenied {
        Some(CauseKind::Denied)
    } else if kind == io::ErrorKind::ReadOnlyFilesystem {
        Some(CauseKind::ReadOnly)
    } else if kind == io::ErrorKind::NotFound {
        Some(CauseKind::Missing)
    } else if kind == io::ErrorKind::AlreadyExists {
        Some(CauseKind::Exists)
    } else if kind == io::ErrorKind::UnexpectedEof {
        Some(CauseKind::Interrupted)
    } else {
        None
    }
}
