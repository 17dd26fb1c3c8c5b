//! What lvault knows of a volume, written on the volume itself: LVM's tags.
//!
//! What holds: a volume without the tag of this state folder is not ours, and nothing is ever done to it; tags are made
//! in the same transaction of LVM that makes the volume; one that has `lvault.making` is half-made, whatever else it has.

use std::str::FromStr;

use lvault_core::{Bytes, VolumeId};

use crate::engine::{Access, Filesystem};

/// On every volume of every lvault.
pub(super) const OURS: &str = "lvault";
const OWNER: &str = "lvault.owner=";
const MAKING: &str = "lvault.making";
const SIZE: &str = "lvault.size=";
const ASKED: &str = "lvault.asked=";
const FILESYSTEM: &str = "lvault.fs=";
const ORIGIN: &str = "lvault.origin=";
const ACCESS: &str = "lvault.access=";
const CLASS: &str = "lvault.class=";
const ZEROED: &str = "lvault.zeroed=";
const GONE: &str = "lvault.gone=";

/// What the tags of a finished volume say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its size as far as it is finished: a growth that was cut short does not count.
    pub(super) size: Bytes,
    /// The size last asked for.
    pub(super) asked: Bytes,
    pub(super) filesystem: Filesystem,
    pub(super) origin: Option<VolumeId>,
    pub(super) access: Access,
    pub(super) class: String,
    /// Up to where a growth has zeroed it.
    pub(super) zeroed: Option<u64>,
}

/// What a volume is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Somebody else's, or another lvault's.
    Foreign,
    /// Ours, and not finished.
    HalfMade,
    /// What was the volume of this name until it was removed: thick snapshots of it live on it yet.
    Gone(VolumeId),
    /// Ours.
    Finished(Facts),
    /// Ours by its tags, but somebody has changed them.
    Damaged(String),
}

/// Reads the tags of a volume.
pub(super) fn read(tags: &[String], owner: &str) -> Ownership {
    let value = |prefix: &str| tags.iter().find_map(|tag| tag.strip_prefix(prefix));
    if !tags.iter().any(|tag| tag == OURS) || value(OWNER) != Some(owner) {
        return Ownership::Foreign;
    }
    if let Some(former) = value(GONE) {
        return parsed(GONE, former).map_or_else(Ownership::Damaged, Ownership::Gone);
    }
    if tags.iter().any(|tag| tag == MAKING) {
        return Ownership::HalfMade;
    }
    let facts = || -> Result<Facts, String> {
        let required = |prefix: &str| value(prefix).ok_or_else(|| format!("it lacks the tag {prefix}"));
        let bytes = |prefix: &str| parsed::<u64>(prefix, required(prefix)?).map(Bytes);
        Ok(Facts {
            size: bytes(SIZE)?,
            asked: bytes(ASKED)?,
            filesystem: parsed(FILESYSTEM, required(FILESYSTEM)?)?,
            origin: value(ORIGIN).map(|text| parsed(ORIGIN, text)).transpose()?,
            access: match required(ACCESS)? {
                "ro" => Access::ReadOnly,
                "rw" => Access::ReadWrite,
                other => return Err(format!("its tag {ACCESS}{other} is neither ro nor rw")),
            },
            class: required(CLASS)?.to_owned(),
            zeroed: value(ZEROED).map(|text| parsed(ZEROED, text)).transpose()?,
        })
    };
    facts().map_or_else(Ownership::Damaged, Ownership::Finished)
}

fn parsed<T: FromStr<Err: ToString>>(prefix: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| format!("its tag {prefix}{text}: {}", error.to_string()))
}

/// The tags that a volume gets when it is made, as arguments. It is half-made until [`publish`].
pub(super) fn made(
    owner: &str,
    class: &str,
    filesystem: Filesystem,
    access: Access,
    origin: Option<&VolumeId>,
) -> Vec<String> {
    let mut tags = vec![
        OURS.to_owned(),
        MAKING.to_owned(),
        format!("{OWNER}{owner}"),
        format!("{CLASS}{class}"),
        format!("{FILESYSTEM}{filesystem}"),
        format!("{ACCESS}{access}"),
    ];
    tags.extend(origin.map(|origin| format!("{ORIGIN}{origin}")));
    with("--addtag", tags)
}

/// The tags that make a volume of somebody else ours, as arguments: all of them, in one change.
pub(super) fn adopted(owner: &str, facts: &Facts) -> Vec<String> {
    let tags = made(owner, &facts.class, facts.filesystem, facts.access, facts.origin.as_ref());
    let size = [format!("{SIZE}{}", facts.size.0), format!("{ASKED}{}", facts.asked.0)];
    let tags = tags.into_iter().filter(|tag| tag != "--addtag" && tag != MAKING).chain(size);
    with("--addtag", tags.collect())
}

