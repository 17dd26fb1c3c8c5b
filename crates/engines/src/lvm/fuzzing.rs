//! Targets of fuzzing over what LVM and the writer of `lvmd.yaml` say: see [`crate::fuzzing`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a target that panics has found something")]

use std::path::Path;

use super::config::{Config, Kind};
use super::error::LvmError;
use super::report::Report;
use super::tags::{self, Ownership};

/// `lvmd.yaml`: what is refused names the file and a place in it; what is taken keeps to its limits.
pub(crate) fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let config = match Config::parse(Path::new("/etc/lvmd.yaml"), &text) {
        Ok(config) => config,
        Err(refused) => return assert!(names_a_place(&refused), "{refused}"),
    };
    assert!(!config.classes.is_empty());
    assert!(config.classes.iter().filter(|class| class.default).count() <= 1);
    for (index, class) in config.classes.iter().enumerate() {
        assert!(is_plain(&class.name) && is_plain(&class.volume_group), "{class:?}");
        assert_eq!(config.class(Some(&class.name)).expect("it is there"), class);
        match &class.kind {
            Kind::Thick { spare, stripes, stripe_size } => {
                assert!(spare % (1 << 30) == 0 || *spare == u64::MAX, "{class:?}");
                assert!(stripes.is_none_or(|count| count > 0));
                assert!(stripe_size.as_ref().is_none_or(|size| size.starts_with(|c: char| c.is_ascii_digit())));
            }
            Kind::Thin { pool, overprovision } => {
                assert!(is_plain(pool) && *overprovision >= 1.0 && overprovision.is_finite(), "{class:?}");
            }
        }
        let places = config.classes.iter().skip(index + 1).filter(|other| match (&class.kind, &other.kind) {
            (Kind::Thick { .. }, Kind::Thick { .. }) => class.volume_group == other.volume_group,
            (Kind::Thin { pool, .. }, Kind::Thin { pool: theirs, .. }) => {
                class.volume_group == other.volume_group && pool == theirs
            }
            (Kind::Thick { .. }, Kind::Thin { .. }) | (Kind::Thin { .. }, Kind::Thick { .. }) => false,
        });
        assert_eq!(places.count(), 0, "its room counts twice");
    }
    for class in &config.option_classes {
        assert_eq!(config.option_class(&class.name).expect("it is there"), class);
    }
}

fn names_a_place(refused: &LvmError) -> bool {
    let said = refused.to_string();
    let fields = ["device-classes", "lvcreate-option-classes", "socket-name", "lvm-command-prefix"];
    said.starts_with("/etc/lvmd.yaml") && (said.contains("line ") || fields.iter().any(|field| said.contains(field)))
}

/// A name that is no option, and no path that leads elsewhere.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['-', '.']) && name.len() <= 127 && !name.contains(['/', '\0', ' ', '\n'])
}

/// What `lvm fullreport` writes: what is refused says why; the numbers of what is taken are numbers.
pub(crate) fn report(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let report = match Report::parse(&text) {
        Ok(report) => report,
        Err(refused) => return assert!(matches!(&refused, LvmError::Output { why } if !why.is_empty()), "{refused}"),
    };
    for (name, group) in &report.groups {
        assert!(!name.is_empty() && group.extent > 0, "{name}");
        for lv in group.volumes.values() {
            for percent in [&lv.data, &lv.metadata] {
                assert!(percent.0.is_none_or(f64::is_finite), "{percent}");
            }
            assert!(!lv.is_lost_snapshot() || lv.is_thick_snapshot());
            let kinds = [lv.is_thick_snapshot(), lv.is_thin(), lv.is_thin_pool(), lv.is_plain()];
            assert!(kinds.into_iter().filter(|is| *is).count() <= 1, "{lv:?}");
            assert!(lv.problem().is_none_or(|problem| !problem.is_empty()));
            assert!(lv.tags.iter().all(|tag| !tag.is_empty() && !tag.contains(',')));
        }
    }
}

/// Tags of a volume, one a line: what they say is written as tags that say the same.
pub(crate) fn tags(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let found: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_ours = found.iter().any(|tag| tag == tags::OURS) && found.iter().any(|tag| tag == "lvault.owner=me");
    match tags::read(&found, "me") {
        Ownership::Foreign => {}
        Ownership::HalfMade | Ownership::Gone(_) => assert!(is_ours),
        Ownership::Damaged(why) => assert!(is_ours && why.contains("lvault."), "{why}"),
        Ownership::Finished(facts) => {
            assert!(is_ours);
            let written: Vec<String> =
                tags::adopted("me", &facts).into_iter().filter(|word| word != "--addtag").collect();
            let expected = tags::Facts { zeroed: None, ..facts };
            assert_eq!(tags::read(&written, "me"), Ownership::Finished(expected));
        }
    }
}
