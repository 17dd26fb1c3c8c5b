//! What a snapshot is labelled with: the idempotency key, the host name and the path.
//!
//! Host and path are the same from run to run, so that the previous snapshot of a volume is found as the parent and only
//! changes are read. The key says which attempt of which volume made the snapshot; it is stored as two tags.

use jiff::Timestamp;
use rustic_core::repofile::SnapshotFile;
use std::fmt;
use std::path::{Component, Path, PathBuf};

const UID_TAG: &str = "lvault-uid=";
const ATTEMPT_TAG: &str = "lvault-attempt=";

/// Why a label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The UID is empty, too long, or holds characters that a tag cannot carry.
    #[error("{uid:?} is not a UID: 1 to 128 letters, digits, '-', '_' or '.' are expected")]
    Uid {
        /// What was given.
        uid: String,
    },
    /// The host name is empty, too long, or holds blanks or control characters.
    #[error("{host:?} is not a host name for snapshots: 1 to 253 characters without blanks are expected")]
    Host {
        /// What was given.
        host: String,
    },
    /// The path is not absolute, is `/` itself, or is not in normal form.
    #[error("{path:?} is not a snapshot path: an absolute path below / without '.' or '..' is expected, such as /data")]
    SourcePath {
        /// What was given.
        path: String,
    },
    /// The tag is empty, holds a comma, or belongs to the idempotency key.
    #[error("{tag:?} is not a tag: it must not be empty, hold a comma, or begin with \"lvault-\"")]
    Tag {
        /// What was given.
        tag: String,
    },
    /// The string is not a whole snapshot id.
    #[error("{id:?} is not a snapshot id: 64 hexadecimal digits are expected")]
    SnapshotId {
        /// What was given.
        id: String,
    },
}

/// The idempotency key of a copy: one volume snapshot, one attempt, at most one repository snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    uid: String,
    attempt: u32,
}

impl Key {
    /// The key of attempt `attempt` for the object with this UID.
    ///
    /// # Errors
    /// [`LabelError::Uid`] when the UID cannot be a tag.
    pub fn new(uid: impl Into<String>, attempt: u32) -> Result<Self, LabelError> {
        let uid = uid.into();
        check_uid(&uid)?;
        Ok(Self { uid, attempt })
    }

    /// The UID of the object the snapshot was made for.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The attempt, counted by whoever asks for snapshots.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn tags(&self) -> [String; 2] {
        [uid_tag(&self.uid), format!("{ATTEMPT_TAG}{}", self.attempt)]
    }

    /// The key that tags say; none where they say it in other words than [`Self::tags`], or more than one: such a snapshot is not
    /// lvault's, and must not be taken for an attempt's commit.
    pub(crate) fn from_tags<'a>(tags: impl Iterator<Item = &'a String>) -> Option<Self> {
        let ours: Vec<_> = tags.filter(|tag| tag.starts_with(UID_TAG) || tag.starts_with(ATTEMPT_TAG)).collect();
        let value = |prefix: &str| ours.iter().find_map(|tag| tag.strip_prefix(prefix));
        let key = Self::new(value(UID_TAG)?, value(ATTEMPT_TAG)?.parse().ok()?).ok()?;
        (ours.len() == 2 && key.tags().iter().all(|tag| ours.contains(&tag))).then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, attempt {}", self.uid, self.attempt)
    }
}

pub(crate) fn check_uid(uid: &str) -> Result<(), LabelError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if uid.is_empty() || uid.len() > 128 || !uid.chars().all(allowed) {
        return Err(LabelError::Uid { uid: uid.to_owned() });
    }
    Ok(())
}

pub(crate) fn uid_tag(uid: &str) -> String {
    format!("{UID_TAG}{uid}")
}

/// The host name that snapshots carry. It does not have to be the machine's: it has to stay the same for a volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(String);

