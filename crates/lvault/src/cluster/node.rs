//! `lvault node`: the agent of one node of a cluster.
//!
//! What holds here: the state folder is owned before anything in it is touched, and an agent that is still ending is waited
//! for; it is ready only when its engine works and the API answers; executors outlive it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Api, Client};
use lvault_api::parse_size;
use lvault_api::task::ApiAccess;
use lvault_engines::{Options, Wish};
use lvault_node::{
    Agent, AgentConfig, OwnerError, OwnerLock, PodLauncher, PodSettings, lock_owner, metrics, publish_capacity,
};
use tokio::sync::watch;
use tracing::{info, warn};

use super::health::Health;
use super::preflight::{Preflight, own_pod};
use crate::args::{Engine, NodeArgs, Place};
use crate::error::CliError;
use crate::names;
use crate::server::with_causes;
use crate::state::StateDir;
use crate::up::{ended_by_signal, open_engine};

/// Runs until a signal asks it to end, or it cannot go on.
pub async fn run(place: &Place, args: NodeArgs) -> Result<(), CliError> {
    let node = names::object_name("--node-name", &args.node_name)?;
    let pool_size = args.pool_size.as_deref().map(|size| names::size("--pool-size", size)).transpose()?;
    let lvmd_config = args.lvmd_config.as_deref().map(std::path::absolute).transpose();
    let lvmd_config = lvmd_config
        .map_err(|error| CliError::input("--lvmd-config", error.to_string(), "name the file with its full path"))?;
    let options = Options { pool_size, lvmd_config, ..Options::default() };
    let resources = ResourceRequirements {
        requests: quantities("--executor-requests", &args.executor_requests)?,
        limits: quantities("--executor-limits", &args.executor_limits)?,
        ..ResourceRequirements::default()
    };
    let asked_to_end = ended_by_signal()?;
    let client = super::client(place, "lvault-node").await?;
    let state = StateDir::find(place.state_dir.as_deref())?;
    state.ensure()?;
    let (publish, room) = watch::channel(None);
    let health = Health::new({
        let (room, node) = (room.clone(), node.clone());
        Arc::new(move || room.borrow().as_ref().map(|room| metrics(room, &node)).unwrap_or_default())
    });
    health.listen(args.health_listen).await?;

    let pod = own_pod(&args.namespace, args.pod_name.as_deref(), args.pod_uid.as_deref());
    let work = async {
        Preflight { client: &client, health: &health, node: Some(&node), pod }.pass().await;
        health.set_waiting("the state folder or the volume engine");
        let _owner = own(&state).await?;
        let wish = match args.engine {
            Engine::Auto => Wish::Auto,
            Engine::Image => Wish::Image,
            Engine::Directory => Wish::Directory,
            Engine::Lvm => Wish::Lvm,
        };
        let chosen = open_engine(&state, wish, options).await?;
        let settings = settings(&client, &args, &node, resources).await?;
        info!("node {node}: {}; executors run {}", chosen.why, settings.image);
        let launcher = Arc::new(PodLauncher::new(client.clone(), settings));
        let config = AgentConfig {
            namespace: String::new(),
            api: ApiAccess::InCluster,
            lease_duration: args.knobs.lease_duration,
            progress_interval: args.knobs.progress_interval,
            start_deadline: args.knobs.start_deadline,
            resync: args.knobs.resync,
            ..AgentConfig::for_host(node.clone(), state.root().to_path_buf(), state.kubeconfig())
        };
        let agent = Agent::new(client.clone(), Arc::clone(&chosen.engine), launcher, config).publishing(publish);
        health.set_ready(true);
        let capacity = publish_capacity(client.clone(), node.clone(), room);
        tokio::select! {
            ended = agent.run(std::future::pending()) => Err(CliError::Server {
                tried: "running the node agent",
                happened: ended.err().map(|error| with_causes(&error)).unwrap_or_default(),
                remedy: "start it again; nothing is lost".to_owned(),
            }),
            () = capacity => Ok(()),
        }
    };
    tokio::select! {
        name = asked_to_end => {
            info!("{name}: ending; executors go on and are picked up by the next start");
            Ok(())
        }
        ended = work => ended,
    }
}

