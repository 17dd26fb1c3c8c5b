//! Repositories in memory, behind the executor's own trait. Every operation on them is a point.

use std::sync::Arc;
use std::time::Duration;

use lvault_api::task::{Task, Work};
use lvault_backup::{Progress, Step};
use lvault_core::VolumeId;
use lvault_executor::{CommitGate, Copied, CopyError, Meter, Worker};
use tokio::sync::oneshot;

use crate::mutation::Planted;

use super::points::{Fault, Life};
use super::{Inner, Shared};

/// A snapshot in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The object it was made for.
    pub uid: String,
    /// The attempt it was made for.
    pub attempt: u32,
    /// What is in it.
    pub content: u64,
    /// It was read back.
    pub verified: bool,
}

/// The repositories as one executor's life sees them.
pub struct FakeRepository {
    /// What all lives share.
    pub shared: Arc<Shared>,
    /// Whose operations these are.
    pub life: Arc<Life>,
}

/// An operation did not work now.
struct Passing;

/// How often work whose cause of failure may pass is tried, as the real one does.
const TRIES: u32 = 5;
/// The parts in which data is copied.
const PARTS: u64 = 3;

impl Worker for FakeRepository {
    fn start(
        self: Arc<Self>,
        task: Task,
        meter: Arc<Meter>,
        gate: CommitGate,
    ) -> oneshot::Receiver<Result<Copied, CopyError>> {
        let (tell, outcome) = oneshot::channel();
        drop(tokio::spawn(async move {
            let done = self.work(&task, &meter, &gate).await;
            self.life.moving().await;
            drop(tell.send(done));
        }));
        outcome
    }
}

fn final_error(code: &'static str, message: &str) -> CopyError {
    CopyError { code, message: message.to_owned() }
}

