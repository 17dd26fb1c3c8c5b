//! Another password for a repository, without writing its data anew.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use lvault_backup::{OpenError, Repository, Silent, VerifyDepth, add_password, remove_password};
use support::{Bench, PASSWORD, PATH, command, password, path, write};

fn restic_opens(bench: &Bench, with: &str) -> bool {
    let mut restic = command("restic");
    restic.args(["--no-cache", "-r"]).arg(bench.repository_folder()).args(["check", "--read-data"]);
    restic.env("RESTIC_PASSWORD", with).output().unwrap().status.success()
}

#[test]
fn a_password_is_replaced_and_at_every_moment_one_opens_the_repository() {
    const NEW: &str = "another one";
    let bench = Bench::new();
    write(bench.volume().join("file"), "content");
    let repository = bench.repository();
    let snapshot = bench.back_up(&repository, "a", 1).unwrap().snapshot;
    let (location, at) = (bench.location(), path(PATH));
    let (old, new) = (password(PASSWORD), password(NEW));
    // The old key stays while the new one does not open it.
    assert!(matches!(remove_password(&location, &at, &new, &old), Err(OpenError::WrongPassword { .. })));
    assert!(matches!(remove_password(&location, &at, &old, &old), Err(OpenError::Library { .. })));
    assert!(matches!(add_password(&location, &at, &new, &password("third")), Err(OpenError::WrongPassword { .. })));
    assert_eq!(bench.keys(), 1);
    assert!(add_password(&location, &at, &old, &new).unwrap());
    assert!(!add_password(&location, &at, &old, &new).unwrap(), "it is there already");
    assert_eq!(bench.keys(), 2);
    assert!(restic_opens(&bench, PASSWORD) && restic_opens(&bench, NEW));
    assert_eq!(remove_password(&location, &at, &new, &old).unwrap(), 1);
    assert_eq!(remove_password(&location, &at, &new, &old).unwrap(), 0);
    assert!(!restic_opens(&bench, PASSWORD) && restic_opens(&bench, NEW));
    let opened = Repository::open(&location, &at, &new).unwrap();
    assert_eq!(opened.id(), repository.id());
    opened.verify(&snapshot, VerifyDepth::Data, &Silent).unwrap();
    assert!(matches!(Repository::open(&location, &at, &old), Err(OpenError::WrongPassword { .. })));
}
