//! How a person asks for a check, and sees that it was done.
//!
//! A storage's status is written only when it changes, so that it cannot tell whether a check was made. Whoever wants one
//! writes a value of its own (a time, in whatever form) into the annotation [`CHECK_REQUESTED`]; the controller checks
//! the storage, writes the status, and then writes the same value into [`CHECK_ANSWERED`].

use kube::ResourceExt;

/// Annotation of a SnapshotBackupStorage: somebody wants it checked now. A new value is a new request.
pub const CHECK_REQUESTED: &str = "lvault.io/check-requested-at";

/// Annotation of a SnapshotBackupStorage: the request that was answered last; its status is at least as new.
pub const CHECK_ANSWERED: &str = "lvault.io/check-answered";

/// Whether no request for a check is open: none was made, or the last one was answered.
pub fn check_is_answered(storage: &impl ResourceExt) -> bool {
    open_request(storage).is_none()
}

/// The request that has no answer yet.
pub(crate) fn open_request(storage: &impl ResourceExt) -> Option<&str> {
    let annotations = storage.annotations();
    let requested = annotations.get(CHECK_REQUESTED)?;
    (annotations.get(CHECK_ANSWERED) != Some(requested)).then_some(requested.as_str())
}