impl FakeRepository {
    async fn work(&self, task: &Task, meter: &Meter, gate: &CommitGate) -> Result<Copied, CopyError> {
        let mut pause = Duration::from_secs(1);
        for _ in 0..TRIES {
            let done = match &task.work {
                Work::Backup { attempt, folder, .. } => {
                    self.back_up(task, *attempt, folder.path.is_some(), meter, gate).await
                }
                Work::Restore { attempt, snapshot, folder, .. } => {
                    self.restore(task, *attempt, snapshot, folder.path.is_some(), meter).await
                }
                Work::Forget => self.forget(task).await,
            };
            match done {
                Ok(outcome) => return outcome,
                Err(Passing) => meter.restart(),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(final_error("StorageFailed", "the repository did not answer five times"))
    }

    /// One operation on the repository.
    async fn operation<T>(&self, what: &str, act: impl FnOnce(&mut Inner) -> T) -> Result<T, Passing> {
        self.life.moving().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.life.moving().await;
        let fault = self.shared.with(|inner| inner.points.pass(&self.life.name, &format!("repository {what}")));
        match fault {
            Some(Fault::CrashBefore) => {
                self.life.end();
                self.life.moving().await;
            }
            Some(Fault::Refused | Fault::Conflict) => return Err(Passing),
            Some(Fault::Stops) => {
                self.shared.stop(&self.life);
                self.life.moving().await;
            }
            Some(Fault::CrashAfter | Fault::DoneButError | Fault::AnswerLost) | None => {}
        }
        let done = self.shared.with(|inner| {
            let done = act(inner);
            inner.look();
            done
        });
        match fault {
            Some(Fault::CrashAfter) => {
                self.life.end();
                self.life.moving().await;
            }
            Some(Fault::DoneButError) => return Err(Passing),
            Some(Fault::AnswerLost) => {
                tokio::time::sleep(Duration::from_secs(20)).await;
                return Err(Passing);
            }
            Some(Fault::CrashBefore | Fault::Refused | Fault::Conflict | Fault::Stops) | None => {}
        }
        self.life.moving().await;
        Ok(done)
    }

    async fn back_up(
        &self,
        task: &Task,
        attempt: u32,
        mounted: bool,
        meter: &Meter,
        gate: &CommitGate,
    ) -> Result<Result<Copied, CopyError>, Passing> {
        let mine = |commit: &&Commit| commit.uid == task.uid && commit.attempt == attempt;
        let find = |inner: &mut Inner| match inner.planted {
            Some(Planted::NoLook) => None,
            Some(_) | None => inner.repository(&task.path).iter().find(mine).cloned(),
        };
        if let Some(found) = self.operation("find", find).await? {
            return self.verify(task, found.id, meter).await;
        }
        let Ok(id) = VolumeId::parse(task.uid.as_str()) else {
            return Ok(Err(final_error("InvalidTask", "the uid is no volume's")));
        };
        meter.step(Step::Copying);
        meter.total(PARTS, PARTS);
        let mut content = None;
        for _ in 0..PARTS {
            let read = |inner: &mut Inner| {
                if inner.broken_attempt == attempt {
                    if inner.planted == Some(Planted::UnreadableIsSkipped) {
                        return Ok(u64::MAX);
                    }
                    return Err(final_error("UnreadableFiles", "injected: a file cannot be read"));
                }
                let volume = inner.volumes.get(&id).filter(|volume| volume.attached && mounted);
                volume
                    .map(|volume| volume.content)
                    .ok_or_else(|| final_error("NotMounted", "the volume is not mounted on its node"))
            };
            match self.operation("read", read).await? {
                // What could not be read in one part is not in the whole.
                Ok(read) => content = Some(content.map_or(read, |before: u64| before.max(read))),
                Err(error) => return Ok(Err(error)),
            }
            meter.bytes(1);
            meter.file_done();
            tokio::time::sleep(Duration::from_secs(4)).await;
            if meter.should_stop() {
                return Ok(Err(final_error("Stopped", "asked to stop")));
            }
        }
        self.life.moving().await;
        if !gate.ask().await {
            return Ok(Err(final_error("Stopped", "the claim is gone")));
        }
        let commit = |inner: &mut Inner| {
            let looks = inner.planted != Some(Planted::NoLook);
            if let Some(found) = inner.repository(&task.path).iter().find(mine).filter(|_| looks) {
                return found.id.clone();
            }
            inner.commits += 1;
            let id = format!("{:016x}", inner.commits);
            let garbage = if inner.planted == Some(Planted::CommitsGarbage) { 1 } else { 0 };
            let (uid, content) = (task.uid.clone(), content.unwrap_or_default() ^ garbage);
            let made = Commit { id: id.clone(), uid, attempt, content, verified: false };
            inner.repository(&task.path).push(made);
            id
        };
        let id = self.operation("commit", commit).await?;
        self.verify(task, id, meter).await
    }

    async fn verify(&self, task: &Task, id: String, meter: &Meter) -> Result<Result<Copied, CopyError>, Passing> {
        meter.step(Step::Verifying);
        let read = |inner: &mut Inner| {
            if inner.planted == Some(Planted::NotReadBack) {
                return Some(());
            }
            let commit = inner.repository(&task.path).iter_mut().find(|commit| commit.id == id)?;
            commit.verified = true;
            Some(())
        };
        Ok(match self.operation("verify", read).await? {
            Some(()) if self.shared.with(|inner| inner.planted == Some(Planted::EmptyId)) => Ok(Copied::default()),
            Some(()) => Ok(Copied { snapshot: id, message: "copied".to_owned(), ..Copied::default() }),
            None => Err(final_error("VerificationFailed", "the commit is not there")),
        })
    }

    async fn restore(
        &self,
        task: &Task,
        attempt: u32,
        snapshot: &str,
        mounted: bool,
        meter: &Meter,
    ) -> Result<Result<Copied, CopyError>, Passing> {
        let find = |inner: &mut Inner| {
            inner.repository(&task.path).iter().find(|commit| commit.id.starts_with(snapshot)).cloned()
        };
        let Some(found) = self.operation("find", find).await? else {
            return Ok(Err(final_error("SnapshotNotFound", "there is no such snapshot")));
        };
        let Ok(id) = VolumeId::parse(task.uid.as_str()) else {
            return Ok(Err(final_error("InvalidTask", "the uid is no volume's")));
        };
        meter.step(Step::Restoring);
        for part in 0..PARTS {
            let fill = |inner: &mut Inner| {
                if inner.broken_attempt == attempt {
                    return false;
                }
                let another = inner.volumes.keys().find(|other| **other != id).cloned();
                let target = match inner.planted {
                    Some(Planted::FillsAnother) => another.unwrap_or_else(|| id.clone()),
                    Some(_) | None => id.clone(),
                };
                let incomplete = inner.planted == Some(Planted::RestoreIncomplete) && part + 1 == PARTS;
                let Some(volume) = inner.volumes.get_mut(&target).filter(|volume| volume.attached && mounted) else {
                    return false;
                };
                volume.partial = part + 1 < PARTS || incomplete;
                volume.content = if volume.partial { u64::MAX } else { found.content };
                true
            };
            if !self.operation("fill", fill).await? {
                return Ok(Err(final_error("RestoreFailed", "injected, or the volume is not mounted")));
            }
            meter.bytes(1);
            tokio::time::sleep(Duration::from_secs(4)).await;
            if meter.should_stop() {
                return Ok(Err(final_error("Stopped", "asked to stop")));
            }
        }
        Ok(Ok(Copied { snapshot: found.id, message: "restored".to_owned(), ..Copied::default() }))
    }

    async fn forget(&self, task: &Task) -> Result<Result<Copied, CopyError>, Passing> {
        let remove = |inner: &mut Inner| {
            let planted = inner.planted;
            let repository = inner.repository(&task.path);
            let before = repository.len();
            match planted {
                Some(Planted::ForgetsNothing) => {}
                Some(Planted::ForgetsAll) => repository.clear(),
                Some(_) | None => repository.retain(|commit| commit.uid != task.uid),
            }
            before - repository.len()
        };
        let removed = self.operation("forget", remove).await?;
        Ok(Ok(Copied { removed, ..Copied::default() }))
    }
}
