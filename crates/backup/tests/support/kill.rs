//! Tests of the same file as processes that are killed, at moments that are spread over a run.

use super::{Bench, command};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "LVAULT_TEST_BENCH";

/// In a child: the folder of its parent's bench.
pub fn folder() -> PathBuf {
    std::env::var(CHILD).unwrap().into()
}

/// In a child: what is to be killed begins here.
pub fn begin() {
    std::fs::write(folder().join("begun"), "").unwrap();
}

/// Starts an ignored test of this file as a process of its own, and waits until it begins.
pub fn start(bench: &Bench, test: &str) -> Child {
    let begun = bench.folder.path().join("begun");
    let _ = std::fs::remove_file(&begun);
    let mut child = command(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env(CHILD, bench.folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !begun.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Kills a run at so many moments: `LVAULT_KILLS`, or the usual number.
pub struct Kills {
    test: &'static str,
    run: Duration,
    /// How many there are to be.
    pub count: u32,
    /// How many met it in its middle.
    pub killed: u32,
}

impl Kills {
    /// Runs it to its end three times, each after `reset`. The first one may be slow for reasons of its own.
    pub fn of(bench: &Bench, test: &'static str, usual: u32, reset: impl Fn()) -> Self {
        let run = (0..3).map(|_| {
            reset();
            let mut child = start(bench, test);
            let begun = Instant::now();
            assert!(child.wait().unwrap().success());
            begun.elapsed()
        });
        let count = std::env::var("LVAULT_KILLS").map_or(usual, |count| count.parse().unwrap());
        Self { test, run: run.min().unwrap(), count, killed: 0 }
    }

    /// Early and late ones by turns. A machine that has become faster or slower meanwhile is followed: a run that ended before its kill was
    /// shorter than thought, and one that a late kill met may be longer.
    pub fn kill(&mut self, bench: &Bench, number: u32) {
        let mut child = start(bench, self.test);
        let part = number * 7 % self.count;
        std::thread::sleep(self.run * part / self.count);
        let _ = child.kill();
        match child.wait().unwrap().success() {
            true => self.run = self.run * 4 / 5,
            false => {
                self.killed += 1;
                if part * 3 >= self.count * 2 {
                    self.run = self.run * 6 / 5;
                }
            }
        }
    }
}
