//! What a node agent is told when it is started.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use lvault_api::task::ApiAccess;

/// The settings of a node agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node whose volumes it owns (`spec.nodeName`).
    pub node_name: String,
    /// The folder with its lock and its executors.
    pub state_dir: PathBuf,
    /// The namespace of executors' leases; where empty, each is in the namespace of its storage, as pods are.
    pub namespace: String,
    /// How executors reach the API.
    pub api: ApiAccess,
    /// How long an executor may go without a renewal of its lease before it is ended.
    pub lease_duration: Duration,
    /// How often executors write their progress.
    pub progress_interval: Duration,
    /// How long an attempt may wait for its source, its storage or its mount before it fails.
    pub start_deadline: Duration,
    /// How often every volume is looked at although nothing has happened.
    pub resync: Duration,
    /// How often the health of the storage is looked at.
    pub health_interval: Duration,
    /// Keep volumes mounted for programs of this host.
    pub serve: bool,
    /// Run engine calls on threads that may block; otherwise in line, for a simulation.
    pub blocking_threads: bool,
    /// The clock that statuses are stamped with.
    pub now: fn() -> Timestamp,
}

impl AgentConfig {
    /// The settings of an agent on a host of its own, with all times at their defaults.
    pub fn for_host(node_name: String, state_dir: PathBuf, kubeconfig: PathBuf) -> Self {
        AgentConfig {
            node_name,
            state_dir,
            namespace: "default".to_owned(),
            api: ApiAccess::Kubeconfig(kubeconfig),
            lease_duration: Duration::from_secs(30),
            progress_interval: Duration::from_secs(10),
            start_deadline: Duration::from_secs(600),
            resync: Duration::from_secs(600),
            health_interval: Duration::from_secs(60),
            serve: true,
            blocking_threads: true,
            now: Timestamp::now,
        }
    }
}
