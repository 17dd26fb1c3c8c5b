//! The usual way of a user: make, look, snapshot, restore, grow, delete; what failed, again.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::world::{NODE, World, lvault, program};

#[test]
fn from_a_volume_to_its_restore_and_away_again() {
    let mut world = World::start();
    let repository = world.root().join("repository");
    fs::create_dir(&repository).unwrap();
    let password = world.root().join("password");
    fs::write(&password, "correct horse battery staple\n").unwrap();
    world.ok(&format!(
        "storage add backup --local {} --password-file {} --wait --timeout 60s",
        repository.display(),
        password.display()
    ));
    assert!(world.ok("volume create data --size 64Mi --wait --timeout 60s").contains("64.0 MiB, ready"));
    let folder = world.ok("volume path data");
    fs::write(format!("{}/file", folder.trim_end()), "what it holds").unwrap();

    let done = world.ok("snapshot create s1 --source data --storage backup --wait --timeout 100s");
    assert!(done.starts_with("snapshot s1: Succeeded"), "{done}");
    assert!(world.ok("snapshot watch s1 --timeout 10s").starts_with("snapshot s1: Succeeded"));
    let list = world.ok("snapshot list");
    assert!(list.lines().count() == 2 && list.contains("default/backup") && list.contains("Succeeded"), "{list}");
    let story = world.ok("why s1");
    assert!(story.contains("of repository default/data in storage default/backup"), "{story}");

    // From the object, and from the repository alone.
    assert!(world.ok("restore copy --from s1 --wait --timeout 100s").contains("Succeeded"));
    let object: Value = serde_json::from_str(&world.ok("get s1 -o json")).unwrap();
    let id = object["status"]["onlineSnapshot"]["snapshotID"].as_str().unwrap();
    let line = format!("restore other --storage backup --path default/data --snapshot-id {id} --size 64Mi");
    world.ok(&format!("{line} --wait --timeout 100s"));
    for name in ["copy", "other"] {
        let folder = world.ok(&format!("volume path {name}"));
        assert_eq!(fs::read_to_string(format!("{}/file", folder.trim_end())).unwrap(), "what it holds", "{name}");
    }

    assert!(world.ok("volume resize copy 96Mi --wait --timeout 30s").contains("96.0 MiB"));
    let list = world.ok("volume list");
    assert!(list.contains("96.0 MiB") && list.contains(NODE) && !list.contains("s1"), "{list}");
    assert!(world.ok("get restores").contains("copy"));

    // It all is there again after a restart, at the same port.
    let kubeconfig = fs::read_to_string(world.state().join("kubeconfig")).unwrap();
    world.down();
    world.up();
    assert_eq!(fs::read_to_string(world.state().join("kubeconfig")).unwrap(), kubeconfig);
    assert_eq!(world.objects()["items"].as_array().unwrap().len(), 5);

    for line in ["volume delete data", "volume delete copy", "volume delete other", "snapshot delete s1"] {
        assert!(world.ok(&format!("{line} --wait --timeout 100s")).contains("deleted"), "{line}");
    }
    assert!(world.ok("storage delete backup").contains("Secret default/backup"));
    assert!(world.ok("get").contains("nothing there yet"));
    let log = world.log();
    assert!(!log.contains("correct horse"), "the password stands in the log");
}

#[test]
fn a_snapshot_that_fails_says_why_and_can_be_tried_again() {
    let world = World::start();
    let repository = world.root().join("repository");
    fs::create_dir(&repository).unwrap();
    world.ok(&format!("storage add backup --local {} --wait --timeout 60s", repository.display()));
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    // Something that is no repository stands where the volume's repository belongs.
    let place = repository.join("default/data");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("config"), "this is no repository").unwrap();

    let said = world.run("snapshot create s1 --source data --storage backup --wait --timeout 100s");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("error: snapshot s1 failed: ") && said.err.contains("lvault snapshot retry s1"),
        "{said:?}"
    );
    let story = world.ok("why s1");
    assert!(story.starts_with("snapshot s1: Failed: ") && story.contains("lvault snapshot retry s1"), "{story}");
    assert_eq!(world.run("snapshot watch s1 --timeout 10s").code, 1);

    fs::remove_dir_all(&place).unwrap();
    let done = world.ok("snapshot retry s1 --wait --timeout 100s");
    assert!(done.starts_with("snapshot s1: Succeeded"), "{done}");
    assert!(world.ok("snapshot list -o wide").lines().nth(1).unwrap().contains(" 2 "), "it was attempt 2");
}

#[test]
fn a_storage_is_checked_when_asked() {
    let world = World::start();
    let repository = world.root().join("repository");
    fs::create_dir(&repository).unwrap();
    let said = world
        .run_with(&format!("storage add s --local {} --password-stdin", repository.display()), Some("Tr0ub4dor\n"));
    assert!(said.code == 0 && !format!("{said:?}{}", world.log()).contains("Tr0ub4dor"), "{said:?}");
    assert_eq!(world.ok("storage check s --timeout 60s"), "storage default/s: Ready\n");
    fs::remove_dir(&repository).unwrap();
    fs::write(&repository, "a file").unwrap();
    let said = world.run("storage check s --timeout 60s");
    assert!(said.code == 1 && said.err.contains("repository"), "{said:?}");
    let said = world.run("snapshot create x --source y --storage s");
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn waiting_ends_when_told_and_stops_nothing() {
    let world = World::start();
    let repository = world.root().join("repository");
    fs::create_dir(&repository).unwrap();
    world.ok(&format!("storage add s --local {} --wait --timeout 60s", repository.display()));
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    let said = world.run("snapshot create x --source data --storage s --wait --timeout 1ms");
    assert!(said.code == 3 && said.err.contains("lvault why x"), "{said:?}");
    assert!(world.ok("snapshot watch x --timeout 100s").contains("Succeeded"));
}

#[test]
fn kubectl_sees_the_objects() {
    let world = World::start();
    world.ok("volume create data --size 64Mi --wait --timeout 60s");
    let mut kubectl = program("kubectl");
    kubectl.env("KUBECONFIG", world.state().join("kubeconfig")).args(["get", "lv"]);
    match kubectl.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("data") && text.contains("Ready"), "{output:?}");
        }
        Err(error) => assert!(
            std::env::var("LVAULT_WITHOUT_KUBECTL").is_ok_and(|value| value == "1"),
            "kubectl cannot be run ({error}): install kubernetes-client, or set LVAULT_WITHOUT_KUBECTL=1"
        ),
    }
}

#[test]
fn secrets_are_for_their_owner_only() {
    let world = World::start();
    let mode = |path: &str| fs::metadata(world.state().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("kubeconfig"), mode("tls")), (0o700, 0o600, 0o700));
}

#[test]
fn it_says_its_version_and_completes_itself() {
    let run = |args: &[&str]| String::from_utf8(lvault().args(args).output().unwrap().stdout).unwrap();
    assert_eq!(run(&["version"]), format!("lvault {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.contains("snapshot") && script.contains("deletion-policy"), "{shell}");
    }
}
