//! What the file holds after a disk has lost or torn writes, at every write of a recorded run.
//!
//! A run of acknowledged writes goes through the real writer and the real file format onto a recording disk. From the record every state is
//! made that a crash could have left, and each is opened as at a start.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, StorageBackend};
use serde_json::{Value, json};

use super::file::{FileError, ObjectFile, create_with};
use super::transaction::Transaction;
use super::witness;
use super::writer::{Shared, Work, Writer};
use super::{Key, State};
use crate::registry::{Nature, Registry};
use crate::verbs::{Answer, Outcome};

/// What reached the disk, in order.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
    /// The writes up to this resource version were answered as done.
    Acknowledged(u64),
}

#[derive(Debug)]
struct Disk {
    bytes: Mutex<Vec<u8>>,
    record: Arc<Mutex<Vec<Step>>>,
}

impl Disk {
    fn note(&self, step: Step) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = bytes.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(part.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        apply(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner), &Step::Length(len));
        self.note(Step::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.note(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let step = Step::Write(offset, data.to_vec());
        apply(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner), &step);
        self.note(step);
        Ok(())
    }
}

fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(offset, data) => {
            let start = usize::try_from(*offset).expect("fits");
            if bytes.len() < start + data.len() {
                bytes.resize(start + data.len(), 0);
            }
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Step::Length(length) => bytes.resize(usize::try_from(*length).expect("fits"), 0),
        Step::Sync | Step::Acknowledged(_) => {}
    }
}

/// Some of a write: what a sector-wise disk has done of it when the power goes.
fn torn(step: &Step, random: &mut Random) -> Step {
    match step {
        Step::Write(offset, data) => {
            let sectors = data.len().div_ceil(SECTOR).max(1);
            let kept = (random.below(sectors as u64) as usize * SECTOR).min(data.len());
            if random.below(2) == 0 {
                Step::Write(*offset, data[..kept].to_vec())
            } else {
                Step::Write(*offset + kept as u64, data[kept..].to_vec())
            }
        }
        Step::Length(_) | Step::Sync | Step::Acknowledged(_) => step.clone(),
    }
}

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// splitmix64: the same choices in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// The objects' texts by name, as of one resource version.
type Content = BTreeMap<String, Vec<u8>>;

struct Run {
    registry: Arc<Registry>,
    /// The disk before the run.
    before: Vec<u8>,
    steps: Vec<Step>,
    /// What was stored as of each resource version.
    contents: Vec<Content>,
}

/// How many writes a run has; `APISERVER_TEST_DISK_WRITES` for more.
fn writes() -> u64 {
    std::env::var("APISERVER_TEST_DISK_WRITES").ok().and_then(|text| text.parse().ok()).unwrap_or(14)
}

/// Creates, changes and deletes a few objects, some larger than a page, one write after the other.
async fn record(folder: &Path, closed: bool) -> Run {
    let registry = Arc::new(Registry::build(&[]).expect("builds"));
    let path = folder.join("store");
    create_with(&path, &registry, 0, &[]).expect("a new file");
    let before = std::fs::read(&path).expect("the file");
    let record = Arc::new(Mutex::new(Vec::new()));
    let disk = Disk { bytes: Mutex::new(before.clone()), record: Arc::clone(&record) };
    let database = Database::builder().create_with_backend(disk).expect("opens");
    let shared = Arc::new(Shared::new(Arc::clone(&registry), State::new(&registry, 0, 8)));
    let writer = Writer::into_file(Arc::clone(&shared), ObjectFile::over(database)).expect("a thread");
    let resource = registry.find_nature(Nature::Namespace).expect("built in");
    let mut contents = vec![Content::new()];
    let mut random = Random(7);
    for number in 1..=writes() {
        let name = format!("object-{}", random.below(6));
        let key = Key { resource, namespace: String::new(), name: name.clone() };
        let is_there = shared.read().get(&key).is_some();
        let removes = is_there && random.below(3) == 0;
        let padding = "x".repeat([10, 300, 6000][random.below(3) as usize]);
        let work: Work = Box::new(move |tx: &mut Transaction<'_>| {
            let object = json!({"metadata": {"name": name}, "number": number, "padding": padding});
            let stored = if removes { tx.remove(key, object) } else { tx.put(key, object) };
            Ok(Outcome { code: 200, answer: Answer::Object(stored), warnings: Vec::new() })
        });
        writer.submit(&shared, work, false).await.expect("done");
        record.lock().unwrap_or_else(PoisonError::into_inner).push(Step::Acknowledged(number));
        let table = shared.read().table(resource).clone();
        contents.push(table.into_iter().map(|((_, name), stored)| (name, stored.json.to_vec())).collect());
    }
    let mut steps = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
    writer.close(&shared).await;
    if closed {
        steps = record.lock().unwrap_or_else(PoisonError::into_inner).clone();
    }
    Run { registry, before, steps, contents }
}

