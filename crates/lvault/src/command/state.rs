//! `lvault state`: the objects of a stopped lvault as a document, and a new state made of one.
//!
//! What holds here: a file that is there is never written over, and what was begun and failed is taken away again. The
//! document is for its owner only, for it may hold Secrets.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lvault_apiserver::FileError;
use lvault_apiserver::archive::{self, ArchiveError, Exported};

use crate::args::{Place, StateCommand};
use crate::error::CliError;
use crate::say;
use crate::server::with_causes;
use crate::state::StateDir;

/// Runs the command.
pub fn run(place: &Place, command: &StateCommand) -> Result<(), CliError> {
    let state = StateDir::find(place.state_dir.as_deref())?;
    match command {
        StateCommand::Export { file, include_secrets } => export(&state, file, *include_secrets),
        StateCommand::Import { file } => import(&state, file),
    }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn export(state: &StateDir, file: &Path, secrets: bool) -> Result<(), CliError> {
    let crds = lvault_api::crds::all();
    let refused = |error| refused("exporting the state", &state.store(), error);
    let exported = if is_standard(file) {
        archive::export(&state.store(), &crds, secrets, &mut BufWriter::new(io::stdout().lock())).map_err(refused)?
    } else {
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        let opened = opened.map_err(|error| {
            CliError::file("creating", file, error, "name a file that does not exist, in a folder that does")
        })?;
        let done = into_file(&opened, |to| archive::export(&state.store(), &crds, secrets, to));
        done.map_err(|error| {
            // It was made by this very command; what cannot be taken away again is named by the error that follows.
            let _ = fs::remove_file(file);
            refused(error)
        })?
    };
    tell(&exported);
    Ok(())
}

/// Writes a file to its end, onto the disk.
fn into_file(
    file: &File,
    write: impl FnOnce(&mut dyn Write) -> Result<Exported, ArchiveError>,
) -> Result<Exported, ArchiveError> {
    let mut buffered = BufWriter::new(file);
    let exported = write(&mut buffered)?;
    buffered.flush().and_then(|()| file.sync_all()).map_err(ArchiveError::Write)?;
    Ok(exported)
}

fn tell(exported: &Exported) {
    let Exported { objects, secrets_left_out, unknown } = exported;
    say::note(&format!("{objects} objects exported"));
    if *secrets_left_out > 0 {
        say::note(&format!(
            "{secrets_left_out} Secrets left out: without them repositories cannot be read (--include-secrets writes them)"
        ));
    }
    for resource in unknown {
        say::note(&format!("left out, for this version does not know them: {resource}"));
    }
}

fn import(state: &StateDir, file: &Path) -> Result<(), CliError> {
    let document = if is_standard(file) {
        let mut document = Vec::new();
        io::stdin().lock().read_to_end(&mut document).map(|_| document)
    } else {
        fs::read(file)
    };
    let document = document.map_err(|error| CliError::file("reading", file, error, "name a file that can be read"))?;
    state.ensure()?;
    let imported = archive::import(&state.store(), &lvault_api::crds::all(), &document);
    let objects = imported.map_err(|error| refused("importing the state", &state.store(), error))?;
    say::note(&format!("{objects} objects imported into {}", state.root().display()));
    Ok(())
}

fn refused(tried: &'static str, store: &Path, error: ArchiveError) -> CliError {
    let impossible = |remedy: &str| CliError::Impossible {
        tried: tried.to_owned(),
        happened: with_causes(&error),
        remedy: remedy.to_owned(),
    };
    match &error {
        ArchiveError::File(FileError::InUse { .. }) => impossible("stop the running lvault, then try again"),
        ArchiveError::Missing { .. } => {
            impossible("name the state folder of an lvault that was started with --state-dir")
        }
        ArchiveError::Exists { .. } => impossible("name another state folder with --state-dir, or move that file away"),
        ArchiveError::Document { .. } => impossible("use a document that `lvault state export` wrote, unchanged"),
        ArchiveError::File(_) | ArchiveError::Registry(_) => CliError::file(
            tried,
            store,
            with_causes(&error),
            "put a copy of the file back, or look at what is said of it",
        ),
        ArchiveError::Write(_) => CliError::file(tried, store, with_causes(&error), "make room where it is written"),
    }
}
