//! The scenarios on LVM, where this machine's kernel has no device-mapper: in a guest that has it.
//!
//! A usual run takes those in which LVM makes a difference; `LVAULT_LVM_SCENARIOS=all` takes all of them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::group::{DISK, has_device_mapper};
use crate::process::command;

/// Set by scripts/guest.sh.
pub(crate) const IN_GUEST: &str = "LVAULT_GUEST";
const ALL: &str = "LVAULT_LVM_SCENARIOS";

/// What a usual run has time for.
const THIN: [&str; 4] = [
    "finished::lvm_thin::a_first_snapshot",
    "lvm_storage::thin::a_pool_that_fills_up",
    "lvm_storage::thin::a_disk_that_comes_and_goes",
    "lvm_adoption::thin",
];
const THICK: [&str; 4] = [
    "finished::lvm_thick::a_first_snapshot",
    "lvm_storage::thick::a_snapshot_that_is_outrun",
    "lvm_storage::thick::a_failing_disk",
    "lost_executors::lvm_thick::an_executor_killed_between",
];

#[test]
fn in_guest_lvm_thin_scenarios() {
    in_guest(&THIN, &["lvm_thin", "lvm_storage::thin", "lvm_adoption::thin"]);
}

#[test]
fn in_guest_lvm_thick_scenarios() {
    in_guest(&THICK, &["lvm_thick", "lvm_storage::thick", "lvm_adoption::thick"]);
}

fn in_guest(usual: &[&str], all: &[&str]) {
    if std::env::var_os(IN_GUEST).is_some() || has_device_mapper() {
        eprintln!("not needed: device-mapper is here, and the scenarios ran on it");
        return;
    }
    if !is_there("scenarios on LVM") {
        return;
    }
    let tests = if std::env::var(ALL).is_ok_and(|which| which == "all") { all } else { usual };
    let output = guest()
        .args(["--disk", "8G", "--memory", "2048M", "--limit", "3600", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(tests)
        .args(["--skip=soak::", "--show-output", "--test-threads=1", "--color=never"])
        .env(DISK, "/dev/ubda")
        .stdin(Stdio::null())
        .output()
        .expect("a guest");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    let passed = said.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok());
    assert!(passed.is_some_and(|passed: usize| passed >= tests.len()), "too little ran: {said}");
    assert!(!said.to_lowercase().contains("skipped"), "{said}");
    eprintln!("in the guest: {}", said.lines().rev().find(|line| line.starts_with("test result")).unwrap_or_default());
}

/// Whether there is a guest on this machine; says so loudly when there is none.
pub(crate) fn is_there(what: &str) -> bool {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = |program: &&str| folders.iter().any(|folder| Path::new(folder).join(program).exists());
    let there = ["linux.uml", "lvm", "busybox"].iter().all(found);
    if !there {
        eprintln!(
            "SKIPPED, NOT TESTED: {what}: neither device-mapper nor user-mode-linux is here (scripts/setup.sh test)"
        );
    }
    there
}

/// The program that starts a guest.
pub(crate) fn guest() -> Command {
    command(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/guest.sh"))
}
