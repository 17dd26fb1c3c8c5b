//! The state folder: where it is, and what stands where in it.
//!
//! It belongs to one user and nobody else may look inside (0700): it holds the API server's file, keys, and volumes.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// The environment variable that names the state folder.
pub const STATE_DIR: &str = "LVAULT_STATE_DIR";
/// The environment variable that names the kubeconfig.
pub const KUBECONFIG: &str = "LVAULT_KUBECONFIG";

/// The state folder of one lvault.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The folder that a flag, the environment or the user's defaults name; it need not exist.
    pub fn find(flag: Option<&Path>) -> Result<Self, CliError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = flag.map(Path::to_path_buf).or_else(|| variable(STATE_DIR));
        let root = match named {
            Some(folder) => folder,
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/lvault"),
            None => variable("XDG_STATE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
                .map(|folder| folder.join("lvault"))
                .ok_or_else(|| {
                    CliError::input("--state-dir", "no home folder is known to put the state in", "name a folder")
                })?,
        };
        let root = std::path::absolute(&root)
            .map_err(|error| CliError::input("--state-dir", error.to_string(), "name a folder"))?;
        Ok(StateDir { root })
    }

    /// Makes the folder where it is missing, and closes it to everybody else. Idempotent.
    pub fn ensure(&self) -> Result<(), CliError> {
        let failed = |error| {
            let remedy = "name another folder with --state-dir, or make this one writable";
            CliError::file("making the state folder", &self.root, error, remedy)
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)).map_err(failed)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of the embedded API server.
    pub fn store(&self) -> PathBuf {
        self.root.join("state.redb")
    }

    /// The folder of the TLS port's certificates and token.
    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// How to reach the API: for kubectl, executors, and the commands of lvault.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The TLS port of the last start.
    pub fn port(&self) -> Option<u16> {
        fs::read_to_string(self.root.join("port")).ok()?.trim().parse().ok()
    }

    /// Keeps the TLS port for the next start.
    pub fn keep_port(&self, port: u16) -> Result<(), CliError> {
        self.write("port", &format!("{port}\n"))
    }

    /// The name of the node whose volumes are kept here, once an agent has started.
    pub fn node(&self) -> Option<String> {
        let name = fs::read_to_string(self.root.join("node")).ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Keeps the node's name: the host may get another one, its volumes do not move.
    pub fn keep_node(&self, node: &str) -> Result<(), CliError> {
        self.write("node", &format!("{node}\n"))
    }

    /// Writes a file that only its owner may read. It appears whole or not at all; a crash leaves the old one.
    pub fn write(&self, name: &str, text: &str) -> Result<(), CliError> {
        let path = self.root.join(name);
        let draft = self.root.join(format!(".{name}.new"));
        let written = fs::remove_file(&draft)
            .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft))
            .and_then(|mut file| {
                std::io::Write::write_all(&mut file, text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&draft, &path));
        written.map_err(|error| CliError::file("writing", &path, error, "make room or make the folder writable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_closed_to_others_and_replaced_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::find(Some(&folder.path().join("deep/state"))).expect("a state folder");
        state.ensure().expect("made");
        state.ensure().expect("made again");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(state.root()), 0o700);

        assert_eq!(state.port(), None);
        state.keep_port(4321).expect("kept");
        state.keep_port(1234).expect("kept");
        assert_eq!(state.port(), Some(1234));
        assert_eq!(mode(&state.root().join("port")), 0o600);
        assert_eq!(state.node(), None);
        state.keep_node("n1").expect("kept");
        assert_eq!(state.node().as_deref(), Some("n1"));
        assert_eq!(fs::read_dir(state.root()).expect("listed").count(), 2, "no draft is left");
    }
}
