//! Reading the task that the node agent hands over.

use std::io::Read;

use lvault_api::task::Task;

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
}

/// Reads one task to the end of the stream.
pub fn read_task(from: impl Read) -> Result<Task, TaskError> {
    let mut text = String::new();
    from.take(MAX_TASK).read_to_string(&mut text).map_err(TaskError::Read)?;
    serde_json::from_str(&text).map_err(|e| TaskError::Malformed { line: e.line(), column: e.column() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_task_is_refused_without_repeating_it() {
        let error = read_task(&b"{\"password\": \"hunter2\"}"[..]).unwrap_err();
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("line 1"), "{error}");
    }
}
