//! A real server of Azure's Blob Storage for tests.
//!
//! The server is Azurite, which checks signatures. `scripts/setup.sh test` installs it beside what cargo builds; it listens on
//! loopback, keeps everything in memory, and ends with the test's process.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// The server's container.
pub const CONTAINER: &str = "backups";

/// The server's account.
pub const ACCOUNT: &str = "lvault";

const PROGRAM: &str = include_str!("azure/azure_server.js");

/// A running server.
pub struct AzureServer {
    process: Child,
    _running: Option<ChildStdin>,
    modules: PathBuf,
    /// Its port on loopback.
    pub port: u16,
    /// The account's key, in base64.
    pub key: String,
}

impl AzureServer {
    /// Starts a server with an empty container.
    ///
    /// # Panics
    /// Where Azurite is not installed, or does not start.
    pub fn start() -> Self {
        let modules = modules();
        let mut process = node(&modules)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|err| panic!("cannot run Azurite ({err}): run `make setup` first"));
        let (running, output) = (process.stdin.take(), process.stdout.take());
        let mut line = String::new();
        output.map(|output| BufReader::new(output).read_line(&mut line));
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("Azurite ended at once: see above"));
        Self {
            process,
            _running: running,
            modules,
            port: told["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            key: told["key"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Its address, without the account.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Puts every blob of the container whose name begins with `prefix` into `folder`, without the prefix. This asks the
    /// server without any code of the crate that is tested.
    ///
    /// # Panics
    /// Where the server does not answer as it should.
    pub fn download(&self, prefix: &str, folder: &Path) {
        let done = node(&self.modules)
            .args(["download", &self.port.to_string(), prefix])
            .arg(folder)
            .status()
            .unwrap_or_else(|err| panic!("cannot run node: {err}"));
        assert!(done.success(), "cannot download what is in the container: see above");
    }
}

impl Drop for AzureServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where tests run the server")]
fn node(modules: &Path) -> Command {
    let mut node = Command::new("node");
    node.args(["-e", PROGRAM, "--"]).env("NODE_PATH", modules);
    node
}

/// Where Azurite is installed: in `azurite` beside what cargo builds, from wherever a test's program lies.
fn modules() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let found = program.ancestors().map(|folder| folder.join("azurite/node_modules")).find(|folder| folder.exists());
    found.unwrap_or_else(|| panic!("Azurite is not installed beside {}: run `make setup` first", program.display()))
}
