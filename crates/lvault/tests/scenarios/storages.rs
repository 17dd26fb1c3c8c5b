//! Storages that do not take what they are given: a clear reason each, nothing lost, and a retry that works afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use lvault_api::{Phase, TransferStatus};
use rustix::mount::{MountFlags, mount, mount_remount};
use serde_json::json;

use crate::data::{Tree, fill, noise};
use crate::process::Dice;
use crate::world::{Engine, PASSWORD, World, is_root};

on_each_engine!(
    a_wrong_password,
    a_repository_of_a_newer_version,
    a_repository_that_cannot_be_written,
    a_storage_that_is_full,
    data_that_is_damaged_in_the_storage,
);

/// A snapshot that fails, for this reason; and, with the cause gone, its retry. What was in the repository before is
/// whole at the end.
struct Case<'w> {
    world: &'w World,
    data: PathBuf,
    good: Option<(String, Tree)>,
}

impl<'w> Case<'w> {
    fn new(world: &'w World) -> Self {
        let data = world.volume("data");
        fill(&data, 16, 1);
        Case { world, data, good: None }
    }

    fn with_a_good_snapshot(mut self) -> Self {
        let uid = self.world.snapshot("good", "data", &["--wait", "--timeout", "60s"]);
        self.world.node().settle(&uid);
        self.good = Some((uid, Tree::of(&self.data)));
        self
    }

    fn fails(&self, code: &str, said: &[&str]) -> TransferStatus {
        let command = ["snapshot", "create", "bad", "--source", "data", "--storage", "main"];
        let printed = self.world.fails(&[&command[..], &["--wait", "--timeout", "60s"]].concat());
        let failed = self.world.phase("bad", 1, Phase::Failed);
        let error = failed.error.clone().unwrap();
        assert_eq!(error.code, code, "{}", error.message);
        for part in said.iter().chain(&["snapshot retry bad"]) {
            assert!(printed.contains(part), "{part:?} is missing: {printed}");
        }
        for part in said {
            assert!(error.message.contains(part), "{part:?} is missing: {}", error.message);
        }
        assert!(!printed.contains(PASSWORD) && !self.world.log().contains(PASSWORD), "the password was shown");
        let uid = self.world.uid("bad");
        self.world.node().settle_keeping(&uid);
        assert_eq!(failed.snapshot_id, None);
        assert_eq!(failed.executor.clone().and_then(|executor| executor.lost), None, "nobody died of it");
        let version = self.world.version("bad");
        self.world.assert_left_alone("bad", &version);
        failed
    }

    fn is_mended(&self) {
        let uid = self.world.uid("bad");
        let there = Tree::of(&self.data);
        self.world.ok(&["snapshot", "retry", "bad", "--wait", "--timeout", "60s"]);
        let done = self.world.phase("bad", 2, Phase::Succeeded);
        let repository = self.world.repository("main", "data");
        let committed = repository.snapshots();
        assert_eq!((committed.of(&uid, 1), Some(committed.only(&uid, 2))), (Vec::new(), done.snapshot_id));
        there.assert_same(&repository.restored(&committed.only(&uid, 2), "data"));
        if let Some((good, tree)) = &self.good {
            tree.assert_same(&repository.restored(&committed.only(good, 1), "data"));
        }
        repository.check();
    }
}

fn set_password(world: &World, password: &str) {
    let patch = Patch::Merge(json!({"stringData": {"RESTIC_PASSWORD": password}}));
    let written = world.ask(async |client| {
        Api::<Secret>::namespaced(client, "default").patch("main", &PatchParams::default(), &patch).await
    });
    written.expect("the Secret of the storage");
}

fn a_wrong_password(engine: Engine) {
    let world = World::new(engine);
    world.storage("main");
    let case = Case::new(&world).with_a_good_snapshot();
    set_password(&world, "tr0ub4dor&3");
    case.fails("WrongPassword", &["password", "default/data"]);
    set_password(&world, PASSWORD);
    case.is_mended();
    world.finish();
}

fn a_repository_of_a_newer_version(engine: Engine) {
    let world = World::new(engine);
    let folder = world.storage("main").join("default/data");
    fs::create_dir_all(folder.join("keys")).unwrap();
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/repository-of-version-3");
    fs::copy(made.join("config"), folder.join("config")).unwrap();
    for key in crate::process::list(&made.join("keys")) {
        fs::copy(&key, folder.join("keys").join(key.file_name().unwrap())).unwrap();
    }
    let before = Tree::of(&folder);
    let case = Case::new(&world);
    case.fails("RepositoryTooNew", &["newer format", "`3`", "use a newer lvault"]);
    before.assert_same(&Tree::of(&folder));
    fs::remove_dir_all(&folder).unwrap();
    case.is_mended();
    world.finish();
}

