//! What a spec and a Secret mean, and how what is wrong with them is named.

use super::*;
use lvault_api::task::MountedFolder;
use std::collections::BTreeMap;

fn spec(yaml: &str) -> SnapshotBackupStorageSpec {
    serde_json::from_str(yaml).unwrap()
}

const S3: &str = r#"{"storage": {"provider": "s3", "s3": {"endpoint": "https://s3.example.com", "bucket": "b"}}}"#;
const GCS: &str = r#"{"storage": {"provider": "gcs", "gcs": {"bucket": "b", "prefix": "/a/b/"}}}"#;
const AZURE: &str = r#"{"storage": {"provider": "azure", "azure": {"container": "c", "maxConnections": 3}}}"#;

fn with_keys(spec: &SnapshotBackupStorageSpec, given: &[(&str, &str)]) -> Result<Location, InvalidStorage> {
    let given: BTreeMap<&str, &str> = given.iter().copied().collect();
    location(spec, Purpose::BackUp, |name| given.get(name).copied())
}

#[test]
fn a_bucket_takes_its_settings_from_the_spec_and_its_keys_from_the_secret() {
    let keys = [("AWS_ACCESS_KEY_ID", "id\n"), ("AWS_SECRET_ACCESS_KEY", "key"), ("AWS_SESSION_TOKEN", "token")];
    let mut s3 = spec(S3);
    let settings = s3.storage.s3.as_mut().unwrap();
    (settings.region, settings.prefix) = (Some("eu-west-1".to_owned()), Some("p/q".to_owned()));
    (settings.max_connections, settings.insecure_tls) = (Some(9), true);
    s3.backup_flags = vec!["--limit-upload=100".to_owned(), "--limit-download=9".to_owned()];
    let Location::Remote(remote) = with_keys(&s3, &[&keys[..], &[("CA_CERT_DATA", "pem")]].concat()).unwrap() else {
        panic!("a bucket is no folder")
    };
    assert_eq!(remote.to_string(), "s3:https://s3.example.com/b/p/q");
    let service = Service::S3 {
        endpoint: Endpoint::parse("https://s3.example.com").unwrap(),
        region: "eu-west-1".to_owned(),
        key_id: "id".to_owned(),
        key: Secret::new("key"),
        session_token: Some(Secret::new("token")),
    };
    assert_eq!(remote.service, service);
    let options = RemoteOptions {
        max_connections: NonZeroUsize::new(9).unwrap(),
        upload_rate: NonZeroU64::new(102_400),
        download_rate: NonZeroU64::new(9 << 10),
        ca_certificates: Some("pem".to_owned()),
        insecure_tls: true,
        ..RemoteOptions::default()
    };
    assert_eq!(remote.options, options);

    let gcs = with_keys(&spec(GCS), &[("GOOGLE_SERVICE_ACCOUNT_JSON_KEY", "{}")]).unwrap();
    assert_eq!(gcs.to_string(), "gs:b:/a/b");
    let regional =
        spec(&GCS.replace("\"b\"", "\"b\", \"endpoint\": \"https://storage.me-central2.rep.googleapis.com\""));
    let gcs = with_keys(&regional, &[("GOOGLE_SERVICE_ACCOUNT_JSON_KEY", "{}")]).unwrap();
    let Location::Remote(Remote { service: Service::Gcs { endpoint, .. }, .. }) = gcs else { panic!("{gcs}") };
    assert_eq!(endpoint, Some(Endpoint::parse("https://storage.me-central2.rep.googleapis.com").unwrap()));
    let azure = with_keys(&spec(AZURE), &[("AZURE_ACCOUNT_NAME", "acc"), ("AZURE_ACCOUNT_KEY", "a2V5")]).unwrap();
    assert_eq!(azure.to_string(), "azure:c:");
    let elsewhere = spec(&AZURE.replace("\"c\"", "\"c\", \"endpoint\": \"https://acc.blob.example.com\""));
    let azure = with_keys(&elsewhere, &[("AZURE_ACCOUNT_NAME", "acc"), ("AZURE_ACCOUNT_KEY", "a2V5")]).unwrap();
    let Location::Remote(Remote { service: Service::Azure { endpoint, .. }, .. }) = azure else { panic!("{azure}") };
    assert_eq!(endpoint, Some(Endpoint::parse("https://acc.blob.example.com").unwrap()));
    let local = spec(r#"{"storage": {"provider": "local", "local": {"path": "/srv"}}}"#);
    assert_eq!(with_keys(&local, &[]).unwrap(), Location::Local { root: PathBuf::from("/srv") });
}

#[test]
fn flags_of_a_purpose_come_before_those_for_every_operation() {
    let rates = |global: &[&str], backup: &[&str], restore: &[&str], purpose| {
        let mut spec = spec(S3);
        let owned = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
        (spec.global_flags, spec.backup_flags, spec.restore_flags) = (owned(global), owned(backup), owned(restore));
        let Location::Remote(remote) = location(&spec, purpose, |_| Some("x")).unwrap() else { panic!("a bucket") };
        let kib = |rate: Option<NonZeroU64>| rate.map_or(0, |rate| rate.get() / 1024);
        (kib(remote.options.upload_rate), kib(remote.options.download_rate))
    };
    let (up, down) = ("--limit-upload=1", "--limit-download=2");
    for purpose in [Purpose::BackUp, Purpose::Restore] {
        assert_eq!(rates(&[], &[], &[], purpose), (0, 0));
        assert_eq!(rates(&[up, down], &[], &[], purpose), (1, 2));
    }
    for (backup, restore, backs_up, restores) in [
        (&["--limit-upload=3"][..], &["--limit-download=4"][..], (3, 2), (1, 4)),
        (&["--limit-download=3"], &[], (1, 3), (1, 2)),
    ] {
        assert_eq!(rates(&[up, down], backup, restore, Purpose::BackUp), backs_up);
        assert_eq!(rates(&[up, down], backup, restore, Purpose::Restore), restores);
    }
    assert_eq!(rates(&[], &[up, down], &[], Purpose::Restore), (0, 0), "a limit of backups is none of restores");
    let folder = MountedFolder { path: None, device: None };
    let restore = Work::Restore { attempt: 1, launch: 1, folder, snapshot: "s".to_owned(), size: 1 };
    assert_eq!((Purpose::of(&restore), Purpose::of(&Work::Forget)), (Purpose::Restore, Purpose::BackUp));
}

#[test]
fn a_key_that_is_missing_or_empty_is_named() {
    for (json, given, missing) in [
        (S3, &[][..], "AWS_ACCESS_KEY_ID"),
        (S3, &[("AWS_ACCESS_KEY_ID", "id")], "AWS_SECRET_ACCESS_KEY"),
        (S3, &[("AWS_ACCESS_KEY_ID", " \n"), ("AWS_SECRET_ACCESS_KEY", "k")], "AWS_ACCESS_KEY_ID"),
        (GCS, &[], "GOOGLE_SERVICE_ACCOUNT_JSON_KEY"),
        (AZURE, &[("AZURE_ACCOUNT_KEY", "k")], "AZURE_ACCOUNT_NAME"),
        (AZURE, &[("AZURE_ACCOUNT_NAME", "acc")], "AZURE_ACCOUNT_KEY"),
    ] {
        let error = with_keys(&spec(json), given).unwrap_err();
        assert_eq!(error.field, missing, "{error}");
        assert_eq!(check(&spec(json)), Ok(()), "the spec itself is fine");
    }
}

#[test]
fn what_makes_no_sense_in_a_spec_is_named() {
    let s3 = |change: &str, to: &str| spec(&S3.replace(change, to));
    for (wrong, field) in [
        (s3(r#""s3":"#, r#""gcs":"#), "spec.storage.s3"),
        (s3("https://s3.example.com", "https:/s3"), "spec.storage.s3.endpoint"),
        (s3("\"b\"", "\"a/b\""), "spec.storage.s3.bucket"),
        (s3("\"b\"", "\"b\", \"prefix\": \"../x\""), "spec.storage.s3.prefix"),
        (s3("\"b\"", "\"b\", \"region\": \"a b\""), "spec.storage.s3.region"),
        (s3("\"b\"", "\"b\", \"maxConnections\": -1"), "spec.storage.s3.maxConnections"),
        (s3("{\"storage\"", "{\"engine\": \"kopia\", \"storage\""), "spec.engine"),
        (s3("{\"storage\"", "{\"backupFlags\": [\"--compression=max\"], \"storage\""), "spec.backupFlags"),
        (s3("{\"storage\"", "{\"backupFlags\": [\"--limit-upload=0\"], \"storage\""), "spec.backupFlags"),
        (s3("{\"storage\"", "{\"restoreFlags\": [\"--limit-upload=9\"], \"storage\""), "spec.restoreFlags"),
        (s3("{\"storage\"", "{\"restoreFlags\": [\"--limit-download=-1\"], \"storage\""), "spec.restoreFlags"),
        (s3("{\"storage\"", "{\"globalFlags\": [\"--limit-download\"], \"storage\""), "spec.globalFlags"),
        (spec(&AZURE.replace("\"c\"", "\"c\", \"storageAccount\": \"A.b\"")), "spec.storage.azure.storageAccount"),
        (spec(&AZURE.replace("\"c\"", "\"c\", \"endpoint\": \"ftp://x\"")), "spec.storage.azure.endpoint"),
        (spec(&GCS.replace("\"b\"", "\"b\", \"endpoint\": \"https://x/b\"")), "spec.storage.gcs.endpoint"),
        (
            spec(r#"{"backupFlags": ["--limit-upload=9"], "storage": {"provider": "local", "local": {"path": "/s"}}}"#),
            "spec.backupFlags",
        ),
        (
            spec(
                r#"{"globalFlags": ["--limit-download=9"], "storage": {"provider": "local", "local": {"path": "/s"}}}"#,
            ),
            "spec.globalFlags",
        ),
    ] {
        let error = check(&wrong).unwrap_err();
        assert_eq!(error.field, field, "{error}");
    }
    let unknown = check(&s3("{\"storage\"", "{\"backupFlags\": [\"--compression=max\"], \"storage\"")).unwrap_err();
    assert!(unknown.to_string().contains("'--compression=max'"), "{unknown}");
}
