//! A volume group of a run's own: on a disk of the guest, or on a file behind a loop device.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{major, minor};

use crate::process::{command, succeed};

/// The disk that a guest has for the tests.
pub(crate) const DISK: &str = "LVAULT_LVM_DISK";
const SIZE: u64 = 8 << 30;
/// In the folder of a run: what its volume group is called.
const NAME: &str = "group";

/// Whether this kernel has device-mapper, and this process may use it.
pub(crate) fn has_device_mapper() -> bool {
    crate::world::is_root()
        // Every LVM command makes the device file, also where nothing answers behind it.
        && File::options().read(true).write(true).open("/dev/mapper/control").is_ok()
        && command("lvm").arg("version").output().is_ok_and(|said| said.status.success())
}

/// Runs LVM, which has to succeed; answers with what it says.
pub(crate) fn lvm(args: &[&str]) -> String {
    String::from_utf8(succeed(command("lvm").args(args)).stdout).unwrap()
}

/// Runs `dmsetup`, which has to succeed.
fn dmsetup(args: &[&str]) {
    succeed(command("dmsetup").args(args));
}

/// A volume group over one disk that can be made to fail, and its `lvmd.yaml`; dropping it removes all of them.
pub(crate) struct Group {
    name: String,
    folder: PathBuf,
    /// What lies beneath the disk.
    beneath: PathBuf,
    is_loop: bool,
    sectors: u64,
}

impl Group {
    /// LVM must not find its label on the disk beneath, too.
    const OFFSET: u64 = 4096;
    /// In so many sectors LVM keeps its own records.
    const RECORDS: u64 = 2048;

    /// Makes it, with a thin pool of this size where one is wanted.
    pub(crate) fn new(folder: &Path, pool: Option<&str>) -> Group {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("lvault-run{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let group = Group::over(folder, name);
        group.forget_label();
        lvm(&["vgcreate", "-q", "-y", &group.name, group.disk().to_str().unwrap()]);
        match pool {
            Some(size) => {
                lvm(&["lvcreate", "-q", "-y", "--type", "thin-pool", "-L", size, "-n", "pool", &group.name]);
                lvm(&["lvchange", "-q", "--errorwhenfull", "y", &group.full_name("pool")]);
                group.configure("type: thin, thin-pool: {name: pool, overprovision-ratio: 10.0}");
            }
            None => group.configure("type: thick, spare-gb: 0"),
        }
        fs::write(folder.join(NAME), &group.name).unwrap();
        group
    }

    /// The one of this folder, on the same disk, after the machine was started again.
    pub(crate) fn again(folder: &Path) -> Group {
        Group::over(folder, fs::read_to_string(folder.join(NAME)).unwrap())
    }

    fn over(folder: &Path, name: String) -> Group {
        let given = std::env::var_os(DISK).map(PathBuf::from);
        let is_loop = given.is_none();
        let beneath = given.unwrap_or_else(|| {
            let file = folder.join("disk");
            File::create(&file).unwrap().set_len(SIZE).unwrap();
            let said = succeed(command("losetup").args(["--find", "--show"]).arg(&file)).stdout;
            PathBuf::from(String::from_utf8(said).unwrap().trim())
        });
        let group = Group { name, folder: folder.to_owned(), beneath, is_loop, sectors: SIZE / 512 - Group::OFFSET };
        dmsetup(&["create", &group.disk_name(), "--table", &group.good(group.sectors)]);
        group
    }

    fn configure(&self, kind: &str) {
        let class = format!("{{name: only, volume-group: {}, default: true, {kind}}}", self.name);
        fs::write(self.config(), format!("device-classes: [{class}]\n")).unwrap();
    }

    /// Its `lvmd.yaml`.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("lvmd.yaml")
    }

    /// As LVM calls a volume of it.
    pub(crate) fn full_name(&self, volume: &str) -> String {
        format!("{}/{volume}", self.name)
    }

    /// The device of a volume.
    pub(crate) fn device(&self, volume: &str) -> PathBuf {
        let escaped = |name: &str| name.replace('-', "--");
        Path::new("/dev/mapper").join(format!("{}-{}", escaped(&self.name), escaped(volume)))
    }

    /// What makes an active volume this one and no other: LVM's identity of it.
    pub(crate) fn identity(&self, volume: &str) -> Option<u64> {
        let number = fs::metadata(self.device(volume)).ok()?.rdev();
        let uuid = format!("/sys/dev/block/{}:{}/dm/uuid", major(number), minor(number));
        let mut hasher = DefaultHasher::new();
        fs::read_to_string(uuid).ok()?.hash(&mut hasher);
        Some(hasher.finish())
    }

    /// All its volumes but the pool.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let said = lvm(&["lvs", "--noheadings", "-o", "lv_name", &self.name]);
        said.split_whitespace().filter(|name| *name != "pool").map(str::to_owned).collect()
    }

    // --- the disk ---

    fn disk_name(&self) -> String {
        format!("{}-disk", self.name)
    }

    fn disk(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.disk_name())
    }

    fn good(&self, sectors: u64) -> String {
        format!("0 {sectors} linear {} {}", self.beneath.display(), Group::OFFSET)
    }

    /// From now on its volumes get errors; LVM can still read its own records.
    pub(crate) fn disk_fails(&self) {
        self.beyond_records("error");
    }

    /// From now on its volumes are well for `up` seconds, get errors for `down`, and so on: from all they do, or from
    /// writes only.
    pub(crate) fn disk_comes_and_goes(&self, up: u32, down: u32, writes_only: bool) {
        let (at, features) = (Group::OFFSET + Group::RECORDS, if writes_only { " 1 error_writes" } else { "" });
        self.beyond_records(&format!("flakey {} {at} {up} {down}{features}", self.beneath.display()));
    }

    /// Whether it is down just now: asked past what the kernel remembers.
    pub(crate) fn disk_is_down(&self) -> bool {
        let mut read = command("dd");
        read.arg(format!("if={}", self.disk().display())).args(["of=/dev/null", "bs=4096", "count=1", "iflag=direct"]);
        read.arg(format!("skip={}", Group::RECORDS / 8 + 1));
        !read.output().unwrap().status.success()
    }

    fn beyond_records(&self, target: &str) {
        let records = Group::RECORDS;
        self.become_table(&format!("{}\n{records} {} {target}", self.good(records), self.sectors - records));
    }

    /// From now on it works again.
    pub(crate) fn disk_works(&self) {
        self.become_table(&self.good(self.sectors));
    }

    fn become_table(&self, table: &str) {
        let path = self.folder.join("table");
        fs::write(&path, format!("{table}\n")).unwrap();
        dmsetup(&["suspend", "--noflush", "--nolockfs", &self.disk_name()]);
        dmsetup(&["load", &self.disk_name(), path.to_str().unwrap()]);
        dmsetup(&["resume", &self.disk_name()]);
    }

    fn forget_label(&self) {
        if let Ok(mut disk) = File::options().write(true).open(self.disk()) {
            let _ = disk.write_all(&[0; 1 << 20]).and_then(|()| disk.sync_all());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = command("lvm").args(["vgremove", "-q", "-ff", "-y", &self.name]).output();
        self.forget_label();
        let _ = command("dmsetup").args(["remove", "--force", &self.disk_name()]).output();
        if self.is_loop {
            let _ = command("losetup").arg("-d").arg(&self.beneath).output();
        }
    }
}
