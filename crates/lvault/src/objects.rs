//! What there is: kinds of objects as a user sees them, and the readings of an object that several commands need.

use kube::ResourceExt;
use lvault_api::{AccessType, LogicalVolume, Phase, TransferStatus, parse_size};
use lvault_core::Bytes;

/// What a LogicalVolume is to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A volume with data of its own.
    Volume,
    /// A volume that is, or was, filled from a repository.
    Restore,
    /// A snapshot.
    Snapshot,
}

impl Kind {
    /// What an object is.
    pub fn of(volume: &LogicalVolume) -> Kind {
        let spec = &volume.spec;
        let read_only = spec.source.is_some() && spec.access_type != Some(AccessType::Rw);
        match (&spec.online_snapshot, &spec.restore) {
            (Some(_), _) => Kind::Snapshot,
            (None, Some(_)) => Kind::Restore,
            (None, None) if read_only => Kind::Snapshot,
            (None, None) => Kind::Volume,
        }
    }

    /// The kind in a sentence.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Volume => "volume",
            Kind::Restore => "restored volume",
            Kind::Snapshot => "snapshot",
        }
    }
}

/// The object with its kind: `snapshot s1`.
pub fn title(volume: &LogicalVolume) -> String {
    format!("{} {}", Kind::of(volume).word(), volume.name_any())
}

/// The online operation of an object, where it has one.
pub fn transfer(volume: &LogicalVolume) -> Option<&TransferStatus> {
    let status = volume.status.as_ref()?;
    match Kind::of(volume) {
        Kind::Snapshot => status.online_snapshot.as_ref(),
        Kind::Restore => status.restore.as_ref(),
        Kind::Volume => None,
    }
}

/// Which attempt of its online operation the spec asks for.
pub fn attempt_asked(volume: &LogicalVolume) -> Option<i32> {
    let online = volume.spec.online_snapshot.as_ref().map(|online| online.attempt);
    online.or_else(|| volume.spec.restore.as_ref().map(|restore| restore.attempt))
}

/// The status of the attempt that the spec asks for; that of an earlier one says nothing about it.
pub fn current_transfer(volume: &LogicalVolume) -> Option<&TransferStatus> {
    transfer(volume).filter(|transfer| attempt_asked(volume).is_none_or(|asked| transfer.attempt >= asked))
}

/// Whether applications can use the volume.
pub fn is_ready(volume: &LogicalVolume) -> bool {
    volume.status.as_ref().is_some_and(|status| status.volume_id.is_some())
}

/// Whether the object is being deleted.
pub fn is_deleting(volume: &LogicalVolume) -> bool {
    volume.metadata.deletion_timestamp.is_some()
}

/// Where the object stands, in one word.
pub fn phase(volume: &LogicalVolume) -> String {
    if is_deleting(volume) {
        return "Deleting".to_owned();
    }
    let status = volume.status.as_ref();
    status.and_then(|status| status.phase.clone()).unwrap_or_else(|| "New".to_owned())
}

/// The problem that the agent has written about a volume, with its gRPC code.
pub fn problem(volume: &LogicalVolume) -> Option<(i32, String)> {
    let status = volume.status.as_ref()?;
    let code = status.code.filter(|code| *code != 0)?;
    Some((code, status.message.clone().unwrap_or_else(|| format!("code {code}"))))
}

/// The size asked for.
pub fn size_asked(volume: &LogicalVolume) -> Option<Bytes> {
    parse_size(&volume.spec.size.0).ok()
}

/// The real size, once there is one.
pub fn size_now(volume: &LogicalVolume) -> Option<Bytes> {
    let status = volume.status.as_ref()?;
    parse_size(&status.current_size.as_ref()?.0).ok()
}

/// A phase as a word.
pub fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    }
}

/// The object's own folder for its files, as the agent has published it.
pub fn published_path(volume: &LogicalVolume) -> Option<&str> {
    volume.status.as_ref()?.mount_path.as_deref()
}
