//! One lvault of its own: a state folder, `lvault up` as a child, its command line, storages and volumes, and all of it
//! gone at the end, also when the test fails.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use lvault_api::LogicalVolume;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::api::Alone;
use crate::group::{self, Group};
use crate::history::History;
use crate::node::Node;
use crate::process::{Executor, Process, Watchman, command, executors, list, until, users_of};
use crate::repository::{Place, Repository};

/// The node's name in all runs.
pub(crate) const NODE: &str = "n1";
/// The password of all repositories.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Where volumes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Folders.
    Directory,
    /// Image files on loop devices.
    Image,
    /// Logical volumes of a thin pool.
    LvmThin,
    /// Logical volumes with extents of their own.
    LvmThick,
}

impl Engine {
    /// Whether it works here. Says so loudly where it does not.
    pub(crate) fn is_possible(self) -> bool {
        let possible = match self {
            Engine::Directory => true,
            Engine::Image => is_root() && Path::new("/dev/loop-control").exists(),
            Engine::LvmThin | Engine::LvmThick => group::has_device_mapper(),
        };
        match (possible, self.is_lvm()) {
            (true, _) => {}
            (false, false) => {
                eprintln!("SKIPPED: the image engine needs root and loop devices; run the tests as root to include it");
            }
            (false, true) => {
                eprintln!("skipped here, where there is no device-mapper, no lvm2 or no root: in_guest_lvm... runs it");
            }
        }
        possible
    }

    /// Whether it is that of LVM.
    pub(crate) fn is_lvm(self) -> bool {
        match self {
            Engine::Directory | Engine::Image => false,
            Engine::LvmThin | Engine::LvmThick => true,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Engine::Directory => "directory",
            Engine::Image => "image",
            Engine::LvmThin | Engine::LvmThick => "lvm",
        }
    }
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An lvault of its own.
pub(crate) struct World {
    pub(crate) engine: Engine,
    /// Where it is LVM.
    group: Option<Group>,
    /// Goes when all the rest has gone; none where it stays.
    home: Option<TempDir>,
    watchman: Watchman,
    pub(crate) state: PathBuf,
    pub(crate) history: History,
    pub(crate) runtime: Runtime,
    up: Option<Child>,
    lease: &'static str,
    start_deadline: &'static str,
    gate: bool,
    starts: u32,
}

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How long an executor may be silent.
    pub(crate) lease: &'static str,
    /// How long an attempt may wait for what it needs.
    pub(crate) start_deadline: &'static str,
    /// The size of the thin pool, where there is one.
    pub(crate) pool: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { lease: "30s", start_deadline: "60s", pool: "3g" }
    }
}

impl World {
    /// A new lvault that is up.
    pub(crate) fn new(engine: Engine) -> World {
        World::with(engine, Settings::default())
    }

    /// As [`World::new`], with other times.
    pub(crate) fn with(engine: Engine, settings: Settings) -> World {
        let home = tempfile::Builder::new().prefix("lvault-scenario-").tempdir().expect("a temporary folder");
        let root = home.path().canonicalize().unwrap();
        let group = World::furnish(&root, engine, settings);
        World::over(engine, settings, &root, group, Some(home))
    }

    /// One in a folder that outlives this process, and the machine. It is made where the folder is empty; otherwise it goes
    /// on where it was when the machine went down.
    pub(crate) fn kept(root: &Path, engine: Engine, settings: Settings) -> World {
        let goes_on = root.join("bin").exists();
        let group = if goes_on { Some(Group::again(root)) } else { World::furnish(root, engine, settings) };
        let world = World::over(engine, settings, root, group, None);
        if goes_on {
            world.history.begins_in_the_middle();
        }
        world
    }

    fn furnish(root: &Path, engine: Engine, settings: Settings) -> Option<Group> {
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(root.join("password"), PASSWORD).unwrap();
        match engine {
            Engine::Directory | Engine::Image => None,
            Engine::LvmThin => Some(Group::new(root, Some(settings.pool))),
            Engine::LvmThick => Some(Group::new(root, None)),
        }
    }

    fn over(engine: Engine, settings: Settings, root: &Path, group: Option<Group>, home: Option<TempDir>) -> World {
        let state = root.join("state");
        let mut world = World {
            engine,
            group,
            history: History::record(&state.join("kubeconfig")),
            state,
            home,
            watchman: Watchman::over(root),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            up: None,
            lease: settings.lease,
            start_deadline: settings.start_deadline,
            gate: false,
            starts: 0,
        };
        world.start();
        world
    }

    /// The folder of everything of this run.
    pub(crate) fn root(&self) -> &Path {
        self.state.parent().unwrap()
    }

    /// The volume group, where the engine is LVM.
    pub(crate) fn group(&self) -> &Group {
        self.group.as_ref().expect("a volume group")
    }

    // --- `lvault up` ---

