//! The directory engine, with a volume that can be made to hang.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lvault_core::{Bytes, VolumeId};
use lvault_engines::{
    Capabilities, Capacity, Change, DirectoryEngine, EngineError, NewSnapshot, NewVolume, Recovered, VolumeEngine,
    VolumeInfo,
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
}

impl TestEngine {
    pub(crate) fn open(state: &Path) -> TestEngine {
        let inner = DirectoryEngine::open(state).unwrap();
        let off = || AtomicBool::new(false);
        TestEngine { inner, stuck: off(), hangs: off(), full: off(), lies: off(), removals: AtomicU32::new(0) }
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
    fn list(&self) -> Result<Vec<VolumeInfo>, EngineError> {
        self.inner.list()
    }
    fn observe(&self, id: &VolumeId) -> Result<Option<VolumeInfo>, EngineError> {
        self.inner.observe(id)
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
