//! Making and growing filesystems, on whatever they lie: image files and logical volumes alike.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lvault_core::VolumeId;

use crate::engine::Filesystem;
use crate::error::{EngineError, Retry};
use crate::tools::{Finished, Tool, Tools};

/// CAP_SYS_RESOURCE: without it the kernel does not let ext4 grow while it is mounted.
const CAP_SYS_RESOURCE: u32 = 24;

/// What each filesystem writes at a fixed place of every device it lies on.
const MAGIC: [(Filesystem, usize, &[u8]); 3] = [
    (Filesystem::Xfs, 0, b"XFSB"),
    (Filesystem::Ext4, 0x438, &[0x53, 0xEF]),
    (Filesystem::Btrfs, 0x1_0040, b"_BHRfS_M"),
];

/// The filesystem that lies on a device, if it is one of ours. ext2 and ext3 count as ext4, which mounts them.
pub(crate) fn found_on(device: &Path) -> io::Result<Option<Filesystem>> {
    let mut head = Vec::new();
    File::open(device)?.take(128 << 10).read_to_end(&mut head)?;
    let lies = |(_, at, magic): &&(Filesystem, usize, &[u8])| head.get(*at..*at + magic.len()) == Some(*magic);
    Ok(MAGIC.iter().find(lies).map(|(filesystem, ..)| *filesystem))
}

/// Makes an empty filesystem of everything on `path`. Not idempotent: what was there is gone.
pub(crate) fn make(
    tools: &Tools,
    id: &VolumeId,
    filesystem: Filesystem,
    path: &Path,
    held: Option<&File>,
) -> Result<(), EngineError> {
    let attempted = format!("making {filesystem} on volume {id}");
    let (tool, args): (_, &[&str]) = match filesystem {
        // Everything is fixed here, for what mke2fs chooses by itself depends on the size and the distribution.
        Filesystem::Ext4 => (Tool::MkfsExt4, &["-q", "-F", "-b", "4096", "-I", "256", "-m", "0"]),
        Filesystem::Xfs => (Tool::MkfsXfs, &["-q", "-f", "-m", "reflink=1"]),
        Filesystem::Btrfs => (Tool::MkfsBtrfs, &["-q", "-f"]),
    };
    let mut args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    args.push(path.as_os_str());
    tools.run(tool, &args, held, &attempted)?.ok(&attempted, Retry::Later).map(drop)
}

/// `resize2fs` wants a checked filesystem, and the check also finishes what is in the journal.
pub(crate) fn check_ext4(tools: &Tools, id: &VolumeId, path: &Path, held: &File) -> Result<(), EngineError> {
    let attempted = format!("checking volume {id} before it grows");
    let args = [OsStr::new("-f"), OsStr::new("-p"), path.as_os_str()];
    let finished = tools.run(Tool::E2fsck, &args, Some(held), &attempted)?;
    match finished.code() {
        // 1: errors were found and corrected.
        Some(0 | 1) => Ok(()),
        Some(_) | None => {
            let said = Finished { stderr: finished.stdout.clone() + &finished.stderr, ..finished };
            Err(said.failed(&attempted, Retry::Never))
        }
    }
}

/// Grows ext4 to all of what it lies on: a device while mounted (`online`), otherwise a device or a file. Idempotent.
pub(crate) fn grow_ext4(
    tools: &Tools,
    id: &VolumeId,
    what: &Path,
    held: &File,
    online: bool,
) -> Result<(), EngineError> {
    let attempted = format!("growing ext4 on volume {id}");
    let finished = tools.run(Tool::Resize2fs, &[what.as_os_str()], Some(held), &attempted)?;
    let refused = finished.code() != Some(0) && finished.stderr.contains("Permission denied");
    if online && refused {
        may_grow_ext4_online(&attempted)?;
    }
    finished.ok(&attempted, Retry::Later).map(|_| ())
}

/// The error for a process that may not grow a mounted ext4.
pub(crate) fn may_grow_ext4_online(attempted: &str) -> Result<(), EngineError> {
    if has_capability(CAP_SYS_RESOURCE) {
        return Ok(());
    }
    Err(EngineError::MissingCapability { attempted: attempted.to_owned(), capability: "CAP_SYS_RESOURCE" })
}

/// Grows XFS to all of what it lies on. It has to be mounted. Idempotent.
pub(crate) fn grow_xfs(tools: &Tools, id: &VolumeId, point: &Path, held: &File) -> Result<(), EngineError> {
    let attempted = format!("growing XFS on volume {id}");
    let finished = tools.run(Tool::XfsGrowfs, &[point.as_os_str()], Some(held), &attempted)?;
    finished.ok(&attempted, Retry::Later).map(|_| ())
}

/// Grows btrfs to all of what it lies on. It has to be mounted. Idempotent.
pub(crate) fn grow_btrfs(tools: &Tools, id: &VolumeId, point: &Path, held: &File) -> Result<(), EngineError> {
    let attempted = format!("growing btrfs on volume {id}");
    let args = [OsStr::new("filesystem"), OsStr::new("resize"), OsStr::new("max"), point.as_os_str()];
    tools.run(Tool::Btrfs, &args, Some(held), &attempted)?.ok(&attempted, Retry::Later).map(|_| ())
}

/// Gives an unmounted copy of a btrfs an identity of its own, which is in its superblocks only: the kernel mounts no two
/// filesystems of the same identity. Idempotent in effect.
pub(crate) fn new_btrfs_identity(tools: &Tools, id: &VolumeId, path: &Path, held: &File) -> Result<(), EngineError> {
    let attempted = format!("giving the btrfs of volume {id} an identity of its own");
    let args = [OsStr::new("-f"), OsStr::new("-m"), path.as_os_str()];
    tools.run(Tool::Btrfstune, &args, Some(held), &attempted)?.ok(&attempted, Retry::Never).map(|_| ())
}

/// Whether this process has a capability in effect, by its number. When that cannot be read, it is taken to have it, so
/// that nobody is told of a cause that was not seen.
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_none_or(|set| set & (1 << number) != 0)
}
