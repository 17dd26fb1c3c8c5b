//! What only the LVM engine does: device classes, tags, exception stores, pools that fill up, processes per operation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]
#![expect(clippy::disallowed_methods, reason = "tests look at the machine with its own programs")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Command;

use lvault_core::Bytes;
use lvault_engines::{
    Access, Change, EngineError, Filesystem, LvmEngine, LvmError, NewVolume, Options, Placement, ProblemKind,
    Recovered, Retry, VolumeEngine,
};
use support::disk::BadDisk;
use support::lvm::{Layout, VolumeGroup, device_mapper_or_skip, run_in_guest};
use support::{Kind, MIB, State, content, filled, id, remove, snapshot};

const THIN: Kind = Kind::Lvm(Layout::Thin, Filesystem::Ext4);
const THICK: Kind = Kind::Lvm(Layout::Thick, Filesystem::Ext4);

/// Where this machine has no device-mapper, these tests run again on a kernel that has it.
#[test]
fn in_guest_lvm() {
    run_in_guest("on_lvm::");
}

fn with_engine(layout: Layout, test: impl FnOnce(&State, LvmEngine)) {
    if !device_mapper_or_skip() {
        return;
    }
    let state = State::new();
    let engine = state.open_lvm(layout).unwrap();
    test(&state, engine);
}

fn lvm(state: &State, args: &[&str]) -> String {
    state.with_group(|group| group.lvm(args))
}

fn group(state: &State) -> String {
    state.with_group(|group| group.name.clone())
}

fn in_class(kind: Kind, name: &str, class: &str) -> NewVolume {
    let placement = Placement { device_class: Some(class.to_owned()), option_class: None };
    NewVolume { placement, ..kind.volume(name) }
}

/// What is wrong with a volume.
fn ailments(engine: &LvmEngine, name: &str) -> Vec<ProblemKind> {
    engine.observe(&id(name)).unwrap().unwrap().problems.iter().map(|problem| problem.kind).collect()
}

/// How many processes of LVM something takes.
fn processes<T>(engine: &LvmEngine, work: impl FnOnce() -> T) -> u64 {
    let before = engine.lvm_processes();
    work();
    engine.lvm_processes() - before
}

mod on_lvm {
    use super::*;

