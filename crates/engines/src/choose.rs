//! Choosing the engine of a state folder: the one whose volumes are there, the one asked for, or the best that works.
//!
//! What holds: a state folder has one engine for its whole life, written down in it with the first choice. So a machine
//! that lost root or a package says so, instead of hiding the volumes behind another, empty engine.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::directory::DirectoryEngine;
use crate::engine::{Options, VolumeEngine};
use crate::error::EngineError;
use crate::image::ImageEngine;
use crate::lvm::LvmEngine;
use crate::record::replace;

/// The file in a state folder that says which engine its volumes belong to.
pub const ENGINE_FILE: &str = "engine.json";

/// What a user wishes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The image engine where it really works, otherwise the directory engine.
    Auto,
    /// The image engine or an error.
    Image,
    /// The directory engine.
    Directory,
    /// The LVM engine or an error.
    Lvm,
}

/// A text that is no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no engine: say auto, image, directory or lvm")]
pub struct UnknownWish(String);

impl FromStr for Wish {
    type Err = UnknownWish;

    fn from_str(text: &str) -> Result<Self, UnknownWish> {
        match text {
            "auto" => Ok(Wish::Auto),
            "image" => Ok(Wish::Image),
            "directory" => Ok(Wish::Directory),
            "lvm" => Ok(Wish::Lvm),
            other => Err(UnknownWish(other.to_owned())),
        }
    }
}

/// The engine of a state folder.
#[derive(Clone)]
pub struct Chosen {
    /// It.
    pub engine: Arc<dyn VolumeEngine>,
    /// Why this one, as a sentence for the user.
    pub why: String,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen").field("engine", &self.engine.name()).field("why", &self.why).finish()
    }
}

/// Opens the engine of a state folder, makes both where they are missing, and says why this one.
///
/// Idempotent. A crash in the middle leaves at most an unused pool, which the next call uses or a probe's volume, which
/// the next probe removes. It does not recover: call [`VolumeEngine::recover`] next.
pub fn choose(state: &Path, wish: Wish, options: &Options) -> Result<Chosen, EngineError> {
    fs::create_dir_all(state).map_err(EngineError::io("making the state folder", state))?;
    if let Some(kind) = recorded(state, wish)? {
        let engine: Arc<dyn VolumeEngine> = match kind {
            Kind::Image => Arc::new(ImageEngine::open(state, options.clone())?),
            Kind::Directory => Arc::new(DirectoryEngine::open(state)?),
            Kind::Lvm => Arc::new(LvmEngine::open(state, options.clone())?),
        };
        let why = format!("{kind} engine: the volumes in {} are its own", state.display());
        return Ok(Chosen { engine, why });
    }
    let (kind, chosen) = first_choice(state, wish, options)?;
    record(state, kind)?;
    tracing::info!(engine = chosen.engine.name(), why = chosen.why, "chosen");
    Ok(chosen)
}

fn first_choice(state: &Path, wish: Wish, options: &Options) -> Result<(Kind, Chosen), EngineError> {
    let image = |why: &str| {
        let engine: Arc<dyn VolumeEngine> = Arc::new(ImageEngine::probed(state, options.clone())?);
        Ok((Kind::Image, Chosen { engine, why: why.to_owned() }))
    };
    let directory = |why: String| {
        let engine: Arc<dyn VolumeEngine> = Arc::new(DirectoryEngine::open(state)?);
        Ok((Kind::Directory, Chosen { engine, why }))
    };
    match wish {
        Wish::Image => image("image engine: asked for, and it works here"),
        Wish::Directory => directory("directory engine: asked for; it enforces no sizes".to_owned()),
        // Never chosen by itself: it takes room in volume groups that are not lvault's alone.
        Wish::Lvm => {
            let engine: Arc<dyn VolumeEngine> = Arc::new(LvmEngine::probed(state, options.clone())?);
            let why = "lvm engine: asked for, and the storage of its device classes is there".to_owned();
            Ok((Kind::Lvm, Chosen { engine, why }))
        }
        Wish::Auto => match image("image engine: root, loop devices and tools are there, and it was tried out") {
            Ok(chosen) => Ok(chosen),
            Err(error) => directory(format!(
                "directory engine, which enforces no sizes, for the image engine does not work here: {}",
                with_causes(&error)
            )),
        },
    }
}

/// An error with everything beneath it, for a line of text.
fn with_causes(error: &dyn std::error::Error) -> String {
    let below = std::iter::successors(error.source(), |cause| cause.source());
    below.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Image,
    Directory,
    Lvm,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Image => "image",
            Kind::Directory => "directory",
            Kind::Lvm => "lvm",
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    engine: Kind,
}

/// The engine that was chosen before, unless another is asked for.
fn recorded(state: &Path, wish: Wish) -> Result<Option<Kind>, EngineError> {
    let path = state.join(ENGINE_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EngineError::io("reading", path)(error)),
    };
    let note: Note = serde_json::from_str(&text)
        .map_err(|error| EngineError::Damaged { path: path.clone(), why: error.to_string() })?;
    if note.version != 1 {
        let why = format!("it has version {}, and this lvault knows version 1 only", note.version);
        return Err(EngineError::Damaged { path, why });
    }
    let wished = match wish {
        Wish::Auto => return Ok(Some(note.engine)),
        Wish::Image => Kind::Image,
        Wish::Directory => Kind::Directory,
        Wish::Lvm => Kind::Lvm,
    };
    if wished == note.engine {
        return Ok(Some(wished));
    }
    Err(EngineError::OtherEngine { path, recorded: note.engine.to_string(), wished: wished.to_string() })
}

fn record(state: &Path, kind: Kind) -> Result<(), EngineError> {
    let path = state.join(ENGINE_FILE);
    let text = serde_json::to_string(&Note { version: 1, engine: kind })
        .map_err(|error| EngineError::Damaged { path: path.clone(), why: error.to_string() })?;
    replace(&path, &text).map_err(EngineError::io("writing", path))
}
