//! Giving space back on a schedule: the repositories of each storage that asks for it, one prune of a storage at a time.
//!
//! What holds here:
//! - When the next prune is due follows from the storage's status alone, so a restart begins none early and none twice.
//! - What a prune came to is written once, when it ended. One that failed is tried again after an hour at the soonest.
//! - A prune that hangs holds up that storage's next one, and neither the others nor the checks.
//! - Ending in the middle does no harm: see [`lvault_backup::Repository::prune`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use lvault_api::{PrunePolicy, PruneStatus, SnapshotBackupStorage};
use lvault_backup::{Progress, Prune, PruneError, Repository, Unfinished, repositories};
use serde_json::json;

use crate::Config;
use crate::api::{Answer, ask, resource};
use crate::queue::Key;
use crate::storage::{Examiner, Target};

/// A prune that came to nothing is tried again so soon, or at the policy's interval where that is shorter.
const RETRY: Duration = Duration::from_secs(3600);
/// So many of a storage's troubles are named.
const NAMED: usize = 3;
/// How often a status is written again after a conflict.
const WRITES: usize = 5;

/// What a prune of a storage came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The repositories that were found, without those of other storages in the same place.
    pub repositories: u64,
    /// Bytes in all packs, afterwards.
    pub total: u64,
    /// Bytes of it that nobody needs, afterwards.
    pub reclaimable: u64,
    /// Bytes that were given back.
    pub freed: u64,
    /// What could not be done, by repository.
    pub troubles: Vec<String>,
}

/// A way to prune the repositories of a storage.
pub trait StoragePrune: Send + Sync + 'static {
    /// Prunes all repositories of the storage. Dropping the future asks the prune to end.
    fn prune(&self, target: Target, max_unused: u8) -> BoxFuture<'static, Pruned>;
}

/// Prunes with [`Repository::prune`], on a thread of its own for each storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct RepositoryPrune;

/// Asks a prune to end when nobody waits for it any more.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Ending(Arc<AtomicBool>);

impl Progress for Ending {
    fn should_stop(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl StoragePrune for RepositoryPrune {
    fn prune(&self, target: Target, max_unused: u8) -> BoxFuture<'static, Pruned> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked(Arc::default());
        let ending = Ending(Arc::clone(&asked.0));
        let thread = std::thread::Builder::new().name("storage-prune".to_owned()).spawn(move || {
            // Nobody waits any more when the controller ends.
            let _ = answer.send(prune_all(&target, max_unused, &ending));
        });
        let failed = |what: String| Pruned { troubles: vec![what], ..Pruned::default() };
        async move {
            let _asked = asked;
            match thread {
                Err(error) => failed(format!("cannot begin a prune: {error}")),
                Ok(_) => answered.await.unwrap_or_else(|_| failed("the prune broke off; the log says more".to_owned())),
            }
        }
        .boxed()
    }
}

fn prune_all(target: &Target, max_unused: u8, progress: &dyn Progress) -> Pruned {
    let location = &target.location;
    let mut pruned = Pruned::default();
    let paths = match repositories(location) {
        Ok(paths) => paths,
        Err(error) => {
            pruned.troubles.push(error.to_string());
            return pruned;
        }
    };
    let mut anothers = None;
    for path in paths {
        match Repository::open(location, &path, &target.password) {
            Ok(repository) => {
                pruned.repositories += 1;
                if let Err(trouble) = prune_one(&repository, max_unused, progress, &mut pruned) {
                    pruned.troubles.push(format!("{path}: {trouble}"));
                }
            }
            Err(error) if lvault_storages::is_anothers(&path, &target.namespace, &error) => {
                tracing::info!(storage = %location, repository = %path, "not pruned: it has another storage's password");
                anothers.get_or_insert(format!("{path}: {error}"));
            }
            Err(error) => {
                pruned.repositories += 1;
                pruned.troubles.push(format!("{path}: {error}"));
            }
        }
        if progress.should_stop() {
            return pruned;
        }
    }
    // A password that opens nothing at all is wrong.
    pruned.troubles.extend(anothers.filter(|_| pruned.repositories == 0));
    pruned
}

fn prune_one(
    repository: &Repository,
    max_unused: u8,
    progress: &dyn Progress,
    pruned: &mut Pruned,
) -> Result<(), String> {
    let how = Prune { max_unused, ..Prune::default() };
    let report = repository.prune(&how, progress).map_err(|error: PruneError| error.to_string())?;
    pruned.total += report.after.total;
    pruned.reclaimable += report.after.reclaimable;
    pruned.freed += report.before.total.saturating_sub(report.after.total);
    match (report.unfinished, report.damaged.first()) {
        (_, Some(damage)) => Err(format!("{} packs are damaged and stay as they are: {damage}", report.damaged.len())),
        (Some(Unfinished::Full), None) => {
            Err("the storage has no room to write the rest of its packs anew: make room".to_owned())
        }
        // The next prune goes on where the time ended this one.
        (Some(Unfinished::Time) | None, None) => Ok(()),
    }
}

/// Whether a storage wants to be pruned now.
fn is_due(policy: &PrunePolicy, status: Option<&PruneStatus>, created: Option<Timestamp>, now: Timestamp) -> bool {
    let ran = status.and_then(|status| status.last_run.as_ref()).map(|time| time.0);
    let failed = status.is_some_and(|status| status.message.is_some());
    let pause = if failed { policy.interval().min(RETRY) } else { policy.interval() };
    let Some(since) = ran.or(created) else { return true };
    let waited = now.duration_since(since);
    // A time in the future is another clock's, and says nothing.
    waited.is_negative() || waited >= SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX)
}

