//! A repository as plain restic sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::data::Tree;
use crate::process::{command, succeed};

/// Where a repository is.
#[derive(Debug)]
pub(crate) enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A bucket, as restic calls it, with the keys as environment.
    Bucket(String, Vec<(&'static str, String)>),
}

/// A repository of one volume.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) place: Place,
    pub(crate) password_file: PathBuf,
    pub(crate) scratch: PathBuf,
}

/// One of its snapshots.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Snapshot {
    id: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Snapshots(Vec<Snapshot>);

impl Snapshots {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one snapshot of an attempt.
    pub(crate) fn only(&self, uid: &str, attempt: u32) -> String {
        let of_key = self.of(uid, attempt);
        assert_eq!(of_key.len(), 1, "snapshots of {uid}, attempt {attempt}: {self:?}");
        of_key.into_iter().next().unwrap()
    }

    /// The snapshots of an attempt.
    pub(crate) fn of(&self, uid: &str, attempt: u32) -> Vec<String> {
        let wanted = [format!("lvault-uid={uid}"), format!("lvault-attempt={attempt}")];
        let of_key = self.0.iter().filter(|one| wanted.iter().all(|tag| one.tags.contains(tag)));
        of_key.map(|one| one.id.clone()).collect()
    }
}

/// Without those that are, or were, being written.
fn whole_files(folder: &Path) -> usize {
    let files = crate::process::list(folder);
    files.iter().filter(|file| file.file_name().is_some_and(|name| name.len() == 64)).count()
}

impl Repository {
    fn restic(&self, args: &[&str]) -> Command {
        let mut restic = command("restic");
        match &self.place {
            Place::Folder(path) => restic.arg("-r").arg(path),
            Place::Bucket(address, keys) => {
                restic.args(["-r", address]).envs(keys.iter().map(|(name, key)| (name, key)))
            }
        };
        restic.arg("--no-cache").arg("--password-file").arg(&self.password_file).args(args);
        restic
    }

    /// Where it is, if it is in a folder.
    pub(crate) fn folder(&self) -> &Path {
        match &self.place {
            Place::Folder(path) => path,
            Place::Bucket(address, _) => panic!("{address} is no folder"),
        }
    }

    /// Whether there is one.
    pub(crate) fn exists(&self) -> bool {
        match &self.place {
            Place::Folder(path) => path.join("config").exists(),
            Place::Bucket(..) => self.restic(&["cat", "config"]).output().is_ok_and(|said| said.status.success()),
        }
    }

    /// All snapshots; none where there is no repository yet.
    pub(crate) fn snapshots(&self) -> Snapshots {
        if !self.exists() {
            return Snapshots(Vec::new());
        }
        let output = succeed(&mut self.restic(&["snapshots", "--json"]));
        Snapshots(serde_json::from_slice(&output.stdout).expect("what restic prints"))
    }

    /// How many snapshots there are; in a folder without asking restic. A file that is being written has another name.
    pub(crate) fn commits(&self) -> usize {
        let Place::Folder(path) = &self.place else { return self.snapshots().len() };
        whole_files(&path.join("snapshots"))
    }

    /// How many locks there are in a folder.
    pub(crate) fn locks(&self) -> usize {
        whole_files(&self.folder().join("locks"))
    }

    /// The one snapshot of an attempt.
    pub(crate) fn only(&self, uid: &str, attempt: u32) -> String {
        self.snapshots().only(uid, attempt)
    }

    /// The snapshots of an attempt.
    pub(crate) fn of(&self, uid: &str, attempt: u32) -> Vec<String> {
        self.snapshots().of(uid, attempt)
    }

    /// Has restic read everything. An executor that was killed has left its lock, which restic would stop at.
    pub(crate) fn check(&self) {
        succeed(&mut self.restic(&["check", "--read-data"]));
    }

    /// What restic restores of a volume.
    pub(crate) fn restored(&self, snapshot: &str, volume: &str) -> Tree {
        let target = tempfile::Builder::new().prefix("restored-").tempdir_in(self.scratch()).unwrap();
        let into = target.path().display().to_string();
        succeed(&mut self.restic(&["restore", snapshot, "--target", &into]));
        Tree::of(&target.path().join(volume))
    }

    fn scratch(&self) -> &Path {
        std::fs::create_dir_all(&self.scratch).unwrap();
        &self.scratch
    }
}
