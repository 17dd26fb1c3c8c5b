//! `lvault snapshot`: create, list, watch, retry, delete.

use std::time::Duration;

use kube::ResourceExt;
use lvault_api::{
    AccessType, Content, DeletionPolicy, LogicalVolume, OnReadError, OnlineSnapshotSpec, Phase, StorageReference,
};
use lvault_core::Bytes;
use serde_json::json;

use super::{existing, not_deleting, object, plain_spec, usable_storage};
use crate::args::{self, Output, SnapshotCommand, WaitArgs};
use crate::clock::now;
use crate::error::CliError;
use crate::follow::{Goal, follow};
use crate::names;
use crate::objects::{Kind, current_transfer, is_ready, phase, phase_word, size_asked, size_now, transfer};
use crate::output::Listing;
use crate::progress::line;
use crate::say;
use crate::server::Server;

const SNAPSHOTS: [Kind; 1] = [Kind::Snapshot];

/// Runs one of the commands.
pub async fn run(server: &Server, command: SnapshotCommand) -> Result<(), CliError> {
    match command {
        SnapshotCommand::Create {
            name,
            source,
            storage,
            node,
            keep_local,
            backoff_limit,
            deletion_policy,
            on_read_error,
            wait,
        } => {
            let deletion_policy = match deletion_policy {
                args::DeletionPolicy::Delete => DeletionPolicy::Delete,
                args::DeletionPolicy::Retain => DeletionPolicy::Retain,
            };
            let on_read_error = match on_read_error {
                args::OnReadError::Fail => OnReadError::Fail,
                args::OnReadError::Skip => OnReadError::Skip,
            };
            let storage = names::storage_reference("--storage", &storage)?;
            let wanted =
                Wanted { name, source, storage, node, keep_local, backoff_limit, deletion_policy, on_read_error };
            let snapshot = create(server, &wanted).await?;
            waited(server, snapshot, wait).await
        }
        SnapshotCommand::List { output } => list(server, output).await,
        SnapshotCommand::Watch { name, timeout } => watch(server, &name, timeout).await,
        SnapshotCommand::Retry { name, wait } => {
            let snapshot = retry(server, &name, &SNAPSHOTS).await?;
            waited(server, snapshot, wait).await
        }
        SnapshotCommand::Delete { name, keep_repository, wait } => delete(server, &name, keep_repository, wait).await,
    }
}

/// An online snapshot to be made.
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The volume it is cut from.
    pub source: String,
    /// The storage that holds its repository.
    pub storage: StorageReference,
    /// The node that the volume has to be on.
    pub node: Option<String>,
    /// Keep the local snapshot.
    pub keep_local: bool,
    /// How many executors may be lost.
    pub backoff_limit: i32,
    /// What becomes of the repository's snapshot.
    pub deletion_policy: DeletionPolicy,
    /// What becomes of the copy when something cannot be read.
    pub on_read_error: OnReadError,
}

/// Asks for an online snapshot, once everything it needs has been seen to be there.
pub async fn create(server: &Server, wanted: &Wanted) -> Result<LogicalVolume, CliError> {
    let name = names::object_name("NAME", &wanted.name)?;
    let source_name = names::object_name("--source", &wanted.source)?;
    let tried = format!("creating snapshot {name}");
    let kinds = [Kind::Volume, Kind::Restore, Kind::Snapshot];
    let source = existing(server, &source_name, &kinds, &tried).await?;
    let size = cuttable(server, &source, wanted.node.as_deref(), &tried)?;
    usable_storage(server, &wanted.storage).await?;
    let mut spec = plain_spec(&name, source.spec.node_name.clone(), size);
    spec.source = Some(source_name);
    spec.access_type = Some(AccessType::Ro);
    spec.online_snapshot = Some(OnlineSnapshotSpec {
        storage: wanted.storage.clone(),
        content: Content::Auto,
        attempt: 1,
        backoff_limit: wanted.backoff_limit,
        keep_local_snapshot: wanted.keep_local,
        deletion_policy: wanted.deletion_policy,
        on_read_error: wanted.on_read_error,
    });
    server.create(&server.volume_api(), &object(&name, spec)?, &tried).await
}

/// Whether a snapshot can be cut from a volume, and how large it will be.
fn cuttable(server: &Server, source: &LogicalVolume, node: Option<&str>, tried: &str) -> Result<Bytes, CliError> {
    let name = source.name_any();
    let impossible =
        |happened: String, remedy: String| CliError::Impossible { tried: tried.to_owned(), happened, remedy };
    not_deleting(source, tried)?;
    let at = source.spec.node_name.as_str();
    if let Some(node) = node.or(server.known_node()).filter(|node| *node != at) {
        return Err(impossible(
            format!("the source {name} is on node {at}, not on {node}"),
            format!("snapshot it on node {at}, which alone has its data"),
        ));
    }
    match (&source.spec.online_snapshot, current_transfer(source).map(|transfer| transfer.phase)) {
        (Some(_), None | Some(Phase::Pending | Phase::Running)) => Err(impossible(
            format!("the source {name} is a snapshot that is not finished ({})", phase(source)),
            format!("wait for it with `lvault snapshot watch {name}`"),
        )),
        (Some(_), Some(Phase::Failed)) => Err(impossible(
            format!("the source {name} is a snapshot that failed"),
            format!("snapshot the volume itself, or try it again with `lvault snapshot retry {name}`"),
        )),
        (Some(online), Some(Phase::Succeeded)) if !online.keep_local_snapshot => Err(impossible(
            format!("the source {name} is a snapshot whose data is in its repository only"),
            format!("restore it into a volume first: `lvault restore NEW-NAME --from {name}`"),
        )),
        (None, _) if !is_ready(source) => Err(impossible(
            format!("the source {name} is not ready ({})", phase(source)),
            format!("`lvault why {name}` says what it waits for"),
        )),
        (Some(_), Some(Phase::Succeeded)) | (None, _) => {
            Ok(size_now(source).or(size_asked(source)).unwrap_or(Bytes(1)))
        }
    }
}

