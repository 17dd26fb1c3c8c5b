//! lvault on a Kubernetes cluster: the node agent and the controller, each as a process of its own. The reconcilers are
//! those of `lvault up`; what differs is the client, how executors are launched, and that others look after the process.

pub mod controller;
pub mod health;
pub mod node;
mod preflight;

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::Place;
use crate::error::CliError;
use crate::server::{user_agent, with_causes};
use crate::state;

/// A client of the cluster: by the kubeconfig that the flag or the environment names, else as the pod this is.
async fn client(place: &Place, program: &'static str) -> Result<Client, CliError> {
    let variable = || std::env::var_os(state::KUBECONFIG).filter(|value| !value.is_empty()).map(PathBuf::from);
    let failed = |happened: String| CliError::Server {
        tried: "finding the cluster's API",
        happened,
        remedy: "run it in a pod with a ServiceAccount, or name a kubeconfig with --kubeconfig".to_owned(),
    };
    let mut config = match place.kubeconfig.clone().or_else(variable) {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(&file).map_err(|error| failed(with_causes(&error)))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| failed(with_causes(&error)))?
        }
        None => Config::infer().await.map_err(|error| failed(with_causes(&error)))?,
    };
    config.headers.push(user_agent(program));
    config.connect_timeout = Some(Duration::from_secs(5));
    // A watch is a read that lasts up to five minutes.
    config.read_timeout = Some(Duration::from_secs(300));
    config.write_timeout = Some(Duration::from_secs(20));
    Client::try_from(config).map_err(|error| failed(with_causes(&error)))
}
