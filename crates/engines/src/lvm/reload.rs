//! The configuration in use: read again when its file has changed, kept as it was when the new one is refused.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::config::Config;
use super::error::LvmError;

/// What tells one state of a file from another without reading it: inode, length, time of change.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A configuration that follows its file.
#[derive(Debug)]
pub(crate) struct Live {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<Config>,
    stamp: Stamp,
    /// Why the file as it is now is not the one in use.
    refused: Option<String>,
}

impl Live {
    /// Reads the file; one that is refused is an error, for there is no older one.
    pub(crate) fn open(path: &Path) -> Result<Live, LvmError> {
        let stamp = stamp(path);
        let config = Arc::new(Config::read(path)?);
        Ok(Live { path: path.to_owned(), state: Mutex::new(State { config, stamp, refused: None }) })
    }

    /// The configuration as of now. It costs a look at the file; a new file that is refused is logged once.
    pub(crate) fn now(&self) -> Arc<Config> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = stamp(&self.path);
        if seen != state.stamp {
            state.stamp = seen;
            match Config::read(&self.path) {
                Ok(config) => {
                    tracing::info!(path = %self.path.display(), "the device classes were read again");
                    state.config = Arc::new(config);
                    state.refused = None;
                }
                Err(error) => {
                    tracing::warn!(%error, "the new device classes are refused; those from before stay in use");
                    state.refused = Some(error.to_string());
                }
            }
        }
        Arc::clone(&state.config)
    }

    /// Why the file as it is now is not in use, if it is not.
    pub(crate) fn refused(&self) -> Option<String> {
        self.now();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refused.clone()
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_taken_and_a_bad_one_leaves_the_old_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lvmd.yaml");
        let file = |name: &str| format!("device-classes:\n- name: {name}\n  volume-group: vg\n");
        std::fs::write(&path, "device-classes: 1").unwrap();
        assert!(Live::open(&path).is_err());
        std::fs::write(&path, file("one")).unwrap();
        let live = Live::open(&path).unwrap();
        assert_eq!(live.now().classes[0].name, "one");
        std::fs::write(&path, file("another")).unwrap();
        assert_eq!(live.now().classes[0].name, "another");
        std::fs::write(&path, "device-classes: no list").unwrap();
        assert_eq!(live.now().classes[0].name, "another");
        assert!(live.refused().unwrap().contains("device-classes"), "{:?}", live.refused());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(live.now().classes[0].name, "another");
        assert!(live.refused().unwrap().contains("cannot read"), "{:?}", live.refused());
        // As Kubernetes does it: another file under the same name.
        std::fs::write(folder.path().join("new"), file("third")).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!((live.now().classes[0].name.as_str(), live.refused()), ("third", None));
    }
}
