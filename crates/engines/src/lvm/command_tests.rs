//! An LVM that is not there, too old, slow or broken, played by a script.

use std::os::unix::fs::PermissionsExt;

use super::*;

const VG: &str = r#"{"vg_name":"vg","vg_uuid":"u","vg_size":"1","vg_free":"1","vg_extent_size":"1"}"#;

/// A program that plays LVM: every call is a line in `calls`; what it does is a script with the arguments in `$@`.
struct Played {
    folder: tempfile::TempDir,
}

impl Played {
    fn new(script: &str) -> Played {
        let folder = tempfile::tempdir().unwrap();
        let config = "device-classes:\n- {name: a, volume-group: vg}\n";
        let program = folder.path().join("play");
        let text = format!("#!/bin/sh\nshift\necho \"$*\" >> {}/calls\n{script}\n", folder.path().display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let prefix = format!("lvm-command-prefix: [{}]\n", program.display());
        std::fs::write(folder.path().join("lvmd.yaml"), config.to_owned() + &prefix).unwrap();
        Played { folder }
    }

    fn open(&self, age: Duration) -> Result<Lvm, EngineError> {
        let live = Live::open(&self.folder.path().join("lvmd.yaml")).unwrap();
        Lvm::open(Tools::find(Duration::from_secs(10)), live, age)
    }

    fn calls(&self, of: &str) -> usize {
        let calls = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.starts_with(of)).count()
    }
}

fn answering(report: &str) -> Played {
    Played::new(&format!(
        "case $1 in version) echo '  LVM version:     2.03.16(2) (2022-05-18)';; fullreport) {report};; fail) echo \"$2\" >&2; exit 5;; esac"
    ))
}

/// The tests play by way of the command prefix, for which some LVM has to be there.
fn lvm_or_skip() -> bool {
    let there = Tools::find(Duration::from_secs(1)).require(&[Tool::Lvm]).is_ok();
    if !there {
        eprintln!("SKIPPED, NOT TESTED: the package lvm2 is not installed");
    }
    there
}

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn one_report_serves_all_until_a_change_or_its_age() {
    if !lvm_or_skip() {
        return;
    }
    let played = answering(&format!("echo '{{\"report\":[{{\"vg\":[{VG}]}}]}}'"));
    let lvm = played.open(LONG).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(lvm.report().unwrap().groups.len(), 1));
        }
    });
    assert_eq!(played.calls("fullreport"), 1, "whoever asks meanwhile waits for the first");
    lvm.change(&["anything".to_owned()], None, "changing").unwrap();
    lvm.report().unwrap();
    lvm.report().unwrap();
    assert_eq!(played.calls("fullreport"), 2, "a change of ours is seen at once");
    assert!(lvm.change(&["fail".to_owned(), "no".to_owned()], None, "changing").is_err());
    lvm.report().unwrap();
    assert_eq!(played.calls("fullreport"), 3, "one that failed may have changed something too");
    lvm.fresh_report().unwrap();
    assert_eq!(played.calls("fullreport"), 4);
    assert_eq!(lvm.processes(), 7, "one for the version, four reports, two changes");
    let aged = played.open(Duration::ZERO).unwrap();
    aged.report().unwrap();
    aged.report().unwrap();
    assert_eq!(played.calls("fullreport"), 6, "what is too old is asked again");
}

#[test]
fn a_report_that_is_not_understood_or_failed_is_no_empty_list() {
    if !lvm_or_skip() {
        return;
    }
    for (report, says) in [
        ("echo '{\"report\":['", "not understood"),
        ("echo nothing", "not understood"),
        ("echo '{\"report\":[]}'; echo '  Failed to read vg.' >&2; exit 5", "Failed to read vg"),
    ] {
        let error = answering(report).open(LONG).unwrap().report().unwrap_err().to_string();
        assert!(error.contains(says), "{report}: {error}");
    }
}

#[test]
fn an_lvm_that_is_too_old_or_strange_is_refused() {
    for (said, outcome) in [
        ("  LVM version:     2.03.16(2) (2022-05-18)\n", None),
        ("  LVM version:     2.02.169(2)\n", None),
        ("LVM version:     2.03.35-git(2)\n", None),
        ("  LVM version:     2.02.98(2) (2012-10-15)\n", Some("2.02.98 is too old")),
        ("  LVM version:     two\n", Some("'two' is no version")),
        ("hello\n", Some("names no version")),
    ] {
        let error = new_enough(said).err().map(|error| error.to_string());
        match outcome {
            None => assert_eq!(error, None, "{said}"),
            Some(says) => assert!(error.as_ref().is_some_and(|error| error.contains(says)), "{said}: {error:?}"),
        }
    }
}

#[test]
fn a_refusal_is_told_without_the_warnings_and_with_the_failing_device() {
    if !lvm_or_skip() {
        return;
    }
    let played = answering("true");
    let lvm = played.open(LONG).unwrap();
    let refusal = |said: &str| lvm.change(&["fail".to_owned(), said.to_owned()], None, "making volume a").unwrap_err();
    let error = refusal("WARNING: of this\n  Volume group \"x\" not found");
    assert!(
        error.to_string().contains("Volume group \"x\" not found") && !error.to_string().contains("of this"),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(refusal("  Logical volume vg/a contains a filesystem in use.").retry(), Retry::Later);
    let error = refusal("  Error reading device /dev/sdq at 4096 length 512.");
    assert!(
        matches!(&error, EngineError::Lvm(LvmError::Device { device, .. }) if device.as_os_str() == "/dev/sdq"),
        "{error}"
    );
}

#[test]
fn a_missing_command_prefix_is_said() {
    if !lvm_or_skip() {
        return;
    }
    let played = answering("true");
    std::fs::remove_file(played.folder.path().join("play")).unwrap();
    let error = played.open(LONG).unwrap_err();
    assert!(error.to_string().contains("starting"), "{error}");
}
