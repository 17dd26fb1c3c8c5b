//! The commands that speak to a running lvault, one file for each group; and those about the state of a stopped one.
//!
//! What holds here: everything that can be seen to be wrong is refused before anything is written, and what a command
//! has written before it failed it takes back.

pub mod get;
pub mod repositories;
pub mod restore;
pub mod rotate;
pub mod snapshot;
pub mod state;
pub mod storage;
pub mod volume;

use kube::ResourceExt;
use lvault_api::{Filesystem, LogicalVolume, LogicalVolumeSpec, SnapshotBackupStorage, StoragePhase, StorageReference};
use lvault_api::{format_size, keys, validate};
use lvault_core::Bytes;

use crate::args;
use crate::error::CliError;
use crate::objects::{Kind, is_deleting};
use crate::server::Server;

/// A spec that asks for nothing but a volume of this name, node and size.
fn plain_spec(name: &str, node: String, size: Bytes) -> LogicalVolumeSpec {
    LogicalVolumeSpec {
        name: name.to_owned(),
        node_name: node,
        size: format_size(size),
        device_class: None,
        lvcreate_option_class: None,
        source: None,
        access_type: None,
        filesystem: None,
        online_snapshot: None,
        restore: None,
    }
}

/// The object for a spec, once the spec makes sense to the node agent too.
fn object(name: &str, spec: LogicalVolumeSpec) -> Result<LogicalVolume, CliError> {
    let mut volume = LogicalVolume::new(name, spec);
    // The API server gives the uid; the rest is checked as the agent will check it.
    volume.metadata.uid = Some("new".to_owned());
    validate(&volume)?;
    volume.metadata.uid = None;
    Ok(volume)
}

fn filesystem(asked: args::Filesystem) -> Filesystem {
    match asked {
        args::Filesystem::Ext4 => Filesystem::Ext4,
        args::Filesystem::Xfs => Filesystem::Xfs,
        args::Filesystem::Btrfs => Filesystem::Btrfs,
    }
}

/// The filesystem asked for, with a size that can carry it.
fn filesystem_for(asked: Option<args::Filesystem>, size: Bytes) -> Result<Option<Filesystem>, CliError> {
    let least = match asked {
        None => Bytes(1),
        Some(args::Filesystem::Ext4) => Bytes(32 << 20),
        Some(args::Filesystem::Xfs) => Bytes(300 << 20),
        Some(args::Filesystem::Btrfs) => Bytes(200 << 20),
    };
    match asked.map(filesystem) {
        Some(_) if size < least => Err(CliError::input(
            "--size",
            format!("{size} is too small for the filesystem asked for"),
            format!("write at least {}", format_size(least).0),
        )),
        asked => Ok(asked),
    }
}

/// An object that has to exist and to be of one of these kinds.
async fn existing(server: &Server, name: &str, kinds: &[Kind], tried: &str) -> Result<LogicalVolume, CliError> {
    let Some(volume) = server.volume(name).await? else {
        let kind = kinds.first().map_or("volume", |kind| kind.word());
        let there = server.volumes().await?;
        let of_kind = there.iter().filter(|volume| kinds.contains(&Kind::of(volume))).map(ResourceExt::name_any);
        return Err(CliError::NotFound { kind, name: name.to_owned(), remedy: instead(of_kind.collect()) });
    };
    let kind = Kind::of(&volume);
    if kinds.contains(&kind) {
        return Ok(volume);
    }
    Err(CliError::Impossible {
        tried: tried.to_owned(),
        happened: format!("{name} is a {}", kind.word()),
        remedy: match kind {
            Kind::Snapshot => "use `lvault snapshot ...` for it".to_owned(),
            Kind::Volume | Kind::Restore => "use `lvault volume ...` for it".to_owned(),
        },
    })
}

/// What there is instead of something that is not there.
fn instead(mut names: Vec<String>) -> String {
    const SHOWN: usize = 10;
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    names.truncate(SHOWN);
    match names.as_slice() {
        [] => "there is none yet: make one first".to_owned(),
        names => format!("there is: {}{more}", names.join(", ")),
    }
}

/// A storage that snapshots can be copied to or restored from: it exists, has a password, and its check did not fail.
async fn usable_storage(server: &Server, at: &StorageReference) -> Result<SnapshotBackupStorage, CliError> {
    let Some(storage) = server.storage(at).await? else {
        let there = server.storages().await?;
        let names = there.iter().map(reference).map(|at| at.to_string()).collect();
        return Err(CliError::NotFound { kind: "storage", name: at.to_string(), remedy: instead(names) });
    };
    let impossible = |happened: String, remedy: String| CliError::Impossible {
        tried: format!("using storage {at}"),
        happened,
        remedy,
    };
    if storage.metadata.deletion_timestamp.is_some() {
        return Err(impossible("it is being deleted".to_owned(), "choose another storage".to_owned()));
    }
    lvault_storages::check(&storage.spec)?;
    let secret = storage.secret_name();
    if !has_password(server, &at.namespace, &secret).await? {
        return Err(impossible(
            format!("it has no password: Secret {}/{secret} has no key {}", at.namespace, keys::RESTIC_PASSWORD),
            format!(
                "put the repositories' password into that Secret, or delete the storage and add it again with `lvault storage add {}`",
                at.name
            ),
        ));
    }
    let status = storage.status.as_ref();
    let checked = status.and_then(|status| status.observed_generation) == storage.metadata.generation;
    if checked && storage.spec.validate_on_create && status.and_then(|status| status.phase) == Some(StoragePhase::Error)
    {
        let message = status.and_then(|status| status.message.clone()).unwrap_or_default();
        return Err(impossible(
            format!("its check failed: {message}"),
            format!("put that right, then have it checked with `lvault storage check {at}`"),
        ));
    }
    Ok(storage)
}

/// The name of a storage together with its namespace.
pub(crate) fn reference(storage: &SnapshotBackupStorage) -> StorageReference {
    StorageReference {
        name: storage.name_any(),
        namespace: storage.namespace().unwrap_or_else(|| "default".to_owned()),
    }
}

/// Whether a Secret holds a repository password that is not empty.
pub(crate) async fn has_password(server: &Server, namespace: &str, secret: &str) -> Result<bool, CliError> {
    let found = server.secret(namespace, secret).await?;
    let data = found.and_then(|secret| secret.data).unwrap_or_default();
    Ok(data.get(keys::RESTIC_PASSWORD).is_some_and(|password| !password.0.is_empty()))
}

/// An object that is on its way out cannot be used for anything new.
fn not_deleting(volume: &LogicalVolume, tried: &str) -> Result<(), CliError> {
    if !is_deleting(volume) {
        return Ok(());
    }
    Err(CliError::Impossible {
        tried: tried.to_owned(),
        happened: format!("{} is being deleted", volume.name_any()),
        remedy: "choose another one".to_owned(),
    })
}
