//! Opening and making repositories: by several at once, with the wrong password, over garbage, in the middle of a crash.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{Location, OpenError, Probed, Repository, Retry, probe};
use rustic_core::repofile::ConfigFile;
use rustic_core::{Credentials, KeyOptions};
use std::path::Path;
use std::process::Child;
use std::sync::Barrier;
use support::{Bench, PASSWORD, PATH, command, is_root, password, path, restic, set_mode, write};

fn open(bench: &Bench) -> Result<Repository, OpenError> {
    Repository::open(&bench.location(), &path(PATH), &password(PASSWORD))
}

fn open_or_init(bench: &Bench) -> Result<Repository, OpenError> {
    Repository::open_or_init(&bench.location(), &path(PATH), &password(PASSWORD))
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// One config, one key, and everybody has the same repository.
fn assert_one_repository(bench: &Bench) {
    let folder = bench.repository_folder();
    assert_eq!(files_in(&folder.join("keys")), 1);
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config", "data", "index", "keys", "locks", "snapshots"]);
    bench.assert_restic_is_content();
}

#[test]
fn it_is_made_on_first_use_and_then_opened() {
    let bench = Bench::new();
    assert!(matches!(open(&bench), Err(OpenError::NotFound { .. })));
    assert!(!bench.repository_folder().exists(), "open must not make anything");
    let made = open_or_init(&bench).unwrap();
    assert_eq!(open(&bench).unwrap().id(), made.id());
    assert_eq!(open_or_init(&bench).unwrap().id(), made.id());
    assert!(!format!("{made:?}").contains("mac"));
    assert_one_repository(&bench);
}

#[test]
fn threads_at_once_make_one_repository() {
    for _round in 0..2 {
        let bench = Bench::new();
        let barrier = Barrier::new(4);
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        open_or_init(&bench).unwrap().id().to_owned()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_one_repository(&bench);
    }
}

const CHILD: &str = "LVAULT_TEST_STORAGE";

/// Not a test by itself: what the processes of the tests below run.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child_makes_the_repository() {
    let root = std::env::var(CHILD).unwrap().into();
    Repository::open_or_init(&Location::Local { root }, &path(PATH), &password(PASSWORD)).unwrap();
}

