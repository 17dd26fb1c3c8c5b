//! What the LVM engine costs with few and with many volumes: processes of LVM, processor time and time on the clock.
//!
//! `lvm DISK...` takes the disks for a volume group of its own, and leaves them without one. `cargo xtask bench lvm` runs it
//! where there is device-mapper.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a measurement ends with the first thing that does not work, and prints what it finds"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lvault_core::{Bytes, VolumeId};
use lvault_engines::{Access, LvmEngine, NewSnapshot, NewVolume, Options, Placement, VolumeEngine};

const GROUP: &str = "lvault-bench";
const SIZE: u64 = 64 << 20;
const ROUNDS: u32 = 5;

fn main() {
    let disks: Vec<String> = std::env::args().skip(1).collect();
    let folder = tempfile::tempdir().unwrap();
    lvm(&format!(
        "vgcreate -q -y {GROUP} {}\nlvcreate -q -y --type thin-pool -L 6g -n pool {GROUP}\n",
        disks.join(" ")
    ));
    let outcome = std::panic::catch_unwind(|| measure(folder.path()));
    lvm(&format!("vgremove -q -ff -y {GROUP}\n"));
    outcome.expect("measured");
}

/// Runs many commands in one process of LVM.
fn lvm(script: &str) {
    let mut child =
        Command::new("lvm").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    child.wait().unwrap();
}

fn measure(folder: &Path) {
    let config = folder.join("lvmd.yaml");
    let pool = "thin-pool: {name: pool, overprovision-ratio: 100}";
    let class = format!("{{name: thin, volume-group: {GROUP}, default: true, type: thin, {pool}}}");
    std::fs::write(&config, format!("device-classes: [{class}]\n")).unwrap();
    let open = || {
        let options = Options { lvmd_config: Some(config.clone()), ..Options::default() };
        LvmEngine::open(&folder.join("state"), options).unwrap()
    };
    drop(open());
    let owner = std::fs::read_to_string(folder.join("state/lvm/owner")).unwrap();
    println!("| volumes | what | processes of LVM | CPU (ms) | on the clock (ms) |");
    println!("|---:|---|---:|---:|---:|");
    let mut there = 0;
    for count in [10, 100, 500] {
        let mut script = String::new();
        for number in there..count {
            let tags =
                "lvault,lvault.class=thin,lvault.fs=ext4,lvault.access=rw,lvault.size=67108864,lvault.asked=67108864";
            let tags: String = tags.split(',').map(|tag| format!(" --addtag {tag}")).collect();
            let tags = format!("{tags} --addtag lvault.owner={owner}");
            writeln!(script, "lvcreate -q -y -W n -V {SIZE}b -T {GROUP}/pool -n filler-{number}{tags}").unwrap();
        }
        lvm(&script);
        there = count;
        let engine = open();
        assert_eq!(engine.list().unwrap().len(), count, "they are there");
        all(&engine, count);
    }
}

fn all(engine: &LvmEngine, count: usize) {
    let id = |name: &str| VolumeId::parse(name).unwrap();
    let mut figures: Vec<(&str, Vec<Cost>)> = Vec::new();
    let mut note = |what: &'static str, cost: Cost| match figures.iter_mut().find(|(known, _)| *known == what) {
        Some((_, costs)) => costs.push(cost),
        None => figures.push((what, vec![cost])),
    };
    for _ in 0..ROUNDS {
        let new = NewVolume { id: id("v"), size: Bytes(SIZE), filesystem: None, placement: Placement::default() };
        note("create (with mkfs.ext4)", cost(engine, || engine.ensure_volume(&new).unwrap()));
        note("first list after a change", cost(engine, || engine.list().unwrap()));
        note("list", cost(engine, || engine.list().unwrap()));
        note("look at one", cost(engine, || engine.observe(&id("v")).unwrap().unwrap()));
        engine.ensure_attached(&id("v")).unwrap();
        let cut = NewSnapshot { id: id("s"), source: id("v"), access: Access::ReadOnly };
        note("snapshot of a mounted volume", cost(engine, || engine.ensure_snapshot(&cut).unwrap()));
        engine.list().unwrap();
        note("remove", cost(engine, || engine.ensure_absent(&id("s")).unwrap()));
        engine.ensure_detached(&id("v")).unwrap();
        engine.ensure_absent(&id("v")).unwrap();
        engine.list().unwrap();
    }
    for (what, mut costs) in figures {
        costs.sort_by_key(|cost| cost.wall);
        let Cost { processes, cpu, wall } = costs[costs.len() / 2];
        println!("| {count} | {what} | {processes} | {} | {} |", cpu.as_millis(), wall.as_millis());
    }
}

#[derive(Clone, Copy)]
struct Cost {
    processes: u64,
    cpu: Duration,
    wall: Duration,
}

fn cost<T>(engine: &LvmEngine, work: impl FnOnce() -> T) -> Cost {
    let (processes, cpu, started) = (engine.lvm_processes(), cpu(), Instant::now());
    work();
    Cost { processes: engine.lvm_processes() - processes, cpu: self::cpu() - cpu, wall: started.elapsed() }
}

/// Processor time of this process and of the programs it has run.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    // A tick is 10 ms in every Linux.
    Duration::from_millis(ticks * 10)
}
