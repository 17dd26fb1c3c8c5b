//! What the tests share: repositories in fresh folders, plain restic, a tree of every kind of file, and an inventory of a
//! folder that is made without any code of the crate under test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

pub mod azure;
pub mod bucket;
pub mod gcs;
pub mod kill;
pub mod quota;

use jiff::{SignedDuration, Timestamp};
use lvault_backup::{
    BackUp, BackUpError, BackUpReport, ChangeDetection, Host, Key, Location, OnReadError, Password, Repository,
    RepositoryPath, Silent, SourcePath,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tempfile::TempDir;

pub const PASSWORD: &str = "correct horse battery staple";
pub const PATH: &str = "default/data";

/// A storage in a fresh folder, and a folder to back up.
pub struct Bench {
    pub folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("storage")).unwrap();
        std::fs::create_dir(folder.path().join("volume")).unwrap();
        Self { folder }
    }

    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    pub fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    /// An empty folder that is removed with the rest.
    pub fn empty(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    pub fn location(&self) -> Location {
        Location::Local { root: self.storage() }
    }

    /// The repository's folder.
    pub fn repository_folder(&self) -> PathBuf {
        self.storage().join(PATH)
    }

    pub fn repository(&self) -> Repository {
        Repository::open_or_init(&self.location(), &path(PATH), &password(PASSWORD)).unwrap()
    }

    pub fn back_up(&self, repository: &Repository, uid: &str, attempt: u32) -> Result<BackUpReport, BackUpError> {
        repository.back_up(&self.what(uid, attempt), Arc::new(Silent))
    }

    pub fn what(&self, uid: &str, attempt: u32) -> BackUp {
        BackUp {
            root: self.volume(),
            as_path: SourcePath::new("/data").unwrap(),
            host: Host::new("volume-1").unwrap(),
            key: Key::new(uid, attempt).unwrap(),
            tags: Vec::new(),
            // Later than everything that was written, by more than a file system's clock steps.
            time: Timestamp::now() + SignedDuration::from_secs(10),
            change_detection: ChangeDetection::ChangeTime,
            on_read_error: OnReadError::Fail,
        }
    }

    /// How many key files there are.
    pub fn keys(&self) -> usize {
        std::fs::read_dir(self.repository_folder().join("keys")).unwrap().count()
    }

    /// Plain restic has nothing to complain about, also after reading every byte.
    pub fn assert_restic_is_content(&self) {
        let output = restic(&self.repository_folder(), &["check", "--read-data"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("no errors were found"), "{output:?}");
    }
}

pub fn path(path: &str) -> RepositoryPath {
    RepositoryPath::parse(path).unwrap()
}

pub fn password(password: &str) -> Password {
    Password::new(password).unwrap()
}

/// Runs plain restic on a repository's folder.
pub fn restic(repository: &Path, arguments: &[&str]) -> Output {
    let mut command = command("restic");
    command.args(["--no-cache", "-r"]).arg(repository).args(arguments).env("RESTIC_PASSWORD", PASSWORD);
    command.output().expect("these tests need Debian's restic package")
}

/// The one place of these tests that runs programs.
#[expect(clippy::disallowed_methods, reason = "tests run restic, mount and themselves")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything about one entry of a folder that a backup has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub size: u64,
    pub device: u64,
    pub target: Option<PathBuf>,
    pub attributes: BTreeMap<OsString, Vec<u8>>,
    pub content: u64,
    /// The first path (in order) that is the same file.
    pub same_as: PathBuf,
}

/// A folder and everything in it. The root's own entry has an empty path.
pub fn inventory(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    collect(root, Path::new(""), &mut found, &mut inodes);
    found
}

fn collect(root: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Entry>, inodes: &mut BTreeMap<u64, PathBuf>) {
    let at = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let stat = std::fs::symlink_metadata(&at).unwrap();
    let kind = stat.file_type();
    let names = if kind.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    } else {
        Vec::new()
    };
    let is_device = kind.is_block_device() || kind.is_char_device();
    let first = inodes.entry(stat.ino()).or_insert_with(|| path.to_owned());
    let entry = Entry {
        kind: kind_name(&kind),
        mode: stat.mode() & 0o7777,
        owner: (stat.uid(), stat.gid()),
        mtime: (stat.mtime(), stat.mtime_nsec()),
        size: if kind.is_file() { stat.len() } else { 0 },
        device: if is_device { stat.rdev() } else { 0 },
        target: kind.is_symlink().then(|| std::fs::read_link(&at).unwrap()),
        attributes: attributes(&at),
        content: if kind.is_file() { content_hash(&at) } else { 0 },
        same_as: if kind.is_file() { first.clone() } else { path.to_owned() },
    };
    found.insert(path.to_owned(), entry);
    for name in names {
        collect(root, &path.join(name), found, inodes);
    }
}

