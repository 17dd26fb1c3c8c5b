//! What the kernel says is attached and mounted: the only source of truth about it.
//!
//! What holds: a mount counts as a volume's when the device mounted there is a loop device whose backing file is the
//! volume's image by device and inode number. Neither the path of the mount point nor the name of the image proves
//! anything: an empty folder, a foreign mount or a replaced image is never taken for the volume.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{major, minor};
use serde_json::Value;

use crate::error::{EngineError, Retry};
use crate::tools::{Tool, Tools};

const MOUNTINFO: &str = "/proc/self/mountinfo";
const SYS_BLOCK: &str = "/sys/block";
/// The major number of loop devices.
const LOOP_MAJOR: u32 = 7;

/// A device's number, as major and minor.
pub(crate) type Device = (u32, u32);

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: Device,
    inode: u64,
}

impl FileId {
    /// The file at this path; `None` when there is none.
    pub(crate) fn of(path: &Path) -> Result<Option<FileId>, EngineError> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(FileId { device: (major(meta.dev()), minor(meta.dev())), inode: meta.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::io("looking at", path)(error)),
        }
    }
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) device: Device,
    pub(crate) point: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) filesystem: String,
    /// What was mounted, as whoever mounted it called it.
    pub(crate) source: PathBuf,
}

/// One loop device that has a backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    pub(crate) device: Device,
    pub(crate) backing: FileId,
    /// What the kernel calls the backing file; for telling a user, and for files that are deleted.
    pub(crate) backing_path: PathBuf,
    /// It is released by itself when its last user closes it.
    pub(crate) autoclear: bool,
}

/// Mounts and loop devices at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    mounts: Vec<Mount>,
    loops: Vec<LoopDevice>,
    /// Where a device is in `loops`: with thousands of volumes, every question would search all of it.
    by_device: HashMap<Device, usize>,
}

/// Whom to ask. It remembers the loop devices for as long as the kernel says that none was attached or released since.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) tools: Tools,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    in_use: Vec<InUse>,
    loops: Vec<LoopDevice>,
}

/// A loop device's name and the number that the kernel changes with whatever is behind it; no number before Linux 5.15.
type InUse = (OsString, Option<u64>);

impl Kernel {
    pub(crate) fn new(tools: Tools) -> Kernel {
        Kernel { tools, known: Mutex::default() }
    }

    /// What is so now: a few reads, and one run of `losetup` when the loop devices are other ones than the last time.
    pub(crate) fn view(&self) -> Result<View, EngineError> {
        let mounts = mounts()?;
        let loops = self.loops()?;
        let by_device = loops.iter().enumerate().map(|(index, device)| (device.device, index)).collect();
        Ok(View { mounts, loops, by_device })
    }

    fn loops(&self) -> Result<Vec<LoopDevice>, EngineError> {
        // Read before the devices are: what changes in between makes the next look ask again.
        let in_use = in_use().map_err(EngineError::io("listing", SYS_BLOCK))?;
        if in_use.is_empty() {
            return Ok(Vec::new());
        }
        let numbered = in_use.iter().all(|(_, number)| number.is_some());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| numbered && known.in_use == in_use) {
            return Ok(known.loops.clone());
        }
        // Nobody waits for the program with the lock in hand.
        drop(known);
        let loops = loops(&self.tools)?;
        let known = Known { in_use, loops: loops.clone() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(loops)
    }
}

impl View {
    /// The loop devices in use.
    pub(crate) fn loops(&self) -> &[LoopDevice] {
        &self.loops
    }

    /// All mounts.
    pub(crate) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The loop devices of this file.
    pub(crate) fn loops_of(&self, file: FileId) -> impl Iterator<Item = &LoopDevice> {
        self.loops.iter().filter(move |device| device.backing == file)
    }

    /// Where this file is mounted, in the order of mounting.
    pub(crate) fn mounts_of(&self, file: FileId) -> Vec<&Mount> {
        self.mounts.iter().filter(|mount| self.backing(mount).is_some_and(|device| device.backing == file)).collect()
    }

