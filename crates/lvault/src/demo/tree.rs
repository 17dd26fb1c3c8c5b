//! A tree of every kind of file, for a volume to hold: many small ones, large ones, and all that is easily lost.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat, setxattr};

/// How many files of each size there are, and how large they are at most.
const SMALL: (u64, u64) = (2400, 16 << 10);
const MEDIUM: (u64, u64) = (300, 384 << 10);
const LARGE: (u64, u64) = (8, 16 << 20);

/// A xorshift generator: the same tree every time, and nothing that compresses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Fills a folder with some 250 MB in some 2,700 files.
pub(crate) fn make(root: &Path, stop: &AtomicBool) -> io::Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (folder, (count, size)) in [("small", SMALL), ("medium", MEDIUM), ("large", LARGE)] {
        for number in 0..count {
            if stop.load(Ordering::Acquire) {
                return Err(io::Error::other("asked to stop"));
            }
            let file = place(root, folder, number);
            fs::create_dir_all(file.parent().unwrap_or(root))?;
            let length = if folder == "large" { size } else { random.next() % size };
            fill(&file, length, number % 3 == 0, &mut random)?;
        }
    }
    make_curiosities(root)
}

fn place(root: &Path, folder: &str, number: u64) -> PathBuf {
    root.join(folder).join(format!("{:02}", number % 40)).join(format!("file-{number}.dat"))
}

/// A third of the files is text, the others cannot be compressed.
fn fill(file: &Path, length: u64, text: bool, random: &mut Random) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut left = length;
    while left > 0 {
        let number = random.next();
        let line = format!("line {} of a text that repeats itself, as texts do\n", number % 1000);
        let piece = if text { line.into_bytes() } else { number.to_le_bytes().to_vec() };
        let count = left.min(piece.len() as u64) as usize;
        out.write_all(piece.get(..count).unwrap_or_default())?;
        left -= count as u64;
    }
    out.flush()
}

/// Changes about 1% of the tree that [`make`] made: every hundredth file, and 1 MiB in the midst of a large one. Answers
/// with how many bytes it wrote.
pub(crate) fn change(root: &Path) -> io::Result<u64> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut written = 0;
    for (folder, (count, size)) in [("small", SMALL), ("medium", MEDIUM)] {
        for number in (0..count).step_by(100) {
            let length = random.next() % size;
            fill(&place(root, folder, number), length, false, &mut random)?;
            written += length;
        }
    }
    let mut large = File::options().write(true).open(place(root, "large", 1))?;
    large.seek(SeekFrom::Start(LARGE.1 / 2))?;
    for _ in 0..(1 << 20) / 8 {
        large.write_all(&random.next().to_le_bytes())?;
    }
    large.sync_all()?;
    Ok(written + (1 << 20))
}

/// Whether files here can have attributes of users' own.
pub(crate) fn attributes_work(folder: &Path) -> bool {
    let probe = folder.join(format!(".probe-{}", std::process::id()));
    let works = File::create(&probe).is_ok() && setxattr(&probe, "user.probe", b"x", XattrFlags::empty()).is_ok();
    // Nothing was made, or it goes again.
    let _ = fs::remove_file(&probe);
    works
}

/// Makes what is easily lost on the way: holes, links, odd names, odd modes, odd times, attributes, special files.
pub(crate) fn make_curiosities(root: &Path) -> io::Result<()> {
    let folder = root.join("curious");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("plain.txt"), "a plain file\n")?;
    fs::write(folder.join("empty"), "")?;
    fs::create_dir_all(folder.join("no/files/in/here"))?;
    holes(&folder)?;
    links(&folder)?;
    names(&folder)?;
    modes(&folder)?;
    attributes(&folder)?;
    special(&folder)?;
    times(&folder)
}

