//! `lvault volume`: create, list, resize, delete, path.

use std::time::Duration;

use kube::ResourceExt;
use lvault_api::{LogicalVolume, format_size};
use lvault_core::Bytes;
use serde_json::json;

use super::{existing, filesystem_for, not_deleting, object, plain_spec};
use crate::args::{Filesystem, Output, PlacementArgs, VolumeCommand, WaitArgs};
use crate::clock::now;
use crate::error::CliError;
use crate::follow::{Goal, follow};
use crate::names;
use crate::objects::{Kind, is_ready, published_path, size_asked, size_now};
use crate::output::Listing;
use crate::say;
use crate::server::Server;

/// How long a new request is watched for a refusal by the engine, when nobody waits for the end.
const GLANCE: Duration = Duration::from_secs(5);

const VOLUMES: [Kind; 2] = [Kind::Volume, Kind::Restore];

/// Runs one of the commands.
pub async fn run(server: &Server, command: VolumeCommand) -> Result<(), CliError> {
    match command {
        VolumeCommand::Create { name, size, filesystem, node, placement, wait } => {
            let volume = create(server, &name, &size, filesystem, node.as_deref(), &placement, wait).await?;
            say::result(&format!("volume {} created, {}", volume.name_any(), said_size(&volume)));
            Ok(())
        }
        VolumeCommand::List { output } => list(server, output).await,
        VolumeCommand::Resize { name, size, wait } => resize(server, &name, &size, wait).await,
        VolumeCommand::Delete { name, wait } => delete(server, &name, wait).await,
        VolumeCommand::Path { name } => {
            say::result(&path(server, &name).await?);
            Ok(())
        }
    }
}

fn said_size(volume: &LogicalVolume) -> String {
    let size = size_now(volume).or(size_asked(volume)).unwrap_or_default();
    if is_ready(volume) { format!("{size}, ready") } else { format!("{size}, not ready yet") }
}

/// Makes a volume. One that the engine refuses for good at once is taken back, so that nothing is left of it.
pub async fn create(
    server: &Server,
    name: &str,
    size: &str,
    filesystem: Option<Filesystem>,
    node: Option<&str>,
    placement: &PlacementArgs,
    wait: WaitArgs,
) -> Result<LogicalVolume, CliError> {
    let name = names::object_name("NAME", name)?;
    let size = names::size("--size", size)?;
    let mut spec = plain_spec(&name, server.node_for(node)?, size);
    spec.filesystem = filesystem_for(filesystem, size)?;
    spec.device_class = placement.device_class.clone();
    spec.lvcreate_option_class = placement.lvcreate_option_class.clone();
    let wanted = object(&name, spec)?;
    let created = server.create(&server.volume_api(), &wanted, &format!("creating volume {name}")).await?;
    settle(server, created, Goal::Ready, wait).await
}

/// Waits for a new object as asked; without being asked, long enough to see it refused.
async fn settle(
    server: &Server,
    created: LogicalVolume,
    goal: Goal,
    wait: WaitArgs,
) -> Result<LogicalVolume, CliError> {
    let timeout = if wait.wait { wait.timeout } else { Some(GLANCE) };
    match follow(server, &created, goal, timeout).await {
        Ok(found) => Ok(found.unwrap_or(created)),
        Err(CliError::TimedOut { .. }) if !wait.wait => Ok(created),
        Err(error @ CliError::Failed { .. }) => {
            let tried = format!("taking {} back", created.name_any());
            server.remove(&server.volume_api(), &created, &tried).await?;
            follow(server, &created, Goal::Gone, Some(Duration::from_secs(30))).await?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

async fn list(server: &Server, output: Output) -> Result<(), CliError> {
    let all = server.volumes().await?;
    let listing = Listing { volumes: Some(Listing::volumes(&all)), ..Listing::default() };
    say::result(&listing.render(output.format, now())?);
    Ok(())
}

async fn resize(server: &Server, name: &str, size: &str, wait: WaitArgs) -> Result<(), CliError> {
    let name = names::object_name("NAME", name)?;
    let size = names::size("SIZE", size)?;
    let tried = format!("resizing volume {name}");
    let volume = existing(server, &name, &VOLUMES, &tried).await?;
    not_deleting(&volume, &tried)?;
    let before = size_now(&volume).max(size_asked(&volume)).unwrap_or_default();
    if size < before {
        return Err(CliError::input(
            "SIZE",
            format!("volume {name} has {before} and volumes only grow, it cannot shrink to {size}"),
            "make a smaller volume and copy the data",
        ));
    }
    let grown = write_size(server, &volume, size, &tried).await?;
    let timeout = if wait.wait { wait.timeout } else { Some(GLANCE) };
    match follow(server, &grown, Goal::Size(size), timeout).await {
        Ok(_) => say::result(&format!("volume {name} has {size}")),
        Err(CliError::TimedOut { .. }) if !wait.wait => {
            say::result(&format!("volume {name} is being grown from {before} to {size}"));
        }
        Err(error @ CliError::Failed { .. }) => {
            // What cannot be had is not asked for any longer.
            if let (Some(old), Some(current)) = (size_asked(&volume), server.volume(&name).await?) {
                write_size(server, &current, old, &tried).await?;
            }
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn write_size(
    server: &Server,
    seen: &LogicalVolume,
    size: Bytes,
    tried: &str,
) -> Result<LogicalVolume, CliError> {
    // Only on what was looked at: somebody else may be growing it too.
    let patch = json!({"metadata": {"uid": seen.uid()}, "spec": {"size": format_size(size)}});
    server.merge(&server.volume_api(), &seen.name_any(), &patch, tried).await
}

async fn delete(server: &Server, name: &str, wait: WaitArgs) -> Result<(), CliError> {
    let name = names::object_name("NAME", name)?;
    let tried = format!("deleting volume {name}");
    let volume = existing(server, &name, &VOLUMES, &tried).await?;
    server.remove(&server.volume_api(), &volume, &tried).await?;
    if wait.wait {
        follow(server, &volume, Goal::Gone, wait.timeout).await?;
        say::result(&format!("volume {name} deleted"));
    } else {
        say::result(&format!("volume {name} is being deleted"));
    }
    Ok(())
}

/// The folder with a volume's files.
pub async fn path(server: &Server, name: &str) -> Result<String, CliError> {
    let name = names::object_name("NAME", name)?;
    let tried = format!("finding the files of {name}");
    let volume = existing(server, &name, &[Kind::Volume, Kind::Restore, Kind::Snapshot], &tried).await?;
    let impossible = |happened: String, remedy: String| CliError::Impossible { tried: tried.clone(), happened, remedy };
    not_deleting(&volume, &tried)?;
    match (is_ready(&volume), published_path(&volume)) {
        (true, Some(path)) => Ok(path.to_owned()),
        (true, None) => Err(impossible(
            "it is not mounted on its node just now".to_owned(),
            format!("wait a moment; `lvault why {name}` says what is in the way"),
        )),
        (false, _) if volume.spec.online_snapshot.is_some() => Err(impossible(
            "an online snapshot is mounted only while it is copied".to_owned(),
            format!("restore it into a volume: `lvault restore NEW-NAME --from {name}`"),
        )),
        (false, _) => {
            Err(impossible("it is not ready yet".to_owned(), format!("`lvault why {name}` says what it waits for")))
        }
    }
}
