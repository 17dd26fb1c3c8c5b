//! `lvault demo`: a volume is snapshotted while it is written to, thrown away, restored, and compared.
//!
//! It runs what `lvault up` runs, in a state folder of its own, and does everything through the API. What it has made it
//! takes down again, however it ends, unless it is told to keep it.

mod live;
mod manifest;
mod script;
mod tree;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lvault_core::Bytes;
use lvault_engines::VolumeEngine;
use tokio::time::Instant;

use crate::args::{DemoArgs, Knobs, Place, UpArgs};
use crate::command::storage::generated;
use crate::error::CliError;
use crate::follow::{Goal, follow};
use crate::names::duration;
use crate::say;
use crate::server::{Server, with_causes};
use crate::state::StateDir;
use crate::up::{self, Running, ended_by_signal};
use script::{Findings, Script, demo_error};

/// The file in the state folder with the repository's password.
const PASSWORD_FILE: &str = "repository-password";
/// How long a volume may take to go when everything is taken down.
const FAREWELL: Duration = Duration::from_secs(60);

/// Runs the demo. Succeeds only when the restored volume is what the source held.
pub async fn run(place: &Place, args: DemoArgs) -> Result<(), CliError> {
    let started = Instant::now();
    let interrupted = ended_by_signal()?;
    let size = volume_size(args.data.as_deref())?;
    let folder = Folder::take(place.state_dir.as_deref())?;
    let state = StateDir::find(Some(&folder.path))?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = match start(&state, &args).await {
        Ok(running) => running,
        Err(error) => {
            folder.remove()?;
            return Err(error);
        }
    };
    say::result(&format!("== lvault demo in {}\n   {}", state.root().display(), running.why_engine()));
    let outcome = {
        let performed = perform(&state, &running, &args, size, &stop);
        tokio::select! {
            outcome = performed => outcome,
            name = interrupted => Err(CliError::Demo {
                tried: "running the demo",
                happened: format!("it was ended by {name}"),
                remedy: "run it again to see it to its end".to_owned(),
            }),
        }
    };
    stop.store(true, Ordering::Release);
    let verdict = outcome.and_then(|findings| verdict(&findings, started));
    if args.keep {
        running.stop().await;
        say::result(&how_to_look(&state));
        return verdict;
    }
    let torn_down = tear_down(&mut running).await;
    let engine = running.engine();
    running.stop().await;
    let swept = sweep(engine).await;
    let removed = torn_down.and(swept).and_then(|()| folder.remove());
    match (verdict, removed) {
        (Err(error), Err(left)) => {
            say::error(&left);
            Err(error)
        }
        (verdict, removed) => verdict.and(removed),
    }
}

async fn start(state: &StateDir, args: &DemoArgs) -> Result<Running, CliError> {
    let time = |text| duration(text).unwrap_or(Duration::from_secs(10));
    let knobs = Knobs {
        lease_duration: time("30s"),
        progress_interval: time("1s"),
        resync: time("10m"),
        start_deadline: time("2m"),
    };
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    // Sparse: it takes what is written into it.
    let pool_size = args.data.is_none().then(|| "6Gi".to_owned());
    up::start(
        state,
        &UpArgs { engine: args.engine, node: None, listen, pool_size, lvmd_config: args.lvmd_config.clone(), knobs },
    )
    .await
}

async fn perform(
    state: &StateDir,
    running: &Running,
    args: &DemoArgs,
    size: Bytes,
    stop: &Arc<AtomicBool>,
) -> Result<Findings, CliError> {
    let password = generated();
    state.write(PASSWORD_FILE, &format!("{}\n", password.as_str()))?;
    let repository = state.root().join("repository");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&repository)
        .map_err(|error| demo_error("making a folder for repositories", &error.to_string()))?;
    let script = Script {
        server: running.server(),
        repository,
        password,
        data: args.data.clone(),
        size,
        one_instant: running.engine().capabilities().atomic_snapshots,
        stop: Arc::clone(stop),
    };
    script.run().await
}

fn verdict(findings: &Findings, started: Instant) -> Result<(), CliError> {
    say::result(&format!("\n{}", findings.render()));
    if !findings.are_good() {
        return Err(demo_error("comparing", "what came back is not what the volume held: see WRONG above"));
    }
    say::result(&format!(
        "\nnothing is missing: all that the volume held came back ({} s)",
        started.elapsed().as_secs()
    ));
    Ok(())
}

/// How large the volume has to be: for a copy of a folder, twice what that holds.
fn volume_size(data: Option<&Path>) -> Result<Bytes, CliError> {
    const LEAST: u64 = 1 << 30;
    let Some(data) = data else {
        return Ok(Bytes(LEAST));
    };
    let unreadable = |happened: String| CliError::input("--data", happened, "name a folder that this user can read");
    if !data.is_dir() {
        return Err(unreadable(format!("{} is no folder", data.display())));
    }
    let held = manifest::Manifest::read(data, None, &AtomicBool::new(false))
        .map_err(|error| unreadable(format!("it cannot be read: {error}")))?;
    let wanted = held.bytes().saturating_mul(2).max(LEAST);
    Ok(Bytes(wanted.next_multiple_of(1 << 20)))
}

