//! Following trees from roots down, on several threads; what is far away is fetched in stretches, several at once.
//!
//! What holds here: each id that is handed out is read once, and answered once, to the caller's own thread. Which ids are handed out,
//! the caller says: it looks after those that it has seen. Memory: the ids that are not read yet, and a few lots of trees.

use crate::backend::lock;
use crate::fault::{Fault, guarded_call};
use crate::index::{Indexed, Place};
use crate::retry::Retry;
use crate::stretches::{GAP, LONGEST};
use rustic_core::Id;
use rustic_core::repofile::BlobType;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// No more trees are read before they are handed over.
const LOT: usize = 16;
/// Nor more of them than have so many bytes together, before compression.
const LOT_BYTES: usize = 256 << 10;

/// Trees that lie together in one pack, in that order.
struct Run {
    first: Place,
    last: Place,
    ids: Vec<Id>,
}

enum Job {
    Fetch(Run),
    Read(Vec<Id>),
}

enum Answer<T> {
    /// These can be read now.
    Fetched(Vec<Id>),
    /// These cannot, as the storage does not answer.
    Away(Vec<Id>, Fault),
    Read(Vec<(Id, Result<T, Fault>)>),
}

/// Reads these trees, and those that `take` adds to the list it is given, until there are no more or it breaks off. `read` works on
/// several threads at once, `take` on the caller's. The order is that of reading, which differs each time.
pub(crate) fn follow<T: Send, B>(
    indexed: &Indexed,
    roots: Vec<Id>,
    read: impl Fn(&Id) -> Result<T, Fault> + Sync,
    mut take: impl FnMut(Id, Result<T, Fault>, &mut Vec<Id>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let threads = indexed.readers();
    let ((jobs, waiting), (answers, answered)) = (channel(), channel());
    let (waiting, has_ended) = (Mutex::new(waiting), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (answers, waiting, has_ended, read) = (answers.clone(), &waiting, &has_ended, &read);
            scope.spawn(move || work(indexed, waiting, &answers, has_ended, read));
        }
        let mut open = Open::new(threads);
        open.add(indexed, roots);
        let flow = hand_out(indexed, &mut open, &jobs, &answered, &mut take);
        has_ended.store(true, Ordering::Relaxed);
        drop(jobs);
        flow
    })
}

fn hand_out<T, B>(
    indexed: &Indexed,
    open: &mut Open,
    jobs: &Sender<Job>,
    answered: &Receiver<Answer<T>>,
    take: &mut impl FnMut(Id, Result<T, Fault>, &mut Vec<Id>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    loop {
        while let Some(job) = open.next_job(indexed) {
            // The threads live as long as this does.
            let _ = jobs.send(job);
        }
        if open.is_done() {
            return ControlFlow::Continue(());
        }
        // Each job is answered, whatever becomes of it.
        let Ok(answer) = answered.recv() else { return ControlFlow::Continue(()) };
        let mut below = Vec::new();
        match answer {
            Answer::Fetched(ids) => {
                open.fetching -= 1;
                open.near.extend(ids);
            }
            Answer::Away(ids, fault) => {
                open.fetching -= 1;
                ids.into_iter().try_for_each(|id| take(id, Err(fault.clone()), &mut below))?;
            }
            Answer::Read(trees) => {
                open.reading -= 1;
                trees.into_iter().try_for_each(|(id, tree)| take(id, tree, &mut below))?;
            }
        }
        open.add(indexed, below);
    }
}

/// What is not read yet.
struct Open {
    threads: usize,
    /// Can be read without waiting; the last first, which is what lies near to what was read last.
    near: Vec<Id>,
    /// Is to be fetched, when all that is near is read: so the most lies together.
    far: Vec<Id>,
    runs: Vec<Run>,
    /// Jobs that are not answered.
    reading: usize,
    fetching: usize,
}

impl Open {
    fn new(threads: usize) -> Self {
        Self { threads, near: Vec::new(), far: Vec::new(), runs: Vec::new(), reading: 0, fetching: 0 }
    }

    fn add(&mut self, indexed: &Indexed, ids: Vec<Id>) {
        for id in ids {
            if indexed.is_near(&id) { self.near.push(id) } else { self.far.push(id) }
        }
    }

    fn is_done(&self) -> bool {
        self.reading + self.fetching == 0
    }

    fn next_job(&mut self, indexed: &Indexed) -> Option<Job> {
        if self.reading < 2 * self.threads && !self.near.is_empty() {
            self.reading += 1;
            return Some(Job::Read(self.lot(indexed)));
        }
        if !self.near.is_empty() || self.fetching == self.threads {
            return None;
        }
        if self.runs.is_empty() && self.is_done() {
            self.runs = runs(indexed, std::mem::take(&mut self.far));
        }
        let run = self.runs.pop()?;
        self.fetching += 1;
        Some(Job::Fetch(run))
    }

    fn lot(&mut self, indexed: &Indexed) -> Vec<Id> {
        let (mut count, mut bytes) = (0, 0);
        for id in self.near.iter().rev().take(LOT) {
            bytes += indexed.place(BlobType::Tree, id).map_or(0, |place| place.data_length());
            if count > 0 && bytes > LOT_BYTES {
                break;
            }
            count += 1;
        }
        self.near.split_off(self.near.len() - count)
    }
}

/// Puts trees together that lie together.
fn runs(indexed: &Indexed, ids: Vec<Id>) -> Vec<Run> {
    let place = |id: Id| Some((indexed.place(BlobType::Tree, &id)?, id));
    let mut places: Vec<(Place, Id)> = ids.into_iter().filter_map(place).collect();
    places.sort_unstable_by_key(|(place, _)| (place.pack_number(), place.offset));
    let mut runs: Vec<Run> = Vec::new();
    for (place, id) in places {
        match runs.last_mut().filter(|run| is_near(run, &place)) {
            Some(run) => {
                run.last = if place.end() > run.last.end() { place } else { run.last };
                run.ids.push(id);
            }
            None => runs.push(Run { first: place, last: place, ids: vec![id] }),
        }
    }
    runs
}

fn is_near(run: &Run, place: &Place) -> bool {
    let end = run.last.end().max(place.end());
    place.pack_number() == run.first.pack_number()
        && u64::from(place.offset) <= run.last.end() + GAP
        && end - u64::from(run.first.offset) <= LONGEST
}

fn work<T>(
    indexed: &Indexed,
    waiting: &Mutex<Receiver<Job>>,
    answers: &Sender<Answer<T>>,
    has_ended: &AtomicBool,
    read: &impl Fn(&Id) -> Result<T, Fault>,
) {
    loop {
        let job = lock(waiting).recv();
        let answer = match job {
            Ok(_) if has_ended.load(Ordering::Relaxed) => return,
            Ok(Job::Fetch(run)) => fetch(indexed, run),
            Ok(Job::Read(ids)) => {
                let go_on = |_: &Id| !has_ended.load(Ordering::Relaxed);
                let read = |id| (id, guarded_call(|| read(&id)).and_then(|tree| tree));
                Answer::Read(ids.into_iter().take_while(go_on).map(read).collect())
            }
            Err(_) => return,
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// What is damaged or missing is found by whoever reads it; a storage that does not answer is not asked again for each tree.
fn fetch<T>(indexed: &Indexed, run: Run) -> Answer<T> {
    match indexed.fetch_trees(&run.first, &run.last) {
        Err(fault) if fault.retry() == Retry::Later => Answer::Away(run.ids, fault),
        Ok(()) | Err(_) => Answer::Fetched(run.ids),
    }
}

#[cfg(test)]
mod tests;
