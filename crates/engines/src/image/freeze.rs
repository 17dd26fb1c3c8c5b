//! Keeping a filesystem frozen while it is cloned, whoever dies meanwhile.
//!
//! The freeze is held by a small guard process in its own process group. It thaws when we say so (by closing its
//! stdin), when we die (the kernel closes it for us), or when the budget is used up, and it tells which: so a clone
//! counts only when the filesystem was frozen to its end. Should the guard itself be killed, we thaw; should both be,
//! `recover` does.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use crate::error::{EngineError, Retry};
use crate::tools::{Tool, Tools, await_readable, end, output, text, wait};

/// `timeout` is told to kill, for its child inherits that the other signals are ignored; it then answers 124 or 137.
const GUARD: &str = r#"
trap '' HUP INT TERM PIPE
fsfreeze --freeze "$1" || exit 3
echo frozen
timeout --signal=KILL "$2" cat >/dev/null
ended=$?
fsfreeze --unfreeze "$1" || exit 4
if [ "$ended" -eq 0 ]; then echo released; else echo late; fi
"#;

/// How long the guard may take to thaw once it is told to. Thawing waits for nothing.
const THAW_LIMIT: Duration = Duration::from_secs(10);

/// Why something was not done to a frozen filesystem.
#[derive(Debug)]
pub(super) enum NotFrozen {
    /// The budget was used up before the work was done. The filesystem is thawed; what the work made is no snapshot.
    Budget,
    /// The filesystem could not be frozen, or nobody can say whether it was to the end.
    Failed(String),
    /// It was frozen, but the work itself failed.
    Work(EngineError),
}

impl From<EngineError> for NotFrozen {
    fn from(error: EngineError) -> Self {
        NotFrozen::Work(error)
    }
}

/// Does something while the filesystem mounted at `mount` takes no writes. `budget` bounds the wait for the freeze (for
/// what is unwritten is written first), and then again how long it lasts.
///
/// The filesystem is thawed whatever this returns, and also when this process dies in the middle.
pub(super) fn while_frozen<T>(
    tools: &Tools,
    mount: &Path,
    budget: Duration,
    work: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, NotFrozen> {
    let mut guard = Guard::start(tools, mount, budget)?;
    let done = work();
    let verdict = guard.release();
    if verdict.is_err() {
        thaw(tools, mount)?;
    }
    verdict?;
    Ok(done?)
}

/// Thaws a filesystem; answers whether it was frozen.
pub(super) fn thaw(tools: &Tools, mount: &Path) -> Result<bool, EngineError> {
    let args = [OsStr::new("--unfreeze"), mount.as_os_str()];
    let attempted = format!("thawing {}", mount.display());
    let finished = tools.run(Tool::Fsfreeze, &args, None, &attempted)?;
    match finished.code() {
        Some(0) => Ok(true),
        // What the kernel answers when nothing is frozen.
        Some(_) if finished.stderr.contains("Invalid argument") => Ok(false),
        Some(_) | None => Err(finished.failed(&attempted, Retry::Later)),
    }
}

struct Guard {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: std::fs::File,
    said: String,
}

impl Guard {
    fn start(tools: &Tools, mount: &Path, budget: Duration) -> Result<Guard, NotFrozen> {
        let io = |what| EngineError::io::<std::io::Error>(what, mount);
        let stderr = output().map_err(io("making a file for messages about freezing"))?;
        // Zero would mean no limit.
        let seconds = format!("{:.3}", budget.as_secs_f64().max(0.001));
        let args = [mount.as_os_str(), OsStr::new(&seconds)];
        let messages = stderr.try_clone().map_err(io("sharing messages about freezing"))?;
        let mut child = tools.spawn_shell(GUARD, &args, messages)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Some(stdout) = stdout else { return Err(NotFrozen::Failed("the guard has no output".into())) };
        let mut guard = Guard { child: Some(child), stdin, stdout, stderr, said: String::new() };
        // The limit of `timeout` counts from the freeze; this one from the start of the guard.
        match guard.hear("frozen", budget.max(Duration::from_millis(100))) {
            Heard::Word => Ok(guard),
            Heard::Silence => Err(NotFrozen::Budget),
            Heard::End => Err(NotFrozen::Failed(guard.complaint())),
        }
    }

    /// Lets the guard thaw, and returns whether the filesystem was frozen up to now.
    fn release(&mut self) -> Result<(), NotFrozen> {
        drop(self.stdin.take());
        match self.hear("released", THAW_LIMIT) {
            Heard::Word => Ok(()),
            Heard::End if self.said.lines().any(|line| line == "late") => Err(NotFrozen::Budget),
            Heard::End | Heard::Silence => {
                Err(NotFrozen::Failed(format!("its guard ended without thawing it: {}", self.complaint())))
            }
        }
    }

    fn complaint(&mut self) -> String {
        let text = text(&mut self.stderr).unwrap_or_default();
        let text = text.trim();
        if text.is_empty() { "the guard said nothing".into() } else { text.replace('\n', "; ") }
    }

    fn hear(&mut self, word: &str, limit: Duration) -> Heard {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 64];
        loop {
            if self.said.lines().any(|line| line == word) {
                return Heard::Word;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            if !matches!(await_readable(self.stdout.as_fd(), left), Ok(true)) {
                continue;
            }
            match self.stdout.read(&mut buffer) {
                Ok(0) | Err(_) => return Heard::End,
                Ok(read) => self.said.push_str(&String::from_utf8_lossy(&buffer[..read])),
            }
        }
    }
}

enum Heard {
    Word,
    Silence,
    End,
}

impl Drop for Guard {
    /// Tells the guard to thaw, where nobody has yet, and leaves it the time to: killing it would leave the freeze.
    fn drop(&mut self) {
        drop(self.stdin.take());
        let Some(mut child) = self.child.take() else { return };
        if matches!(wait(&mut child, Duration::from_millis(500)), Ok(Some(_))) {
            return;
        }
        std::thread::spawn(move || match wait(&mut child, Duration::from_secs(600)) {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => end(child),
        });
    }
}
