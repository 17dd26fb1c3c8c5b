//! Doing the one thing that was decided on. Everything here may be repeated: what is done already is found done.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use lvault_api::task::{Credentials, LeaseTerms, MountedFolder, Secret, Task, Work, lease_name};
use lvault_api::{
    AccessType, Filesystem, LogicalVolume, OnReadError, SnapshotBackupStorage, Wanted, keys, repository_path,
};
use lvault_core::{Effect, Job, Trouble, VolumeId, Wait};
use lvault_engines::{Access, EngineError, NewSnapshot, NewVolume, Placement, Retry, VolumeEngine};
use tracing::warn;

use crate::agent::{After, Agent};
use crate::launcher::{Change, LaunchError};
use crate::observe::{View, answered};
use crate::troubles::Standing;

/// Why an effect did not work.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Repeating it does not help.
    Finally(Trouble, i32, String),
    /// It may work later, or nobody knows whether it worked.
    ForNow(Option<Trouble>, String),
    /// Somebody else has written meanwhile: read again, decide again.
    Conflict,
}

/// gRPC codes, as they stand in `status.code`.
pub(crate) const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
/// What was asked for cannot be had as things stand; repeating it does not help.
pub(crate) const FAILED_PRECONDITION: i32 = 9;
/// It did not work, and is tried again.
const INTERNAL: i32 = 13;

/// More than this often in a row, one effect is not done, whatever is reported.
const DONE_IN_A_ROW: u32 = 2;

impl Agent {
    /// Does what was decided on.
    pub(crate) async fn perform(&self, view: &View, effect: Effect) -> After {
        match self.attempt(view, effect).await.and_then(|after| self.believed(view, effect, after)) {
            Ok(after) => {
                self.troubles.worked(&view.id);
                after
            }
            Err(Failed::Conflict) => After::Now,
            // A teardown has no other way to end than to work, so nothing in it fails for good.
            Err(Failed::Finally(trouble, code, message)) if !view.observed.deleting => {
                self.note_trouble(view, trouble, code, message).await
            }
            Err(Failed::ForNow(Some(trouble), message)) if view.is_overdue() && !view.observed.deleting => {
                let message = format!("{message} (tried until the attempt's start deadline)");
                self.note_trouble(view, trouble, INTERNAL, message).await
            }
            Err(Failed::ForNow(_, message) | Failed::Finally(_, _, message)) => {
                let pause = self.troubles.pause(&view.id);
                warn!("{}: {effect:?}: {message}", view.object.name_any());
                // What the status says is a courtesy; the next pass tries to say it again.
                let _ = self.write_problem(view, INTERNAL, &message).await;
                After::Pause(pause)
            }
        }
    }

    /// An effect that was reported as done, and that is asked for again and again, is not done: whoever reported it is mistaken, and
    /// trying at once without end would only be busy.
    fn believed(&self, view: &View, effect: Effect, after: After) -> Result<After, Failed> {
        if after != After::Now || self.troubles.done(&view.id, effect) <= DONE_IN_A_ROW {
            return Ok(after);
        }
        let message = format!("{effect:?} was reported as done {DONE_IN_A_ROW} times, and is not seen to be so");
        let trouble = match effect {
            Effect::CreateVolume => Some(Trouble::Create),
            Effect::CutSnapshot => Some(Trouble::Cut),
            Effect::GrowVolume => Some(Trouble::Grow),
            Effect::Mount => Some(Trouble::Mount),
            Effect::Launch(_) => Some(Trouble::Launch),
            Effect::AddFinalizer
            | Effect::Begin(_)
            | Effect::Publish
            | Effect::EndExecutor
            | Effect::RecordLoss(_)
            | Effect::Fail(_)
            | Effect::Unmount
            | Effect::RemoveVolume
            | Effect::CleanExecutor
            | Effect::DropFinalizer => None,
        };
        Err(Failed::ForNow(trouble, message))
    }

    pub(crate) async fn note_trouble(&self, view: &View, trouble: Trouble, code: i32, message: String) -> After {
        warn!("{}: {}: {message}", view.object.name_any(), trouble.code());
        self.troubles.set(&view.id, view.circumstance.clone(), Standing { trouble, code, message: message.clone() });
        let _ = self.write_problem(view, code, &message).await;
        After::Now
    }

