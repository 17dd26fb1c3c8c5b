//! `lvault get`: everything, one kind, or one object.

use crate::args::{Format, GetArgs};
use crate::clock::now;
use crate::error::CliError;
use crate::names;
use crate::objects::Kind;
use crate::output::{Listing, document};
use crate::say;
use crate::server::Server;

/// Runs the command.
pub async fn run(server: &Server, args: GetArgs) -> Result<(), CliError> {
    let format = args.output.format;
    let listing = match args.what.as_deref() {
        None => everything(server).await?,
        Some("volumes" | "volume" | "lv") => {
            of_volumes(server, |all| Listing { volumes: Some(Listing::volumes(all)), ..Listing::default() }).await?
        }
        Some("snapshots" | "snapshot") => {
            of_volumes(server, |all| Listing { snapshots: Some(Listing::snapshots(all)), ..Listing::default() }).await?
        }
        Some("restores" | "restore") => {
            of_volumes(server, |all| Listing { restores: Some(Listing::restores(all)), ..Listing::default() }).await?
        }
        Some("storages" | "storage") => Listing { storages: Some(server.storages().await?), ..Listing::default() },
        Some(name) => match one(server, name, format).await? {
            Shown::Document(text) => {
                say::result(&text);
                return Ok(());
            }
            Shown::Listing(listing) => *listing,
        },
    };
    say::result(&listing.render(format, now())?);
    Ok(())
}

async fn everything(server: &Server) -> Result<Listing, CliError> {
    let all = server.volumes().await?;
    Ok(Listing {
        volumes: Some(Listing::volumes(&all)),
        snapshots: Some(Listing::snapshots(&all)),
        restores: Some(Listing::restores(&all)),
        storages: Some(server.storages().await?),
    })
}

async fn of_volumes(
    server: &Server,
    pick: impl Fn(&[lvault_api::LogicalVolume]) -> Listing,
) -> Result<Listing, CliError> {
    Ok(pick(&server.volumes().await?))
}

enum Shown {
    Document(String),
    Listing(Box<Listing>),
}

async fn one(server: &Server, name: &str, format: Format) -> Result<Shown, CliError> {
    let at = names::storage_reference("NAME", name)?;
    let volume = if name.contains('/') { None } else { server.volume(name).await? };
    let storage = if volume.is_none() { server.storage(&at).await? } else { None };
    let table = matches!(format, Format::Table | Format::Wide);
    let listing = match (volume, storage) {
        (Some(volume), _) if !table => return document(&volume, format).map(Shown::Document),
        (_, Some(storage)) if !table => return document(&storage, format).map(Shown::Document),
        (Some(volume), _) => match Kind::of(&volume) {
            Kind::Volume => Listing { volumes: Some(vec![volume]), ..Listing::default() },
            Kind::Restore => Listing { restores: Some(vec![volume]), ..Listing::default() },
            Kind::Snapshot => Listing { snapshots: Some(vec![volume]), ..Listing::default() },
        },
        (None, Some(storage)) => Listing { storages: Some(vec![storage]), ..Listing::default() },
        (None, None) => {
            return Err(CliError::NotFound {
                kind: "volume, snapshot or storage",
                name: name.to_owned(),
                remedy: "look at what there is with `lvault get`".to_owned(),
            });
        }
    };
    Ok(Shown::Listing(Box::new(listing)))
}
