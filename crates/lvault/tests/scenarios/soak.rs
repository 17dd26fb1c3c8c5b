//! A soak: users and misfortunes at random for a while, then quiet, and then everything is judged.
//!
//! Snapshots, changes, restores, retries and deletions, while executors and lvault itself are killed and stopped, and
//! the storage fills up or cannot be written, or its server answers badly or not at all. In the end every attempt has to end well, every snapshot has to restore
//! to what its volume held when it was cut, restic has to find every repository whole, and nothing may be left over.
//! 5 s in a usual run; `LVAULT_SOAK_SECONDS` says otherwise, `LVAULT_SEED` repeats the choices (not the timing).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lvault_api::{Phase, TransferStatus};

use crate::data::{Tree, fill};
use crate::history::transfer;
use crate::process::{Dice, Process, until};
use crate::world::{Engine, Settings, World};
use storage::{Hurt, Storage};

mod storage;

on_each_engine!(whatever_happens_it_ends_well);

/// How many operations may be under way at once.
const AT_ONCE: usize = 4;
/// How many snapshots are kept; older ones make room.
const KEPT: usize = 24;

fn whatever_happens_it_ends_well(engine: Engine) {
    soak(engine, Storage::folder);
}

#[test]
fn whatever_happens_to_a_bucket_it_ends_well() {
    soak(Engine::Directory, Storage::bucket);
}

fn soak(engine: Engine, storage: fn(&World) -> Storage) {
    let seconds = std::env::var("LVAULT_SOAK_SECONDS").ok().and_then(|given| given.parse().ok()).unwrap_or(5);
    let world = World::with(engine, Settings { lease: "4s", ..Settings::default() });
    let storage = storage(&world);
    let volumes = ["v0", "v1"].map(|name| Volume::new(&world, name)).into();
    let mut soak = Soak {
        world,
        storage,
        dice: Dice::new(),
        volumes,
        operations: Vec::new(),
        stopped: Vec::new(),
        deleted: Vec::new(),
        made: 0,
        hurt: None,
        done: BTreeMap::new(),
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let what = soak.step();
        *soak.done.entry(what).or_default() += 1;
        soak.dice.sleep(Duration::from_millis(200));
    }
    soak.quiet();
    soak.judge();
    eprintln!("{engine:?}, {}, {seconds} s: {:?}", soak.storage, soak.done);
    soak.world.finish();
}

/// A volume that snapshots are made of.
struct Volume {
    name: String,
    folder: PathBuf,
    /// What it holds now.
    tree: Rc<Tree>,
    changes: u64,
}

impl Volume {
    fn new(world: &World, name: &str) -> Volume {
        let folder = world.volume(name);
        fill(&folder, 1, 2);
        Volume { name: name.to_owned(), tree: Rc::new(Tree::of(&folder)), folder, changes: 0 }
    }
}

/// A snapshot or a restore that was asked for.
struct Operation {
    name: String,
    uid: String,
    /// Of which volume.
    volume: usize,
    /// What it has to hold in the end.
    tree: Rc<Tree>,
    attempt: i32,
    is_restore: bool,
}

struct Soak {
    world: World,
    storage: Storage,
    dice: Dice,
    volumes: Vec<Volume>,
    operations: Vec<Operation>,
    stopped: Vec<Process>,
    deleted: Vec<(usize, String)>,
    made: u32,
    hurt: Option<Hurt>,
    done: BTreeMap<&'static str, u32>,
}

