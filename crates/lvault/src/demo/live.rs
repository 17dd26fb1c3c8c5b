//! A writer that never stops: what an application does to a volume while it is snapshotted.
//!
//! Its files are made so that a copy of them tells by itself whether it shows one instant. Step by step it appends
//! record n to `first.log`, then record n to `second.log`, then puts a file that names n in the place of `current`.
//! Whatever instant a snapshot shows, both logs are whole and gapless, the first is at most one record ahead of the
//! second, and `current` is at most one step behind them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The folder in the volume in which the writer works.
pub(crate) const FOLDER: &str = "live";

const FIRST: &str = "first.log";
const SECOND: &str = "second.log";
const CURRENT: &str = "current";
/// So many of the files that come and go are there at a time.
const WINDOW: u64 = 32;
/// Between two steps, so that the writer leaves the machine to others.
const PAUSE: Duration = Duration::from_micros(500);

/// The running writer. It ends when it is dropped.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    steps: AtomicU64,
    longest: AtomicU64,
}

impl Writer {
    /// Starts to write into the folder `live` of a volume.
    pub(crate) fn start(volume: &Path) -> io::Result<Self> {
        let folder = volume.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let (ended, counted) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread =
            std::thread::Builder::new().name("writer".into()).spawn(move || write(&folder, &ended, &counted))?;
        Ok(Writer { stop, counts, thread: Some(thread) })
    }

    /// How many steps are done. What a step has written is in the kernel when it counts.
    pub(crate) fn steps(&self) -> u64 {
        self.counts.steps.load(Ordering::Acquire)
    }

    /// The longest that one step has taken.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.counts.longest.load(Ordering::Acquire))
    }

    /// Ends it, and answers with the error that ended it before, if one did.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(io::Error::other("the writer's thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever wants to know how it ended has called `finish`.
        let _ = self.end();
    }
}

