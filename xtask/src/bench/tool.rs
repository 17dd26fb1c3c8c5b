//! The tools that are measured, and how each is asked for a step.

use std::fs;
use std::path::{Path, PathBuf};

use super::io;
use super::run::Program;

const PASSWORD: &str = "the password of a benchmark";

/// What is measured, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    First,
    Unchanged,
    Changed,
    Restore,
    RestoreVerified,
}

impl Step {
    pub(crate) const ALL: [Step; 5] =
        [Step::First, Step::Unchanged, Step::Changed, Step::Restore, Step::RestoreVerified];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::First => "first backup",
            Step::Unchanged => "unchanged backup",
            Step::Changed => "1% changed",
            Step::Restore => "restore",
            Step::RestoreVerified => "restore --verify",
        }
    }

    /// The name of the snapshot that is made or restored.
    fn snapshot(self) -> &'static str {
        match self {
            Step::First => "first",
            Step::Unchanged => "unchanged",
            Step::Changed | Step::Restore | Step::RestoreVerified => "changed",
        }
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Lvault,
    Restic,
    Borg,
}

impl Tool {
    /// Those that are here: borg is measured where it is installed.
    pub(crate) fn installed() -> Vec<Tool> {
        let has_borg = Program::new("borg").args(["--version"]).run().is_ok();
        [Tool::Lvault, Tool::Restic].into_iter().chain(has_borg.then_some(Tool::Borg)).collect()
    }
}

/// What one repetition works with; the folder goes when it does.
pub(crate) struct Place<'a> {
    pub(crate) folder: PathBuf,
    pub(crate) tree: &'a Path,
    pub(crate) example: &'a Path,
}

impl Place<'_> {
    pub(crate) fn prepare(&self, tools: &[Tool]) -> Result<(), String> {
        fs::create_dir_all(self.target()).map_err(io("making a folder"))?;
        for tool in tools {
            fs::create_dir_all(self.repository(*tool)).map_err(io("making a folder"))?;
            match tool {
                Tool::Lvault => {}
                Tool::Restic => drop(self.restic().args(["init"]).run()?),
                Tool::Borg => drop(self.borg().args(["init", "--encryption", "repokey"]).run()?),
            }
        }
        Ok(())
    }

    pub(crate) fn repository(&self, tool: Tool) -> PathBuf {
        self.folder.join(match tool {
            Tool::Lvault => "lvault",
            Tool::Restic => "restic",
            Tool::Borg => "borg",
        })
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    /// Puts what was restored aside until the benchmark ends: see [`empty_files_below`](super::run::empty_files_below).
    pub(crate) fn put_target_aside(&self, step: Step, tool: Tool) -> Result<(), String> {
        let aside = self.folder.join(format!("{step:?}-{tool:?}"));
        fs::rename(self.target(), aside).map_err(io("putting aside what was restored"))?;
        fs::create_dir(self.target()).map_err(io("making a folder"))
    }

    /// What is run; nothing where a tool has no such step.
    pub(crate) fn program(&self, step: Step, tool: Tool) -> Option<Program> {
        let (repository, target, snapshot) = (self.repository(tool), self.target(), step.snapshot());
        let lvault = || Program::new(self.example).env("RESTIC_PASSWORD", PASSWORD);
        match (tool, step) {
            (Tool::Lvault, Step::First | Step::Unchanged | Step::Changed) => {
                let folders = [self.tree.as_os_str(), repository.as_os_str()];
                Some(lvault().args(["back-up"]).args(folders).args([snapshot]))
            }
            // It always reads back.
            (Tool::Lvault, Step::RestoreVerified) => {
                Some(lvault().args(["restore".as_ref(), repository.as_os_str(), snapshot.as_ref(), target.as_os_str()]))
            }
            (Tool::Lvault, Step::Restore) | (Tool::Borg, Step::RestoreVerified) => None,
            (Tool::Restic, Step::First | Step::Unchanged | Step::Changed) => {
                Some(self.restic().args(["backup", "--quiet", "--host", "bench"]).args([self.tree]))
            }
            (Tool::Restic, Step::Restore) => {
                Some(self.restic().args(["restore", "--quiet", "--sparse", "latest", "--target"]).args([target]))
            }
            (Tool::Restic, Step::RestoreVerified) => {
                let arguments = ["restore", "--quiet", "--sparse", "--verify", "latest", "--target"];
                Some(self.restic().args(arguments).args([target]))
            }
            // zstd, as the others; without sparse reading, as restic and lvault have it too.
            (Tool::Borg, Step::First | Step::Unchanged | Step::Changed) => {
                let archive = format!("::{snapshot}");
                Some(self.borg().args(["create", "--compression", "zstd", &archive]).args([self.tree]))
            }
            (Tool::Borg, Step::Restore) => {
                Some(self.borg().args(["extract", "--sparse", &format!("::{snapshot}")]).within(target))
            }
        }
    }

    fn restic(&self) -> Program {
        Program::new(restic())
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_REPOSITORY", self.repository(Tool::Restic))
            .env("RESTIC_CACHE_DIR", self.folder.join("cache"))
    }

    fn borg(&self) -> Program {
        Program::new("borg")
            .env("BORG_PASSPHRASE", PASSWORD)
            .env("BORG_REPO", self.repository(Tool::Borg))
            .env("BORG_BASE_DIR", self.folder.join("base"))
    }
}

/// The restic to measure: the newer one that `scripts/bench-setup.sh` has fetched, or the one that is installed.
pub(crate) fn restic() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or(built, PathBuf::from);
    built.join("bench/restic").canonicalize().unwrap_or_else(|_| "restic".into())
}
