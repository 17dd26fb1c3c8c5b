//! One `lvault up` with a state folder of its own: started, asked, looked at, ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::run::Program;
use super::{Settings, io};

/// The node's name in all runs.
pub(crate) const NODE: &str = "bench";
const BOUND: Duration = Duration::from_secs(120);
/// Clock ticks a second in /proc: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A state folder, and the lvault that runs on it at times.
pub(crate) struct Node {
    lvault: PathBuf,
    folder: PathBuf,
    engine: &'static str,
    up: Option<Child>,
}

impl Node {
    /// A node that has not started, in a folder that is not there yet. Image files where this is root, else folders.
    pub(crate) fn new(settings: &Settings, folder: PathBuf) -> Result<Node, String> {
        fs::create_dir_all(folder.join("storage")).map_err(io("making a folder"))?;
        let status = fs::read_to_string("/proc/self/status").map_err(io("reading /proc/self/status"))?;
        let root = status.lines().any(|line| line.starts_with("Uid:\t0\t0\t"));
        let engine = if root { "image" } else { "directory" };
        Ok(Node { lvault: settings.lvault.clone(), folder, engine, up: None })
    }

    /// The kind of engine.
    pub(crate) fn engine(&self) -> &'static str {
        self.engine
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Starts `lvault up`; answers when it says that it is.
    pub(crate) fn start(&mut self, resync: &str) -> Result<(), String> {
        let (out, log) = (self.folder.join("up.out"), self.folder.join("up.log"));
        let up = self.program().args(["up", "--engine", self.engine, "--node", NODE]);
        let up = up.args(["--pool-size", "4Gi", "--resync", resync]).env("LVAULT_LOG", "warn");
        self.up = Some(up.spawn(&out, &log)?);
        self.until("lvault is up", Duration::from_millis(20), || {
            Ok(fs::read_to_string(&out).unwrap_or_default().starts_with("lvault is up: ").then_some(()))
        })
    }

    /// Ends `lvault up` as its user would, and waits until it has ended.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let Some(mut up) = self.up.take() else { return Ok(()) };
        // The shell's own kill: not every system has it as a program.
        Program::new("sh").args(["-c".to_owned(), format!("kill {}", up.id())]).run()?;
        let since = Instant::now();
        while since.elapsed() < BOUND {
            if up.try_wait().map_err(io("waiting for lvault up"))?.is_some() {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        up.kill().and_then(|()| up.wait()).map_err(io("ending lvault up"))?;
        Err("lvault up did not end within two minutes of being asked to".to_owned())
    }

    /// Removes everything, the image engine's pool among it.
    pub(crate) fn remove(mut self) -> Result<(), String> {
        self.release()?;
        fs::remove_dir_all(&self.folder).map_err(io("removing a node's folder"))
    }

    /// Ends what runs and unmounts what the engine has left mounted for its next start.
    fn release(&mut self) -> Result<(), String> {
        self.stop()?;
        let state = self.state().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(io("reading /proc/self/mounts"))?;
        let below = |line: &&str| line.split(' ').nth(1).is_some_and(|at| at.starts_with(&state));
        // The latest first: volumes lie within the pool.
        for line in mounts.lines().rev().filter(below) {
            Program::new("umount").args(line.split(' ').nth(1)).run()?;
        }
        Ok(())
    }

    /// A command of lvault for this node.
    pub(crate) fn program(&self) -> Program {
        Program::new(&self.lvault).args(["--state-dir".as_ref(), self.state().as_os_str()])
    }

    /// A volume, and a storage for its snapshots: both ready.
    pub(crate) fn fill(&self) -> Result<(), String> {
        let storage = self.folder.join("storage");
        let add = self.program().args(["storage", "add", "main", "--wait", "--timeout", "60s", "--local"]);
        add.args([storage]).run()?;
        let create = ["volume", "create", "data", "--size", "256Mi", "--wait", "--timeout", "60s"];
        self.program().args(create).run().map(drop)
    }

    /// A client of its API.
    pub(crate) async fn client(&self) -> Result<Client, String> {
        let failed = |e: &dyn std::error::Error| format!("cannot reach the API of lvault up: {e}");
        let kubeconfig = Kubeconfig::read_from(self.state().join("kubeconfig")).map_err(|e| failed(&e))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.map_err(|e| failed(&e))?).map_err(|e| failed(&e))
    }

    /// The id of `lvault up`.
    pub(crate) fn pid(&self) -> Result<u32, String> {
        Ok(self.up.as_ref().ok_or("lvault is not up")?.id())
    }

    /// Seconds of processor time that `lvault up` has taken so far. Executors are not counted.
    pub(crate) fn cpu(&self) -> Result<f64, String> {
        cpu(self.pid()?)
    }

    /// The resident set of `lvault up`, and the largest it was, in MiB.
    pub(crate) fn memory(&self) -> Result<(f64, f64), String> {
        memory(self.pid()?)
    }

    /// Asks again and again, every `pause`, until there is an answer. Fails after two minutes, or when lvault ends.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        pause: Duration,
        mut ask: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let since = Instant::now();
        while since.elapsed() < BOUND {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if let Some(up) = &mut self.up
                && let Some(status) = up.try_wait().map_err(io("looking at lvault up"))?
            {
                let log = fs::read_to_string(self.folder.join("up.log")).unwrap_or_default();
                return Err(format!("waiting until {what}: lvault up ended with {status}: {}", log.trim()));
            }
            sleep(pause);
        }
        Err(format!("waited two minutes until {what}, in vain"))
    }

    /// The folders in which the engine keeps volumes.
    pub(crate) fn volumes(&self) -> [PathBuf; 2] {
        [self.state().join("volumes"), self.state().join("pool/volumes")]
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a failure: what failed is being told already.
        let _ = self.release();
    }
}

/// Seconds of processor time that a process has taken so far.
pub(crate) fn cpu(pid: u32) -> Result<f64, String> {
    let text = proc(pid, "stat")?;
    // What follows the name, which stands in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let both = ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS);
    both.ok_or_else(|| format!("/proc/{pid}/stat cannot be read"))
}

/// The resident set of a process, and the largest it was, in MiB.
pub(crate) fn memory(pid: u32) -> Result<(f64, f64), String> {
    let text = proc(pid, "status")?;
    let mib = |name: &str| {
        let kib = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
        kib.parse::<f64>().ok().map(|kib| kib / 1024.0)
    };
    mib("VmRSS:").zip(mib("VmHWM:")).ok_or_else(|| "/proc/PID/status cannot be read".to_owned())
}

fn proc(pid: u32, file: &str) -> Result<String, String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(io("looking at lvault up"))
}

/// The names of the volumes that are finished.
pub(crate) fn names(folders: &[PathBuf]) -> Vec<String> {
    let inside = |folder: &PathBuf| fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
    let names = folders.iter().flat_map(inside).filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}