fn kind_name(kind: &std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "folder",
        () if kind.is_symlink() => "link",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_block_device() => "block device",
        () => "character device",
    }
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0_u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0_u8; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (OsStr::from_bytes(name).to_owned(), value)
        })
        .collect()
}

fn content_hash(path: &Path) -> u64 {
    let mut file = std::fs::File::open(path).unwrap();
    let (mut hasher, mut buffer) = (DefaultHasher::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).unwrap();
        if read == 0 {
            return hasher.finish();
        }
        // Fed byte by byte in effect: `write` of the same bytes in other portions gives the same for this hasher.
        hasher.write(&buffer[..read]);
    }
}

/// Bytes that do not compress and are the same in every run.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap();
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// An access control list as the kernel stores it: the owner, user 1234, the group, the mask, the others.
fn acl() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 4, 1234), (4, 5, u32::MAX), (0x10, 5, u32::MAX), (0x20, 0, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// Fills a folder with every kind of file there is, as far as this user may make them.
pub fn fill_with_everything(root: &Path) {
    odd_names(root);
    contents(root);
    links_and_specials(root);
    modes_and_attributes(root);
    if is_root() {
        root_only(root);
    }
    folders_last(root);
}

fn odd_names(root: &Path) {
    let names = root.join("names");
    std::fs::create_dir(&names).unwrap();
    let odd: [&[u8]; 16] = [
        b"new\nline",
        b"tab\tand\rreturn",
        b"\xff\xfe not utf-8",
        b"quote\"s and 'these'",
        b"back\\slash",
        b"-dash",
        "ä€𝄞".as_bytes(),
        b" leading and trailing ",
        b"*?[glob]",
        b"\x01\x7f",
        b"a",
        b"a.txt",
        b"a-b",
        b"A",
        b"#1",
        b"~",
    ];
    for (seed, name) in odd.iter().enumerate() {
        write(names.join(OsStr::from_bytes(name)), noise(seed as u64 + 1, 100));
    }
    write(names.join("n".repeat(255)), "long");
    // Sorted by name, the folder `b` stands between `b.txt` and `b-c`.
    for folder in ["b", "b/empty", "b/inner"] {
        std::fs::create_dir(names.join(folder)).unwrap();
    }
    write(names.join("b.txt"), "b.txt");
    write(names.join("b-c"), "b-c");
    write(names.join("b/inner/file"), "deep");
    let mut deep = names.join("deep");
    while deep.as_os_str().len() < 3600 {
        deep = deep.join("d".repeat(200));
    }
    std::fs::create_dir_all(&deep).unwrap();
    write(deep.join("bottom"), "at the bottom");
}

fn contents(root: &Path) {
    let folder = root.join("contents");
    std::fs::create_dir(&folder).unwrap();
    write(folder.join("empty"), "");
    write(folder.join("one"), "1");
    write(folder.join("text"), "the quick brown fox\n".repeat(20_000));
    write(folder.join("noise"), noise(7, 3 << 20));
    write(folder.join("copy of noise"), noise(7, 3 << 20));
    for exact in [4096, 512 * 1024, 1024 * 1024] {
        write(folder.join(format!("exactly {exact}")), noise(exact as u64, exact));
    }
    let hole = std::fs::File::create(folder.join("all hole")).unwrap();
    hole.set_len(32 << 20).unwrap();
    let sparse = std::fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(24 << 20).unwrap();
    sparse.write_all_at(&noise(9, 5000), 3).unwrap();
    sparse.write_all_at(&noise(10, 100_000), (9 << 20) + 17).unwrap();
}

fn links_and_specials(root: &Path) {
    let folder = root.join("links");
    std::fs::create_dir(&folder).unwrap();
    write(folder.join("z first name"), "hard");
    std::fs::hard_link(folder.join("z first name"), folder.join("a second name")).unwrap();
    std::fs::hard_link(folder.join("z first name"), root.join("third name")).unwrap();
    symlink("z first name", folder.join("good")).unwrap();
    symlink("../nowhere/at all", folder.join("broken")).unwrap();
    symlink(OsStr::from_bytes(b"\xff\n"), folder.join("odd target")).unwrap();
    symlink("/", folder.join("to a folder")).unwrap();
    for (number, link) in ["good", "broken", "odd target"].into_iter().enumerate() {
        set_time(&folder.join(link), 1_000_000_000 + number as i64, 123_456_789);
    }
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("fifo"), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(short_socket(root)).unwrap());
    std::fs::rename(short_socket(root), folder.join("socket")).unwrap();
}

