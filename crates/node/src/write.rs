//! The agent's writes: each a compare-and-swap on the object that the decision was made from.

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lvault_api::{
    LogicalVolume, LogicalVolumeStatus, Operation, TransferError, TransferStatus, format_size, keys, repository_path,
    status,
};
use lvault_core::{Attempt, Failure, Intent, Launch, Record, Seen, State, Transition, next};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::health;
use crate::observe::{View, answered};
use crate::perform::Failed;

impl Agent {
    /// Puts our finalizer on the object, or takes it off.
    pub(crate) async fn write_finalizers(&self, view: &View, present: bool) -> Result<(), Failed> {
        let mut finalizers: Vec<&str> = view.object.finalizers().iter().map(String::as_str).collect();
        finalizers.retain(|name| *name != keys::FINALIZER);
        if present {
            finalizers.push(keys::FINALIZER);
        }
        let patch = json!({"metadata": {
            "resourceVersion": view.object.resource_version(),
            "uid": view.object.uid(),
            "finalizers": finalizers,
        }});
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        let (name, params) = (view.object.name_any(), PatchParams::default());
        sent(api.patch(&name, &params, &Patch::Merge(&patch))).await
    }

    /// Begins an attempt: writes `Pending`.
    pub(crate) async fn write_begin(&self, view: &View, attempt: Attempt) -> Result<(), Failed> {
        let record = legal(view, &Transition::Begin { attempt })?;
        let now = (self.config.now)();
        let operation = if view.observed.intent_is_restore() { Operation::Restore } else { Operation::Backup };
        let mut transfer = TransferStatus::begin(operation, &record, now);
        transfer.repository = view.storage().map(ToString::to_string);
        transfer.path = match (&view.object.spec.restore, &view.object.spec.source) {
            (Some(restore), _) => Some(restore.path.clone()),
            // A source whose name makes no sense cannot be looked up; the attempt begins all the same, and fails with a reason.
            (None, Some(_)) if view.spec.is_err() => None,
            (None, Some(source)) => self.source_object(source).await?.as_ref().map(repository_path),
            (None, None) => None,
        };
        transfer.version = Some(env!("CARGO_PKG_VERSION").to_owned());
        self.write_status(view, |status| *slot(view, status) = Some(transfer.clone())).await
    }

    /// Notes that an executor ended without a result.
    pub(crate) async fn write_loss(&self, view: &View, launch: Launch, words: Option<String>) -> Result<(), Failed> {
        let record = legal(view, &Transition::RecordLoss { launch })?;
        let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
        let message = format!("executor {launch} of this attempt ended without a result{words}");
        self.write_record(view, &record, |transfer| transfer.message = Some(message.clone())).await
    }

    /// Ends an attempt as failed.
    pub(crate) async fn write_failure(&self, view: &View, failure: Failure) -> Result<(), Failed> {
        let transition = match failure {
            Failure::ExecutorsLost(lost) => Transition::ExceedBackoffLimit { limit: lost },
            Failure::SourceGone | Failure::SourceNotReady | Failure::StorageNotReady | Failure::Trouble(_) => {
                Transition::GiveUp
            }
        };
        let record = legal(view, &transition)?;
        let message = self.failure_message(view, failure);
        let now = (self.config.now)();
        self.write_record(view, &record, |transfer| {
            transfer.complete(now);
            transfer.message = Some(message.clone());
            transfer.error = Some(TransferError { code: failure.code().to_owned(), message: message.clone() });
        })
        .await
    }

    fn failure_message(&self, view: &View, failure: Failure) -> String {
        let source = view.object.spec.source.clone().unwrap_or_default();
        let storage = view.storage().map(ToString::to_string).unwrap_or_default();
        let retry = "then raise the attempt (`lvault snapshot retry`)";
        match failure {
            Failure::SourceGone => format!(
                "the source volume {source} does not exist on node {}, is being deleted, or has no local data; name \
                 another source in a new snapshot",
                self.config.node_name
            ),
            Failure::SourceNotReady => {
                format!(
                    "the source volume {source} was not ready in time; `lvault why {source}` says what it waits for"
                )
            }
            Failure::StorageNotReady => {
                let why = view.storage_says.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("the storage {storage} does not exist or was not ready in time{why}. Mend it, {retry}")
            }
            Failure::ExecutorsLost(lost) => {
                let last = view.transfer().and_then(|transfer| transfer.message.clone()).unwrap_or_default();
                format!(
                    "{lost} executors were lost, which is the backoffLimit; the last: {last}. Mend the cause, {retry}"
                )
            }
            Failure::Trouble(_) => {
                let why = view.trouble.as_ref().map(|standing| standing.message.clone()).unwrap_or_default();
                format!("{why}. Mend the cause, {retry}")
            }
        }
    }

