//! The machine goes down in the middle of everything: the guest's kernel is killed, started again on the same disks, and
//! what is found there has to be whole, or to be put right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]
#![expect(clippy::disallowed_methods, reason = "tests look at the machine with its own programs")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lvault_core::Bytes;
use lvault_engines::{Access, Filesystem, LvmEngine, Options, VolumeEngine, VolumeInfo};
use support::lvm::{Layout, VolumeGroup, guest, guest_or_skip};
use support::{Kind, MIB, id, run, snapshot};

const FOLDER: &str = "LVAULT_CRASH_FOLDER";
const THIN: &str = "LVAULT_CRASH_THIN";
/// In every volume: the number that its data is made of, then the data.
const DATA: &str = "data";
const LENGTH: usize = 3 << 20;
/// What the child says before each step; the kills are spread over them.
const STEPS: [&str; 6] = ["create", "write", "snapshot", "copy", "grow", "remove"];
/// How often the machine goes down where `LVAULT_KILLS` does not say otherwise: as often as a usual run has time for.
const KILLS: usize = 3;

#[test]
fn in_guest_lvm_thin_machine_killed() {
    machine_killed(true);
}

#[test]
fn in_guest_lvm_thick_machine_killed() {
    machine_killed(false);
}

fn machine_killed(thin: bool) {
    if !guest_or_skip("a machine that goes down, on LVM") {
        return;
    }
    // The guest sees this folder, other than the temporary one.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = tempfile::NamedTempFile::new_in(disk_folder()).unwrap();
    disk.as_file().set_len(4 << 30).unwrap();
    let kills = std::env::var("LVAULT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed = std::env::var("LVAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut put_right = 0;
    for kill in 0..=kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (step, moment) = (STEPS[kill % STEPS.len()], Duration::from_millis((random >> 33) % 1000));
        // The last start only looks.
        let kill_at = (kill < kills).then_some((step, moment));
        let at = format!("seed {seed}, kill {kill} of {kills}, {moment:?} into {step}");
        let before = boot(thin, folder.path(), disk.path(), kill_at, &at);
        println!("{at}; put right from before: {before}");
        put_right += before;
    }
    println!(
        "{}: {kills} of {kills} kills survived, {put_right} things put right",
        if thin { "thin" } else { "thick" }
    );
}

fn disk_folder() -> PathBuf {
    let fast = Path::new("/dev/shm");
    if fast.is_dir() { fast.to_owned() } else { std::env::temp_dir() }
}

