//! The whole machine goes down while a snapshot is backed up: the guest's kernel is killed at a random moment, started again
//! on the same disks, and lvault goes on by itself.
//!
//! What lvault keeps lies on disks of the guest: the volumes on one, state folder and repository on another. What is on
//! them is what the kernel had written when it was killed.

#![expect(clippy::print_stdout, reason = "what runs in the guest tells the test outside where it is")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use lvault_api::Phase;

use crate::data::{Tree, fill};
use crate::group::{DISK, has_device_mapper};
use crate::guest;
use crate::node::mounts_below;
use crate::process::{Dice, command, list, succeed};
use crate::world::{Engine, Settings, World};

/// Set for what runs in the guest: the engine's layout.
const CHILD: &str = "LVAULT_KILLS_LAYOUT";
/// Set for the last start, which looks and then removes everything.
const LAST: &str = "LVAULT_KILLS_LAST";
/// The disk of the state folder and the repository.
const KEPT: &str = "/dev/ubdb";
/// How often the machine goes down where `LVAULT_KILLS` does not say otherwise.
const KILLS: u64 = 1;
/// From asking for a snapshot to its end takes about so long.
const BACKUP: Duration = Duration::from_millis(2500);

#[test]
fn in_guest_lvm_thin_backup_machine_killed() {
    machine_killed("thin");
}

#[test]
fn in_guest_lvm_thick_backup_machine_killed() {
    machine_killed("thick");
}

fn machine_killed(layout: &str) {
    if std::env::var_os(guest::IN_GUEST).is_some() || !guest::is_there("a machine that goes down under a backup") {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disks = [8_u64, 2].map(|gibibytes| {
        let fast = Path::new("/dev/shm");
        let place = if fast.is_dir() { fast.to_owned() } else { std::env::temp_dir() };
        let disk = tempfile::NamedTempFile::new_in(place).unwrap();
        disk.as_file().set_len(gibibytes << 30).unwrap();
        disk
    });
    let kills = std::env::var("LVAULT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed = std::env::var("LVAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    let mut dice = Dice::of(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let paths = disks.each_ref().map(|disk| disk.path().to_owned());
    for kill in 0..=kills {
        let moment = Duration::from_millis(dice.below(u64::try_from(BACKUP.as_millis()).unwrap()));
        let at = format!("{layout}, seed {seed}, kill {kill} of {kills}");
        boot(layout, folder.path(), &paths, (kill < kills).then_some(moment), &at);
    }
    eprintln!("{layout}: {kills} of {kills} kills under a backup survived");
}

/// Starts the guest and kills it, or lets it come to its end.
fn boot(layout: &str, folder: &Path, disks: &[PathBuf; 2], kill_after: Option<Duration>, at: &str) {
    let (pid, complaint) = (folder.join("pid"), folder.join("complaint"));
    let mut guest = guest::guest();
    for disk in disks {
        guest.arg("--disk-file").arg(disk);
    }
    guest.args(["--memory", "2048M", "--limit", "400", "--pid"]).arg(&pid).arg("--");
    guest.arg(std::env::current_exe().unwrap());
    guest.args(["--exact", "lvm_kills::child", "--nocapture", "--test-threads=1", "--color=never"]);
    guest.env(CHILD, layout).env(LAST, kill_after.is_none().to_string()).env(DISK, "/dev/ubda").stdin(Stdio::null());
    let mut guest = guest.stdout(Stdio::piped()).stderr(File::create(&complaint).unwrap()).spawn().unwrap();
    let (say, lines) = channel();
    let output = BufReader::new(guest.stdout.take().unwrap());
    let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(say.send(line))));
    let mut said = Vec::new();
    let killed = kill_after.and_then(|moment| wait_for_moment(&lines, moment, &mut said));
    if let Some(step) = &killed {
        let kernel = fs::read_to_string(&pid).unwrap();
        succeed(command("kill").args(["-KILL", "--"]).arg(format!("-{}", kernel.trim())));
        eprintln!("{at}: killed while {step}");
    }
    let status = guest.wait().unwrap();
    reader.join().unwrap();
    said.extend(lines.try_iter());
    let story = || format!("{at}: {}\n{}", said.join("\n"), fs::read_to_string(&complaint).unwrap());
    assert_eq!(killed.is_some(), kill_after.is_some(), "it ended by itself: {}", story());
    assert!(killed.is_some() || status.success(), "{}", story());
    said.iter().filter(|line| line.contains("judged: ")).for_each(|line| eprintln!("{at}: {line}"));
    assert!(said.iter().any(|line| line.contains("judged: ")), "nothing was looked at: {}", story());
}

/// Waits until a backup has been under way for so long; answers what it was doing then. When one ends before, the next
/// gets half of it.
fn wait_for_moment(lines: &Receiver<String>, mut moment: Duration, said: &mut Vec<String>) -> Option<String> {
    let mut running: Option<(Instant, String)> = None;
    loop {
        let left =
            running.as_ref().map_or(Duration::from_secs(400), |(began, _)| moment.saturating_sub(began.elapsed()));
        match lines.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => return running.map(|(_, step)| step),
            Err(RecvTimeoutError::Disconnected) => return None,
            Ok(line) => {
                match (line.strip_prefix("step: "), &mut running) {
                    (Some("ended"), _) => {
                        moment /= 2;
                        running = None;
                    }
                    (Some(step), None) => running = Some((Instant::now(), step.to_owned())),
                    (Some(step), Some((_, now))) => step.clone_into(now),
                    (None, _) => {}
                }
                said.push(line);
            }
        }
    }
}

