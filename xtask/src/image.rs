//! `cargo xtask image`: an OCI image without Docker, as an archive that `ctr images import` takes.
//!
//! What holds here: it holds the binary, the programs that engines run, and the libraries both need, as they are installed on
//! this machine, and nothing else. The same input makes the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::bench::run::Program;

/// The programs that engines run, under the names they are called by.
const PROGRAMS: &[&str] = &[
    "mkfs.ext4",
    "mkfs.xfs",
    "mount",
    "umount",
    "losetup",
    "resize2fs",
    "e2fsck",
    "xfs_growfs",
    "fsfreeze",
    "blkdiscard",
    "timeout",
    "sh",
];
/// Programs that only some engines run: left out, and said, where they are not installed.
const MORE_PROGRAMS: &[&str] =
    &["lvm", "dmsetup", "thin_check", "thin_dump", "thin_repair", "mkfs.btrfs", "btrfs", "btrfstune"];
/// Files that the programs read.
const FILES: &[&str] = &["/etc/mke2fs.conf"];
const MORE_FILES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt"];
const FOLDERS: &[&str] = &["usr/bin", "usr/lib", "usr/lib64", "etc", "dev", "proc", "run", "sys", "tmp", "var/lib"];
const LINKS: &[(&str, &str)] = &[
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("usr/sbin", "bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("etc/mtab", "/proc/self/mounts"),
];
const USAGE: &str = "usage: cargo xtask image BINARY ARCHIVE (such as target/release/lvault lvault.tar)";

/// Makes the image of a binary.
pub(crate) fn write(args: &[&str]) -> Result<String, String> {
    let [binary, archive] = args else { return Err(USAGE.to_owned()) };
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a folder: {e}"))?;
    let root = scratch.path().join("root");
    let missing = stage(&root, Path::new(binary))?;
    let version = env!("CARGO_PKG_VERSION");
    let size = pack(&root, scratch.path(), &format!("docker.io/library/lvault:{version}"), Path::new(archive))?;
    let without = if missing.is_empty() { String::new() } else { format!(", without {}", missing.join(", ")) };
    Ok(format!("{archive}: lvault:{version}, {} MB{without}", size.div_ceil(1_000_000)))
}

/// Lays out the image's files. Answers with the programs that are left out.
fn stage(root: &Path, binary: &Path) -> Result<Vec<String>, String> {
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder)).map_err(|e| format!("cannot make {folder}: {e}"))?;
    }
    for (from, to) in LINKS {
        symlink(to, root.join(from)).map_err(|e| format!("cannot link {from}: {e}"))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")
        .map_err(|e| format!("cannot write passwd: {e}"))?;
    fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")
        .map_err(|e| format!("cannot write nsswitch.conf: {e}"))?;
    let mut libraries = BTreeSet::new();
    place(binary, &root.join("usr/bin/lvault"), &mut libraries)?;
    let mut missing = Vec::new();
    for (name, needed) in PROGRAMS.iter().map(|name| (name, true)).chain(MORE_PROGRAMS.iter().map(|name| (name, false)))
    {
        match installed(name) {
            Some(program) => place(&program, &root.join("usr/bin").join(name), &mut libraries)?,
            None if needed => return Err(format!("{name} is not installed: run `make setup` first")),
            None => missing.push((*name).to_owned()),
        }
    }
    for library in &libraries {
        copy(library, &under(root, library))?;
    }
    for (file, needed) in FILES.iter().map(|file| (file, true)).chain(MORE_FILES.iter().map(|file| (file, false))) {
        let file = Path::new(file);
        if needed || file.exists() {
            copy(file, &under(root, file))?;
        } else {
            missing.push(file.display().to_string());
        }
    }
    Ok(missing)
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Copies a program, and notes the libraries it is linked with.
fn place(program: &Path, to: &Path, libraries: &mut BTreeSet<PathBuf>) -> Result<(), String> {
    copy(program, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("cannot change {}: {e}", to.display()))?;
    let linked = Program::new("ldd").args([program.as_os_str()]).run()?;
    libraries.extend(libraries_in(&linked));
    Ok(())
}

/// The paths in what ldd says: after an arrow, or alone for the loader.
fn libraries_in(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let last = line.rsplit("=> ").next().unwrap_or_default();
        last.split_whitespace().next().filter(|word| word.starts_with('/')).map(PathBuf::from)
    };
    text.lines().filter_map(|line| path(line.trim())).collect()
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let attempted = |e: std::io::Error| format!("cannot copy {} to {}: {e}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(attempted)?;
    }
    fs::copy(from, to).map(drop).map_err(attempted)
}

