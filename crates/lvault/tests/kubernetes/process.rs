//! The one place where these tests start programs.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that is killed when the test ends.
#[derive(Debug)]
pub(crate) struct Program(pub(crate) Child);

#[expect(clippy::disallowed_methods, reason = "the one place where these tests start programs")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in
        ["LVAULT_STATE_DIR", "LVAULT_KUBECONFIG", "KUBECONFIG", "NODE_NAME", "POD_NAME", "POD_NAMESPACE", "POD_UID"]
    {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

impl Program {
    /// Starts lvault with these arguments; what it says goes to a file.
    pub(crate) fn lvault(args: &[&str], log: &Path) -> Program {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut lvault = command(env!("CARGO_BIN_EXE_lvault"));
        lvault.args(args).env("LVAULT_LOG", "info");
        lvault.stdout(log.try_clone().unwrap()).stderr(log);
        Program(lvault.spawn().expect("lvault"))
    }

    /// Asks it to end, and waits until it has; it has to end well.
    pub(crate) fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = until("lvault ends", || self.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a look finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "not within two minutes: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
