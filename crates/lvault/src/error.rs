//! What the command line says when something did not work: what was tried, what happened, what to do next.
//!
//! Every error that reaches a user is a [`CliError`]. Its `Display` is what was tried and what happened; the remedy is
//! printed on a line of its own.

use std::path::PathBuf;
use std::time::Duration;

use lvault_api::{InvalidSize, InvalidSpec, InvalidStorage};

/// A field that the API server refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The field, as a path.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Something the user wrote cannot be used.
    #[error("{field}: {problem}")]
    Input {
        /// The argument or field.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        remedy: String,
    },
    /// An object does not exist.
    #[error("there is no {kind} '{name}'")]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What there is instead.
        remedy: String,
    },
    /// What is asked for cannot be done in the present state.
    #[error("{tried} is not possible: {happened}")]
    Impossible {
        /// What was tried.
        tried: String,
        /// What stands in its way.
        happened: String,
        /// What to do about it.
        remedy: String,
    },
    /// The API server refused a request by fields.
    #[error("{tried} was refused: {}", listed(.causes))]
    Refused {
        /// What was tried.
        tried: String,
        /// The fields and their problems.
        causes: Vec<Cause>,
    },
    /// The API server answered with an error.
    #[error("{tried} failed: {happened}")]
    Api {
        /// What was tried.
        tried: String,
        /// What the server said.
        happened: String,
        /// What to do about it.
        remedy: String,
    },
    /// Nobody answers.
    #[error("nothing answers at {address}: {happened}")]
    NoServer {
        /// Where the server was looked for.
        address: String,
        /// What happened.
        happened: String,
        /// How to start it.
        remedy: String,
    },
    /// An operation that was waited for has failed.
    #[error("{what} failed: {code}: {message}")]
    Failed {
        /// The object.
        what: String,
        /// The stable word for programs.
        code: String,
        /// What happened.
        message: String,
        /// What to do next.
        remedy: String,
    },
    /// An operation that was waited for did not end in time.
    #[error("{what} is not done after {} s: {now}", waited.as_secs())]
    TimedOut {
        /// The object.
        what: String,
        /// How long was waited.
        waited: Duration,
        /// Where it stands.
        now: String,
        /// What to do next.
        remedy: String,
    },
    /// A repository could not be worked on.
    #[error("{tried} failed: {happened}")]
    Repository {
        /// What was tried.
        tried: String,
        /// What happened.
        happened: String,
        /// What to do about it.
        remedy: String,
    },
    /// A file or folder of lvault's own could not be used.
    #[error("{tried} {} failed: {happened}", path.display())]
    File {
        /// What was tried, to be read before the path.
        tried: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        happened: String,
        /// What to do about it.
        remedy: String,
    },
    /// A part of the server could not be started or has ended.
    #[error("{tried} failed: {happened}")]
    Server {
        /// What was tried.
        tried: &'static str,
        /// What happened.
        happened: String,
        /// What to do about it.
        remedy: String,
    },
    /// The demo found that what came back is not what went in, or could not do one of its steps.
    #[error("{tried}: {happened}")]
    Demo {
        /// What was tried.
        tried: &'static str,
        /// What happened.
        happened: String,
        /// What to do about it.
        remedy: String,
    },
}

fn listed(causes: &[Cause]) -> String {
    let each = causes.iter().map(|cause| match cause.field.as_str() {
        "" => cause.message.clone(),
        field => format!("{field}: {}", cause.message),
    });
    each.collect::<Vec<_>>().join("; ")
}

impl CliError {
    /// What to do next, in one sentence or two.
    pub fn remedy(&self) -> &str {
        match self {
            CliError::Refused { .. } => "change the fields named above and try again",
            CliError::Input { remedy, .. }
            | CliError::NotFound { remedy, .. }
            | CliError::Impossible { remedy, .. }
            | CliError::Api { remedy, .. }
            | CliError::NoServer { remedy, .. }
            | CliError::Failed { remedy, .. }
            | CliError::TimedOut { remedy, .. }
            | CliError::Repository { remedy, .. }
            | CliError::File { remedy, .. }
            | CliError::Server { remedy, .. }
            | CliError::Demo { remedy, .. } => remedy,
        }
    }

    /// The process's exit code: 2 for what the user can write otherwise, 3 for what is not done yet, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Input { .. }
            | CliError::NotFound { .. }
            | CliError::Impossible { .. }
            | CliError::Refused { .. } => 2,
            CliError::TimedOut { .. } => 3,
            CliError::Api { .. }
            | CliError::NoServer { .. }
            | CliError::Failed { .. }
            | CliError::Repository { .. }
            | CliError::File { .. }
            | CliError::Server { .. }
            | CliError::Demo { .. } => 1,
        }
    }

    /// An argument that cannot be used.
    pub fn input(field: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        CliError::Input { field: field.into(), problem: problem.into(), remedy: remedy.into() }
    }

    /// A size that cannot be used.
    pub fn size(field: impl Into<String>, error: &InvalidSize) -> Self {
        CliError::input(field, error.to_string(), "write a size such as 500Mi, 10Gi or 1.5Ti")
    }

    /// A file or folder of our own that could not be used.
    pub fn file(
        tried: &'static str,
        path: impl Into<PathBuf>,
        happened: impl ToString,
        remedy: impl Into<String>,
    ) -> Self {
        CliError::File { tried, path: path.into(), happened: happened.to_string(), remedy: remedy.into() }
    }
}

/// Which argument a field of a LogicalVolume comes from.
const ARGUMENTS: &[(&str, &str)] = &[
    ("spec.size", "--size"),
    ("spec.source", "--source"),
    ("spec.restore.path", "--path"),
    ("spec.restore.snapshotID", "--snapshot-id"),
    ("spec.filesystem", "--filesystem"),
    ("spec.storage.local.path", "--local"),
    ("spec.storage.s3.bucket", "--s3"),
    ("spec.storage.gcs.bucket", "--gcs"),
    ("spec.storage.azure.container", "--azure"),
    ("spec.storage.azure.storageAccount", "--account"),
    ("spec.storage.s3.endpoint", "--endpoint"),
    ("spec.storage.azure.endpoint", "--endpoint"),
    ("spec.storage.gcs.endpoint", "--endpoint"),
    ("spec.storage.s3.region", "--region"),
    ("spec.storage.s3.prefix", "--prefix"),
    ("spec.storage.gcs.prefix", "--prefix"),
    ("spec.storage.azure.prefix", "--prefix"),
    ("spec.storage.s3.maxConnections", "--max-connections"),
    ("spec.storage.gcs.maxConnections", "--max-connections"),
    ("spec.storage.azure.maxConnections", "--max-connections"),
    ("spec.backupFlags", "--limit-upload"),
    ("spec.globalFlags", "--limit-download"),
];

/// A field together with the argument it comes from.
pub(crate) fn named(field: &str) -> String {
    match ARGUMENTS.iter().find(|(path, _)| *path == field) {
        Some((path, argument)) => format!("{argument} ({path})"),
        None => field.to_owned(),
    }
}

impl From<InvalidSpec> for CliError {
    fn from(InvalidSpec { field, problem }: InvalidSpec) -> Self {
        CliError::input(named(field), problem, format!("give another value for {}", named(field)))
    }
}

impl From<InvalidStorage> for CliError {
    fn from(InvalidStorage { field, problem }: InvalidStorage) -> Self {
        CliError::input(named(field), problem, format!("give another value for {}", named(field)))
    }
}
