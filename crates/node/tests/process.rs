//! Executors as real processes: found again by a launcher that did not start them, ended for certain, never two.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says why")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lvault_api::task::{ApiAccess, LeaseTerms, Secret, Task, Work};
use lvault_api::{SnapshotBackupStorageSpec, StorageReference};
use lvault_core::{Attempt, Executor, Job, Launch, Life, VolumeId};
use lvault_node::{Change, ExecutorCommand, LaunchError, Launcher, ProcessLauncher};

const PASSWORD: &str = "hunter2-hunter2";

fn job(launch: u32) -> Job {
    Job::Copy { attempt: Attempt::FIRST, launch: Launch::new(launch).unwrap() }
}

fn id() -> VolumeId {
    VolumeId::parse("11111111-2222").unwrap()
}

fn task() -> Task {
    let spec = serde_json::json!({"storage": {"provider": "local", "local": {"path": "/nowhere"}}});
    Task {
        name: "backup-x-1-1".to_owned(),
        volume: "x".to_owned(),
        uid: id().to_string(),
        work: Work::Forget,
        storage: StorageReference { name: "s".to_owned(), namespace: "default".to_owned() },
        storage_spec: serde_json::from_value::<SnapshotBackupStorageSpec>(spec).unwrap(),
        path: "default/x".to_owned(),
        password: Secret(PASSWORD.to_owned()),
        api: ApiAccess::InCluster,
        lease: LeaseTerms { namespace: "default".to_owned(), name: "l".to_owned(), duration_seconds: 30 },
        credentials: std::collections::BTreeMap::new(),
        progress_seconds: 10,
        key_cache: None,
    }
}

/// A launcher whose executors run a shell script; `$1` is the state folder.
fn launcher(state: &Path, script: &str) -> ProcessLauncher {
    let arguments = ["-c", script, "executor", &state.display().to_string()].map(OsString::from).to_vec();
    ProcessLauncher::new(state, ExecutorCommand { program: PathBuf::from("/bin/sh"), arguments })
}

fn life(launcher: &ProcessLauncher) -> Option<Life> {
    launcher.observe(&id()).unwrap().map(|executor| executor.life)
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Counts the starts in a file, then stays.
const COUNT_AND_STAY: &str = "echo started >> $1/starts; exec sleep 60";

fn starts(state: &Path) -> usize {
    fs::read_to_string(state.join("starts")).unwrap_or_default().lines().count()
}

#[test]
fn an_executor_is_found_by_a_launcher_that_did_not_start_it() {
    let state = tempfile::tempdir().unwrap();
    let first = launcher(state.path(), COUNT_AND_STAY);
    assert_eq!(first.observe(&id()).unwrap(), None);
    assert_eq!(first.ensure_launched(&id(), job(1), &task()).unwrap(), Change::Changed);
    assert_eq!(life(&first), Some(Life::Alive), "it is seen at once, not after a moment");
    drop(first);

    let second = launcher(state.path(), COUNT_AND_STAY);
    assert_eq!(second.observe(&id()).unwrap(), Some(Executor { job: job(1), life: Life::Alive }));
    assert_eq!(second.ensure_launched(&id(), job(1), &task()).unwrap(), Change::Unchanged);
    wait_until("the start is counted", || starts(state.path()) > 0);
    assert_eq!(starts(state.path()), 1, "it is never started twice");
    let other = second.ensure_launched(&id(), job(2), &task());
    assert!(matches!(other, Err(LaunchError::Occupied(_))), "no second one beside it: {other:?}");
    assert!(matches!(second.ensure_removed(&id()), Err(LaunchError::Occupied(_))));

    assert_eq!(second.ensure_ended(&id()).unwrap(), Change::Changed);
    wait_until("it ends", || life(&second) == Some(Life::Ended));
    assert_eq!(second.ensure_launched(&id(), job(1), &task()).unwrap(), Change::Unchanged, "a launch is spent");
    assert_eq!(starts(state.path()), 1);
    assert_eq!(second.ensure_removed(&id()).unwrap(), Change::Changed);
    assert_eq!(second.ensure_removed(&id()).unwrap(), Change::Unchanged);
    assert_eq!(second.observe(&id()).unwrap(), None);
}

#[test]
fn a_stopped_executor_is_ended_too() {
    let state = tempfile::tempdir().unwrap();
    let launcher = launcher(state.path(), "kill -STOP $$; sleep 60");
    launcher.ensure_launched(&id(), job(1), &task()).unwrap();
    wait_until("it is ended", || {
        launcher.ensure_ended(&id()).unwrap();
        life(&launcher) == Some(Life::Ended)
    });
}

/// Ctrl-C goes to the whole group of the terminal: it ends lvault, and must not end its executors.
#[test]
fn an_executor_has_a_process_group_of_its_own() {
    let state = tempfile::tempdir().unwrap();
    let launcher = launcher(state.path(), "cut -d' ' -f1,5 < /proc/$$/stat > $1/group.new; mv $1/group.new $1/group");
    launcher.ensure_launched(&id(), job(1), &task()).unwrap();
    wait_until("it has told its group", || state.path().join("group").exists());
    let told = fs::read_to_string(state.path().join("group")).unwrap();
    let (process, group) = told.trim().split_once(' ').unwrap();
    assert_eq!(process, group);
}

#[test]
fn the_end_of_an_executor_is_told_with_its_last_words() {
    let state = tempfile::tempdir().unwrap();
    let launcher = launcher(state.path(), "echo first; echo the disk is on fire >&2; exit 7");
    let (tell, told) = std::sync::mpsc::channel();
    launcher.on_exit(std::sync::Arc::new(move |id| tell.send(id).unwrap()));
    launcher.ensure_launched(&id(), job(1), &task()).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).unwrap(), id());
    let words = launcher.last_words(&id()).unwrap();
    assert!(words.contains("exit status: 7") && words.contains("the disk is on fire"), "{words}");
}

