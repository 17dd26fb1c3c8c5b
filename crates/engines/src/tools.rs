//! The storage tools: the one place of this crate that runs programs.
//!
//! What holds here: a program is looked for once, when an engine is opened; it runs with an environment of two
//! variables (so no secret of ours reaches it, and its messages are in English), in its own process group, for a
//! bounded time; what it writes to stderr is in the error. A program that must not be stopped in the middle is left running
//! when its time is over: it holds its volume's lock until it ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::error::{EngineError, Retry};

const SEARCHED: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a killed program may take to disappear before its remains are left to a thread of their own.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// Of what a program writes: as much as the report of ten thousand logical volumes.
const CAPTURED: u64 = 16 << 20;
const LVM_ENVIRONMENT: [&str; 2] = ["LVM_SYSTEM_DIR", "DM_DISABLE_UDEV"];

/// A program that an engine may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    MkfsExt4,
    MkfsXfs,
    Mount,
    Losetup,
    Resize2fs,
    E2fsck,
    XfsGrowfs,
    Fsfreeze,
    Timeout,
    Shell,
    Lvm,
    Dmsetup,
    Blkdiscard,
    MkfsBtrfs,
    Btrfs,
    Btrfstune,
}

impl Tool {
    /// All of them.
    const ALL: [Tool; 16] = [
        Tool::MkfsExt4,
        Tool::MkfsXfs,
        Tool::Mount,
        Tool::Losetup,
        Tool::Resize2fs,
        Tool::E2fsck,
        Tool::XfsGrowfs,
        Tool::Fsfreeze,
        Tool::Timeout,
        Tool::Shell,
        Tool::Lvm,
        Tool::Dmsetup,
        Tool::Blkdiscard,
        Tool::MkfsBtrfs,
        Tool::Btrfs,
        Tool::Btrfstune,
    ];

    /// Everything the image engine needs.
    pub(crate) const IMAGE: [Tool; 10] = [
        Tool::MkfsExt4,
        Tool::MkfsXfs,
        Tool::Mount,
        Tool::Losetup,
        Tool::Resize2fs,
        Tool::E2fsck,
        Tool::XfsGrowfs,
        Tool::Fsfreeze,
        Tool::Timeout,
        Tool::Shell,
    ];

    /// Everything the LVM engine needs, but for what only btrfs does.
    pub(crate) const LVM: [Tool; 11] = [
        Tool::Lvm,
        Tool::MkfsExt4,
        Tool::MkfsXfs,
        Tool::Mount,
        Tool::Resize2fs,
        Tool::E2fsck,
        Tool::XfsGrowfs,
        Tool::Fsfreeze,
        Tool::Timeout,
        Tool::Shell,
        Tool::Blkdiscard,
    ];

    fn program(self) -> &'static str {
        match self {
            Tool::MkfsExt4 => "mkfs.ext4",
            Tool::MkfsXfs => "mkfs.xfs",
            Tool::Mount => "mount",
            Tool::Losetup => "losetup",
            Tool::Resize2fs => "resize2fs",
            Tool::E2fsck => "e2fsck",
            Tool::XfsGrowfs => "xfs_growfs",
            Tool::Fsfreeze => "fsfreeze",
            Tool::Timeout => "timeout",
            Tool::Shell => "sh",
            Tool::Lvm => "lvm",
            Tool::Dmsetup => "dmsetup",
            Tool::Blkdiscard => "blkdiscard",
            Tool::MkfsBtrfs => "mkfs.btrfs",
            Tool::Btrfs => "btrfs",
            Tool::Btrfstune => "btrfstune",
        }
    }

    /// Whether it may be ended in the middle without doing damage to a filesystem.
    fn may_be_stopped(self) -> bool {
        match self {
            Tool::Resize2fs
            | Tool::E2fsck
            | Tool::XfsGrowfs
            | Tool::Lvm
            | Tool::Dmsetup
            | Tool::Btrfs
            | Tool::Btrfstune => false,
            Tool::MkfsExt4
            | Tool::MkfsXfs
            | Tool::Mount
            | Tool::Losetup
            | Tool::Fsfreeze
            | Tool::Timeout
            | Tool::Shell
            | Tool::Blkdiscard
            | Tool::MkfsBtrfs => true,
        }
    }

    /// The Debian package that has it.
    fn package(self) -> &'static str {
        match self {
            Tool::MkfsExt4 | Tool::Resize2fs | Tool::E2fsck => "e2fsprogs",
            Tool::MkfsXfs | Tool::XfsGrowfs => "xfsprogs",
            Tool::Mount | Tool::Losetup => "mount",
            Tool::Fsfreeze | Tool::Blkdiscard => "util-linux",
            Tool::Lvm => "lvm2",
            Tool::Dmsetup => "dmsetup",
            Tool::MkfsBtrfs | Tool::Btrfs | Tool::Btrfstune => "btrfs-progs",
            Tool::Timeout => "coreutils",
            Tool::Shell => "dash",
        }
    }
}

