//! Every version of every LogicalVolume, as a watch has shown them, and what has to hold between them.
//!
//! The watch outlives the server: it goes on where it was when the server is started again. Where the server cannot tell
//! it what happened meanwhile, the history has a gap, and rules about what follows directly on what are not asked of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use lvault_api::{LogicalVolume, Phase, TransferStatus};

use crate::api;
use crate::process::DEADLINE;

/// One thing that the watch has shown.
#[derive(Clone, Debug)]
enum Event {
    Version(Box<LogicalVolume>),
    Gone { uid: String, name: String },
    Gap,
}

#[derive(Debug, Default)]
struct Shared {
    events: Mutex<Vec<Event>>,
    more: Condvar,
    stop: AtomicBool,
}

/// The history of one run.
#[derive(Debug)]
pub(crate) struct History {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Begins to watch the server that this kubeconfig leads to, whenever there is one.
    pub(crate) fn record(kubeconfig: &Path) -> History {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let (shared, kubeconfig) = (Arc::clone(&shared), kubeconfig.to_path_buf());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(record(&shared, &kubeconfig));
            }
        });
        History { shared, thread: Some(thread) }
    }

    /// What was before is not known: as after a restart of the machine.
    pub(crate) fn begins_in_the_middle(&self) {
        self.shared.events.lock().unwrap().push(Event::Gap);
    }

    /// The newest version of an object, unless it is gone.
    pub(crate) fn latest(&self, name: &str) -> Option<LogicalVolume> {
        newest(&self.shared.events.lock().unwrap(), name)
    }

    /// Waits for a version of an object, or for its absence, that is as wanted.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        name: &str,
        wanted: impl Fn(Option<&LogicalVolume>) -> Option<T>,
    ) -> Result<T, String> {
        let mut found = None;
        let mut seen = usize::MAX;
        let look = |events: &mut Vec<Event>| {
            if events.len() != seen {
                seen = events.len();
                found = wanted(newest(events, name).as_ref());
            }
            found.is_none()
        };
        let guard = self.shared.events.lock().unwrap();
        let (events, _) = self.shared.more.wait_timeout_while(guard, DEADLINE, look).unwrap();
        let last = newest(&events, name);
        drop(events);
        found.ok_or_else(|| {
            let shown = last.map(|last| serde_json::to_string_pretty(&last).unwrap());
            format!("{name}: {what}: not within {} s; last seen: {}", DEADLINE.as_secs(), shown.unwrap_or_default())
        })
    }

    /// All versions of one object, in order.
    pub(crate) fn of(&self, uid: &str) -> Vec<LogicalVolume> {
        let events = self.shared.events.lock().unwrap();
        let versions = events.iter().filter_map(|event| match event {
            Event::Version(version) if version.uid().as_deref() == Some(uid) => Some(version.as_ref().clone()),
            Event::Version(_) | Event::Gone { .. } | Event::Gap => None,
        });
        versions.collect()
    }

    /// The phases of an object's operation, each once, in the order in which they were seen.
    pub(crate) fn phases(&self, uid: &str) -> Vec<(i32, Phase)> {
        let mut phases = Vec::new();
        for version in self.of(uid) {
            if let Some(transfer) = transfer(&version) {
                let phase = (transfer.attempt, transfer.phase);
                if phases.last() != Some(&phase) {
                    phases.push(phase);
                }
            }
        }
        phases
    }

    /// Checks every object's history. Nothing of lvault may ever have written anything else, in whatever run.
    pub(crate) fn check(&self) {
        let events = self.shared.events.lock().unwrap().clone();
        let mut uids: Vec<String> = Vec::new();
        for event in &events {
            if let Event::Version(version) = event {
                let uid = version.uid().unwrap();
                if !uids.contains(&uid) {
                    uids.push(uid);
                }
            }
        }
        assert!(!uids.is_empty(), "nothing was recorded");
        let gaps = events.iter().any(|event| matches!(event, Event::Gap));
        for uid in uids {
            let versions = self.of(&uid);
            for version in &versions {
                invariant_restored_volumes_are_published_last(version);
                invariant_success_names_its_snapshot(version);
                invariant_holders_are_named_after_their_launch(version);
            }
            let transfers: Vec<TransferStatus> = versions.iter().filter_map(transfer).collect();
            if !gaps {
                invariant_attempts_begin_pending(&transfers);
            }
            for pair in transfers.windows(2) {
                invariant_nothing_goes_back(&pair[0], &pair[1]);
                invariant_an_end_is_final(&pair[0], &pair[1]);
                invariant_holders_change_with_the_epoch(&pair[0], &pair[1], gaps);
            }
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The status of an object's online operation, whichever it is.
pub(crate) fn transfer(version: &LogicalVolume) -> Option<TransferStatus> {
    let status = version.status.clone()?;
    status.online_snapshot.or(status.restore)
}

fn newest(events: &[Event], name: &str) -> Option<LogicalVolume> {
    for event in events.iter().rev() {
        match event {
            Event::Version(version) if version.name_any() == name => return Some(version.as_ref().clone()),
            Event::Gone { name: gone, .. } if gone == name => return None,
            Event::Version(_) | Event::Gone { .. } | Event::Gap => {}
        }
    }
    None
}

fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Pending => 0,
        Phase::Running => 1,
        Phase::Succeeded | Phase::Failed => 2,
    }
}

