//! Core dumps: none is made of a process of lvault, since its memory may hold passwords and keys.
//!
//! Limits of one byte do that. Where the kernel writes core files itself, nothing fits into it. Where it pipes them to a program,
//! it takes no notice of limits, not of zero either, with one exception: that program has a limit of one, and nothing that
//! has is dumped (`fs/coredump.c`). Limits are handed down to every program that is started from here.
//!
//! A process that cannot be dumped at all (`PR_SET_DUMPABLE`) would hide itself from the agent, which looks at executors through
//! `/proc`.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Where the kernel says what becomes of core dumps.
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// No core dump is made of this process, nor of any that it starts. Idempotent. What is not possible, [`tell`] tells.
pub fn forbid() {
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    if setrlimit(Resource::Core, one).is_err() {
        // Nobody but root may raise a limit of zero, which holds for files at least.
        let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Core).maximum };
        let _ = setrlimit(Resource::Core, none);
    }
}

/// Says in the log where core dumps of this process are possible all the same.
pub fn tell() {
    let pattern = fs::read_to_string(PATTERN).unwrap_or_default();
    if let Some(why) = hole(getrlimit(Resource::Core).current, pattern.trim()) {
        warn!("a core dump of this process, which holds passwords, would not be prevented: {why}");
    }
}

/// Why a dump would be made of a process with this limit, and what to do.
fn hole(limit: Option<u64>, pattern: &str) -> Option<&'static str> {
    match (pattern.chars().next(), limit) {
        (Some('@'), _) => {
            Some("kernel.core_pattern names a socket, for which no limit counts; name a file or a program there")
        }
        (Some('|'), Some(1)) => None,
        (Some('|'), _) => Some(
            "kernel.core_pattern names a program, and the limit is 0 and cannot be raised; start lvault with LimitCORE=1",
        ),
        (_, Some(0 | 1)) => None,
        (_, _) => Some("the limit of core files cannot be lowered"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_one_prevents_files_and_pipes_and_zero_only_files() {
        for (limit, pattern, is_prevented) in [
            (Some(1), "core", true),
            (Some(1), "|/usr/lib/systemd/systemd-coredump %P", true),
            (Some(1), "", true),
            (Some(0), "core", true),
            (Some(0), "|/usr/share/apport/apport -p%p", false),
            (Some(1), "@/run/coredump.socket", false),
            (None, "core", false),
            (Some(4096), "|x", false),
        ] {
            assert_eq!(hole(limit, pattern).is_none(), is_prevented, "{limit:?} {pattern}");
        }
    }
}
