//! Google Cloud Storage for tests, as far as it can be had: a translator of its XML API that stands before a real S3 server.
//!
//! No emulator in a package registry takes a conditional write in XML, and Google's XML API is S3's with other names. So
//! `gcs/gcs_front.py` verifies tokens and speaks Google's dialect as its documentation has it, and moto keeps what is written. What is learned is whether a client speaks as documented, and nothing about Google's own servers.

use crate::s3::{S3Key, S3Server, python};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const FRONT: &str = include_str!("gcs/gcs_front.py");

/// A running front, and the server behind it.
pub struct GcsServer {
    process: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// The server that keeps everything.
    pub s3: S3Server,
    /// The front's port on loopback.
    pub port: u16,
    /// The key of an account that may do everything, in Google's JSON.
    pub key: String,
    /// That of an account that may do nothing.
    pub powerless: String,
    /// A key that looks right, and that the server does not know.
    pub deleted: String,
}

impl GcsServer {
    /// Starts a server with an empty bucket [`crate::s3::BUCKET`], which lists `page` files at a time. Keys are made anew each
    /// time: none lies in the repository.
    ///
    /// # Panics
    /// Where moto is not installed, or one of the two does not start.
    #[expect(clippy::disallowed_methods, reason = "this is where tests run the server")]
    pub fn start(page: usize) -> Self {
        let s3 = S3Server::start(page);
        let mut process = Command::new(python())
            .arg("-c")
            .arg(FRONT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|err| panic!("cannot run the front: {err}"));
        let (Some(mut input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            panic!("the front has no standard input and output")
        };
        let key = |key: &S3Key| json!({"id": key.id, "key": key.key});
        let given = json!({"port": s3.port, "all": key(&s3.key), "none": key(&s3.powerless)});
        writeln!(input, "{given}").unwrap_or_else(|err| panic!("the front ended at once: {err}"));
        let (mut output, mut line) = (BufReader::new(output), String::new());
        // An empty line says enough.
        let _ = output.read_line(&mut line);
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the front ended at once: see above"));
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        Self {
            process,
            talk: Mutex::new((input, output)),
            s3,
            port: told["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            key: text("all"),
            powerless: text("none"),
            deleted: text("deleted"),
        }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All tokens that were shown so far are worthless from now on.
    pub fn expire_tokens(&self) {
        self.command("expire");
    }

    /// How many different tokens were accepted so far.
    pub fn tokens(&self) -> usize {
        self.command("tokens")
    }

    /// From now on, an object may be written or deleted once in a second.
    pub fn limit_writes(&self) {
        self.command("limit");
    }

    fn command(&self, command: &str) -> usize {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::new();
        let said = writeln!(talk.0, "{command}").and_then(|()| talk.1.read_line(&mut line));
        said.ok().and_then(|_| line.trim().parse().ok()).unwrap_or_else(|| panic!("the front has ended: see above"))
    }
}

impl Drop for GcsServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
