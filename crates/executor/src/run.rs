//! The life of one executor: claim, then copy with a heartbeat and reports beside it, then the result.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lvault_api::TransferError;
use lvault_api::task::{Task, Work};
use lvault_core::{Held, Holder, Transition};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::attempt::{Attempt, WriteError};
use crate::connection::Connection;
use crate::copy::{CommitGate, Copied, CopyError, Question, Worker};
use crate::heartbeat;
use crate::meter::Meter;
use crate::storage;

/// How an executor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its result stands in the status.
    Reported,
    /// The attempt is somebody else's, has ended, or is gone: nothing was written.
    Superseded(String),
    /// The result could not be written. The agent sees this executor end and launches a successor, which finds what
    /// was committed.
    Unreported(String),
}

/// What an executor takes from its surroundings.
pub struct Settings {
    /// How this process is told from any other of the same launch.
    pub nonce: String,
    /// How long the API may be away before the executor gives up.
    pub patience: Duration,
    /// How long a copy may get nowhere before its heartbeat stops.
    pub stall: Duration,
    /// The clock that statuses are stamped with.
    pub now: fn() -> Timestamp,
}

impl Settings {
    /// The settings of a real process.
    pub fn of_a_process() -> Self {
        let unique = format!("{:08x}", Timestamp::now().as_nanosecond() as u32 ^ std::process::id().rotate_left(16));
        Settings {
            nonce: unique,
            patience: Duration::from_secs(3600),
            stall: Duration::from_secs(900),
            now: Timestamp::now,
        }
    }
}

/// Runs one task to its end.
pub async fn run(task: Task, connection: Connection, work: Arc<dyn Worker>, settings: Settings) -> Exit {
    let attempt = Attempt {
        task: &task,
        connection: &connection,
        holder: Holder(format!("{}.{}", task.name, settings.nonce)),
        patience: settings.patience,
        now: settings.now,
    };
    let meter = Arc::new(Meter::default());
    let holder = attempt.holder.0.clone();
    let heartbeat = heartbeat::beat(&task, &holder, &connection, Arc::clone(&meter), settings.stall, settings.now);
    let life = async {
        match task.work {
            Work::Backup { .. } | Work::Restore { .. } => copy(&attempt, &meter, work).await,
            Work::Forget => forget(&attempt, &meter, work).await,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = life => ended,
        () = heartbeat => Ok(()),
    };
    // A copy that still runs commits nothing any more.
    meter.stop();
    match ended {
        Ok(()) => Exit::Reported,
        Err(error @ (WriteError::NotOurs(_) | WriteError::Gone(_))) => Exit::Superseded(error.to_string()),
        Err(error @ (WriteError::Rejected(_) | WriteError::Unreachable(_))) => Exit::Unreported(error.to_string()),
    }
}

async fn copy(attempt: &Attempt<'_>, meter: &Arc<Meter>, work: Arc<dyn Worker>) -> Result<(), WriteError> {
    let held = attempt.claim().await?;
    info!("claimed attempt {} with epoch {}", held.attempt, held.claim.epoch);
    let outcome = copy_and_report(attempt, &held, meter, work).await?;
    match outcome {
        Ok(copied) => succeed(attempt, &held, meter, copied).await,
        Err(error) => {
            let error = storage::explained(attempt, &held, error).await?;
            fail(attempt, &held, meter, error).await
        }
    }
}

/// Copies, and writes progress meanwhile. Ends early when a write shows that the claim is lost.
async fn copy_and_report(
    attempt: &Attempt<'_>,
    held: &Held,
    meter: &Arc<Meter>,
    work: Arc<dyn Worker>,
) -> Result<Result<Copied, CopyError>, WriteError> {
    let (questions, mut asked) = mpsc::channel::<Question>(1);
    let mut outcome = work.start(attempt.task.clone(), Arc::clone(meter), CommitGate::asking(questions));
    let started = Instant::now();
    let period = Duration::from_secs(attempt.task.progress_seconds.max(1));
    let mut ticks = tokio::time::interval_at(started + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            result = &mut outcome => return Ok(result.unwrap_or_else(|_| Err(CopyError::ended()))),
            Some(question) = asked.recv() => {
                let ours = attempt.ours(held).await;
                let spoiled = ours.as_ref().ok().and_then(|conditions| storage::spoiled(attempt.task, conditions));
                // The thread may have stopped waiting; then there is nobody to answer.
                let _ = question.send(ours.is_ok() && spoiled.is_none());
                ours?;
                if let Some(error) = spoiled {
                    return Ok(Err(error));
                }
            }
            _ = ticks.tick() => report(attempt, held, meter, started).await?,
        }
    }
}

async fn report(attempt: &Attempt<'_>, held: &Held, meter: &Meter, started: Instant) -> Result<(), WriteError> {
    let progress = meter.written(started.elapsed().as_secs_f64());
    let verifying = meter.is_verifying();
    let transition = Transition::Report(held.clone());
    let written = attempt.write(&transition, |transfer, _| {
        transfer.progress = Some(progress.clone());
        if verifying {
            transfer.message = Some("the data is copied; it is being read back".to_owned());
        }
    });
    match written.await {
        Ok(_) => Ok(()),
        // The copy goes on while nobody answers; its result is worth waiting for.
        Err(WriteError::Unreachable(_)) => Ok(()),
        Err(error @ (WriteError::NotOurs(_) | WriteError::Gone(_) | WriteError::Rejected(_))) => {
            warn!("{error}");
            Err(error)
        }
    }
}

async fn succeed(attempt: &Attempt<'_>, held: &Held, meter: &Meter, copied: Copied) -> Result<(), WriteError> {
    let transition = Transition::Succeed(held.clone());
    let written = attempt.write(&transition, |transfer, _| {
        transfer.progress = Some(copied.progress.clone().unwrap_or_else(|| meter.written(0.0)));
        transfer.snapshot_id = Some(copied.snapshot.clone());
        transfer.message = Some(copied.message.clone());
        transfer.error = None;
    });
    written.await?;
    info!("succeeded: {}", copied.message);
    Ok(())
}

async fn fail(attempt: &Attempt<'_>, held: &Held, meter: &Meter, error: CopyError) -> Result<(), WriteError> {
    warn!("failed: {error}");
    let transition = Transition::Fail(held.clone());
    let written = attempt.write(&transition, |transfer, _| {
        transfer.progress = Some(meter.written(0.0));
        transfer.message = Some(error.message.clone());
        transfer.error = Some(TransferError { code: error.code.to_owned(), message: error.message.clone() });
    });
    written.await.map(drop)
}

async fn forget(attempt: &Attempt<'_>, meter: &Arc<Meter>, work: Arc<dyn Worker>) -> Result<(), WriteError> {
    let begun = work.start(attempt.task.clone(), Arc::clone(meter), CommitGate::open());
    let outcome = begun.await.unwrap_or_else(|_| Err(CopyError::ended()));
    let outcome = match outcome {
        Ok(copied) => Ok(copied.removed),
        Err(error) => Err(error.message),
    };
    attempt.note_forgotten(outcome).await
}