    /// Reports a volume as usable.
    pub(crate) async fn write_published(&self, view: &View) -> Result<(), Failed> {
        let Seen::Present(volume) = view.observed.volume else { return Err(Failed::Conflict) };
        self.write_status(view, |status| {
            status.volume_id = Some(view.id.as_str().to_owned());
            status.current_size = Some(format_size(volume.size));
            status.mount_path = view.mounted.as_ref().map(|path| path.display().to_string());
            status.code = Some(0);
            status.message = None;
        })
        .await
    }

    /// Says what is wrong: in the attempt's message while nobody has claimed it, else in the volume's.
    pub(crate) async fn write_problem(&self, view: &View, code: i32, message: &str) -> Result<(), Failed> {
        match view.record().map(|record| &record.state) {
            Some(State::Pending) => {
                self.write_status(view, |status| {
                    if let Some(transfer) = slot(view, status) {
                        transfer.message = Some(message.to_owned());
                    }
                })
                .await
            }
            // The message is the executor's, and what an ended attempt says stays.
            Some(State::Running(_) | State::Succeeded | State::Failed) | None => {
                self.write_status(view, |status| {
                    status.code = Some(code);
                    status.message = Some(message.to_owned());
                })
                .await
            }
        }
    }

    /// Takes a problem back that is over.
    pub(crate) async fn write_no_problem(&self, view: &View) -> Result<(), Failed> {
        let troubled = view.object.status.as_ref().is_some_and(|status| status.code.unwrap_or(0) != 0);
        if !troubled {
            return self.write_health(view).await;
        }
        self.write_status(view, |status| {
            status.code = Some(0);
            status.message = None;
        })
        .await
    }

    /// Says what is wrong with the storage beneath the volume, where that is news.
    pub(crate) async fn write_health(&self, view: &View) -> Result<(), Failed> {
        match &view.problems {
            Some(problems) if health::is_news(&view.object, problems) => self.write_status(view, |_| {}).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn write_record(
        &self,
        view: &View,
        record: &Record,
        edit: impl Fn(&mut TransferStatus),
    ) -> Result<(), Failed> {
        self.write_status(view, |status| {
            if let Some(transfer) = slot(view, status) {
                transfer.set_record(record);
                transfer.version = Some(env!("CARGO_PKG_VERSION").to_owned());
                edit(transfer);
            }
        })
        .await
    }

    async fn write_status(&self, view: &View, edit: impl FnOnce(&mut LogicalVolumeStatus)) -> Result<(), Failed> {
        let mut next = view.object.status.clone().unwrap_or_default();
        edit(&mut next);
        let now = (self.config.now)();
        if let Some(problems) = &view.problems {
            health::set(&view.object, &mut next, problems, now);
        }
        status::summarise(&view.object, &mut next, now);
        let Some(patch) = status::patch(&view.object, &next) else { return Ok(()) };
        let api: Api<LogicalVolume> = Api::all(self.client.clone());
        let (name, params) = (view.object.name_any(), PatchParams::default());
        sent(api.patch_status(&name, &params, &Patch::<Value>::Merge(patch))).await
    }
}

/// The record that a transition leaves. What is not legal comes from a view that is old: it is read again.
fn legal(view: &View, transition: &Transition) -> Result<Record, Failed> {
    next(view.record(), transition).map_err(|refused| {
        tracing::debug!("{}: {transition:?}: {refused}", view.object.name_any());
        Failed::Conflict
    })
}

/// Where the status of the object's online operation stands.
fn slot<'a>(view: &View, status: &'a mut LogicalVolumeStatus) -> &'a mut Option<TransferStatus> {
    match view.observed.intent {
        Intent::Restore(..) => &mut status.restore,
        Intent::OnlineSnapshot(..) | Intent::Volume(_) | Intent::LocalSnapshot(..) => &mut status.online_snapshot,
    }
}

async fn sent<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<(), Failed> {
    let mut conflict = false;
    let answer = answered(async {
        let answer = request.await;
        conflict = matches!(&answer, Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404);
        answer
    });
    match answer.await {
        Ok(_) => Ok(()),
        Err(_) if conflict => Err(Failed::Conflict),
        Err(problem) => Err(Failed::ForNow(None, format!("cannot write the object: {problem}"))),
    }
}
