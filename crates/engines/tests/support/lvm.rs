//! A volume group of a test's own, and a kernel that has device-mapper where this machine's has not.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::run;

/// The disks that a guest has for a test, separated by spaces; elsewhere it is files behind loop devices.
const DISKS: &str = "LVAULT_LVM_DISKS";
/// Set by scripts/guest.sh.
const IN_GUEST: &str = "LVAULT_GUEST";
const SIZE: u64 = 4 << 30;

/// How the volumes of a test lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Thick,
    Thin,
}

/// Of a guest, whose disks are for nobody else: the volume group that the last test has left empty, for the next.
static SPARE: Mutex<Option<(Layout, String)>> = Mutex::new(None);

/// A volume group, its disks and its `lvmd.yaml`; dropping it removes all of them.
pub(crate) struct VolumeGroup {
    pub(crate) name: String,
    /// Where the next test can have it, when this one has left it as it was.
    layout: Option<Layout>,
    pub(crate) disks: Vec<PathBuf>,
    loops: Vec<PathBuf>,
    folder: PathBuf,
}

impl VolumeGroup {
    /// Makes it, with a thin pool of 3 GiB where that is wanted.
    pub(crate) fn new(folder: &Path, layout: Layout) -> VolumeGroup {
        let disks = disks(folder);
        if let Some((as_is, name)) = SPARE.lock().unwrap().take() {
            let folder = folder.to_owned();
            let mut group = VolumeGroup { name, layout: Some(as_is), disks: disks.clone(), loops: Vec::new(), folder };
            if as_is == layout {
                group.configure_as(layout);
                return group;
            }
            group.layout = None;
        }
        let loops = if std::env::var_os(DISKS).is_none() { disks.clone() } else { Vec::new() };
        let mut group = VolumeGroup::on(folder, disks, loops);
        group.lay_out(layout, "3g");
        group.layout = Some(layout).filter(|_| group.loops.is_empty());
        group
    }

    /// Makes its only class, and the thin pool of this size where that is wanted.
    pub(crate) fn lay_out(&self, layout: Layout, pool: &str) {
        if layout == Layout::Thin {
            self.lvm(&["lvcreate", "-q", "-y", "--type", "thin-pool", "-L", pool, "-n", "pool", &self.name]);
        }
        self.configure_as(layout);
    }

    fn configure_as(&self, layout: Layout) {
        match layout {
            Layout::Thick => self.configure("- {name: thick, volume-group: VG, default: true, spare-gb: 0}"),
            Layout::Thin => {
                let pool = "thin-pool: {name: pool, overprovision-ratio: 2.0}";
                self.configure(&format!("- {{name: thin, volume-group: VG, default: true, type: thin, {pool}}}"));
            }
        }
    }

