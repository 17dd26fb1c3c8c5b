//! Running LVM, and remembering what it said: the one place of this engine that starts it.
//!
//! What holds: one report serves everybody until one of our own changes or its age ends it; whoever asks meanwhile waits
//! for the one that is under way; an LVM that is slow is never stopped, for in the middle of a change it may hold a
//! volume suspended.

use std::ffi::OsStr;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::LvmError;
use super::reload::Live;
use super::report::{ARGUMENTS, Report};
use crate::error::{EngineError, Retry};
use crate::tools::{Finished, Tool, Tools};

/// JSON reports, all the fields of them, and `--configreport`.
const LEAST: &str = "2.02.169";
/// The oldest that a report may be which lacks a volume group: its disk may answer again at any time.
const UNSEEN: Duration = Duration::from_secs(2);
/// What LVM says of a device that answers with errors, before the device's name.
const DEVICE_ERRORS: [&str; 3] = ["Error reading device ", "Error writing device ", "read failed on "];

/// LVM on this machine.
#[derive(Debug)]
pub(super) struct Lvm {
    pub(super) tools: Tools,
    pub(super) live: Live,
    remembered: Mutex<Option<Remembered>>,
    /// Counts our own changes: a report is good as long as there was none since it began.
    changes: AtomicU64,
    processes: AtomicU64,
    /// The oldest that a report may be.
    age: Duration,
}

#[derive(Debug)]
struct Remembered {
    report: Arc<Report>,
    began: Instant,
    changes: u64,
}

impl Lvm {
    /// Looks whether LVM is there and new enough.
    pub(super) fn open(tools: Tools, live: Live, age: Duration) -> Result<Lvm, EngineError> {
        let (changes, processes) = (AtomicU64::new(0), AtomicU64::new(0));
        let lvm = Lvm { tools, live, remembered: Mutex::default(), changes, processes, age };
        let attempted = "asking LVM for its version";
        let said = lvm.run(&["version".to_owned()], None, attempted)?.ok(attempted, Retry::Never)?;
        new_enough(&said)?;
        Ok(lvm)
    }

    /// How many processes of LVM were started so far.
    pub(super) fn processes(&self) -> u64 {
        self.processes.load(Ordering::Relaxed)
    }

    /// What LVM knows, at most as old as the age that was set, and newer than every change of ours.
    pub(super) fn report(&self) -> Result<Arc<Report>, EngineError> {
        self.report_within(self.age)
    }

    /// As [`report`](Self::report), at most this old.
    pub(super) fn report_within(&self, age: Duration) -> Result<Arc<Report>, EngineError> {
        let age = age.min(self.age);
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.changes.load(Ordering::SeqCst);
        if let Some(known) = remembered.as_ref().filter(|known| known.changes == changes) {
            let classes = &self.live.now().classes;
            let lacks = classes.iter().any(|class| !known.report.groups.contains_key(&class.volume_group));
            if known.began.elapsed() < if lacks { age.min(UNSEEN) } else { age } {
                return Ok(Arc::clone(&known.report));
            }
        }
        let began = Instant::now();
        let attempted = "asking LVM for its volumes";
        let args: Vec<String> = ARGUMENTS.iter().map(|&arg| arg.to_owned()).collect();
        let finished = self.run(&args, None, attempted)?;
        if finished.code() != Some(0) {
            return Err(refused(finished, attempted));
        }
        let report = Arc::new(Report::parse(&finished.stdout)?);
        *remembered = Some(Remembered { report: Arc::clone(&report), began, changes });
        Ok(report)
    }

    /// As of now, whatever is remembered: for what cannot be taken back.
    pub(super) fn fresh_report(&self) -> Result<Arc<Report>, EngineError> {
        self.forget();
        self.report()
    }

    /// Makes the next report a new one.
    pub(super) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Runs one command that changes something. Whether it succeeds or not, what was remembered is forgotten.
    pub(super) fn change(&self, args: &[String], held: Option<&File>, attempted: &str) -> Result<String, EngineError> {
        let outcome = self.run(args, held, attempted);
        self.forget();
        let finished = outcome?;
        if finished.code() == Some(0) { Ok(finished.stdout) } else { Err(refused(finished, attempted)) }
    }

    fn run(&self, args: &[String], held: Option<&File>, attempted: &str) -> Result<Finished, EngineError> {
        self.processes.fetch_add(1, Ordering::Relaxed);
        let prefix = &self.live.now().command_prefix;
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        self.tools.run_prefixed(prefix, Tool::Lvm, &args, held, attempted)
    }
}

/// Makes an error of what LVM said. Warnings are no reason, unless nothing else was said.
fn refused(finished: Finished, attempted: &str) -> EngineError {
    let is_warning = |line: &&str| line.trim_start().starts_with("WARNING:");
    if let Some(device) = failing_device(&finished.stderr) {
        let why = finished.stderr.lines().find(|line| line.contains(&device)).unwrap_or_default().trim().to_owned();
        return LvmError::Device { what: attempted.to_owned(), device: device.into(), why }.into();
    }
    let plain: Vec<&str> = finished.stderr.lines().filter(|line| !is_warning(line)).collect();
    let stderr = if plain.is_empty() { finished.stderr.clone() } else { plain.join("\n") };
    const PASSING: [&str; 5] = ["in use", "resource busy", "Can't get lock", "already exists", "Failed to lock"];
    let passing = PASSING.iter().any(|text| stderr.contains(text));
    Finished { stderr, ..finished }.failed(attempted, if passing { Retry::Later } else { Retry::Never })
}

fn failing_device(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let after = DEVICE_ERRORS.iter().find_map(|words| line.split_once(words))?.1;
        Some(after.split([' ', ':']).next()?.trim_end_matches('.').to_owned())
    })
}

fn new_enough(said: &str) -> Result<(), LvmError> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("LVM version:"));
    let line = line.ok_or_else(|| LvmError::Output { why: "`lvm version` names no version".to_owned() })?;
    let version = line.trim().split(['(', ' ', '-']).next().unwrap_or_default().to_owned();
    let numbers = |text: &str| text.split('.').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
    match (numbers(&version), numbers(LEAST)) {
        (Ok(there), Ok(least)) if there >= least => Ok(()),
        (Ok(_), Ok(_)) => Err(LvmError::TooOld { version, least: LEAST }),
        (Err(_), _) | (_, Err(_)) => Err(LvmError::Output { why: format!("'{version}' is no version") }),
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