/// The programs found on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    found: BTreeMap<Tool, PathBuf>,
    limit: Duration,
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) tool: Tool,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its exit code; none when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The error for a program that did not succeed.
    pub(crate) fn failed(&self, attempted: &str, retry: Retry) -> EngineError {
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
        };
        let said =
            self.stderr.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        let said = if said.is_empty() { how } else { format!("{said} ({how})") };
        EngineError::Tool { attempted: attempted.to_owned(), program: self.tool.program(), said, retry }
    }

    /// Nothing for a success, otherwise the error.
    pub(crate) fn ok(self, attempted: &str, retry: Retry) -> Result<String, EngineError> {
        if self.status.success() { Ok(self.stdout) } else { Err(self.failed(attempted, retry)) }
    }
}

impl Tools {
    /// Looks for every program; one that is missing is an error when it is first needed.
    pub(crate) fn find(limit: Duration) -> Self {
        let folders: Vec<PathBuf> = std::env::var_os("PATH")
            .map(|path| std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect())
            .unwrap_or_default();
        let look = |program: &str| {
            let searched = SEARCHED.iter().map(Path::new).chain(folders.iter().map(PathBuf::as_path));
            searched.map(|folder| folder.join(program)).find(|path| path.is_file())
        };
        let found = Tool::ALL.into_iter().filter_map(|tool| Some((tool, look(tool.program())?))).collect();
        Tools { found, limit }
    }

    /// The error for the first program that is missing.
    pub(crate) fn require(&self, tools: &[Tool]) -> Result<(), EngineError> {
        tools.iter().try_for_each(|tool| self.path(*tool).map(|_| ()))
    }

    fn path(&self, tool: Tool) -> Result<&Path, EngineError> {
        let missing = EngineError::ToolMissing { tool: tool.program(), package: tool.package() };
        self.found.get(&tool).map(PathBuf::as_path).ok_or(missing)
    }

    /// Runs a program to its end; at the time limit it is stopped, or left alone where that would do damage, and the
    /// answer is [`EngineError::ToolTimedOut`].
    ///
    /// `held` becomes its stdin: an empty file whose lock therefore lasts as long as the program runs, even when this
    /// process dies meanwhile.
    pub(crate) fn run(
        &self,
        tool: Tool,
        args: &[&OsStr],
        held: Option<&File>,
        attempted: &str,
    ) -> Result<Finished, EngineError> {
        self.run_prefixed(&[], tool, args, held, attempted)
    }