    /// The figures of docs/engines.md.
    #[test]
    fn each_operation_takes_its_number_of_processes() {
        for (kind, layout, snapshot_attached) in [(THIN, Layout::Thin, 3), (THICK, Layout::Thick, 3)] {
            with_engine(layout, |_, engine| {
                engine.list().unwrap();
                let engine = &engine;
                let taken = |what: &str, expected: u64, work: &dyn Fn()| {
                    assert_eq!(processes(engine, work), expected, "{layout:?}: {what}");
                };
                taken("create", 2, &|| {
                    engine.ensure_volume(&kind.volume("a")).unwrap();
                });
                taken("the first look after a change", 1, &|| drop(engine.observe(&id("a")).unwrap()));
                taken("attach", 0, &|| drop(engine.ensure_attached(&id("a")).unwrap()));
                taken("list and look", 0, &|| {
                    engine.list().unwrap();
                    engine.classes().unwrap();
                    engine.capacity().unwrap();
                    engine.observe(&id("a")).unwrap();
                });
                taken("what is so already", 0, &|| {
                    engine.ensure_volume(&kind.volume("a")).unwrap();
                });
                taken("snapshot", 2, &|| {
                    engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
                });
                taken("snapshot of what is not attached, and the look before", snapshot_attached + 1, &|| {
                    engine.ensure_detached(&id("a")).unwrap();
                    engine.ensure_snapshot(&snapshot("t", "a", Access::ReadOnly)).unwrap();
                });
                // Of a thick one it is looked whether its source was waiting for it to go; that look is good for the next.
                let expected = if layout == Layout::Thin { [2, 2] } else { [3, 2] };
                taken("remove, and the look before", expected[0], &|| remove(engine, "s"));
                taken("remove the next", expected[1], &|| remove(engine, "t"));
                engine.list().unwrap();
                let larger = Bytes(kind.size().0 + 64 * MIB);
                let expected = if layout == Layout::Thin { 2 } else { 3 };
                taken("grow", expected, &|| {
                    engine.ensure_size(&id("a"), larger).unwrap();
                });
            });
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone_and_in_the_way() {
        with_engine(Layout::Thin, |state, engine| {
            let group = group(state);
            lvm(state, &["lvcreate", "-q", "-y", "-V", "64m", "-T", &format!("{group}/pool"), "-n", "a"]);
            lvm(
                state,
                &["lvcreate", "-q", "-y", "-V", "64m", "-T", &format!("{group}/pool"), "-n", "b", "--addtag", "lvault"],
            );
            let before = lvm(state, &["lvs", "--noheadings", "-o", "lv_name,lv_uuid,lv_tags", &group]);
            assert_eq!(engine.list().unwrap(), []);
            for name in ["a", "b"] {
                let error = engine.ensure_volume(&THIN.volume(name)).unwrap_err();
                assert!(matches!(error, EngineError::Foreign { .. }) && error.to_string().contains(name), "{error}");
                assert_eq!(engine.ensure_absent(&id(name)).unwrap(), Change::Unchanged);
                assert!(matches!(engine.ensure_attached(&id(name)), Err(EngineError::NotFound { .. })));
            }
            // Another lvault on the same volume group.
            engine.ensure_volume(&THIN.volume("mine")).unwrap();
            let other = State::new();
            fs::copy(state.path().join("lvmd.yaml"), other.path().join("lvmd.yaml")).unwrap();
            let options = Options { lvmd_config: Some(other.path().join("lvmd.yaml")), ..other.options.clone() };
            let neighbour = LvmEngine::open(other.path(), options).unwrap();
            assert_eq!((neighbour.list().unwrap(), neighbour.recover().unwrap()), (vec![], vec![]));
            assert_eq!(neighbour.ensure_absent(&id("mine")).unwrap(), Change::Unchanged);
            engine.recover().unwrap();
            assert!(engine.observe(&id("mine")).unwrap().is_some());
            remove(&engine, "mine");
            assert_eq!(lvm(state, &["lvs", "--noheadings", "-o", "lv_name,lv_uuid,lv_tags", &group]), before);
        });
    }

    #[test]
    fn half_made_volumes_and_suspended_ones_are_put_right() {
        with_engine(Layout::Thin, |state, engine| {
            let (group, folder) = (group(state), filled(&engine, THIN, "a", "kept"));
            let tag = |change: &str, name: &str| {
                drop(lvm(state, &["lvchange", change, "lvault.making", &format!("{group}/{name}")]))
            };
            engine.ensure_volume(&THIN.volume("b")).unwrap();
            tag("--addtag", "b");
            let device = state.with_group(|group| group.device("a"));
            assert!(Command::new("dmsetup").arg("suspend").arg(&device).status().unwrap().success());
            let again = state.open_lvm(Layout::Thin).unwrap();
            assert_eq!(again.observe(&id("b")).unwrap(), None, "half-made");
            assert_eq!(again.recover().unwrap(), [Recovered::Resumed(id("a")), Recovered::HalfMade(id("b"))]);
            fs::write(folder.join("file"), "written").unwrap();
            assert_eq!(again.recover().unwrap(), []);
            // And one that is begun again is not taken for finished.
            again.ensure_volume(&THIN.volume("b")).unwrap();
            tag("--addtag", "b");
            let third = state.open_lvm(Layout::Thin).unwrap();
            assert_eq!(third.ensure_volume(&THIN.volume("b")).unwrap(), Change::Changed);
        });
    }

    #[test]
    fn after_a_restart_of_the_machine_volumes_are_made_active() {
        for (kind, layout) in [(THIN, Layout::Thin), (THICK, Layout::Thick)] {
            with_engine(layout, |state, engine| {
                filled(&engine, kind, "a", "kept");
                engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
                engine.ensure_detached(&id("a")).unwrap();
                lvm(state, &["vgchange", "-q", "-an", &group(state)]);
                assert!(!state.with_group(|group| group.device("a")).exists());
                let again = state.open_lvm(layout).unwrap();
                assert_eq!((content(&again, "s"), content(&again, "a")), ("kept".into(), "kept".into()));
            });
        }
    }

    /// A write past the exception store: the snapshot is lost, and nobody takes what is left of it for data.
    #[test]
    fn a_thick_snapshot_that_is_outrun_is_lost_and_says_so() {
        with_engine(Layout::Thick, |_, engine| {
            let folder = filled(&engine, THICK, "a", "before");
            engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
            let copy = engine.ensure_attached(&id("s")).unwrap();
            let mut file = fs::File::create(folder.join("much")).unwrap();
            let noise: Vec<u8> = (0..MIB as u32).map(|number| number.wrapping_mul(2_654_435_761) as u8).collect();
            let written = (0..40).try_for_each(|_| file.write_all(&noise)).and_then(|()| file.sync_all());
            written.expect("the source goes on");
            assert_eq!(content(&engine, "a"), "before", "the source is whole");
            let read = fs::File::open(copy.join("file")).and_then(|mut file| file.read(&mut [0; 9]));
            let listed = fs::read_dir(&copy).and_then(|mut entries| entries.next().transpose());
            println!("reading what is left: {read:?}, {:?}", listed.is_ok());
            engine.recover().unwrap();
            assert_eq!((ailments(&engine, "s"), ailments(&engine, "a")), (vec![ProblemKind::SnapshotOverflow], vec![]));
            for error in [
                engine.ensure_attached(&id("s")).unwrap_err(),
                engine.ensure_snapshot(&snapshot("u", "s", Access::ReadOnly)).unwrap_err(),
            ] {
                assert!(matches!(error, EngineError::Lvm(LvmError::SnapshotOverflow { .. })), "{error}");
                assert_eq!(error.retry(), Retry::Never);
            }
            remove(&engine, "s");
            assert_eq!(content(&engine, "a"), "before");
        });
    }

    /// What lives on a removed volume keeps its storage, and takes it along.
    #[test]
    fn a_removed_thick_volume_goes_with_its_last_snapshot() {
        with_engine(Layout::Thick, |state, engine| {
            let names = || lvm(state, &["lvs", "--noheadings", "-o", "lv_name", &group(state)]);
            filled(&engine, THICK, "a", "kept");
            engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
            engine.ensure_snapshot(&snapshot("t", "a", Access::ReadWrite)).unwrap();
            lvm(state, &["lvcreate", "-q", "-y", "-s", "-L", "16m", "-n", "foreign", &format!("{}/a", group(state))]);
            let again = state.open_lvm(Layout::Thick).unwrap();
            again.ensure_detached(&id("a")).unwrap();
            let refused = again.ensure_absent(&id("a")).unwrap_err();
            assert!(refused.retry() == Retry::Later && refused.to_string().contains("(foreign)"), "{refused}");
            lvm(state, &["lvremove", "-q", "-y", &format!("{}/foreign", group(state))]);
            // Half-removed: the tag is there, the name is not free yet.
            lvm(state, &["lvchange", "-y", "--addtag", "lvault.gone=a", &format!("{}/a", group(state))]);
            let again = state.open_lvm(Layout::Thick).unwrap();
            assert_eq!(again.observe(&id("a")).unwrap(), None);
            assert_eq!(again.recover().unwrap(), [Recovered::HalfRemoved(id("a"))]);
            assert_eq!(again.recover().unwrap(), []);
            assert_eq!((content(&again, "s"), content(&again, "t")), ("kept".into(), "kept".into()));
            filled(&again, THICK, "a", "another of the same name");
            remove(&again, "s");
            assert!(names().contains("lvault-gone-"), "{}", names());
            remove(&again, "t");
            assert_eq!(names().trim(), "a");
        });
    }

    #[test]
    fn a_nearly_full_pool_begins_nothing_new() {
        with_engine(Layout::Thin, |state, engine| {
            let group = group(state);
            lvm(state, &["lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "256m", "-n", "small", &group]);
            let pool = "thin-pool: {name: small, overprovision-ratio: 9.0}";
            let class = format!("- {{name: thin, volume-group: VG, default: true, type: thin, {pool}}}");
            state.with_group(|group| group.configure(&class));
            filled(&engine, THIN, "a", "kept");
            let small = format!("{group}/small");
            lvm(state, &["lvcreate", "-q", "-y", "-V", "300m", "-T", &small, "-n", "filler"]);
            let filler = state.with_group(|group| group.device("filler"));
            let filler = fs::OpenOptions::new().write(true).open(filler).unwrap();
            for megabyte in 0..230 {
                filler.write_all_at(&[1; MIB as usize], megabyte * MIB).unwrap();
            }
            filler.sync_all().unwrap();
            let again = state.open_lvm(Layout::Thin).unwrap();
            for error in [
                again.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap_err(),
                again.ensure_volume(&THIN.volume("b")).unwrap_err(),
            ] {
                assert!(matches!(error, EngineError::Lvm(LvmError::PoolFull { .. })), "{error}");
            }
            let of_class = again.classes().unwrap().remove(0);
            assert!(of_class.problems[0].message.contains("nearly full"), "{of_class:?}");
            assert_eq!(ailments(&again, "a"), [ProblemKind::PoolNearlyFull]);
            assert!(of_class.pool.unwrap().data_percent.unwrap() >= 90.0);
            assert_eq!(content(&again, "a"), "kept");
            drop(filler);
            lvm(state, &["lvremove", "-q", "-y", &format!("{group}/filler")]);
            let again = state.open_lvm(Layout::Thin).unwrap();
            again.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap();
        });
    }

    #[test]
    fn classes_lay_volumes_out_and_their_options_are_replaced() {
        with_engine(Layout::Thick, |state, engine| {
            let group = group(state);
            let configure = |text: &str| state.with_group(|group| group.configure(text));
            let classes = "- {name: plain, volume-group: VG, spare-gb: 7}";
            let striped = "- {name: striped, volume-group: VG, spare-gb: 0, stripe: 2, stripe-size: 64k, lvcreate-options: [--readahead, \"256\"]}";
            let options = "lvcreate-option-classes:\n- {name: single, options: [--readahead, \"512\"]}";
            configure(&format!("{striped}\n{options}"));
            let segments = |name: &str| {
                lvm(
                    state,
                    &[
                        "lvs",
                        "--noheadings",
                        "--units",
                        "k",
                        "-o",
                        "stripes,stripesize,lv_read_ahead",
                        &format!("{group}/{name}"),
                    ],
                )
            };
            engine.ensure_volume(&in_class(THICK, "a", "striped")).unwrap();
            let said = segments("a");
            assert!(said.split_whitespace().eq(["2", "64.00k", "128.00k"]), "{said}");
            let one = Placement { device_class: Some("striped".into()), option_class: Some("single".into()) };
            engine.ensure_volume(&NewVolume { placement: one, ..THICK.volume("b") }).unwrap();
            let said = segments("b");
            assert!(said.split_whitespace().eq(["1", "0k", "256.00k"]), "{said}");
            // An odd size is rounded up to whole extents on both stripes, said so, and found to be the one asked for.
            let odd = NewVolume { size: Bytes(65 * MIB + 1), ..in_class(THICK, "c", "striped") };
            engine.ensure_volume(&odd).unwrap();
            assert_eq!(engine.observe(&id("c")).unwrap().unwrap().size, Bytes(72 * MIB));
            assert_eq!(engine.ensure_volume(&odd).unwrap(), Change::Unchanged);
            for (asked, says) in [
                (in_class(THICK, "d", "nvme"), "no device class 'nvme'"),
                (THICK.volume("d"), "no default"),
                (
                    NewVolume {
                        placement: Placement { option_class: Some("x".into()), device_class: Some("striped".into()) },
                        ..THICK.volume("d")
                    },
                    "no lvcreate-option-class 'x'",
                ),
            ] {
                let error = engine.ensure_volume(&asked).unwrap_err();
                assert!(error.to_string().contains(says), "{error}");
                assert_eq!(error.retry(), Retry::Never);
            }
            // A class that is taken away: its volumes are kept, attached and removed, but not grown.
            configure(classes);
            assert_eq!(engine.list().unwrap().len(), 3);
            let error = engine.ensure_size(&id("a"), Bytes(512 * MIB)).unwrap_err();
            assert!(error.to_string().contains("'striped', which is no longer in"), "{error}");
            let error = engine.ensure_snapshot(&snapshot("s", "a", Access::ReadOnly)).unwrap_err();
            assert!(matches!(error, EngineError::Lvm(LvmError::ClassGone { .. })), "{error}");
            assert_eq!(ailments(&engine, "a"), [ProblemKind::ClassGone]);
            engine.ensure_attached(&id("a")).unwrap();
            remove(&engine, "a");
            // Of 8 GiB, 7 stay spare.
            let error = engine
                .ensure_volume(&NewVolume { size: Bytes(1024 * MIB), ..in_class(THICK, "e", "plain") })
                .unwrap_err();
            assert!(matches!(error, EngineError::NoSpace { .. }), "{error}");
            engine.ensure_volume(&in_class(THICK, "e", "plain")).unwrap();
            // A file without sense leaves the classes as they were.
            configure("- {name: other, volume-group: VG, spare: 7}");
            engine.ensure_volume(&in_class(THICK, "f", "plain")).unwrap();
            let problems = engine.classes().unwrap().remove(0).problems;
            assert!(problems.iter().any(|problem| problem.message.contains("spare")), "{problems:?}");
        });
    }

    #[test]
    fn a_class_without_its_group_holds_up_no_other_and_no_removal() {
        with_engine(Layout::Thick, |state, engine| {
            let here = "- {name: thick, volume-group: VG, default: true, spare-gb: 0}";
            let gone = "- {name: gone, volume-group: nowhere}";
            state.with_group(|group| group.configure(&format!("{here}\n{gone}")));
            let refused = engine.ensure_volume(&in_class(THICK, "b", "gone")).unwrap_err();
            assert!(matches!(refused, EngineError::Lvm(LvmError::GroupMissing { .. })), "{refused}");
            assert_eq!(engine.ensure_absent(&id("b")).unwrap(), Change::Unchanged, "it was never made");
            filled(&engine, THICK, "a", "kept");
            assert_eq!(content(&engine, "a"), "kept");
            remove(&engine, "a");
            assert_eq!(engine.ensure_absent(&id("a")).unwrap(), Change::Unchanged);
            assert_eq!(engine.observe(&id("a")).unwrap(), None);
        });
    }

    #[test]
    fn a_growth_that_was_cut_short_is_finished_by_a_repeat() {
        for (kind, layout) in [(THIN, Layout::Thin), (THICK, Layout::Thick)] {
            with_engine(layout, |state, engine| {
                filled(&engine, kind, "a", "kept");
                let larger = Bytes(kind.size().0 + 64 * MIB);
                let size = format!("{}b", larger.0);
                lvm(state, &["lvextend", "-q", "-L", &size, &format!("{}/a", group(state))]);
                let again = state.open_lvm(layout).unwrap();
                assert_eq!(again.observe(&id("a")).unwrap().unwrap().size, kind.size(), "the old size is reported");
                assert_eq!(again.ensure_size(&id("a"), larger).unwrap(), Change::Changed);
                assert_eq!(again.observe(&id("a")).unwrap().unwrap().size, larger);
                assert_eq!(content(&again, "a"), "kept");
            });
        }
    }

    /// L29: a thick volume is made of what others have left on the disk.
    #[test]
    fn a_thick_volume_is_zeroed_when_it_is_made_and_when_it_grows() {
        with_engine(Layout::Thick, |state, engine| {
            let group = group(state);
            lvm(state, &["lvcreate", "-q", "-y", "-l", "100%FREE", "-n", "old", &group]);
            let device = |name: &str| state.with_group(|group| group.device(name));
            let old = fs::OpenOptions::new().write(true).open(device("old")).unwrap();
            for megabyte in 0..512 {
                old.write_all_at(&[0xA5; MIB as usize], megabyte * MIB).unwrap();
            }
            old.sync_all().unwrap();
            drop(old);
            lvm(state, &["lvremove", "-q", "-y", &format!("{group}/old")]);
            let again = state.open_lvm(Layout::Thick).unwrap();
            filled(&again, THICK, "a", "new");
            again.ensure_size(&id("a"), Bytes(256 * MIB)).unwrap();
            again.ensure_detached(&id("a")).unwrap();
            let bytes = fs::read(device("a")).unwrap();
            assert_eq!(bytes.len() as u64, 256 * MIB);
            let found = bytes.chunks(512).position(|sector| sector.iter().all(|byte| *byte == 0xA5));
            assert_eq!(found, None, "an old sector shows");
            drop(engine);
        });
    }

    /// A disk that answers with errors: behind LVM's own records first, then all of it.
    #[test]
    fn storage_that_fails_names_the_device() {
        with_engine(Layout::Thick, |state, engine| {
            engine.ensure_volume(&THICK.volume("good")).unwrap();
            let bad = BadDisk::new(state.path());
            let folder = tempfile::tempdir().unwrap();
            let group = VolumeGroup::on(folder.path(), vec![bad.path()], Vec::new());
            group.configure("- {name: bad, volume-group: VG, default: true, spare-gb: 0}");
            let options = Options { lvmd_config: Some(group.config()), ..state.options.clone() };
            let on_bad = LvmEngine::open(folder.path(), options).unwrap();
            on_bad.ensure_volume(&THICK.volume("a")).unwrap();
            on_bad.ensure_attached(&id("a")).unwrap();
            bad.fails_from(16_384);
            let error = on_bad.ensure_volume(&THICK.volume("b")).unwrap_err().to_string();
            assert!(error.contains(&format!("{}/b", group.name)), "{error}");
            on_bad.recover().unwrap();
            assert_eq!(on_bad.list().unwrap().len(), 1, "what was half-made is gone");
            bad.fails_from(0);
            let error = on_bad.ensure_volume(&THICK.volume("c")).unwrap_err().to_string();
            assert!(error.contains(bad.path().to_str().unwrap()) || error.contains(&group.name), "{error}");
            println!("{error}");
            bad.works();
            on_bad.ensure_detached(&id("a")).unwrap();
            remove(&on_bad, "a");
        });
    }
}
