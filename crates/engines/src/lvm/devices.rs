//! What the kernel says is active and mounted: the only source of truth about it.
//!
//! What holds: device-mapper keeps LVM's identity of a volume with its device, so neither the name of a device nor the
//! path of a mount point proves anything. No process of LVM is needed to know what is active.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::report::{Group, Lv};
use crate::error::EngineError;
use crate::image::kernel::{Device, Mount, mounts, parse_device};

const SYS_BLOCK: &str = "/sys/block";

/// Active logical volumes and mounts at one moment.
#[derive(Debug)]
pub(super) struct Devices {
    by_identity: HashMap<String, Active>,
    mounts: Vec<Mount>,
}

/// An active logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) number: Device,
    /// Its folder below /sys/block.
    sys: PathBuf,
}

impl Devices {
    /// What is so now: some reads, no process.
    pub(super) fn now() -> Result<Devices, EngineError> {
        let by_identity = active().map_err(EngineError::io("listing", SYS_BLOCK))?;
        let mut mounts = mounts()?;
        for mount in &mut mounts {
            // A btrfs is mounted under a number of its own making; the device it is on is what was mounted.
            if mount.filesystem == "btrfs"
                && let Ok(meta) = fs::metadata(&mount.source)
            {
                mount.device = (major(meta.rdev()), minor(meta.rdev()));
            }
        }
        Ok(Devices { by_identity, mounts })
    }

    /// The device of a volume, if it is active.
    pub(super) fn of(&self, group: &Group, volume: &Lv) -> Option<&Active> {
        self.by_identity.get(&identity(group, volume))
    }

    /// Whether this node is a device of this volume group, but of no volume that LVM knows.
    pub(super) fn is_leftover(&self, group: &Group, node: &Path) -> bool {
        let of_group = format!("LVM-{}", group.uuid.replace('-', ""));
        let known = |found: &str| group.volumes.values().any(|volume| identity(group, volume) == found);
        let here = |active: &Active| active.path().is_ok_and(|path| path == node);
        let mut ours = self.by_identity.iter().filter(|(found, _)| found.starts_with(&of_group) && !known(found));
        ours.any(|(_, active)| here(active))
    }

    /// Where a device is mounted, in the order of mounting.
    pub(super) fn mounts_of(&self, device: &Active) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().filter(move |mount| mount.device == device.number)
    }

    /// What is mounted at this point, topmost.
    pub(super) fn at(&self, point: &Path) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// The mounts below a folder, topmost first.
    pub(super) fn below(&self, folder: &Path) -> impl Iterator<Item = &Mount> {
        self.mounts.iter().rev().filter(move |mount| mount.point.starts_with(folder))
    }
}

impl Active {
    /// The device's node.
    pub(super) fn path(&self) -> Result<PathBuf, EngineError> {
        let file = self.sys.join("dm/name");
        let name = fs::read_to_string(&file).map_err(EngineError::io("reading", file))?;
        Ok(Path::new("/dev/mapper").join(name.trim()))
    }

    /// Whether reads and writes wait for somebody to resume it.
    pub(super) fn is_suspended(&self) -> bool {
        fs::read_to_string(self.sys.join("dm/suspended")).is_ok_and(|text| text.trim() == "1")
    }
}

/// The node that a volume gets when it is made active.
pub(super) fn node(group: &str, volume: &str) -> PathBuf {
    let escaped = |name: &str| name.replace('-', "--");
    Path::new("/dev/mapper").join(format!("{}-{}", escaped(group), escaped(volume)))
}

/// The size of a device, in bytes.
pub(super) fn size_of(device: &Path) -> Result<u64, EngineError> {
    let size = File::open(device).and_then(|mut file| file.seek(SeekFrom::End(0)));
    size.map_err(EngineError::io("asking for the size of", device))
}

fn identity(group: &Group, volume: &Lv) -> String {
    format!("LVM-{}{}", group.uuid.replace('-', ""), volume.uuid.replace('-', ""))
}

fn active() -> io::Result<HashMap<String, Active>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(SYS_BLOCK)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"dm-") {
            continue;
        }
        let sys = entry.path();
        // One that goes away meanwhile is not active.
        let (Ok(uuid), Ok(number)) = (fs::read_to_string(sys.join("dm/uuid")), fs::read_to_string(sys.join("dev")))
        else {
            continue;
        };
        if let Some(number) = parse_device(&number) {
            found.insert(uuid.trim().to_owned(), Active { number, sys });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_as_device_mapper_does() {
        assert_eq!(node("vg-1", "a-b"), Path::new("/dev/mapper/vg--1-a--b"));
        assert_eq!(node("vg", "a"), Path::new("/dev/mapper/vg-a"));
    }
}
