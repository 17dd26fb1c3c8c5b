//! The one writer: it takes writes in order, decides them, makes them durable together, publishes them and answers.
//!
//! Holds: nobody is answered before the file is; nothing is published that is not durable; when the file cannot be
//! written, every write of the batch is answered with that, and memory stays as it was.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{mpsc, oneshot, watch};

use super::State;
use super::file::ObjectFile;
use super::transaction::{Layer, Transaction};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::verbs::Outcome;

/// What a write does.
pub(crate) type Work = Box<dyn FnOnce(&mut Transaction<'_>) -> Result<Outcome, Refusal> + Send>;

/// One write and whom to answer.
pub(crate) struct Request {
    work: Work,
    dry_run: bool,
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// What the writer's thread is told.
pub(crate) enum Command {
    Write(Request),
    /// Finish what came before, close the file, then say so.
    Close(oneshot::Sender<()>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Write(_) => "Write",
            Command::Close(_) => "Close",
        })
    }
}

/// How far the store has come, as watches wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) revision: u64,
    pub(crate) closed: bool,
}

/// Most writes that share one commit.
const BATCH: usize = 256;
/// Most writes that wait; further ones wait for a place.
const QUEUE: usize = 1024;

/// What readers, watches and the writer share.
pub(crate) struct Shared {
    registry: Arc<Registry>,
    state: RwLock<State>,
    position: watch::Sender<Position>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("position", &*self.position.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(registry: Arc<Registry>, state: State) -> Shared {
        let position = watch::Sender::new(Position { revision: state.revision(), closed: false });
        Shared { registry, state: RwLock::new(state), position }
    }

    /// The state as of now. Never held across an await.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while publishing would leave a mixture; deciding happens before, under a read guard, so that none poisons.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    fn close(&self) {
        self.position.send_modify(|position| position.closed = true);
    }

    /// Decides, commits, publishes and answers one batch.
    fn perform(&self, requests: Vec<Request>, file: Option<&ObjectFile>) {
        let (batch, answers) = self.decide(requests);
        let durable = match file {
            Some(file) if !batch.changes.is_empty() => file.commit(&self.registry, &batch),
            Some(_) | None => Ok(()),
        };
        match durable {
            Ok(()) => {
                self.publish(batch);
                for (answer, result) in answers {
                    // Whoever asked may be gone; the write stands all the same.
                    drop(answer.send(result));
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "writes could not be made durable");
                for (answer, _) in answers {
                    drop(answer.send(Err(Refusal::Internal(format!("the store could not be written: {error}")))));
                }
            }
        }
    }

    fn decide(&self, requests: Vec<Request>) -> (Layer, Vec<Answer>) {
        let state = self.read();
        let mut batch = Layer::on(state.revision());
        let mut answers = Vec::with_capacity(requests.len());
        for Request { work, dry_run, answer } in requests {
            let mut transaction = Transaction::new(&self.registry, &state, &batch);
            // One request that trips over a defect must not take the writer, and with it every later write, down.
            let result = catch_unwind(AssertUnwindSafe(|| work(&mut transaction))).unwrap_or_else(|_| {
                Err(Refusal::Internal(String::from("the request ran into a defect of the server")))
            });
            let layer = transaction.into_layer();
            if result.is_ok() && !dry_run {
                batch.absorb(layer);
            }
            answers.push((answer, result));
        }
        (batch, answers)
    }

    fn publish(&self, batch: Layer) {
        if batch.changes.is_empty() {
            return;
        }
        let revision = batch.revision;
        self.state.write().unwrap_or_else(PoisonError::into_inner).publish(batch.changes, revision);
        self.position.send_modify(|position| position.revision = revision);
    }
}

type Answer = (oneshot::Sender<Result<Outcome, Refusal>>, Result<Outcome, Refusal>);

/// The way to the writer.
#[derive(Debug)]
pub(crate) enum Writer {
    /// A thread of its own, which waits for the disk.
    Thread(mpsc::Sender<Command>),
    /// In the caller's place, for a store that lives in memory. The lock keeps writes in order.
    Inline(Mutex<bool>),
}

fn closed() -> Refusal {
    Refusal::Unavailable(String::from("the server is shutting down"))
}

