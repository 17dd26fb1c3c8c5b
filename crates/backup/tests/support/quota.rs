//! A folder with a quota: a subvolume of a btrfs of its own, whose limits hold for root too.

use super::{command, is_root};
use std::path::{Path, PathBuf};

/// Unmounted when dropped.
pub struct Quota {
    mount: PathBuf,
}

impl Quota {
    /// Makes a btrfs in `folder`; `None`, loudly, where that is not possible.
    pub fn new(folder: &Path) -> Option<Self> {
        let (image, mount) = (folder.join("btrfs.img"), folder.join("btrfs"));
        let is_there = command("mkfs.btrfs").arg("--version").output().is_ok_and(|said| said.status.success());
        if !is_root() || !is_there {
            eprintln!("SKIPPED: a quota takes root and btrfs-progs");
            return None;
        }
        std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        run("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
        let mounted = command("mount").args(["-o", "loop"]).args([&image, &mount]).status().unwrap();
        if !mounted.success() {
            eprintln!("SKIPPED: this kernel mounts no btrfs");
            return None;
        }
        let quota = Self { mount };
        run("btrfs", &["quota", "enable", quota.mount.to_str().unwrap()]);
        run("btrfs", &["subvolume", "create", quota.folder().to_str().unwrap()]);
        Some(quota)
    }

    /// The folder.
    pub fn folder(&self) -> PathBuf {
        self.mount.join("limited")
    }

    /// From now on, so much may be in it: `16M`, `none`.
    pub fn limit(&self, limit: &str) {
        run("btrfs", &["qgroup", "limit", limit, self.folder().to_str().unwrap()]);
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // The loop device goes with it. A panic in a destructor would hide the test's own.
        let _ = command("umount").arg("-l").arg(&self.mount).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let said = command(program).args(arguments).output().unwrap();
    assert!(said.status.success(), "{program} {arguments:?}: {said:?}");
}
