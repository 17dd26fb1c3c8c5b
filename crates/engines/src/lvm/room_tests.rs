//! Room and fitness of classes, computed from reports that are written here.

use std::path::Path;

use super::*;
use crate::health::ProblemKind;

const GIB: u64 = 1 << 30;
const EXTENT: u64 = 4 << 20;
const OWNER: &str = "me";

fn config() -> Config {
    let text = "device-classes:
- {name: thick, volume-group: vg, spare-gb: 1, stripe: 2}
- {name: thin, volume-group: vg, type: thin, thin-pool: {name: pool, overprovision-ratio: 2.5}}
- {name: odd, volume-group: vg, type: thin, thin-pool: {name: plain, overprovision-ratio: 1}}
- {name: none, volume-group: vg, type: thin, thin-pool: {name: none, overprovision-ratio: 1}}
- {name: gone, volume-group: gone}
";
    Config::parse(Path::new("lvmd.yaml"), text).unwrap()
}

/// `(name, attributes, GiB, tags, data percent)`
type Row<'a> = (&'a str, &'a str, u64, &'a str, &'a str);

fn report(rows: &[Row<'_>], missing: &str) -> Report {
    let volumes: Vec<String> = rows
        .iter()
        .map(|(name, attributes, gib, tags, data)| {
            let size = gib * GIB;
            let (metadata, pool) = (if attributes.starts_with('t') { "3" } else { "" }, if attributes.starts_with('V') { "pool" } else { "" });
            format!(
                r#"{{"lv_name":"{name}","lv_uuid":"{name}","lv_size":"{size}","lv_attr":"{attributes}","lv_tags":"{tags}",
                "lv_layout":"linear","origin":"","pool_lv":"{pool}","data_percent":"{data}","metadata_percent":"{metadata}","lv_health_status":""}}"#
            )
        })
        .collect();
    let text = format!(
        r#"{{"report":[{{"vg":[{{"vg_name":"vg","vg_uuid":"u","vg_size":"{}","vg_free":"{}","vg_extent_size":"{EXTENT}"}}],
        "pv":[{{"pv_name":"/dev/sdq","pv_uuid":"p","pv_missing":"{missing}"}}],"lv":[{}]}}]}}"#,
        100 * GIB,
        7 * GIB,
        volumes.join(",")
    );
    Report::parse(&text).unwrap()
}

const POOL: Row<'static> = ("pool", "twi-aotz--", 10, "", "50");

fn check<T>(rows: &[Row<'_>], missing: &str, class: &str, look: impl FnOnce(Result<Storage<'_>, LvmError>) -> T) -> T {
    let (report, config) = (report(rows, missing), config());
    look(storage(&report, &config, config.class(Some(class)).unwrap()))
}

#[test]
fn spare_extents_and_the_ratio_are_kept() {
    let available =
        |rows: &[Row<'_>], class: &str| check(rows, "", class, |storage| storage.unwrap().capacity(OWNER).available.0);
    assert_eq!(available(&[], "thick"), 6 * GIB, "7 free, 1 spare");
    assert_eq!(available(&[POOL], "thin"), 25 * GIB, "2.5 times 10");
    let ours = "lvault,lvault.owner=me,lvault.size=1,lvault.asked=1,lvault.fs=xfs,lvault.class=thin";
    let (snapshot, clone) = (format!("{ours},lvault.access=ro"), format!("{ours},lvault.access=rw"));
    let rows = [
        POOL,
        ("a", "Vwi-a-tz--", 4, "", "1"),
        ("b", "Vwi-a-tz--", 8, &clone, "1"),
        ("s", "Vri-a-tz--", 8, &snapshot, "1"),
        ("k", "-wi-a-----", 50, "", ""),
    ];
    assert_eq!(available(&rows, "thin"), 13 * GIB, "somebody else's and our clone count, our snapshot does not");
    let full = [POOL, ("a", "Vwi-a-tz--", 99, "", "1")];
    assert_eq!(available(&full, "thin"), 0);
    let refused = check(&[POOL], "", "thin", |storage| {
        let id = VolumeId::parse("a").unwrap();
        let storage = storage.unwrap();
        storage.require_room(&id, Bytes(25 * GIB), OWNER).unwrap();
        storage.require_room(&id, Bytes(25 * GIB + 1), OWNER).unwrap_err()
    });
    assert!(matches!(refused, EngineError::NoSpace { .. }), "{refused}");
}

#[test]
fn sizes_are_whole_extents_on_every_stripe() {
    let rounded = |class: &str, size: u64| check(&[POOL], "", class, |storage| storage.unwrap().rounded(Bytes(size)));
    assert_eq!(rounded("thin", EXTENT + 1), Some(Bytes(2 * EXTENT)));
    assert_eq!(rounded("thick", EXTENT), Some(Bytes(2 * EXTENT)), "two stripes");
    assert_eq!(rounded("thick", u64::MAX), None);
}

#[test]
fn storage_that_is_not_there_or_not_fit_is_said() {
    let sound = |rows: &[Row<'_>], missing: &str, class: &str| {
        check(rows, missing, class, |storage| storage.and_then(|storage| storage.require_sound()))
            .map_err(|error| error.to_string())
    };
    assert_eq!(sound(&[POOL], "", "thin"), Ok(()));
    assert_eq!(
        sound(&[("pool", "twi-aotz--", 10, "", "")], "", "thin"),
        Ok(()),
        "not active: nothing is known against it"
    );
    for (row, missing, class, says) in [
        (POOL, "", "gone", "volume group gone, which does not exist"),
        (POOL, "", "none", "vg/none, which does not exist"),
        (("plain", "-wi-a-----", 1, "", ""), "", "odd", "vg/plain, but that is a volume of type linear"),
        (POOL, "missing", "thin", "lacks /dev/sdq"),
        (POOL, "missing", "thick", "lacks /dev/sdq"),
        (("pool", "twi-aotz--", 10, "", "90.00"), "", "thin", "nearly full (data 90.0%, metadata 3.0%"),
        (("pool", "twi-aotzD-", 10, "", "100"), "", "thin", "out of data space"),
        (("pool", "twi-aotzM-", 10, "", "5"), "", "thin", "metadata read only"),
        (("pool", "twi-aotzF-", 10, "", "5"), "", "thin", "does not work (failed)"),
        (("pool", "twi-aot---", 10, "", "5"), "", "thin", "does not zero"),
    ] {
        let error = sound(&[row], missing, class).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(sound(&[("pool", "twi-aotz--", 10, "", "89.99")], "", "thin"), Ok(()));
}

#[test]
fn a_class_is_reported_with_its_pool_and_its_problems() {
    let of_class = check(&[("pool", "twi-aotzM-", 10, "", "95")], "", "thin", |storage| storage.unwrap().report(OWNER));
    let pool = of_class.pool.unwrap();
    assert_eq!((pool.size, pool.data_percent, pool.metadata_percent), (Bytes(10 * GIB), Some(95.0), Some(3.0)));
    assert_eq!(pool.overprovisioned_available, Bytes(25 * GIB));
    let kinds: Vec<ProblemKind> = of_class.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::PoolFailed, ProblemKind::PoolNearlyFull], "{:?}", of_class.problems);
    assert_eq!((of_class.volume_group_size, of_class.volume_group_free), (Bytes(100 * GIB), Bytes(7 * GIB)));
}
