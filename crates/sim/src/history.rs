//! Random histories: what users do and what breaks comes from a seed. After it, faults stop, and everything has to come to rest
//! as it was asked for. The same seed gives the same history, byte for byte.

use std::time::Duration;

use kube::ResourceExt;
use lvault_api::Phase;
use serde_json::json;

use crate::run::alone;
use crate::world::World;
use crate::world::points::{Fault, Plan};
use crate::world::random::Random;
use crate::world::users::{Said, phase, reported};
use crate::world::wire::STALE;

/// What came of a history.
#[derive(Clone, Debug)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// What was wrong; nothing, when all was well.
    pub wrong: Option<String>,
    /// Faults that were met.
    pub met: Vec<(u64, Fault)>,
    /// What happened.
    pub log: Vec<String>,
}

/// The names of volumes that users make.
const VOLUMES: [&str; 2] = ["data", "logs"];
/// The names of snapshots.
const SNAPSHOTS: [&str; 3] = ["snap-a", "snap-b", "snap-c"];
/// The names of restored and cloned volumes.
const OTHERS: [&str; 2] = ["back", "copy"];
/// How many things users do.
const OPERATIONS: u64 = 16;

/// How faults come about.
#[derive(Clone, Debug)]
pub enum Faults {
    /// By the seed.
    Seeded,
    /// These and no others: how a failure is shortened.
    Only(Vec<(u64, Fault)>),
}

/// The history of a seed.
pub fn tell(seed: u64, faults: &Faults) -> History {
    alone(async {
        let world = match World::new(seed).await {
            Ok(world) => world,
            Err(error) => return History { seed, wrong: Some(error), met: Vec::new(), log: Vec::new() },
        };
        let mut random = Random::new(seed ^ 0x5eed);
        prepare(&world, seed, &mut random, faults);
        let ended = live(&world, &mut random).await;
        world.shared.with(|inner| {
            let wrong = inner.laws.broken.first().cloned().or(ended.err());
            let (met, log) = (inner.points.met.clone(), std::mem::take(&mut inner.points.log));
            History { seed, wrong, met, log }
        })
    })
}

fn prepare(world: &World, seed: u64, random: &mut Random, faults: &Faults) {
    world.shared.with(|inner| {
        inner.jitter = Some(Random::new(seed ^ 0x71773));
        // Drawn in either case, so that what follows stays the same.
        let permille = [0, 5, 20, 60, 120][random.below(5) as usize];
        inner.points.plan = match faults {
            Faults::Seeded => Plan { chance: Some((Random::new(seed ^ 0xfa17), permille)), ..Plan::default() },
            Faults::Only(only) => Plan { at: only.iter().copied().collect(), chance: None },
        };
        for _ in 0..random.below(4) {
            let event = random.below(60);
            if let Some(stale) = random.pick(&STALE) {
                inner.events.at.insert(event, *stale);
            }
        }
    });
}

async fn live(world: &World, random: &mut Random) -> Said<()> {
    if random.permille(900) {
        world.create_storage().await?;
    }
    world.create_volume("data").await?;
    for _ in 0..OPERATIONS {
        act(world, random).await?;
        tokio::time::sleep(Duration::from_millis(random.below(12_000))).await;
    }
    // The quiet period: no faults any more, and what users owe is there.
    world.shared.with(|inner| {
        inner.points.plan = Plan::default();
        inner.events.at.clear();
        inner.storage_usable = true;
        inner.broken_attempt = 0;
        inner.points.note("faults stop");
        inner.lives.iter().for_each(|life| life.freeze(false));
    });
    tokio::time::sleep(Duration::from_secs(700)).await;
    // An attempt that waits for something that never comes takes its start deadline, and so does each retry.
    let mut outcome = Err(String::new());
    for _ in 0..6 {
        world.rest().await?;
        outcome = settled(world).await;
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(700)).await;
    }
    world.summary().await?;
    outcome
}

