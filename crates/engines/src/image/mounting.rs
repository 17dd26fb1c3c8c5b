//! Mounting an image and unmounting it.
//!
//! The loop device is made by the same call that mounts it, and marked to be released with its last user: so no loop
//! device is left behind when mounting fails, when somebody unmounts it by hand, or when this process dies.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::kernel::{FileId, Kernel, holders};
use crate::engine::{Access, Filesystem};
use crate::error::{EngineError, Retry};
use crate::tools::{Finished, Tool, Tools};

/// How long to wait for those who only look: the kernel, udev and others open devices and files for moments.
const PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(20);

/// What to mount a volume with. A snapshot was cut while frozen: nothing in it needs recovery, and nothing may write
/// to it. XFS refuses a second filesystem with the same identity, which every clone has.
pub(crate) fn options(filesystem: Filesystem, access: Access, clone: bool) -> &'static str {
    match (filesystem, access, clone) {
        (Filesystem::Ext4, Access::ReadOnly, _) => "loop,ro,noload,nodev,nosuid,noexec",
        (Filesystem::Xfs, Access::ReadOnly, _) => "loop,ro,norecovery,nouuid,nodev,nosuid,noexec",
        (Filesystem::Ext4, Access::ReadWrite, _) | (Filesystem::Xfs, Access::ReadWrite, false) => "loop,rw",
        (Filesystem::Xfs, Access::ReadWrite, true) => "loop,rw,nouuid",
        (Filesystem::Btrfs, Access::ReadOnly, _) => "loop,ro,nodev,nosuid,noexec",
        (Filesystem::Btrfs, Access::ReadWrite, _) => "loop,rw",
    }
}

/// Why an image was not mounted.
#[derive(Debug)]
pub(crate) enum NotMounted {
    /// The program could not be run, or did not end in time.
    Tool(EngineError),
    /// It said no.
    Refused(Finished),
}

/// Mounts an image by a loop device of its own.
pub(crate) fn mount(
    tools: &Tools,
    image: &Path,
    point: &Path,
    filesystem: Filesystem,
    options: &str,
    held: Option<&File>,
) -> Result<(), NotMounted> {
    // Without -n it would keep a note in /run, which may be read-only in a container.
    let args = ["-n", "-t", filesystem.name(), "-o", options].map(OsStr::new);
    let args = [args.as_slice(), &[image.as_os_str(), point.as_os_str()]].concat();
    let attempted = format!("mounting {}", image.display());
    let finished = tools.run(Tool::Mount, &args, held, &attempted).map_err(NotMounted::Tool)?;
    if finished.code() == Some(0) { Ok(()) } else { Err(NotMounted::Refused(finished)) }
}

/// Makes an error of it. What lies on the disk does not get better by trying again; a lack of devices may.
pub(crate) fn mount_error(what: &str) -> impl FnOnce(NotMounted) -> EngineError {
    let attempted = format!("mounting {what}");
    move |error| match error {
        NotMounted::Tool(error) => error,
        NotMounted::Refused(finished) => {
            const PASSING: [&str; 3] = ["failed to setup loop device", "already mounted or mount point busy", "busy"];
            let passing = PASSING.iter().any(|text| finished.stderr.contains(text));
            finished.failed(&attempted, if passing { Retry::Later } else { Retry::Never })
        }
    }
}

/// Unmounts what is topmost at a path. Who is in the way is named when it stays busy.
pub(crate) fn unmount(point: &Path, what: &str) -> Result<(), EngineError> {
    let started = Instant::now();
    loop {
        match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(Errno::BUSY) if started.elapsed() < PATIENCE => std::thread::sleep(STEP),
            Err(Errno::BUSY) => {
                return Err(EngineError::Busy { what: what.to_owned(), holders: holders(point) });
            }
            Err(error) => return Err(EngineError::io("unmounting", point)(error)),
        }
    }
}

/// Waits until no loop device that nobody has mounted is left of a file, and releases those that do not go by
/// themselves.
pub(crate) fn wait_for_release(kernel: &Kernel, image: FileId) -> Result<(), EngineError> {
    let started = Instant::now();
    loop {
        let view = kernel.view()?;
        let Some(device) = view.loops_of(image).find(|device| !view.is_mounted(device)) else { return Ok(()) };
        if started.elapsed() >= PATIENCE {
            let what = format!("the loop device {}", device.path.display());
            return Err(EngineError::Busy { what, holders: holders(&device.path) });
        }
        if !device.autoclear {
            release(&kernel.tools, &device.path)?;
        }
        std::thread::sleep(STEP);
    }
}

/// Releases a loop device: at once, or, while somebody has it open, as soon as they close it.
pub(crate) fn release(tools: &Tools, device: &Path) -> Result<(), EngineError> {
    let attempted = format!("releasing {}", device.display());
    let args = [OsStr::new("--detach"), device.as_os_str()];
    tools.run(Tool::Losetup, &args, None, &attempted)?.ok(&attempted, Retry::Later).map(|_| ())
}