/// Not a test by itself: what runs in the guest. It looks at what the last kill has left, and goes on until the next.
#[test]
fn child() {
    let Ok(layout) = std::env::var(CHILD) else { return };
    assert!(has_device_mapper(), "it runs in the guest");
    let engine = if layout == "thin" { Engine::LvmThin } else { Engine::LvmThick };
    let disk = Path::new("/mnt/kept");
    fs::create_dir(disk).unwrap();
    let is_new = !command("blkid").arg(KEPT).output().unwrap().status.success();
    if is_new {
        succeed(command("mkfs.ext4").args(["-q", KEPT]));
    }
    succeed(command("mount").args([KEPT, "/mnt/kept"]));
    let (root, ledger) = (disk.join("lvault"), Ledger(disk.join("ledger")));
    if is_new {
        fs::create_dir(&root).unwrap();
        fs::create_dir(&ledger.0).unwrap();
    }
    let mut world = World::kept(&root, engine, Settings::default());
    if is_new {
        world.volume("data");
        world.storage("main");
        succeed(&mut command("sync"));
    }
    let judged = judge(&world, &ledger);
    println!("judged: {judged}");
    if std::env::var(LAST).is_ok_and(|last| last == "true") {
        world.terminate();
        world.start();
        world.finish();
        succeed(command("umount").arg(disk));
        return;
    }
    for round in ledger.names().len().. {
        back_up(&world, &ledger, round);
    }
}

fn back_up(world: &World, ledger: &Ledger, round: usize) {
    let (name, data) = (format!("s{round}"), PathBuf::from(world.ok(&["volume", "path", "data"])));
    let part = data.join(format!("part-{}", round % 3));
    if part.exists() {
        fs::remove_dir_all(&part).unwrap();
    }
    fs::create_dir(&part).unwrap();
    fill(&part, round as u64 + 1, 8);
    // What is not on the disk may be lost with the machine.
    succeed(&mut command("sync"));
    Tree::of(&data).save(&ledger.file(&name, "tree"));
    println!("step: asked");
    world.snapshot(&name, "data", &[]);
    File::create(ledger.file(&name, "acknowledged")).unwrap().sync_all().unwrap();
    world.wait(&name, "it runs", |seen| crate::history::transfer(seen).is_some_and(|now| now.phase != Phase::Pending));
    println!("step: running");
    world.ended(&name, 1);
    println!("step: ended");
}

/// What each snapshot has to hold, noted before it was asked for.
struct Ledger(PathBuf);

impl Ledger {
    fn file(&self, name: &str, what: &str) -> PathBuf {
        self.0.join(format!("{name}.{what}"))
    }

    fn names(&self) -> Vec<String> {
        let files = list(&self.0).into_iter().filter(|file| file.extension().is_some_and(|what| what == "tree"));
        files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }
}

/// Everything that has to hold once lvault has come to rest after a start; in words.
fn judge(world: &World, ledger: &Ledger) -> String {
    let data = world.uid("data");
    world.wait("data", "it is served", |seen| seen.status.as_ref().is_some_and(|status| status.mount_path.is_some()));
    let repository = world.repository("main", "data");
    let (mut whole, mut failed, mut never) = (0, Vec::new(), 0);
    for name in ledger.names() {
        let acknowledged = ledger.file(&name, "acknowledged").exists();
        let Some(object) = world.get(&name) else {
            assert!(!acknowledged, "{name} was acknowledged, and is gone");
            never += 1;
            continue;
        };
        let (uid, ended) = (object.metadata.uid.unwrap(), world.ended(&name, 1));
        let commits = repository.of(&uid, 1);
        if ended.phase == Phase::Failed {
            let error = ended.error.expect("a reason");
            assert!(commits.is_empty() && !error.message.is_empty(), "{name}: {commits:?}, {error:?}");
            failed.push(format!("{}: {}", error.code, error.message));
            world.node().settle_keeping(&uid);
            continue;
        }
        whole += 1;
        let [only] = commits.as_slice() else { panic!("{name} has these commits: {commits:?}") };
        assert_eq!(ended.snapshot_id.as_ref(), Some(only), "{name}");
        world.node().settle(&uid);
        if !ledger.file(&name, "judged").exists() {
            Tree::load(&ledger.file(&name, "tree")).assert_same(&repository.restored(only, "data"));
            File::create(ledger.file(&name, "judged")).unwrap();
        }
    }
    if whole > 0 {
        assert_eq!(repository.snapshots().len(), whole, "commits that no attempt knows");
        assert_eq!(repository.locks(), 0, "locks are left");
        repository.check();
    }
    let kept = failed.len();
    assert_eq!(world.group().volumes().len(), 1 + kept, "{:?}: volumes are left", world.group().volumes());
    assert!(world.group().volumes().contains(&data), "{:?}", world.group().volumes());
    assert_eq!(mounts_below(&world.state.join("mnt")).len(), 1, "mounts are left");
    format!("{whole} whole, {never} never asked for, failed: {failed:?}")
}