/// Ends a command that began an online operation: with its end where that was asked for.
pub(super) async fn waited(server: &Server, object: LogicalVolume, wait: WaitArgs) -> Result<(), CliError> {
    let title = crate::objects::title(&object);
    if !wait.wait {
        say::result(&format!("{title} asked for: watch it with `lvault get {}`", object.name_any()));
        return Ok(());
    }
    let done = follow(server, &object, Goal::Succeeded, wait.timeout).await?;
    say::result(&done.as_ref().map(ended).unwrap_or_else(|| format!("{title}: done")));
    Ok(())
}

/// A finished operation, with what is needed to find its data again.
pub(super) fn ended(object: &LogicalVolume) -> String {
    let at = transfer(object).and_then(|transfer| {
        let (storage, path, id) = (&transfer.repository, &transfer.path, &transfer.snapshot_id);
        let written = format!("{} {} {}", storage.as_ref()?, path.as_ref()?, id.as_ref()?);
        Some(format!(" (storage, path and snapshot id: {written})"))
    });
    format!("{}{}", line(object), at.filter(|_| Kind::of(object) == Kind::Snapshot).unwrap_or_default())
}

async fn list(server: &Server, output: Output) -> Result<(), CliError> {
    let all = server.volumes().await?;
    let listing = Listing { snapshots: Some(Listing::snapshots(&all)), ..Listing::default() };
    say::result(&listing.render(output.format, now())?);
    Ok(())
}

async fn watch(server: &Server, name: &str, timeout: Option<Duration>) -> Result<(), CliError> {
    let name = names::object_name("NAME", name)?;
    let kinds = [Kind::Snapshot, Kind::Restore];
    let snapshot = existing(server, &name, &kinds, &format!("watching {name}")).await?;
    let local = snapshot.spec.online_snapshot.is_none() && snapshot.spec.restore.is_none();
    let goal = if local { Goal::Ready } else { Goal::Succeeded };
    let done = follow(server, &snapshot, goal, timeout).await?;
    say::result(&done.as_ref().map(ended).unwrap_or_default());
    Ok(())
}

/// Asks for the next attempt of a failed online operation.
pub(super) async fn retry(server: &Server, name: &str, kinds: &[Kind]) -> Result<LogicalVolume, CliError> {
    let name = names::object_name("NAME", name)?;
    let tried = format!("trying {name} again");
    let object = existing(server, &name, kinds, &tried).await?;
    not_deleting(&object, &tried)?;
    let impossible = |happened: String, remedy: &str| CliError::Impossible {
        tried: tried.clone(),
        happened,
        remedy: remedy.to_owned(),
    };
    let part = match Kind::of(&object) {
        Kind::Restore => "restore",
        Kind::Snapshot | Kind::Volume => "onlineSnapshot",
    };
    let Some(transfer) = current_transfer(&object) else {
        return Err(impossible("its attempt has not begun yet".to_owned(), "wait for it to end"));
    };
    match transfer.phase {
        Phase::Failed => {}
        Phase::Succeeded => {
            return Err(impossible(
                "it has succeeded".to_owned(),
                "there is nothing to do; make a new one for newer data",
            ));
        }
        Phase::Pending | Phase::Running => {
            let phase = phase_word(transfer.phase);
            return Err(impossible(format!("it is {phase}"), "wait for it to end"));
        }
    }
    // Two who retry at once ask for the same attempt, and one is begun.
    let next = transfer.attempt.saturating_add(1);
    let patch = json!({
        "metadata": {"uid": object.uid()},
        "spec": {part: {"attempt": next}},
    });
    server.merge(&server.volume_api(), &name, &patch, &tried).await
}

async fn delete(server: &Server, name: &str, keep_repository: bool, wait: WaitArgs) -> Result<(), CliError> {
    let name = names::object_name("NAME", name)?;
    let tried = format!("deleting snapshot {name}");
    let mut snapshot = existing(server, &name, &SNAPSHOTS, &tried).await?;
    if keep_repository && snapshot.spec.online_snapshot.is_some() {
        let patch =
            json!({"metadata": {"uid": snapshot.uid()}, "spec": {"onlineSnapshot": {"deletionPolicy": "Retain"}}});
        snapshot = server.merge(&server.volume_api(), &name, &patch, &tried).await?;
    }
    server.remove(&server.volume_api(), &snapshot, &tried).await?;
    if wait.wait {
        follow(server, &snapshot, Goal::Gone, wait.timeout).await?;
        say::result(&format!("snapshot {name} deleted"));
    } else {
        say::result(&format!("snapshot {name} is being deleted"));
    }
    Ok(())
}