    /// Starts `lvault up`, and waits until it says that it is.
    pub(crate) fn start(&mut self) {
        assert!(self.up.is_none(), "it is up already");
        self.place_binary();
        self.starts += 1;
        let said = self.root().join(format!("up-{}.out", self.starts));
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut up = command(self.root().join("bin/lvault"));
        up.args(["--state-dir".as_ref(), self.state.as_os_str()]);
        up.args(["up", "--engine", self.engine.name(), "--node", NODE, "--pool-size", "2Gi"]);
        if let Some(group) = &self.group {
            up.arg("--lvmd-config").arg(group.config());
        }
        up.args(["--lease-duration", self.lease, "--start-deadline", self.start_deadline, "--resync", "1s"]);
        up.env_remove("LVAULT_STATE_DIR").env_remove("LVAULT_KUBECONFIG").env("LVAULT_LOG", "info");
        up.stdin(Stdio::null()).stdout(File::create(&said).unwrap()).stderr(log);
        let mut child = up.spawn().expect("lvault");
        until("lvault is up", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "lvault up ended: {ended:?}\n{}", self.log());
            fs::read_to_string(&said).unwrap().starts_with("lvault is up: ").then_some(())
        });
        self.up = Some(child);
        if self.gate {
            self.place_gate();
        }
    }

    /// Ends `lvault up` as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut up = self.up.take().expect("it is up");
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// Ends `lvault up` as its user would.
    pub(crate) fn terminate(&mut self) {
        let mut up = self.up.take().expect("it is up");
        let pid = rustix::process::Pid::from_child(&up);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = until("lvault up ends", || up.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// Starts another `lvault up` on the same folder, which has to refuse. Answers with what it said.
    pub(crate) fn refused_start(&self, engine: Engine) -> String {
        let mut up = command(env!("CARGO_BIN_EXE_lvault"));
        up.arg("--state-dir").arg(&self.state).args(["up", "--engine", engine.name(), "--node", NODE]);
        up.env("LVAULT_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = up.spawn().expect("lvault");
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.code().is_some_and(|code| code != 0),
            "it was not refused: {}\n{out}{err}",
            output.status
        );
        assert_eq!(out, "", "it said that it is up");
        err.into_owned()
    }

    /// Kills `lvault up` and serves its API without an agent.
    pub(crate) fn api_alone(&mut self) -> Alone {
        self.kill();
        Alone::start(&self.state)
    }

    /// What `lvault up` has logged, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.root().join("up.log")
    }

    /// The effects that agents have begun for an object, as they logged them.
    pub(crate) fn effects(&self, name: &str) -> Vec<String> {
        let named = format!(" {name}: ");
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(" INFO "));
        lines.filter_map(|line| line.split_once(&named).map(|(_, effect)| effect.to_owned())).collect()
    }

    /// The agent's process.
    pub(crate) fn agent(&self) -> Process {
        Process::hold(self.up.as_ref().expect("it is up").id()).expect("it runs")
    }

    // --- executors ---

    /// From the next executor on, each stops before its first instruction, until [`Process::go_on`].
    pub(crate) fn close_gate(&mut self) {
        self.gate = true;
        fs::write(self.gate_file(), "").unwrap();
        self.place_gate();
    }

    /// Lets executors begin at once again.
    pub(crate) fn open_gate(&mut self) {
        fs::remove_file(self.gate_file()).unwrap();
    }

    fn gate_file(&self) -> PathBuf {
        self.root().join("gate-is-closed")
    }

    /// The binary itself, under a path of this run's own.
    fn place_binary(&self) {
        let (real, own) = (Path::new(env!("CARGO_BIN_EXE_lvault")), self.root().join("bin/lvault"));
        // What stands there may be a link to the real one: it is taken away, and never written to.
        if own.exists() {
            fs::remove_file(&own).unwrap();
        }
        if self.home.is_none() {
            symlink(real, &own).unwrap();
        } else if fs::hard_link(real, &own).is_err() {
            // It lies on another filesystem: one copy serves all runs that share its folder.
            let copy = std::env::temp_dir().join("lvault-scenario-binary");
            if !copy.exists() {
                let draft = self.root().join("bin/draft");
                fs::copy(real, &draft).unwrap();
                fs::rename(&draft, &copy).unwrap();
            }
            fs::hard_link(&copy, &own).unwrap();
        }
    }

    /// `lvault up` starts executors by the path it was started by: what stands there now stops, and then becomes the
    /// real binary, with all it was handed.
    fn place_gate(&self) {
        let draft = self.root().join("bin/gate");
        let (gate, real) = (self.gate_file(), env!("CARGO_BIN_EXE_lvault"));
        let script = format!("#!/bin/sh\n[ ! -e '{}' ] || kill -STOP $$\nexec '{real}' \"$@\"\n", gate.display());
        fs::write(&draft, script).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&draft, self.root().join("bin/lvault")).unwrap();
    }

    /// The executors of an object that run now.
    pub(crate) fn executors(&self, uid: &str) -> Vec<Executor> {
        let own: Vec<u32> = self.up.iter().map(Child::id).collect();
        executors(&self.state, uid, &own)
    }

    /// Waits for the executor of an object.
    pub(crate) fn executor(&self, uid: &str) -> Executor {
        until(&format!("an executor of {uid}"), || self.executors(uid).pop())
    }

    /// Waits for an executor that stands at the closed gate.
    pub(crate) fn executor_at_gate(&self, uid: &str) -> Executor {
        let at_gate = || self.executors(uid).into_iter().find(|executor| executor.process.state() == Some('T'));
        let executor = until(&format!("an executor of {uid} at the gate"), at_gate);
        executor.process.keep_company();
        executor
    }

    /// Starts an executor by hand, with a task of the caller's. It holds no lock, so no agent knows of it.
    pub(crate) fn start_executor(&self, task: &lvault_api::task::Task) -> Child {
        let file = self.root().join("task");
        fs::write(&file, serde_json::to_vec(task).unwrap()).unwrap();
        let log = File::options().create(true).append(true).open(self.root().join("executor.log")).unwrap();
        let mut executor = command(env!("CARGO_BIN_EXE_lvault"));
        executor.arg("executor").stdin(File::open(&file).unwrap()).stdout(Stdio::null()).stderr(log);
        let child = executor.spawn().expect("an executor");
        fs::remove_file(file).unwrap();
        child
    }

    // --- the command line ---

    /// Runs `lvault` with these arguments.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        let mut cli = command(env!("CARGO_BIN_EXE_lvault"));
        cli.arg("--state-dir").arg(&self.state).args(args);
        cli.env_remove("LVAULT_STATE_DIR").env_remove("LVAULT_KUBECONFIG").env_remove("LVAULT_LOG");
        cli.stdin(Stdio::null()).output().expect("lvault")
    }

    /// Runs `lvault`, which has to succeed. Answers with what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "lvault {args:?}: {}\n{out}{err}\n{}", output.status, self.log());
        out.trim_end().to_owned()
    }

    /// Runs `lvault`, which has to fail. Answers with what it said.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "lvault {args:?} succeeded:\n{out}{err}");
        err.trim_end().to_owned()
    }

    /// Makes a volume; answers with the folder of its files.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.ok(&["volume", "create", name, "--size", "64Mi", "--wait", "--timeout", "60s"]);
        // From here on the watch misses nothing.
        self.uid(name);
        PathBuf::from(self.ok(&["volume", "path", name]))
    }

    /// Makes a storage that is ready; answers with its folder.
    pub(crate) fn storage(&self, name: &str) -> PathBuf {
        let folder = self.root().join("storage").join(name);
        fs::create_dir_all(&folder).unwrap();
        let (password, at) = (self.root().join("password"), folder.display().to_string());
        let password = password.display().to_string();
        self.ok(&["storage", "add", name, "--local", &at, "--password-file", &password, "--wait", "--timeout", "60s"]);
        folder
    }

    /// Asks for an online snapshot; answers with its uid.
    pub(crate) fn snapshot(&self, name: &str, source: &str, more: &[&str]) -> String {
        let command = ["snapshot", "create", name, "--source", source, "--storage", "main"];
        self.ok(&[&command, more].concat());
        self.uid(name)
    }

    /// Has a first snapshot of a volume made, so that its repository exists.
    pub(crate) fn first_snapshot(&self, source: &str) -> String {
        let uid = self.snapshot("first", source, &["--wait", "--timeout", "60s"]);
        self.node().settle(&uid);
        uid
    }

    /// The repository of a volume in a storage.
    pub(crate) fn repository(&self, storage: &str, volume: &str) -> Repository {
        self.repository_at(Place::Folder(self.root().join("storage").join(storage).join("default").join(volume)))
    }

    /// A repository with the usual password.
    pub(crate) fn repository_at(&self, place: Place) -> Repository {
        Repository { place, password_file: self.root().join("password"), scratch: self.root().join("scratch") }
    }

    // --- the node ---

    /// What is on the node.
    pub(crate) fn node(&self) -> Node<'_> {
        Node { world: self }
    }

    /// Everything a reader of a failed test wants to know.
    pub(crate) fn story(&self) -> String {
        let mut story = String::new();
        for file in [self.log_file(), self.root().join("executor.log")] {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            story += &format!("--- {}\n{}\n", file.display(), lines[lines.len().saturating_sub(80)..].join("\n"));
        }
        for folder in list(&self.state.join("executors")) {
            for job in list(&folder) {
                let text = fs::read_to_string(job.join("log")).unwrap_or_default();
                story += &format!("--- {}\n{text}\n", job.display());
            }
        }
        story
    }

    /// Deletes everything through the API, and checks that nothing is left anywhere, and that nothing wrong was ever
    /// written.
    pub(crate) fn finish(mut self) {
        let names = self.ask(async |client| {
            let volumes: Api<LogicalVolume> = Api::all(client);
            let all = volumes.list(&kube::api::ListParams::default()).await.expect("a list").items;
            for volume in &all {
                volumes.delete(&volume.name_any(), &DeleteParams::default()).await.expect("deleted");
            }
            all.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        });
        names.iter().for_each(|name| self.gone(name));
        self.node().assert_empty();
        self.terminate();
        self.history.check();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.watchman.dismiss();
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
        // Whoever still has something of this run open was started by it.
        for (pid, _) in users_of(self.root(), &[]) {
            if let Some(process) = Process::hold(pid) {
                process.kill();
            }
        }
        crate::node::unmount_below(self.root());
    }
}
