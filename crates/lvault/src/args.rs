//! The command line: every command, argument and default. Nothing is done here.

mod cluster;
mod copies;
mod storage;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::cluster::{ControllerArgs, NodeArgs};
pub use self::copies::{DeletionPolicy, OnReadError, RestoreArgs, SnapshotCommand};
pub use self::storage::{AddStorage, PlaceArgs, RepositoryArgs, StorageCommand};
use crate::names::duration;

/// Node-local volumes whose online snapshots are copied off the node exactly once.
#[derive(Debug, Parser)]
#[command(name = "lvault", version, max_term_width = 110)]
pub struct Cli {
    /// Where to find lvault.
    #[command(flatten)]
    pub place: Place,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where lvault keeps its state and where its API answers.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// State folder [default: $LVAULT_STATE_DIR, else /var/lib/lvault for root, ~/.local/state/lvault for others]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Place")]
    pub state_dir: Option<PathBuf>,
    /// How to reach the API [default: $LVAULT_KUBECONFIG, else the kubeconfig in the state folder]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Place")]
    pub kubeconfig: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole way: snapshot a volume that is written to, throw it away, restore it, compare
    Demo(DemoArgs),
    /// Run lvault on this node, in the foreground
    Up(UpArgs),
    /// Volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Snapshots that are copied off the node
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Fill a new volume from a repository
    Restore(RestoreArgs),
    /// Storages: where repositories of snapshots are kept
    #[command(subcommand)]
    Storage(StorageCommand),
    /// List everything, one kind, or one object
    Get(GetArgs),
    /// Say what an object is waiting for, and what to do
    Why(WhyArgs),
    /// Copy the state's objects out of a stopped lvault, or into a new one
    #[command(subcommand)]
    State(StateCommand),
    /// Print the version
    Version,
    /// Print completions for a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Run the agent of one node of a Kubernetes cluster (a DaemonSet runs it)
    Node(NodeArgs),
    /// Run the controller of a Kubernetes cluster (a Deployment runs it)
    Controller(ControllerArgs),
    /// Run one attempt of an online operation (started by the node agent)
    #[command(hide = true)]
    Executor,
}

/// Where volumes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Image files where they work (root, loop devices), otherwise folders.
    Auto,
    /// Image files with filesystems of their own, attached by loop device.
    Image,
    /// Folders.
    Directory,
    /// Logical volumes, in the volume groups that lvmd.yaml names.
    Lvm,
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// Whether to wait.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitArgs {
    /// Wait for the end, showing progress; exit non-zero when it fails
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this time, such as 30s or 5m (what was asked for goes on)
    #[arg(long, value_parser = duration, value_name = "TIME", requires = "wait")]
    pub timeout: Option<Duration>,
}

/// Arguments of `lvault up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Where volumes live
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// This node's name [default: as at the last start, else the host's name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// The loopback address of the TLS port; with port 0 the port of the last start, or a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The size of the image engine's own pool, where it has to make one [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    pub pool_size: Option<String>,
    /// The lvm engine's device classes, in TopoLVM's words [default: /etc/topolvm/lvmd.yaml]
    #[arg(long, value_name = "FILE")]
    pub lvmd_config: Option<PathBuf>,
    /// The knobs of tests.
    #[command(flatten)]
    pub knobs: Knobs,
}

/// Times that tests shorten.
#[derive(Clone, Copy, Debug, Args)]
pub struct Knobs {
    /// How long an executor may be silent before it counts as hung
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "30s")]
    pub lease_duration: Duration,
    /// How often an executor writes its progress
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "10s")]
    pub progress_interval: Duration,
    /// How often everything is looked at without a cause
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "10m")]
    pub resync: Duration,
    /// How long an attempt waits for its storage or source before it fails
    #[arg(long, hide = true, value_parser = duration, value_name = "TIME", default_value = "10m")]
    pub start_deadline: Duration,
}

/// Arguments of `lvault demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Where volumes live
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: Engine,
    /// The lvm engine's device classes, in TopoLVM's words [default: /etc/topolvm/lvmd.yaml]
    #[arg(long, value_name = "FILE")]
    pub lvmd_config: Option<PathBuf>,
    /// Fill the volume with a copy of this folder instead of made-up files
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Leave everything in place and say how to look at it
    #[arg(long)]
    pub keep: bool,
}

