//! A launcher whose executors are played by the test.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lvault_api::task::Task;
use lvault_core::{Executor, Job, Life, VolumeId};
use lvault_node::{Change, LaunchError, Launcher, Wake};

#[derive(Default)]
pub(crate) struct TestLauncher {
    executors: Mutex<BTreeMap<VolumeId, Executor>>,
    launched: Mutex<Vec<(String, Job)>>,
    wake: Mutex<Option<Wake>>,
    /// How many executors were ended by the agent.
    pub(crate) ended: AtomicUsize,
}

impl TestLauncher {
    pub(crate) fn is_alive(&self, id: &VolumeId, job: Job) -> bool {
        self.executors.lock().unwrap().get(id) == Some(&Executor { job, life: Life::Alive })
    }

    pub(crate) fn is_clean(&self, id: &VolumeId) -> bool {
        !self.executors.lock().unwrap().contains_key(id)
    }

    pub(crate) fn launches(&self, name: &str) -> Vec<Job> {
        let launched = self.launched.lock().unwrap();
        launched.iter().filter(|(volume, _)| volume == name).map(|(_, job)| *job).collect()
    }

    /// The executor of this job exits by itself.
    pub(crate) fn end(&self, id: &VolumeId, job: Job) {
        self.executors.lock().unwrap().insert(id.clone(), Executor { job, life: Life::Ended });
        if let Some(wake) = self.wake.lock().unwrap().as_ref() {
            wake(id.clone());
        }
    }
}

impl Launcher for TestLauncher {
    fn observe(&self, id: &VolumeId) -> Result<Option<Executor>, LaunchError> {
        Ok(self.executors.lock().unwrap().get(id).copied())
    }

    fn ensure_launched(&self, id: &VolumeId, job: Job, task: &Task) -> Result<Change, LaunchError> {
        let mut executors = self.executors.lock().unwrap();
        match executors.get(id) {
            Some(executor) if executor.job == job => return Ok(Change::Unchanged),
            Some(_) => return Err(LaunchError::Occupied(id.clone())),
            None => {}
        }
        executors.insert(id.clone(), Executor { job, life: Life::Alive });
        self.launched.lock().unwrap().push((task.volume.clone(), job));
        Ok(Change::Changed)
    }

    fn ensure_ended(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        let mut executors = self.executors.lock().unwrap();
        match executors.get_mut(id) {
            Some(executor) if executor.life == Life::Alive => {
                executor.life = Life::Ended;
                self.ended.fetch_add(1, Ordering::SeqCst);
                Ok(Change::Changed)
            }
            Some(_) | None => Ok(Change::Unchanged),
        }
    }

    fn ensure_removed(&self, id: &VolumeId) -> Result<Change, LaunchError> {
        let removed = self.executors.lock().unwrap().remove(id);
        Ok(if removed.is_some() { Change::Changed } else { Change::Unchanged })
    }

    fn last_words(&self, _: &VolumeId) -> Option<String> {
        Some("played by a test".to_owned())
    }

    fn on_exit(&self, wake: Wake) {
        *self.wake.lock().unwrap() = Some(wake);
    }
}
