//! Figures: of times, of memory; and the one place where programs are run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "the one place where programs are run")]
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null());
    command
}

/// A line of the table.
pub(crate) fn report(what: &str, mut times: Vec<Duration>, wall: Duration) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let rate = times.len() as f64 / wall.as_secs_f64();
    println!("| {what} | {rate:.0}/s | {:.2?} | {:.2?} | {} |", at(50), at(99), times.len());
}

/// The resident memory of this process.
pub(crate) fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    format!("{:.0} MiB", kib / 1024.0)
}
