//! Backing up and restoring, side by side with restic, and with borg where it is installed: the same tree, the same disk, one after
//! the other in turns.

use std::fs;
use std::path::Path;

use super::run::{Cost, Program, bytes_below, empty_files_below, median};
use super::tool::{Place, Step, Tool};
use super::tree::{Shape, Tree};
use super::{Settings, io, say};

const MIB: f64 = (1 << 20) as f64;

/// One measured run.
struct Run {
    step: Step,
    tool: Tool,
    cost: Cost,
}

/// Measures all steps, as often as the settings say, and prints the medians.
pub(crate) fn measure(settings: &Settings, shape: Shape, scratch: &Path) -> Result<(), String> {
    let root = scratch.join("tree");
    let tree = Tree::make(&root, shape, settings.mib).map_err(io("making the tree"))?;
    let (mib, files, repetitions) = (tree.bytes() >> 20, tree.files(), settings.repetitions);
    say(&format!("{mib} MiB in {files} files: {repetitions} repetitions, in turns; medians"));
    let all = Tool::installed();
    let mut runs = Vec::new();
    let mut sizes: Vec<(Tool, f64)> = Vec::new();
    for number in 0..repetitions {
        let place = Place { folder: scratch.join(format!("round-{number}")), tree: &root, example: &settings.example };
        // Who begins changes from repetition to repetition.
        let mut tools = all.clone();
        tools.rotate_left(number % all.len());
        let change = || tree.change_one_percent(number).map(drop).map_err(io("changing 1%"));
        runs.extend(round(&place, &tools, change)?);
        for tool in tools {
            sizes.push((tool, bytes_below(&place.repository(tool))? as f64 / MIB));
        }
        empty_files_below(&place.folder)?;
    }
    fs::remove_dir_all(&root).map_err(io("removing the tree"))?;
    print(&all, &runs, &sizes);
    Ok(())
}

fn round(place: &Place, tools: &[Tool], change: impl FnOnce() -> Result<(), String>) -> Result<Vec<Run>, String> {
    place.prepare(tools)?;
    let mut change = Some(change);
    let mut runs = Vec::new();
    for step in Step::ALL {
        if step == Step::Changed
            && let Some(change) = change.take()
        {
            change()?;
        }
        for &tool in tools {
            let Some(program) = place.program(step, tool) else { continue };
            // Nobody pays for what another one has left unwritten.
            Program::new("sync").run()?;
            let cost = program.measure(&place.folder)?;
            let Cost { wall, cpu, peak } = cost;
            say(&format!("  {} {tool:?}: {wall:.1} s, {cpu:.1} s CPU, {peak:.0} MiB", step.name()));
            runs.push(Run { step, tool, cost });
            place.put_target_aside(step, tool)?;
        }
    }
    Ok(runs)
}

fn print(tools: &[Tool], runs: &[Run], sizes: &[(Tool, f64)]) {
    say(
        "\n| step | tool | wall (s) | CPU (s) | peak memory (MiB) | wall, all runs (s) |\n|---|---|---:|---:|---:|---|",
    );
    for step in Step::ALL {
        for &tool in tools {
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
    for &tool in tools {
        let of = sizes.iter().filter(|(whose, _)| *whose == tool).map(|(_, mib)| *mib);
        say(&format!("repository of {tool:?} with its three snapshots: {:.1} MiB (median)", median(of)));
    }
}
