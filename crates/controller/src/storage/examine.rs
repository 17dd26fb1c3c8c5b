//! Looking at one storage: its spec, its Secret, and the place itself. Nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DynamicObject};
use kube::{Client, ResourceExt};
use lvault_api::keys::RESTIC_PASSWORD;
use lvault_api::{InvalidStorage, SnapshotBackupStorage};
use lvault_backup::Password;
use lvault_storages::Purpose;
use zeroize::Zeroizing;

use super::{Finding, StorageCheck, Target};
use crate::Config;
use crate::api::{Answer, ask};
use crate::request::check_is_answered;

/// The keys of a provider, by their names in the Secret.
type Credentials = BTreeMap<&'static str, Zeroizing<String>>;

/// What it takes to look at a storage.
pub(crate) struct Examiner {
    client: Client,
    check: Arc<dyn StorageCheck>,
    check_timeout: Duration,
    api_timeout: Duration,
}

impl Examiner {
    pub(crate) fn new(client: Client, check: Arc<dyn StorageCheck>, config: &Config) -> Self {
        let Config { check_timeout, api_timeout, .. } = *config;
        Self { client, check, check_timeout, api_timeout }
    }

    /// Finds out whether a storage can be used.
    pub(crate) async fn examine(&self, object: &DynamicObject) -> Finding {
        match self.target(object).await {
            Ok(target) => {
                let shown = target.location.to_string();
                match tokio::time::timeout(self.check_timeout, self.check.check(target)).await {
                    Ok(finding) => finding,
                    Err(_) => Finding::Unknown(format!(
                        "the check of {shown} gave no answer within {} s; look whether it answers",
                        self.check_timeout.as_secs_f64()
                    )),
                }
            }
            Err(finding) => finding,
        }
    }

    /// What to try, or what is known without trying.
    async fn target(&self, object: &DynamicObject) -> Result<Target, Finding> {
        let storage: SnapshotBackupStorage = object.clone().try_parse().map_err(|error| {
            Finding::Unusable(format!(
                "the object cannot be read as a SnapshotBackupStorage: {error}; correct its spec"
            ))
        })?;
        let invalid = |error: InvalidStorage| Finding::Unusable(error.to_string());
        lvault_storages::check(&storage.spec).map_err(invalid)?;
        if !storage.spec.validate_on_create && check_is_answered(object) {
            return Err(Finding::NotWanted);
        }
        self.target_of(&storage).await
    }

    /// Where a storage is and how its repositories open; in words why not.
    pub(crate) async fn place(&self, storage: &SnapshotBackupStorage) -> Result<Target, String> {
        match self.target_of(storage).await {
            Ok(target) => Ok(target),
            Err(Finding::Unusable(why) | Finding::Unknown(why)) => Err(why),
            Err(Finding::Usable | Finding::NotWanted) => Err("its password could not be read".to_owned()),
        }
    }

    async fn target_of(&self, storage: &SnapshotBackupStorage) -> Result<Target, Finding> {
        let (password, credentials) = self.secrets(storage).await?;
        let key = |name: &str| credentials.get(name).map(|value| value.as_str());
        let location = lvault_storages::location(&storage.spec, Purpose::BackUp, key).map_err(invalid)?;
        Ok(Target { location, password, namespace: storage.namespace().unwrap_or_default() })
    }

    /// The password and the provider's keys in the storage's Secret.
    async fn secrets(&self, storage: &SnapshotBackupStorage) -> Result<(Password, Credentials), Finding> {
        let namespace = storage.namespace().unwrap_or_default();
        let name = storage.secret_name();
        let shown = format!("the Secret {namespace}/{name}");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let mut secret = match ask(self.api_timeout, secrets.get(&name)).await {
            Answer::Done(secret) => secret,
            Answer::NotFound => {
                let what = format!("{shown} is not there: create it with the repository password as {RESTIC_PASSWORD}");
                return Err(Finding::Unusable(what));
            }
            Answer::Conflict => return Err(Finding::Unknown(format!("{shown} could not be read: a conflict"))),
            Answer::Refused(error) => {
                return Err(Finding::Unusable(format!(
                    "{shown} cannot be read: {error}; allow the controller to get it"
                )));
            }
            Answer::Unknown(why) => return Err(Finding::Unknown(format!("{shown} could not be read: {why}"))),
        };
        let Some(password) = secret.data.as_mut().and_then(|data| data.remove(RESTIC_PASSWORD)) else {
            return Err(Finding::Unusable(format!(
                "{shown} has no key {RESTIC_PASSWORD}: add the repository password under this name"
            )));
        };
        // The error of a wrong encoding would show the bytes: it is dropped.
        let Ok(password) = String::from_utf8(password.0) else {
            return Err(Finding::Unusable(format!(
                "{RESTIC_PASSWORD} in {shown} is no UTF-8 text: put the repository password there"
            )));
        };
        let password = Password::new(password).map_err(|error| Finding::Unusable(format!("{shown}: {error}")))?;
        let mut credentials = Credentials::new();
        for key in storage.spec.storage.provider.secret_keys() {
            let Some(value) = secret.data.as_mut().and_then(|data| data.remove(*key)) else { continue };
            let Ok(value) = String::from_utf8(value.0) else {
                return Err(Finding::Unusable(format!("{key} in {shown} is no UTF-8 text: put the key there as text")));
            };
            credentials.insert(*key, Zeroizing::new(value));
        }
        Ok((password, credentials))
    }
}

/// A spec or a key that makes no sense, in the words of a finding.
fn invalid(error: InvalidStorage) -> Finding {
    Finding::Unusable(error.to_string())
}
