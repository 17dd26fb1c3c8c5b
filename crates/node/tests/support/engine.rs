//! The directory engine, with a volume that can be made to hang.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};
use lvault_engines::{
    Adoption, Capabilities, Capacity, Change, ClassReport, DirectoryEngine, EngineError, NewSnapshot, NewVolume,
    Placement, Problem, Recovered, VolumeEngine, VolumeInfo,
};

pub(crate) struct TestEngine {
    inner: DirectoryEngine,
    /// The next volume to be made hangs until this is taken back.
    pub(crate) stuck: AtomicBool,
    hangs: AtomicBool,
    /// There is no room for anything that is made.
    pub(crate) full: AtomicBool,
    /// Removing is answered as done, and not done.
    pub(crate) lies: AtomicBool,
    /// How often it was asked to remove.
    pub(crate) removals: AtomicU32,
    /// Its device classes, and what is wrong with every volume.
    pub(crate) classes: Mutex<Vec<ClassReport>>,
    pub(crate) problems: Mutex<Vec<Problem>>,
    /// What it was asked to take over; it does so with what this says.
    pub(crate) adoptions: Mutex<Vec<Adoption>>,
}

impl TestEngine {
    pub(crate) fn open(state: &Path) -> TestEngine {
        let inner = DirectoryEngine::open(state).unwrap();
        TestEngine {
            inner,
            stuck: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            full: AtomicBool::new(false),
            classes: Mutex::default(),
            problems: Mutex::default(),
            adoptions: Mutex::default(),
            lies: AtomicBool::new(false),
            removals: AtomicU32::new(0),
        }
    }

    pub(crate) async fn wait_until_stuck(&self) {
        super::wait_until("a volume that hangs", async || self.hangs.load(Ordering::SeqCst)).await;
    }

    /// Loses a volume, as a broken disk does.
    pub(crate) fn lose(&self, id: &VolumeId) {
        self.inner.ensure_detached(id).unwrap();
        self.inner.ensure_absent(id).unwrap();
    }

    pub(crate) fn is_absent(&self, id: &VolumeId) -> bool {
        self.inner.observe(id).unwrap().is_none()
    }

    pub(crate) fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        self.inner.list()
    }
}

impl VolumeEngine for TestEngine {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn capacity(&self) -> Result<Capacity, EngineError> {
        self.inner.capacity()
    }
    fn classes(&self) -> Result<Vec<ClassReport>, EngineError> {
        Ok(self.classes.lock().unwrap().clone())
    }
    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        let problems = self.problems.lock().unwrap().clone();
        let all = self.inner.list()?.into_iter();
        Ok(all.map(|info| VolumeInfo { problems: problems.clone(), ..info }).collect())
    }
    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        let problems = self.problems.lock().unwrap().clone();
        Ok(self.inner.observe(id)?.map(|info| VolumeInfo { problems, ..info }))
    }
    /// It makes the volume instead.
    fn ensure_adopted(&self, adoption: &Adoption) -> Result<Change, EngineError> {
        self.adoptions.lock().unwrap().push(adoption.clone());
        let Adoption { id, size, .. } = adoption.clone();
        self.inner.ensure_volume(&NewVolume { id, size, filesystem: None, placement: Placement::default() })
    }
    fn ensure_volume(&self, new: &NewVolume) -> Result<Change, EngineError> {
        if self.stuck.load(Ordering::SeqCst) && !self.hangs.swap(true, Ordering::SeqCst) {
            for _ in 0..600 {
                if !self.stuck.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(EngineError::NoSpace { id: new.id.clone(), asked: new.size, available: Bytes(0) });
        }
        self.inner.ensure_volume(new)
    }
    fn ensure_snapshot(&self, new: &NewSnapshot) -> Result<Change, EngineError> {
        self.inner.ensure_snapshot(new)
    }
    fn ensure_size(&self, id: &VolumeId, size: Bytes) -> Result<Change, EngineError> {
        self.inner.ensure_size(id, size)
    }
    fn ensure_attached(&self, id: &VolumeId) -> Result<PathBuf, EngineError> {
        self.inner.ensure_attached(id)
    }
    fn ensure_detached(&self, id: &VolumeId) -> Result<Change, EngineError> {
        self.inner.ensure_detached(id)
    }
    fn ensure_absent(&self, id: &VolumeId) -> Result<Change, EngineError> {
        self.removals.fetch_add(1, Ordering::SeqCst);
        if self.lies.load(Ordering::SeqCst) {
            return Ok(Change::Changed);
        }
        self.inner.ensure_absent(id)
    }
    fn recover(&self) -> Result<Vec<Recovered>, EngineError> {
        self.inner.recover()
    }
    fn ensure_closed(&self) -> Result<Change, EngineError> {
        self.inner.ensure_closed()
    }
}
