//! The invariants, checked after every write to the API and every effect.

use std::collections::BTreeMap;

use lvault_api::{LogicalVolume, Phase, TransferStatus};
use lvault_core::{Record, State, VolumeId};
use serde_json::Value;

use super::{Inner, clock};
use crate::model::laws::is_of;

/// What the laws know of one object.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// The object as it was written last.
    pub object: LogicalVolume,
    /// It does not exist any more.
    pub gone: bool,
}

/// Everything that was seen, and what was wrong.
#[derive(Debug, Default)]
pub struct Laws {
    /// Every object that ever was, by uid.
    pub known: BTreeMap<String, Known>,
    /// What was broken, each once.
    pub broken: Vec<String>,
    /// The invariant that is not looked at.
    pub without: Option<u8>,
    /// Requests of each actor within the current minute.
    requests: BTreeMap<String, (u64, u64)>,
    /// Writes to each object within the current minute.
    writes: BTreeMap<String, (u64, u64)>,
}

/// More requests of one actor in a minute are a hot loop, where there are few objects.
const REQUESTS: u64 = 1500;
/// So many of them for each object, where there are many: an object that is copied is looked at every five seconds.
const REQUESTS_EACH: u64 = 40;
/// More writes to one object in a minute are a hot loop.
const WRITES: u64 = 60;

impl Laws {
    fn accuse(&mut self, law: String) {
        let counts = self.without.is_none_or(|off| !is_of(&law, off));
        if counts && !self.broken.contains(&law) {
            self.broken.push(law);
        }
    }
}

fn minute() -> u64 {
    clock::elapsed().as_secs() / 60
}

fn count(counts: &mut BTreeMap<String, (u64, u64)>, key: &str) -> u64 {
    let now = minute();
    let entry = counts.entry(key.to_owned()).or_insert((now, 0));
    if entry.0 != now {
        *entry = (now, 0);
    }
    entry.1 += 1;
    entry.1
}

fn transfer(object: &LogicalVolume) -> Option<&TransferStatus> {
    let status = object.status.as_ref()?;
    match (&object.spec.online_snapshot, &object.spec.restore) {
        (Some(_), _) => status.online_snapshot.as_ref(),
        (None, Some(_)) => status.restore.as_ref(),
        (None, None) => None,
    }
}

fn record(object: &LogicalVolume) -> Option<Record> {
    transfer(object).and_then(|transfer| transfer.record().ok())
}

fn rank(state: &State) -> u8 {
    match state {
        State::Pending => 0,
        State::Running(_) => 1,
        State::Succeeded | State::Failed => 2,
    }
}

impl Inner {
    /// Counts a request; too many in a minute break a law.
    pub fn count_request(&mut self, actor: &str) {
        let objects = self.laws.known.values().filter(|known| !known.gone).count() as u64;
        let most = REQUESTS.max(REQUESTS_EACH * objects);
        if count(&mut self.laws.requests, actor) > most {
            self.laws.accuse(format!("I7: a hot loop: {actor} makes more than {most} requests a minute"));
        }
    }

    /// An object was written, and this is what was answered.
    pub fn written(&mut self, actor: &str, object: &Value) {
        let Ok(object) = serde_json::from_value::<LogicalVolume>(object.clone()) else { return };
        let Some(uid) = object.metadata.uid.clone() else { return };
        let name = object.metadata.name.clone().unwrap_or_default();
        let finalizers = object.metadata.finalizers.as_ref().map_or(0, Vec::len);
        let gone = object.metadata.deletion_timestamp.is_some() && finalizers == 0;
        if count(&mut self.laws.writes, &uid) > WRITES {
            self.laws.accuse(format!("I7: a hot loop: {name} is written more than {WRITES} times a minute"));
        }
        let before = self.laws.known.get(&uid).map(|known| known.object.clone());
        if let Some(before) = &before {
            for broken in transitions(before, &object) {
                self.laws.accuse(format!("{broken} ({name}, by {actor})"));
            }
        }
        self.laws.known.insert(uid, Known { name, object, gone });
        self.look();
    }

    /// Checks everything that has to hold at any moment.
    pub fn look(&mut self) {
        let mut broken = Vec::new();
        for (uid, known) in &self.laws.known {
            let Ok(id) = VolumeId::parse(uid.as_str()) else { continue };
            let name = &known.name;
            if known.gone {
                broken.extend(self.leftover(&id, known).map(|what| format!("I5: {name} is gone and {what} is not")));
                continue;
            }
            broken.extend(self.facts(&id, known).map(|what| format!("{what} ({name})")));
        }
        for (id, content) in &self.written {
            if self.volumes.get(id).is_some_and(|volume| volume.content != *content) {
                broken.push(format!("I6: volume {id} holds what no user has written"));
            }
        }
        for commits in self.repositories.values() {
            for (index, commit) in commits.iter().enumerate() {
                let twin = |other: &&super::Commit| other.uid == commit.uid && other.attempt == commit.attempt;
                if commits.iter().skip(index + 1).any(|other| twin(&other)) {
                    broken.push(format!("I2: attempt {} of {} was committed twice", commit.attempt, commit.uid));
                }
            }
        }
        broken.into_iter().for_each(|law| self.laws.accuse(law));
    }

