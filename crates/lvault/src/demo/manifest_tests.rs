//! Every kind of difference is found: for each, a made tree is copied with `cp -a`, changed in that one respect, compared.

use std::fs::FileTimes;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;
use crate::demo::tree;
use crate::processes::copy_folder;

fn read(root: &Path) -> Manifest {
    Manifest::read(root, None, &AtomicBool::new(false)).expect("read")
}

/// Makes a small tree and a copy of it, changes the copy, and answers with the differences as text.
fn after(change: impl FnOnce(&Path)) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (original, copy) = (folder.path().join("original"), folder.path().join("copy"));
    fs::create_dir(&original).expect("made");
    fs::create_dir(&copy).expect("made");
    tree::make_curiosities(&original).expect("a tree");
    copy_folder(&original, &copy).expect("copied");
    let expected = read(&original);
    assert!(expected.len() > 20, "{}", expected.len());
    assert_eq!(expected.differences(&read(&copy)), [], "an untouched copy is the same");
    change(&copy);
    expected.differences(&read(&copy)).iter().map(|found| format!("{}: {}", found.path.display(), found.what)).collect()
}

fn only(found: &[String], words: &str) {
    assert!(found.len() == 1 && found[0].contains(words), "expected one with {words:?}: {found:?}");
}

/// Changes a file without a trace in its time.
fn rewrite(file: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let modified = fs::metadata(file).expect("there").modified().expect("a time");
    let mut content = fs::read(file).expect("read");
    edit(&mut content);
    fs::write(file, content).expect("written");
    let times = FileTimes::new().set_modified(modified);
    File::options().write(true).open(file).expect("opened").set_times(times).expect("set");
}

#[test]
fn content_of_the_same_size_and_time() {
    only(&after(|copy| rewrite(&copy.join("curious/plain.txt"), |content| content[0] ^= 1)), "content");
}

#[test]
fn a_missing_and_an_added_file() {
    let found = after(|copy| fs::remove_file(copy.join("curious/plain.txt")).expect("removed"));
    assert!(found.iter().any(|line| line == "curious/plain.txt: it is missing"), "{found:?}");
    let found = after(|copy| fs::write(copy.join("curious/new"), "").expect("written"));
    assert!(found.iter().any(|line| line == "curious/new: it was not there"), "{found:?}");
}

#[test]
fn mode_and_time() {
    let mode = fs::Permissions::from_mode(0o604);
    only(&after(|copy| fs::set_permissions(copy.join("curious/plain.txt"), mode).expect("set")), "mode");
    let found = after(|copy| {
        let file = copy.join("curious/plain.txt");
        let modified = fs::metadata(&file).expect("there").modified().expect("a time");
        let times = FileTimes::new().set_modified(modified + Duration::from_nanos(1));
        File::options().write(true).open(&file).expect("opened").set_times(times).expect("set");
    });
    only(&found, "time");
}

#[test]
fn holes_that_were_filled() {
    let found = after(|copy| rewrite(&copy.join("curious/sparse.bin"), |_| {}));
    only(&found, "holes");
}

#[test]
fn a_hard_link_that_became_a_copy() {
    let found = after(|copy| {
        let (link, kept) = (copy.join("curious/linked-2"), copy.join("curious/kept"));
        let modified = fs::metadata(copy.join("curious")).expect("there").modified().expect("a time");
        fs::copy(&link, &kept).expect("copied");
        let times = FileTimes::new().set_modified(fs::metadata(&link).expect("there").modified().expect("a time"));
        File::options().write(true).open(&kept).expect("opened").set_times(times).expect("set");
        fs::rename(&kept, &link).expect("renamed");
        let folder = File::open(copy.join("curious")).expect("opened");
        folder.set_times(FileTimes::new().set_modified(modified)).expect("set");
    });
    assert!(found.iter().any(|line| line.contains("hard link")), "{found:?}");
}

#[test]
fn a_link_with_another_target() {
    let found = after(|copy| {
        let link = copy.join("curious/link");
        fs::remove_file(&link).expect("removed");
        symlink("elsewhere", &link).expect("made");
    });
    assert!(found.iter().any(|line| line.starts_with("curious/link: content: a link to")), "{found:?}");
}

#[test]
fn an_attribute_with_another_value() {
    if !tree::attributes_work(&std::env::temp_dir()) {
        println!("skipped: no user attributes on this filesystem");
        return;
    }
    let found = after(|copy| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(copy.join("curious/plain.txt"), "user.lvault", b"other", flags).expect("set");
    });
    only(&found, "attributes");
}

#[test]
fn what_is_to_be_left_out_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["lost+found", "live", "kept"] {
        fs::create_dir(folder.path().join(name)).expect("made");
    }
    fs::create_dir(folder.path().join("kept/live")).expect("made");
    let manifest = Manifest::read(folder.path(), Some("live"), &AtomicBool::new(false)).expect("read");
    let names: Vec<_> = manifest.entries.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["", "kept", "kept/live"]);
}

#[test]
fn a_reading_that_was_stopped_is_no_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "content").expect("written");
    assert!(Manifest::read(folder.path(), None, &AtomicBool::new(true)).is_err());
}

#[test]
fn times_before_1970_are_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("old");
    fs::write(&file, "").expect("written");
    let old = SystemTime::UNIX_EPOCH - Duration::from_secs(3600);
    File::options()
        .write(true)
        .open(&file)
        .expect("opened")
        .set_times(FileTimes::new().set_modified(old))
        .expect("set");
    let manifest = read(folder.path());
    assert_eq!(manifest.entries[Path::new("old")].modified, (-3600, 0));
}
