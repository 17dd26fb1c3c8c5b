//! Taking over logical volumes that TopoLVM has made, and leaving alone what it has not; removals that meet.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]
#![allow(clippy::disallowed_methods, reason = "tests look at the machine with its own programs")]

mod support;

use std::fs;

use lvault_core::Bytes;
use lvault_engines::{Access, Adoption, Change, EngineError, Filesystem, LvmEngine, LvmError, Retry, VolumeEngine};
use support::lvm::{Layout, device_mapper_or_skip, run_in_guest};
use support::{Kind, MIB, State, content, filled, id, remove, run, snapshot};

#[test]
fn in_guest_lvm_adoption() {
    run_in_guest("on_lvm::");
}

fn adoption(name: &str, access: Access) -> Adoption {
    Adoption { id: id(name), size: Bytes(300 * MIB), access, device_class: None }
}

fn lvm(state: &State, args: &[&str]) -> String {
    state.with_group(|group| group.lvm(args))
}

fn mkfs(state: &State, name: &str, filesystem: Filesystem) {
    let device = state.with_group(|group| group.device(name));
    let program = format!("mkfs.{filesystem}");
    run(&program, &["-q".as_ref(), device.as_os_str()]);
}

fn with_engine(layout: Layout, test: impl FnOnce(&State, LvmEngine, String)) {
    if !device_mapper_or_skip() {
        return;
    }
    let state = State::new();
    let engine = state.open_lvm(layout).unwrap();
    let group = state.with_group(|group| group.name.clone());
    test(&state, engine, group);
}

mod on_lvm {
    use super::*;

    #[test]
    fn a_volume_is_taken_over_as_it_is() {
        for layout in [Layout::Thin, Layout::Thick] {
            for filesystem in [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs] {
                with_engine(layout, |state, engine, group| {
                    let (pool, size) = (format!("{group}/pool"), "314572800b");
                    match layout {
                        Layout::Thin => {
                            lvm(state, &["lvcreate", "-q", "-T", &pool, "-n", "a", "-V", size, "-W", "y", "-y"])
                        }
                        Layout::Thick => {
                            lvm(state, &["lvcreate", "-q", "-n", "a", "-L", size, "-W", "y", "-y", &group])
                        }
                    };
                    mkfs(state, "a", filesystem);
                    // As after a restart of the machine.
                    lvm(state, &["lvchange", "-q", "-an", &format!("{group}/a")]);
                    assert_eq!(engine.observe(&id("a")).unwrap(), None);
                    assert_eq!(engine.ensure_adopted(&adoption("a", Access::ReadWrite)).unwrap(), Change::Changed);
                    assert_eq!(engine.ensure_adopted(&adoption("a", Access::ReadWrite)).unwrap(), Change::Unchanged);
                    let found = engine.observe(&id("a")).unwrap().unwrap();
                    assert_eq!((found.size, found.filesystem), (Bytes(300 * MIB), Some(filesystem)));
                    let folder = engine.ensure_attached(&id("a")).unwrap();
                    fs::write(folder.join("file"), "kept").unwrap();
                    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
                    assert_eq!(content(&engine, "s"), "kept");
                    remove(&engine, "s");
                    engine.ensure_size(&id("a"), Bytes(400 * MIB)).unwrap();
                    let again = state.open_lvm(layout).unwrap();
                    assert_eq!(again.recover().unwrap(), []);
                    assert_eq!(content(&again, "a"), "kept");
                    remove(&again, "a");
                    assert!(!lvm(state, &["lvs", "--noheadings", "-o", "lv_name", &group]).contains(" a"));
                });
            }
        }
    }