/// Packs a tree as an image of one layer. Answers with the archive's size in bytes.
fn pack(root: &Path, scratch: &Path, name: &str, archive: &Path) -> Result<u64, String> {
    let layout = scratch.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|e| format!("cannot make {}: {e}", blobs.display()))?;
    let layer = scratch.join("layer.tar");
    tar(&layer, root)?;
    let unpacked = digest(&read(&layer)?);
    Program::new("gzip").args(["-n".as_ref(), "-f".as_ref(), layer.as_os_str()]).run()?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/lvault"],
            "Env": ["PATH=/usr/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [unpacked]},
        "history": [{"created_by": "cargo xtask image"}],
    });
    let layer = blob(&blobs, "application/vnd.oci.image.layer.v1.tar+gzip", &read(&scratch.join("layer.tar.gz"))?)?;
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blob(&blobs, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
    let tag = name.rsplit(':').next().unwrap_or_default();
    manifest["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
    for (file, text) in
        [("index.json", index.to_string()), ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned())]
    {
        fs::write(layout.join(file), text).map_err(|e| format!("cannot write {file}: {e}"))?;
    }
    tar(archive, &layout)?;
    fs::metadata(archive)
        .map(|metadata| metadata.len())
        .map_err(|e| format!("cannot look at {}: {e}", archive.display()))
}

/// The same bytes for the same tree.
fn tar(archive: &Path, tree: &Path) -> Result<(), String> {
    let flags = [
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=gnu",
        "--create",
        "--file",
    ];
    let program = Program::new("tar").args(flags).args([
        archive.as_os_str(),
        "--directory".as_ref(),
        tree.as_os_str(),
        ".".as_ref(),
    ]);
    program.run().map(drop)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Stores a blob under its digest, and describes it.
fn blob(blobs: &Path, kind: &str, bytes: &[u8]) -> Result<Value, String> {
    let digest = digest(bytes);
    let path = blobs.join(digest.trim_start_matches("sha256:"));
    fs::write(&path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says why")]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says_is_read() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n\tstatically linked\n";
        assert_eq!(libraries_in(text), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }

    /// The engines' own list says what they run.
    #[test]
    fn every_program_that_engines_run_is_in_the_image() {
        let source = include_str!("../../crates/engines/src/tools.rs");
        let list = source.split("fn program(self)").nth(1).and_then(|rest| rest.split("\n    }").next()).unwrap();
        let named = list.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next());
        let named: Vec<&str> = named.collect();
        assert!(named.len() > 10, "{named:?}");
        let lacks = |name: &&&str| !PROGRAMS.contains(name) && !MORE_PROGRAMS.contains(name);
        assert_eq!(named.iter().filter(lacks).collect::<Vec<_>>(), Vec::<&&str>::new());
    }

    /// What a program is linked with that is not in the image, the loader says with 127.
    #[test]
    fn every_program_of_an_image_runs_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        let missing = stage(&root, Path::new("/bin/true")).unwrap();
        let programs = PROGRAMS.iter().chain(MORE_PROGRAMS).filter(|name| !missing.contains(&(**name).to_owned()));
        let names: Vec<&str> = programs.copied().collect();
        let script = format!(
            "lvault || exit 1; for program in {}; do $program --version >/tmp/said 2>&1; [ $? -lt 126 ] || echo $program; done",
            names.join(" ")
        );
        let inside = ["chroot".as_ref(), root.as_os_str(), "/usr/bin/sh".as_ref(), "-c".as_ref(), script.as_ref()];
        let said = if std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0 {
            Program::new("chroot").args(&inside[1..]).run()
        } else {
            Program::new("unshare").args(["--map-root-user"]).args(inside).run()
        };
        assert_eq!(said.unwrap(), "", "these do not run in the image");
    }

    #[test]
    fn an_image_is_what_its_digests_say_each_time() {
        let pack_once = || {
            let scratch = tempfile::tempdir().unwrap();
            let root = scratch.path().join("root");
            fs::create_dir(&root).unwrap();
            fs::write(root.join("file"), "content").unwrap();
            let archive = scratch.path().join("image.tar");
            pack(&root, scratch.path(), "docker.io/library/x:1", &archive).unwrap();
            let unpacked = scratch.path().join("unpacked");
            fs::create_dir(&unpacked).unwrap();
            let into = [
                "--extract".as_ref(),
                "--file".as_ref(),
                archive.as_os_str(),
                "--directory".as_ref(),
                unpacked.as_os_str(),
            ];
            Program::new("tar").args(into).run().unwrap();
            for entry in fs::read_dir(unpacked.join("blobs/sha256")).unwrap() {
                let path = entry.unwrap().path();
                assert_eq!(
                    digest(&fs::read(&path).unwrap()),
                    format!("sha256:{}", path.file_name().unwrap().to_str().unwrap())
                );
            }
            let index: Value = serde_json::from_slice(&fs::read(unpacked.join("index.json")).unwrap()).unwrap();
            assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "docker.io/library/x:1");
            fs::read(archive).unwrap()
        };
        assert!(pack_once() == pack_once(), "the same input makes the same bytes");
    }
}
