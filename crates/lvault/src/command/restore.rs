//! `lvault restore`: fill a new volume from a repository, with or without the snapshot's object.

use lvault_api::{AccessType, LogicalVolume, Phase, RestoreSpec, StorageReference};
use lvault_core::Bytes;

use super::snapshot::{retry, waited};
use super::{existing, filesystem_for, not_deleting, object, plain_spec, usable_storage};
use crate::args::RestoreArgs;
use crate::error::CliError;
use crate::names;
use crate::objects::{Kind, current_transfer, phase, size_asked, transfer};
use crate::server::Server;

/// Runs the command.
pub async fn run(server: &Server, args: RestoreArgs) -> Result<(), CliError> {
    let wait = args.wait;
    let restore =
        if args.retry { retry(server, &args.name, &[Kind::Restore]).await? } else { create(server, &args).await? };
    waited(server, restore, wait).await
}

/// What is restored, and what is known of its size.
struct Origin {
    storage: StorageReference,
    path: String,
    snapshot_id: String,
    /// The size of the volume the snapshot was cut from.
    volume: Option<Bytes>,
    /// The size of the data.
    data: Option<Bytes>,
}

/// Asks for a restored volume, once everything it needs has been seen to be there.
pub async fn create(server: &Server, args: &RestoreArgs) -> Result<LogicalVolume, CliError> {
    let name = names::object_name("NAME", &args.name)?;
    let tried = format!("restoring into volume {name}");
    let asked = args.size.as_deref().map(|size| names::size("--size", size)).transpose()?;
    let node = server.node_for(args.node.as_deref())?;
    let origin = match (&args.from, &args.storage, &args.path, &args.snapshot_id) {
        (Some(snapshot), _, _, _) => of_snapshot(server, snapshot, &tried).await?,
        (None, Some(storage), Some(path), Some(id)) => {
            let storage = names::storage_reference("--storage", storage)?;
            let (volume, data) = known_size(server, id).await?;
            Origin { storage, path: path.clone(), snapshot_id: id.clone(), volume, data }
        }
        (None, _, _, _) => {
            return Err(CliError::input(
                "--from",
                "nothing says what is to be restored",
                "write --from SNAPSHOT, or --storage, --path, --snapshot-id and --size",
            ));
        }
    };
    let size = asked.or(origin.volume).ok_or_else(|| {
        CliError::input("--size", "nothing says how large the new volume shall be", "write --size SIZE")
    })?;
    if let Some(data) = origin.data.filter(|data| size < *data) {
        return Err(CliError::input(
            "--size",
            format!("{size} is too small: the snapshot holds {data} of files"),
            "leave it out, or write more than that, with room for the filesystem itself",
        ));
    }
    let mut spec = plain_spec(&name, node, size);
    spec.access_type = Some(AccessType::Rw);
    spec.filesystem = filesystem_for(args.filesystem, size)?;
    spec.device_class = args.placement.device_class.clone();
    spec.lvcreate_option_class = args.placement.lvcreate_option_class.clone();
    let Origin { storage, path, snapshot_id, .. } = origin;
    spec.restore = Some(RestoreSpec { storage: storage.clone(), path, snapshot_id, attempt: 1, backoff_limit: 3 });
    let wanted = object(&name, spec)?;
    usable_storage(server, &storage).await?;
    server.create(&server.volume_api(), &wanted, &tried).await
}

async fn of_snapshot(server: &Server, name: &str, tried: &str) -> Result<Origin, CliError> {
    let name = names::object_name("--from", name)?;
    let snapshot = existing(server, &name, &[Kind::Snapshot], tried).await?;
    let impossible =
        |happened: String, remedy: String| CliError::Impossible { tried: tried.to_owned(), happened, remedy };
    not_deleting(&snapshot, tried)?;
    let Some(online) = &snapshot.spec.online_snapshot else {
        return Err(impossible(
            format!("snapshot {name} is local: it is in no repository"),
            "restore one that was copied off the node".to_owned(),
        ));
    };
    let done = current_transfer(&snapshot).filter(|transfer| transfer.phase == Phase::Succeeded);
    let found = done.and_then(|transfer| Some((transfer.path.clone()?, transfer.snapshot_id.clone()?)));
    let Some((path, snapshot_id)) = found else {
        return Err(impossible(
            format!("snapshot {name} is not complete ({})", phase(&snapshot)),
            format!("wait for it with `lvault snapshot watch {name}`; `lvault why {name}` says what it waits for"),
        ));
    };
    let data = data_of(&snapshot);
    Ok(Origin { storage: online.storage.clone(), path, snapshot_id, volume: size_asked(&snapshot), data })
}

/// The sizes of a repository's snapshot, where its object is still here.
async fn known_size(server: &Server, id: &str) -> Result<(Option<Bytes>, Option<Bytes>), CliError> {
    let of_id = |volume: &&LogicalVolume| {
        let known = transfer(volume).and_then(|transfer| transfer.snapshot_id.as_deref());
        !id.is_empty() && Kind::of(volume) == Kind::Snapshot && known.is_some_and(|known| known.starts_with(id))
    };
    let all = server.volumes().await?;
    let snapshot = all.iter().find(of_id);
    Ok((snapshot.and_then(size_asked), snapshot.and_then(data_of)))
}

fn data_of(snapshot: &LogicalVolume) -> Option<Bytes> {
    let progress = transfer(snapshot)?.progress.as_ref()?;
    u64::try_from(progress.total_bytes).ok().map(Bytes)
}