/// Takes the state folder; the agent of an earlier pod that is still ending gives it free in a moment.
async fn own(state: &StateDir) -> Result<OwnerLock, CliError> {
    let mut said = false;
    loop {
        match lock_owner(state.root()) {
            Ok(owner) => return Ok(owner),
            Err(error @ OwnerError::Owned { .. }) => {
                if !said {
                    warn!("{error}; waiting until it has ended");
                    said = true;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error @ OwnerError::Lock { .. }) => {
                return Err(CliError::Server {
                    tried: "taking the state folder",
                    happened: error.to_string(),
                    remedy: "run it as root, with the host's state folder mounted".to_owned(),
                });
            }
        }
    }
}

/// What executors are like. Image and pull policy are those of the pod that this agent runs in.
async fn settings(
    client: &Client,
    args: &NodeArgs,
    node: &str,
    resources: ResourceRequirements,
) -> Result<PodSettings, CliError> {
    let mut settings = PodSettings {
        node_name: node.to_owned(),
        image: args.executor_image.clone().unwrap_or_default(),
        pull_policy: None,
        pull_secrets: Vec::new(),
        service_account: args.executor_service_account.clone(),
        resources,
        start_deadline: args.executor_start_deadline,
        local_storages: args.local_storage.clone(),
    };
    let Some(name) = args.pod_name.as_ref().filter(|_| args.executor_image.is_none()) else { return Ok(settings) };
    let failed = |happened: String| CliError::Server {
        tried: "reading the agent's own pod, whose image executors run",
        happened,
        remedy: format!(
            "see whether POD_NAME ({name}) and POD_NAMESPACE ({}) are right, or name the image with --executor-image",
            args.namespace
        ),
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &args.namespace);
    let own = api.get(name).await.map_err(|error| failed(with_causes(&error)))?;
    let spec = own.spec.unwrap_or_default();
    let container = spec.containers.first().ok_or_else(|| failed("it has no container".to_owned()))?;
    settings.image = container.image.clone().ok_or_else(|| failed("its container has no image".to_owned()))?;
    settings.pull_policy = container.image_pull_policy.clone();
    settings.pull_secrets = spec.image_pull_secrets.into_iter().flatten().map(|secret| secret.name).collect();
    Ok(settings)
}

/// Reads `cpu=100m,memory=256Mi`.
fn quantities(field: &'static str, text: &str) -> Result<Option<BTreeMap<String, Quantity>>, CliError> {
    let wrong =
        |part: &str| CliError::input(field, format!("'{part}' is no resource"), "write such as cpu=100m,memory=256Mi");
    let mut all = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, amount) = part.split_once('=').ok_or_else(|| wrong(part))?;
        let milli = amount.strip_suffix('m').is_some_and(|number| number.parse::<u32>().is_ok());
        let decimal = amount.parse::<f64>().is_ok_and(|number| number.is_finite() && number > 0.0);
        if name.is_empty() || !(milli || decimal || parse_size(amount).is_ok()) {
            return Err(wrong(part));
        }
        all.insert(name.to_owned(), Quantity(amount.to_owned()));
    }
    Ok(Some(all).filter(|all| !all.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_or_refused() {
        let read = |text: &str| quantities("--executor-requests", text);
        let both = read("cpu=100m, memory=256Mi").expect("good").expect("some");
        assert_eq!(both.get("cpu"), Some(&Quantity("100m".to_owned())));
        assert_eq!(both.get("memory"), Some(&Quantity("256Mi".to_owned())));
        assert!(read("cpu=0.5,memory=1Gi").is_ok() && read("").expect("good").is_none());
        for wrong in ["cpu", "cpu=", "cpu=much", "=1", "memory=-1Gi"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