fn start_child(bench: &Bench) -> Child {
    command(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child_makes_the_repository"])
        .env(CHILD, bench.storage())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn processes_at_once_make_one_repository() {
    let bench = Bench::new();
    let children: Vec<_> = (0..3).map(|_| start_child(&bench)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_one_repository(&bench);
}

#[test]
fn killed_initialisers_leave_nothing_that_hinders() {
    let bench = Bench::new();
    for delay in [50, 500, 1000, 1300, 1600] {
        let mut child = start_child(&bench);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
    }
    open_or_init(&bench).unwrap();
    assert_eq!(files_in(&bench.repository_folder().join("keys")), 1);
    bench.assert_restic_is_content();
}

/// A killed initialiser's key opens with the password and fits no config.
#[test]
fn a_dead_key_is_removed_and_other_peoples_keys_stay() {
    let bench = Bench::new();
    let other = Bench::new();
    open_or_init(&bench).unwrap();
    open_or_init(&other).unwrap();
    let keys = bench.repository_folder().join("keys");
    for entry in std::fs::read_dir(other.repository_folder().join("keys")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), keys.join(entry.file_name())).unwrap();
    }
    let second = bench.folder.path().join("second password");
    write(&second, "another one");
    let added = restic_add_key_with_first_key(&bench, &second);
    assert_eq!(files_in(&keys), 2 + usize::from(added));
    open(&bench).unwrap();
    open_or_init(&bench).unwrap();
    assert_eq!(files_in(&keys), 1 + usize::from(added));
    bench.assert_restic_is_content();
}

/// restic may stumble over the dead key, which is why it is removed; then there is no third key.
fn restic_add_key_with_first_key(bench: &Bench, file: &Path) -> bool {
    let output = restic(&bench.repository_folder(), &["key", "add", "--new-password-file", file.to_str().unwrap()]);
    output.status.success()
}

#[test]
fn the_wrong_password_is_named_as_such() {
    let bench = Bench::new();
    open_or_init(&bench).unwrap();
    for wrong in ["wrong", "correct horse battery staple "] {
        for result in [
            Repository::open(&bench.location(), &path(PATH), &password(wrong)),
            Repository::open_or_init(&bench.location(), &path(PATH), &password(wrong)),
        ] {
            let err = result.unwrap_err();
            assert!(matches!(err, OpenError::WrongPassword { .. }), "{err:?}");
            assert_eq!(err.retry(), Retry::AfterRemedy);
            assert!(!format!("{err} {err:?}").contains(wrong), "{err}");
        }
    }
    assert_one_repository(&bench);
}

#[test]
fn a_newer_format_is_refused() {
    let bench = Bench::new();
    open_or_init(&bench).unwrap();
    let folder = bench.repository_folder();
    let newer = newer_repository(&bench);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(newer, &folder).unwrap();
    for result in [open(&bench), open_or_init(&bench)] {
        let err = result.unwrap_err();
        assert!(matches!(&err, OpenError::Newer { what, .. } if what.contains('3')), "{err:?}");
    }
}

/// rustic writes the config it is told to, and then refuses to open it.
fn newer_repository(bench: &Bench) -> std::path::PathBuf {
    let folder = bench.empty("newer");
    let config = ConfigFile::new(3, rustic_core::Id::random().into(), 0x003D_A335_8B4D_C173);
    let storage = folder_backend::FolderBackend(folder.clone());
    let backends = rustic_core::RepositoryBackends::new(std::sync::Arc::new(storage), None);
    let options = rustic_core::RepositoryOptions::default().no_cache(true);
    let made = rustic_core::Repository::new(&options, &backends).unwrap().init_with_config(
        &Credentials::password(PASSWORD),
        &KeyOptions::default(),
        config,
    );
    assert!(made.is_err());
    folder
}

/// Just enough of a backend to write a key and a config.
mod folder_backend {
    use rustic_core::{BytesList, FileType, Id, ReadBackend, RusticResult, WriteBackend};
    use std::path::PathBuf;

    pub(super) struct FolderBackend(pub(super) PathBuf);

    impl ReadBackend for FolderBackend {
        fn location(&self) -> String {
            "test".to_owned()
        }
        fn list_with_size(&self, _: FileType) -> RusticResult<Vec<(Id, u32)>> {
            Ok(Vec::new())
        }
        fn read_full(&self, _: FileType, _: &Id) -> RusticResult<bytes::Bytes> {
            Ok(bytes::Bytes::new())
        }
        fn read_partial(&self, _: FileType, _: &Id, _: bool, _: u32, _: u32) -> RusticResult<bytes::Bytes> {
            Ok(bytes::Bytes::new())
        }
        fn warmup_path(&self, _: FileType, _: &Id) -> String {
            String::new()
        }
    }

    impl WriteBackend for FolderBackend {
        fn write_bytes(&self, tpe: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
            let path = match tpe {
                FileType::Config => self.0.join("config"),
                FileType::Key | FileType::Index | FileType::Pack | FileType::Snapshot => {
                    self.0.join(tpe.dirname()).join(id.to_hex().as_str())
                }
            };
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content.into_vec().concat()).unwrap();
            Ok(())
        }
        fn remove(&self, _: FileType, _: &Id, _: bool) -> RusticResult<()> {
            Ok(())
        }
    }
}

#[test]
fn damage_is_named_and_never_made_worse() {
    let bench = Bench::new();
    open_or_init(&bench).unwrap();
    let (config, keys) = (bench.repository_folder().join("config"), bench.repository_folder().join("keys"));
    let whole = std::fs::read(&config).unwrap();
    for damaged in [&b""[..], b"garbage", &whole[..whole.len() - 1], &[&whole[..40], b"!", &whole[41..]].concat()] {
        write(&config, damaged);
        for result in [open(&bench), open_or_init(&bench)] {
            let err = result.unwrap_err();
            assert!(matches!(err, OpenError::ConfigDamaged { .. }), "{err:?}");
        }
    }
    assert_eq!(files_in(&keys), 1, "a key that fits no config is only removed when another one does");
    write(&config, &whole);
    open(&bench).unwrap();

    let key = std::fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&key).unwrap();
    let nonsense = String::from_utf8(good.clone()).unwrap().replace("\"N\":", "\"N\":0,\"M\":");
    // Terabytes: a key file is not sealed, and must not end the process that reads it.
    let greedy = String::from_utf8(good.clone()).unwrap().replace("\"r\":8", "\"r\":100000000");
    assert_ne!(greedy.as_bytes(), good);
    for damaged in [&b""[..], b"{", nonsense.as_bytes(), greedy.as_bytes()] {
        write(&key, damaged);
        let err = open_or_init(&bench).unwrap_err();
        assert!(matches!(err, OpenError::KeysDamaged { .. }), "{err:?}");
    }
    std::fs::remove_file(&key).unwrap();
    let err = open_or_init(&bench).unwrap_err();
    assert!(matches!(err, OpenError::KeysDamaged { .. }), "{err:?}");
    write(&key, good);
    assert_one_repository(&bench);
}