fn is_terminal(phase: Phase) -> bool {
    rank(phase) == 2
}

fn invariant_restored_volumes_are_published_last(version: &LogicalVolume) {
    let Some(status) = &version.status else { return };
    if version.spec.restore.is_some() && status.volume_id.is_some() {
        let phase = status.restore.as_ref().map(|restore| restore.phase);
        assert_eq!(phase, Some(Phase::Succeeded), "published before it was restored: {status:?}");
    }
}

fn invariant_success_names_its_snapshot(version: &LogicalVolume) {
    if let Some(transfer) = transfer(version).filter(|transfer| transfer.phase == Phase::Succeeded) {
        assert_eq!(transfer.snapshot_id.as_deref().map_or(0, str::len), 64, "{transfer:?}");
    }
}

fn invariant_holders_are_named_after_their_launch(version: &LogicalVolume) {
    let Some(transfer) = transfer(version).filter(|transfer| transfer.phase == Phase::Running) else { return };
    let executor = transfer.executor.clone().unwrap_or_default();
    let (name, launch) = (executor.name.unwrap_or_default(), executor.launch.unwrap_or_default());
    let named = format!("-{}-{}-{launch}.", version.name_any(), transfer.attempt);
    assert!(name.contains(&named), "Running is written by executors: {name} {named}");
}

fn invariant_attempts_begin_pending(transfers: &[TransferStatus]) {
    let mut attempt = 0;
    for transfer in transfers {
        if transfer.attempt != attempt {
            assert_eq!(transfer.phase, Phase::Pending, "an attempt begins as Pending: {transfer:?}");
            attempt = transfer.attempt;
        }
    }
}

fn invariant_nothing_goes_back(before: &TransferStatus, after: &TransferStatus) {
    let lost = |transfer: &TransferStatus| transfer.executor.as_ref().and_then(|executor| executor.lost).unwrap_or(0);
    let epoch = |transfer: &TransferStatus| transfer.executor.as_ref().and_then(|executor| executor.epoch).unwrap_or(0);
    assert!(after.attempt >= before.attempt, "{before:?} {after:?}");
    if after.attempt == before.attempt {
        assert!(rank(after.phase) >= rank(before.phase), "{before:?} {after:?}");
        assert!(lost(after) >= lost(before), "{before:?} {after:?}");
        assert!(epoch(after) >= epoch(before), "{before:?} {after:?}");
    }
}

