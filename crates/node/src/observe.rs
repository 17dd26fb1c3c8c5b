//! Looking at one LogicalVolume and at what really exists for it.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::{Api, ResourceExt};
use lvault_api::task::lease_name;
use lvault_api::{
    AccessType, DeletionPolicy, InvalidSpec, LogicalVolume, MalformedStatus, Phase, SnapshotBackupStorage,
    StorageReference, TransferStatus, Validated, Wanted, conditions, keys, parse_size, validate,
};
use lvault_core::{
    Attempt, Bytes, Executor, Intent, Lease, Life, Local, Observed, Online, Record, Repository, Seen, Source, State,
    Storage, Trouble, Volume, VolumeId, Wait,
};
use lvault_engines::Problem;
use tracing::debug;

use crate::agent::Agent;
use crate::launcher::LaunchError;
use crate::perform::INVALID_ARGUMENT;
use crate::troubles::{Circumstance, Standing};

/// How long the API may take for one answer. After that what was asked is unknown.
const ANSWER: Duration = Duration::from_secs(20);

/// One look at one object.
pub(crate) struct View {
    /// The object, as it was read.
    pub(crate) object: LogicalVolume,
    /// Its uid, as the name of everything that is its own.
    pub(crate) id: VolumeId,
    /// Its spec, or what is wrong with it.
    pub(crate) spec: Result<Validated, InvalidSpec>,
    /// What was seen.
    pub(crate) observed: Observed,
    /// The folder the volume is mounted at.
    pub(crate) mounted: Option<PathBuf>,
    /// What is wrong with the storage beneath it; nothing where that could not be seen.
    pub(crate) problems: Option<Vec<Problem>>,
    /// What a failure now would be about.
    pub(crate) circumstance: Circumstance,
    /// The trouble that stands.
    pub(crate) trouble: Option<Standing>,
    /// Why its executor could not be seen.
    pub(crate) unseen: Option<String>,
    /// Whether it could not be seen because nobody here may.
    pub(crate) refused: bool,
    /// What its storage says of itself, where that is not ready.
    pub(crate) storage_says: Option<String>,
}

