//! The loop: events in, passes out. It is ordered, so that the same events and answers give the same run.

use std::collections::BTreeSet;
use std::future::Future;

use futures::stream::{FuturesUnordered, Stream, StreamExt};
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher;
use tokio::time::{Instant, sleep_until};

use crate::ControllerError;
use crate::queue::{After, Key, Queue, Timing};

/// Runs passes over the objects of `events` until `shutdown` completes.
///
/// `trigger` is what of an object a pass depends on: while it stays the same, events are no reason for a pass.
/// A pass is dropped in the middle when the shutdown comes; each of its writes is whole or was not made.
pub(crate) async fn drive<T, R>(
    events: impl Stream<Item = watcher::Result<watcher::Event<DynamicObject>>>,
    trigger: impl Fn(&DynamicObject) -> T,
    reconcile: impl Fn(Key) -> R,
    timing: Timing,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControllerError>
where
    T: PartialEq,
    R: Future<Output = After>,
{
    let mut events = std::pin::pin!(events);
    let mut shutdown = std::pin::pin!(shutdown);
    let mut queue = Queue::new(timing);
    let mut listed = BTreeSet::new();
    let mut passes = FuturesUnordered::new();
    loop {
        let due = queue.next_due();
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            Some((key, after)) = passes.next() => queue.back(&key, after, Instant::now()),
            event = events.next() => match event {
                None => return Err(ControllerError::WatchEnded),
                Some(Ok(event)) => take_in(&mut queue, &mut listed, &trigger, event),
                Some(Err(error)) => tracing::warn!(%error, "the watch of the storages was cut; trying again"),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                while let Some(key) = queue.take(Instant::now()) {
                    let pass = reconcile(key.clone());
                    passes.push(async move { (key, pass.await) });
                }
            }
        }
    }
}

fn take_in<T: PartialEq>(
    queue: &mut Queue<T>,
    listed: &mut BTreeSet<Key>,
    trigger: &impl Fn(&DynamicObject) -> T,
    event: watcher::Event<DynamicObject>,
) {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(object) => {
            listed.insert(key(&object));
            queue.seen(key(&object), trigger(&object), Instant::now());
        }
        watcher::Event::InitDone => queue.keep_only(listed),
        watcher::Event::Apply(object) => queue.seen(key(&object), trigger(&object), Instant::now()),
        watcher::Event::Delete(object) => queue.gone(&key(&object)),
    }
}

fn key(object: &DynamicObject) -> Key {
    Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}
