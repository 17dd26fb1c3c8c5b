//! The file: one redb database with the objects and the last resource version.
//!
//! Holds: a file is only ever created whole (it is made aside, then linked into place), and a file that cannot be
//! understood is reported and left as it is. One process at a time has it open.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};

use super::Key;
use super::transaction::Layer;
use super::witness::{self, Witness};
use crate::access::token::KEY_LENGTH;
use crate::registry::{Registry, ResourceId};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// What the file says it is. The number rises when an older program could not read the file any more.
const FORMAT: &[u8] = b"embedded-kubernetes-api 1";
const FORMAT_NAME: &[u8] = b"embedded-kubernetes-api ";

/// The entry with the key of tokens. A file from before tokens has none yet.
const TOKEN_KEY: &str = "token-key";

/// Between group and plural of a resource, namespace and name in a key: no name holds it.
const SEPARATOR: char = '\u{0}';

/// Memory that redb may use for its cache: reads come from our own memory, so that little is needed.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Why a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another process has it open, or this one has already.
    #[error("{}: already open; only one server at a time may use it, stop the other one first", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// It is empty: it was truncated, for a file is never created empty.
    #[error("{}: empty; it was truncated. Restore it from a copy, or move it away to start afresh", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// It is a database, but of another program.
    #[error("{}: not a file of this API server; choose another path", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error("{}: written by a newer version ({found}); use that version", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// What the file says it is.
        found: String,
    },
    /// It is no database, or a damaged one.
    #[error(
        "{}: damaged, or no database at all; it was left as it is. Restore it from a copy, or move it away to start afresh",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It holds less than was acknowledged.
    #[error(
        "{}: it ends at resource version {found}, but {acknowledged} was acknowledged: the disk has lost writes, or an older copy was put \
         here. Where that was on purpose, remove {}.acknowledged; otherwise restore a copy that is whole",
        file.display(),
        file.display()
    )]
    Older {
        /// The file.
        file: PathBuf,
        /// The last resource version in it.
        found: u64,
        /// The last one that was acknowledged.
        acknowledged: u64,
    },
    /// It could not be read, written or created.
    #[error("{}: cannot {what}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// An open file.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    database: Database,
    witness: Option<Witness>,
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<(Key, Bytes)>,
    /// The key that tokens of ServiceAccounts are signed with.
    pub(crate) token_key: Option<[u8; KEY_LENGTH]>,
    /// Resources with objects that no registered kind claims; they stay in the file untouched.
    pub(crate) unclaimed: std::collections::BTreeSet<String>,
}

impl ObjectFile {
    /// Opens the file, or creates it when there is none. After a crash in the middle of creating one, none is there.
    pub(crate) fn open(path: &Path, registry: &Registry) -> Result<(ObjectFile, Loaded), FileError> {
        match fs::metadata(path) {
            Ok(found) if found.len() == 0 => return Err(FileError::Empty { file: path.to_path_buf() }),
            Ok(_) => {}
            // Of two racing creators one wins, and both then open the winner's file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(create_with(path, registry, 0, &[])?),
            Err(source) => return Err(FileError::Io { file: path.to_path_buf(), what: "look at it", source }),
        }
        let database = open_database(path)?;
        let mut file = ObjectFile { database, witness: None };
        let loaded = file.load(path, registry)?;
        let failed =
            |source| FileError::Io { file: path.to_path_buf(), what: "open the .acknowledged beside it", source };
        let (witness, named) = Witness::open(path).map_err(failed)?;
        if let Some(acknowledged) = named.filter(|acknowledged| *acknowledged > loaded.revision) {
            return Err(FileError::Older { file: path.to_path_buf(), found: loaded.revision, acknowledged });
        }
        file.witness = Some(witness);
        Ok((file, loaded))
    }

    /// A file over a database that is open already.
    #[cfg(test)]
    pub(super) fn over(database: Database) -> ObjectFile {
        ObjectFile { database, witness: None }
    }