    /// Makes an empty one on these disks.
    pub(crate) fn on(folder: &Path, disks: Vec<PathBuf>, loops: Vec<PathBuf>) -> VolumeGroup {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("lvault-test{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let group = VolumeGroup { name: name.clone(), layout: None, disks, loops, folder: folder.to_owned() };
        // A test that was ended has left its group on the guest's disks.
        group.disks.iter().for_each(|disk| forget(disk));
        let disks: Vec<&str> = group.disks.iter().map(|disk| disk.to_str().unwrap()).collect();
        group.lvm(&[&["vgcreate", "-q", "-y", name.as_str()], disks.as_slice()].concat());
        group
    }

    /// Writes `lvmd.yaml`: the device classes, in which VG stands for this group, and whatever follows them.
    pub(crate) fn configure(&self, classes: &str) {
        let text = format!("device-classes:\n{}\n", classes.replace("VG", &self.name));
        fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("lvmd.yaml")
    }

    /// The device of a logical volume.
    pub(crate) fn device(&self, name: &str) -> PathBuf {
        let escaped = |name: &str| name.replace('-', "--");
        Path::new("/dev/mapper").join(format!("{}-{}", escaped(&self.name), escaped(name)))
    }

    /// Runs LVM, which has to succeed; answers what it says.
    pub(crate) fn lvm(&self, args: &[&str]) -> String {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        String::from_utf8(run("lvm", &args).stdout).unwrap()
    }
}

impl Drop for VolumeGroup {
    fn drop(&mut self) {
        let own = self.layout.filter(|_| !std::thread::panicking());
        if let Some(layout) =
            own.filter(|_| quietly(&["lvremove", "-q", "-ff", "-y", "-S", "lv_name!=pool", &self.name]))
        {
            *SPARE.lock().unwrap() = Some((layout, self.name.clone()));
            return;
        }
        self.remove();
    }
}

impl VolumeGroup {
    fn remove(&self) {
        quietly(&["vgremove", "-q", "-ff", "-y", &self.name]);
        for disk in &self.disks {
            forget(disk);
        }
        for device in &self.loops {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
    }
}

fn quietly(args: &[&str]) -> bool {
    let ended = Command::new("lvm").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}

/// Takes LVM's label off a disk.
fn forget(disk: &Path) {
    if let Ok(mut file) = fs::OpenOptions::new().write(true).open(disk) {
        let _ = file.write_all(&[0; 1 << 20]).and_then(|()| file.sync_all());
    }
}

/// Two empty disks.
fn disks(folder: &Path) -> Vec<PathBuf> {
    if let Ok(disks) = std::env::var(DISKS) {
        return disks.split(' ').map(PathBuf::from).collect();
    }
    let device = |number: u32| {
        let file = folder.join(format!("disk{number}"));
        fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
        let said = run("losetup", &[OsStr::new("--find"), OsStr::new("--show"), file.as_os_str()]).stdout;
        PathBuf::from(String::from_utf8(said).unwrap().trim())
    };
    [0, 1].map(device).to_vec()
}

/// Whether this kernel has device-mapper, and this process may use it. That its device file is there says nothing: every LVM
/// command makes it.
pub(crate) fn has_device_mapper() -> bool {
    rustix::process::geteuid().is_root()
        && fs::File::options().read(true).write(true).open("/dev/mapper/control").is_ok()
        && Command::new("lvm").arg("version").output().is_ok_and(|said| said.status.success())
}

/// Whether the tests of LVM can run in this process; they say so when they cannot.
pub(crate) fn device_mapper_or_skip() -> bool {
    let here = has_device_mapper();
    if !here {
        eprintln!("skipped here, where there is no device-mapper, no lvm2 or no root: the test in_guest_... runs it");
    }
    here
}

/// Whether this is the guest, which has one CPU.
pub(crate) fn is_in_guest() -> bool {
    std::env::var_os(IN_GUEST).is_some()
}

/// Runs the tests of this binary whose names begin so on a kernel that has device-mapper, unless this one has it.
pub(crate) fn run_in_guest(tests: &str) {
    if is_in_guest() || has_device_mapper() {
        eprintln!("not needed: device-mapper is here, and {tests} ran on it");
        return;
    }
    if !guest_or_skip(tests) {
        return;
    }
    let size = SIZE.to_string();
    let binary = std::env::current_exe().unwrap();
    let output = guest(&["--disk", &size, "--disk", &size])
        .arg(&binary)
        .args([tests, "--test-threads=1", "--color=never", "--show-output"])
        .env(DISKS, "/dev/ubda /dev/ubdb")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    let passed = said.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok());
    assert!(passed.is_some_and(|passed: u32| passed > 0), "nothing ran: {said}");
    assert!(!format!("{said}{complaint}").contains("skipped here"), "{said}\n{complaint}");
    println!("in the guest: {}", said.lines().rev().find(|line| line.starts_with("test result")).unwrap_or_default());
}

/// Whether there is a guest on this machine; says so loudly when there is none.
pub(crate) fn guest_or_skip(what: &str) -> bool {
    let there = ["linux.uml", "lvm", "busybox", "taskset"].iter().all(|program| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        folders.iter().any(|folder| Path::new(folder).join(program).exists())
    });
    if !there {
        eprintln!(
            "SKIPPED, NOT TESTED: {what}: neither device-mapper nor user-mode-linux is here (scripts/setup.sh test)"
        );
    }
    there
}

/// A command in the guest; its program and arguments are to be added.
pub(crate) fn guest(options: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/guest.sh");
    let mut command = Command::new(script);
    command.args(options).arg("--").stdin(Stdio::null());
    command
}
