//! Running programs: kubectl, and this test binary itself as a writer that is killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A command with nothing on its input and its outputs to be read.
#[expect(clippy::disallowed_methods, reason = "the one place where these tests run programs")]
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// This test binary, running one of its own tests.
pub(crate) fn this_test(name: &str) -> Command {
    let mut command = command(&std::env::current_exe().expect("the path of this binary"));
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// A child that is ended when it is dropped.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