/// Socket addresses are short.
fn short_socket(root: &Path) -> PathBuf {
    root.join("s")
}

fn modes_and_attributes(root: &Path) {
    let folder = root.join("modes");
    std::fs::create_dir(&folder).unwrap();
    for mode in [0o400, 0o4755, 0o2755, 0o6711, 0o1644, 0o777, 0o600] {
        let path = folder.join(format!("{mode:o}"));
        write(&path, format!("{mode:o}"));
        set_mode(&path, mode);
    }
    for (number, (seconds, nanoseconds)) in
        [(0, 1), (-1, 999_999_999), (-2_000_000_000, 500), (4_102_444_800, 123_456_789)].into_iter().enumerate()
    {
        let path = folder.join(format!("time {number}"));
        write(&path, "old or new");
        set_time(&path, seconds, nanoseconds);
    }
    let path = folder.join("attributes");
    write(&path, "has attributes");
    set_attribute(&path, "user.text", b"value");
    set_attribute(&path, "user.binary", &[0, 1, 2, 0xff, 0]);
    set_attribute(&path, "user.empty", b"");
    set_attribute(&path, "user.large", &noise(3, 3000));
    set_attribute(&path, "system.posix_acl_access", &acl());
}

fn root_only(root: &Path) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let folder = root.join("root's");
    std::fs::create_dir(&folder).unwrap();
    mknodat(CWD, folder.join("block"), FileType::BlockDevice, Mode::RUSR, makedev(7, 200)).unwrap();
    mknodat(CWD, folder.join("char"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
    write(folder.join("owned"), "by somebody else");
    std::os::unix::fs::chown(folder.join("owned"), Some(12_345), Some(54_321)).unwrap();
    set_mode(&folder.join("owned"), 0o6750);
    symlink("owned", folder.join("owned link")).unwrap();
    std::os::unix::fs::lchown(folder.join("owned link"), Some(11), Some(12)).unwrap();
    write(folder.join("unreadable"), "for all but root");
    set_mode(&folder.join("unreadable"), 0);
    let capable = folder.join("capable");
    write(&capable, "may bind low ports");
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend([0, 4, 0, 0].iter().chain(&[0; 12]));
    set_attribute(&capable, "security.capability", &capability);
    set_attribute(&capable, "trusted.note", b"only root sees this");
}

/// Folders' own metadata is set when nothing is made in them any more.
fn folders_last(root: &Path) {
    let links = root.join("links");
    set_attribute(&links, "user.folder", b"has one too");
    set_mode(&links, 0o3771);
    set_time(&links, 1_234_567_890, 987_654_321);
    let empty = root.join("names/b/empty");
    set_mode(&empty, 0o555);
    set_time(&empty, -100, 7);
    set_attribute(root, "user.root", b"the volume's own");
    set_attribute(root, "system.posix_acl_default", &acl());
    set_mode(root, 0o2750);
    if is_root() {
        std::os::unix::fs::chown(root, Some(999), Some(998)).unwrap();
        set_mode(root, 0o2750);
    }
    set_time(root, 1_111_111_111, 222_222_222);
}

/// A mounted tmpfs, unmounted when dropped. Only root can have one.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        let status = command("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status().unwrap();
        assert!(status.success());
        Self(at.to_owned())
    }

    pub fn remount(&self, options: &str) {
        let status = command("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let status = command("umount").arg("-l").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}