impl Host {
    /// Takes a host name over.
    ///
    /// # Errors
    /// [`LabelError::Host`] when it is empty, too long or holds blanks.
    pub fn new(host: impl Into<String>) -> Result<Self, LabelError> {
        let host = host.into();
        if host.is_empty() || host.len() > 253 || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(LabelError::Host { host });
        }
        Ok(Self(host))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The path under which a volume's files stand in its snapshots, wherever the volume was mounted when they were read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourcePath(PathBuf);

impl SourcePath {
    /// Takes an absolute path over, such as `/data`.
    ///
    /// # Errors
    /// [`LabelError::SourcePath`] when it is relative, `/` itself, or holds `.`, `..` or doubled slashes.
    pub fn new(path: impl Into<String>) -> Result<Self, LabelError> {
        let path = path.into();
        let normal =
            Path::new(&path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let rebuilt: PathBuf = Path::new(&path).components().collect();
        if !path.starts_with('/') || path.len() < 2 || !normal || rebuilt.as_os_str() != path.as_str() {
            return Err(LabelError::SourcePath { path });
        }
        Ok(Self(PathBuf::from(path)))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// How many folders the path names: one for `/data`.
    pub(crate) fn depth(&self) -> u64 {
        self.0.components().filter(|part| matches!(part, Component::Normal(_))).count() as u64
    }
}

/// An additional tag of a snapshot, as `restic snapshots` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag(String);

impl Tag {
    /// Takes a tag over.
    ///
    /// # Errors
    /// [`LabelError::Tag`] when it is empty, holds a comma or a control character, or begins with `lvault-`.
    pub fn new(tag: impl Into<String>) -> Result<Self, LabelError> {
        let tag = tag.into();
        if tag.is_empty() || tag.starts_with("lvault-") || tag.chars().any(|c| c == ',' || c.is_control()) {
            return Err(LabelError::Tag { tag });
        }
        Ok(Self(tag))
    }

    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The whole id of a repository snapshot: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// Takes a whole id over; for a prefix ask [`crate::Repository::snapshot`].
    ///
    /// # Errors
    /// [`LabelError::SnapshotId`] when it is anything but 64 hexadecimal digits.
    pub fn new(id: impl Into<String>) -> Result<Self, LabelError> {
        let id = id.into();
        if id.len() != 64 || !id.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(LabelError::SnapshotId { id });
        }
        Ok(Self(id))
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_rustic(id: rustic_core::Id) -> Self {
        Self(id.to_hex().as_str().to_owned())
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One snapshot of a repository, as far as its own file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// When it was made, as its maker said.
    pub time: Timestamp,
    /// The host name it carries.
    pub host: String,
    /// The paths it holds; one for snapshots of lvault.
    pub paths: Vec<String>,
    /// All its tags, the key's two among them.
    pub tags: Vec<String>,
    /// The idempotency key, for snapshots of lvault.
    pub key: Option<Key>,
    /// The snapshot it was compared with.
    pub parent: Option<SnapshotId>,
}

impl Snapshot {
    pub(crate) fn from_file(file: &SnapshotFile) -> Self {
        Self {
            id: SnapshotId::from_rustic(*file.id),
            time: file.time.timestamp(),
            host: file.hostname.clone(),
            paths: file.paths.iter().cloned().collect(),
            tags: file.tags.iter().cloned().collect(),
            key: Key::from_tags(file.tags.iter()),
            parent: file.parent.map(|id| SnapshotId::from_rustic(*id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_parsed_at_the_edge() {
        for uid in ["", "a,b", "a b", "a=b", "ä"] {
            assert!(Key::new(uid, 1).is_err(), "{uid:?}");
        }
        for host in ["", "a b", "a\n"] {
            assert!(Host::new(host).is_err(), "{host:?}");
        }
        for path in ["", "/", "data", "/a/../b", "/a/./b", "/a//b", "/a/", "//a"] {
            assert!(SourcePath::new(path).is_err(), "{path:?}");
        }
        for tag in ["", "a,b", "lvault-uid=x"] {
            assert!(Tag::new(tag).is_err(), "{tag:?}");
        }
        for id in ["", "latest", "abc", &"g".repeat(64)] {
            assert!(SnapshotId::new(id).is_err(), "{id:?}");
        }
        assert_eq!(SourcePath::new("/data").unwrap().depth(), 1);
        assert_eq!(SourcePath::new("/a/b").unwrap().depth(), 2);
    }

    #[test]
    fn a_key_is_read_back_from_its_tags() {
        let key = Key::new("4b1c", 3).unwrap();
        let tags = key.tags();
        assert_eq!(Key::from_tags(tags.iter()), Some(key));
        assert_eq!(Key::from_tags(tags[..1].iter()), None);
        for odd in [["lvault-uid=4b1c", "lvault-attempt=03"], ["lvault-uid=4b1c", "lvault-attempt=+3"]] {
            assert_eq!(Key::from_tags(odd.map(str::to_owned).iter()), None, "{odd:?}");
        }
        let both = [tags[0].clone(), tags[1].clone(), "lvault-attempt=4".to_owned()];
        assert_eq!(Key::from_tags(both.iter()), None);
    }
}