    #[test]
    fn a_thin_snapshot_is_taken_over_with_its_source() {
        with_engine(Layout::Thin, |state, engine, group| {
            let source = filled(&engine, Kind::Lvm(Layout::Thin, Filesystem::Ext4), "a", "before");
            lvm(state, &["lvcreate", "-q", "-y", "-s", "-k", "n", "-n", "s", &format!("{group}/a")]);
            lvm(state, &["lvchange", "-q", "-p", "r", &format!("{group}/s")]);
            fs::write(source.join("file"), "after").unwrap();
            assert_eq!(engine.ensure_adopted(&adoption("s", Access::ReadOnly)).unwrap(), Change::Changed);
            let found = engine.observe(&id("s")).unwrap().unwrap();
            assert_eq!((found.origin, found.access), (Some(id("a")), Access::ReadOnly));
            assert_eq!(content(&engine, "a"), "after");
            assert_eq!(content(&engine, "s"), "before");
            remove(&engine, "s");
        });
    }

    /// Each looks whether it is the last, and takes along what waits for it.
    #[test]
    fn a_thick_source_and_its_snapshot_removed_at_once_leave_nothing() {
        with_engine(Layout::Thick, |state, engine, group| {
            for _ in 0..6 {
                filled(&engine, Kind::Lvm(Layout::Thick, Filesystem::Ext4), "a", "before");
                engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
                engine.ensure_detached(&id("a")).unwrap();
                std::thread::scope(|scope| {
                    for name in ["a", "s"] {
                        scope.spawn(|| engine.ensure_absent(&id(name)).unwrap());
                    }
                });
                assert_eq!(lvm(state, &["lvs", "--noheadings", "-o", "lv_name", &group]).trim(), "");
            }
        });
    }

    #[test]
    fn what_does_not_fit_is_left_alone() {
        with_engine(Layout::Thin, |state, engine, group| {
            let pool = format!("{group}/pool");
            let thin = |name: &str, more: &[&str]| {
                let args = ["lvcreate", "-q", "-y", "-T", &pool, "-V", "64m", "-n", name];
                lvm(state, &[&args, more].concat())
            };
            thin("raw", &[]);
            let noise: Vec<u8> = (0..MIB as u32).map(|number| number.wrapping_mul(2_654_435_761) as u8).collect();
            let raw = state.with_group(|group| group.device("raw"));
            fs::write(&raw, &noise).unwrap();
            thin("neighbours", &["--addtag", "lvault", "--addtag", "lvault.owner=somebodyelse"]);
            lvm(state, &["lvcreate", "-q", "-y", "-L", "64m", "-n", "thick", &group]);
            lvm(state, &["lvcreate", "-q", "-y", "-s", "-L", "16m", "-n", "cow", &format!("{group}/thick")]);
            let all = || lvm(state, &["lvs", "--noheadings", "-o", "lv_name,lv_uuid,lv_tags,lv_attr", &group]);
            let before = all();
            for (name, says) in [
                ("raw", "neither ext4 nor xfs nor btrfs"),
                ("neighbours", "another lvault"),
                ("thick", "not in the thin pool"),
                ("cow", "a thick snapshot"),
            ] {
                let error = engine.ensure_adopted(&adoption(name, Access::ReadWrite)).unwrap_err();
                assert!(matches!(error, EngineError::Lvm(LvmError::NotAdopted { .. })), "{name}: {error}");
                assert_eq!(error.retry(), Retry::Never);
                let said = error.to_string();
                assert!(said.contains(says) && said.contains(&format!("{group}/{name}")), "{name}: {said}");
            }
            let unknown = Adoption { device_class: Some("nvme".into()), ..adoption("raw", Access::ReadWrite) };
            assert!(engine.ensure_adopted(&unknown).unwrap_err().to_string().contains("no device class 'nvme'"));
            assert_eq!(engine.ensure_adopted(&adoption("nothing", Access::ReadWrite)).unwrap(), Change::Unchanged);
            assert_eq!((all(), engine.list().unwrap()), (before, vec![]));
            assert!(fs::read(&raw).unwrap().starts_with(&noise), "a raw block volume was written to");
        });
    }
}