fn write(folder: &Path, stop: &AtomicBool, counts: &Counts) -> io::Result<()> {
    let append = |name: &str| OpenOptions::new().create(true).append(true).open(folder.join(name));
    let (mut first, mut second) = (append(FIRST)?, append(SECOND)?);
    let draft = folder.join("draft");
    for step in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let started = Instant::now();
        let record = record(step);
        first.write_all(record.as_bytes())?;
        second.write_all(record.as_bytes())?;
        File::create(&draft)?.write_all(record.as_bytes())?;
        fs::rename(&draft, folder.join(CURRENT))?;
        fs::write(folder.join(format!("passing-{step}")), &record)?;
        if let Some(old) = step.checked_sub(WINDOW) {
            fs::remove_file(folder.join(format!("passing-{old}")))?;
        }
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.longest.fetch_max(took, Ordering::AcqRel);
        counts.steps.store(step + 1, Ordering::Release);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// One record: its number, and a check over it. Always of the same length.
fn record(step: u64) -> String {
    let text = format!("{step:020} written while the snapshot is cut");
    format!("{text} {:016x}\n", check(&text))
}

/// FNV-1a: enough to tell a record that was cut or mixed.
fn check(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What a copy of the writer's folder shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Records in the first log.
    pub(crate) first: u64,
    /// Records in the second log.
    pub(crate) second: u64,
    /// The step that `current` names.
    pub(crate) current: Option<u64>,
}

/// Reads a copy of the writer's folder. Logs have to be gapless; where the copy is of one instant, also in their last
/// record, and the files have to fit each other. `least` is how many steps were done before the snapshot was asked for.
pub(crate) fn inspect(volume: &Path, one_instant: bool, least: u64) -> Result<Seen, String> {
    let folder = volume.join(FOLDER);
    let seen = Seen {
        first: records(&folder.join(FIRST), one_instant)?,
        second: records(&folder.join(SECOND), one_instant)?,
        current: current(&folder.join(CURRENT))?,
    };
    if seen.first < least || seen.second < least {
        return Err(format!("only {} and {} of the {least} records written before are there", seen.first, seen.second));
    }
    if !one_instant {
        return Ok(seen);
    }
    if seen.first < seen.second || seen.first > seen.second + 1 {
        return Err(format!("the logs are not of one instant: {} and {} records", seen.first, seen.second));
    }
    let done = seen.current.map_or(0, |step| step + 1);
    if done > seen.second || done + 1 < seen.second {
        return Err(format!("`current` is not of the logs' instant: step {done} beside {} records", seen.second));
    }
    Ok(seen)
}

fn records(log: &Path, whole: bool) -> Result<u64, String> {
    let text = fs::read(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let length = record(0).len();
    let mut lines = text.chunks_exact(length);
    let mut count = 0;
    for line in &mut lines {
        if line != record(count).as_bytes() {
            return Err(format!("{}: record {count} is not what was written", log.display()));
        }
        count += 1;
    }
    if whole && !lines.remainder().is_empty() {
        return Err(format!("{}: the last record is cut in two", log.display()));
    }
    Ok(count)
}

fn current(file: &PathBuf) -> Result<Option<u64>, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let step = text.get(..20).and_then(|digits| digits.parse().ok());
    match step.filter(|step| record(*step) == text) {
        Some(step) => Ok(Some(step)),
        None => Err(format!("{} is not what was written", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(first: u64, second: u64, current: Option<u64>) -> tempfile::TempDir {
        let volume = tempfile::tempdir().expect("a folder");
        let folder = volume.path().join(FOLDER);
        fs::create_dir(&folder).expect("made");
        let log = |count: u64| (0..count).map(record).collect::<String>();
        fs::write(folder.join(FIRST), log(first)).expect("written");
        fs::write(folder.join(SECOND), log(second)).expect("written");
        if let Some(step) = current {
            fs::write(folder.join(CURRENT), record(step)).expect("written");
        }
        volume
    }

    #[test]
    fn what_the_writer_leaves_is_of_one_instant() {
        let volume = tempfile::tempdir().expect("a folder");
        let writer = Writer::start(volume.path()).expect("started");
        while writer.steps() < 50 {
            std::thread::yield_now();
        }
        let least = writer.steps();
        writer.finish().expect("it wrote without an error");
        let seen = inspect(volume.path(), true, least).expect("consistent");
        assert!(seen.first == seen.second && seen.current == Some(seen.first - 1), "{seen:?}");
        let passing = fs::read_dir(volume.path().join(FOLDER)).expect("listed").count();
        assert_eq!(passing as u64, WINDOW.min(seen.first) + 3);
    }

    #[test]
    fn instants_are_told_from_mixtures() {
        for (first, second, current, good) in [
            (0, 0, None, true),
            (1, 0, None, true),
            (1, 1, None, true),
            (5, 5, Some(4), true),
            (6, 5, Some(4), true),
            (5, 5, Some(3), true),
            (7, 5, Some(4), false),
            (5, 6, Some(5), false),
            (5, 5, Some(2), false),
            (5, 5, Some(5), false),
            (5, 5, None, false),
        ] {
            let volume = written(first, second, current);
            let seen = inspect(volume.path(), true, 0);
            assert_eq!(seen.is_ok(), good, "{first} {second} {current:?}: {seen:?}");
            assert!(inspect(volume.path(), false, 0).is_ok());
        }
    }

    #[test]
    fn lost_torn_and_changed_records_are_found() {
        let volume = written(9, 9, Some(8));
        assert!(inspect(volume.path(), true, 9).is_ok());
        assert!(inspect(volume.path(), true, 10).is_err(), "a record that was acknowledged is missing");
        let log = volume.path().join(FOLDER).join(FIRST);
        let text = fs::read(&log).expect("read");
        fs::write(&log, &text[..text.len() - 3]).expect("cut");
        assert!(inspect(volume.path(), true, 0).is_err());
        assert!(inspect(volume.path(), false, 0).is_ok());
        let mut changed = text.clone();
        changed[30] ^= 1;
        fs::write(&log, changed).expect("changed");
        assert!(inspect(volume.path(), false, 0).is_err());
    }
}
