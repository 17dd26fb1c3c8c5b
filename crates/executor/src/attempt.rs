//! The executor's writes to the status of its attempt: each a compare-and-swap that the transition table allows.
//!
//! A conflict, a lost answer and a server that is away all end the same way: what stands there is read again, and
//! decided again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lvault_api::conditions::{self, Said};
use lvault_api::task::{Task, Work};
use lvault_api::{LogicalVolume, LogicalVolumeStatus, TransferStatus, status};
use lvault_core::{Claim, Held, Holder, Job, Record, Refused, State, Transition, next};
use tokio::time::Instant;

use crate::connection::Connection;

/// For so long a right may be missing: a role that was just bound is known to all API servers in a moment.
const DENIED: Duration = Duration::from_secs(20);

/// Why a write was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// The attempt is not this executor's, or not any more.
    #[error("the attempt is not this executor's: {0}")]
    NotOurs(Refused),
    /// The object is gone, or another one has taken its name.
    #[error("the LogicalVolume {0} is gone")]
    Gone(String),
    /// The API server says that the write is wrong.
    #[error("the API server refuses the status: {0}")]
    Rejected(String),
    /// Nobody answered for so long that waiting on is of no use.
    #[error("the API did not answer for {0:?}")]
    Unreachable(Duration),
}

/// Writes the status of one attempt.
pub(crate) struct Attempt<'a> {
    pub(crate) task: &'a Task,
    pub(crate) connection: &'a Connection,
    pub(crate) holder: Holder,
    pub(crate) patience: Duration,
    pub(crate) now: fn() -> Timestamp,
}