/// Starts the guest, and kills it; answers how much it had to put right from the time before.
fn boot(thin: bool, folder: &Path, disk: &Path, kill_at: Option<(&str, Duration)>, at: &str) -> usize {
    let pid = folder.join("pid");
    let mut command = guest(&["--disk-file", disk.to_str().unwrap(), "--pid", pid.to_str().unwrap(), "--limit", "240"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1", "--color=never"]);
    command.env(FOLDER, folder).env(THIN, thin.to_string()).env("LVAULT_LVM_DISKS", "/dev/ubda");
    command.env("LVAULT_CRASH_ONLY_LOOK", kill_at.is_none().to_string());
    let complaint = File::create(folder.join("complaint")).unwrap();
    let mut child = command.stdout(Stdio::piped()).stderr(complaint).spawn().unwrap();
    let (mut put_right, mut said, mut killed) = (None, String::new(), false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("put right: ") {
            put_right = number.parse().ok();
        }
        if let Some((step, moment)) = kill_at
            && !killed
            && line == format!("step: {step}")
        {
            std::thread::sleep(moment);
            let kernel = fs::read_to_string(&pid).unwrap();
            run("kill", &["-KILL", "--", &format!("-{}", kernel.trim())].map(std::ffi::OsStr::new));
            killed = true;
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = child.wait().unwrap();
    let complaint = || fs::read_to_string(folder.join("complaint")).unwrap();
    assert_eq!(killed, kill_at.is_some(), "{at}: it ended by itself: {said}\n{}", complaint());
    assert!(killed || status.success(), "{at}: {said}\n{}", complaint());
    put_right.unwrap_or_else(|| panic!("{at}: what was there before was not looked at: {said}\n{}", complaint()))
}

/// Not a test by itself: what runs in the guest. It looks at what the last kill has left, and goes on until the next.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let (folder, thin) = (PathBuf::from(folder), std::env::var(THIN).unwrap() == "true");
    let layout = if thin { Layout::Thin } else { Layout::Thick };
    let kind = Kind::Lvm(layout, Filesystem::Ext4);
    if !folder.join("made").exists() {
        let group = std::mem::ManuallyDrop::new(VolumeGroup::new(&folder, layout));
        fs::write(folder.join("made"), &group.name).unwrap();
        run("sync", &[]);
    }
    let group = fs::read_to_string(folder.join("made")).unwrap();
    let options = Options { lvmd_config: Some(folder.join("lvmd.yaml")), ..Options::default() };
    let engine = LvmEngine::open(&folder.join("state"), options).unwrap();
    println!("put right: {}", look(&engine, &group));
    if std::env::var("LVAULT_CRASH_ONLY_LOOK").unwrap() == "true" {
        return;
    }
    for round in 0_u64.. {
        life(&engine, kind, round);
    }
}

fn write_data(folder: &Path, number: u64) {
    let data: Vec<u8> = number.to_le_bytes().iter().copied().cycle().take(LENGTH).collect();
    let path = folder.join(DATA);
    fs::write(folder.join("new"), data).unwrap();
    File::open(folder.join("new")).unwrap().sync_all().unwrap();
    fs::rename(folder.join("new"), path).unwrap();
    File::open(folder).unwrap().sync_all().unwrap();
}

/// The number that a volume's data is made of, if it has any; what there is of it has to be whole.
fn read_data(folder: &Path) -> Option<u64> {
    let data = fs::read(folder.join(DATA)).ok()?;
    let number = u64::from_le_bytes(data[..8].try_into().unwrap());
    let whole = data.len() == LENGTH && data.chunks(8).all(|chunk| chunk == &number.to_le_bytes()[..chunk.len()]);
    assert!(whole, "{}: the data is damaged", folder.display());
    Some(number)
}

fn step(name: &str) {
    println!("step: {name}");
}

/// The whole life of a volume and its snapshot.
fn life(engine: &LvmEngine, kind: Kind, round: u64) {
    let (volume, cut) = (id(&format!("v-{round}")), id(&format!("s-{round}")));
    step("create");
    engine.ensure_volume(&kind.volume(volume.as_str())).unwrap();
    let folder = engine.ensure_attached(&volume).unwrap();
    step("write");
    (1..6).for_each(|number| write_data(&folder, number));
    step("snapshot");
    engine.ensure_snapshot(&snapshot(cut.as_str(), volume.as_str(), Access::ReadOnly)).unwrap();
    step("copy");
    let copy = engine.ensure_attached(&cut).unwrap();
    write_data(&folder, 6);
    assert_eq!(read_data(&copy), Some(5));
    engine.ensure_detached(&cut).unwrap();
    let thick = !engine.capabilities().independent_snapshots;
    if thick {
        // It grows without snapshots only.
        engine.ensure_absent(&cut).unwrap();
    }
    step("grow");
    engine.ensure_size(&volume, Bytes(kind.size().0 + 32 * MIB)).unwrap();
    if thick {
        engine.ensure_snapshot(&snapshot(cut.as_str(), volume.as_str(), Access::ReadOnly)).unwrap();
    }
    engine.ensure_detached(&volume).unwrap();
    step("remove");
    engine.ensure_absent(&volume).unwrap();
    engine.ensure_absent(&cut).unwrap();
}

/// Everything that has to hold after a kill; answers how much had to be put right.
fn look(engine: &LvmEngine, group: &str) -> usize {
    run("vgck", &[group.as_ref()]);
    let recovered = engine.recover().unwrap();
    assert_eq!(engine.recover().unwrap(), [], "the second recovery finds nothing to do");
    let volumes = engine.list().unwrap();
    let lvs = |select: &str| {
        let said = run("lvs", &["--noheadings", "-o", "lv_name", "-S", select, group].map(std::ffi::OsStr::new)).stdout;
        String::from_utf8(said).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut listed: Vec<_> = volumes.iter().map(|volume| volume.id.to_string()).collect();
    listed.sort();
    let mut there = lvs("lv_tags=lvault");
    there.sort();
    // What a snapshot lives on is there as long as the snapshot is.
    if volumes.iter().any(|volume| volume.origin.is_some()) {
        there.retain(|name| !name.starts_with("lvault-gone-"));
    }
    assert_eq!(there, listed, "half-made volumes are left");
    for volume in &volumes {
        check_volume(engine, volume);
    }
    // A growth that was cut short can be finished.
    for volume in volumes.iter().filter(|volume| volume.origin.is_none()) {
        let depends = volumes.iter().any(|other| other.origin.as_ref() == Some(&volume.id));
        if engine.capabilities().independent_snapshots || !depends {
            engine.ensure_size(&volume.id, Bytes(volume.size.0 + 32 * MIB)).unwrap();
        }
    }
    // Snapshots first: thick ones need their source.
    for volume in volumes.iter().filter(|v| v.origin.is_some()).chain(volumes.iter().filter(|v| v.origin.is_none())) {
        engine.ensure_detached(&volume.id).unwrap();
        engine.ensure_absent(&volume.id).unwrap();
    }
    let left = lvs("lv_layout!=pool && lv_name!=pool");
    assert_eq!(left, Vec::<String>::new(), "orphans");
    println!("found whole: {listed:?}; put right: {recovered:?}");
    recovered.len()
}

fn check_volume(engine: &LvmEngine, volume: &VolumeInfo) {
    let folder = engine.ensure_attached(&volume.id).unwrap();
    let data = read_data(&folder);
    if volume.origin.is_some() {
        assert!(matches!(data, Some(5 | 6)), "{} lacks what the source held at the cut: {data:?}", volume.id);
        return;
    }
    // The kernel has recovered the journal; what it leaves has to be without a fault.
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(folder.to_str().unwrap())).unwrap();
    let device = line.split(' ').skip_while(|field| *field != "-").nth(2).unwrap().to_owned();
    engine.ensure_detached(&volume.id).unwrap();
    let checked = Command::new("e2fsck").args(["-f", "-n", &device]).output().unwrap();
    assert!(checked.status.success(), "{}: {}", volume.id, String::from_utf8_lossy(&checked.stdout));
}
