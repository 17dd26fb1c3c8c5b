//! Executors as processes of this host.
//!
//! Each executor has a folder `executors/<volume id>/<job>/` with its lock and its log. The agent takes the lock before
//! it starts the process and hands it down, so there is no moment at which an executor runs and the lock is free; the
//! kernel gives the lock back when the process ends, however it ends. Whether an executor lives is asked of the lock
//! and of nothing else, so an agent that is started again finds the executors of the one before.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use command_fds::{CommandFdExt, FdMapping};
use lvault_api::task::Task;
use lvault_core::{Attempt, Executor, Job, Launch, Life, VolumeId};
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};

use crate::launcher::{Change, LaunchError, Launcher, Wake};
use crate::procfs;

/// The descriptor under which an executor holds its lock. It does nothing with it but stay alive.
const LOCK_FD: i32 = 3;

/// The program that runs as an executor, and the arguments before which it reads its task from standard input.
#[derive(Clone, Debug)]
pub struct ExecutorCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments. No secret is ever among them.
    pub arguments: Vec<OsString>,
}

/// Runs executors as processes.
pub struct ProcessLauncher {
    root: PathBuf,
    command: ExecutorCommand,
    wake: Arc<Mutex<Option<Wake>>>,
}

impl ProcessLauncher {
    /// A launcher whose executors have their folders below `<state_dir>/executors`.
    pub fn new(state_dir: &Path, command: ExecutorCommand) -> Self {
        ProcessLauncher { root: state_dir.join("executors"), command, wake: Arc::default() }
    }

    /// Every executor of a volume that has a folder.
    fn all(&self, id: &VolumeId) -> Result<Vec<(Executor, PathBuf)>, LaunchError> {
        let folder = self.root.join(id.as_str());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("list the executors in", &folder, e)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| failed("list the executors in", &folder, e))?.path();
            let Some(job) = path.file_name().and_then(|name| name.to_str()).and_then(parse_job) else {
                continue;
            };
            let life = life(&path).map_err(|e| failed("look at the lock in", &path, e))?;
            all.push((Executor { job, life }, path));
        }
        all.sort_by_key(|(executor, _)| (executor.life == Life::Alive, executor.job));
        Ok(all)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where executors are started")]
    fn spawn(&self, folder: &Path, lock: File, task: &Task) -> Result<Child, LaunchError> {
        let attempted = |e: io::Error| failed("start the executor of", folder, e);
        let log =
            OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("log")).map_err(attempted)?;
        let errors = log.try_clone().map_err(attempted)?;
        let mut command = Command::new(&self.command.program);
        command.args(&self.command.arguments);
        command.stdin(Stdio::from(sealed(task).map_err(attempted)?)).stdout(log).stderr(errors);
        command.current_dir("/").process_group(0);
        let lock = FdMapping { parent_fd: OwnedFd::from(lock), child_fd: LOCK_FD };
        command.fd_mappings(vec![lock]).map_err(|e| LaunchError::Impossible(e.to_string()))?;
        command.spawn().map_err(|e| {
            let program = self.command.program.display();
            if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&e.kind()) {
                LaunchError::Impossible(format!("the program {program} cannot be run: {e}"))
            } else {
                attempted(e)
            }
        })
    }

    /// Waits for a child so that it leaves no zombie, notes how it ended, and tells the agent.
    fn reap(&self, id: &VolumeId, folder: &Path, mut child: Child) {
        let (id, wake, note) = (id.clone(), Arc::clone(&self.wake), folder.join("exit"));
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                // For people only; the lock says whether it ended.
                let _ = fs::write(note, status.to_string());
            }
            if let Some(wake) = wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                wake(id);
            }
        });
    }
}

impl Launcher for ProcessLauncher {
    fn observe(&self, id: &VolumeId) -> Result<Option<Executor>, LaunchError> {
        Ok(self.all(id)?.pop().map(|(executor, _)| executor))
    }

