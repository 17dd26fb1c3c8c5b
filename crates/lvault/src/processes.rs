//! The only place of this crate that runs another program.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies what is in a folder into another one that exists, with all metadata, by `cp -a`. Not idempotent: a crash in the
/// middle leaves a part of it.
#[expect(clippy::disallowed_methods, reason = "the one place where this crate runs a program")]
pub(crate) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    let mut command = Command::new("cp");
    command.args(["-a", "--reflink=auto", "--sparse=auto", "-T", "--"]).arg(from).arg(to);
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("cp: {}: {}", output.status, said.lines().next().unwrap_or_default())))
}
