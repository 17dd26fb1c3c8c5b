//! `lvault controller`: the reconcilers that a cluster has once. Any number of replicas may run; one of them works.

use std::sync::Arc;

use lvault_controller::{Config, Election};
use tracing::info;

use super::health::Health;
use super::preflight::{Preflight, own_pod};
use crate::args::{ControllerArgs, Place};
use crate::error::CliError;
use crate::names;
use crate::server::with_causes;
use crate::up::ended_by_signal;

/// Runs until a signal asks it to end, or it is not the one that works any more.
pub async fn run(place: &Place, args: ControllerArgs) -> Result<(), CliError> {
    let asked_to_end = ended_by_signal()?;
    let client = super::client(place, "lvault-controller").await?;
    let identity = match &args.identity {
        Some(identity) => identity.clone(),
        None => format!("{}-{}", names::host()?, std::process::id()),
    };
    let election = Election::new(client.clone(), args.election_namespace, identity, args.lease_duration);
    let leading = election.is_leading();
    let health = Health::new(Arc::new(move || {
        let name = "lvault_controller_leader";
        let now = u8::from(leading());
        format!("# HELP {name} Whether this replica is the one that works\n# TYPE {name} gauge\n{name} {now}\n")
    }));
    health.listen(args.health_listen).await?;
    let failed = |happened: String| CliError::Server {
        tried: "running the controller",
        happened,
        remedy: "start it again; nothing is lost".to_owned(),
    };
    let pod = own_pod(&args.namespace, args.identity.as_deref(), args.pod_uid.as_deref());
    let work = async {
        Preflight { client: &client, health: &health, node: None, pod }.pass().await;
        // A replica that waits is as ready as one that works.
        health.set_ready(true);
        election.acquire().await.map_err(|error| failed(with_causes(&error)))?;
        tokio::select! {
            biased;
            () = election.keep() => Err(failed("another controller has taken over, or the API did not answer in time".to_owned())),
            () = lvault_controller::release_abandoned(client.clone(), args.abandoned_interval) => Ok(()),
            () = lvault_controller::name_unattended(client.clone(), args.unattended_after) => Ok(()),
            ended = lvault_controller::run(client.clone(), Config::default(), std::future::pending()) => {
                Err(failed(ended.err().map(|error| with_causes(&error)).unwrap_or_default()))
            }
        }
    };
    tokio::select! {
        name = asked_to_end => {
            info!("{name}: ending");
            election.release().await;
            Ok(())
        }
        ended = work => ended,
    }
}
