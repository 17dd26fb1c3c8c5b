//! The processes of a run: how they are started, found, stopped and ended. The only place that starts programs.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lvault_api::task::Task;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long anything may take before the test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// A program to run.
#[expect(clippy::disallowed_methods, reason = "the one place where these tests start programs")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Waits until `look` finds something, and no longer than the deadline.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// Runs a program to its end, which has to be a success.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("a program that can be started");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A process that is somebody else's child, held so that its number cannot become another's.
///
/// A process group that loses its last parent while a member is stopped gets SIGHUP and SIGCONT from the kernel. So a
/// stopped process keeps company in its group, whose parent is this test: an agent's death then says nothing to it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    handle: OwnedFd,
    company: RefCell<Option<Child>>,
}

impl Process {
    /// Takes hold of a process; `None` when it is gone.
    pub(crate) fn hold(pid: u32) -> Option<Process> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let handle = pidfd_open(number, PidfdFlags::empty()).ok()?;
        Some(Process { pid, handle, company: RefCell::default() })
    }

    /// Stops it, and waits until the kernel has.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        until("the process stops", || matches!(self.state(), Some('T' | 'Z') | None).then_some(()));
        self.keep_company();
    }

    /// Makes a stopped process indifferent to its parent's death.
    pub(crate) fn keep_company(&self) {
        let leads_its_group = self.stat(2).is_some_and(|group| group == self.pid.to_string());
        if leads_its_group && self.company.borrow().is_none() {
            let mut sleep = command("sleep");
            sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let joined = sleep.process_group(i32::try_from(self.pid).unwrap()).spawn();
            *self.company.borrow_mut() = Some(joined.expect("company for a stopped process"));
        }
    }

    fn dismiss_company(&self) {
        if let Some(mut company) = self.company.borrow_mut().take() {
            let _ = company.kill();
            let _ = company.wait();
        }
    }

    /// Tells it that its terminal is gone. A stopped process finds out when it goes on.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
        self.dismiss_company();
    }

    /// Ends it at once, and waits until nothing of it runs. Whether it was still there to be ended.
    pub(crate) fn kill(&self) -> bool {
        let there = !self.is_gone();
        self.signal(Signal::KILL);
        until("the process ends", || self.is_gone().then_some(()));
        self.dismiss_company();
        there
    }

    /// Whether it has ended.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.state(), None | Some('Z' | 'X'))
    }

    /// Its state as `/proc` writes it: `R`, `S`, `T`, ...
    pub(crate) fn state(&self) -> Option<char> {
        self.stat(0)?.chars().next()
    }

    /// A field of `/proc/<pid>/stat`, counted from the one after the name.
    fn stat(&self, field: usize) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(field).map(str::to_owned)
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => panic!("cannot send {signal:?} to process {}: {errno}", self.pid),
        }
    }

    /// The task it was given on its standard input.
    pub(crate) fn task(&self) -> Task {
        let text = fs::read(format!("/proc/{}/fd/0", self.pid)).expect("the task of an executor");
        serde_json::from_slice(&text).expect("a task")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.dismiss_company();
    }
}

/// An executor process, found by the lock it holds.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) process: Process,
    /// Its folder's name: `copy-<attempt>-<launch>` or `forget`.
    pub(crate) job: String,
}

impl Executor {
    /// Which launch of its attempt it is.
    pub(crate) fn launch(&self) -> i32 {
        self.job.rsplit_once('-').and_then(|(_, launch)| launch.parse().ok()).unwrap_or_default()
    }
}

/// The executors of a volume that run now: whoever has a lock below its folder open, except `but` (the agent, which
/// looks at it).
pub(crate) fn executors(state: &Path, uid: &str, but: &[u32]) -> Vec<Executor> {
    let folder = state.join("executors").join(uid);
    let mut locks = Vec::new();
    for entry in list(&folder) {
        if let Ok(metadata) = fs::metadata(entry.join("lock")) {
            locks.push((entry.file_name().unwrap().to_string_lossy().into_owned(), (metadata.dev(), metadata.ino())));
        }
    }
    let mut found = Vec::new();
    if locks.is_empty() {
        return found;
    }
    for pid in processes().filter(|pid| !but.contains(pid)) {
        let Some(process) = Process::hold(pid) else { continue };
        for (job, file) in &locks {
            let has = list(Path::new(&format!("/proc/{pid}/fd")))
                .iter()
                .any(|fd| fs::metadata(fd).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == *file));
            if has && !process.is_gone() {
                found.push(Executor { process, job: job.clone() });
                break;
            }
        }
    }
    found
}

/// Takes a run's processes, mounts and files away when its test is ended from outside and cannot do it itself.
#[derive(Debug)]
pub(crate) struct Watchman(Child);

/// Its input ends when the test does, however that happens.
const WATCH: &str = r#"
cat > /dev/null
for fd in $(find /proc/[0-9]*/fd -lname "$1/*" 2> /dev/null); do
    pid=${fd#/proc/}
    kill -9 "${pid%%/*}"
done
grep -o " $1/[^ ]*" /proc/self/mountinfo | tac | while read -r point; do umount -l "$point"; done
rm -rf "$1"
"#;

impl Watchman {
    /// Watches over a folder. It is out of the test's process group, which ends as a whole.
    pub(crate) fn over(folder: &Path) -> Watchman {
        let mut shell = command("sh");
        shell.args(["-c", WATCH, "watchman"]).arg(folder).current_dir("/").process_group(0);
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Watchman(shell.spawn().expect("a watchman"))
    }

    /// Sends it home: the test cleans up itself.
    pub(crate) fn dismiss(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes that have something below a folder open, also when it was deleted.
pub(crate) fn users_of(folder: &Path, but: &[u32]) -> Vec<(u32, PathBuf)> {
    let own = std::env::current_exe().ok();
    let mut found = Vec::new();
    for pid in processes().filter(|pid| !but.contains(pid)) {
        // A child of this process that has not become its program yet.
        if own.is_some() && fs::read_link(format!("/proc/{pid}/exe")).ok() == own {
            continue;
        }
        let links = list(Path::new(&format!("/proc/{pid}/fd")));
        let user = links.iter().find_map(|fd| fs::read_link(fd).ok().filter(|target| target.starts_with(folder)));
        found.extend(user.map(|target| (pid, target)));
    }
    found
}

fn processes() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    list(Path::new("/proc"))
        .into_iter()
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

/// What is in a folder, in order; nothing where it is not there any more.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    let mut entries = entries().unwrap_or_default();
    entries.sort();
    entries
}

/// Numbers that are the same in every run with the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The seed is printed, and can be given again with `LVAULT_SEED`.
    pub(crate) fn new() -> Dice {
        let given = std::env::var("LVAULT_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()).wrapping_mul(0x9E37_79B9) | 1);
        eprintln!("LVAULT_SEED={seed}");
        Dice::of(seed)
    }

    /// With a fixed seed.
    pub(crate) fn of(seed: u64) -> Dice {
        Dice(seed.max(1))
    }

    /// The next number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// The next number (xorshift64*).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A random while, at most this long: the moment at which something is to be hit.
    pub(crate) fn sleep(&mut self, most: Duration) {
        let micros = u64::try_from(most.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.below(micros)));
    }
}
