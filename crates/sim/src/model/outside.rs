//! What comes from outside: users, time, and faults of executors.

use super::settings::Settings;
use super::state::World;
use super::{Actor, Step};

/// Everything that may happen from outside.
pub fn steps(settings: &Settings, world: &World, into: &mut Vec<(Step, World)>) {
    users(settings, world, into);
    time(world, into);
    faults(world, into);
}

fn users(settings: &Settings, world: &World, into: &mut Vec<(Step, World)>) {
    let step = |what: &str| Step { actor: Actor::User, what: what.to_owned() };
    if let Some(object) = &world.object {
        if world.faults.deletions > 0 && !object.deleting {
            let mut after = world.clone();
            after.faults.deletions -= 1;
            if object.finalizer {
                after.write(|object| object.deleting = true);
            } else {
                after.object = None;
            }
            into.push((step("deletes the object"), after));
        }
        if object.wanted.get() < settings.attempts {
            let mut after = world.clone();
            after.write(|object| object.wanted = object.wanted.next());
            into.push((step("raises the attempt"), after));
        }
    }
    if world.faults.source_deletions > 0 && world.source {
        let mut after = world.clone();
        after.faults.source_deletions -= 1;
        after.source = false;
        into.push((step("deletes the source"), after));
    }
    if world.faults.storage_changes > 0 {
        let mut after = world.clone();
        after.faults.storage_changes -= 1;
        after.storage = !after.storage;
        into.push((step("removes the storage, or adds it again"), after));
    }
}

/// What waits for a storage that is not there becomes overdue. Nobody writes that anywhere.
fn time(world: &World, into: &mut Vec<(Step, World)>) {
    let Some(object) = &world.object else { return };
    let open = object.record.as_ref().is_some_and(|record| !record.is_terminal());
    if !world.storage && open && !object.overdue {
        let mut after = world.clone();
        if let Some(object) = &mut after.object {
            object.overdue = true;
        }
        into.push((Step { actor: Actor::Nature, what: "the start deadline passes".to_owned() }, after));
    }
}

fn faults(world: &World, into: &mut Vec<(Step, World)>) {
    for (index, process) in world.executors.iter().enumerate() {
        let name = process.name;
        let mut happens = |what: String, after: World| into.push((Step { actor: Actor::Fault, what }, after));
        if world.faults.executor_crashes > 0 {
            let mut after = world.clone();
            after.faults.executor_crashes -= 1;
            after.end(name);
            happens(format!("executor {name} is killed"), after);
        }
        if world.faults.hangs > 0 && !process.hung {
            let mut after = world.clone();
            after.faults.hangs -= 1;
            after.executors[index].hung = true;
            happens(format!("executor {name} stops"), after);
        }
        if world.faults.wakes > 0 && process.hung {
            let mut after = world.clone();
            after.faults.wakes -= 1;
            after.executors[index].hung = false;
            happens(format!("executor {name} goes on"), after);
        }
        if world.faults.zombies > 0 && process.locked {
            let mut after = world.clone();
            after.faults.zombies -= 1;
            after.executors[index].locked = false;
            happens(format!("executor {name} is taken for ended and goes on"), after);
        }
    }
}
