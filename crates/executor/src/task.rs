//! Reading the task that the node agent hands over.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use lvault_api::keys::RESTIC_PASSWORD;
use lvault_api::task::{Credentials, Secret, Task};

/// A task holds no more than this: a few names and a password.
const MAX_TASK: u64 = 1 << 20;

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Nothing could be read.
    #[error("cannot read the executor's task: {0}; executors are started by the node agent, not by hand")]
    Read(std::io::Error),
    /// What was read is no task. The text is not repeated: it holds a password.
    #[error(
        "the executor's task cannot be understood (line {line}, column {column}); was it started by another version of the node agent?"
    )]
    Malformed {
        /// Where reading ended.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// The storage's Secret is not mounted, or has no password.
    #[error(
        "cannot read the repository's password from {path}: {problem}; does the storage's Secret have the key RESTIC_PASSWORD?"
    )]
    Password {
        /// Where it was looked for.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// A key of the mounted Secret cannot be read.
    #[error("cannot read a key of the storage's Secret from {path}: {problem}; put text there")]
    Key {
        /// Where it was looked for.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
}

/// Reads one task to the end of the stream.
pub fn read_task(from: impl Read) -> Result<Task, TaskError> {
    let mut text = String::new();
    from.take(MAX_TASK).read_to_string(&mut text).map_err(TaskError::Read)?;
    serde_json::from_str(&text).map_err(|e| TaskError::Malformed { line: e.line(), column: e.column() })
}

/// Reads the task of a pod: its text from the environment, its password and keys from the mounted Secret.
pub fn read_pod_task(text: &OsStr, secret: &Path) -> Result<Task, TaskError> {
    let text = text.to_string_lossy();
    let task: Task =
        serde_json::from_str(&text).map_err(|e| TaskError::Malformed { line: e.line(), column: e.column() })?;
    let path = secret.join(RESTIC_PASSWORD);
    let failed = |problem: String| TaskError::Password { path: path.clone(), problem };
    let password = std::fs::read_to_string(&path).map_err(|e| failed(e.to_string()))?;
    if password.is_empty() {
        return Err(failed("it is empty".to_owned()));
    }
    let mut credentials = Credentials::new();
    for key in task.storage_spec.storage.provider.secret_keys() {
        let path = secret.join(key);
        match std::fs::read_to_string(&path) {
            Ok(value) => drop(credentials.insert((*key).to_owned(), Secret(value))),
            // Which of them have to be there is said by whoever uses them.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(TaskError::Key { path, problem: e.to_string() }),
        }
    }
    Ok(task.with_secrets(Secret(password), credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_lacks_its_password_says_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let malformed = read_pod_task(OsStr::new("{}"), folder.path()).unwrap_err().to_string();
        assert!(malformed.contains("line 1"), "{malformed}");
        let text = r#"{"name":"n","volume":"v","uid":"u","work":"Forget","storage":{"name":"s","namespace":"d"},
            "storage_spec":{"storage":{"provider":"local","local":{"path":"/p"}}},"path":"d/v","password":"",
            "api":"InCluster","lease":{"namespace":"d","name":"l","duration_seconds":30},"progress_seconds":10}"#;
        let missing = read_pod_task(OsStr::new(text), folder.path()).unwrap_err().to_string();
        assert!(missing.contains("RESTIC_PASSWORD") && missing.contains("No such file"), "{missing}");
        std::fs::write(folder.path().join(RESTIC_PASSWORD), "").unwrap();
        assert!(read_pod_task(OsStr::new(text), folder.path()).unwrap_err().to_string().contains("empty"));
        std::fs::write(folder.path().join(RESTIC_PASSWORD), "hunter2").unwrap();
        assert_eq!(read_pod_task(OsStr::new(text), folder.path()).unwrap().password, Secret("hunter2".to_owned()));
    }

    #[test]
    fn a_pod_reads_the_keys_its_provider_needs_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        for key in [RESTIC_PASSWORD, "AWS_ACCESS_KEY_ID", "AZURE_ACCOUNT_KEY"] {
            std::fs::write(folder.path().join(key), format!("the {key}")).unwrap();
        }
        let text = r#"{"name":"n","volume":"v","uid":"u","work":"Forget","storage":{"name":"s","namespace":"d"},
            "storage_spec":{"storage":{"provider":"s3","s3":{"endpoint":"e","bucket":"b"}}},"path":"d/v","password":"",
            "api":"InCluster","lease":{"namespace":"d","name":"l","duration_seconds":30},"progress_seconds":10}"#;
        let task = read_pod_task(OsStr::new(text), folder.path()).unwrap();
        let key = Secret("the AWS_ACCESS_KEY_ID".to_owned());
        assert_eq!(task.credentials, Credentials::from([("AWS_ACCESS_KEY_ID".to_owned(), key)]));
        std::fs::write(folder.path().join("AWS_SESSION_TOKEN"), b"hunter2\xff").unwrap();
        let error = read_pod_task(OsStr::new(text), folder.path()).unwrap_err().to_string();
        assert!(error.contains("AWS_SESSION_TOKEN") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_no_task_is_refused_without_repeating_it() {
        let error = read_task(&b"{\"password\": \"hunter2\"}"[..]).unwrap_err();
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("line 1"), "{error}");
    }
}
