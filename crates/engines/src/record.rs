//! What is written down about a volume beside its data: `meta.json` in the volume's folder.
//!
//! What holds: a record is written whole, to another name, made durable, then renamed into place; reading parses it
//! into types that cannot be wrong, and says which file and which field is damaged.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use lvault_core::{Bytes, VolumeId};
use serde::{Deserialize, Serialize};

use crate::engine::{Access, Change, Filesystem, NewSnapshot, NewVolume};
use crate::error::EngineError;

/// The file's name inside a volume's folder.
pub(crate) const RECORD_FILE: &str = "meta.json";
const VERSION: u32 = 1;

/// What is known about a volume for as long as it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: VolumeId,
    pub(crate) size: Bytes,
    pub(crate) filesystem: Option<Filesystem>,
    pub(crate) origin: Option<VolumeId>,
    pub(crate) access: Access,
    /// Set while a growth is under way: the image may be this long already, its filesystem may not.
    pub(crate) growing_to: Option<Bytes>,
}

impl Record {
    /// The record of a new, empty volume.
    pub(crate) fn volume(new: &NewVolume, filesystem: Option<Filesystem>) -> Record {
        let (id, size) = (new.id.clone(), new.size);
        Record { id, size, filesystem, origin: None, access: Access::ReadWrite, growing_to: None }
    }

    /// The record of a new snapshot of this source.
    pub(crate) fn snapshot(new: &NewSnapshot, source: &Record) -> Record {
        Record {
            id: new.id.clone(),
            size: source.size,
            filesystem: source.filesystem,
            origin: Some(new.source.clone()),
            access: new.access,
            growing_to: None,
        }
    }

    /// Nothing to do when this is the volume asked for; an error when it is another.
    pub(crate) fn is_volume(&self, asked: &NewVolume) -> Result<Change, EngineError> {
        let same_filesystem = asked.filesystem.is_none_or(|filesystem| self.filesystem == Some(filesystem));
        if self.origin.is_none() && self.size == asked.size && same_filesystem {
            return Ok(Change::Unchanged);
        }
        let filesystem = asked.filesystem.map(|filesystem| format!(" with {filesystem}")).unwrap_or_default();
        self.mismatch(format!("an empty volume of {} bytes{filesystem}", asked.size.0))
    }

    /// Nothing to do when this is the snapshot asked for; an error when it is another, or none.
    pub(crate) fn is_snapshot(&self, asked: &NewSnapshot) -> Result<Change, EngineError> {
        if self.origin.as_ref() == Some(&asked.source) && self.access == asked.access {
            return Ok(Change::Unchanged);
        }
        self.mismatch(format!("a snapshot of volume {} with access {}", asked.source, asked.access))
    }

    fn mismatch(&self, asked: String) -> Result<Change, EngineError> {
        let filesystem = self.filesystem.map(|filesystem| format!(" with {filesystem}")).unwrap_or_default();
        let kind = match &self.origin {
            Some(origin) => format!("a snapshot of volume {origin}"),
            None => "a volume".to_owned(),
        };
        let there = format!("{kind} of {} bytes{filesystem}, access {}", self.size.0, self.access);
        Err(EngineError::Mismatch { id: self.id.clone(), there, asked })
    }

    /// Whether a growth to this size is needed and allowed.
    pub(crate) fn grows_to(&self, size: Bytes) -> Result<Change, EngineError> {
        let id = self.id.clone();
        match (size.cmp(&self.size), self.access) {
            (Ordering::Less, _) => Err(EngineError::Shrink { id, size: self.size, asked: size }),
            (Ordering::Equal, _) => Ok(Change::Unchanged),
            (Ordering::Greater, Access::ReadOnly) => Err(EngineError::ReadOnly { id }),
            (Ordering::Greater, Access::ReadWrite) => Ok(Change::Changed),
        }
    }

    /// The most this volume may come to hold.
    pub(crate) fn promised(&self) -> Bytes {
        self.size.max(self.growing_to.unwrap_or_default())
    }

