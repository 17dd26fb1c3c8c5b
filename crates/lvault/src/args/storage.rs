//! The arguments of commands about storages.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use super::{Output, WaitArgs};
use crate::names::duration;

/// Commands about storages.
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Add a storage. Without a given password a random one is made and kept in the storage's Secret
    Add {
        /// Its name
        name: String,
        /// The folder that holds the repositories, as an absolute path
        #[arg(long, value_name = "FOLDER")]
        local: String,
        /// Its namespace
        #[arg(long, default_value = "default")]
        namespace: String,
        /// Read the repositories' password from the first line of this file
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the repositories' password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// List storages
    List {
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Have a storage checked now, and print what was found
    Check {
        /// Its name
        #[arg(value_name = "[NAMESPACE/]NAME")]
        name: String,
        /// Give up waiting for the answer after this time
        #[arg(long, value_parser = duration, value_name = "TIME", default_value = "60s")]
        timeout: Duration,
    },
    /// Forget a storage. The repositories in it stay, and so does the Secret with their password
    Delete {
        /// Its name
        #[arg(value_name = "[NAMESPACE/]NAME")]
        name: String,
        /// Also when snapshots or restores refer to it
        #[arg(long)]
        force: bool,
    },
}