    async fn attempt(&self, view: &View, effect: Effect) -> Result<After, Failed> {
        let id = view.id.clone();
        match effect {
            Effect::AddFinalizer => self.write_finalizers(view, true).await?,
            Effect::DropFinalizer => {
                if self.adopt_for_removal(view).await? {
                    return Ok(After::Now);
                }
                self.write_finalizers(view, false).await?;
                self.troubles.forget(&id);
                self.events.forget(&id);
                self.launcher.forget(&id);
                return Ok(After::Gone(id));
            }
            Effect::Begin(attempt) => self.write_begin(view, attempt).await?,
            Effect::Publish => self.write_published(view).await?,
            Effect::RecordLoss(launch) => {
                let words = self.last_words(&id).await;
                self.write_loss(view, launch, words).await?;
            }
            Effect::Fail(failure) => self.write_failure(view, failure).await?,
            Effect::CreateVolume => {
                let size = view.spec.as_ref().map(|spec| spec.size).unwrap_or_default();
                let filesystem = engine_filesystem(view);
                let placement = placement(view);
                let new = NewVolume { id, size, filesystem, placement };
                self.engine_effect(Trouble::Create, move |engine| engine.ensure_volume(&new)).await?;
            }
            Effect::CutSnapshot => {
                let (source, access) = self.source(view).await?;
                let new = NewSnapshot { id, source, access };
                self.engine_effect(Trouble::Cut, move |engine| engine.ensure_snapshot(&new)).await?;
            }
            Effect::GrowVolume => {
                let size = view.spec.as_ref().map(|spec| spec.size).unwrap_or_default();
                self.engine_effect(Trouble::Grow, move |engine| engine.ensure_size(&id, size)).await?;
            }
            Effect::Mount => {
                self.engine_effect(Trouble::Mount, move |engine| engine.ensure_attached(&id)).await?;
            }
            Effect::Unmount => {
                self.engine_removal(move |engine| engine.ensure_detached(&id)).await?;
            }
            Effect::RemoveVolume => {
                self.engine_removal(move |engine| engine.ensure_absent(&id)).await?;
            }
            Effect::Launch(job) => return self.launch(view, job).await,
            Effect::EndExecutor => {
                let ended = self.launcher_call(move |launcher| launcher.ensure_ended(&id)).await;
                return match ended {
                    // Its lock is free a moment after it was killed.
                    Ok(Change::Changed) => Ok(After::Pause(Duration::from_millis(100))),
                    Ok(Change::Unchanged) => Ok(After::Pause(Duration::from_secs(1))),
                    Err(error) => Err(Failed::ForNow(None, error.to_string())),
                };
            }
            Effect::CleanExecutor => self.clean_executor(view).await?,
        }
        Ok(After::Now)
    }

    /// Nothing is to be done. A problem that stood in the status is over.
    pub(crate) async fn settle(&self, view: &View) -> After {
        self.troubles.settled(&view.id);
        match self.write_settled(view).await {
            Ok(()) => After::Idle,
            Err(_) => After::Pause(Duration::from_secs(1)),
        }
    }

    /// Nothing can be done now. What the user can do about it stands in the status.
    pub(crate) async fn wait(&self, view: &View, wait: Wait) -> After {
        let poll = (self.config.lease_duration / 6).clamp(Duration::from_millis(100), Duration::from_secs(5));
        match wait {
            Wait::Claim | Wait::Copy => {
                // The executor asks for it before it commits, and when it cannot read.
                let _ = self.write_health(view).await;
                After::Pause(poll)
            }
            Wait::ExecutorExit | Wait::Forget => After::Pause(poll),
            Wait::ExecutorUnknown => {
                if let Some(problem) = &view.unseen {
                    let _ = self.write_problem(view, INTERNAL, problem).await;
                }
                After::Pause(self.troubles.pause(&view.id))
            }
            Wait::VolumeUnknown
            | Wait::MountUnknown
            | Wait::LeaseUnknown
            | Wait::SourceUnknown
            | Wait::StorageUnknown => After::Pause(self.troubles.pause(&view.id)),
            Wait::SourceNotReady | Wait::SourceGone | Wait::StorageMissing | Wait::StorageNotReady => {
                let problem = self.explain(view, wait);
                let _ = self.write_problem(view, INTERNAL, &problem).await;
                After::Pause(Duration::from_secs(5).min(self.config.start_deadline))
            }
            Wait::ForgetRetry => After::Pause(self.troubles.forget_waits(&view.id).unwrap_or(poll)),
            Wait::VolumeLost => match self.adopt(view).await {
                Ok(true) => After::Now,
                Ok(false) => {
                    let _ = self.write_problem(view, INTERNAL, &self.explain(view, wait)).await;
                    After::Idle
                }
                Err(error) => {
                    let _ = self.write_problem(view, FAILED_PRECONDITION, &in_full(&error)).await;
                    After::Pause(self.troubles.pause(&view.id))
                }
            },
            Wait::Trouble(_) => {
                if let Some(Standing { code, message, .. }) = &view.trouble {
                    let _ = self.write_problem(view, *code, message).await;
                }
                After::Pause(Duration::from_secs(300))
            }
        }
    }