#[test]
fn nothing_is_made_over_something_else() {
    let bench = Bench::new();
    let repository = open_or_init(&bench).unwrap();
    write(bench.volume().join("file"), "x");
    bench.back_up(&repository, "a", 1).unwrap();
    let folder = bench.repository_folder();
    std::fs::remove_file(folder.join("config")).unwrap();
    let err = open_or_init(&bench).unwrap_err();
    assert!(matches!(err, OpenError::ConfigLost { .. }), "{err:?}");
    assert!(!folder.join("config").exists());

    for (number, name) in ["notes.txt", "photos"].into_iter().enumerate() {
        let here = format!("other/{number}");
        let folder = bench.storage().join(&here);
        std::fs::create_dir_all(&folder).unwrap();
        if name == "photos" {
            std::fs::create_dir(folder.join(name)).unwrap()
        } else {
            write(folder.join(name), "mine")
        }
        let err = Repository::open_or_init(&bench.location(), &path(&here), &password(PASSWORD)).unwrap_err();
        assert!(matches!(&err, OpenError::Foreign { found, .. } if found == name), "{err:?}");
        assert_eq!(files_in(&folder), 1);
    }
}

#[test]
fn no_repository_lies_inside_another() {
    let bench = Bench::new();
    open_or_init(&bench).unwrap();
    let inner = path(&format!("{PATH}/data/inner"));
    let err = Repository::open_or_init(&bench.location(), &inner, &password(PASSWORD)).unwrap_err();
    assert!(matches!(err, OpenError::Nested { .. }), "{err:?}");
    assert_eq!(err.retry(), Retry::Never);
    assert_one_repository(&bench);
}

#[test]
fn a_storage_that_is_not_there_is_no_empty_storage() {
    let bench = Bench::new();
    let file = bench.folder.path().join("file");
    write(&file, "");
    for (root, retry) in [
        (bench.folder.path().join("nowhere"), Retry::AfterRemedy),
        (file, Retry::AfterRemedy),
        ("relative".into(), Retry::Never),
    ] {
        let location = Location::Local { root };
        let err = Repository::open_or_init(&location, &path(PATH), &password(PASSWORD)).unwrap_err();
        assert!(matches!(err, OpenError::Storage { .. }), "{err:?}");
        assert_eq!(err.retry(), retry, "{err}");
        assert!(probe(&location, "default", &password(PASSWORD)).is_err());
    }
    assert!(!bench.folder.path().join("nowhere").exists());
}

#[test]
fn a_probe_leaves_no_trace_and_tries_the_password() {
    let bench = Bench::new();
    assert_eq!(probe(&bench.location(), "default", &password(PASSWORD)).unwrap(), Probed { repository: None });
    assert_eq!(files_in(&bench.storage()), 0);
    open_or_init(&bench).unwrap();
    let probed = probe(&bench.location(), "default", &password(PASSWORD)).unwrap();
    assert_eq!(probed.repository, Some(path(PATH)));
    let err = probe(&bench.location(), "default", &password("wrong")).unwrap_err();
    assert!(matches!(err, OpenError::WrongPassword { .. }), "{err:?}");
    assert_eq!(files_in(&bench.storage()), 1);
}

/// Two storages, of the namespaces `a` and `b`, with a password each.
#[test]
fn of_storages_in_one_place_each_is_tried_on_its_own_repositories() {
    let bench = Bench::new();
    let location = bench.location();
    let probed = |namespace: &str, secret: &str| {
        probe(&location, namespace, &password(secret)).map(|it| it.repository.map(|path| path.as_str().to_owned()))
    };
    let is_refused = |found: Result<Option<String>, OpenError>| matches!(found, Err(OpenError::WrongPassword { .. }));
    Repository::open_or_init(&location, &path("a/one"), &password("of a")).unwrap();
    assert_eq!(probed("a", "of a").unwrap().as_deref(), Some("a/one"));
    assert!(is_refused(probed("b", "of b")), "nothing says that it is right");
    Repository::open_or_init(&location, &path("b/two"), &password("of b")).unwrap();
    assert_eq!(probed("b", "of b").unwrap().as_deref(), Some("b/two"));
    assert_eq!(probed("central", "of b").unwrap().as_deref(), Some("b/two"), "that of the other one is passed over");
    assert!(is_refused(probed("a", "of b")), "its own has to open");
    assert!(is_refused(probed("central", "of nobody")));
}

/// Root writes everywhere but to a read-only file system.
#[test]
fn an_unwritable_folder_is_named_with_its_remedy() {
    let bench = Bench::new();
    if is_root() {
        let mount = support::Mount::tmpfs(&bench.storage(), "ro");
        let err = open_or_init(&bench).unwrap_err();
        assert!(err.to_string().contains("make the storage writable"), "{err}");
        assert!(probe(&bench.location(), "default", &password(PASSWORD)).unwrap_err().to_string().contains("writable"));
        drop(mount);
    } else {
        set_mode(&bench.storage(), 0o500);
        let err = open_or_init(&bench).unwrap_err();
        assert!(err.to_string().contains("give this process read and write access"), "{err}");
        assert_eq!(err.retry(), Retry::AfterRemedy);
        set_mode(&bench.storage(), 0o700);
    }
}