    /// Reads the record in a volume's folder.
    pub(crate) fn read(folder: &Path) -> Result<Record, EngineError> {
        let path = folder.join(RECORD_FILE);
        let damaged = |why: String| EngineError::Damaged { path: path.clone(), why };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it is missing".into())),
            Err(error) => return Err(EngineError::io("reading", &path)(error)),
        };
        Record::parse(&text).map_err(damaged)
    }

    /// Reads a record's text; in words what is wrong with it otherwise.
    pub(crate) fn parse(text: &str) -> Result<Record, String> {
        let Versioned { version } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("it has version {version}, and this lvault knows version {VERSION} only"));
        }
        let wire: Wire = serde_json::from_str(text).map_err(|error| error.to_string())?;
        wire.parse()
    }

    /// The record's text.
    pub(crate) fn written(&self) -> Result<String, String> {
        serde_json::to_string_pretty(&Wire::from(self)).map_err(|error| error.to_string())
    }

    /// Writes the record into a volume's folder, durably, replacing the old one in one step.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), EngineError> {
        let path = folder.join(RECORD_FILE);
        let text = self.written().map_err(|why| EngineError::Damaged { path: path.clone(), why })?;
        replace(&path, &text).map_err(EngineError::io("writing", path))
    }
}

/// Writes a file beside its final name, makes it durable and renames it: a reader sees the old text or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".record-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    version: u32,
    id: String,
    size: u64,
    access: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filesystem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    growing_to: Option<u64>,
}

impl Wire {
    fn parse(self) -> Result<Record, String> {
        let id = |field: &str, text: &str| VolumeId::parse(text).map_err(|error| format!("{field}: {error}"));
        let access = match self.access.as_str() {
            "ro" => Access::ReadOnly,
            "rw" => Access::ReadWrite,
            other => return Err(format!("access: '{other}' is neither ro nor rw")),
        };
        let filesystem = self.filesystem.map(|text| text.parse::<Filesystem>()).transpose();
        Ok(Record {
            id: id("id", &self.id)?,
            size: Bytes(self.size),
            filesystem: filesystem.map_err(|error| format!("filesystem: {error}"))?,
            origin: self.origin.map(|text| id("origin", &text)).transpose()?,
            access,
            growing_to: self.growing_to.map(Bytes),
        })
    }
}

impl From<&Record> for Wire {
    fn from(record: &Record) -> Self {
        Wire {
            version: VERSION,
            id: record.id.to_string(),
            size: record.size.0,
            access: record.access.name().to_owned(),
            filesystem: record.filesystem.map(|filesystem| filesystem.name().to_owned()),
            origin: record.origin.as_ref().map(VolumeId::to_string),
            growing_to: record.growing_to.map(|size| size.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let id = |text| VolumeId::parse(text).unwrap();
        for (filesystem, origin, access, growing_to) in [
            (None, None, Access::ReadWrite, None),
            (Some(Filesystem::Ext4), Some(id("source-1")), Access::ReadOnly, None),
            (Some(Filesystem::Xfs), None, Access::ReadWrite, Some(Bytes(u64::MAX))),
        ] {
            let record = Record { id: id("v-1"), size: Bytes(64 << 20), filesystem, origin, access, growing_to };
            record.write(folder.path()).unwrap();
            assert_eq!(Record::read(folder.path()).unwrap(), record);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the record is left");
        }
    }

    #[test]
    fn a_damaged_record_says_which_file_and_what() {
        let folder = tempfile::tempdir().unwrap();
        for (text, says) in [
            ("", "EOF"),
            ("{\"version\":1,\"id\":\"v\"", "EOF"),
            ("{\"version\":2}", "version 2"),
            ("{\"version\":1,\"id\":\"../v\",\"size\":1,\"access\":\"rw\"}", "id:"),
            ("{\"version\":1,\"id\":\"v\",\"size\":1,\"access\":\"rx\"}", "access:"),
            ("{\"version\":1,\"id\":\"v\",\"size\":-1,\"access\":\"rw\"}", "-1"),
            ("{\"version\":1,\"id\":\"v\",\"size\":1,\"access\":\"rw\",\"filesystem\":\"ntfs\"}", "ntfs"),
            ("{\"version\":1,\"id\":\"v\",\"size\":1,\"access\":\"rw\",\"sise\":2}", "sise"),
        ] {
            fs::write(folder.path().join(RECORD_FILE), text).unwrap();
            let error = Record::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(RECORD_FILE) && error.contains(says), "{text}: {error}");
        }
    }
}