    fn load(&self, path: &Path, registry: &Registry) -> Result<Loaded, FileError> {
        let damaged =
            |source: Box<dyn std::error::Error + Send + Sync>| FileError::Damaged { file: path.to_path_buf(), source };
        let read = self.database.begin_read().map_err(|error| damaged(error.into()))?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => {
                return Err(FileError::Foreign { file: path.to_path_buf() });
            }
            Err(error) => return Err(damaged(error.into())),
        };
        let entry = |name: &str| -> Result<Option<Vec<u8>>, FileError> {
            let found = meta.get(name).map_err(|error| damaged(error.into()))?;
            Ok(found.map(|value| value.value().to_vec()))
        };
        check_format(path, entry("format")?.as_deref())?;
        let revision = entry("revision")?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let revision = revision.ok_or_else(|| damaged("it holds no resource version".into()))?;
        let token_key = entry(TOKEN_KEY)?.and_then(|bytes| bytes.try_into().ok());
        let mut loaded = Loaded { revision, token_key, ..Loaded::default() };
        let objects = read.open_table(OBJECTS).map_err(|error| damaged(error.into()))?;
        for entry in objects.iter().map_err(|error| damaged(error.into()))? {
            let (key, value) = entry.map_err(|error| damaged(error.into()))?;
            match read_key(registry, key.value()) {
                Ok(key) => loaded.objects.push((key, Bytes::copy_from_slice(value.value()))),
                Err(resource) => drop(loaded.unclaimed.insert(resource)),
            }
        }
        Ok(loaded)
    }

    /// Keeps the key of tokens. After a crash in the middle there is none yet, and no token either.
    pub(crate) fn keep_token_key(&self, key: &[u8; KEY_LENGTH]) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert(TOKEN_KEY, key.as_slice())?;
        write.commit()?;
        Ok(())
    }

    /// Makes the changes of a batch durable, all or none. When this fails, what is on disk is unknown until the next open.
    pub(crate) fn commit(&self, registry: &Registry, batch: &Layer) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            for (key, object) in &batch.objects {
                let name = write_key(registry, key);
                match object {
                    Some(stored) => drop(objects.insert(name.as_str(), stored.json.as_ref())?),
                    None => drop(objects.remove(name.as_str())?),
                }
            }
            let mut meta = write.open_table(META)?;
            meta.insert("revision", batch.revision.to_be_bytes().as_slice())?;
        }
        write.commit()?;
        if let Some(witness) = &self.witness
            && let Err(error) = witness.note(batch.revision)
        {
            tracing::warn!(%error, "what was acknowledged could not be noted beside the store");
        }
        Ok(())
    }

    /// Before the file is closed: a store at rest has a durable witness.
    pub(crate) fn settle(&self) {
        if let Some(witness) = &self.witness
            && let Err(error) = witness.sync()
        {
            tracing::warn!(%error, "what was acknowledged could not be made durable beside the store");
        }
    }
}

fn check_format(path: &Path, format: Option<&[u8]>) -> Result<(), FileError> {
    match format {
        Some(FORMAT) => Ok(()),
        Some(other) if other.starts_with(FORMAT_NAME) => {
            Err(FileError::Newer { file: path.to_path_buf(), found: String::from_utf8_lossy(other).into_owned() })
        }
        Some(_) | None => Err(FileError::Foreign { file: path.to_path_buf() }),
    }
}

fn open_database(path: &Path) -> Result<Database, FileError> {
    refuse_foreign(path)?;
    let mut builder = Database::builder();
    // An unclean shutdown is repaired by redb; a file altered by others is found by its checksums instead of trusted.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    unwound(path, || builder.open(path))
}

/// Looks at a file without changing anything in it: opening one for writing changes it, whoever's it is. One that was not
/// closed cleanly cannot be looked at this way, and is taken for ours until it is repaired.
fn refuse_foreign(path: &Path) -> Result<(), FileError> {
    let look = || -> Result<Option<Vec<u8>>, DatabaseError> {
        let database = match Database::builder().set_cache_size(CACHE_BYTES).open_read_only(path) {
            Ok(database) => database,
            Err(DatabaseError::RepairAborted) => return Ok(Some(FORMAT.to_vec())),
            Err(error) => return Err(error),
        };
        let read = database.begin_read().map_err(|error| StorageError::Corrupted(error.to_string()))?;
        match read.open_table(META) {
            Ok(meta) => Ok(meta.get("format").map_err(DatabaseError::Storage)?.map(|value| value.value().to_vec())),
            Err(TableError::Storage(error)) => Err(DatabaseError::Storage(error)),
            Err(_no_such_table) => Ok(None),
        }
    };
    let format = unwound(path, look)?;
    check_format(path, format.as_deref())
}

