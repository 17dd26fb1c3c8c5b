//! Stories: what a user does, and what has to have come of it in the end.

use std::time::Duration;

use futures::future::BoxFuture;
use kube::ResourceExt;
use lvault_api::Phase;
use serde_json::json;

use crate::world::World;
use crate::world::users::{Said, reported};

/// A story.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Tells it. Ends when what the user waits for has come about.
    pub tell: for<'a> fn(&'a World) -> BoxFuture<'a, Said<()>>,
}

const TERMINAL: &[Phase] = &[Phase::Succeeded, Phase::Failed];

macro_rules! scenario {
    ($name:literal, $world:ident, $story:block) => {
        Scenario {
            name: $name,
            tell: |$world| {
                Box::pin(async move {
                    $story
                    Ok(())
                })
            },
        }
    };
}

/// Every story of the sweep.
pub fn all() -> Vec<Scenario> {
    let mut all = vec![
        scenario!("backup", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            ended(world, "snap", Phase::Succeeded).await?;
        }),
        scenario!("backup that keeps its local snapshot", world, {
            source(world).await?;
            world.create_snapshot_with("snap", "data", json!({"keepLocalSnapshot": true})).await?;
            ended(world, "snap", Phase::Succeeded).await?;
        }),
        scenario!("failed backup, then a retry", world, {
            source(world).await?;
            world.shared.with(|inner| inner.broken_attempt = 1);
            world.create_snapshot("snap", "data").await?;
            ended(world, "snap", Phase::Failed).await?;
            write(world).await?;
            world.retry("snap", 2).await?;
            world.until("snap", "at attempt 2", |object| attempt(object) == 2).await?;
            ended(world, "snap", Phase::Succeeded).await?;
        }),
        scenario!("restore", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            let snap = ended(world, "snap", Phase::Succeeded).await?;
            let (path, id) = reported(&snap).ok_or("nothing is reported")?;
            world.create_restore("back", &path, &id).await?;
            world.until_ready("back").await?;
        }),
        scenario!("restore that fails", world, {
            source(world).await?;
            world.create_restore("back", "default/data", "0123456789abcdef").await?;
            ended(world, "back", Phase::Failed).await?;
        }),
        scenario!("storage missing, then added", world, {
            world.create_volume("data").await?;
            world.until_ready("data").await?;
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", &[Phase::Pending]).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
            world.create_storage().await?;
            ended(world, "snap", Phase::Succeeded).await?;
        }),
        scenario!("storage that never comes", world, {
            world.create_volume("data").await?;
            world.until_ready("data").await?;
            world.create_snapshot("snap", "data").await?;
            ended(world, "snap", Phase::Failed).await?;
        }),
        scenario!("resize during a backup", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", &[Phase::Running]).await?;
            world.resize("data", "20Mi").await?;
            ended(world, "snap", Phase::Succeeded).await?;
            world
                .until("data", "grown", |object| {
                    let size = object.status.as_ref().and_then(|status| status.current_size.as_ref());
                    size.is_some_and(|size| size.0 == "20Mi")
                })
                .await?;
        }),
        scenario!("a clone, and its source deleted", world, {
            source(world).await?;
            world.create_clone("copy", "data").await?;
            world.until_ready("copy").await?;
            world.delete("data").await?;
            world.until_gone("data").await?;
        }),
        scenario!("two snapshots of one volume, one deleted", world, {
            source(world).await?;
            world.create_snapshot("first", "data").await?;
            world.create_snapshot("second", "data").await?;
            ended(world, "first", Phase::Succeeded).await?;
            ended(world, "second", Phase::Succeeded).await?;
            world.delete("first").await?;
            world.until_gone("first").await?;
        }),
        scenario!("the source is deleted while its snapshot is copied", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", &[Phase::Running]).await?;
            world.delete("data").await?;
            ended(world, "snap", Phase::Succeeded).await?;
            world.until_gone("data").await?;
        }),
    ];
    all.extend(deletions());
    all
}

/// A snapshot is deleted in each of its phases.
fn deletions() -> Vec<Scenario> {
    vec![
        scenario!("deleted at once", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            world.delete("snap").await?;
            world.until_gone("snap").await?;
        }),
        scenario!("deleted when Pending", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", &[Phase::Pending, Phase::Running]).await?;
            world.delete("snap").await?;
            world.until_gone("snap").await?;
        }),
        scenario!("deleted when Running", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", &[Phase::Running, Phase::Succeeded]).await?;
            world.delete("snap").await?;
            world.until_gone("snap").await?;
        }),
        scenario!("deleted when Succeeded", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", TERMINAL).await?;
            world.delete("snap").await?;
            world.until_gone("snap").await?;
        }),
        scenario!("deleted when Failed", world, {
            source(world).await?;
            world.shared.with(|inner| inner.broken_attempt = 1);
            world.create_snapshot("snap", "data").await?;
            world.until_phase("snap", TERMINAL).await?;
            world.delete("snap").await?;
            world.until_gone("snap").await?;
        }),
        scenario!("a restore deleted when Running", world, {
            source(world).await?;
            world.create_snapshot("snap", "data").await?;
            let snap = ended(world, "snap", Phase::Succeeded).await?;
            let (path, id) = reported(&snap).ok_or("nothing is reported")?;
            world.create_restore("back", &path, &id).await?;
            world.until_phase("back", &[Phase::Running, Phase::Succeeded]).await?;
            world.delete("back").await?;
            world.until_gone("back").await?;
        }),
    ]
}

/// A storage, and a volume with data.
async fn source(world: &World) -> Said<()> {
    world.create_storage().await?;
    world.create_volume("data").await?;
    world.until_ready("data").await?;
    write(world).await
}

async fn write(world: &World) -> Said<()> {
    if let Some(data) = world.get("data").await? {
        world.write_data(&data.uid().unwrap_or_default());
    }
    Ok(())
}

fn attempt(object: &lvault_api::LogicalVolume) -> i32 {
    let online = object.status.as_ref().and_then(|status| status.online_snapshot.as_ref());
    online.map_or(0, |online| online.attempt)
}

/// Waits for the end of an attempt, which has to be this one.
async fn ended(world: &World, name: &str, wanted: Phase) -> Said<lvault_api::LogicalVolume> {
    let object = world.until_phase(name, TERMINAL).await?;
    match crate::world::users::phase(&object) {
        Some(phase) if phase == wanted => Ok(object),
        other => Err(format!("{name} ended as {other:?}, and {wanted:?} was expected")),
    }
}