    fn ensure_launched(&self, id: &VolumeId, job: Job, task: &Task) -> Result<Change, LaunchError> {
        let folder = self.root.join(id.as_str()).join(job_name(job));
        if let Some((executor, _)) = self.all(id)?.pop() {
            return match (executor.life, executor.job == job) {
                (Life::Alive, true) | (Life::Ended, true) => Ok(Change::Unchanged),
                (Life::Alive, false) | (Life::Ended, false) => Err(LaunchError::Occupied(id.clone())),
            };
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&folder).map_err(|e| failed("make the folder", &folder, e))?;
        let lock = open_lock(&folder, true).map_err(|e| failed("make the lock in", &folder, e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| failed("take the lock in", &folder, e.into()))?;
        let child = match self.spawn(&folder, lock, task) {
            Ok(child) => child,
            Err(error) => {
                // Nothing was started, so nothing is to be counted as lost.
                fs::remove_dir_all(&folder).map_err(|e| failed("remove the folder", &folder, e))?;
                return Err(error);
            }
        };
        self.reap(id, &folder, child);
        Ok(Change::Changed)
    }

    fn ensure_ended(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        let mut change = Change::Unchanged;
        for (executor, folder) in self.all(id)? {
            if executor.life == Life::Alive {
                let attempted = |e| failed("end the executor of", &folder, e);
                let lock = open_lock(&folder, false).map_err(attempted)?;
                if procfs::kill_holders(&lock).map_err(attempted)? > 0 {
                    change = Change::Changed;
                }
            }
        }
        Ok(change)
    }

    fn ensure_removed(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        let all = self.all(id)?;
        if all.iter().any(|(executor, _)| executor.life == Life::Alive) {
            return Err(LaunchError::Occupied(id.clone()));
        }
        let folder = self.root.join(id.as_str());
        match fs::remove_dir_all(&folder) {
            Ok(()) => Ok(Change::Changed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Change::Unchanged),
            Err(e) => Err(failed("remove the folder", &folder, e)),
        }
    }

    fn last_words(&self, id: &VolumeId) -> Option<String> {
        let (_, folder) = self.all(id).ok()?.pop()?;
        let ended = fs::read_to_string(folder.join("exit")).ok();
        let last = last_line(&folder.join("log")).ok().flatten();
        match (ended, last) {
            (Some(ended), Some(last)) => Some(format!("{ended}; its last words: {last}")),
            (Some(words), None) | (None, Some(words)) => Some(words),
            (None, None) => None,
        }
    }

    fn on_exit(&self, wake: Wake) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }
}

fn failed(what: &str, folder: &Path, source: io::Error) -> LaunchError {
    LaunchError::Io { attempted: format!("{what} {}", folder.display()), source }
}

/// The task in memory that no file name leads to.
fn sealed(task: &Task) -> io::Result<File> {
    let mut file = File::from(memfd_create("lvault-task", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(task)?)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn open_lock(folder: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().create(create).truncate(false).read(true).write(true).mode(0o600).open(folder.join("lock"))
}

/// Asks the lock. A folder without one is of an executor that was never started.
fn life(folder: &Path) -> io::Result<Life> {
    let lock = match open_lock(folder, false) {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Life::Ended),
        Err(e) => return Err(e),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Life::Ended),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Life::Alive),
        Err(errno) => Err(errno.into()),
    }
}

fn job_name(job: Job) -> String {
    match job {
        Job::Copy { attempt, launch } => format!("copy-{attempt}-{launch}"),
        Job::Forget => "forget".to_owned(),
    }
}

fn parse_job(name: &str) -> Option<Job> {
    if name == "forget" {
        return Some(Job::Forget);
    }
    let (attempt, launch) = name.strip_prefix("copy-")?.split_once('-')?;
    let attempt = Attempt::new(attempt.parse().ok()?)?;
    let launch = Launch::new(launch.parse().ok()?)?;
    Some(Job::Copy { attempt, launch })
}

/// The last line of a log, at most its last 400 bytes.
fn last_line(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let shown = length.min(400);
    let mut tail = vec![0; shown as usize];
    file.read_exact_at(&mut tail, length - shown)?;
    let text = String::from_utf8_lossy(&tail);
    Ok(text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned))
}
