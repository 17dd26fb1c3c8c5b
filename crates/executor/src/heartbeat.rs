//! The heartbeat: a Lease that is renewed as long as the copy gets anywhere.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use lvault_api::keys;
use lvault_api::task::Task;
use serde_json::json;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::meter::Meter;

/// Renews the executor's lease every third of its duration, for ever. Errors are passed over: the agent, which sees no
/// renewal, decides what they mean. A copy that gets nowhere for `stall` is not alive, whatever its threads do.
pub(crate) async fn beat(
    task: &Task,
    holder: &str,
    connection: &Connection,
    meter: Arc<Meter>,
    stall: Duration,
    now: fn() -> Timestamp,
) {
    let period = Duration::from_secs(task.lease.duration_seconds) / 3;
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut moved = (meter.beats(), Instant::now());
    loop {
        ticks.tick().await;
        if meter.beats() != moved.0 {
            moved = (meter.beats(), Instant::now());
        }
        if moved.1.elapsed() > stall {
            tracing::warn!("no progress for {} s: the lease is not renewed any more", stall.as_secs());
            continue;
        }
        match renew(task, holder, connection, now()).await {
            Ok(()) => {}
            // The last line of the log is what the agent says of an executor that it had to end.
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::warn!("cannot renew the lease {}: {}", task.lease.name, status.message);
            }
            Err(problem) => tracing::debug!("cannot renew the lease {}: {problem}", task.lease.name),
        }
    }
}

/// Writes the renewal; makes the lease where there is none. Only this executor writes this lease, so no comparison is
/// needed; it names its owner, so that it goes when the volume goes.
async fn renew(task: &Task, holder: &str, connection: &Connection, now: Timestamp) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(connection.client(), &task.lease.namespace);
    let renewal = json!({
        "metadata": {
            "name": task.lease.name,
            "labels": {keys::LABEL_EXECUTOR: "true", keys::LABEL_VOLUME: keys::label_value(&task.volume)},
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION),
                "kind": "LogicalVolume",
                "name": task.volume,
                "uid": task.uid,
            }],
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": task.lease.duration_seconds,
            "renewTime": MicroTime(now),
        },
    });
    match api.patch(&task.lease.name, &PatchParams::default(), &Patch::Merge(&renewal)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease: Lease = serde_json::from_value(renewal).map_err(kube::Error::SerdeError)?;
            match api.create(&PostParams::default(), &lease).await {
                // A lost answer of an earlier try made it: the next beat renews it.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        }
        other => other.map(drop),
    }
}