impl Soak {
    /// Does one thing; answers with what it was.
    fn step(&mut self) -> &'static str {
        if self.hurt.as_ref().is_some_and(|hurt| hurt.until < Instant::now()) {
            self.heal();
            return "storage healed";
        }
        match self.dice.below(20) {
            0..=4 => self.snapshot(),
            5 | 6 => self.change(),
            7..=9 => self.kill_executor(),
            10 | 11 => self.stop_executor(),
            12 => self.go_on(),
            13 => self.crash(),
            14 => self.restart(),
            15 => self.hang(),
            16 => self.hurt(),
            17 => self.retry(),
            18 => self.delete(),
            _ => self.restore(),
        }
    }

    fn status(&self, operation: &Operation) -> Option<TransferStatus> {
        self.world.history.latest(&operation.name).as_ref().and_then(transfer)
    }

    fn phase(&self, operation: &Operation) -> Option<Phase> {
        self.status(operation).filter(|status| status.attempt == operation.attempt).map(|status| status.phase)
    }

    fn under_way(&self) -> Vec<usize> {
        let open =
            |operation: &Operation| matches!(self.phase(operation), None | Some(Phase::Pending | Phase::Running));
        (0..self.operations.len()).filter(|at| open(&self.operations[*at])).collect()
    }

    fn one_of(&mut self, choices: &[usize]) -> Option<usize> {
        let at = self.dice.below(choices.len() as u64);
        choices.get(usize::try_from(at).unwrap()).copied()
    }

    fn ended(&self, phase: Phase) -> Vec<usize> {
        (0..self.operations.len()).filter(|at| self.phase(&self.operations[*at]) == Some(phase)).collect()
    }

    fn snapshot(&mut self) -> &'static str {
        if self.under_way().len() >= AT_ONCE {
            return "nothing: enough is under way";
        }
        if self.operations.len() >= KEPT {
            return self.delete();
        }
        self.made += 1;
        let (name, volume) = (format!("s{}", self.made), usize::try_from(self.dice.below(2)).unwrap());
        let source = &self.volumes[volume].name;
        let asked = ["snapshot", "create", &name, "--source", source, "--storage", "main", "--backoff-limit", "5"];
        if !self.asked(&asked) {
            return "refused: the storage is out of order";
        }
        let uid = self.world.uid(&name);
        let tree = Rc::clone(&self.volumes[volume].tree);
        self.operations.push(Operation { name, uid, volume, tree, attempt: 1, is_restore: false });
        "snapshot"
    }

    /// Runs `lvault`, which may refuse only what a broken storage cannot do.
    fn asked(&self, args: &[&str]) -> bool {
        if self.hurt.is_none() {
            self.world.ok(args);
            return true;
        }
        let output = self.world.cli(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("its check failed"), "lvault {args:?}: {said}");
        output.status.success()
    }

    fn restore(&mut self) -> &'static str {
        let mut whole = self.ended(Phase::Succeeded);
        whole.retain(|at| !self.operations[*at].is_restore);
        let Some(from) = self.one_of(&whole).filter(|_| self.under_way().len() < AT_ONCE) else {
            return "nothing: no snapshot to restore";
        };
        self.made += 1;
        let name = format!("r{}", self.made);
        let from = &self.operations[from];
        let (volume, tree) = (from.volume, Rc::clone(&from.tree));
        if !self.asked(&["restore", &name, "--from", &from.name]) {
            return "refused: the storage is out of order";
        }
        let uid = self.world.uid(&name);
        self.operations.push(Operation { name, uid, volume, tree, attempt: 1, is_restore: true });
        "restore"
    }

    /// Only what no snapshot is about to be cut of is changed: so it is known what each of them has to hold.
    fn change(&mut self) -> &'static str {
        let volume = usize::try_from(self.dice.below(2)).unwrap();
        let waits = |operation: &Operation| {
            !operation.is_restore
                && operation.volume == volume
                && matches!(self.phase(operation), None | Some(Phase::Pending))
        };
        if self.operations.iter().any(waits) {
            return "nothing: a snapshot is about to be cut";
        }
        let Volume { folder, tree, changes, .. } = &mut self.volumes[volume];
        *changes += 1;
        let part = folder.join(format!("part-{}", *changes % 8));
        if part.exists() {
            fs::remove_dir_all(&part).unwrap();
        }
        fs::create_dir(&part).unwrap();
        fill(&part, *changes, 1);
        *tree = Rc::new(Tree::of(folder));
        "change"
    }

    fn an_executor(&mut self) -> Option<Process> {
        let open = self.under_way();
        let at = self.one_of(&open)?;
        self.world.executors(&self.operations[at].uid).pop().map(|executor| executor.process)
    }

    fn kill_executor(&mut self) -> &'static str {
        let Some(executor) = self.an_executor() else { return "nothing: no executor" };
        self.dice.sleep(Duration::from_millis(300));
        if executor.kill() { "executor killed" } else { "nothing: the executor had ended" }
    }

    fn stop_executor(&mut self) -> &'static str {
        let Some(executor) = self.an_executor() else { return "nothing: no executor" };
        self.dice.sleep(Duration::from_millis(300));
        executor.stop();
        self.stopped.push(executor);
        "executor stopped"
    }

    /// Some go on after the agent has given them up, some before.
    fn go_on(&mut self) -> &'static str {
        match self.stopped.pop() {
            Some(executor) => executor.go_on(),
            None => return "nothing: no executor was stopped",
        }
        "executor continued"
    }

    fn crash(&mut self) -> &'static str {
        self.world.kill();
        self.dice.sleep(Duration::from_millis(500));
        self.world.start();
        "lvault killed"
    }

    fn restart(&mut self) -> &'static str {
        self.world.terminate();
        self.world.start();
        "lvault restarted"
    }

    fn hang(&mut self) -> &'static str {
        let agent = self.world.agent();
        agent.stop();
        self.dice.sleep(Duration::from_secs(6));
        agent.go_on();
        "lvault stopped for a while"
    }

    fn hurt(&mut self) -> &'static str {
        if self.hurt.is_some() {
            return "nothing: the storage is out of order already";
        }
        self.hurt = self.storage.hurt(&self.world, &mut self.dice);
        self.hurt.as_ref().map_or("nothing: the storage stays as it is", Hurt::what)
    }

    fn heal(&mut self) {
        if let Some(hurt) = self.hurt.take() {
            self.storage.heal(&self.world, &hurt);
            self.world.ok(&["storage", "check", "main", "--timeout", "60s"]);
        }
    }

    fn retry(&mut self) -> &'static str {
        let failed = self.ended(Phase::Failed);
        let Some(at) = self.one_of(&failed) else { return "nothing: nothing has failed" };
        self.try_again(at);
        "retry"
    }

    fn try_again(&mut self, at: usize) {
        let Operation { name, uid, volume, is_restore, .. } = &self.operations[at];
        if *is_restore {
            self.world.ok(&["restore", name, "--retry"]);
        } else {
            // A failed attempt keeps what it has cut; where it came to nothing, the retry cuts today's data.
            if self.world.node().identity(uid).is_none() {
                let today = Rc::clone(&self.volumes[*volume].tree);
                self.operations[at].tree = today;
            }
            self.world.ok(&["snapshot", "retry", &self.operations[at].name]);
        }
        self.operations[at].attempt += 1;
    }

    fn delete(&mut self) -> &'static str {
        let all: Vec<usize> = (0..self.operations.len()).collect();
        let Some(at) = self.one_of(&all) else { return "nothing: nothing to delete" };
        let gone = self.operations.remove(at);
        self.world.delete(&gone.name);
        if !gone.is_restore {
            self.deleted.push((gone.volume, gone.uid));
        }
        "deletion"
    }

    /// No misfortune any more: everything has to come to its end, and what has failed to succeed when it is retried.
    fn quiet(&mut self) {
        self.heal();
        self.stopped.drain(..).for_each(|executor| executor.go_on());
        for at in 0..self.operations.len() {
            let phase = until(&format!("{} ends\n{}", self.operations[at].name, self.world.story()), || {
                self.phase(&self.operations[at]).filter(|phase| matches!(phase, Phase::Succeeded | Phase::Failed))
            });
            if phase == Phase::Failed {
                self.try_again(at);
                let Operation { name, attempt, .. } = &self.operations[at];
                self.world.phase(name, *attempt, Phase::Succeeded);
            }
        }
    }

    fn judge(&mut self) {
        let repositories: Vec<_> =
            self.volumes.iter().map(|volume| self.storage.repository(&self.world, &volume.name)).collect();
        for operation in &self.operations {
            self.world.node().settle_executors(&operation.uid);
            if operation.is_restore {
                let ready = |seen: &lvault_api::LogicalVolume| {
                    seen.status.as_ref().is_some_and(|status| status.mount_path.is_some())
                };
                self.world.wait(&operation.name, "is published", ready);
                let folder = PathBuf::from(self.world.ok(&["volume", "path", &operation.name]));
                operation.tree.assert_same(&Tree::of(&folder));
                continue;
            }
            self.world.node().settle(&operation.uid);
            let repository = &repositories[operation.volume];
            let only = repository.only(&operation.uid, u32::try_from(operation.attempt).unwrap());
            assert_eq!(self.status(operation).and_then(|status| status.snapshot_id), Some(only.clone()));
            operation.tree.assert_same(&repository.restored(&only, &self.volumes[operation.volume].name));
        }
        for (volume, uid) in &self.deleted {
            until(&format!("nothing of {uid} is left in the repository"), || {
                (1..=9).all(|attempt| repositories[*volume].of(uid, attempt).is_empty()).then_some(())
            });
        }
        for repository in repositories.iter().filter(|repository| repository.commits() > 0) {
            repository.check();
        }
    }
}
