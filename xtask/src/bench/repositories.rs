//! Backing up and restoring, side by side with restic: the same tree, the same disk, one after the other in turns.

use std::fs;
use std::path::{Path, PathBuf};

use super::run::{Cost, Program, bytes_below, median};
use super::tree::Tree;
use super::{Settings, io, say};

const PASSWORD: &str = "the password of a benchmark";
const MIB: f64 = (1 << 20) as f64;

/// What is measured, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    First,
    Unchanged,
    Changed,
    Restore,
    RestoreVerified,
}

impl Step {
    const ALL: [Step; 5] = [Step::First, Step::Unchanged, Step::Changed, Step::Restore, Step::RestoreVerified];

    fn name(self) -> &'static str {
        match self {
            Step::First => "first backup",
            Step::Unchanged => "unchanged backup",
            Step::Changed => "1% changed",
            Step::Restore => "restore",
            Step::RestoreVerified => "restore --verify",
        }
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Lvault,
    Restic,
}

/// One measured run.
struct Run {
    step: Step,
    tool: Tool,
    cost: Cost,
}

/// What one repetition works with; the folder goes when it does.
struct Round<'a> {
    folder: PathBuf,
    tree: &'a Path,
    example: &'a Path,
}

/// Measures all steps, as often as the settings say, and prints the medians.
pub(crate) fn measure(settings: &Settings, scratch: &Path) -> Result<(), String> {
    let root = scratch.join("tree");
    let tree = Tree::make(&root, settings.mib).map_err(io("making the tree"))?;
    let (mib, files, repetitions) = (tree.bytes() >> 20, tree.files(), settings.repetitions);
    say(&format!("{mib} MiB in {files} files: {repetitions} repetitions, in turns; medians"));
    let mut runs = Vec::new();
    let mut sizes: Vec<(Tool, f64)> = Vec::new();
    for number in 0..repetitions {
        let round = Round { folder: scratch.join("round"), tree: &root, example: &settings.example };
        // Who begins changes from repetition to repetition.
        let tools = if number % 2 == 0 { [Tool::Lvault, Tool::Restic] } else { [Tool::Restic, Tool::Lvault] };
        runs.extend(round.all(tools, || tree.change_one_percent(number).map(drop).map_err(io("changing 1%")))?);
        for tool in tools {
            sizes.push((tool, bytes_below(&round.repository(tool))? as f64 / MIB));
        }
        fs::remove_dir_all(&round.folder).map_err(io("removing what was measured"))?;
    }
    fs::remove_dir_all(&root).map_err(io("removing the tree"))?;
    print(&runs, &sizes);
    Ok(())
}

impl Round<'_> {
    fn all(&self, tools: [Tool; 2], change: impl FnOnce() -> Result<(), String>) -> Result<Vec<Run>, String> {
        self.prepare()?;
        let mut change = Some(change);
        let mut runs = Vec::new();
        for step in Step::ALL {
            if step == Step::Changed
                && let Some(change) = change.take()
            {
                change()?;
            }
            for tool in tools {
                let Some(program) = self.program(step, tool) else { continue };
                // Nobody pays for what another one has left unwritten.
                Program::new("sync").run()?;
                let cost = program.measure(&self.folder)?;
                say(&format!(
                    "  {} {tool:?}: {:.1} s, {:.1} s CPU, {:.0} MiB",
                    step.name(),
                    cost.wall,
                    cost.cpu,
                    cost.peak
                ));
                runs.push(Run { step, tool, cost });
                self.clear_target()?;
            }
        }
        Ok(runs)
    }

    fn prepare(&self) -> Result<(), String> {
        for folder in [self.repository(Tool::Lvault), self.repository(Tool::Restic), self.target()] {
            fs::create_dir_all(folder).map_err(io("making a folder"))?;
        }
        self.restic().args(["init"]).run().map(drop)
    }

    fn repository(&self, tool: Tool) -> PathBuf {
        self.folder.join(match tool {
            Tool::Lvault => "lvault",
            Tool::Restic => "restic",
        })
    }

    fn target(&self) -> PathBuf {
        self.folder.join("target")
    }

    fn clear_target(&self) -> Result<(), String> {
        fs::remove_dir_all(self.target()).map_err(io("clearing what was restored"))?;
        fs::create_dir(self.target()).map_err(io("clearing what was restored"))
    }

    /// What is run; nothing where a tool has no such step.
    fn program(&self, step: Step, tool: Tool) -> Option<Program> {
        let (repository, target) = (self.repository(Tool::Lvault), self.target());
        let uid = match step {
            Step::First => "first",
            Step::Unchanged => "unchanged",
            Step::Changed | Step::Restore | Step::RestoreVerified => "changed",
        };
        let lvault = || Program::new(self.example).env("RESTIC_PASSWORD", PASSWORD);
        match (tool, step) {
            (Tool::Lvault, Step::First | Step::Unchanged | Step::Changed) => {
                Some(lvault().args(["back-up".as_ref(), self.tree.as_os_str(), repository.as_os_str(), uid.as_ref()]))
            }
            // It always reads back.
            (Tool::Lvault, Step::RestoreVerified) => {
                Some(lvault().args(["restore".as_ref(), repository.as_os_str(), uid.as_ref(), target.as_os_str()]))
            }
            (Tool::Lvault, Step::Restore) => None,
            (Tool::Restic, Step::First | Step::Unchanged | Step::Changed) => {
                Some(self.restic().args(["backup", "--quiet", "--host", "bench"]).args([self.tree]))
            }
            (Tool::Restic, Step::Restore) => {
                Some(self.restic().args(["restore", "--quiet", "latest", "--target"]).args([target]))
            }
            (Tool::Restic, Step::RestoreVerified) => {
                Some(self.restic().args(["restore", "--quiet", "--verify", "latest", "--target"]).args([target]))
            }
        }
    }

    fn restic(&self) -> Program {
        Program::new(restic())
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_REPOSITORY", self.repository(Tool::Restic))
            .env("RESTIC_CACHE_DIR", self.folder.join("cache"))
    }
}

/// The restic to measure: the newer one that `scripts/bench-setup.sh` has fetched, or the one that is installed.
pub(crate) fn restic() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or(built, PathBuf::from);
    built.join("bench/restic").canonicalize().unwrap_or_else(|_| "restic".into())
}

fn print(runs: &[Run], sizes: &[(Tool, f64)]) {
    say(
        "\n| step | tool | wall (s) | CPU (s) | peak memory (MiB) | wall, all runs (s) |\n|---|---|---:|---:|---:|---|",
    );
    for step in Step::ALL {
        for tool in [Tool::Lvault, Tool::Restic] {
            let costs: Vec<Cost> =
                runs.iter().filter(|run| run.step == step && run.tool == tool).map(|run| run.cost).collect();
            if costs.is_empty() {
                continue;
            }
            let walls: Vec<String> = costs.iter().map(|cost| format!("{:.1}", cost.wall)).collect();
            say(&format!(
                "| {} | {tool:?} | {:.1} | {:.1} | {:.0} | {} |",
                step.name(),
                median(costs.iter().map(|cost| cost.wall)),
                median(costs.iter().map(|cost| cost.cpu)),
                median(costs.iter().map(|cost| cost.peak)),
                walls.join(" ")
            ));
        }
    }
    for tool in [Tool::Lvault, Tool::Restic] {
        let of = sizes.iter().filter(|(whose, _)| *whose == tool).map(|(_, mib)| *mib);
        say(&format!("repository of {tool:?} with its three snapshots: {:.1} MiB (median)", median(of)));
    }
}
