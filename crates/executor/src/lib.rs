//! One attempt of an online operation, as a process of its own: claim, heartbeat, copy, commit, report.
//!
//! What holds here:
//! - Nothing is copied before the attempt was claimed by a compare-and-swap, and nothing is committed after the claim
//!   was lost.
//! - Every write names the claim, and is refused by [`lvault_core::next`] when the claim is not this executor's any more.
//! - A commit that an earlier executor of the same attempt has made is adopted, never made again.
//! - The executor outlives the node agent and the API server: it copies on, and reports when it can.

mod attempt;
mod connection;
mod copy;
mod heartbeat;
mod meter;
mod run;
mod storage;
mod task;

pub use connection::{Connection, ConnectionError};
pub use copy::{CommitGate, Copied, CopyError, CopyWork, MayCommit, Repositories, Worker, copy_work};
pub use meter::Meter;
pub use run::{Exit, Settings, run};
pub use task::{TaskError, read_pod_task, read_task};

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use lvault_api::task::{SECRET_VARIABLE, TASK_VARIABLE};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

/// Runs the task that stands in a pod's environment, else on standard input: the whole life of an executor.
pub fn main() -> ExitCode {
    let task = match std::env::var_os(TASK_VARIABLE) {
        Some(text) => read_pod_task(&text, Path::new(&std::env::var_os(SECRET_VARIABLE).unwrap_or_default())),
        None => read_task(std::io::stdin()),
    };
    let task = match task {
        Ok(task) => task,
        Err(problem) => {
            error!("{problem}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!("cannot start the executor's runtime: {problem}");
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(async {
        // `restic unlock` asks by this signal whether the holder of a lock lives; it would end a process that ignores it not.
        if let Err(problem) = signal(SignalKind::hangup()) {
            error!("cannot ignore SIGHUP, so `restic unlock` on this host would end this executor: {problem}");
        }
        let connection = Connection::open(task.api.clone()).await?;
        Ok::<Exit, ConnectionError>(run(task, connection, Arc::new(Repositories), Settings::of_a_process()).await)
    });
    // The copying thread may still hang in a read; the process ends without it.
    match ended {
        Ok(Exit::Reported) => ExitCode::SUCCESS,
        Ok(Exit::Superseded(why)) => {
            info!("leaving: {why}");
            ExitCode::SUCCESS
        }
        Ok(Exit::Unreported(why)) => {
            error!("{why}");
            ExitCode::FAILURE
        }
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}