    /// A reason to wait, with the names that it is about and what to do.
    fn explain(&self, view: &View, wait: Wait) -> String {
        let storage = view.storage().map(ToString::to_string).unwrap_or_default();
        let source = view.object.spec.source.clone().unwrap_or_default();
        match wait {
            Wait::StorageMissing => {
                format!("the storage {storage} does not exist: create it, or name another in a new snapshot")
            }
            Wait::StorageNotReady => {
                let why = view.storage_says.as_deref().unwrap_or("it was not checked yet; is the controller running?");
                format!("the storage {storage} is not ready: {why}")
            }
            Wait::SourceNotReady => format!("the source volume {source} is not ready yet"),
            Wait::SourceGone => {
                format!("the source volume {source} does not exist on this node, or has no local data")
            }
            Wait::VolumeLost => {
                "the volume was published and is gone from its node; no empty one is put in its place. Restore it from a \
                 snapshot, or delete this object"
                    .to_owned()
            }
            Wait::VolumeUnknown
            | Wait::MountUnknown
            | Wait::ExecutorUnknown
            | Wait::LeaseUnknown
            | Wait::SourceUnknown
            | Wait::StorageUnknown
            | Wait::Claim
            | Wait::Copy
            | Wait::ExecutorExit
            | Wait::Forget
            | Wait::ForgetRetry
            | Wait::Trouble(_) => wait.to_string(),
        }
    }