impl Writer {
    /// A writer into the file, on a thread of its own. The thread ends when the last sender is gone.
    pub(crate) fn into_file(shared: Arc<Shared>, file: ObjectFile) -> std::io::Result<Writer> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name(String::from("apiserver-writer"))
            .spawn(move || run(&shared, file, receiver))?;
        Ok(Writer::Thread(sender))
    }

    /// A writer that only changes memory.
    pub(crate) fn in_memory() -> Writer {
        Writer::Inline(Mutex::new(false))
    }

    /// Has the work done. Dropping the future does not undo it.
    pub(crate) async fn submit(&self, shared: &Shared, work: Work, dry_run: bool) -> Result<Outcome, Refusal> {
        let (answer, result) = oneshot::channel();
        let request = Request { work, dry_run, answer };
        match self {
            Writer::Thread(sender) => {
                sender.send(Command::Write(request)).await.map_err(|_| closed())?;
            }
            Writer::Inline(is_closed) => {
                let is_closed = is_closed.lock().unwrap_or_else(PoisonError::into_inner);
                if *is_closed {
                    return Err(closed());
                }
                shared.perform(vec![request], None);
            }
        }
        result.await.map_err(|_| closed())?
    }

    /// Ends the writer: what was taken is finished, the file is released, later writes are refused. Idempotent.
    pub(crate) async fn close(&self, shared: &Shared) {
        match self {
            Writer::Thread(sender) => {
                let (done, wait) = oneshot::channel();
                if sender.send(Command::Close(done)).await.is_ok() {
                    drop(wait.await);
                }
            }
            Writer::Inline(is_closed) => {
                *is_closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
                shared.close();
            }
        }
    }
}

/// The writer's thread.
fn run(shared: &Shared, file: ObjectFile, mut receiver: mpsc::Receiver<Command>) {
    let mut closing = None;
    while closing.is_none() {
        let Some(first) = receiver.blocking_recv() else {
            break;
        };
        let mut requests = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Write(request) => requests.push(request),
                Command::Close(done) => {
                    closing = Some(done);
                    break;
                }
            }
            next = if requests.len() < BATCH { receiver.try_recv().ok() } else { None };
        }
        shared.perform(requests, Some(&file));
    }
    shared.close();
    file.settle();
    drop(file);
    if let Some(done) = closing {
        // Whoever closed may be gone.
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Nature;
    use crate::store::Key;
    use crate::verbs::Answer;
    use serde_json::json;

    fn store() -> (Arc<Shared>, Writer, Key) {
        let registry = Arc::new(Registry::build(&[]).expect("builds"));
        let resource = registry.find_nature(Nature::Namespace).expect("built in");
        let state = State::new(&registry, 0, 8);
        let key = Key { resource, namespace: String::new(), name: String::from("a") };
        (Arc::new(Shared::new(registry, state)), Writer::in_memory(), key)
    }

    fn put(key: &Key, then: fn() -> Result<(), Refusal>) -> Work {
        let key = key.clone();
        Box::new(move |tx| {
            let stored = tx.put(key, json!({"metadata": {"name": "a"}}));
            then()?;
            Ok(Outcome { code: 201, answer: Answer::Object(stored), warnings: Vec::new() })
        })
    }

    #[tokio::test]
    async fn a_refused_write_leaves_nothing_behind() {
        let (shared, writer, key) = store();
        let refused = writer.submit(&shared, put(&key, || Err(Refusal::NoSuchPath)), false).await;
        assert_eq!(refused.err(), Some(Refusal::NoSuchPath));
        assert!(shared.read().get(&key).is_none());
        assert_eq!(shared.read().revision(), 0);
    }

    #[tokio::test]
    async fn a_defect_in_one_write_harms_no_other() {
        let (shared, writer, key) = store();
        let failed = writer.submit(&shared, put(&key, || panic!("a defect, on purpose")), false).await;
        assert!(matches!(failed, Err(Refusal::Internal(_))));
        assert!(shared.read().get(&key).is_none());
        writer.submit(&shared, put(&key, || Ok(())), false).await.expect("the next write is done");
        assert_eq!(shared.read().get(&key).map(|stored| stored.revision), Some(1));
    }
}
