//! The queue of the workers: files to read, and chunks that a worker has read and another may press.
//!
//! What holds here: it is bounded, and nobody waits for a place for a chunk. A worker that reads a large file offers its
//! chunks to workers that have nothing to do, and presses a chunk itself when there is none: so one large file keeps all
//! cores busy, and no worker waits for another.

use crate::backend::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// So many files wait at most; each holds its folder open.
const FILES: usize = 64;

/// Something to do for a worker.
pub(super) enum Job<F, C> {
    /// Read a file. To be followed by [`Queue::file_read`].
    File(F),
    /// Press a chunk that somebody else has read.
    Chunk(C),
}

struct State<F, C> {
    files: VecDeque<F>,
    chunks: VecDeque<C>,
    idle: usize,
    reading: usize,
    closed: bool,
}

/// A bounded queue with two lanes, of which chunks are served first.
pub(super) struct Queue<F, C> {
    state: Mutex<State<F, C>>,
    work: Condvar,
    room: Condvar,
}

impl<F, C> Queue<F, C> {
    pub(super) fn new() -> Self {
        let state = State { files: VecDeque::new(), chunks: VecDeque::new(), idle: 0, reading: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    /// Adds a file, and waits for room. Gives it back when nobody will read it any more.
    pub(super) fn add_file(&self, file: F) -> Result<(), F> {
        let mut state = lock(&self.state);
        while state.files.len() >= FILES && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(file);
        }
        state.files.push_back(file);
        self.work.notify_one();
        Ok(())
    }

    /// Whether somebody has nothing to do, so that a chunk is worth handing over.
    pub(super) fn wants_chunk(&self) -> bool {
        let state = lock(&self.state);
        state.idle > state.chunks.len()
    }

    /// Hands a chunk over.
    pub(super) fn add_chunk(&self, chunk: C) {
        lock(&self.state).chunks.push_back(chunk);
        self.work.notify_one();
    }

    /// The next thing to do; waits for one. `None` when there will be none any more.
    pub(super) fn next(&self) -> Option<Job<F, C>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                return Some(Job::Chunk(chunk));
            }
            if let Some(file) = state.files.pop_front() {
                state.reading += 1;
                self.room.notify_one();
                return Some(Job::File(file));
            }
            if state.closed && state.reading == 0 {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// A file that [`Self::next`] gave is read, so that it offers no more chunks.
    pub(super) fn file_read(&self) {
        let mut state = lock(&self.state);
        state.reading -= 1;
        if state.reading == 0 && state.closed {
            self.work.notify_all();
        }
    }

    /// No more files will come.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn everything_is_served_once_and_everybody_ends() {
        let (queue, served) = (Queue::<usize, usize>::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(job) = queue.next() {
                        match job {
                            Job::File(number) => {
                                for _ in 0..5 {
                                    if queue.wants_chunk() {
                                        queue.add_chunk(number);
                                    } else {
                                        served.fetch_add(number, Ordering::Relaxed);
                                    }
                                }
                                queue.file_read();
                            }
                            Job::Chunk(number) => {
                                served.fetch_add(number, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
            (1..=1000).for_each(|number| assert!(queue.add_file(number).is_ok()));
            queue.close();
        });
        assert_eq!(served.into_inner(), 5 * 1000 * 1001 / 2);
        assert!(queue.add_file(1).is_err());
    }
}