    /// As [`run`](Self::run), by way of another program that is told to run this one.
    pub(crate) fn run_prefixed(
        &self,
        prefix: &[String],
        tool: Tool,
        args: &[&OsStr],
        held: Option<&File>,
        attempted: &str,
    ) -> Result<Finished, EngineError> {
        let io = |what| EngineError::io::<std::io::Error>(what, tool.program());
        let stdin = match held {
            Some(file) => Stdio::from(file.try_clone().map_err(io("lending a lock to"))?),
            None => Stdio::null(),
        };
        let mut out = output().map_err(io("making a file for the output of"))?;
        let mut err = output().map_err(io("making a file for the output of"))?;
        let mut command = match prefix {
            [] => self.command(tool)?,
            [first, rest @ ..] => {
                let mut command = bare(Path::new(first));
                command.args(rest).arg(self.path(tool)?);
                command
            }
        };
        if tool == Tool::Lvm {
            command.env("LVM_SUPPRESS_FD_WARNINGS", "1");
            // Where it finds its configuration, and whether udev makes its devices.
            command.envs(LVM_ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        command.args(args).stdin(stdin);
        command.stdout(out.try_clone().map_err(io("sharing the output of"))?);
        command.stderr(err.try_clone().map_err(io("sharing the output of"))?);
        tracing::debug!(program = tool.program(), ?args, "run");
        let mut child = command.spawn().map_err(io("starting"))?;
        let Some(status) = wait(&mut child, self.limit).map_err(io("waiting for"))? else {
            let goes_on = !tool.may_be_stopped();
            if goes_on {
                reap(child)
            } else {
                end(child)
            }
            return Err(EngineError::ToolTimedOut {
                attempted: attempted.to_owned(),
                program: tool.program(),
                limit: self.limit,
                goes_on,
            });
        };
        let stdout = text(&mut out).map_err(io("reading the output of"))?;
        let stderr = text(&mut err).map_err(io("reading the output of"))?;
        Ok(Finished { tool, status, stdout, stderr })
    }

    /// The guard of one freeze; see `image/freeze.rs`. Its stdin and stdout are pipes, its error output is kept.
    pub(crate) fn spawn_shell(&self, script: &str, args: &[&OsStr], err: File) -> Result<Child, EngineError> {
        self.require(&[Tool::Fsfreeze, Tool::Timeout])?;
        let mut command = self.command(Tool::Shell)?;
        command.arg("-c").arg(script).arg("lvault-freeze").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(err);
        command.spawn().map_err(EngineError::io("starting", Tool::Shell.program()))
    }

    fn command(&self, tool: Tool) -> Result<Command, EngineError> {
        Ok(bare(self.path(tool)?))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place of this crate that starts programs")]
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", PATH).current_dir("/").process_group(0);
    command
}

/// Waits for a child without polling; `None` when it is still running at the limit.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        await_readable(&pidfd, left)?;
    }
}

/// Waits until a descriptor has something to read or is closed at its other end, or until the time is over.
pub(crate) fn await_readable(fd: impl std::os::fd::AsFd, left: Duration) -> std::io::Result<bool> {
    let timeout =
        Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends a program and what it started. One stuck in the kernel is left to a thread, so that nobody waits for it.
pub(crate) fn end(mut child: Child) {
    // A group that is gone already is what is wanted.
    let _gone = kill_process_group(Pid::from_child(&child), Signal::KILL);
    if !matches!(wait(&mut child, KILL_GRACE), Ok(Some(_))) {
        reap(child);
    }
}

/// Leaves a program to itself, and its remains to a thread.
fn reap(mut child: Child) {
    std::thread::spawn(move || child.wait());
}

/// An empty file in memory for what a program writes: it works on a full disk, and nobody waits for a reader.
pub(crate) fn output() -> std::io::Result<File> {
    Ok(File::from(memfd_create("lvault-output", MemfdFlags::CLOEXEC)?))
}

/// What a program wrote into a file, from its beginning, cut at a size that no message needs.
pub(crate) fn text(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(CAPTURED).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Finished, EngineError> {
        Tools::find(limit).run(Tool::Shell, &[OsStr::new("-c"), OsStr::new(script)], None, "running a script")
    }

    #[test]
    fn what_a_program_says_is_in_the_error() {
        let finished = shell("echo out; echo first >&2; echo second >&2; exit 7", Duration::from_secs(10)).unwrap();
        assert_eq!((finished.code(), finished.stdout.as_str()), (Some(7), "out\n"));
        let error = finished.ok("running a script", Retry::Never).unwrap_err();
        assert_eq!(error.to_string(), "running a script failed: sh said: first; second (exit code 7)");
    }

    #[test]
    fn a_program_gets_none_of_our_environment_and_no_input() {
        let finished = shell("cat; env | sort", Duration::from_secs(10)).unwrap();
        let names: Vec<_> = finished.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.iter().all(|name| ["LC_ALL", "PATH", "PWD", "OLDPWD", "_", "SHLVL"].contains(name)), "{names:?}");
    }

    #[test]
    fn a_program_that_does_not_end_is_stopped_with_its_children() {
        let started = Instant::now();
        let marker = tempfile::NamedTempFile::new().unwrap();
        let script = format!("(sleep 1; echo alive > {}) & wait", marker.path().display());
        let error = shell(&script, Duration::from_millis(100)).unwrap_err();
        assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
        assert_eq!(error.retry(), Retry::Unknown, "{error}");
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(std::fs::read_to_string(marker.path()).unwrap(), "", "the child went on");
    }

    #[test]
    fn a_program_that_changes_a_filesystem_is_not_stopped_and_keeps_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (script, marker) = (folder.path().join("resize2fs"), folder.path().join("marker"));
        std::fs::write(&script, format!("#!/bin/sh\nsleep 1\necho done > {}\n", marker.display())).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let limit = Duration::from_millis(100);
        let tools = Tools { found: [(Tool::Resize2fs, script)].into(), limit };
        let lock = crate::locks::lock_folder(folder.path()).unwrap();
        let error = tools.run(Tool::Resize2fs, &[], lock.as_ref(), "growing").unwrap_err();
        drop(lock);
        assert!(error.to_string().contains("goes on"), "{error}");
        assert_eq!(error.retry(), Retry::Unknown);
        // Waiting for the lock is waiting for its end.
        let _lock = crate::locks::lock_folder(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&marker).unwrap(), "done\n");
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let tools = Tools { found: BTreeMap::new(), limit: Duration::from_secs(1) };
        let error = tools.require(&Tool::ALL).unwrap_err();
        assert!(error.to_string().contains("mkfs.ext4") && error.to_string().contains("e2fsprogs"), "{error}");
        assert_eq!(error.retry(), Retry::Never);
    }
}