impl Run {
    /// Opens what is on the disk as a start does. The resource version that it opens at; none, when it is called damaged.
    fn open(&self, bytes: &[u8], acknowledged: u64, path: &Path) -> Option<u64> {
        std::fs::write(path, bytes).expect("a file");
        std::fs::write(witness::path_of(path), format!("{acknowledged:020}\n")).expect("a file");
        let opened = ObjectFile::open(path, &self.registry);
        let (_, loaded) = match opened {
            Ok(opened) => opened,
            Err(FileError::Damaged { .. } | FileError::Older { .. } | FileError::Foreign { .. }) => return None,
            Err(other) => panic!("neither opened nor called damaged: {other}"),
        };
        let content: Content = loaded.objects.into_iter().map(|(key, json)| (key.name, json.to_vec())).collect();
        let expected = &self.contents[usize::try_from(loaded.revision).expect("fits")];
        assert!(content == *expected, "at {} it holds what never was", loaded.revision);
        for (name, json) in &content {
            let object: Value = serde_json::from_slice(json).expect("JSON");
            assert_eq!(object["metadata"]["name"], json!(name));
        }
        Some(loaded.revision)
    }
}

/// A crash at every write. What was synced is there; of what was not, anything may be: nothing, all, the last write alone, all but it, part of
/// it, and random subsets. Every acknowledged write has to be there, and nothing that never was.
#[tokio::test]
async fn a_crash_at_any_write_loses_no_acknowledged_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = record(folder.path(), false).await;
    let path = folder.path().join("crashed");
    let mut random = Random(11);
    let (mut synced, mut pending) = (run.before.clone(), Vec::<Step>::new());
    let (mut acknowledged, mut points, mut opened) = (0, 0, 0);
    for step in &run.steps {
        match step {
            Step::Acknowledged(revision) => acknowledged = *revision,
            Step::Sync => pending.drain(..).for_each(|step| apply(&mut synced, &step)),
            Step::Write(..) | Step::Length(_) => {
                pending.push(step.clone());
                points += 1;
                let last = pending.len() - 1;
                let mut ways: Vec<Vec<Step>> = vec![
                    Vec::new(),
                    pending.clone(),
                    vec![step.clone()],
                    pending[..last].to_vec(),
                    [&pending[..last], &[torn(step, &mut random)]].concat(),
                ];
                for _ in 0..4 {
                    let some = pending.iter().filter_map(|step| match random.below(3) {
                        0 => None,
                        1 => Some(step.clone()),
                        _ => Some(torn(step, &mut random)),
                    });
                    ways.push(some.collect());
                }
                for way in ways {
                    let mut bytes = synced.clone();
                    way.iter().for_each(|step| apply(&mut bytes, step));
                    let revision = run.open(&bytes, acknowledged, &path).expect("a crash damages nothing");
                    assert!(revision >= acknowledged, "{acknowledged} was acknowledged, and it opens at {revision}");
                    opened += 1;
                }
            }
        }
    }
    assert!(points > 100 && acknowledged == writes(), "{points} points, {acknowledged} acknowledged");
    println!("{points} writes, {opened} states opened, none lost an acknowledged write");
}

/// A disk that loses or tears one write although it acknowledged the sync after it.
///
/// Whether the file is closed as usual afterwards, or the machine stops right after the answer: it is whole, or is called damaged.
#[tokio::test]
async fn a_disk_that_lost_a_synced_write_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = record(folder.path(), true).await;
    let path = folder.path().join("lied-to");
    let mut random = Random(13);
    let (mut closed, mut stopped) = (Judged::default(), Judged::default());
    for (lost, step) in run.steps.iter().enumerate() {
        if !matches!(step, Step::Write(..)) {
            continue;
        }
        for tears in [false, true] {
            let mut bytes = run.before.clone();
            let mut is_stopped = false;
            for (index, step) in run.steps.iter().enumerate() {
                match (index == lost, tears) {
                    (false, _) => apply(&mut bytes, step),
                    (true, true) => apply(&mut bytes, &torn(step, &mut random)),
                    (true, false) => {}
                }
                if let (Step::Acknowledged(revision), true, false) = (step, index > lost, is_stopped) {
                    stopped.note(run.open(&bytes, *revision, &path), *revision);
                    is_stopped = true;
                }
            }
            closed.note(run.open(&bytes, writes(), &path), writes());
        }
    }
    println!("one synced write lost or torn, then closed: {closed:?}; then stopped: {stopped:?}");
    assert!(closed.damaged > 0 && stopped.damaged > 0, "nothing was found out");
    assert_eq!((closed.older, stopped.older), (0, 0), "silently older");
}

#[derive(Debug, Default)]
struct Judged {
    whole: u32,
    damaged: u32,
    older: u32,
}

impl Judged {
    fn note(&mut self, opened: Option<u64>, acknowledged: u64) {
        match opened {
            Some(revision) if revision >= acknowledged => self.whole += 1,
            Some(_) => self.older += 1,
            None => self.damaged += 1,
        }
    }
}