/// A filesystem of its own under a storage's folder, which goes with the run.
pub(crate) fn own_filesystem(world: &World, megabytes: u32) -> PathBuf {
    let folder = world.root().join("storage/main");
    fs::create_dir_all(&folder).unwrap();
    let options = std::ffi::CString::new(format!("size={megabytes}m,mode=0700")).unwrap();
    mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).expect("a tmpfs");
    folder
}

fn a_repository_that_cannot_be_written(engine: Engine) {
    let world = World::new(engine);
    if is_root() {
        let folder = own_filesystem(&world, 64);
        world.storage("main");
        let case = Case::new(&world).with_a_good_snapshot();
        mount_remount(&folder, MountFlags::RDONLY, c"").expect("read-only");
        case.fails("StorageFailed", &["storage/main/default/data", "make the storage writable"]);
        mount_remount(&folder, MountFlags::empty(), c"").expect("writable");
        case.is_mended();
    } else {
        let folder = world.storage("main");
        let case = Case::new(&world).with_a_good_snapshot();
        let modes = |mode: u32| {
            for path in [folder.join("default/data/snapshots"), folder.join("default/data/index")] {
                fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            }
        };
        modes(0o500);
        case.fails("StorageFailed", &["storage/main/default/data", "read and write access"]);
        modes(0o700);
        case.is_mended();
    }
    world.finish();
}

fn a_storage_that_is_full(engine: Engine) {
    if !is_root() {
        eprintln!("SKIPPED: a full storage needs a small filesystem of its own, and that needs root");
        return;
    }
    let world = World::new(engine);
    let folder = own_filesystem(&world, 8);
    world.storage("main");
    let case = Case::new(&world).with_a_good_snapshot();
    noise(&case.data.join("too much"), &mut Dice::of(17), 12 << 20);
    case.fails("StorageFailed", &["storage/main/default/data", "make room on the storage"]);
    mount_remount(&folder, MountFlags::empty(), c"size=64m").expect("more room");
    case.is_mended();
    world.finish();
}

/// A pack of an earlier snapshot is damaged. A storage whose data is read back does not let a snapshot succeed that needs it;
/// one whose data is not read back does, until the repair, after which the next snapshot makes all of them whole.
fn data_that_is_damaged_in_the_storage(engine: Engine) {
    let world = World::new(engine);
    let folder = world.storage("main");
    let (password, at) = (world.root().join("password").display().to_string(), folder.display().to_string());
    let add = ["storage", "add", "strict", "--local", &at, "--password-file", &password, "--read-back-data", "100%"];
    world.ok(&[&add[..], &["--wait", "--timeout", "60s"]].concat());
    let data = world.volume("data");
    fill(&data, 23, 2);
    let before = Tree::of(&data);
    let ask = |name: &str, storage: &str| {
        world.cli(&["snapshot", "create", name, "--source", "data", "--storage", storage, "--wait", "--timeout", "60s"])
    };
    assert!(ask("good", "strict").status.success(), "{}", world.log());
    let good = world.uid("good");

    let packs = crate::process::list(&folder.join("default/data/data"));
    let packs = packs.iter().flat_map(|folder| crate::process::list(folder));
    let largest = packs.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let mut content = fs::read(&largest).unwrap();
    content[100] ^= 1;
    fs::write(&largest, content).unwrap();

    assert!(ask("trusting", "main").status.success(), "its data is not looked at");
    assert!(!ask("strict", "strict").status.success());
    let failed = world.phase("strict", 1, Phase::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.code, "VerificationFailed", "{}", error.message);
    assert!(error.message.contains("storage check") && failed.snapshot_id.is_none(), "{}", error.message);

    let name = largest.file_name().unwrap().to_str().unwrap();
    let found = world.cli(&["storage", "check", "main", "--read-data"]);
    let said = String::from_utf8_lossy(&[found.stdout, found.stderr].concat()).into_owned();
    assert!(!found.status.success() && said.contains(name) && said.contains("--repair"), "{said}");
    let repaired = world.cli(&["storage", "check", "main", "--read-data", "--repair"]);
    let said = String::from_utf8_lossy(&[repaired.stdout, repaired.stderr].concat()).into_owned();
    assert!(!repaired.status.success() && said.contains("1 damaged packs") && said.contains("1 are lost"), "{said}");
    assert!(said.contains("take a new snapshot"), "{said}");

    world.ok(&["snapshot", "retry", "strict", "--wait", "--timeout", "60s"]);
    world.phase("strict", 2, Phase::Succeeded);
    assert!(world.ok(&["storage", "check", "main", "--read-data", "--repair"]).contains("default/data: whole"));
    let repository = world.repository("main", "data");
    repository.check();
    before.assert_same(&repository.restored(&repository.only(&good, 1), "data"));
    world.finish();
}