    fn leftover(&self, id: &VolumeId, known: &Known) -> Option<&'static str> {
        if self.volumes.contains_key(id) {
            return Some("its volume");
        }
        if self.folders.contains_key(id) {
            return Some("its executor");
        }
        let retained = known
            .object
            .spec
            .online_snapshot
            .as_ref()
            .is_some_and(|online| online.deletion_policy == lvault_api::DeletionPolicy::Retain);
        let left = self.repositories.values().flatten().any(|commit| commit.uid == id.as_str());
        // Whoever takes the storage away gives up what is in it.
        (left && !retained && !self.storage_was_removed).then_some("its repository snapshot")
    }

    fn facts(&self, id: &VolumeId, known: &Known) -> Option<String> {
        let object = &known.object;
        let status = object.status.as_ref()?;
        let deleting = object.metadata.deletion_timestamp.is_some();
        if deleting {
            return None;
        }
        let volume = self.volumes.get(id);
        if status.volume_id.is_some() {
            if object.spec.restore.is_some()
                && status.restore.as_ref().is_none_or(|restore| restore.phase != Phase::Succeeded)
            {
                return Some("I8: it was published before its restore succeeded".to_owned());
            }
            if volume.is_none_or(|volume| volume.partial) && !self.lost.contains(id) {
                return Some("I8: it is published, and its volume is not there whole".to_owned());
            }
        }
        let transfer = transfer(object)?;
        if let (Some(restore), true) = (&object.spec.restore, status.volume_id.is_some()) {
            let commits = self.repositories.values().flatten();
            let mut from =
                commits.filter(|commit| commit.id.starts_with(&restore.snapshot_id)).map(|commit| commit.content);
            if from.next_back().is_some_and(|content| volume.is_some_and(|volume| volume.content != content)) {
                return Some("I8: a restored volume holds other data than its snapshot".to_owned());
            }
        }
        match transfer.phase {
            Phase::Pending | Phase::Running | Phase::Failed => {
                transfer.snapshot_id.as_ref().map(|_| "I4: something is reported without a success".to_owned())
            }
            Phase::Succeeded if object.spec.online_snapshot.is_some() => self.is_good(id, transfer),
            Phase::Succeeded => None,
        }
    }

    fn is_good(&self, id: &VolumeId, transfer: &TransferStatus) -> Option<String> {
        if self.storage_was_removed {
            return None;
        }
        let Some(reported) = &transfer.snapshot_id else {
            return Some("L10: a success reports no snapshot".to_owned());
        };
        let found = self.repositories.values().flatten().find(|commit| commit.id == *reported);
        let Some(commit) = found else {
            return Some("I3: a success reports a snapshot that is not there".to_owned());
        };
        let attempt = u32::try_from(transfer.attempt).unwrap_or_default();
        if commit.uid != id.as_str() || commit.attempt != attempt {
            return Some("I2: a success reports the snapshot of another".to_owned());
        }
        if !commit.verified {
            return Some("I3: a success was not read back".to_owned());
        }
        let cut = self.cuts.get(id);
        (cut != Some(&commit.content)).then(|| "I3: a success holds other data than was cut".to_owned())
    }

    /// Nothing is taken away under a running executor.
    pub fn check_idle(&mut self, id: &VolumeId, done: &str) {
        if self.folders.get(id).is_some_and(|folder| folder.process.as_ref().is_some_and(|life| !life.is_over())) {
            self.laws.accuse(format!("I5: a volume was {done} under its executor"));
        }
    }

    /// A volume goes only when its object is being deleted, or does not need it any more.
    pub fn check_removal(&mut self, id: &VolumeId) {
        if !self.volumes.contains_key(id) {
            return;
        }
        let Some(known) = self.laws.known.get(id.as_str()) else { return };
        let object = &known.object;
        let phase = transfer(object).map(|transfer| transfer.phase);
        let needed = match (&object.spec.online_snapshot, &object.spec.restore) {
            _ if object.metadata.deletion_timestamp.is_some() => false,
            (Some(online), _) => phase != Some(Phase::Succeeded) || online.keep_local_snapshot,
            (None, Some(_)) => phase != Some(Phase::Failed),
            (None, None) => true,
        };
        if needed {
            let law = format!("I9: the volume of {} was removed while it was needed ({phase:?})", known.name);
            self.laws.accuse(law);
        }
    }
}

/// What a write may not do to what stood there.
fn transitions(before: &LogicalVolume, after: &LogicalVolume) -> Vec<String> {
    let mut broken = Vec::new();
    let published = |object: &LogicalVolume| object.status.as_ref().and_then(|status| status.volume_id.clone());
    if published(before).is_some() && published(after).is_none() {
        broken.push("I1: a published volume was withdrawn".to_owned());
    }
    let old = record(before);
    let Some(old) = old else { return broken };
    let Some(new) = record(after) else {
        broken.push("I1: a status was wiped".to_owned());
        return broken;
    };
    if new.attempt < old.attempt {
        broken.push("I1: the attempt went back".to_owned());
    } else if new.attempt > old.attempt {
        if old.state != State::Failed {
            broken.push("I1: a new attempt began over one that had not failed".to_owned());
        }
    } else {
        if rank(&new.state) < rank(&old.state) {
            broken.push(format!("I1: a phase went back from {:?} to {:?}", old.state, new.state));
        }
        if old.is_terminal() && old.state != new.state {
            broken.push("I1: a terminal phase changed".to_owned());
        }
        if new.lost < old.lost {
            broken.push("I1: a loss was forgotten".to_owned());
        }
        if let (State::Running(was), State::Running(is)) = (&old.state, &new.state)
            && was.holder != is.holder
            && (is.epoch <= was.epoch || old.launch() == was.launch)
        {
            broken.push("I1: a claim was taken over that was not lost".to_owned());
        }
    }
    broken
}