#[test]
fn a_secret_reaches_the_executor_and_nobody_else() {
    let state = tempfile::tempdir().unwrap();
    let script = "cat > $1/task; tr '\\0' ' ' < /proc/$$/cmdline > $1/cmdline; tr '\\0' '\\n' < /proc/$$/environ > $1/environ; \
                  ls -l /proc/$$/fd > $1/fds";
    let launcher = launcher(state.path(), script);
    launcher.ensure_launched(&id(), job(1), &task()).unwrap();
    wait_until("it ends", || life(&launcher) == Some(Life::Ended));
    let read = |name: &str| fs::read_to_string(state.path().join(name)).unwrap();
    assert!(read("task").contains(PASSWORD), "the task holds the password");
    for name in ["cmdline", "environ"] {
        assert!(!read(name).is_empty() && !read(name).contains(PASSWORD), "{name} holds the password");
    }
    assert!(read("fds").contains("/lock"), "it holds its lock: {}", read("fds"));
    let folder = state.path().join("executors");
    for file in files(&folder) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()), "{}", file.display());
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_program_that_is_missing_costs_no_launch() {
    let state = tempfile::tempdir().unwrap();
    let command = ExecutorCommand { program: PathBuf::from("/nowhere/lvault"), arguments: Vec::new() };
    let launcher = ProcessLauncher::new(state.path(), command);
    let error = launcher.ensure_launched(&id(), job(1), &task());
    assert!(matches!(&error, Err(LaunchError::Impossible(why)) if why.contains("/nowhere/lvault")), "{error:?}");
    assert_eq!(launcher.observe(&id()).unwrap(), None);
}

/// A folder without a living executor, as an agent leaves it that is killed between making it and starting anything.
#[test]
fn a_launch_that_was_cut_short_is_seen_as_ended() {
    let state = tempfile::tempdir().unwrap();
    let launcher = launcher(state.path(), "exec sleep 60");
    fs::create_dir_all(state.path().join("executors").join(id().as_str()).join("copy-1-1")).unwrap();
    assert_eq!(launcher.observe(&id()).unwrap(), Some(Executor { job: job(1), life: Life::Ended }));
    fs::write(state.path().join("executors").join(id().as_str()).join("copy-1-1/lock"), "").unwrap();
    assert_eq!(life(&launcher), Some(Life::Ended));
}
