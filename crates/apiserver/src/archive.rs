//! Export and import: all objects of a store's file as one JSON document, and a new file made of one.
//!
//! Holds: both work on a file that no server has open; an import makes a file whole or not at all and never touches one
//! that is there. Objects come back as they were: UID, times, generation, status, deletion, resource version. Tokens of
//! ServiceAccounts do not: a new file has a key of its own.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use crate::access::attributes::is_segment;
use crate::depth;
use crate::metadata;
use crate::registry::{Nature, Registry, RegistryError};
use crate::store::Key;
use crate::store::file::{FileError, ObjectFile, create_with};

/// Why an export or an import is not done.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A kind cannot be registered.
    #[error("cannot register the kinds of the objects")]
    Registry(#[from] RegistryError),
    /// The file cannot be used; when it is open elsewhere, this says so.
    #[error("cannot use the store")]
    File(#[from] FileError),
    /// There is nothing to export.
    #[error("{}: there is no store", file.display())]
    Missing {
        /// Where it was looked for.
        file: PathBuf,
    },
    /// Something is there already, and stays as it is.
    #[error("{}: there is a store already; import into an empty state folder, or move this one away", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The document is no export, or was changed into something that no store can hold. Nothing was made.
    #[error("the document cannot be imported: {why}")]
    Document {
        /// What is wrong, and with which item.
        why: String,
    },
    /// The export could not be written.
    #[error("the export cannot be written")]
    Write(#[source] io::Error),
}

/// What an export holds, and what it leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// How many objects were written.
    pub objects: usize,
    /// How many Secrets were left out.
    pub secrets_left_out: usize,
    /// Resources of kinds that are not registered; their objects were left out.
    pub unknown: BTreeSet<String>,
}

/// Writes all objects of the file as one `v1` List, an object a line. Changes nothing, but repairs a file that was not
/// closed cleanly.
///
/// # Errors
/// See [`ArchiveError`].
pub fn export(file: &Path, crds: &[Value], secrets: bool, to: &mut dyn Write) -> Result<Exported, ArchiveError> {
    let registry = Registry::with_kinds(crds, &[])?;
    if !file.exists() {
        return Err(ArchiveError::Missing { file: file.to_path_buf() });
    }
    let (opened, loaded) = ObjectFile::open(file, &registry)?;
    let mut exported = Exported { unknown: loaded.unclaimed, ..Exported::default() };
    let head = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"{}\"}},\"items\":[",
        loaded.revision
    );
    to.write_all(head.as_bytes()).map_err(ArchiveError::Write)?;
    for (key, object) in &loaded.objects {
        if !secrets && registry.resource(key.resource).nature == Nature::Secret {
            exported.secrets_left_out += 1;
            continue;
        }
        let before = if exported.objects == 0 { "\n" } else { ",\n" };
        to.write_all(before.as_bytes()).and_then(|()| to.write_all(object)).map_err(ArchiveError::Write)?;
        exported.objects += 1;
    }
    to.write_all(b"\n]}\n").and_then(|()| to.flush()).map_err(ArchiveError::Write)?;
    drop(opened);
    Ok(exported)
}

/// Makes a new file of an export. Answers how many objects it holds. After a crash in the middle there is no file.
///
/// # Errors
/// See [`ArchiveError`].
pub fn import(file: &Path, crds: &[Value], document: &[u8]) -> Result<usize, ArchiveError> {
    let registry = Registry::with_kinds(crds, &[])?;
    if file.exists() {
        return Err(ArchiveError::Exists { file: file.to_path_buf() });
    }
    let (revision, objects) = read(&registry, document).map_err(|why| ArchiveError::Document { why })?;
    if create_with(file, &registry, revision, &objects)? {
        Ok(objects.len())
    } else {
        Err(ArchiveError::Exists { file: file.to_path_buf() })
    }
}

/// The objects of an export, and the resource version of its last change.
pub(crate) fn read(registry: &Registry, document: &[u8]) -> Result<(u64, Vec<(Key, Bytes)>), String> {
    let document: Value =
        serde_json::from_slice(document).map_err(|error| format!("it is no JSON, or cut: {error}"))?;
    if document["kind"] != "List" || document["apiVersion"] != "v1" {
        return Err(String::from("it is no export: that is a List of apiVersion v1"));
    }
    let revision = metadata::text(&document, "resourceVersion").parse::<u64>().ok();
    let revision = revision.ok_or("its metadata.resourceVersion is missing or no number")?;
    let items = document["items"].as_array().ok_or("it has no items")?;
    let mut objects = Vec::with_capacity(items.len());
    let (mut places, mut uids) = (BTreeSet::new(), BTreeSet::new());
    for (index, item) in items.iter().enumerate() {
        let (key, object) = read_object(registry, revision, item).map_err(|why| format!("item {index}: {why}"))?;
        if !places.insert(key.clone()) || !uids.insert(metadata::text(&object, "uid").to_owned()) {
            return Err(format!("item {index}: an earlier one has the same name or uid"));
        }
        objects.push((key, Bytes::from(object.to_string())));
    }
    let namespaces: BTreeSet<&str> = objects
        .iter()
        .filter(|(key, _)| registry.resource(key.resource).nature == Nature::Namespace)
        .map(|(key, _)| key.name.as_str())
        .collect();
    match objects.iter().find(|(key, _)| !key.namespace.is_empty() && !namespaces.contains(key.namespace.as_str())) {
        Some((key, _)) => Err(format!("{} stands in the namespace {}, which is missing", key.name, key.namespace)),
        None => Ok((revision, objects)),
    }
}

fn read_object(registry: &Registry, last: u64, item: &Value) -> Result<(Key, Value), String> {
    let said = |field: &str| item[field].as_str().unwrap_or_default();
    let (api_version, kind) = (said("apiVersion"), said("kind"));
    let view = registry
        .views()
        .find(|(_, view)| view.api_version() == api_version && registry.resource(view.resource).kind == kind)
        .map(|(_, view)| view)
        .ok_or_else(|| format!("the kind {kind:?} of {api_version:?} is not known"))?;
    let resource = registry.resource(view.resource);
    let of = |field: &str| metadata::text(item, field);
    if of("name").is_empty() || of("uid").is_empty() {
        return Err(String::from("it has no name or no uid"));
    }
    // What no path can name nobody could read or delete, and the file's keys hold no NUL.
    if [of("name"), of("namespace")].into_iter().any(|part| !part.is_empty() && !is_segment(part)) {
        return Err(String::from("its name or namespace is none that a path can hold"));
    }
    depth::check(item).map_err(|refusal| refusal.to_string())?;
    if resource.namespaced == of("namespace").is_empty() {
        return Err(format!("a {kind} stands in {} namespace", if resource.namespaced { "a" } else { "no" }));
    }
    let revision = of("resourceVersion").parse::<u64>().ok().filter(|revision| (1..=last).contains(revision));
    if revision.is_none() {
        return Err(format!("its resourceVersion is no number from 1 to {last}, that of the list"));
    }
    let key = Key { resource: view.resource, namespace: String::from(of("namespace")), name: String::from(of("name")) };
    Ok((key, view.to_stored(item.clone(), registry.view(resource.storage))))
}