    /// What is mounted at this point, topmost.
    pub(crate) fn at(&self, point: &Path) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// The loop device that is mounted here.
    pub(crate) fn backing(&self, mount: &Mount) -> Option<&LoopDevice> {
        self.by_device.get(&mount.device).and_then(|index| self.loops.get(*index))
    }

    /// Whether a loop device is mounted anywhere.
    pub(crate) fn is_mounted(&self, device: &LoopDevice) -> bool {
        self.mounts.iter().any(|mount| mount.device == device.device)
    }
}

/// The mount table.
pub(crate) fn mounts() -> Result<Vec<Mount>, EngineError> {
    let table = fs::read(MOUNTINFO).map_err(EngineError::io("reading", MOUNTINFO))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// Reads one line of `/proc/self/mountinfo`; see proc(5).
pub(crate) fn parse_mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = parse_device(std::str::from_utf8(fields.by_ref().nth(2)?).ok()?)?;
    let point = PathBuf::from(unescape(fields.by_ref().nth(1)?));
    let read_only = fields.by_ref().next()?.split(|byte| *byte == b',').any(|option| option == b"ro");
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let filesystem = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = PathBuf::from(unescape(fields.next()?));
    Some(Mount { device, point, read_only, filesystem, source })
}

pub(crate) fn parse_device(text: &str) -> Option<Device> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.trim().parse().ok()?, minor.trim().parse().ok()?))
}

/// The mount table writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) if byte == b'\\' => {
                plain.push(value);
                rest = &after[3..];
            }
            Some(_) | None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The loop devices that have a backing file, in order.
fn in_use() -> io::Result<Vec<InUse>> {
    let mut in_use = Vec::new();
    for entry in fs::read_dir(SYS_BLOCK)? {
        let name = entry?.file_name();
        let device = Path::new(SYS_BLOCK).join(&name);
        if name.as_bytes().starts_with(b"loop") && device.join("loop/backing_file").exists() {
            let number = fs::read_to_string(device.join("diskseq")).ok().and_then(|text| text.trim().parse().ok());
            in_use.push((name, number));
        }
    }
    in_use.sort();
    Ok(in_use)
}

fn loops(tools: &Tools) -> Result<Vec<LoopDevice>, EngineError> {
    const ATTEMPTED: &str = "listing the loop devices";
    let columns = "NAME,MAJ:MIN,BACK-MAJ:MIN,BACK-INO,BACK-FILE,AUTOCLEAR";
    let args = ["--json", "--list", "--output", columns].map(OsStr::new);
    let listing = tools.run(Tool::Losetup, &args, None, ATTEMPTED)?.ok(ATTEMPTED, Retry::Later)?;
    parse_loops(&listing).map_err(|why| EngineError::Tool {
        attempted: ATTEMPTED.into(),
        program: "losetup",
        said: format!("something that is not understood: {why}"),
        retry: Retry::Never,
    })
}

/// Reads what `losetup --json` writes: nothing at all when there is no device; numbers and flags as strings in some
/// versions.
pub(crate) fn parse_loops(listing: &str) -> Result<Vec<LoopDevice>, String> {
    if listing.trim().is_empty() {
        return Ok(Vec::new());
    }
    let json: Value = serde_json::from_str(listing).map_err(|error| error.to_string())?;
    let devices = json.get("loopdevices").and_then(Value::as_array).ok_or("it lacks loopdevices")?;
    devices.iter().filter(|device| !device.get("back-ino").is_none_or(Value::is_null)).map(parse_loop).collect()
}

fn parse_loop(device: &Value) -> Result<LoopDevice, String> {
    let field = |name: &str| match device.get(name) {
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(other) => Ok(other.to_string()),
        None => Err(format!("a device lacks {name}")),
    };
    let number = |name: &str| parse_device(&field(name)?).ok_or_else(|| format!("{name} is no device number"));
    Ok(LoopDevice {
        path: field("name")?.into(),
        device: number("maj:min")?,
        backing: FileId {
            device: number("back-maj:min")?,
            inode: field("back-ino")?.parse().map_err(|_| "back-ino is no number".to_owned())?,
        },
        backing_path: field("back-file")?.into(),
        autoclear: matches!(field("autoclear")?.as_str(), "true" | "1"),
    })
}

