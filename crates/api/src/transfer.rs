//! The status of an online operation (`status.onlineSnapshot`, `status.restore`), and its reading as a core record.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use lvault_core::{Attempt, Claim, Epoch, Holder, Launch, Record, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an online operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    /// Copies a snapshot into a repository.
    Backup,
    /// Fills a volume from a repository.
    Restore,
}

/// Where an attempt of an online operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Asked for; no executor has claimed it yet.
    Pending,
    /// An executor copies.
    Running,
    /// Committed and read back. Never changes again.
    Succeeded,
    /// Ended without a usable result; raise `attempt` in the spec to try again.
    Failed,
}

/// The state of one online operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferStatus {
    /// What is done.
    pub operation: Operation,
    /// Where this attempt stands.
    pub phase: Phase,
    /// The attempt this status is about. It never goes back.
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// The executor that holds, or last held, the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorStatus>,
    /// When the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the attempt reached its last phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How long the attempt took, from start to completion, such as `12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// How far the copy is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What happens now, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why the attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TransferError>,
    /// The storage that holds the repository, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The repository's path inside its storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The id of the repository's snapshot.
    #[serde(default, rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// What of the volume is missing in the repository's snapshot, because it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<Incomplete>,
    /// The version of lvault that made the last transition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Who works on an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorStatus {
    /// The executor process that holds, or last held, the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How often the attempt has been claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub epoch: Option<i32>,
    /// Which launch of the attempt made the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub launch: Option<i32>,
    /// How many executors of the attempt ended without a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub lost: Option<i32>,
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incomplete {
    /// How many files and folders are missing. What lies in a folder that could not be read is not counted.
    #[schemars(range(min = 1))]
    pub count: i64,
    /// The first of them, with the reasons.
    pub first: Vec<String>,
}

/// How far a copy is. Written at most once every 10 seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes of all files.
    pub total_bytes: i64,
    /// Bytes of the files done.
    pub bytes_done: i64,
    /// All files.
    pub total_files: i64,
    /// Files done.
    pub files_done: i64,
    /// Bytes done of all bytes, in percent, such as `42%`.
    pub percentage: String,
    /// Bytes a second since the copy began.
    pub bytes_per_second: i64,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TransferError {
    /// A stable word for programs, such as `MountFailed`.
    pub code: String,
    /// What was tried, what happened, and what to do next.
    pub message: String,
}

/// A status that no version of lvault writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedStatus {
    /// A number is out of its range.
    #[error("the status field {field} is {value}, which is out of range; it was not written by lvault")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What stands in it.
        value: i64,
    },
    /// A running attempt names no holder.
    #[error("the status says Running and does not say which executor holds the attempt; it was not written by lvault")]
    NoHolder,
}

impl TransferStatus {
    /// The core's reading of this status.
    pub fn record(&self) -> Result<Record, MalformedStatus> {
        let attempt = count("attempt", Some(self.attempt)).and_then(|n| {
            Attempt::new(n).ok_or(MalformedStatus::OutOfRange { field: "attempt", value: self.attempt.into() })
        })?;
        let executor = self.executor.clone().unwrap_or_default();
        let lost = count("executor.lost", executor.lost)?;
        let state = match self.phase {
            Phase::Pending => State::Pending,
            Phase::Running => State::Running(claim(&executor)?),
            Phase::Succeeded => State::Succeeded,
            Phase::Failed => State::Failed,
        };
        Ok(Record { attempt, lost, state })
    }

    /// Writes what a core record says into this status, and leaves everything else as it is.
    pub fn set_record(&mut self, record: &Record) {
        let wire = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        self.attempt = wire(record.attempt.get());
        let mut executor = self.executor.take().unwrap_or_default();
        executor.lost = if record.lost == 0 { None } else { Some(wire(record.lost)) };
        self.phase = match &record.state {
            State::Pending => Phase::Pending,
            State::Running(claim) => {
                executor.name = Some(claim.holder.0.clone());
                executor.epoch = Some(wire(claim.epoch.get()));
                executor.launch = Some(wire(claim.launch.get()));
                Phase::Running
            }
            State::Succeeded => Phase::Succeeded,
            State::Failed => Phase::Failed,
        };
        self.executor = if executor == ExecutorStatus::default() { None } else { Some(executor) };
    }

    /// A new attempt's status.
    pub fn begin(operation: Operation, record: &Record, now: Timestamp) -> Self {
        let mut status = TransferStatus {
            operation,
            phase: Phase::Pending,
            attempt: 1,
            executor: None,
            start_time: Some(Time(now)),
            completion_time: None,
            duration: None,
            progress: None,
            message: None,
            error: None,
            repository: None,
            path: None,
            snapshot_id: None,
            incomplete: None,
            version: None,
        };
        status.set_record(record);
        status
    }

    /// Notes that the attempt ended now.
    pub fn complete(&mut self, now: Timestamp) {
        self.completion_time = Some(Time(now));
        if let Some(start) = &self.start_time {
            self.duration = Some(format!("{}s", now.as_second().saturating_sub(start.0.as_second()).max(0)));
        }
    }
}

fn claim(executor: &ExecutorStatus) -> Result<Claim, MalformedStatus> {
    let holder = executor.name.clone().ok_or(MalformedStatus::NoHolder)?;
    let epoch = Epoch::new(count("executor.epoch", executor.epoch)?).ok_or(MalformedStatus::NoHolder)?;
    let launch = Launch::new(count("executor.launch", executor.launch)?).ok_or(MalformedStatus::NoHolder)?;
    Ok(Claim { holder: Holder(holder), epoch, launch })
}

fn count(field: &'static str, value: Option<i32>) -> Result<u32, MalformedStatus> {
    let value = value.unwrap_or(0);
    u32::try_from(value).map_err(|_| MalformedStatus::OutOfRange { field, value: value.into() })
}
