//! The demo, on a small folder, so that it is quick also without optimisation; the whole of it runs in `make test`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::world::{Said, lvault, program, until};

fn small_folder(root: &Path) {
    fs::create_dir_all(root.join("sub")).unwrap();
    for number in 0..50 {
        fs::write(root.join(format!("sub/file-{number}")), format!("{number}\n").repeat(number * 40)).unwrap();
    }
    std::os::unix::fs::symlink("sub/file-1", root.join("link")).unwrap();
}

#[test]
fn it_proves_that_nothing_is_missing_and_leaves_what_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (data, state) = (folder.path().join("data"), folder.path().join("state"));
    small_folder(&data);
    let mut demo = lvault();
    demo.arg("demo").arg("--state-dir").arg(&state).args(["--engine", "directory", "--keep", "--data"]).arg(&data);
    let said: Said = demo.output().unwrap().into();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("nothing is missing") && !said.out.contains("WRONG"), "{said:?}");
    for words in ["kubectl --kubeconfig", "restic -r", "lvault up --state-dir"] {
        assert!(said.out.contains(words), "{words}: {said:?}");
    }

    // restic itself finds the repository whole, and both snapshots in it.
    let password = state.join("repository-password");
    assert!(!said.out.contains(fs::read_to_string(&password).unwrap().trim()), "the password is printed");
    for (arguments, words) in
        [(vec!["check", "--read-data"], "no errors were found"), (vec!["snapshots"], "2 snapshots")]
    {
        let mut restic = program("restic");
        restic.arg("-r").arg(state.join("repository/default/data")).arg("--password-file").arg(&password);
        let output = restic.arg("--no-cache").args(arguments).output();
        let output = output.expect("restic cannot be run: install the package restic");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(words), "{output:?}");
    }

    // What is there is not taken for the demo's.
    let mut again = lvault();
    let said: Said = again.arg("demo").arg("--state-dir").arg(&state).output().unwrap().into();
    assert!(said.code == 2 && said.err.contains("--state-dir") && password.exists(), "{said:?}");
}

#[test]
fn it_takes_everything_down_also_when_it_is_interrupted() {
    for engine in ["directory", "image"] {
        if engine == "image" && !rustix::process::geteuid().is_root() {
            println!("skipped: the image engine needs root");
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut demo = lvault();
        demo.arg("demo").arg("--state-dir").arg(&state).args(["--engine", engine]);
        let mut child = demo.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        // While it fills the volume.
        until("the demo writes", || {
            assert!(child.try_wait().unwrap().is_none(), "{:?}", fs::read_to_string(folder.path().join("log")));
            filled(&state).then_some(())
        });
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = until("the demo ends", || child.try_wait().unwrap());
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(ended.code(), Some(1), "{log}");
        assert!(log.contains("ended by SIGINT"), "{log}");
        assert!(!state.exists(), "{engine}: the folder is still there: {log}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(state.to_str().unwrap()), "{engine}: something is still mounted: {log}");
    }
}

/// Whether a volume somewhere in the state folder has files already.
fn filled(state: &Path) -> bool {
    let folders = ["volumes", "mnt"].map(|name| fs::read_dir(state.join(name)));
    let volumes = folders.into_iter().flatten().flatten().flatten();
    volumes.into_iter().any(|volume| ["small", "data/small"].iter().any(|name| volume.path().join(name).exists()))
}
