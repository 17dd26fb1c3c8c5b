//! The queue of the workers: folders to walk, files to read, and chunks that a worker has read and another may press.
//!
//! What holds here: it is bounded, and no worker waits for a place in it. A worker that walks offers folders to workers that have
//! nothing to do, and one that reads a large file its chunks; what nobody takes it does itself. So one large file and one
//! large folder of folders keep all cores busy, and no worker waits for another. Only the walk that began waits for room.

use crate::backend::lock;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

/// So many files wait at most; each holds its folder open.
const FILES: usize = 64;

/// Something to do for a worker.
pub(super) enum Job<D, F, C> {
    /// Walk a folder. To be followed by [`Queue::done`].
    Folder(D),
    /// Read a file. To be followed by [`Queue::done`].
    File(F),
    /// Press a chunk that somebody else has read.
    Chunk(C),
}

struct State<D, F, C> {
    folders: VecDeque<D>,
    files: VecDeque<F>,
    chunks: VecDeque<C>,
    /// Workers that wait.
    idle: usize,
    /// Workers at a job that may bring others.
    busy: usize,
    closed: bool,
}

impl<D, F, C> State<D, F, C> {
    /// Whether somebody waits for whom there is nothing.
    fn has_idle(&self) -> bool {
        self.idle > self.chunks.len() + self.files.len() + self.folders.len()
    }
}

/// A bounded queue with three lanes: chunks are served first, then files, then folders.
pub(super) struct Queue<D, F, C> {
    state: Mutex<State<D, F, C>>,
    work: Condvar,
    room: Condvar,
}

impl<D, F, C> Queue<D, F, C> {
    pub(super) fn new() -> Self {
        let state = State {
            folders: VecDeque::new(),
            files: VecDeque::new(),
            chunks: VecDeque::new(),
            idle: 0,
            busy: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    /// Hands a folder over to somebody who has nothing to do; gives it back when there is nobody.
    pub(super) fn offer_folder(&self, folder: D) -> Result<(), D> {
        let mut state = lock(&self.state);
        if !state.has_idle() {
            return Err(folder);
        }
        state.folders.push_back(folder);
        self.work.notify_one();
        Ok(())
    }

    /// Adds a file; gives it back when there is no room.
    pub(super) fn offer_file(&self, file: F) -> Result<(), F> {
        let mut state = lock(&self.state);
        if state.files.len() >= FILES {
            return Err(file);
        }
        state.files.push_back(file);
        self.work.notify_one();
        Ok(())
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
        lock(&self.state).has_idle()
    }

    /// Hands a chunk over.
    pub(super) fn add_chunk(&self, chunk: C) {
        lock(&self.state).chunks.push_back(chunk);
        self.work.notify_one();
    }

    /// The next thing to do; waits for one. `None` when there will be none any more.
    pub(super) fn next(&self) -> Option<Job<D, F, C>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                return Some(Job::Chunk(chunk));
            }
            if let Some(file) = state.files.pop_front() {
                state.busy += 1;
                self.room.notify_one();
                return Some(Job::File(file));
            }
            if let Some(folder) = state.folders.pop_front() {
                state.busy += 1;
                return Some(Job::Folder(folder));
            }
            if state.closed && state.busy == 0 {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// A file or a folder that [`Self::next`] gave is done, so that it brings nothing more.
    pub(super) fn done(&self) {
        let mut state = lock(&self.state);
        state.busy -= 1;
        if state.busy == 0 && state.closed {
            self.work.notify_all();
        }
    }

    /// Nothing more will come but what workers bring.
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

    /// Folders bring folders and files, files bring chunks, and whatever nobody takes is done at once.
    #[test]
    fn everything_is_served_once_and_everybody_ends() {
        let (queue, served) = (Queue::<usize, usize, usize>::new(), AtomicUsize::new(0));
        let serve = |number| {
            served.fetch_add(number, Ordering::Relaxed);
        };
        let read = |number| {
            for _ in 0..5 {
                if queue.wants_chunk() {
                    queue.add_chunk(number);
                } else {
                    serve(number);
                }
            }
        };
        let walk = |number| {
            for _ in 0..3 {
                if let Err(number) = queue.offer_file(number) {
                    read(number);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(job) = queue.next() {
                        match job {
                            Job::Folder(number) => {
                                walk(number);
                                queue.done();
                            }
                            Job::File(number) => {
                                read(number);
                                queue.done();
                            }
                            Job::Chunk(number) => serve(number),
                        }
                    }
                });
            }
            for number in 1..=1000 {
                if let Err(number) = queue.offer_folder(number) {
                    walk(number);
                }
                assert!(queue.add_file(number).is_ok());
            }
            queue.close();
        });
        assert_eq!(served.into_inner(), (3 + 1) * 5 * 1000 * 1001 / 2);
        assert!(queue.add_file(1).is_err());
    }

    #[test]
    fn folders_are_for_whoever_waits_and_files_have_bounded_room() {
        let queue = Queue::<usize, usize, usize>::new();
        assert_eq!(queue.offer_folder(1), Err(1));
        assert!((0..FILES).all(|number| queue.offer_file(number).is_ok()));
        assert_eq!(queue.offer_file(1), Err(1));
        assert!(!queue.wants_chunk());
    }
}
