//! A snapshot of the directory engine is the source with everything that belongs to its files, compared entry by entry:
//! on a filesystem that cannot share blocks, and on one that can.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod support;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lvault_engines::{Access, DirectoryEngine, Filesystem, VolumeEngine};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags, lsetxattr, makedev, mknodat, renameat_with};
use support::{Kind, State, filled, id, root_or_skip, run, snapshot};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One of every kind of file there is.
fn fill(root: &Path) {
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
    write("empty", b"");
    write("text", b"text");
    write("large", &(0..5_000_000_u32).map(|number| (number % 251) as u8).collect::<Vec<_>>());
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 30 << 20).unwrap();
    File::create(root.join("all-hole")).unwrap().set_len(32 << 20).unwrap();
    fs::create_dir_all(root.join("deep/er/and/deeper")).unwrap();
    write("deep/er/and/deeper/file", b"deep");
    fs::create_dir(root.join("empty-folder")).unwrap();
    symlink("text", root.join("link")).unwrap();
    symlink("/nowhere/\u{fc}ber", root.join("dangling")).unwrap();
    symlink("..", root.join("deep/up")).unwrap();
    fs::hard_link(root.join("text"), root.join("deep/second-name")).unwrap();
    fs::hard_link(root.join("text"), root.join("third-name")).unwrap();
    let odd = OsString::from_vec(b"odd \xff\n\t\\ 'name'".to_vec());
    fs::write(root.join(&odd), "odd").unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("empty-folder"), fs::Permissions::from_mode(0o1777)).unwrap();
    xattr(&root.join("text"), "user.plain", b"value");
    xattr(&root.join("deep"), "user.binary", &[0, 255, 0]);
    if is_root() {
        fill_as_root(root);
    }
    for (name, second, nanosecond) in
        [("large", 1_i64, 999_999_999_u32), ("deep/er", -5, 1), ("fifo", 4_000_000_000, 0)]
    {
        let time = format!("@{second}.{nanosecond:09}");
        run("touch", &[OsStr::new("-h"), OsStr::new("-d"), OsStr::new(&time), root.join(name).as_os_str()]);
    }
    run(
        "touch",
        &["-h", "-d", "@77.000000007"]
            .map(OsStr::new)
            .into_iter()
            .chain([root.join("link").as_os_str()])
            .collect::<Vec<_>>(),
    );
    // Neither may be written to by its owner.
    fs::set_permissions(root.join("third-name"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("deep/er/and"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o750)).unwrap();
}

fn fill_as_root(root: &Path) {
    mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 7)).unwrap();
    std::os::unix::fs::chown(root.join("large"), Some(1234), Some(4321)).unwrap();
    std::os::unix::fs::lchown(root.join("dangling"), Some(99), Some(98)).unwrap();
    std::os::unix::fs::chown(root.join("deep"), Some(55), Some(56)).unwrap();
    // A capability (cap_net_raw=ep), and one that a change of owner would clear.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    xattr(&root.join("large"), "security.capability", &capability);
    xattr(&root.join("dangling"), "trusted.on-a-link", b"yes");
    xattr(&root.join("fifo"), "trusted.on-a-fifo", b"yes");
    // An access list and a default one: owner rwx, user 1234 r--, group r-x, mask r-x, other ---.
    let entry = |tag: u16, rights: u16, who: u32| {
        [tag.to_le_bytes().as_slice(), &rights.to_le_bytes(), &who.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, none),
        entry(2, 4, 1234),
        entry(4, 5, none),
        entry(16, 5, none),
        entry(32, 0, none),
    ];
    xattr(&root.join("third-name"), "system.posix_acl_access", &list.concat());
    xattr(&root.join("deep"), "system.posix_acl_default", &list.concat());
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// All that can be seen of one entry, as text.
fn describe(path: &Path, links: &mut BTreeMap<u64, PathBuf>, below: &Path) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let first_name = if kind.is_dir() || meta.nlink() == 1 {
        PathBuf::new()
    } else {
        links.entry(meta.ino()).or_insert_with(|| below.to_owned()).clone()
    };
    let content = if kind.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else if kind.is_file() {
        let bytes = fs::read(path).unwrap();
        let sum = bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let sparse = meta.blocks() * 512 + (4 << 20) < meta.len();
        format!("{} bytes, sum {sum}, sparse {sparse}", bytes.len())
    } else if kind.is_char_device() {
        format!("device {}", meta.rdev())
    } else {
        String::new()
    };
    format!(
        "{:o} {}:{} links {} to {first_name:?} mtime {}.{:09} xattrs {:?} {content}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        if kind.is_dir() { 0 } else { meta.nlink() },
        meta.mtime(),
        meta.mtime_nsec(),
        xattrs(path),
    )
}

fn xattrs(path: &Path) -> BTreeMap<CString, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let (name, mut value) = (CString::new(name).unwrap(), vec![0; 65536]);
        let length = rustix::fs::lgetxattr(path, name.as_c_str(), value.as_mut_slice()).unwrap();
        (name, value[..length].to_vec())
    };
    names.map(value).collect()
}