impl Attempt<'_> {
    /// Claims the attempt: none of its work is done before. Idempotent: a claim whose answer was lost is found again.
    pub(crate) async fn claim(&self) -> Result<Held, WriteError> {
        let Some(Job::Copy { attempt, launch }) = self.task.work.job() else {
            return Err(WriteError::NotOurs(Refused::OtherAttempt));
        };
        let transition = Transition::Claim { holder: self.holder.clone(), attempt, launch };
        let record = self.write(&transition, |transfer, _| {
            transfer.repository = Some(self.task.storage.to_string());
            transfer.path = Some(self.task.path.clone());
            transfer.message = Some(format!("executor {} is copying", self.holder));
            transfer.error = None;
        });
        match record.await?.state {
            State::Running(claim) => Ok(Held { attempt, claim }),
            State::Pending | State::Succeeded | State::Failed => Err(WriteError::NotOurs(Refused::Ended)),
        }
    }

    /// Makes a transition of this attempt, and edits the status along with it. Ends as done also when the transition
    /// is found to stand already with this executor's name on it: then an earlier answer was lost.
    pub(crate) async fn write(
        &self,
        transition: &Transition,
        edit: impl Fn(&mut TransferStatus, Timestamp),
    ) -> Result<Record, WriteError> {
        self.compare_and_swap(|volume, status| {
            let transfer = self.transfer(status).ok_or(WriteError::NotOurs(Refused::NotBegun))?;
            let current = transfer.record().map_err(|e| WriteError::Rejected(e.to_string()))?;
            if self.stands(transfer, &current, transition) {
                return Ok(current);
            }
            let record = next(Some(&current), transition).map_err(WriteError::NotOurs)?;
            transfer.set_record(&record);
            transfer.version = Some(env!("CARGO_PKG_VERSION").to_owned());
            let now = (self.now)();
            if record.is_terminal() {
                transfer.complete(now);
            }
            edit(transfer, now);
            status::summarise(volume, status, now);
            Ok(record)
        })
        .await
    }

    /// The conditions of the object, if this attempt is still this executor's.
    pub(crate) async fn ours(&self, held: &Held) -> Result<Vec<Condition>, WriteError> {
        let volume = self.get().await?;
        let mut status = volume.status.unwrap_or_default();
        let transfer = self.transfer(&mut status).ok_or(WriteError::NotOurs(Refused::NotBegun))?;
        let current = transfer.record().map_err(|e| WriteError::Rejected(e.to_string()))?;
        next(Some(&current), &Transition::Report(held.clone())).map_err(WriteError::NotOurs)?;
        Ok(status.conditions)
    }

    /// Notes whether the repository is free of this object's snapshots.
    pub(crate) async fn note_forgotten(&self, outcome: Result<usize, String>) -> Result<(), WriteError> {
        self.compare_and_swap(|volume, status| {
            let (holds, reason, message) = match &outcome {
                Ok(removed) => (true, "Removed", format!("{removed} snapshots were removed from the repository")),
                Err(problem) => (false, "RemoveFailed", problem.clone()),
            };
            let kind = conditions::REPOSITORY_SNAPSHOT_REMOVED;
            let said = Said { kind, holds, reason: reason.to_owned(), message };
            conditions::set(&mut status.conditions, said, volume.metadata.generation, (self.now)());
            Ok(())
        })
        .await
    }

    async fn compare_and_swap<T>(
        &self,
        decide: impl Fn(&LogicalVolume, &mut LogicalVolumeStatus) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let volume = self.get().await?;
            let mut status = volume.status.clone().unwrap_or_default();
            let outcome = decide(&volume, &mut status)?;
            let Some(patch) = status::patch(&volume, &status) else {
                return Ok(outcome);
            };
            let name = self.task.volume.as_str();
            match self.api().patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(outcome),
                Err(kube::Error::Api(refusal)) if refusal.code == 422 || refusal.code == 400 => {
                    return Err(WriteError::Rejected(refusal.message.clone()));
                }
                Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
                Err(problem) => {
                    tracing::debug!("cannot write the status of {name}: {problem}");
                    self.wait(started, &mut pause, &problem).await?;
                }
            }
        }
    }

    /// The object, however long the API is away, within this executor's patience.
    async fn get(&self) -> Result<LogicalVolume, WriteError> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        let name = self.task.volume.as_str();
        let gone = || WriteError::Gone(name.to_owned());
        loop {
            match self.api().get(name).await {
                Ok(volume) if volume.uid().as_deref() == Some(self.task.uid.as_str()) => return Ok(volume),
                Ok(_) => return Err(gone()),
                Err(kube::Error::Api(refusal)) if refusal.code == 404 => return Err(gone()),
                Err(problem) => {
                    tracing::debug!("cannot read {name}: {problem}");
                    self.wait(started, &mut pause, &problem).await?;
                }
            }
        }
    }

    /// Waits before the next try. A right that is missing is not waited for as long as an API that is away: whoever reads why
    /// this executor ended can give it.
    async fn wait(&self, started: Instant, pause: &mut Duration, problem: &kube::Error) -> Result<(), WriteError> {
        if let kube::Error::Api(refusal) = problem
            && refusal.code == 403
            && started.elapsed() > DENIED.min(self.patience)
        {
            return Err(WriteError::Rejected(refusal.message.clone()));
        }
        if started.elapsed() > self.patience {
            return Err(WriteError::Unreachable(self.patience));
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(Duration::from_secs(5));
        self.connection.renew().await;
        Ok(())
    }

    fn api(&self) -> Api<LogicalVolume> {
        Api::all(self.connection.client())
    }

    fn transfer<'s>(&self, status: &'s mut LogicalVolumeStatus) -> Option<&'s mut TransferStatus> {
        match self.task.work {
            Work::Backup { .. } => status.online_snapshot.as_mut(),
            Work::Restore { .. } => status.restore.as_mut(),
            Work::Forget => None,
        }
    }

    /// Whether a transition was made already, by this very process.
    fn stands(&self, transfer: &TransferStatus, current: &Record, transition: &Transition) -> bool {
        let by_us = transfer.executor.as_ref().and_then(|executor| executor.name.as_deref());
        if by_us != Some(self.holder.0.as_str()) {
            return false;
        }
        match (transition, &current.state) {
            (Transition::Claim { attempt, .. }, State::Running(Claim { holder, .. })) => {
                *holder == self.holder && current.attempt == *attempt
            }
            (Transition::Succeed(held), State::Succeeded) | (Transition::Fail(held), State::Failed) => {
                current.attempt == held.attempt
            }
            (
                Transition::Claim { .. }
                | Transition::Succeed(_)
                | Transition::Fail(_)
                | Transition::Report(_)
                | Transition::Begin { .. }
                | Transition::RecordLoss { .. }
                | Transition::GiveUp
                | Transition::ExceedBackoffLimit { .. },
                _,
            ) => false,
        }
    }
}
