//! Where a new storage is, from arguments, and the keys it takes, from a file or the environment.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::ByteString;
use lvault_api::{
    AzureStorage, GcsStorage, InvalidStorage, LocalStorage, Provider, PrunePolicy, S3Storage,
    SnapshotBackupStorageSpec, StorageLocation, StorageReference, keys,
};
use lvault_storages::Purpose;
use zeroize::Zeroizing;

use crate::args::PlaceArgs;
use crate::error::{CliError, named};

/// Keys that a bucket takes are not longer than this.
const LONGEST_FILE: u64 = 1 << 20;

/// A storage that is asked for.
#[derive(Debug)]
pub struct Asked {
    /// Its spec, which makes sense.
    pub spec: SnapshotBackupStorageSpec,
    /// The keys that were given, by their names in the Secret.
    pub credentials: BTreeMap<&'static str, Zeroizing<String>>,
}

impl Asked {
    /// A folder.
    pub fn local(folder: &str) -> Result<Self, CliError> {
        Self::of(&PlaceArgs { local: Some(folder.to_owned()), ..PlaceArgs::default() })
    }

    /// What the arguments ask for; keys are read.
    pub fn of(place: &PlaceArgs) -> Result<Self, CliError> {
        let spec = spec(place);
        lvault_storages::check(&spec)?;
        let credentials = credentials(place, spec.storage.provider, |key| std::env::var(key).ok())?;
        Ok(Self { spec, credentials })
    }

    /// Whether all keys were given that the storage takes.
    pub(super) fn is_complete(&self) -> Result<(), CliError> {
        let key = |name: &str| self.credentials.get(name).map(|value| value.as_str());
        lvault_storages::location(&self.spec, Purpose::BackUp, key).map(drop).map_err(
            |InvalidStorage { field, problem }| {
                CliError::input(named(field), problem, "give it in the environment, or in the file of --credentials")
            },
        )
    }

    /// Whether a Secret that is there already will do: it holds all keys that the storage takes, and no other ones than
    /// those that were given.
    pub(super) fn fits(
        &self,
        secret: &BTreeMap<String, ByteString>,
        at: &StorageReference,
        tried: &str,
    ) -> Result<(), CliError> {
        let impossible = |happened: String| CliError::Impossible {
            tried: tried.to_owned(),
            happened,
            remedy: "correct that Secret, delete it, or choose another name".to_owned(),
        };
        let key = |name: &str| secret.get(name).and_then(|value| std::str::from_utf8(&value.0).ok());
        lvault_storages::location(&self.spec, Purpose::BackUp, key).map_err(|InvalidStorage { field, problem }| {
            impossible(format!("Secret {at} is there: {field} {problem}"))
        })?;
        match self.credentials.iter().find(|(name, value)| key(name) != Some(value.as_str())) {
            Some((name, _)) => Err(impossible(format!("Secret {at} is there with another {name} than the one given"))),
            None => Ok(()),
        }
    }
}

fn spec(place: &PlaceArgs) -> SnapshotBackupStorageSpec {
    let (prefix, max_connections, secret_name) = (place.prefix.clone(), place.max_connections, None);
    let mut storage = StorageLocation { provider: Provider::Local, local: None, s3: None, gcs: None, azure: None };
    if let Some(bucket) = &place.s3 {
        storage.provider = Provider::S3;
        storage.s3 = Some(S3Storage {
            endpoint: place.endpoint.clone().unwrap_or_default(),
            bucket: bucket.clone(),
            prefix,
            region: place.region.clone(),
            secret_name,
            max_connections,
            insecure_tls: place.insecure_tls,
        });
    } else if let Some(bucket) = &place.gcs {
        storage.provider = Provider::Gcs;
        let (endpoint, bucket) = (place.endpoint.clone(), bucket.clone());
        storage.gcs = Some(GcsStorage { endpoint, bucket, prefix, max_connections, secret_name });
    } else if let Some(container) = &place.azure {
        storage.provider = Provider::Azure;
        storage.azure = Some(AzureStorage {
            endpoint: place.endpoint.clone(),
            storage_account: place.account.clone(),
            container: container.clone(),
            prefix,
            max_connections,
            secret_name,
        });
    } else {
        storage.local = Some(LocalStorage { path: place.local.clone().unwrap_or_default(), secret_name });
    }
    SnapshotBackupStorageSpec {
        engine: "restic".to_owned(),
        storage,
        global_flags: place.limit_download.map(|limit| format!("--limit-download={limit}")).into_iter().collect(),
        backup_flags: place.limit_upload.map(|limit| format!("--limit-upload={limit}")).into_iter().collect(),
        restore_flags: Vec::new(),
        validate_on_create: true,
        prune: Some(PrunePolicy::default()),
        read_back: None,
    }
}