/// Prunes storages when they are due, for ever.
pub(crate) async fn on_schedule(client: Client, examiner: Examiner, prune: Arc<dyn StoragePrune>, config: Config) {
    let storages: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let mut ticks = tokio::time::interval(config.prune_look);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is at once, when everything else starts, too.
    ticks.tick().await;
    let (mut under_way, mut prunes) = (BTreeSet::new(), FuturesUnordered::new());
    loop {
        tokio::select! {
            biased;
            Some(key) = prunes.next() => {
                under_way.remove(&key);
            }
            _ = ticks.tick() => {
                let listed = match ask(config.api_timeout, storages.list(&ListParams::default())).await {
                    Answer::Done(listed) => listed.items,
                    // It is listed again at the next tick.
                    Answer::NotFound | Answer::Conflict | Answer::Refused(_) | Answer::Unknown(_) => continue,
                };
                for (key, storage) in due(listed, (config.clock)()) {
                    if prunes.len() < config.concurrency.get() && under_way.insert(key.clone()) {
                        let prune = prune_storage(&client, &examiner, prune.as_ref(), storage, &config);
                        prunes.push(prune.map(|()| key).boxed());
                    }
                }
            }
        }
    }
}

/// The storages whose time has come. What does not parse is told by its check.
fn due(listed: Vec<DynamicObject>, now: Timestamp) -> Vec<(Key, SnapshotBackupStorage)> {
    let parsed = listed.into_iter().filter_map(|object| object.try_parse::<SnapshotBackupStorage>().ok());
    let is_meant = |storage: &SnapshotBackupStorage| {
        let status = storage.status.as_ref().and_then(|status| status.prune.as_ref());
        let created = storage.metadata.creation_timestamp.as_ref().map(|time| time.0);
        storage.metadata.deletion_timestamp.is_none()
            && storage.spec.prune.as_ref().is_some_and(|policy| is_due(policy, status, created, now))
    };
    let key = |storage: &SnapshotBackupStorage| Key {
        namespace: storage.namespace().unwrap_or_default(),
        name: storage.name_any(),
    };
    parsed.filter(is_meant).map(|storage| (key(&storage), storage)).collect()
}

