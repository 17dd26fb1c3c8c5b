//! Files that are taken and files that are refused, with the words a user reads.

use super::*;

const FULL: &str = r#"
socket-name: /run/topolvm/lvmd.sock
device-classes:
  - name: hdd
    volume-group: vg_hdd
    spare-gb: 2
    stripe: 2
    stripe-size: "64k"
    lvcreate-options: ["--mirrors", "1"]
  - name: ssd   # the fast one
    volume-group: vg+ssd.1
    default: true
    type: thin
    thin-pool:
      name: pool0
      overprovision-ratio: 5.0
  - name: plain
    volume-group: vg_plain
    type: thick
lvcreate-option-classes:
  - name: raid
    options: ["--type=raid1"]
lvm-command-prefix: ["/usr/bin/nsenter", "-t", "1"]
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/lvmd.yaml"), text).map_err(|error| error.to_string())
}

#[test]
fn every_field_is_read() {
    let config = parse(FULL).unwrap();
    let kinds: Vec<_> = config.classes.iter().map(|class| class.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            Kind::Thick { spare: 2 * GIB, stripes: Some(2), stripe_size: Some("64k".into()) },
            Kind::Thin { pool: "pool0".into(), overprovision: 5.0 },
            Kind::Thick { spare: 10 * GIB, stripes: None, stripe_size: None },
        ]
    );
    assert_eq!(config.class(None).unwrap().name, "ssd");
    assert_eq!(config.class(Some("hdd")).unwrap().volume_group, "vg_hdd");
    assert_eq!(config.command_prefix, ["/usr/bin/nsenter", "-t", "1"]);
    let hdd = config.class(Some("hdd")).unwrap();
    assert_eq!(hdd.create_options(None), ["-i", "2", "-I", "64k", "--mirrors", "1"]);
    // Replaced, not merged.
    let raid = config.option_class("raid").unwrap();
    assert_eq!(hdd.create_options(Some(raid)), ["--type=raid1"]);
    assert_eq!(config.class(Some("ssd")).unwrap().create_options(None), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_field() {
    let cases: [(&str, &str, &[&str]); 17] = [
        ("spare-gb: 2", "spare-gb: two", &["device-classes[0].spare-gb", "line 6"]),
        ("spare-gb: 2", "spare-gb: -1", &["device-classes[0].spare-gb", "line 6"]),
        ("spare-gb: 2", "spare-gib: 2", &["spare-gib", "line 6"]),
        ("stripe: 2", "stripe: 0", &["device-classes[0].stripe", "at least 1", "line 7"]),
        ("\"64k\"", "\"64kk\"", &["device-classes[0].stripe-size", "'64kk'", "line 8"]),
        ("name: hdd", "name: h/dd", &["device-classes[0].name", "'h/dd'", "line 4"]),
        ("vg_hdd", "-vg", &["device-classes[0].volume-group", "'-vg'", "line 5"]),
        ("vg_hdd", "\"a;b\"", &["device-classes[0].volume-group", "'a;b'", "line 5"]),
        ("ratio: 5.0", "ratio: 0.9", &["overprovision-ratio", "0.9", "line 16"]),
        ("type: thin", "type: thn", &["device-classes[1].type", "thn", "line 13"]),
        ("type: thick", "type: thin", &["'plain'", "thin-pool", "missing", "line 17"]),
        ("type: thin", "type: thick", &["'ssd'", "thin-pool", "type is thick", "line 10"]),
        ("type: thick", "default: true", &["'plain'", "default", "'ssd'", "line 17"]),
        ("name: plain", "name: hdd", &["'hdd'", "name", "taken", "line 17"]),
        ("vg_plain", "vg_hdd", &["'plain'", "volume-group", "'hdd'", "line 17"]),
        ("/run/topolvm", "run", &["socket-name", "absolute"]),
        ("options: [\"--type=raid1\"]", "options: 7", &["lvcreate-option-classes[0].options", "line 22"]),
    ];
    for (there, instead, says) in cases {
        assert!(FULL.contains(there), "{there}");
        let error = parse(&FULL.replacen(there, instead, 1)).unwrap_err();
        for part in [&["/etc/lvmd.yaml"], says].concat() {
            assert!(error.contains(part), "{there} -> {instead}: '{part}' is not in: {error}");
        }
    }
}

#[test]
fn files_without_sense_are_refused() {
    for (text, says) in [
        ("", "device-classes"),
        ("device-classes: []", "at least one"),
        ("- a\n- b", "invalid type"),
        ("device-classes: [", "line 2"),
        ("device-classes:\n- name: \u{1}", ", line 2: control characters"),
        ("%", "line 1"),
        ("hdd", "a mapping with device-classes"),
        ("device-classes:\n- name: a\n", "volume-group"),
        ("device-classes:\n- {name: a, volume-group: v, type: thin, thin-pool: {name: p}}\n", "overprovision-ratio"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    let again = FULL.to_owned() + "socket-name: /x\n";
    assert!(parse(&again).unwrap_err().contains("socket-name"));
    let twice = FULL.replace("lvm-command", "  - name: raid\n    options: []\nlvm-command");
    let error = parse(&twice).unwrap_err();
    assert!(error.contains("lvcreate-option-classes[1] 'raid'") && error.contains("line 23"), "{error}");
}

#[test]
fn a_class_that_is_not_there_is_answered_with_those_that_are() {
    let config = parse(FULL).unwrap();
    let error = config.class(Some("nvme")).unwrap_err().to_string();
    assert!(error.contains("'nvme'") && error.contains("hdd, ssd, plain"), "{error}");
    let error = config.option_class("x").unwrap_err().to_string();
    assert!(error.contains("'x'") && error.contains("raid"), "{error}");
    let error = parse(&FULL.replace("default: true", "default: false")).unwrap().class(None).unwrap_err().to_string();
    assert!(error.contains("no default") && error.contains("hdd, ssd, plain"), "{error}");
}

/// What the overlay for clusters shows is a configuration that is read.
#[test]
fn the_overlay_of_the_manifests_is_understood() {
    let overlay = include_str!("../../../../deploy/overlays/lvm/lvmd.yaml");
    let object: serde_yaml_ng::Value = serde_yaml_ng::from_str(overlay).expect("YAML");
    parse(object["data"]["lvmd.yaml"].as_str().expect("a text")).expect("device classes");
}
