//! A state folder of its own with a running `lvault up`, and the commands that speak to it.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes longer, also on a busy machine without optimisation.
const PATIENCE: Duration = Duration::from_secs(120);

/// The node's name in these tests.
pub(crate) const NODE: &str = "n1";

/// A program, with none of the caller's lvault settings.
#[expect(clippy::disallowed_methods, reason = "the tests' one place that runs programs")]
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_remove("LVAULT_STATE_DIR").env_remove("LVAULT_KUBECONFIG").env_remove("LVAULT_LOG");
    command.stdin(Stdio::null());
    command
}

/// The lvault of this build.
pub(crate) fn lvault() -> Command {
    program(env!("CARGO_BIN_EXE_lvault"))
}

/// Waits for something to become true.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command that has to end by itself: one that goes on is ended, and fails the test.
pub(crate) fn ended(mut command: Command) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lvault");
    let started = Instant::now();
    while child.try_wait().expect("asked").is_none() {
        if started.elapsed() > PATIENCE / 2 {
            child.kill().expect("killed");
            panic!("it goes on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("lvault").into()
}

/// What a command has said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A running lvault. It ends, and its folder goes, when it is dropped.
pub(crate) struct World {
    folder: TempDir,
    up: Option<Child>,
}

impl World {
    /// Starts one with the directory engine, which needs no root.
    pub(crate) fn start() -> World {
        let mut world = World::without_server();
        world.up();
        world
    }

    /// Only the folder.
    pub(crate) fn without_server() -> World {
        World { folder: tempfile::tempdir().expect("a folder"), up: None }
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// The command that starts this world's server.
    pub(crate) fn up_command(&self) -> Command {
        let mut up = lvault();
        up.arg("--state-dir").arg(self.state()).args(["up", "--engine", "directory", "--node", NODE]);
        up.args(["--progress-interval", "1s"]).env("LVAULT_LOG", "info").process_group(0);
        up
    }

    pub(crate) fn up(&mut self) {
        let (said, log) = (self.root().join("said"), self.root().join("log"));
        let mut up = self.up_command();
        up.stdout(File::create(&said).expect("a file")).stderr(File::create(&log).expect("a file"));
        let mut child = up.spawn().expect("lvault up");
        until("lvault is up", || {
            let ended = child.try_wait().expect("asked");
            assert!(ended.is_none(), "{ended:?}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            std::fs::read_to_string(&said).ok().filter(|said| said.starts_with("lvault is up: ")).map(drop)
        });
        self.up = Some(child);
    }

    /// Ends the server as a user does.
    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.up.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("asked to end");
            let ended = until("lvault ends", || child.try_wait().expect("asked"));
            assert!(ended.success(), "{ended}: {}", self.log());
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.root().join("log")).unwrap_or_default()
    }

    /// Runs a command line, split at spaces.
    pub(crate) fn run(&self, line: &str) -> Said {
        self.run_with(line, None)
    }

    /// The same, with something on its standard input.
    pub(crate) fn run_with(&self, line: &str, input: Option<&str>) -> Said {
        let mut command = lvault();
        command.arg("--state-dir").arg(self.state()).args(line.split(' '));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let Some(input) = input else {
            return command.output().expect("lvault").into();
        };
        let mut child = command.stdin(Stdio::piped()).spawn().expect("lvault");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        child.wait_with_output().expect("lvault").into()
    }

    /// Runs a command that has to succeed, and answers with what it printed.
    pub(crate) fn ok(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "lvault {line}: {said:?}\n{}", self.log());
        said.out
    }

    /// Every object, as it is now.
    pub(crate) fn objects(&self) -> Value {
        serde_json::from_str(&self.ok("get -o json")).expect("JSON")
    }

    /// Writes an object as kubectl would: past everything that the command line checks.
    pub(crate) fn apply(&self, namespaced: bool, plural: &str, object: &Value, status: Option<&Value>) {
        let kind = (object["apiVersion"].as_str().expect("a version"), object["kind"].as_str().expect("a kind"));
        self.with_api(namespaced, plural, kind, async |api| {
            let object: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
            let made = api.create(&PostParams::default(), &object).await.expect("created");
            if let Some(status) = status {
                let name = made.metadata.name.expect("a name");
                let patch = serde_json::json!({"status": status});
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a status");
            }
        });
    }

    /// A Secret, after a change.
    pub(crate) fn secret(&self, name: &str, patch: &Value) -> Value {
        self.with_api(true, "secrets", ("v1", "Secret"), async |api| {
            let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a Secret");
            serde_json::to_value(patched).expect("JSON")
        })
    }

    fn with_api<T>(
        &self,
        namespaced: bool,
        plural: &str,
        (version, kind): (&str, &str),
        work: impl AsyncFnOnce(Api<DynamicObject>) -> T,
    ) -> T {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.state().join("kubeconfig")).expect("a kubeconfig");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("a config");
            let client = kube::Client::try_from(config).expect("a client");
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let kind = kube::core::GroupVersionKind::gvk(group, version, kind);
            let resource = kube::core::ApiResource::from_gvk_with_plural(&kind, plural);
            work(match namespaced {
                true => Api::namespaced_with(client, "default", &resource),
                false => Api::all_with(client, &resource),
            })
            .await
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.up.take() {
            // The process may be gone already, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
