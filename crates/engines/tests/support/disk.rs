//! A disk that can be made to fail: a table of device-mapper over a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a disk does while it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// Reads and writes get errors.
    Everything,
    /// Writes get errors, reads are answered.
    Writes,
    /// Writes are said to have been done, and are not. Reads are answered.
    Lies,
}

impl Down {
    /// As dm-flakey calls it.
    fn features(self) -> &'static str {
        match self {
            Down::Everything => "",
            Down::Writes => " 1 error_writes",
            Down::Lies => " 1 drop_writes",
        }
    }
}

/// The disk; dropping it removes it.
pub(crate) struct BadDisk {
    name: String,
    beneath: PathBuf,
    sectors: u64,
}

impl BadDisk {
    const SIZE: u64 = 1 << 30;
    /// LVM must not find its label on the disk beneath, too.
    const OFFSET: u64 = 4096;

    /// Makes one that works, of 1 GiB.
    pub(crate) fn new(folder: &Path) -> BadDisk {
        let file = folder.join("bad-disk");
        fs::File::create(&file).unwrap().set_len(BadDisk::SIZE).unwrap();
        let said = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
        let beneath = PathBuf::from(String::from_utf8(said.stdout).unwrap().trim());
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("lvault-bad-disk{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let disk = BadDisk { name, beneath, sectors: BadDisk::SIZE / 512 - BadDisk::OFFSET };
        dmsetup(&["create", &disk.name, "--table", &disk.good(disk.sectors)]);
        disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.name)
    }

    /// From this sector on, everything gets an error (dm-error).
    pub(crate) fn fails_from(&self, sector: u64) {
        self.from(sector, "error");
    }

    /// From this sector on, the disk works for `up` seconds, is down for `down`, and so on (dm-flakey).
    pub(crate) fn comes_and_goes_from(&self, sector: u64, up: u32, down: u32, how: Down) {
        let at = BadDisk::OFFSET + sector;
        self.from(sector, &format!("flakey {} {at} {up} {down}{}", self.beneath.display(), how.features()));
    }

    pub(crate) fn works(&self) {
        self.become_table(&self.good(self.sectors));
    }

    fn good(&self, sectors: u64) -> String {
        format!("0 {sectors} linear {} {}", self.beneath.display(), BadDisk::OFFSET)
    }

    fn from(&self, sector: u64, target: &str) {
        let rest = format!("{sector} {} {target}", self.sectors - sector);
        self.become_table(&if sector == 0 { rest } else { format!("{}\n{rest}", self.good(sector)) });
    }

    fn become_table(&self, table: &str) {
        let path = tempfile::NamedTempFile::new().unwrap();
        fs::write(path.path(), format!("{table}\n")).unwrap();
        dmsetup(&["suspend", "--noflush", "--nolockfs", &self.name]);
        dmsetup(&["load", &self.name, path.path().to_str().unwrap()]);
        dmsetup(&["resume", &self.name]);
    }
}

impl Drop for BadDisk {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup").args(["remove", "--force", &self.name]).output();
        let _ = Command::new("losetup").arg("-d").arg(&self.beneath).output();
    }
}

fn dmsetup(args: &[&str]) {
    let said = Command::new("dmsetup").args(args).output().unwrap();
    assert!(said.status.success(), "{args:?}: {}", String::from_utf8_lossy(&said.stderr));
}