/// The demo's own state folder.
struct Folder {
    path: PathBuf,
    /// Whether the demo made it; otherwise only what is in it is the demo's.
    made: bool,
}

impl Folder {
    /// Makes a new folder, or takes an empty one. One that holds anything is left alone.
    fn take(asked: Option<&Path>) -> Result<Self, CliError> {
        let path = match asked {
            Some(path) => path.to_path_buf(),
            // Not the temporary folder: that may be in memory.
            None => Path::new("/var/tmp").join(format!("lvault-demo-{}", uuid::Uuid::new_v4().simple())),
        };
        match fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(Folder { path, made: false }),
            Ok(false) => Err(CliError::input(
                "--state-dir",
                format!("{} is not empty, and the demo takes down everything in its folder", path.display()),
                "name a new or an empty folder",
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Folder { path, made: true }),
            Err(error) => Err(CliError::input("--state-dir", error.to_string(), "name a new or an empty folder")),
        }
    }

    fn remove(&self) -> Result<(), CliError> {
        let failed = |error: std::io::Error| {
            CliError::file("removing the demo's folder", &self.path, error, "remove it by hand")
        };
        if self.made {
            return match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let removed = if kind.is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.map_err(failed)?;
        }
        Ok(())
    }
}

/// Deletes all volumes through the API, as a user would, so that executors end and mounts go in their order.
async fn tear_down(running: &mut Running) -> Result<(), CliError> {
    let server = running.server();
    tokio::select! {
        done = delete_all(&server) => done,
        broken = running.broken() => Err(broken),
    }
}

async fn delete_all(server: &Server) -> Result<(), CliError> {
    let volumes = server.volumes().await?;
    for volume in &volumes {
        server.remove(&server.volume_api(), volume, "taking the demo down").await?;
    }
    for volume in &volumes {
        follow(server, volume, Goal::Gone, Some(FAREWELL)).await?;
    }
    Ok(())
}

/// Gives back what the engine still holds: its own pool, and volumes that the way above could not remove.
async fn sweep(engine: Arc<dyn VolumeEngine>) -> Result<(), CliError> {
    let swept = tokio::task::spawn_blocking(move || {
        for volume in engine.list()? {
            engine.ensure_detached(&volume.id)?;
            engine.ensure_absent(&volume.id)?;
        }
        engine.ensure_closed()
    });
    let failed = |happened: String| CliError::Demo {
        tried: "taking the demo down",
        happened,
        remedy: "end what uses it; unmount what `findmnt` shows below the demo's folder, and remove the folder"
            .to_owned(),
    };
    match swept.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(with_causes(&error))),
        Err(ended) => Err(failed(ended.to_string())),
    }
}

fn how_to_look(state: &StateDir) -> String {
    let (dir, kubeconfig) = (state.root().display(), state.kubeconfig());
    let kubeconfig = kubeconfig.display();
    format!(
        "\nEverything is kept in {dir}.\n\
         with kubectl (start the server again first, and leave it running):\n  \
           lvault up --state-dir {dir}\n  \
           kubectl --kubeconfig {kubeconfig} get logicalvolumes\n  \
           kubectl --kubeconfig {kubeconfig} get snapshotbackupstorages\n\
         with restic (the password is also in the Secret default/backup):\n  \
           restic -r {dir}/repository/default/data --password-file {dir}/{PASSWORD_FILE} snapshots\n  \
           restic -r {dir}/repository/default/data --password-file {dir}/{PASSWORD_FILE} check --read-data\n\
         to remove it: `lvault up --state-dir {dir}`, delete the volumes with `lvault volume delete` and the snapshots\n\
         with `lvault snapshot delete`, end it, unmount what `findmnt` shows below the folder, remove the folder."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_anything_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("mine"), "").expect("written");
        let refused = Folder::take(Some(folder.path())).err().expect("refused");
        assert!(refused.to_string().starts_with("--state-dir: "), "{refused}");
        assert!(folder.path().join("mine").exists());
    }

    #[test]
    fn what_the_demo_did_not_make_it_leaves_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = Folder::take(Some(folder.path())).expect("taken");
        fs::create_dir(folder.path().join("sub")).expect("made");
        fs::write(folder.path().join("sub/file"), "").expect("written");
        taken.remove().expect("removed");
        assert_eq!(fs::read_dir(folder.path()).expect("still there").count(), 0);

        let made = Folder::take(Some(&folder.path().join("new"))).expect("taken");
        fs::create_dir(folder.path().join("new")).expect("made");
        made.remove().expect("removed");
        made.remove().expect("gone is removed");
        assert!(!folder.path().join("new").exists());
    }

    #[test]
    fn only_folders_are_data() {
        assert_eq!(volume_size(None).expect("a size"), Bytes(1 << 30));
        assert!(volume_size(Some(Path::new("/dev/null"))).is_err());
        assert!(volume_size(Some(Path::new("/does/not/exist"))).is_err());
    }
}
