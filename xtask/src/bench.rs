//! `cargo xtask bench`: measures what docs/BENCHMARKS.md reports, and prints it.
//!
//! What holds: everything happens in one temporary folder, which is gone at the end; every wait is bounded; nothing is
//! measured that did not work. Needs the release binaries, restic and GNU time: `make bench` sees to them.

mod api;
mod cluster;
mod latency;
mod lvm;
mod node;
mod repositories;
mod rest;
pub(crate) mod run;
mod tool;
mod tree;

use std::env;
use std::path::{Path, PathBuf};

use run::Program;
use tree::Shape;

const USAGE: &str = "usage: cargo xtask bench [api|repositories|sparse|many|latency|rest|cluster|lvm]...

  Without a name, all of them. Settings come from the environment:
  BENCH_MB           MiB to back up (2048: 20,000 files; sparse: a file of 4 GiB that holds 1 GiB; many: 1,000,000 small files)
  BENCH_REPETITIONS  how often backing up and restoring are measured (3)
  BENCH_SNAPSHOTS    snapshots whose latency is measured, each way (10)
  BENCH_OBJECTS      finished snapshots that an idle agent watches over (1000)
  BENCH_CLUSTER      volumes in the cluster, 100 of them on the node (10000)
  BENCH_DIR          the folder in which the temporary folder is made (the system's)";

/// What is measured, and how much of it.
pub(crate) struct Settings {
    mib: usize,
    repetitions: usize,
    snapshots: usize,
    objects: usize,
    cluster: usize,
    lvault: PathBuf,
    example: PathBuf,
    figures: PathBuf,
    lvm_example: PathBuf,
}

#[derive(Clone, Copy)]
enum Part {
    Api,
    Repositories,
    Sparse,
    Many,
    Latency,
    Rest,
    Cluster,
    Lvm,
}

impl Part {
    const ALL: [Part; 8] =
        [Part::Api, Part::Repositories, Part::Sparse, Part::Many, Part::Latency, Part::Rest, Part::Cluster, Part::Lvm];

    fn name(self) -> &'static str {
        match self {
            Part::Api => "api",
            Part::Repositories => "repositories",
            Part::Sparse => "sparse",
            Part::Many => "many",
            Part::Latency => "latency",
            Part::Rest => "rest",
            Part::Cluster => "cluster",
            Part::Lvm => "lvm",
        }
    }
}

/// Measures the parts that are named, or all of them.
pub(crate) fn run(names: &[&str]) -> Result<String, String> {
    let parts = parts(names)?;
    let settings = Settings::read()?;
    let base = env::var_os("BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let scratch =
        tempfile::Builder::new().prefix("lvault-bench-").tempdir_in(base).map_err(io("a temporary folder"))?;
    let path = scratch.path().canonicalize().map_err(io("a temporary folder"))?;
    say(&format!("{}, {}", machine(), Program::new(tool::restic()).args(["version"]).run()?.trim()));
    for part in parts {
        say(&format!("\n## {}\n", part.name()));
        match part {
            Part::Api => api::measure(&settings, &path)?,
            Part::Repositories => repositories::measure(&settings, Shape::Mixed, &path)?,
            Part::Sparse => repositories::measure(&settings, Shape::Sparse, &path)?,
            Part::Many => repositories::measure(&settings, Shape::Many, &path)?,
            Part::Latency => latency::measure(&settings, &path)?,
            Part::Rest => rest::measure(&settings, &path)?,
            Part::Cluster => cluster::measure(&settings, &path)?,
            Part::Lvm => lvm::measure(&settings)?,
        }
    }
    scratch.close().map_err(io("removing the temporary folder"))?;
    Ok(String::new())
}

fn parts(names: &[&str]) -> Result<Vec<Part>, String> {
    if names.is_empty() {
        return Ok(Part::ALL.to_vec());
    }
    let named = |name: &&str| Part::ALL.into_iter().find(|part| part.name() == *name).ok_or_else(|| USAGE.to_owned());
    names.iter().map(named).collect()
}

impl Settings {
    fn read() -> Result<Settings, String> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let built = env::var_os("CARGO_TARGET_DIR").map_or(built, PathBuf::from).join("release");
        let binary = |name: &str| {
            let path = built.join(name);
            path.canonicalize().map_err(|_| format!("{} is not there: run `make bench`", path.display()))
        };
        Ok(Settings {
            mib: number("BENCH_MB", 2048, 6)?,
            repetitions: number("BENCH_REPETITIONS", 3, 1)?,
            snapshots: number("BENCH_SNAPSHOTS", 10, 1)?,
            objects: number("BENCH_OBJECTS", 1000, 1)?,
            cluster: number("BENCH_CLUSTER", 10_000, 2000)?,
            lvault: binary("lvault")?,
            example: binary("examples/repository")?,
            figures: binary("examples/figures")?,
            lvm_example: binary("examples/lvm")?,
        })
    }
}

fn number(name: &str, usual: usize, least: usize) -> Result<usize, String> {
    let Ok(text) = env::var(name) else { return Ok(usual) };
    let number = text.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("{name} is '{text}': write a number from {least} on\n\n{USAGE}"))
}

/// The processors, as the kernel names them.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{count} x {}", model.map_or("an unnamed processor", |(_, name)| name))
}

#[allow(clippy::print_stdout, reason = "a benchmark says what it finds as it finds it")]
fn say(line: &str) {
    println!("{line}");
}

fn io(tried: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{tried}: {error}")
}
