//! A real S3 server for tests, and what goes wrong on the way to it.
//!
//! The server is moto, which checks signatures and rights. `scripts/setup.sh test` installs it beside what cargo builds; it
//! listens on loopback, also behind TLS, keeps everything in memory, and ends with the test's process.

mod proxy;

pub use self::proxy::{Mishap, Proxy, Request};

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// The server's bucket.
pub const BUCKET: &str = "backups";

/// Another bucket, whose name is the beginning of loopback's address: see [`S3Server::hosted`].
pub const HOSTED_BUCKET: &str = "127";

/// A key to the server.
#[derive(Debug, Clone)]
pub struct S3Key {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub key: String,
    /// `AWS_SESSION_TOKEN`, where it is lent.
    pub token: Option<String>,
}

impl S3Key {
    /// The environment of a program that is to use this key.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("AWS_ACCESS_KEY_ID", self.id.clone()), ("AWS_SECRET_ACCESS_KEY", self.key.clone())];
        all.extend(self.token.clone().map(|token| ("AWS_SESSION_TOKEN", token)));
        all
    }
}

/// Ports of loopback where a server speaks TLS, with certificates of an authority that nobody knows.
#[derive(Debug, Clone)]
pub struct TlsPorts {
    /// The authority's certificate, in PEM.
    pub authority: String,
    /// Its certificate is in order.
    pub good: u16,
    /// Its certificate is another host's: `s3.example.com`'s.
    pub other_host: u16,
    /// Its certificate has expired yesterday.
    pub expired: u16,
}

/// A running server.
pub struct S3Server {
    process: Child,
    _running: Option<ChildStdin>,
    /// Its port on loopback.
    pub port: u16,
    /// The same server on another port, where the bucket does not stand in the path: it is what stands before the first dot
    /// of the host.
    pub hosted: u16,
    /// The same server on ports where it speaks TLS.
    pub tls: TlsPorts,
    /// May do everything.
    pub key: S3Key,
    /// Is known, and may do nothing.
    pub powerless: S3Key,
    /// May do everything, together with its token.
    pub lent: S3Key,
}

impl S3Server {
    /// Starts a server that lists `page` files at a time.
    ///
    /// # Panics
    /// Where moto is not installed, or does not start.
    #[expect(clippy::disallowed_methods, reason = "this is where tests run the server")]
    pub fn start(page: usize) -> Self {
        let mut process = Command::new(python())
            .arg("-c")
            .arg(include_str!("s3/s3_server.py"))
            .env("MOTO_S3_DEFAULT_MAX_KEYS", page.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|err| panic!("cannot run moto ({err}): run `make setup` first"));
        let (running, output) = (process.stdin.take(), process.stdout.take());
        let mut line = String::new();
        output.map(|output| BufReader::new(output).read_line(&mut line));
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("moto ended at once: see above"));
        let text = |key: &Value| key.as_str().map(str::to_owned);
        let key = |name: &str| S3Key {
            id: text(&told[name]["id"]).unwrap_or_default(),
            key: text(&told[name]["key"]).unwrap_or_default(),
            token: text(&told[name]["token"]),
        };
        let port = |port: &Value| port.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        let tls = &told["tls"];
        Self {
            process,
            _running: running,
            port: port(&told["port"]),
            hosted: port(&told["hosted"]),
            tls: TlsPorts {
                authority: text(&tls["authority"]).unwrap_or_default(),
                good: port(&tls["good"]),
                other_host: port(&tls["other_host"]),
                expired: port(&tls["expired"]),
            },
            key: key("all"),
            powerless: key("none"),
            lent: key("lent"),
        }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The Python that moto is installed for: in `moto` beside what cargo builds, from wherever a test's program lies.
pub(crate) fn python() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let found = program.ancestors().map(|folder| folder.join("moto/bin/python")).find(|python| python.exists());
    found.unwrap_or_else(|| panic!("moto is not installed beside {}: run `make setup` first", program.display()))
}
