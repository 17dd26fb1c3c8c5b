//! Where volumes live: the [`VolumeEngine`] trait, and the engines behind it.
//!
//! - [`DirectoryEngine`]: a folder per volume. No root, works everywhere, enforces no size.
//! - [`ImageEngine`]: sparse image files on a filesystem with reflinks, each with a filesystem of its own, attached by
//!   loop device. Needs root. A snapshot is a clone cut while the source's filesystem is frozen.
//! - [`LvmEngine`]: logical volumes, thick and thin, from TopoLVM's `lvmd.yaml`. Needs root and device-mapper.
//!
//! What holds in this crate: it is the only one that runs storage tools, and runs them in one module; every effect may
//! be repeated; nothing half-made is ever visible under a volume's name; what the engines know about attachment is read
//! from the kernel each time, never from a note of their own.

mod choose;
mod copy;
mod directory;
mod engine;
mod error;
mod filesystem;
#[cfg(any(test, lvault_fuzzing))]
pub mod fuzzing;
mod health;
mod image;
mod locks;
mod lvm;
mod record;
mod store;
mod tools;

pub use choose::{Chosen, ENGINE_FILE, UnknownWish, Wish, choose};
pub use directory::DirectoryEngine;
pub use engine::{
    Access, Adoption, Capabilities, Capacity, Change, Filesystem, NewSnapshot, NewVolume, Options, Placement,
    Recovered, UnknownFilesystem, VolumeEngine, VolumeInfo,
};
pub use error::{EngineError, Retry};
pub use health::{ClassReport, PoolReport, Problem, ProblemKind};
pub use image::ImageEngine;
pub use lvm::{LvmEngine, LvmError};
