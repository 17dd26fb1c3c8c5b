//! The care of repositories: space, locks, damage, another password.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use crate::world::{World, program, until};

/// The Secret of storage `backup`.
const SECRET: &str = "backup";
const OLD: &str = "correct horse battery staple";
const NEW: &str = "an entirely different one";

/// A storage with one volume, of which there are two snapshots: `s1` and, with everything changed, `s2`.
fn world() -> (World, PathBuf, PathBuf) {
    let world = World::start();
    let storage = world.root().join("repository");
    fs::create_dir(&storage).unwrap();
    let password = world.root().join("password");
    fs::write(&password, OLD).unwrap();
    let line = format!("storage add backup --local {} --password-file {}", storage.display(), password.display());
    world.ok(&format!("{line} --wait --timeout 100s"));
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    let folder = PathBuf::from(world.ok("volume path data").trim_end());
    for number in 1..=2_u8 {
        let noise: Vec<u8> =
            (0..600_000_u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ number).collect();
        fs::write(folder.join("file"), noise).unwrap();
        world.ok(&format!("snapshot create s{number} --source data --storage backup --wait --timeout 100s"));
    }
    (world, storage.join("default/data"), folder)
}

fn restic(repository: &Path, password: &str, arguments: &[&str]) -> std::process::Command {
    let mut restic = program("restic");
    restic.args(["--no-cache", "-r"]).arg(repository).args(arguments).env("RESTIC_PASSWORD", password);
    restic
}

fn opens(repository: &Path, password: &str) -> bool {
    restic(repository, password, &["check", "--read-data"]).output().unwrap().status.success()
}

#[test]
fn space_is_given_back_and_locks_and_damage_are_named() {
    let (world, repository, _) = world();
    assert!(world.ok("storage list -o json").contains("\"intervalHours\": 24"));
    world.ok("snapshot delete s1 --wait --timeout 100s");
    let told = world.ok("storage prune backup --dry-run");
    assert!(told.starts_with("default/data: ") && !told.contains(" 0 B of it not needed"), "{told}");
    let told = world.ok("storage prune backup --max-unused 0%");
    assert!(told.contains("given back (2 packs removed") && told.contains(" 0 B of it not needed"), "{told}");
    assert!(opens(&repository, OLD), "restic finds it whole, and no lock");

    // A restic that is killed leaves its lock.
    let mut killed = restic(&repository, OLD, &["backup", "--stdin"]);
    let mut killed = killed.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    until("restic holds its lock", || fs::read_dir(repository.join("locks")).unwrap().next().map(drop));
    let pid = killed.id();
    let refused = world.ok("storage unlock backup");
    assert!(refused.contains(&format!("process {pid}")) && refused.contains("it is in use"), "{refused}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let told = world.ok("storage check backup --read-data");
    assert!(told.contains("default/data: whole (structure, and the data of 2 packs)"), "{told}");
    assert!(told.contains(&format!("process {pid}")) && told.contains("whose holder is gone"), "{told}");
    assert!(world.ok("storage unlock backup").contains("1 locks removed, 0 in use"));
    assert!(world.ok("storage unlock backup").contains("no locks are there"));

    let folders = fs::read_dir(repository.join("data")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let pack = files.map(|file| file.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let file = fs::File::options().read(true).write(true).open(&pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1000).unwrap();
    assert!(world.ok("storage check backup").contains("Ready"), "the storage itself is fine");
    let said = world.run("storage check backup --read-data --repository default/data");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains(pack.file_name().unwrap().to_str().unwrap()), "{said:?}");
    assert!(said.out.contains("snapshots: ") && said.out.contains("\"/data/file\""), "{said:?}");
    assert!(said.err.contains("Damaged") && said.err.contains("help: "), "{said:?}");
    assert_eq!(world.run("storage check backup --read-data --repository default/other").code, 2);
}

#[test]
fn a_password_is_replaced_while_everything_goes_on() {
    let (world, repository, folder) = world();
    let file = world.root().join("new");
    fs::write(&file, NEW).unwrap();
    let told = world.ok(&format!("storage rotate-key backup --password-file {}", file.display()));
    assert!(told.starts_with("1 repositories of storage default/backup") && !told.contains(NEW), "{told}");
    assert!(opens(&repository, NEW) && !opens(&repository, OLD));
    fs::write(folder.join("more"), "more").unwrap();
    world.ok("snapshot create s3 --source data --storage backup --wait --timeout 100s");
    world.ok("restore copy --from s1 --wait --timeout 100s");
    assert_eq!(world.run(&format!("storage rotate-key backup --password-file {}", file.display())).code, 2);
    let told = world.ok("storage rotate-key backup");
    assert!(!opens(&repository, NEW), "{told}");
    world.ok("snapshot create s4 --source data --storage backup --wait --timeout 100s");
    let keys = fs::read_dir(repository.join("keys")).unwrap().count();
    assert_eq!(keys, 1);
    let log = world.log();
    assert!(!log.contains(NEW) && !log.contains(OLD), "a password stands in the log");
}

#[test]
fn a_rotation_does_not_write_over_what_somebody_else_has_changed() {
    let (world, repository, _) = world();
    // Work of another node that does not end keeps the rotation waiting.
    let online = json!({"storage": {"name": "backup"}});
    let spec = json!({"name": "far", "nodeName": "n2", "size": "64Mi", "source": "data", "accessType": "ro",
        "onlineSnapshot": online});
    let far =
        json!({"apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "far"}, "spec": spec});
    let pending = json!({"onlineSnapshot": {"operation": "Backup", "phase": "Pending", "attempt": 1}});
    world.apply(false, "logicalvolumes", &far, Some(&pending));
    let rotation = std::thread::scope(|scope| {
        let rotation = scope.spawn(|| world.run("storage rotate-key backup --timeout 100s"));
        until("the new password is in use", || {
            let secret = world.secret(SECRET, &json!({}));
            secret["data"].get("RESTIC_PASSWORD_PREVIOUS").map(drop)
        });
        world.secret(SECRET, &json!({"metadata": {"labels": {"team": "storage"}}}));
        world.ok("snapshot delete far");
        rotation.join().unwrap()
    });
    assert_eq!(rotation.code, 1, "{rotation:?}");
    assert!(rotation.err.contains("somebody else has just changed it"), "{rotation:?}");
    let told = world.ok("storage rotate-key backup");
    assert!(told.starts_with("1 repositories of storage default/backup"), "{told}");
    let secret = world.secret(SECRET, &json!({}));
    assert_eq!(secret["metadata"]["labels"]["team"], "storage");
    assert!(secret["data"].get("RESTIC_PASSWORD_PREVIOUS").is_none() && !opens(&repository, OLD));
}