/// Where a volume of the lvm engine lies.
#[derive(Clone, Debug, Default, Args)]
pub struct PlacementArgs {
    /// Its device class (engine lvm) [default: the default one]
    #[arg(long, value_name = "NAME")]
    pub device_class: Option<String>,
    /// The lvcreate-option-class whose options replace those of its device class (engine lvm)
    #[arg(long, value_name = "NAME")]
    pub lvcreate_option_class: Option<String>,
}

/// Commands about volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make an empty volume
    Create {
        /// Its name
        name: String,
        /// Its size, such as 500Mi or 10Gi
        #[arg(long)]
        size: String,
        /// Its filesystem [default: the engine's]
        #[arg(long, value_enum)]
        filesystem: Option<Filesystem>,
        /// The node that holds it [default: this one]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Where it lies.
        #[command(flatten)]
        placement: PlacementArgs,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// List volumes
    List {
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Grow a volume; it can stay in use
    Resize {
        /// Its name
        name: String,
        /// Its new size, such as 20Gi
        size: String,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete a volume and its data
    Delete {
        /// Its name
        name: String,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Print the folder in which a volume's files are
    Path {
        /// Its name
        name: String,
    },
}

/// Filesystems of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Filesystem {
    /// ext4, at least 32Mi.
    Ext4,
    /// XFS, at least 300Mi.
    Xfs,
    /// btrfs, at least 200Mi; with engine lvm only.
    Btrfs,
}

/// Arguments of `lvault get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// volumes, snapshots, restores, storages, or the name of one object [default: everything]
    #[arg(value_name = "KIND|NAME")]
    pub what: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// Commands about the state.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Write all objects as one JSON document, a `v1` List. lvault has to be stopped
    Export {
        /// The file to write, which must not exist yet; - is standard output
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        /// Write Secrets, too: with them the document holds passwords in the clear
        #[arg(long)]
        include_secrets: bool,
    },
    /// Make the state of a new state folder from an export. The objects come back, volumes and tokens do not
    Import {
        /// The file to read; - is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Arguments of `lvault why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// A volume, snapshot, restore or storage
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {} has no description", argument.get_id());
            }
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn what_belongs_together_is_asked_for_together() {
        for (line, good) in [
            ("restore v --from s", true),
            ("restore v --storage s --path default/v --snapshot-id 0123abcd --size 1Gi", true),
            ("restore v --retry --wait", true),
            ("restore v --storage s --path default/v --snapshot-id 0123abcd", false),
            ("restore v --from s --storage t --path p --snapshot-id 0123abcd --size 1Gi", false),
            ("restore v --retry --from s", false),
            ("restore v --from s --device-class ssd --lvcreate-option-class raid", true),
            ("restore v --retry --device-class ssd", false),
            ("volume create v", false),
            ("volume create v --size 1Gi --timeout 5s", false),
            ("volume create v --size 1Gi --wait --timeout 5", false),
            ("snapshot create s --source v --storage t --backoff-limit 0", false),
            ("up --engine lvm --lvmd-config /etc/lvmd.yaml", true),
            ("volume create v --size 1Gi --device-class ssd --lvcreate-option-class raid", true),
            ("up --engine zfs", false),
            ("up --listen here", false),
            ("storage add s --local /x --password-file f --password-stdin", false),
            ("storage check s --read-data --repository default/v", true),
            ("storage check s --read-data=10%", true),
            ("storage check s --read-data=101%", false),
            ("storage prune s --max-unused 0% --dry-run", true),
            ("storage prune s --max-unused -1", false),
            ("storage unlock team/s --all", true),
            (
                "storage add s --s3 b --endpoint https://x --region r --prefix p --limit-upload 9 --limit-download 9",
                true,
            ),
            ("storage add s --azure c --account a", true),
            ("storage add s --azure c --endpoint https://x", true),
            ("storage add s --gcs b --credentials f", true),
            ("storage add s --gcs b --endpoint https://x", true),
            ("storage add s", false),
            ("storage add s --s3 b", false),
            ("storage add s --s3 b --endpoint x --gcs c", false),
            ("storage add s --local /x --prefix p", false),
            ("storage add s --local /x --endpoint x", false),
            ("get -o xml", false),
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("lvault").chain(line.split(' ')));
            assert_eq!(parsed.is_ok(), good, "{line}: {parsed:?}");
        }
    }
}
