//! Watches: every change from a version on, in order, each once.
//!
//! Holds: a watch never skips a change; when it cannot go on without a gap it ends with an ERROR event of code 410. It
//! holds no lock while it waits, and reads the history only when there is something new.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::list::{self, Filter, Version};
use crate::present::{Presenter, framed_event};
use crate::refusal::Refusal;
use crate::sources::Clock;
use crate::store::Change;
use crate::store::writer::{Position, Shared};

/// How often a quiet watch says how far it has come.
const BOOKMARK_PAUSE: Duration = Duration::from_secs(60);

/// Most changes rendered at a time, so that one slow watch does not hold the state for long.
const CHUNK: usize = 256;

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With everything that is there, as additions.
    Everything,
    /// With everything that is there, then a bookmark that says so.
    EverythingThenBookmark,
    /// With the first change after this version.
    After(u64),
}

/// What a watch was asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) presenter: Presenter,
    pub(crate) filter: Filter,
    pub(crate) start: Start,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

/// A watch in progress.
struct Watch {
    shared: Arc<Shared>,
    clock: Clock,
    request: Request,
    position: watch::Receiver<Position>,
    /// Everything up to here was looked at.
    cursor: u64,
    ready: VecDeque<Bytes>,
    deadline: Instant,
    next_bookmark: Instant,
    ended: bool,
}

/// Starts a watch; refused when it asks for a version that was not yet reached.
pub(crate) fn start(
    shared: &Arc<Shared>,
    clock: &Clock,
    request: Request,
) -> Result<impl Stream<Item = Bytes> + Send + 'static, Refusal> {
    let now = Instant::now();
    let mut watch = Watch {
        shared: Arc::clone(shared),
        clock: Arc::clone(clock),
        position: shared.subscribe(),
        cursor: 0,
        ready: VecDeque::new(),
        deadline: now + request.timeout,
        next_bookmark: now + BOOKMARK_PAUSE,
        ended: false,
        request,
    };
    watch.begin()?;
    Ok(futures::stream::unfold(watch, |mut watch| async move { watch.next().await.map(|bytes| (bytes, watch)) }))
}

impl Watch {
    fn begin(&mut self) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        let state = shared.read();
        let current = state.revision();
        let ends_initial = match self.request.start {
            Start::After(asked) if asked > current => {
                return Err(Refusal::RevisionTooLarge { asked, current });
            }
            Start::After(asked) => {
                self.cursor = asked;
                return Ok(());
            }
            Start::Everything => false,
            Start::EverythingThenBookmark => true,
        };
        let presenter = &self.request.presenter;
        let all = list::page(&state, &presenter.registry, presenter.view, &self.request.filter, &Version::Latest, 0)?;
        let now = (self.clock)();
        self.ready.extend(all.items.iter().map(|stored| Bytes::from(presenter.event("ADDED", stored, now))));
        if ends_initial && self.request.bookmarks {
            self.ready.push_back(Bytes::from(presenter.bookmark(all.revision, true)));
        }
        self.cursor = all.revision;
        Ok(())
    }

    /// The next line, or the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.position.borrow_and_update();
            self.read();
            if self.ready.is_empty() && !self.ended {
                self.wait().await;
            }
        }
    }

    /// Waits for a change, the next bookmark or the end.
    async fn wait(&mut self) {
        if self.position.borrow().closed {
            self.ended = true;
            return;
        }
        if self.position.borrow().revision > self.cursor {
            return;
        }
        tokio::select! {
            biased;
            changed = self.position.changed() => self.ended = changed.is_err(),
            () = sleep_until(self.deadline) => {
                // The last word of a watch says where to go on.
                self.push_bookmark();
                self.ended = true;
            }
            () = sleep_until(self.next_bookmark) => self.push_bookmark(),
        }
    }

    fn push_bookmark(&mut self) {
        self.next_bookmark = Instant::now() + BOOKMARK_PAUSE;
        if self.request.bookmarks {
            self.ready.push_back(Bytes::from(self.request.presenter.bookmark(self.cursor, false)));
        }
    }

    /// Renders what happened since the cursor.
    fn read(&mut self) {
        let shared = Arc::clone(&self.shared);
        let state = shared.read();
        if self.cursor < state.floor() {
            let expired = Refusal::Expired(format!("too old resource version: {} ({})", self.cursor, state.floor()));
            self.ready.push_back(Bytes::from(framed_event("ERROR", expired.status().to_string().as_bytes())));
            self.ended = true;
            return;
        }
        let changes: Vec<Change> = state.changes_after(self.cursor).take(CHUNK).cloned().collect();
        let current = state.revision();
        drop(state);
        self.cursor = if changes.len() < CHUNK { current } else { changes.last().map_or(current, Change::revision) };
        let resource = self.request.presenter.registry.view(self.request.presenter.view).resource;
        let lines: Vec<Bytes> = changes
            .iter()
            .filter(|change| change.key.resource == resource)
            .filter_map(|change| self.line(change))
            .collect();
        self.ready.extend(lines);
    }

    /// What a change looks like through the filter: an object that begins to fit is added, one that no longer fits is deleted.
    fn line(&self, change: &Change) -> Option<Bytes> {
        let Request { presenter, filter, .. } = &self.request;
        let fits_now = !change.deleted && filter.accepts_key(&change.key, &change.new);
        let old = change.old.as_ref().filter(|old| filter.accepts_key(&change.key, old));
        let now = (self.clock)();
        let bytes = match (old, fits_now) {
            (None, true) => presenter.event("ADDED", &change.new, now),
            (Some(_), true) => presenter.event("MODIFIED", &change.new, now),
            (Some(_), false) if change.deleted => presenter.event("DELETED", &change.new, now),
            (Some(old), false) => presenter.event("DELETED", &old.at(change.revision()), now),
            (None, false) => return None,
        };
        Some(Bytes::from(bytes))
    }
}