async fn prune_storage(
    client: &Client,
    examiner: &Examiner,
    prune: &dyn StoragePrune,
    storage: SnapshotBackupStorage,
    config: &Config,
) {
    let max_unused = storage.spec.prune.as_ref().map_or(0, PrunePolicy::max_unused);
    let pruned = match examiner.place(&storage).await {
        Ok(target) => prune.prune(target, max_unused).await,
        Err(trouble) => Pruned { troubles: vec![trouble], ..Pruned::default() },
    };
    let shown = format!("{}/{}", storage.namespace().unwrap_or_default(), storage.name_any());
    match pruned.troubles.first() {
        None => tracing::info!(storage = shown, freed = pruned.freed, "pruned the storage"),
        Some(trouble) => {
            tracing::warn!(storage = shown, freed = pruned.freed, trouble, "the storage was not pruned whole")
        }
    }
    note(client, &storage, &status_of(&pruned, (config.clock)()), config.api_timeout).await;
}

fn status_of(pruned: &Pruned, now: Timestamp) -> PruneStatus {
    let wire = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let Pruned { repositories, total, reclaimable, freed, troubles } = pruned;
    let more = troubles.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let named = troubles.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    PruneStatus {
        last_run: Some(Time(now)),
        repositories: wire(*repositories),
        total_bytes: wire(*total),
        reclaimable_bytes: wire(*reclaimable),
        freed_bytes: wire(*freed),
        message: (!troubles.is_empty()).then(|| named + &more),
    }
}

/// Writes what came of it, by compare-and-swap. Where that fails for good, the storage is pruned again when it is due.
async fn note(client: &Client, storage: &SnapshotBackupStorage, status: &PruneStatus, limit: Duration) {
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &storage.namespace().unwrap_or_default(), &resource());
    let name = storage.name_any();
    for _ in 0..WRITES {
        let Answer::Done(object) = ask(limit, api.get(&name)).await else { continue };
        if object.uid() != storage.uid() {
            return;
        }
        let metadata = json!({"resourceVersion": object.resource_version(), "uid": object.uid()});
        // What is null is taken away, also where an earlier prune has left it.
        let mut prune = json!(status);
        prune["message"] = json!(status.message);
        let patch = json!({"metadata": metadata, "status": {"prune": prune}});
        match ask(limit, api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Answer::Done(_) | Answer::NotFound => return,
            Answer::Conflict | Answer::Unknown(_) => {}
            Answer::Refused(error) => return tracing::warn!(storage = name, %error, "cannot note a prune"),
        }
    }
    tracing::warn!(storage = name, "what a prune came to could not be noted");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_is_due_by_its_last_run_or_the_storages_age() {
        let policy = PrunePolicy { interval_hours: 24, max_unused_percent: 5 };
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
        let ago = |hours: i64| now - SignedDuration::from_hours(hours);
        let status = |hours, message: Option<&str>| PruneStatus {
            last_run: Some(Time(ago(hours))),
            message: message.map(str::to_owned),
            ..PruneStatus::default()
        };
        for (status, created, expected) in [
            (None, None, true),
            (None, Some(ago(23)), false),
            (None, Some(ago(24)), true),
            (Some(status(23, None)), Some(ago(1000)), false),
            (Some(status(24, None)), Some(ago(1000)), true),
            (Some(status(0, Some("locked"))), None, false),
            (Some(status(1, Some("locked"))), None, true),
            (Some(status(-1, None)), None, true),
        ] {
            assert_eq!(is_due(&policy, status.as_ref(), created, now), expected, "{status:?} {created:?}");
        }
    }

    #[test]
    fn troubles_are_told_and_bounded() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(status_of(&Pruned::default(), now).message, None);
        let troubles = (0..5).map(|number| format!("r{number}: locked")).collect();
        let told = status_of(&Pruned { troubles, ..Pruned::default() }, now).message;
        assert_eq!(told.as_deref(), Some("r0: locked; r1: locked; r2: locked; and 2 more"));
    }
}