    async fn engine_effect<T: Send + 'static>(
        &self,
        trouble: Trouble,
        call: impl FnOnce(&dyn VolumeEngine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<(), Failed> {
        self.engine_call(call).await.map(drop).map_err(|error| {
            let message = in_full(&error);
            let code = if error.lacks_room() { RESOURCE_EXHAUSTED } else { FAILED_PRECONDITION };
            match error.retry() {
                Retry::Never => Failed::Finally(trouble, code, message),
                Retry::Later => Failed::ForNow(Some(trouble), message),
                // A time-out says nothing about what happened: it is looked at again, and never becomes a failure.
                Retry::Unknown => Failed::ForNow(None, message),
            }
        })
    }

    /// Taking something away is tried until it works: nothing else may happen before.
    async fn engine_removal<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn VolumeEngine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<(), Failed> {
        self.engine_call(call).await.map(drop).map_err(|error| Failed::ForNow(None, in_full(&error)))
    }

    async fn source(&self, view: &View) -> Result<(VolumeId, Access), Failed> {
        let (name, access) = match view.spec.as_ref().map(|spec| &spec.wanted) {
            Ok(Wanted::LocalSnapshot { source, access: AccessType::Rw }) => (source, Access::ReadWrite),
            Ok(Wanted::LocalSnapshot { source, access: AccessType::Ro } | Wanted::OnlineSnapshot { source, .. }) => {
                (source, Access::ReadOnly)
            }
            Ok(Wanted::Volume | Wanted::Restore { .. }) | Err(_) => return Err(Failed::Conflict),
        };
        let source = self.source_object(name).await?.ok_or(Failed::Conflict)?;
        let id = VolumeId::parse(source.uid().as_deref().unwrap_or_default()).map_err(|_| Failed::Conflict)?;
        Ok((id, access))
    }

    pub(crate) async fn source_object(&self, name: &str) -> Result<Option<LogicalVolume>, Failed> {
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        let read = answered(api.get_opt(name)).await;
        read.map_err(|e| Failed::ForNow(None, format!("cannot read the source volume {name}: {e}")))
    }

    async fn last_words(&self, id: &VolumeId) -> Option<String> {
        let id = id.clone();
        self.launcher_call(move |launcher| Ok(launcher.last_words(&id))).await.ok().flatten()
    }

    /// Removes the lease before the folder: a crash in between leaves the folder, which leads back here.
    async fn clean_executor(&self, view: &View) -> Result<(), Failed> {
        let Some(executor) = view.observed.executor.present() else { return Ok(()) };
        let namespace = self.lease_namespace(&view.object);
        let api: Api<LeaseObject> = Api::namespaced(self.client.clone(), &namespace);
        let name = lease_name(view.id.as_str(), executor.job);
        let deleted = answered(async {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop),
            }
        });
        deleted.await.map_err(|e| Failed::ForNow(None, format!("cannot remove the lease {name}: {e}")))?;
        self.leases.forget(&view.id);
        let id = view.id.clone();
        let removed = self.launcher_call(move |launcher| launcher.ensure_removed(&id)).await;
        removed.map(drop).map_err(|error| Failed::ForNow(None, error.to_string()))
    }

    async fn launch(&self, view: &View, job: Job) -> Result<After, Failed> {
        let task = self.task(view, job).await?;
        if job == Job::Forget {
            self.troubles.forget_launched(&view.id);
        }
        let id = view.id.clone();
        match self.launcher_call(move |launcher| launcher.ensure_launched(&id, job, &task)).await {
            Ok(_) => Ok(After::Now),
            Err(error @ LaunchError::Impossible(_)) => {
                Err(Failed::Finally(Trouble::Launch, INTERNAL, error.to_string()))
            }
            Err(error @ (LaunchError::Occupied(_) | LaunchError::Io { .. })) => {
                Err(Failed::ForNow(Some(Trouble::Launch), error.to_string()))
            }
        }
    }

    /// Everything an executor has to know.
    async fn task(&self, view: &View, job: Job) -> Result<Task, Failed> {
        let later = |message: String| Failed::ForNow(Some(Trouble::Launch), message);
        let reference = view.storage().cloned().ok_or(Failed::Conflict)?;
        let api: Api<SnapshotBackupStorage> = Api::namespaced(self.client.clone(), &reference.namespace);
        let read = answered(api.get_opt(&reference.name)).await;
        let storage = read.map_err(|e| later(format!("cannot read the storage {reference}: {e}")))?;
        let storage = storage.ok_or_else(|| later(format!("the storage {reference} does not exist")))?;
        let (password, credentials) = match self.launcher.mounts_secrets() {
            true => (Secret(String::new()), Credentials::new()),
            false => self.secrets(&storage, &reference.namespace).await?,
        };
        let name = view.object.name_any();
        let (operation, suffix) = match (job, view.observed.intent_is_restore()) {
            (Job::Copy { attempt, launch }, restore) => {
                (if restore { "restore" } else { "backup" }, format!("{attempt}-{launch}"))
            }
            (Job::Forget, _) => ("delete", "1".to_owned()),
        };
        Ok(Task {
            name: format!("{operation}-{name}-{suffix}"),
            volume: name,
            uid: view.id.as_str().to_owned(),
            work: self.work(view, job)?,
            path: self.path(view).await?,
            storage: reference,
            storage_spec: storage.spec,
            password,
            credentials,
            api: self.config.api.clone(),
            lease: LeaseTerms {
                namespace: self.lease_namespace(&view.object),
                name: lease_name(view.id.as_str(), job),
                duration_seconds: self.config.lease_duration.as_secs().max(1),
            },
            progress_seconds: self.config.progress_interval.as_secs().max(1),
            // A pod's password comes from its Secret, and nothing of it stays on the node.
            key_cache: (!self.launcher.mounts_secrets()).then(|| self.config.state_dir.join("keys")),
        })
    }

    fn work(&self, view: &View, job: Job) -> Result<Work, Failed> {
        let Job::Copy { attempt, launch } = job else { return Ok(Work::Forget) };
        let (attempt, launch) = (attempt.get(), launch.get());
        let device = match &view.mounted {
            None => None,
            Some(path) => {
                let metadata = std::fs::metadata(path).map_err(|e| {
                    Failed::ForNow(Some(Trouble::Mount), format!("cannot look at {}: {e}", path.display()))
                })?;
                Some(metadata.dev())
            }
        };
        let folder = MountedFolder { path: view.mounted.clone(), device };
        match view.spec.as_ref().map(|spec| (&spec.wanted, spec.size)) {
            Ok((Wanted::Restore { restore, .. }, size)) => {
                let snapshot = restore.snapshot_id.clone();
                Ok(Work::Restore { attempt, launch, folder, snapshot, size: size.0 })
            }
            Ok((Wanted::OnlineSnapshot { source, .. }, _)) => {
                // Host and path are labels, the same for every node and run, so that the parent is always found.
                let (host, as_path) = ("lvault".to_owned(), format!("/{source}"));
                let copies = !self.engine.capabilities().atomic_snapshots;
                let policy = view.object.spec.online_snapshot.as_ref().map(|online| online.on_read_error);
                let skip_unreadable = policy.unwrap_or_default() == OnReadError::Skip;
                let asked_at = view.object.creation_timestamp().map(|time| time.0);
                Ok(Work::Backup { attempt, launch, folder, host, as_path, copies, skip_unreadable, asked_at })
            }
            Ok((Wanted::Volume | Wanted::LocalSnapshot { .. }, _)) | Err(_) => Err(Failed::Conflict),
        }
    }

    /// The repository's path, as it was fixed when the attempt began.
    async fn path(&self, view: &View) -> Result<String, Failed> {
        if let Some(restore) = &view.object.spec.restore {
            return Ok(restore.path.clone());
        }
        if let Some(path) = view.transfer().and_then(|transfer| transfer.path.clone()) {
            return Ok(path);
        }
        let source = view.object.spec.source.clone().unwrap_or_default();
        Ok(match self.source_object(&source).await? {
            Some(source) => repository_path(&source),
            None => format!("default/{source}"),
        })
    }

    /// The password and the provider's keys in a storage's Secret.
    async fn secrets(&self, storage: &SnapshotBackupStorage, namespace: &str) -> Result<(Secret, Credentials), Failed> {
        let later = |message: String| Failed::ForNow(Some(Trouble::Launch), message);
        let name = storage.secret_name();
        let api: Api<SecretObject> = Api::namespaced(self.client.clone(), namespace);
        let read = answered(api.get_opt(&name)).await;
        let secret = read.map_err(|e| later(format!("cannot read the Secret {namespace}/{name}: {e}")))?;
        let secret = secret.ok_or_else(|| {
            later(format!("the Secret {namespace}/{name} does not exist: create it with the key RESTIC_PASSWORD"))
        })?;
        let data: BTreeMap<String, ByteString> = secret.data.unwrap_or_default();
        let password = data.get(keys::RESTIC_PASSWORD).map(|value| String::from_utf8(value.0.clone()));
        let password = match password {
            Some(Ok(password)) if !password.is_empty() => Secret(password),
            Some(_) => {
                return Err(later(format!("RESTIC_PASSWORD in the Secret {namespace}/{name} is empty or no text")));
            }
            None => return Err(later(format!("the Secret {namespace}/{name} has no key RESTIC_PASSWORD"))),
        };
        let mut credentials = Credentials::new();
        for key in storage.spec.storage.provider.secret_keys() {
            let Some(value) = data.get(*key) else { continue };
            let value = String::from_utf8(value.0.clone())
                .map_err(|_| later(format!("{key} in the Secret {namespace}/{name} is no text")))?;
            credentials.insert((*key).to_owned(), Secret(value));
        }
        Ok((password, credentials))
    }
}

/// An error with its causes, for people: the engine's own words leave out what the system said.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text = format!("{text}: {cause}");
        below = cause.source();
    }
    text
}

/// The filesystem asked for, in the engine's words.
fn engine_filesystem(view: &View) -> Option<lvault_engines::Filesystem> {
    view.spec.as_ref().ok().and_then(|spec| spec.filesystem).map(|filesystem| match filesystem {
        Filesystem::Ext4 => lvault_engines::Filesystem::Ext4,
        Filesystem::Xfs => lvault_engines::Filesystem::Xfs,
        Filesystem::Btrfs => lvault_engines::Filesystem::Btrfs,
    })
}

/// Where the volume shall lie: an empty name is as good as none.
fn placement(view: &View) -> Placement {
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let spec = &view.object.spec;
    Placement { device_class: named(&spec.device_class), option_class: named(&spec.lvcreate_option_class) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_is_part_of_the_reason() {
        let source = std::io::Error::from_raw_os_error(17);
        let error = EngineError::Io { attempted: "making the mount point", path: "/mnt/x".into(), source };
        assert_eq!(in_full(&error), "making the mount point /mnt/x: File exists (os error 17)");
    }
}
