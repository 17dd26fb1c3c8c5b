//! Backs a folder up or restores one, as a process of its own: what `make bench` measures beside restic.
//!
//! A backup does what an executor does: open or make the repository, copy, commit, read the commit's structure back. The
//! password is `RESTIC_PASSWORD` in the environment. A storage is a folder that exists; the repository is `bench` in it.

use std::env;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use lvault_backup::{
    BackUp, ChangeDetection, Host, Key, KeyCache, Location, OnReadError, Password, Repository, RepositoryPath, Silent,
    SourcePath, VerifyDepth,
};

const USAGE: &str = "usage: repository back-up FOLDER STORAGE UID
       repository restore STORAGE UID TARGET

FOLDER, STORAGE and TARGET are absolute paths of folders that exist; UID labels the snapshot. RESTIC_PASSWORD is the
password.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["back-up", folder, storage, uid] => back_up(Path::new(folder), Path::new(storage), uid),
        ["restore", storage, uid, target] => restore(Path::new(storage), uid, Path::new(target)),
        _ => Err(USAGE.into()),
    };
    let (said, code) = match done {
        Ok(said) => (said, ExitCode::SUCCESS),
        Err(error) => (format!("error: {error}"), ExitCode::FAILURE),
    };
    // Nobody is left to tell when even this fails.
    let _ = writeln!(std::io::stderr(), "{said}");
    code
}

fn place(storage: &Path) -> Result<(Location, RepositoryPath, Password), Box<dyn Error>> {
    let password = env::var("RESTIC_PASSWORD").map_err(|_| "set RESTIC_PASSWORD to the repository's password")?;
    let location = Location::Local { root: PathBuf::from(storage) };
    Ok((location, RepositoryPath::parse("bench")?, Password::new(password)?))
}

/// Keys are kept beside the storage, as executors keep them in the state folder.
fn cache(storage: &Path) -> KeyCache {
    KeyCache::new(storage.with_extension("keys"))
}

fn back_up(folder: &Path, storage: &Path, uid: &str) -> Result<String, Box<dyn Error>> {
    let (location, path, password) = place(storage)?;
    let repository = Repository::open_or_init_cached(&location, &path, &password, Some(&cache(storage)))?;
    let what = BackUp {
        root: folder.to_owned(),
        as_path: SourcePath::new("/bench")?,
        host: Host::new("bench")?,
        key: Key::new(uid, 1)?,
        tags: Vec::new(),
        time: Timestamp::now(),
        change_detection: ChangeDetection::ChangeTime,
        on_read_error: OnReadError::Fail,
    };
    let report = repository.back_up(&what, Arc::new(Silent))?;
    repository.verify(&report.snapshot, VerifyDepth::Structure, &Silent)?;
    Ok(format!(
        "snapshot {}: {} files, {} of them changed, {} bytes read, {} stored",
        report.snapshot, report.files, report.changed_files, report.read_bytes, report.added_bytes
    ))
}

fn restore(storage: &Path, uid: &str, target: &Path) -> Result<String, Box<dyn Error>> {
    let (location, path, password) = place(storage)?;
    let repository = Repository::open_cached(&location, &path, &password, Some(&cache(storage)))?;
    let found = repository.find(&Key::new(uid, 1)?)?.ok_or_else(|| format!("there is no snapshot of {uid}"))?;
    let report = repository.restore(&found.id, target, &Silent)?;
    Ok(format!("snapshot {}: {} files, {} bytes, read back", found.id, report.size.files, report.size.bytes))
}