/// Whether there may be loop devices on this machine at all.
pub(crate) fn require_loop_control() -> Result<(), EngineError> {
    let path = PathBuf::from("/dev/loop-control");
    if path.exists() { Ok(()) } else { Err(EngineError::NoLoopDevices { path }) }
}

/// Whether a mount is of a loop device.
pub(crate) fn is_loop(mount: &Mount) -> bool {
    mount.device.0 == LOOP_MAJOR
}

/// Who has something open below a path: a few, by name and process id, as far as this process may see.
pub(crate) fn holders(path: &Path) -> Vec<String> {
    const MOST: usize = 5;
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| holds(*pid, path)).take(MOST).map(describe).collect()
}

fn holds(pid: u32, path: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let leads_below = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(path));
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    leads_below(&process.join("cwd"))
        || leads_below(&process.join("root"))
        || open.into_iter().any(|entry| leads_below(&entry.path()))
}

fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} (process {pid})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_device_options_and_odd_names() {
        let line = br"42 27 7:3 / /state/with\040space/mnt ro,relatime shared:1 master:2 - xfs /dev/loop3 ro,nouuid";
        let mount = parse_mount(line).unwrap();
        let point = PathBuf::from("/state/with space/mnt");
        let source = PathBuf::from("/dev/loop3");
        assert_eq!(mount, Mount { device: (7, 3), point, read_only: true, filesystem: "xfs".into(), source });
        assert!(is_loop(&mount));
        let plain = parse_mount(br"36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw").unwrap();
        assert_eq!((plain.read_only, plain.filesystem.as_str()), (false, "ext3"));
        assert_eq!(parse_mount(b""), None);
        assert_eq!(unescape(br"a\134b\011c\04"), OsString::from("a\\b\tc\\04"));
    }

    #[test]
    fn loop_devices_are_read_in_the_spellings_of_all_versions() {
        let expected = LoopDevice {
            path: "/dev/loop1".into(),
            device: (7, 1),
            backing: FileId { device: (254, 0), inode: 131 },
            backing_path: "/pool/image (deleted)".into(),
            autoclear: true,
        };
        for listing in [
            r#"{"loopdevices":[{"name":"/dev/loop1","maj:min":"  7:1  ","back-maj:min":" 254:0 ","back-ino":131,
                "back-file":"/pool/image (deleted)","autoclear":true}]}"#,
            r#"{"loopdevices":[{"name":"/dev/loop1","maj:min":"7:1","back-maj:min":"254:0","back-ino":"131",
                "back-file":"/pool/image (deleted)","autoclear":"1"},
                {"name":"/dev/loop2","maj:min":"7:2","back-maj:min":null,"back-ino":null,"back-file":null,"autoclear":"0"}]}"#,
        ] {
            assert_eq!(parse_loops(listing).unwrap(), std::slice::from_ref(&expected));
        }
        assert_eq!(parse_loops("\n").unwrap(), []);
        assert!(parse_loops(r#"{"loopdevices":[{"back-ino":1}]}"#).unwrap_err().contains("name"));
    }

    #[test]
    fn a_file_is_known_by_inode_and_whoever_holds_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        assert_eq!(FileId::of(&path).unwrap(), None);
        let file = fs::File::create(&path).unwrap();
        let before = FileId::of(&path).unwrap();
        fs::write(&other, "").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(FileId::of(&path).unwrap(), before, "another file under the same name");
        drop(file);
        assert_eq!(holders(folder.path()), Vec::<String>::new());
        let _open = fs::File::open(&path).unwrap();
        let holders = holders(folder.path());
        assert!(holders.iter().any(|holder| holder.contains(&std::process::id().to_string())), "{holders:?}");
    }
}