/// Why an object cannot be decided on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    /// It has no usable uid.
    #[error("the object's uid cannot name a volume: {0}")]
    Uid(#[from] lvault_core::InvalidId),
    /// Its status was written by somebody else.
    #[error(transparent)]
    Status(#[from] MalformedStatus),
}

impl View {
    /// The status of the object's online operation.
    pub(crate) fn transfer(&self) -> Option<&TransferStatus> {
        let status = self.object.status.as_ref()?;
        match &self.observed.intent {
            Intent::OnlineSnapshot(..) => status.online_snapshot.as_ref(),
            Intent::Restore(..) => status.restore.as_ref(),
            Intent::Volume(_) | Intent::LocalSnapshot(..) => None,
        }
    }

    /// The record that the decision was made from.
    pub(crate) fn record(&self) -> Option<&Record> {
        match &self.observed.intent {
            Intent::OnlineSnapshot(online, _) | Intent::Restore(online, _) => online.record.as_ref(),
            Intent::Volume(_) | Intent::LocalSnapshot(..) => None,
        }
    }

    /// Whether the attempt has waited for longer than it may.
    pub(crate) fn is_overdue(&self) -> bool {
        match &self.observed.intent {
            Intent::OnlineSnapshot(online, _) | Intent::Restore(online, _) => online.overdue,
            Intent::Volume(_) | Intent::LocalSnapshot(..) => false,
        }
    }

    /// Why an attempt that waits to begin is given up although nobody may look for its executor, if it is.
    pub(crate) fn given_up(&self, wait: Wait) -> Option<String> {
        let is_pending = self.record().is_some_and(|record| record.state == State::Pending);
        let is_late = is_pending && self.is_overdue() && !self.observed.deleting;
        let unseen = self.unseen.as_ref().filter(|_| is_late && self.refused && wait == Wait::ExecutorUnknown)?;
        Some(format!("{unseen} (tried until the attempt's start deadline)"))
    }

    /// The storage that the object names.
    pub(crate) fn storage(&self) -> Option<&StorageReference> {
        storage_of(&self.object)
    }
}

/// The storage that an object names.
pub(crate) fn storage_of(object: &LogicalVolume) -> Option<&StorageReference> {
    let online = object.spec.online_snapshot.as_ref().map(|online| &online.storage);
    online.or(object.spec.restore.as_ref().map(|restore| &restore.storage))
}

/// What the API answered, with a timeout as one more way of not knowing.
pub(crate) async fn answered<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// A read by name: what is not there is `Absent`, what could not be read is `Unknown`.
async fn seen<T>(read: impl Future<Output = Result<Option<T>, kube::Error>>) -> Seen<T> {
    match answered(read).await {
        Ok(found) => Seen::known(found),
        Err(problem) => {
            debug!("a read failed: {problem}");
            Seen::Unknown
        }
    }
}

impl Agent {
    /// Looks at everything that a decision about this object needs.
    pub(crate) async fn observe(&self, object: LogicalVolume) -> Result<View, ObserveError> {
        let id = VolumeId::parse(object.uid().as_deref().unwrap_or_default())?;
        let spec = validate(&object);
        let deleting = object.metadata.deletion_timestamp.is_some();
        let (volume, mounted, problems) = self.observe_volume(&id).await;
        if let Some(storage) = storage_of(&object) {
            self.launcher.locate(&id, &storage.namespace);
        }
        let (executor, problem) = self.observe_executor(&id).await;
        let (unseen, refused) = (problem.as_ref().map(ToString::to_string), problem.is_some_and(|it| it.is_refusal()));
        let lease = self.observe_lease(&id, executor, &self.lease_namespace(&object)).await;
        let mount = match (&volume, &mounted) {
            (Seen::Unknown, _) => Seen::Unknown,
            (Seen::Absent | Seen::Present(_), mounted) => Seen::known(mounted.as_ref().map(|_| ())),
        };
        let mut intent = self.intent(&object, &spec, deleting)?;
        let storage_says = self.complete(&object, &id, &mut intent, (&volume, executor), deleting).await;
        let circumstance = circumstance(&object, &intent);
        let standing = match &spec {
            Err(invalid) => {
                let message = invalid.to_string();
                Some(Standing { trouble: Trouble::Invalid, code: INVALID_ARGUMENT, message })
            }
            Ok(_) => self.troubles.current(&id, &circumstance),
        };
        let trouble = standing.as_ref().map(|standing| standing.trouble);
        let finalizer = object.finalizers().iter().any(|name| name == keys::FINALIZER);
        let observed = Observed { intent, deleting, finalizer, volume, mount, executor, lease, trouble };
        Ok(View {
            object,
            id,
            spec,
            observed,
            mounted,
            problems,
            circumstance,
            trouble: standing,
            unseen,
            refused,
            storage_says,
        })
    }

    async fn observe_volume(&self, id: &VolumeId) -> (Seen<Volume>, Option<PathBuf>, Option<Vec<Problem>>) {
        let wanted = id.clone();
        match self.engine_call(move |engine| engine.observe(&wanted)).await {
            Ok(Some(info)) => (Seen::Present(Volume { size: info.size }), info.attached, Some(info.problems)),
            Ok(None) => (Seen::Absent, None, Some(Vec::new())),
            Err(problem) => {
                debug!("volume {id} cannot be observed: {problem}");
                (Seen::Unknown, None, None)
            }
        }
    }

    async fn observe_executor(&self, id: &VolumeId) -> (Seen<Executor>, Option<LaunchError>) {
        let wanted = id.clone();
        match self.launcher_call(move |launcher| launcher.observe(&wanted)).await {
            Ok(executor) => (Seen::known(executor), None),
            Err(problem) => {
                debug!("the executor of {id} cannot be observed: {problem}");
                (Seen::Unknown, Some(problem))
            }
        }
    }

    /// Where the leases of an object's executors are.
    pub(crate) fn lease_namespace(&self, object: &LogicalVolume) -> String {
        match storage_of(object) {
            Some(storage) if self.config.namespace.is_empty() => storage.namespace.clone(),
            Some(_) | None => self.config.namespace.clone(),
        }
    }

    async fn observe_lease(&self, id: &VolumeId, executor: Seen<Executor>, namespace: &str) -> Seen<Lease> {
        let Seen::Present(Executor { job, life: Life::Alive }) = executor else {
            self.leases.forget(id);
            return Seen::Absent;
        };
        let api: Api<LeaseObject> = Api::namespaced(self.client.clone(), namespace);
        let read = match seen(api.get_opt(&lease_name(id.as_str(), job))).await {
            Seen::Unknown => Err(()),
            Seen::Absent if self.is_starting(id).await => {
                self.leases.forget(id);
                return Seen::Absent;
            }
            Seen::Absent => Ok(None),
            Seen::Present(lease) => Ok(Some(lease.resource_version().unwrap_or_default())),
        };
        self.leases.note(id, job, read, self.config.lease_duration)
    }

    /// Whether there can be no lease yet. Where that cannot be found out, there should be one.
    async fn is_starting(&self, id: &VolumeId) -> bool {
        let wanted = id.clone();
        self.launcher_call(move |launcher| launcher.is_starting(&wanted)).await.unwrap_or(false)
    }

    /// What the object is for, with what its own text says. What has to be looked up is `Unknown` yet.
    fn intent(
        &self,
        object: &LogicalVolume,
        spec: &Result<Validated, InvalidSpec>,
        deleting: bool,
    ) -> Result<Intent, ObserveError> {
        let status = object.status.clone().unwrap_or_default();
        let published = status.volume_id.as_ref().map(|_| {
            let size = status.current_size.as_ref().and_then(|size| parse_size(&size.0).ok());
            size.unwrap_or_default()
        });
        let size = spec.as_ref().map_or(Bytes(0), |spec| spec.size);
        let local = Local { size, published, serve: self.config.serve };
        // A spec that makes no sense still says enough to tear down what stands.
        let wanted = match spec {
            Ok(spec) => spec.wanted.clone(),
            Err(_) => self.presumed(object),
        };
        Ok(match wanted {
            Wanted::Volume => Intent::Volume(local),
            Wanted::LocalSnapshot { access: AccessType::Ro, .. } => {
                Intent::LocalSnapshot(Local { size: Bytes(0), ..local }, Seen::Unknown)
            }
            Wanted::LocalSnapshot { access: AccessType::Rw, .. } => Intent::LocalSnapshot(local, Seen::Unknown),
            Wanted::OnlineSnapshot { online, attempt, .. } => {
                let record = record(status.online_snapshot.as_ref(), deleting)?;
                let removed = conditions::holds(&status.conditions, conditions::REPOSITORY_SNAPSHOT_REMOVED);
                let retained = online.deletion_policy == DeletionPolicy::Retain;
                let repository = if retained || removed || !may_have_committed(status.online_snapshot.as_ref()) {
                    Repository::Nothing
                } else {
                    Repository::Holds
                };
                let backoff_limit = u32::try_from(online.backoff_limit).unwrap_or(1);
                let overdue = self.is_overdue(status.online_snapshot.as_ref());
                let keep_local = online.keep_local_snapshot;
                let storage = Seen::Unknown;
                let online = Online { attempt, backoff_limit, keep_local, record, overdue, storage, repository };
                Intent::OnlineSnapshot(online, Seen::Unknown)
            }
            Wanted::Restore { restore, attempt } => {
                let record = record(status.restore.as_ref(), deleting)?;
                let online = Online {
                    attempt,
                    backoff_limit: u32::try_from(restore.backoff_limit).unwrap_or(1),
                    keep_local: true,
                    record,
                    overdue: self.is_overdue(status.restore.as_ref()),
                    storage: Seen::Unknown,
                    repository: Repository::Nothing,
                };
                Intent::Restore(online, local)
            }
        })
    }

    /// What an object with a wrong spec was meant to be, as far as its fields tell.
    fn presumed(&self, object: &LogicalVolume) -> Wanted {
        let attempt = |number: i32| u32::try_from(number).ok().and_then(Attempt::new).unwrap_or(Attempt::FIRST);
        let spec = &object.spec;
        match (&spec.online_snapshot, &spec.restore) {
            (Some(online), _) => Wanted::OnlineSnapshot {
                source: spec.source.clone().unwrap_or_default(),
                online: online.clone(),
                attempt: attempt(online.attempt),
            },
            (None, Some(restore)) => Wanted::Restore { restore: restore.clone(), attempt: attempt(restore.attempt) },
            (None, None) => Wanted::Volume,
        }
    }

    /// Looks up what stands elsewhere, where the decision may need it. Answers with what the storage says of itself.
    async fn complete(
        &self,
        object: &LogicalVolume,
        id: &VolumeId,
        intent: &mut Intent,
        seen: (&Seen<Volume>, Seen<Executor>),
        deleting: bool,
    ) -> Option<String> {
        let (volume, executor) = seen;
        let mut says = None;
        match intent {
            Intent::Volume(_) => {}
            Intent::LocalSnapshot(_, source) => {
                if *volume == Seen::Absent && !deleting {
                    *source = self.observe_source(object).await;
                }
            }
            Intent::OnlineSnapshot(online, source) => {
                if *volume == Seen::Absent && !deleting {
                    *source = self.observe_source(object).await;
                }
                if executor == Seen::Absent {
                    (online.storage, says) = self.observe_storage(object).await;
                }
                if online.repository == Repository::Holds && self.troubles.forget_waits(id).is_some() {
                    online.repository = Repository::HoldsTryLater;
                }
            }
            Intent::Restore(online, _) => {
                if executor == Seen::Absent && !deleting {
                    (online.storage, says) = self.observe_storage(object).await;
                }
            }
        }
        says
    }

    async fn observe_storage(&self, object: &LogicalVolume) -> (Seen<Storage>, Option<String>) {
        let Some(reference) = storage_of(object) else { return (Seen::Absent, None) };
        let api: Api<SnapshotBackupStorage> = Api::namespaced(self.client.clone(), &reference.namespace);
        match seen(api.get_opt(&reference.name)).await {
            Seen::Unknown => (Seen::Unknown, None),
            Seen::Absent => (Seen::Absent, None),
            Seen::Present(storage) if storage.is_ready() => (Seen::Present(Storage::Ready), None),
            Seen::Present(storage) => {
                (Seen::Present(Storage::NotReady), storage.status.and_then(|status| status.message))
            }
        }
    }

    async fn observe_source(&self, object: &LogicalVolume) -> Seen<Source> {
        let Some(name) = &object.spec.source else { return Seen::Absent };
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        let source = match seen(api.get_opt(name)).await {
            Seen::Unknown => return Seen::Unknown,
            Seen::Absent => return Seen::Absent,
            Seen::Present(source) => source,
        };
        let never = source.spec.node_name != self.config.node_name || source.metadata.deletion_timestamp.is_some();
        let Ok(id) = VolumeId::parse(source.uid().as_deref().unwrap_or_default()) else {
            return Seen::Present(Source::Never);
        };
        if never {
            return Seen::Present(Source::Never);
        }
        let status = source.status.clone().unwrap_or_default();
        match (&source.spec.online_snapshot, status.volume_id.is_some()) {
            (None, true) => Seen::Present(Source::Ready),
            (None, false) => {
                let failed = status.restore.as_ref().is_some_and(|restore| restore.phase == Phase::Failed);
                Seen::Present(if failed { Source::Never } else { Source::NotYet })
            }
            (Some(_), _) => self.observe_snapshot_source(&id, status.online_snapshot.as_ref()).await,
        }
    }

    /// An online snapshot can be a source when it has ended and kept its local volume.
    async fn observe_snapshot_source(&self, id: &VolumeId, transfer: Option<&TransferStatus>) -> Seen<Source> {
        let ended = transfer.is_some_and(|transfer| match transfer.phase {
            Phase::Pending | Phase::Running => false,
            Phase::Succeeded | Phase::Failed => true,
        });
        if !ended {
            return Seen::Present(Source::NotYet);
        }
        match self.observe_volume(id).await.0 {
            Seen::Unknown => Seen::Unknown,
            Seen::Absent => Seen::Present(Source::Never),
            Seen::Present(_) => Seen::Present(Source::Ready),
        }
    }

    fn is_overdue(&self, transfer: Option<&TransferStatus>) -> bool {
        let Some(start) = transfer.and_then(|transfer| transfer.start_time.as_ref()) else { return false };
        let waited = (self.config.now)().duration_since(start.0);
        u64::try_from(waited.as_secs()).is_ok_and(|waited| waited >= self.config.start_deadline.as_secs())
    }
}

/// What the status says of an online operation. Teardown needs no record that makes sense.
fn record(transfer: Option<&TransferStatus>, deleting: bool) -> Result<Option<Record>, MalformedStatus> {
    match transfer.map(TransferStatus::record).transpose() {
        Ok(record) => Ok(record),
        Err(_) if deleting => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an executor may ever have committed for this object. A first attempt that nobody claimed has not.
fn may_have_committed(transfer: Option<&TransferStatus>) -> bool {
    let Some(transfer) = transfer else { return false };
    transfer.attempt > 1 || transfer.executor.as_ref().is_some_and(|executor| executor.name.is_some())
}

fn circumstance(object: &LogicalVolume, intent: &Intent) -> Circumstance {
    let record = match intent {
        Intent::OnlineSnapshot(online, _) | Intent::Restore(online, _) => online.record.as_ref(),
        Intent::Volume(_) | Intent::LocalSnapshot(..) => None,
    };
    let open = record.filter(|record| match record.state {
        State::Pending | State::Running(_) => true,
        State::Succeeded | State::Failed => false,
    });
    Circumstance {
        generation: object.metadata.generation,
        attempt: open.map(|record| record.attempt),
        lost: open.map_or(0, |record| record.lost),
    }
}
