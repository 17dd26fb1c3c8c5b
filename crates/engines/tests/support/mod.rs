//! What the engine tests share: engines on state folders of their own, which are taken away again even when a test
//! panics, and helpers that look at the machine past the engine.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests look at the machine with its own programs")]

pub(crate) mod disk;
pub(crate) mod lvm;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use lvault_core::{Bytes, VolumeId};
use lvault_engines::{
    Access, Change, DirectoryEngine, EngineError, Filesystem, ImageEngine, LvmEngine, NewSnapshot, NewVolume, Options,
    Placement, VolumeEngine,
};
use lvm::{Layout, VolumeGroup};

pub(crate) const MIB: u64 = 1 << 20;

/// One engine, with one kind of volume, to run the contract against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    Image(Filesystem),
    /// Logical volumes, in a thin pool or not.
    Lvm(Layout, Filesystem),
}

/// A state folder; dropping it unmounts and removes everything in it.
pub(crate) struct State {
    folder: PathBuf,
    pub(crate) options: Options,
    group: RefCell<Option<VolumeGroup>>,
}

impl State {
    pub(crate) fn new() -> State {
        let folder = tempfile::Builder::new().prefix("lvault-engines-").tempdir().unwrap().keep();
        State::at(fs::canonicalize(folder).unwrap())
    }

    /// The state folder of another process; whoever made it takes it away.
    pub(crate) fn at(folder: PathBuf) -> State {
        let options = Options { pool_size: Some(Bytes(2048 * MIB)), ..Options::default() };
        State { folder, options, group: RefCell::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.folder.join("pool")
    }

    pub(crate) fn mount_point(&self, id: &VolumeId) -> PathBuf {
        self.folder.join("mnt").join(id.as_str())
    }

    /// Opens the engine anew, as after a restart.
    pub(crate) fn open(&self, kind: Kind) -> Result<Box<dyn VolumeEngine>, EngineError> {
        Ok(match kind {
            Kind::Directory => Box::new(DirectoryEngine::open(&self.folder)?),
            Kind::Image(_) => Box::new(ImageEngine::open(&self.folder, self.options.clone())?),
            Kind::Lvm(layout, _) => Box::new(self.open_lvm(layout)?),
        })
    }

    /// Opens the LVM engine on a volume group of this state's own.
    pub(crate) fn open_lvm(&self, layout: Layout) -> Result<LvmEngine, EngineError> {
        let mut group = self.group.borrow_mut();
        let group = group.get_or_insert_with(|| VolumeGroup::new(&self.folder, layout));
        let options = Options { lvmd_config: Some(group.config()), ..self.options.clone() };
        LvmEngine::open(&self.folder, options)
    }

    /// Opens the LVM engine on a volume group of this state's own, on one disk of the caller's.
    pub(crate) fn open_lvm_on(&self, disk: &Path, layout: Layout, pool: &str) -> Result<LvmEngine, EngineError> {
        let group = VolumeGroup::on(&self.folder, vec![disk.to_owned()], Vec::new());
        group.lay_out(layout, pool);
        *self.group.borrow_mut() = Some(group);
        self.open_lvm(layout)
    }

    /// Does something with the volume group that [`open_lvm`](Self::open_lvm) has made.
    pub(crate) fn with_group<T>(&self, work: impl FnOnce(&VolumeGroup) -> T) -> T {
        work(self.group.borrow().as_ref().expect("the engine was opened"))
    }

    /// The files or the device that a volume lies on.
    pub(crate) fn storage_of(&self, name: &str) -> Vec<PathBuf> {
        let folders = ["volumes", "pool/volumes"].map(|folder| self.folder.join(folder).join(name));
        let device = self.group.borrow().as_ref().map(|group| group.device(name));
        folders.into_iter().chain(device).filter(|path| path.exists()).collect()
    }

    /// What is below the volumes' folders and is no volume.
    pub(crate) fn hidden(&self) -> Vec<PathBuf> {
        ["volumes", "pool/volumes"]
            .iter()
            .flat_map(|folder| fs::read_dir(self.folder.join(folder)).into_iter().flatten().flatten())
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(|entry| entry.path())
            .collect()
    }

    /// How many folders there are under names of volumes.
    pub(crate) fn volume_folders(&self) -> usize {
        let folders = ["volumes", "pool/volumes"].map(|folder| fs::read_dir(self.folder.join(folder)));
        let names = folders.into_iter().flatten().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_str().is_some_and(|name| VolumeId::parse(name).is_ok())).count()
    }

