//! How far the copy is: counted by its threads, read by whoever reports.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use lvault_api::Progress as Written;
use lvault_backup::{Progress, Step};

/// Counters that the copying thread raises, and the flag that stops it.
#[derive(Debug, Default)]
pub struct Meter {
    total_bytes: AtomicU64,
    total_files: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    beats: AtomicU64,
    verifying: AtomicBool,
    stop: AtomicBool,
    waiting: Mutex<Option<String>>,
    started: OnceLock<Instant>,
}

impl Meter {
    /// Asks the copy to stop. A copy that was asked to stop commits nothing.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Begins to count anew, for another try.
    pub fn restart(&self) {
        for counter in [&self.bytes, &self.files] {
            counter.store(0, Ordering::Relaxed);
        }
        self.verifying.store(false, Ordering::Relaxed);
        self.beat();
    }

    /// How long the copy has run, in seconds.
    pub fn seconds(&self) -> f64 {
        self.started.get_or_init(Instant::now).elapsed().as_secs_f64()
    }

    /// A number that changes whenever the copy gets anywhere.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whether the data is copied and being read back.
    pub fn is_verifying(&self) -> bool {
        self.verifying.load(Ordering::Relaxed)
    }

    /// Notes the lock that is waited for.
    pub fn waiting(&self, lock: Option<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = lock;
        self.beat();
    }

    /// The lock that is waited for.
    pub fn is_waiting(&self) -> Option<String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The counters as they are written into a status, for a copy that has run for `seconds`.
    pub fn written(&self, seconds: f64) -> Written {
        let get = |counter: &AtomicU64| i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let (total, done) = (get(&self.total_bytes), get(&self.bytes));
        let percentage = match total {
            0 => "0%".to_owned(),
            total => format!("{}%", (i128::from(done) * 100 / i128::from(total)).min(100)),
        };
        let rate = if seconds > 0.0 { (done as f64 / seconds) as i64 } else { 0 };
        Written {
            total_bytes: total,
            bytes_done: done,
            total_files: get(&self.total_files),
            files_done: get(&self.files),
            percentage,
            bytes_per_second: rate,
        }
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Progress for Meter {
    fn step(&self, step: Step) {
        self.beat();
        self.started.get_or_init(Instant::now);
        self.verifying.store(step == Step::Verifying, Ordering::Relaxed);
    }

    fn total(&self, bytes: u64, files: u64) {
        self.waiting(None);
        if !self.is_verifying() {
            self.total_bytes.store(bytes, Ordering::Relaxed);
            self.total_files.store(files, Ordering::Relaxed);
        }
    }

    fn bytes(&self, bytes: u64) {
        self.beat();
        if !self.is_verifying() {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn file_done(&self) {
        self.beat();
        if !self.is_verifying() {
            self.files.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_written_as_people_read_them() {
        let meter = Meter::default();
        meter.total(200, 3);
        meter.bytes(50);
        meter.file_done();
        let written = meter.written(2.0);
        assert_eq!((written.percentage.as_str(), written.bytes_per_second, written.files_done), ("25%", 25, 1));
        meter.step(Step::Verifying);
        meter.total(7, 7);
        meter.bytes(7);
        assert_eq!(meter.written(0.0).bytes_done, 50, "reading back is not copying");
        assert_eq!(Meter::default().written(1.0).percentage, "0%");
    }
}
