//! The arguments of commands about storages.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::{Output, WaitArgs};
use crate::names::duration;

/// Commands about storages.
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Add a storage. Without a given password a random one is made and kept in the storage's Secret
    Add(AddStorage),
    /// List storages
    List {
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
    /// Have a storage checked now, and say what was found. Exits with 1 when anything is broken
    Check {
        /// Which.
        #[command(flatten)]
        which: RepositoryArgs,
        /// Check the repositories too: their structure, and the data of all packs, or of so many of a hundred
        #[arg(long, value_name = "PERCENT%", num_args = 0..=1, default_missing_value = "100%", require_equals = true,
            value_parser = percent)]
        read_data: Option<u8>,
        /// Take packs that are found damaged out of the index, so that the next snapshot stores again what they held. What is
        /// whole in them is written anew before; nothing is removed. Backups and restores wait meanwhile
        #[arg(long, requires = "read_data")]
        repair: bool,
        /// Give up waiting for the storage's answer after this time
        #[arg(long, value_parser = duration, value_name = "TIME", default_value = "60s")]
        timeout: Duration,
    },
    /// Give back the space of snapshots that were deleted. Backups and restores wait meanwhile
    Prune {
        /// Which.
        #[command(flatten)]
        which: RepositoryArgs,
        /// So much may stay unused, in percent of what is used [default: the storage's, else 5%]
        #[arg(long, value_name = "PERCENT%", value_parser = percent)]
        max_unused: Option<u8>,
        /// Say how much would be given back, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Replace the password of a storage's repositories. Their data is not written anew. Interrupted, give it again
    RotateKey {
        /// Its name
        #[arg(value_name = "[NAMESPACE/]NAME")]
        name: String,
        /// Read the new password from the first line of this file [default: a random one is made]
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the new password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Give up waiting for executors that use the old password after this time
        #[arg(long, value_parser = duration, value_name = "TIME", default_value = "10m")]
        timeout: Duration,
    },
    /// Remove locks whose holders are gone, and name those of others
    Unlock {
        /// Which.
        #[command(flatten)]
        which: RepositoryArgs,
        /// Remove locks that are in use, too. Whoever holds one ends without a result
        #[arg(long)]
        all: bool,
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

/// Which repositories of which storage.
#[derive(Clone, Debug, Args)]
pub struct RepositoryArgs {
    /// The storage
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub name: String,
    /// Only this repository of it, such as default/data
    #[arg(long, value_name = "PATH")]
    pub repository: Option<String>,
}

/// Reads a share such as `10%`; for clap.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| "write a share of 0% to 100%, such as 10%".to_owned())
}

/// Arguments of `lvault storage add`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").required(true).args(["local", "s3", "gcs", "azure"]))]
pub struct AddStorage {
    /// Its name
    pub name: String,
    /// Where the repositories go.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Read so much of each snapshot's data back before it counts, another part each time [default: 0%, its structure only]
    #[arg(long, value_name = "PERCENT%", value_parser = percent)]
    pub read_back_data: Option<u8>,
    /// Its namespace
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// Read the repositories' password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// Read the repositories' password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Where repositories go. The keys of a bucket are read from a file or from the environment, and never from an argument.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceArgs {
    /// The folder that holds the repositories, as an absolute path
    #[arg(long, value_name = "FOLDER")]
    pub local: Option<String>,
    /// A bucket of an S3-compatible store. Its keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    #[arg(long, value_name = "BUCKET", requires = "endpoint")]
    pub s3: Option<String>,
    /// A bucket of Google Cloud Storage. Its key: GOOGLE_SERVICE_ACCOUNT_JSON_KEY
    #[arg(long, value_name = "BUCKET")]
    pub gcs: Option<String>,
    /// A container of Azure Blob Storage. Its keys: AZURE_ACCOUNT_NAME, AZURE_ACCOUNT_KEY
    #[arg(long, value_name = "CONTAINER")]
    pub azure: Option<String>,
    /// The S3 server, such as https://s3.example.com, or Google's or Azure's where it is not the public one; http:// only
    /// without TLS
    #[arg(long, value_name = "URL", conflicts_with = "local")]
    pub endpoint: Option<String>,
    /// The bucket's region [default: us-east-1]
    #[arg(long, conflicts_with_all = ["local", "gcs", "azure"])]
    pub region: Option<String>,
    /// What stands before every repository's path in the bucket
    #[arg(long, value_name = "PATH", conflicts_with = "local")]
    pub prefix: Option<String>,
    /// The Azure storage account [default: AZURE_ACCOUNT_NAME]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["local", "s3", "gcs"])]
    pub account: Option<String>,
    /// Read the bucket's keys from this file, as lines NAME=VALUE, or as Google's JSON [default: from the environment]
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    pub credentials: Option<PathBuf>,
    /// Trust the certificates in this file, too, in PEM
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    pub ca_file: Option<PathBuf>,
    /// Do not check the server's certificate
    #[arg(long, conflicts_with_all = ["local", "gcs", "azure"])]
    pub insecure_tls: bool,
    /// How many requests may be under way at once [default: 5]
    #[arg(long, value_name = "N", conflicts_with = "local")]
    pub max_connections: Option<i32>,
    /// Upload no faster than this, in KiB per second
    #[arg(long, value_name = "N", conflicts_with = "local")]
    pub limit_upload: Option<u32>,
    /// Download no faster than this, in KiB per second
    #[arg(long, value_name = "N", conflicts_with = "local")]
    pub limit_download: Option<u32>,
}
