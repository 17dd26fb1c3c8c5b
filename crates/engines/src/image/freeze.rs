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
pub(crate) enum NotFrozen {
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
pub(crate) fn while_frozen<T>(
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
pub(crate) fn thaw(tools: &Tools, mount: &Path) -> Result<bool, EngineError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::path::PathBuf;

    /// An ext4 filesystem of its own, unmounted and removed when dropped.
    struct Mounted {
        _folder: tempfile::TempDir,
        point: PathBuf,
        tools: Tools,
    }

    impl Mounted {
        /// `None`, said loudly, without root.
        fn new() -> Option<Mounted> {
            if !rustix::process::geteuid().is_root() {
                eprintln!("SKIPPED, NOT TESTED: freezing needs root");
                return None;
            }
            let folder = tempfile::tempdir().unwrap();
            let (image, point) = (folder.path().join("image"), folder.path().join("mnt"));
            File::create(&image).unwrap().set_len(32 << 20).unwrap();
            fs::create_dir(&point).unwrap();
            let tools = Tools::find(Duration::from_secs(30));
            tools.run(Tool::MkfsExt4, &[OsStr::new("-q"), image.as_os_str()], None, "mkfs").unwrap();
            let args = [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), point.as_os_str()];
            tools.run(Tool::Mount, &args, None, "mount").unwrap().ok("mount", Retry::Never).unwrap();
            Some(Mounted { _folder: folder, point, tools })
        }

        /// How long a write takes, done by a thread so that a frozen filesystem does not hang the test.
        fn write_within(&self, limit: Duration) -> bool {
            let file = self.point.join("file");
            let (done, heard) = std::sync::mpsc::channel();
            std::thread::spawn(move || done.send(fs::write(file, "x").is_ok()));
            heard.recv_timeout(limit) == Ok(true)
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _thawed = thaw(&self.tools, &self.point);
            std::thread::sleep(Duration::from_millis(50));
            let _unmounted = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn writers_wait_while_it_is_frozen_and_go_on_after() {
        let Some(mounted) = Mounted::new() else { return };
        let waited = while_frozen(&mounted.tools, &mounted.point, 5 * SECOND, || {
            Ok(!mounted.write_within(Duration::from_millis(200)))
        });
        assert!(waited.unwrap(), "a write went through");
        assert!(mounted.write_within(SECOND));
        assert!(!thaw(&mounted.tools, &mounted.point).unwrap(), "it is not frozen any more");
    }

    #[test]
    fn work_that_takes_longer_than_the_budget_counts_for_nothing_and_writers_go_on_meanwhile() {
        let Some(mounted) = Mounted::new() else { return };
        let budget = Duration::from_millis(200);
        let mut wrote = false;
        let outcome = while_frozen(&mounted.tools, &mounted.point, budget, || {
            std::thread::sleep(2 * budget);
            wrote = mounted.write_within(SECOND);
            Ok(())
        });
        assert!(matches!(outcome, Err(NotFrozen::Budget)), "{outcome:?}");
        assert!(wrote, "writers had to wait for work that was given up");
    }

    #[test]
    fn failed_work_thaws_and_says_its_own_error() {
        let Some(mounted) = Mounted::new() else { return };
        let failing = || Err::<(), _>(EngineError::NeedsRoot);
        let outcome = while_frozen(&mounted.tools, &mounted.point, SECOND, failing);
        assert!(matches!(outcome, Err(NotFrozen::Work(EngineError::NeedsRoot))), "{outcome:?}");
        let panicked = std::panic::catch_unwind(|| {
            while_frozen(&mounted.tools, &mounted.point, 30 * SECOND, || -> Result<(), _> { panic!("in the middle") })
        });
        assert!(panicked.is_err());
        assert!(mounted.write_within(SECOND));
    }

    #[test]
    fn what_somebody_else_has_frozen_is_not_thawed() {
        let Some(mounted) = Mounted::new() else { return };
        let args = [OsStr::new("--freeze"), mounted.point.as_os_str()];
        mounted.tools.run(Tool::Fsfreeze, &args, None, "freeze").unwrap().ok("freeze", Retry::Never).unwrap();
        let outcome = while_frozen(&mounted.tools, &mounted.point, SECOND, || Ok(()));
        let Err(NotFrozen::Failed(reason)) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("busy"), "{reason}");
        assert!(thaw(&mounted.tools, &mounted.point).unwrap(), "it was still frozen");
    }

    /// The process that holds the freeze, or its guard, is killed in the middle.
    #[test]
    fn a_killed_holder_and_a_killed_guard_leave_nothing_frozen() {
        let Some(mounted) = Mounted::new() else { return };
        let mut holder = holder_process(&mounted.point);
        assert!(!mounted.write_within(Duration::from_millis(200)), "the holder does not hold");
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(mounted.write_within(SECOND), "frozen after its holder was killed");

        let outcome = while_frozen(&mounted.tools, &mounted.point, 30 * SECOND, || {
            kill_guard(&mounted.point);
            Ok(())
        });
        assert!(matches!(outcome, Err(NotFrozen::Failed(_))), "{outcome:?}");
        assert!(mounted.write_within(SECOND), "frozen after its guard was killed");
    }

    const POINT: &str = "LVAULT_ENGINES_FREEZE_POINT";

    #[expect(clippy::disallowed_methods, reason = "the test starts itself again")]
    fn holder_process(point: &Path) -> Child {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "image::freeze::tests::holds_until_killed", "--nocapture"]).env(POINT, point);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap().contains("holding")), "the holder never froze");
        child
    }

    /// Not a test by itself: the process that is killed.
    #[test]
    fn holds_until_killed() {
        let Ok(point) = std::env::var(POINT) else { return };
        let tools = Tools::find(Duration::from_secs(30));
        let outcome = while_frozen(&tools, Path::new(&point), 60 * SECOND, || {
            println!("holding");
            std::thread::sleep(60 * SECOND);
            Ok(())
        });
        panic!("it was not killed: {outcome:?}");
    }

    /// Kills the guard of this mount and what it runs, as an administrator might.
    fn kill_guard(point: &Path) {
        let is_guard = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments: Vec<_> = line.split(|byte| *byte == 0).collect();
            let guards_it = arguments.contains(&b"lvault-freeze".as_slice())
                && arguments.contains(&point.as_os_str().as_encoded_bytes());
            // A child that has not become `timeout` yet looks the same.
            let leads = |pid| rustix::process::getpgid(Some(pid)) == Ok(pid);
            guards_it && rustix::process::Pid::from_raw(pid.cast_signed()).is_some_and(leads)
        };
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let guards = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_guard);
        let guards: Vec<u32> = guards.collect();
        assert_eq!(guards.len(), 1, "{guards:?}");
        let pid = rustix::process::Pid::from_raw(guards[0].try_into().unwrap()).unwrap();
        rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
    }
}