fn describe_tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut entries = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(below) = entries.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(root.join(&below)).unwrap().is_dir() {
            let names = fs::read_dir(root.join(&below)).unwrap();
            entries.extend(names.map(|entry| below.join(entry.unwrap().file_name())));
        }
    }
    entries.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    let mut links = BTreeMap::new();
    entries.into_iter().map(|below| (below.clone(), describe(&root.join(&below), &mut links, &below))).collect()
}

fn check(state: &Path) {
    let engine = DirectoryEngine::open(state).unwrap();
    let folder = filled(&engine, Kind::Directory, "a", "plain");
    fill(&folder);
    let before = describe_tree(&folder);
    assert!(before.len() > 20, "{before:?}");
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
    assert_eq!(describe_tree(&folder), before, "the source was touched");
    let copy = describe_tree(&engine.ensure_attached(&id("s")).unwrap());
    for (path, entry) in &before {
        assert_eq!(copy.get(path), Some(entry), "{}", path.display());
    }
    assert_eq!(copy.len(), before.len());
    for name in ["a", "s"] {
        support::remove(&engine, name);
    }
    assert_eq!(fs::read_dir(state.join("volumes")).unwrap().count(), 0, "also what its owner may not write to");
}

#[test]
fn a_plain_copy_is_complete() {
    let state = State::new();
    check(&state.path().join("engine"));
}

#[test]
fn a_copy_with_shared_blocks_is_complete_and_takes_no_room() {
    if !root_or_skip("a filesystem with reflinks") {
        return;
    }
    let state = State::new();
    let _pool = state.open(Kind::Image(Filesystem::Ext4)).unwrap();
    let folder = state.pool().join("engine");
    check(&folder);
    let engine = DirectoryEngine::open(&folder).unwrap();
    assert!(engine.capabilities().reflink);
    let data = filled(&engine, Kind::Directory, "big", "");
    fs::write(data.join("big"), vec![3; 100 << 20]).unwrap();
    let used = || {
        let pool = File::open(&folder).unwrap();
        rustix::fs::syncfs(&pool).unwrap();
        let room = rustix::fs::fstatvfs(&pool).unwrap();
        (room.f_blocks - room.f_bfree) * room.f_frsize
    };
    let before = used();
    engine.ensure_snapshot(&snapshot("s", "big", Access::ReadOnly)).unwrap();
    assert!(used() < before + (8 << 20), "{} after {before}", used());
}

#[test]
fn a_file_that_cannot_be_read_fails_the_snapshot_by_name() {
    if is_root() {
        // Root reads everything: the same test runs again below, without root.
        without_root("a_file_that_cannot_be_read_fails_the_snapshot_by_name");
        return;
    }
    let state = State::new();
    let engine = DirectoryEngine::open(state.path()).unwrap();
    let folder = filled(&engine, Kind::Directory, "a", "readable");
    fs::write(folder.join("secret"), "x").unwrap();
    fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    let error = engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap_err();
    assert!(error.to_string().contains("a/data/secret"), "{error}");
    assert_eq!(engine.observe(&id("s")).unwrap(), None);
    let names: Vec<_> = fs::read_dir(state.path().join("volumes")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["a"], "nothing half-made is left");
    fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
}

#[test]
fn a_plain_copy_is_complete_without_root() {
    if is_root() {
        without_root("a_plain_copy_is_complete");
    }
}

/// Runs one test of this binary as nobody, from a copy of the binary that nobody can reach.
fn without_root(test: &str) {
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = support::program(&copy).args(["--exact", test]).uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A writer who swaps a folder for a link while it is copied leads nowhere else: nothing of the target is copied.
#[test]
fn a_tree_that_changes_while_it_is_copied_is_copied_without_leaving_it() {
    const ROUNDS: u32 = 150;
    let state = State::new();
    let engine = DirectoryEngine::open(state.path()).unwrap();
    let outside = state.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let folder = filled(&engine, Kind::Directory, "a", "x");
    fs::create_dir(folder.join("folder")).unwrap();
    fs::write(folder.join("folder/harmless"), "x").unwrap();
    fs::write(folder.join("plain"), "x").unwrap();
    for (link, target) in [("link", outside.as_path()), ("link-to-file", &outside.join("secret"))] {
        symlink(target, folder.join(link)).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = |one: &str, other: &str| {
                let (one, other) = (folder.join(one), folder.join(other));
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            };
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                exchange("folder", "link");
                exchange("plain", "link-to-file");
            }
        });
        for round in 0..ROUNDS {
            // Being led astray would be an error; giving up is none.
            let _cut_or_not = engine.ensure_snapshot(&snapshot(&format!("s-{round}"), "a", Access::ReadOnly));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    engine.ensure_snapshot(&snapshot("last", "a", Access::ReadOnly)).unwrap();
    let copies = fs::read_dir(state.path().join("volumes")).unwrap().map(|entry| entry.unwrap().path());
    for copy in copies {
        assert_eq!(support::files_holding(&copy, "secret"), Vec::<PathBuf>::new());
    }
}
