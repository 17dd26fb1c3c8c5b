//! Processes that hold passwords leave no core dump.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{command, until};
use crate::world::{Engine, World};

/// The limits of core dumps of a process, soft and hard, once they are what they should be.
fn limits_become_one(pid: u32) {
    until("the limit of core dumps is 1", || {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let limits = limits.lines().find_map(|line| line.strip_prefix("Max core file size"))?;
        limits.split_whitespace().take(2).eq(["1", "1"]).then_some(())
    });
}

#[test]
fn the_agent_and_its_executors_have_a_limit_that_prevents_core_dumps() {
    let mut world = World::new(Engine::Directory);
    limits_become_one(world.agent().pid);
    crate::data::fill(&world.volume("data"), 50, 1);
    world.storage("main");
    world.close_gate();
    let uid = world.snapshot("s1", "data", &[]);
    let executor = world.executor(&uid);
    limits_become_one(executor.process.pid);
    world.open_gate();
    executor.process.go_on();
    world.phase("s1", 1, lvault_api::Phase::Succeeded);
    world.finish();
}

/// A process that waits for its standard input, in a folder where it could leave a core file and with the right to make one of
/// any size.
fn with_large_limits(program: &str, argument: &str, folder: &std::path::Path) -> Child {
    let script = "ulimit -c \"$(ulimit -H -c)\" && exec \"$0\" \"$@\"";
    let mut shell = command("sh");
    shell.args(["-c", script, program, argument]).current_dir(folder);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn abort(mut child: Child) -> bool {
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    status.core_dumped()
}

#[test]
fn an_executor_that_aborts_leaves_no_core_dump() {
    let folder = tempfile::tempdir().unwrap();
    let executor = with_large_limits(env!("CARGO_BIN_EXE_lvault"), "executor", folder.path());
    limits_become_one(executor.id());
    assert!(!abort(executor), "a core was dumped");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it left something");
    // Whether anything here is dumped at all: a program that does not forbid it.
    let cat = with_large_limits("cat", "-", folder.path());
    until("cat runs", || {
        fs::read_to_string(format!("/proc/{}/comm", cat.id())).is_ok_and(|it| it == "cat\n").then_some(())
    });
    if !abort(cat) {
        eprintln!("no process leaves core dumps on this machine: only the limits were looked at");
    }
}
