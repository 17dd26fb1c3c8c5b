//! `lvault why`: what an object is waiting for, and what to do about it.
//!
//! [`gather`] reads everything that may matter; [`tell`] turns it into a short story without any I/O.

mod tell;

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use lvault_api::{LogicalVolume, SnapshotBackupStorage, StorageReference};

use crate::clock::now;
use crate::command::has_password;
use crate::error::CliError;
use crate::names;
use crate::say;
use crate::server::Server;

pub use tell::{Story, tell, tell_storage};

/// Everything about a LogicalVolume that may explain where it stands.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The object.
    pub object: LogicalVolume,
    /// The object it is cut from: `None` where it has no source, `Some(None)` where the source does not exist.
    pub source: Option<Option<LogicalVolume>>,
    /// Its storage, in the same way.
    pub storage: Option<(StorageReference, Option<StorageFacts>)>,
    /// Events about it, oldest first.
    pub events: Vec<Event>,
    /// The node whose agent works behind the server, where that is known.
    pub node: Option<String>,
}

/// A storage and whether it has a password.
#[derive(Clone, Debug)]
pub struct StorageFacts {
    /// The storage.
    pub storage: SnapshotBackupStorage,
    /// Whether its Secret holds a password.
    pub password: bool,
}

/// Runs the command.
pub async fn run(server: &Server, name: &str) -> Result<(), CliError> {
    let story = match gather(server, name).await? {
        Found::Volume(facts) => tell(&facts, now()),
        Found::Storage(facts) => tell_storage(&facts),
    };
    say::result(&story.to_string());
    Ok(())
}

enum Found {
    Volume(Box<Facts>),
    Storage(Box<StorageFacts>),
}

async fn gather(server: &Server, name: &str) -> Result<Found, CliError> {
    let at = names::storage_reference("NAME", name)?;
    let object = if name.contains('/') { None } else { server.volume(name).await? };
    let Some(object) = object else {
        return match storage_facts(server, &at).await? {
            Some(facts) => Ok(Found::Storage(Box::new(facts))),
            None => Err(CliError::NotFound {
                kind: "volume, snapshot or storage",
                name: name.to_owned(),
                remedy: "look at what there is with `lvault get`".to_owned(),
            }),
        };
    };
    let source = match &object.spec.source {
        Some(source) => Some(server.volume(source).await?),
        None => None,
    };
    let online = object.spec.online_snapshot.as_ref().map(|online| online.storage.clone());
    let storage = match online.or_else(|| object.spec.restore.as_ref().map(|restore| restore.storage.clone())) {
        Some(at) => {
            let facts = storage_facts(server, &at).await?;
            Some((at, facts))
        }
        None => None,
    };
    let events = server.events(&object.uid().unwrap_or_default()).await?;
    let node = server.known_node().map(str::to_owned);
    Ok(Found::Volume(Box::new(Facts { object, source, storage, events, node })))
}

async fn storage_facts(server: &Server, at: &StorageReference) -> Result<Option<StorageFacts>, CliError> {
    let Some(storage) = server.storage(at).await? else {
        return Ok(None);
    };
    let password = has_password(server, &at.namespace, &storage.secret_name()).await?;
    Ok(Some(StorageFacts { storage, password }))
}