/// Runs what opens a file. redb may panic over a file that others damaged; the user needs the file's name, not a backtrace.
fn unwound<T>(path: &Path, open: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, FileError> {
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open));
    let file = path.to_path_buf();
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(FileError::InUse { file }),
        Ok(Err(DatabaseError::Storage(StorageError::Io(source)))) if !is_damage(source.kind()) => {
            Err(FileError::Io { file, what: "open it", source })
        }
        Ok(Err(error)) => Err(FileError::Damaged { file, source: error.into() }),
        Err(_panic) => Err(FileError::Damaged { file, source: "its pages contradict each other".into() }),
    }
}

fn is_damage(kind: io::ErrorKind) -> bool {
    kind == io::ErrorKind::InvalidData || kind == io::ErrorKind::UnexpectedEof
}

/// Creates a file of this format with these objects: made aside, made durable, then linked into place. Answers whether it
/// was made: of two racing creators one wins, and what is there already stays.
pub(crate) fn create_with(
    path: &Path,
    registry: &Registry,
    revision: u64,
    objects: &[(Key, Bytes)],
) -> Result<bool, FileError> {
    let failed = |what: &'static str| move |source: io::Error| FileError::Io { file: path.to_path_buf(), what, source };
    let aside = path.with_extension(format!("new-{}", uuid::Uuid::new_v4().simple()));
    let made =
        fill_new(&aside, registry, revision, objects).map_err(|error| failed("create it")(io::Error::other(error)));
    let linked = made.and_then(|()| {
        // Of a store that is gone, moved away or lost: what it had acknowledged says nothing about this one.
        if !path.exists() {
            witness::forget(path).map_err(failed("remove the .acknowledged of a former one"))?;
        }
        Ok(())
    });
    let linked = linked.and_then(|()| match fs::hard_link(&aside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true).map_err(failed("create it")),
    });
    // The file aside has done its service either way; what a crash leaves of it is never looked at again.
    let removed = fs::remove_file(&aside);
    let is_made = linked?;
    removed.map_err(failed("remove what it was made from"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync its folder"))?;
    Ok(is_made)
}

fn fill_new(
    aside: &Path,
    registry: &Registry,
    revision: u64,
    objects: &[(Key, Bytes)],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    private(aside)?;
    let database = Database::create(aside)?;
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(OBJECTS)?;
        for (key, object) in objects {
            table.insert(write_key(registry, key).as_str(), object.as_ref())?;
        }
        let mut meta = write.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("revision", revision.to_be_bytes().as_slice())?;
    }
    write.commit()?;
    database.close()?;
    Ok(())
}

/// Creates the file for its owner's eyes only: it holds Secrets.
fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

pub(crate) fn write_key(registry: &Registry, key: &Key) -> String {
    let resource = registry.resource(key.resource);
    [resource.group.as_str(), &resource.plural, &key.namespace, &key.name].join("\u{0}")
}

/// The place a key names; the error is the resource that is not registered.
pub(crate) fn read_key(registry: &Registry, text: &str) -> Result<Key, String> {
    let parts: Vec<&str> = text.split(SEPARATOR).collect();
    let [group, plural, namespace, name] = parts.as_slice() else {
        return Err(text.escape_debug().to_string());
    };
    let found = registry.resources().find(|(_, resource)| resource.group == *group && resource.plural == *plural);
    let (id, _): (ResourceId, _) = found.ok_or_else(|| format!("{plural}.{group}"))?;
    Ok(Key { resource: id, namespace: String::from(*namespace), name: String::from(*name) })
}
