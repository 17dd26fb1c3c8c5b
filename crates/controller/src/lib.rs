//! Cluster-wide reconcilers: one finds out whether a SnapshotBackupStorage can be used, one prunes its repositories when they are
//! due, one says of objects that nobody works for why that is so, one releases what is left of nodes that are gone; and the election
//! of the replica that works.
//!
//! What holds in this crate:
//! - It talks to a Kubernetes API through [`kube::Client`] and to nothing else; storages are tried through
//!   [`StorageCheck`].
//! - Every status is written by compare-and-swap on `resourceVersion`. On a conflict it reads again and decides again.
//! - Nothing is written when nothing changed: a storage at rest costs no API write, whatever the check says.
//! - A check that gave no answer is unknown, and unknown changes no phase.
//! - One slow, stuck, malformed or broken storage does not hold up another one.
//! - No password stands in a status, an error or a log.

mod abandoned;
mod api;
mod config;
mod driver;
mod election;
mod events;
mod prune;
mod queue;
mod request;
mod storage;
mod unattended;

use std::future::Future;
use std::sync::Arc;

use kube::Client;

pub use abandoned::{ABANDONED, release_abandoned};
pub use config::{Config, InvalidConfig};
pub use election::{Election, ElectionError};
pub use prune::{Pruned, RepositoryPrune, StoragePrune};
pub use request::{CHECK_ANSWERED, CHECK_REQUESTED, check_is_answered};
pub use storage::{Decision, Finding, Known, RepositoryCheck, StorageCheck, Target, Verdict, decide};
pub use unattended::name_unattended;

/// Why the controller ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The settings contradict themselves.
    #[error("the controller cannot start")]
    Config(#[from] InvalidConfig),
    /// The API server refuses to list the storages, and would refuse again.
    #[error(
        "cannot list the SnapshotBackupStorages: the API server refuses it; check that its CRD is installed \
         (deploy/crds) and that this account may list and watch it"
    )]
    List {
        /// What the API server answered.
        source: Box<kube::Error>,
    },
    /// The stream of changes ended, which it never should.
    #[error("the watch of the SnapshotBackupStorages ended; start the controller again")]
    WatchEnded,
}

/// Keeps the status of every SnapshotBackupStorage true, and prunes those that want it, until `shutdown` completes.
///
/// A storage is checked when it appears, when its spec changes, when somebody asks for it ([`CHECK_REQUESTED`]), on an
/// interval while all is well, and more often while it is not. Any number of restarts does no harm: nothing is
/// remembered, and a crash in the middle leaves the old status or the new one.
///
/// # Errors
/// See [`ControllerError`]. An API server that is away for a while is no error: the watch goes on when it is back.
pub async fn run(client: Client, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ControllerError> {
    let pruning = prune_with(client.clone(), config.clone(), Arc::new(RepositoryPrune));
    let checking = run_with(client, config, Arc::new(RepositoryCheck::default()), shutdown);
    tokio::select! {
        biased;
        ended = checking => ended,
        () = pruning => Ok(()),
    }
}

/// Prunes the repositories of storages that want it (`spec.prune`) whenever they are due, in this way, for ever.
///
/// A prune is due by the time of the last one in the storage's status: any number of restarts begins none early. Dropping the future
/// asks prunes that are under way to end.
pub async fn prune_with(client: Client, config: Config, prune: Arc<dyn StoragePrune>) {
    let examiner = storage::Examiner::new(client.clone(), Arc::new(RepositoryCheck::default()), &config);
    prune::on_schedule(client, examiner, prune, config).await;
}

/// As [`run`], with another way to try a storage, and without pruning.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    client: Client,
    config: Config,
    check: Arc<dyn StorageCheck>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControllerError> {
    let timing = config.validated()?;
    let storages = Arc::new(storage::Storages::new(client.clone(), check, &config));
    if let Err(error) = api::first_list(&client, config.api_timeout).await {
        return Err(ControllerError::List { source: Box::new(error) });
    }
    let events = api::watch(&client, config.seed);
    let reconcile = move |key| {
        let storages = Arc::clone(&storages);
        async move { storages.reconcile(key).await }
    };
    driver::drive(events, storage::trigger, reconcile, timing, shutdown).await
}