/// The keys that the provider takes: from the file where one is named, otherwise from the environment.
fn credentials(
    place: &PlaceArgs,
    provider: Provider,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<&'static str, Zeroizing<String>>, CliError> {
    let mut found: BTreeMap<&'static str, Zeroizing<String>> = BTreeMap::new();
    match &place.credentials {
        Some(file) => {
            let text = read(file, "reading the bucket's keys from")?;
            if provider == Provider::Gcs && text.trim_start().starts_with('{') {
                found.insert(keys::GOOGLE_SERVICE_ACCOUNT_JSON_KEY, text);
            } else {
                found = lines(&text, provider.secret_keys())?;
            }
        }
        None => {
            let given = provider.secret_keys().iter().filter(|key| **key != keys::CA_CERT_DATA);
            found.extend(given.filter_map(|key| Some((*key, Zeroizing::new(environment(key)?)))));
        }
    }
    if let Some(file) = &place.ca_file {
        found.insert(keys::CA_CERT_DATA, read(file, "reading certificates from")?);
    }
    Ok(found)
}

fn read(file: &Path, tried: &'static str) -> Result<Zeroizing<String>, CliError> {
    let remedy = "name a file with text in it";
    let failed = |happened: &dyn std::fmt::Display| CliError::file(tried, file, happened.to_string(), remedy);
    let size = std::fs::metadata(file).map_err(|error| failed(&error))?.len();
    if size > LONGEST_FILE {
        return Err(failed(&"it has more than 1 MiB"));
    }
    std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| failed(&error))
}

/// Lines `NAME=VALUE`. Empty lines and those that begin with `#` do not count. What a line holds is not repeated.
fn lines(text: &str, known: &'static [&'static str]) -> Result<BTreeMap<&'static str, Zeroizing<String>>, CliError> {
    let mut found = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let key = pair.and_then(|(name, value)| Some((*known.iter().find(|key| **key == name)?, value)));
        let Some((name, value)) = key else {
            let problem =
                format!("line {} is none of {}, each followed by = and its value", number + 1, known.join(", "));
            return Err(CliError::input("--credentials", problem, "write one NAME=VALUE a line"));
        };
        found.insert(name, Zeroizing::new(value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut PlaceArgs)) -> Result<SnapshotBackupStorageSpec, CliError> {
        let mut place = PlaceArgs::default();
        change(&mut place);
        let spec = spec(&place);
        lvault_storages::check(&spec)?;
        Ok(spec)
    }

    #[test]
    fn only_absolute_plain_folders_are_storages() {
        assert!(Asked::local("/srv/backup").is_ok());
        for bad in ["", "/", "backup", "../x", "/srv/../etc", "/srv/./x"] {
            let error = Asked::local(bad).expect_err(bad);
            assert!(error.to_string().starts_with("--local (spec.storage.local.path): "), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_of_a_bucket_is_named_by_its_argument() {
        let s3 = |place: &mut PlaceArgs| {
            place.s3 = Some("b".to_owned());
            place.endpoint = Some("https://x".to_owned());
        };
        assert!(asked(s3).is_ok());
        let error = |change: fn(&mut PlaceArgs)| {
            asked(|place| {
                s3(place);
                change(place);
            })
            .expect_err("makes no sense")
            .to_string()
        };
        type Spoil = fn(&mut PlaceArgs);
        let cases: [(Spoil, &str); 7] = [
            (|p| p.endpoint = Some("ftp://x".to_owned()), "--endpoint"),
            (|p| p.s3 = Some("a b".to_owned()), "--s3"),
            (|p| p.prefix = Some("a//b".to_owned()), "--prefix"),
            (|p| p.region = Some("a b".to_owned()), "--region"),
            (|p| p.max_connections = Some(-1), "--max-connections"),
            (|p| p.limit_upload = Some(0), "--limit-upload"),
            (|p| p.limit_download = Some(0), "--limit-download"),
        ];
        for (change, argument) in cases {
            assert!(error(change).starts_with(argument), "{argument}: {}", error(change));
        }
    }

    #[test]
    fn keys_are_read_from_the_environment_or_from_lines() {
        let environment = |key: &str| (key == "AWS_ACCESS_KEY_ID" || key == "CA_CERT_DATA").then(|| "e".to_owned());
        let read = |place: &PlaceArgs| {
            credentials(place, Provider::S3, environment).map(|all| all.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(read(&PlaceArgs::default()).unwrap(), vec!["AWS_ACCESS_KEY_ID"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let place = PlaceArgs { credentials: Some(file.clone()), ..PlaceArgs::default() };
        std::fs::write(&file, "# of the bucket\n\nAWS_SECRET_ACCESS_KEY = a=b\n").unwrap();
        assert_eq!(read(&place).unwrap(), vec!["AWS_SECRET_ACCESS_KEY"]);
        for bad in ["hunter2", "AWS_SECRET_KEY=hunter2"] {
            std::fs::write(&file, bad).unwrap();
            let error = read(&place).expect_err(bad).to_string();
            assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
        }
        std::fs::write(&file, " {\"type\": \"service_account\"}").unwrap();
        let gcs = credentials(&place, Provider::Gcs, environment).unwrap();
        assert!(gcs["GOOGLE_SERVICE_ACCOUNT_JSON_KEY"].contains("service_account"));
    }
}