/// One thing that a user does. What the API refuses, users hear of, and go on.
async fn act(world: &World, random: &mut Random) -> Said<()> {
    let pick = |random: &mut Random, of: &[&'static str]| random.pick(of).copied().unwrap_or("data");
    let number = random.below(100);
    let line = |what: String| world.shared.with(|inner| inner.points.note(&format!("user: {what}")));
    match number {
        0..=34 => {
            let (name, source) = (pick(random, &SNAPSHOTS), pick(random, &VOLUMES));
            let more = json!({"keepLocalSnapshot": random.permille(300), "backoffLimit": 1 + random.below(3),
                              "deletionPolicy": if random.permille(200) { "Retain" } else { "Delete" }});
            line(format!("snapshot {name} of {source} {more}"));
            drop(world.create_snapshot_with(name, source, more).await);
        }
        35..=49 => {
            let name = pick(random, &[SNAPSHOTS.as_slice(), &VOLUMES, &OTHERS].concat());
            line(format!("deletes {name}"));
            world.delete(name).await?;
        }
        50..=59 => {
            let name = pick(random, &SNAPSHOTS);
            let attempt = 2 + random.below(3) as u32;
            line(format!("wants attempt {attempt} of {name}"));
            // Attempts never go back: the API refuses what would.
            drop(world.retry(name, attempt).await);
        }
        60..=67 => {
            let (name, size) = (pick(random, &VOLUMES), 10 + 10 * random.below(4));
            line(format!("resizes {name} to {size}Mi"));
            drop(world.resize(name, &format!("{size}Mi")).await);
        }
        68..=74 => {
            let name = pick(random, &VOLUMES);
            line(format!("creates {name}"));
            drop(world.create_volume(name).await);
        }
        75..=84 => {
            if let Some(data) = world.get(pick(random, &VOLUMES)).await? {
                world.write_data(&data.uid().unwrap_or_default());
            }
        }
        85..=90 => {
            let from = pick(random, &SNAPSHOTS);
            if let Some((path, id)) = world.get(from).await?.as_ref().and_then(reported) {
                line(format!("restores {from}"));
                drop(world.create_restore("back", &path, &id).await);
            }
        }
        91..=93 => {
            line("clones data".to_owned());
            drop(world.create_clone("copy", "data").await);
        }
        94..=96 => {
            let attempt = random.below(3) as u32;
            line(format!("copies of attempt {attempt} fail"));
            world.shared.with(|inner| inner.broken_attempt = attempt);
        }
        97 => {
            line("the storage is removed, and added again".to_owned());
            world.delete_storage().await?;
            tokio::time::sleep(Duration::from_secs(random.below(30))).await;
            world.create_storage().await?;
        }
        _ => {
            let usable = world.shared.with(|inner| {
                inner.storage_usable = !inner.storage_usable;
                inner.storage_usable
            });
            line(format!("the storage's disk is there: {usable}"));
        }
    }
    Ok(())
}

/// What every object has to be at rest.
async fn settled(world: &World) -> Said<()> {
    let objects = world.volumes().list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
    for object in &objects.items {
        let name = object.name_any();
        if object.metadata.deletion_timestamp.is_some() {
            return Err(format!("I7: the deletion of {name} never ends"));
        }
        if object.spec.online_snapshot.is_some() || object.spec.restore.is_some() {
            match phase(object) {
                Some(Phase::Succeeded | Phase::Failed) => {}
                other => return Err(format!("I7: {name} never ends: {other:?}")),
            }
        }
        if let (Some(online), Some(status)) = (&object.spec.online_snapshot, &object.status) {
            let reached = status.online_snapshot.as_ref().map_or(0, |transfer| transfer.attempt);
            if phase(object) == Some(Phase::Failed) && online.attempt > reached {
                return Err(format!("I7: the retry of {name} never begins"));
            }
        }
    }
    Ok(())
}

/// A failing history with as few faults as can be found by leaving out halves, quarters, and so on.
pub fn shortened(history: &History) -> History {
    let mut best = history.clone();
    let again = tell(history.seed, &Faults::Only(history.met.clone()));
    if again.wrong.is_none() {
        return best;
    }
    let mut faults = again.met.clone();
    best = again;
    let mut size = faults.len().div_ceil(2);
    while size > 0 && !faults.is_empty() {
        let mut at = 0;
        while at < faults.len() {
            let mut fewer = faults.clone();
            fewer.drain(at..(at + size).min(faults.len()));
            let tried = tell(history.seed, &Faults::Only(fewer.clone()));
            if tried.wrong.is_some() {
                faults = fewer;
                best = tried;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    best
}