/// The change of tags that finishes a volume, as arguments.
pub(super) fn publish(size: Bytes, asked: Bytes) -> Vec<String> {
    let mut change = with("--deltag", vec![MAKING.to_owned()]);
    change.extend(with("--addtag", vec![format!("{SIZE}{}", size.0), format!("{ASKED}{}", asked.0)]));
    change
}

/// The change of tags that finishes a growth, as arguments.
pub(super) fn grown(before: &Facts, size: Bytes, asked: Bytes) -> Vec<String> {
    let mut old = vec![format!("{SIZE}{}", before.size.0), format!("{ASKED}{}", before.asked.0)];
    old.extend(before.zeroed.map(|zeroed| format!("{ZEROED}{zeroed}")));
    let new = vec![format!("{SIZE}{}", size.0), format!("{ASKED}{}", asked.0)];
    // What stays as it is must not be taken away.
    let (kept, old): (Vec<_>, Vec<_>) = old.into_iter().partition(|tag| new.contains(tag));
    let new = new.into_iter().filter(|tag| !kept.contains(tag)).collect();
    let mut change = with("--deltag", old);
    change.extend(with("--addtag", new));
    change
}

/// The change of tags that says up to where a growing volume is zeroed, as arguments.
pub(super) fn zeroed(before: &Facts, up_to: u64) -> Vec<String> {
    let mut change = with("--deltag", before.zeroed.map(|zeroed| format!("{ZEROED}{zeroed}")).into_iter().collect());
    change.extend(with("--addtag", vec![format!("{ZEROED}{up_to}")]));
    change
}

/// The change of tags that removes a volume which others live on, as arguments.
pub(super) fn gone(id: &VolumeId) -> Vec<String> {
    with("--addtag", vec![format!("{GONE}{id}")])
}

fn with(option: &str, tags: Vec<String>) -> Vec<String> {
    tags.into_iter().flat_map(|tag| [option.to_owned(), tag]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> VolumeId {
        VolumeId::parse(text).unwrap()
    }

    /// What LVM makes of a change.
    fn apply(tags: &mut Vec<String>, change: &[String]) {
        for pair in change.chunks(2) {
            match pair[0].as_str() {
                "--addtag" => tags.push(pair[1].clone()),
                "--deltag" => tags.retain(|tag| *tag != pair[1]),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_volume_is_half_made_then_finished_then_grown() {
        let mut tags = Vec::new();
        apply(&mut tags, &made("me", "ssd", Filesystem::Xfs, Access::ReadOnly, Some(&id("source"))));
        assert_eq!(read(&tags, "me"), Ownership::HalfMade);
        assert_eq!(read(&tags, "other"), Ownership::Foreign);
        apply(&mut tags, &publish(Bytes(8), Bytes(7)));
        let facts = Facts {
            size: Bytes(8),
            asked: Bytes(7),
            filesystem: Filesystem::Xfs,
            origin: Some(id("source")),
            access: Access::ReadOnly,
            class: "ssd".into(),
            zeroed: None,
        };
        assert_eq!(read(&tags, "me"), Ownership::Finished(facts.clone()));
        apply(&mut tags, &zeroed(&facts, 16));
        let facts = Facts { zeroed: Some(16), ..facts };
        assert_eq!(read(&tags, "me"), Ownership::Finished(facts.clone()));
        apply(&mut tags, &grown(&facts, Bytes(16), Bytes(7)));
        assert_eq!(read(&tags, "me"), Ownership::Finished(Facts { size: Bytes(16), zeroed: None, ..facts }));
        assert!(read(&tags, "other") == Ownership::Foreign && read(&[], "me") == Ownership::Foreign);
        apply(&mut tags, &gone(&id("a")));
        assert_eq!(read(&tags, "me"), Ownership::Gone(id("a")));
    }

    #[test]
    fn an_adopted_volume_is_finished_at_once() {
        let facts = Facts {
            size: Bytes(16),
            asked: Bytes(15),
            filesystem: Filesystem::Btrfs,
            origin: Some(id("source")),
            access: Access::ReadWrite,
            class: "hdd".into(),
            zeroed: None,
        };
        let mut tags = vec!["somebody's".to_owned()];
        apply(&mut tags, &adopted("me", &facts));
        assert_eq!(read(&tags, "me"), Ownership::Finished(facts));
    }

    #[test]
    fn changed_tags_are_said() {
        let tags = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        for (text, says) in [
            ("lvault,lvault.owner=me", "lvault.size="),
            ("lvault,lvault.owner=me,lvault.size=x", "lvault.size=x"),
            ("lvault,lvault.owner=me,lvault.size=1,lvault.asked=1,lvault.fs=ntfs", "ntfs"),
            ("lvault,lvault.owner=me,lvault.size=1,lvault.asked=1,lvault.fs=xfs,lvault.access=x", "neither"),
        ] {
            let Ownership::Damaged(why) = read(&tags(text), "me") else { panic!("{text}") };
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
