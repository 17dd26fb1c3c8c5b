//! The arguments of what a cluster runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Engine, Knobs};
use crate::names::duration;

/// Arguments of `lvault node`.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The node whose volumes it keeps
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,
    /// The agent's own namespace
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "lvault-system")]
    pub namespace: String,
    /// The agent's own pod, whose image executors run
    #[arg(long, env = "POD_NAME", value_name = "NAME", required_unless_present = "executor_image")]
    pub pod_name: Option<String>,
    /// Where volumes live
    #[arg(long, value_enum, default_value = "image")]
    pub engine: Engine,
    /// The size of the image engine's own pool, where it has to make one [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    pub pool_size: Option<String>,
    /// The lvm engine's device classes, in TopoLVM's words [default: /etc/topolvm/lvmd.yaml]
    #[arg(long, value_name = "FILE")]
    pub lvmd_config: Option<PathBuf>,
    /// The image of executors [default: the agent's own]
    #[arg(long, value_name = "IMAGE")]
    pub executor_image: Option<String>,
    /// The ServiceAccount of executors, in the namespace of each storage
    #[arg(long, value_name = "NAME", default_value = "lvault-executor")]
    pub executor_service_account: String,
    /// What an executor asks for, such as cpu=100m,memory=256Mi
    #[arg(long, value_name = "RESOURCES", default_value = "cpu=100m,memory=256Mi")]
    pub executor_requests: String,
    /// What an executor may use at most, such as memory=1Gi; empty is no limit
    #[arg(long, value_name = "RESOURCES", default_value = "memory=1Gi")]
    pub executor_limits: String,
    /// How long an executor's pod may take to start, image and all, before it counts as lost
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "5m")]
    pub executor_start_deadline: Duration,
    /// A folder of the host in which local storages may be; can be given more than once
    #[arg(long, value_name = "FOLDER")]
    pub local_storage: Vec<PathBuf>,
    /// The uid of the own pod, about which events tell what is missing
    #[arg(long, hide = true, env = "POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// Where /livez, /readyz and /metrics answer, over plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9808")]
    pub health_listen: SocketAddr,
    /// The knobs of tests.
    #[command(flatten)]
    pub knobs: Knobs,
}

/// Arguments of `lvault controller`.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// The controller's own namespace
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "lvault-system")]
    pub namespace: String,
    /// The namespace that holds the Lease of the one that works; executors should have no rights there
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    pub election_namespace: String,
    /// What this controller is called in that Lease [default: the host's name and the process]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// How long the one that works may be silent before another takes over
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "15s")]
    pub lease_duration: Duration,
    /// How often volumes of nodes that are gone are looked for
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "30s")]
    pub abandoned_interval: Duration,
    /// How long the agent of a node may take to begin with an object before somebody else says that it does not
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "30s")]
    pub unattended_after: Duration,
    /// The uid of the own pod, about which events tell what is missing
    #[arg(long, hide = true, env = "POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
    /// Where /livez, /readyz and /metrics answer, over plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9809")]
    pub health_listen: SocketAddr,
}