fn holes(folder: &Path) -> io::Result<()> {
    let mut sparse = File::create(folder.join("sparse.bin"))?;
    sparse.set_len(64 << 20)?;
    sparse.seek(SeekFrom::Start(40 << 20))?;
    sparse.write_all(b"an island in a sea of nothing")?;
    File::create(folder.join("nothing-but-a-hole.bin"))?.set_len(16 << 20)
}

fn links(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("linked-1"), "one file with three names\n")?;
    for name in ["linked-2", "no/linked-3"] {
        fs::hard_link(folder.join("linked-1"), folder.join(name))?;
    }
    symlink("plain.txt", folder.join("link"))?;
    symlink("/nowhere/at/all", folder.join("dangling"))?;
    symlink("..", folder.join("link to a folder"))?;
    symlink(OsStr::from_bytes(b"not utf-8 \xff"), folder.join("odd target"))
}

fn names(folder: &Path) -> io::Result<()> {
    let long = vec![b'n'; 255];
    let odd: [&[u8]; 9] = [
        b" leading and trailing ",
        b"new\nline",
        b"not utf-8 \xff\xfe",
        "ümläut 漢字 🦀".as_bytes(),
        b"-rf *",
        b"back\\slash 'quote' \"quotes\" $HOME",
        b"\x01control\x7f",
        b"...",
        &long,
    ];
    odd.iter().try_for_each(|name| fs::write(folder.join(OsStr::from_bytes(name)), *name))
}

fn modes(folder: &Path) -> io::Result<()> {
    let modes: [(&str, u32); 6] = [
        ("nobody-reads", 0o000),
        ("only-owner", 0o600),
        ("set-user-id", 0o4755),
        ("set-group-id", 0o2755),
        ("sticky", 0o1644),
        ("everybody", 0o777),
    ];
    let root = rustix::process::geteuid().is_root();
    for (name, mode) in modes {
        // Whoever is not root could not read it back.
        let mode = if mode == 0 && !root { 0o400 } else { mode };
        let file = folder.join(name);
        fs::write(&file, name)?;
        if root {
            // Before the mode: a change of owner takes the set-id bits away.
            chown(&file, Some(1000 + mode), Some(2000 + mode))?;
        }
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
    }
    if root {
        lchown(folder.join("dangling"), Some(1234), Some(5678))?;
    }
    fs::set_permissions(folder.join("no/files"), Permissions::from_mode(0o3770))
}

fn attributes(folder: &Path) -> io::Result<()> {
    if !attributes_work(folder) {
        return Ok(());
    }
    let set = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(folder.join(name), key, value, XattrFlags::empty()).map_err(io::Error::from)
    };
    set("plain.txt", "user.lvault", b"an attribute")?;
    set("empty", "user.binary", &[0, 1, 2, 0xff, 0])?;
    set("no", "user.of a folder", b"")?;
    // An access control list: user::rw- user:4242:r-- group::r-- mask::r-- other::---. Filesystems may have none.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 4242), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    match set("linked-1", "system.posix_acl_access", &list) {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn special(folder: &Path) -> io::Result<()> {
    mknodat(CWD, folder.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?;
    // A path that is too long for a socket's address makes none.
    drop(UnixListener::bind(folder.join("socket")));
    if rustix::process::geteuid().is_root() {
        let null = rustix::fs::makedev(1, 3);
        // Containers may not make devices.
        let _ = mknodat(CWD, folder.join("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), null);
    }
    Ok(())
}

fn times(folder: &Path) -> io::Result<()> {
    let set = |name: &str, time: SystemTime| {
        File::open(folder.join(name))?.set_times(FileTimes::new().set_accessed(time).set_modified(time))
    };
    set("plain.txt", SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789))?;
    set("empty", SystemTime::UNIX_EPOCH - Duration::new(86_400, 1))?;
    set("no/files/in/here", SystemTime::UNIX_EPOCH + Duration::new(1, 1))?;
    set("no", SystemTime::UNIX_EPOCH + Duration::new(2_000_000_000, 999_999_999))
}