fn invariant_an_end_is_final(before: &TransferStatus, after: &TransferStatus) {
    if is_terminal(before.phase) && after.attempt == before.attempt {
        assert_eq!(before, after, "an ended attempt was written to");
    }
    if before.phase == Phase::Succeeded {
        assert_eq!(after.attempt, before.attempt, "nothing follows on success");
    }
}

fn invariant_holders_change_with_the_epoch(before: &TransferStatus, after: &TransferStatus, gaps: bool) {
    let (Some(old), Some(new)) = (&before.executor, &after.executor) else { return };
    if before.attempt != after.attempt || old.name.is_none() {
        return;
    }
    let step = new.epoch.unwrap_or(0) - old.epoch.unwrap_or(0);
    assert_eq!(old.name == new.name, step == 0, "{before:?} {after:?}");
    assert!(step <= 1 || gaps, "an epoch was skipped: {before:?} {after:?}");
}

async fn record(shared: &Shared, kubeconfig: &Path) {
    let mut version: Option<String> = None;
    let mut known: Vec<(String, String)> = Vec::new();
    while !shared.stop.load(Ordering::Acquire) {
        let pause = tokio::time::sleep(Duration::from_millis(20));
        if let Some(client) = api::client(kubeconfig).await {
            follow(shared, &Api::all(client), &mut version, &mut known).await;
        }
        pause.await;
    }
}

/// Lists where nothing is known yet, then watches, until the server goes away or the test ends.
async fn follow(
    shared: &Shared,
    volumes: &Api<LogicalVolume>,
    version: &mut Option<String>,
    known: &mut Vec<(String, String)>,
) {
    if version.is_none() {
        let Ok(list) = volumes.list(&ListParams::default()).await else { return };
        let there: Vec<(String, String)> =
            list.items.iter().map(|item| (item.uid().unwrap_or_default(), item.name_any())).collect();
        let gone: Vec<(String, String)> = known.iter().filter(|known| !there.contains(known)).cloned().collect();
        for (uid, name) in gone {
            add(shared, known, Event::Gone { uid, name });
        }
        for item in list.items {
            add(shared, known, Event::Version(Box::new(item)));
        }
        *version = list.metadata.resource_version;
    }
    let from = version.clone().unwrap_or_default();
    let params = WatchParams::default().timeout(240);
    let Ok(events) = volumes.watch(&params, &from).await else { return };
    let mut events = events.boxed();
    loop {
        let next = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        match next {
            Err(_) => {}
            Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                *version = object.resource_version();
                add(shared, known, Event::Version(Box::new(object)));
            }
            Ok(Some(Ok(WatchEvent::Deleted(object)))) => {
                *version = object.resource_version();
                let (uid, name) = (object.uid().unwrap_or_default(), object.name_any());
                add(shared, known, Event::Gone { uid, name });
            }
            Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => *version = Some(bookmark.metadata.resource_version),
            Ok(Some(Ok(WatchEvent::Error(status)))) => {
                if status.code == 410 {
                    *version = None;
                    add(shared, known, Event::Gap);
                }
                return;
            }
            Ok(Some(Err(_)) | None) => return,
        }
    }
}

fn add(shared: &Shared, known: &mut Vec<(String, String)>, event: Event) {
    let mut events = shared.events.lock().unwrap();
    match &event {
        Event::Version(version) => {
            let is_same = |seen: &Event| match seen {
                Event::Version(seen) => {
                    seen.uid() == version.uid() && seen.resource_version() == version.resource_version()
                }
                Event::Gone { .. } | Event::Gap => false,
            };
            if events.iter().any(is_same) {
                return;
            }
            let key = (version.uid().unwrap_or_default(), version.name_any());
            if !known.contains(&key) {
                known.push(key);
            }
        }
        Event::Gone { uid, .. } => known.retain(|(known, _)| known != uid),
        Event::Gap => {}
    }
    events.push(event);
    shared.more.notify_all();
}