    /// The mounts below this folder, in the order of mounting.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        mounts_below(&self.folder)
    }

    /// The loop devices whose backing file lies below this folder.
    pub(crate) fn loops(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let ours = |name: &OsStr| {
            let backing = fs::read_to_string(Path::new("/sys/block").join(name).join("loop/backing_file"));
            backing.is_ok_and(|path| Path::new(path.trim()).starts_with(&self.folder))
        };
        entries
            .map(|entry| entry.file_name())
            .filter(|name| ours(name))
            .map(|name| Path::new("/dev").join(name))
            .collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for _ in 0..20 {
            for mount in self.mounts().iter().rev() {
                let _ = Command::new("fsfreeze").arg("-u").arg(mount).output();
                let _ = Command::new("umount").arg(mount).output();
            }
            for device in self.loops() {
                let _ = Command::new("losetup").arg("-d").arg(device).output();
            }
            if self.mounts().is_empty() && self.loops().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        for mount in self.mounts().iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(mount).output();
        }
        drop(self.group.take());
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&self.folder).output();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

/// Whether tests that need root can run; says so loudly when they cannot.
pub(crate) fn root_or_skip(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED, NOT TESTED: {what} needs root");
    }
    root
}

pub(crate) fn id(text: &str) -> VolumeId {
    VolumeId::parse(text).unwrap()
}

/// Runs a program that has to succeed.
pub(crate) fn run(program: &str, args: &[&OsStr]) -> Output {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    output
}

/// This test binary, started again for one test of it.
pub(crate) fn myself(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// Starting a child whose output nobody reads.
pub(crate) trait SpawnQuietly {
    fn spawn_quietly(&mut self) -> std::process::Child;
}

impl SpawnQuietly for Command {
    fn spawn_quietly(&mut self) -> std::process::Child {
        self.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    }
}

pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

/// Waits, boundedly, for something that happens by itself.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether this process has a capability in effect.
pub(crate) fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(hex.trim(), 16).unwrap() & (1 << number) != 0
}

impl Kind {
    pub(crate) fn size(self) -> Bytes {
        match self {
            Kind::Directory | Kind::Image(Filesystem::Ext4) | Kind::Lvm(_, Filesystem::Ext4) => Bytes(64 * MIB),
            Kind::Image(Filesystem::Xfs) | Kind::Lvm(_, Filesystem::Xfs) => Bytes(300 * MIB),
            Kind::Image(Filesystem::Btrfs) | Kind::Lvm(_, Filesystem::Btrfs) => Bytes(200 * MIB),
        }
    }

    pub(crate) fn filesystem(self) -> Option<Filesystem> {
        match self {
            Kind::Directory => None,
            Kind::Image(filesystem) | Kind::Lvm(_, filesystem) => Some(filesystem),
        }
    }

    pub(crate) fn volume(self, name: &str) -> NewVolume {
        NewVolume { id: id(name), size: self.size(), filesystem: self.filesystem(), placement: Placement::default() }
    }
}

pub(crate) fn snapshot(name: &str, source: &str, access: Access) -> NewSnapshot {
    NewSnapshot { id: id(name), source: id(source), access }
}

/// Makes a volume, attaches it and returns its folder.
pub(crate) fn filled(engine: &dyn VolumeEngine, kind: Kind, name: &str, content: &str) -> PathBuf {
    assert_eq!(engine.ensure_volume(&kind.volume(name)).unwrap(), Change::Changed);
    let folder = engine.ensure_attached(&id(name)).unwrap();
    fs::write(folder.join("file"), content).unwrap();
    folder
}

/// The content of the file that [`filled`] has written, by attaching the volume.
pub(crate) fn content(engine: &dyn VolumeEngine, name: &str) -> String {
    let folder = engine.ensure_attached(&id(name)).unwrap();
    fs::read_to_string(folder.join("file")).unwrap()
}

pub(crate) fn remove(engine: &dyn VolumeEngine, name: &str) {
    engine.ensure_detached(&id(name)).unwrap();
    engine.ensure_absent(&id(name)).unwrap();
}

pub(crate) fn program(path: &Path) -> Command {
    Command::new(path)
}

/// The files with this content below a folder; symbolic links are not followed.
pub(crate) fn files_holding(folder: &Path, content: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_holding(&entry.path(), content));
        } else if kind.is_file() && fs::read(entry.path()).unwrap() == content.as_bytes() {
            found.push(entry.path());
        }
    }
    found
}
