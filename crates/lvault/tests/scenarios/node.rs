//! What is left on the node: volumes, mounts, loop devices, executors, leases. Asked of the kernel and of the API, not of
//! lvault.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rustix::mount::{UnmountFlags, unmount};

use crate::process::{DEADLINE, list, until, users_of};
use crate::world::{Engine, World};

/// The node of one run.
pub(crate) struct Node<'w> {
    pub(crate) world: &'w World,
}

impl Node<'_> {
    /// Where the engine keeps a volume, whether it is there or not.
    pub(crate) fn volume(&self, uid: &str) -> PathBuf {
        match self.world.engine {
            Engine::Directory => self.world.state.join("volumes").join(uid),
            Engine::Image => self.world.state.join("pool/volumes").join(uid),
            Engine::LvmThin | Engine::LvmThick => self.world.group().device(uid),
        }
    }

    /// What makes a local volume this one and no other: its data's inode.
    pub(crate) fn identity(&self, uid: &str) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        let data = match self.world.engine {
            Engine::Directory => self.volume(uid).join("data"),
            Engine::Image => self.volume(uid).join("image"),
            Engine::LvmThin | Engine::LvmThick => return self.world.group().identity(uid),
        };
        fs::metadata(data).ok().map(|metadata| metadata.ino())
    }

    /// Whether a volume is mounted (or marked so, for folders).
    pub(crate) fn is_attached(&self, uid: &str) -> bool {
        match self.world.engine {
            Engine::Directory => self.volume(uid).join("attached").exists(),
            Engine::Image | Engine::LvmThin | Engine::LvmThick => mounts_below(&self.mount_point(uid)).len() == 1,
        }
    }

    /// Where the engines with filesystems of their own mount a volume.
    pub(crate) fn mount_point(&self, uid: &str) -> PathBuf {
        self.world.state.join("mnt").join(uid)
    }

    /// Everything of one object that is on the node or in the API beside the object, in words; the local volume is
    /// counted only when it is mounted.
    pub(crate) fn traces(&self, uid: &str) -> Vec<String> {
        let mut traces = self.traces_of_executors(uid);
        if self.is_attached(uid) {
            traces.push("it is mounted".to_owned());
        }
        if self.world.engine != Engine::Directory {
            if self.mount_point(uid).exists() {
                traces.push("its mount point is there".to_owned());
            }
            let image = self.volume(uid).join("image");
            traces
                .extend(loops().into_iter().filter(|(_, file)| *file == image).map(|found| format!("loop {found:?}")));
        }
        traces
    }

    fn traces_of_executors(&self, uid: &str) -> Vec<String> {
        let mut traces = Vec::new();
        let folder = self.world.state.join("executors").join(uid);
        if folder.exists() {
            traces.push(format!("{} is there: {:?}", folder.display(), list(&folder)));
        }
        traces.extend(users_of(&folder, &[]).into_iter().map(|user| format!("an executor runs: {user:?}")));
        traces
            .extend(self.leases().into_iter().filter(|name| name.starts_with(uid)).map(|name| format!("lease {name}")));
        traces
    }

    /// Waits until nothing of an object is left on the node.
    pub(crate) fn settle(&self, uid: &str) {
        self.none(|| {
            let mut traces = self.traces(uid);
            traces.extend(self.volume(uid).exists().then(|| "its local volume is there".to_owned()));
            traces
        });
    }

    /// Waits until nothing of an object is left on the node but its unmounted local volume, which has to be there.
    pub(crate) fn settle_keeping(&self, uid: &str) -> u64 {
        self.none(|| self.traces(uid));
        self.identity(uid).expect("the local snapshot was to be kept")
    }

    /// Waits until an object has no executor and nothing of one.
    pub(crate) fn settle_executors(&self, uid: &str) {
        self.none(|| self.traces_of_executors(uid));
    }

    fn none(&self, traces: impl Fn() -> Vec<String>) {
        let started = Instant::now();
        loop {
            let left = traces();
            if left.is_empty() {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "never settled: {left:?}\n{}", self.world.story());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checks that there is no volume, mount, loop device, executor and lease at all, and that nothing half-made lies
    /// about.
    pub(crate) fn assert_empty(&self) {
        let state = &self.world.state;
        let volumes = self.volume("x").parent().unwrap().to_owned();
        until("everything is gone", || {
            let executors: Vec<_> = list(&state.join("executors")).into_iter().flat_map(|uid| list(&uid)).collect();
            (executors.is_empty() && self.leases().is_empty()).then_some(())
        });
        if self.world.engine.is_lvm() {
            assert_eq!(self.world.group().volumes(), Vec::<String>::new());
        } else {
            assert_eq!(list(&volumes), Vec::<PathBuf>::new());
        }
        assert_eq!(list(&state.join("mnt")), Vec::<PathBuf>::new());
        assert_eq!(mounts_below(&state.join("mnt")), Vec::<PathBuf>::new());
        let of_volumes: Vec<_> = loops().into_iter().filter(|(_, file)| file.starts_with(&volumes)).collect();
        assert_eq!(of_volumes, []);
        assert_eq!(users_of(&state.join("executors"), &[]), []);
    }

    fn leases(&self) -> Vec<String> {
        let list = self.world.ask(async |client| Api::<Lease>::all(client).list(&ListParams::default()).await);
        list.expect("the leases").items.iter().map(ResourceExt::name_any).collect()
    }
}

/// The mount points at and below a folder, the innermost last.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

/// The loop devices that have a file, and their files.
fn loops() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for device in list(Path::new("/sys/block")) {
        if let Ok(file) = fs::read_to_string(device.join("loop/backing_file")) {
            let name = device.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, PathBuf::from(file.trim_end_matches('\n').trim_end_matches(" (deleted)"))));
        }
    }
    found
}

/// Takes away whatever a run has left mounted, the innermost first.
pub(crate) fn unmount_below(folder: &Path) {
    for point in mounts_below(folder).iter().rev() {
        if let Err(errno) = unmount(point, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {errno}", point.display());
        }
    }
}
