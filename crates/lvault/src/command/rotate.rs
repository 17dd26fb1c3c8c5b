//! `lvault storage rotate-key`: another password for all repositories of a storage, without writing data anew.
//!
//! The storage's Secret holds everything that a killed rotation needs to be finished, so that the same command, given again, goes on:
//!
//! 1. the new password is kept as `RESTIC_PASSWORD_NEXT`, and added to every repository;
//! 2. it becomes `RESTIC_PASSWORD`, and the old one `RESTIC_PASSWORD_PREVIOUS`, in one write;
//! 3. executors that were started with the old one are waited for, and it is taken from every repository and from the Secret.
//!
//! Every write of the Secret is made to what was read of it: where somebody else has changed it since, another rotation or
//! a person, nothing is written and the command ends, to be given again.
//!
//! At every moment `RESTIC_PASSWORD` opens every repository, except one that an executor with the old password makes during
//! step 2; step 3 begins with adding the new password there.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lvault_api::{Phase, StorageReference, keys};
use lvault_backup::{Location, OpenError, Password, add_password, remove_password, repositories};
use lvault_storages::Purpose;
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::repositories::{failed, interruptible};
use super::storage::{find, generated};
use crate::error::CliError;
use crate::names;
use crate::objects::transfer;
use crate::say;
use crate::server::Server;

/// The key of the Secret with the password that is to come.
const NEXT: &str = "RESTIC_PASSWORD_NEXT";
/// The key of the Secret with the password that is to go.
const PREVIOUS: &str = "RESTIC_PASSWORD_PREVIOUS";
/// How often the executors are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A storage and its Secret.
struct Rotation<'a> {
    server: &'a Server,
    at: StorageReference,
    secret: String,
    location: Location,
}

/// Replaces the password; by a made-up one where none is given.
pub async fn run(
    server: &Server,
    name: &str,
    given: Option<Zeroizing<String>>,
    timeout: Duration,
) -> Result<(), CliError> {
    let at = names::storage_reference("NAME", name)?;
    let storage = find(server, &at).await?;
    let secret = storage.secret_name();
    let found = server.secret(&at.namespace, &secret).await?.and_then(|secret| secret.data).unwrap_or_default();
    let key = |name: &str| found.get(name).and_then(|value| std::str::from_utf8(&value.0).ok());
    let location = lvault_storages::location(&storage.spec, Purpose::BackUp, key)?;
    let rotation = Rotation { server, secret, at, location };
    if rotation.read().await?.key(PREVIOUS).is_none() {
        rotation.introduce(given).await?;
    } else if given.is_some() {
        return Err(rotation.under_way());
    } else {
        say::note("an earlier rotation was not finished; going on with it");
    }
    rotation.retire(timeout).await
}

impl Rotation<'_> {
    fn under_way(&self) -> CliError {
        CliError::Impossible {
            tried: format!("rotating the key of storage {}", self.at),
            happened: "an earlier rotation was not finished, and another password was given".to_owned(),
            remedy: "leave the password out to finish that one first, then rotate again".to_owned(),
        }
    }

    /// Steps 1 and 2: afterwards the new password is the one.
    async fn introduce(&self, given: Option<Zeroizing<String>>) -> Result<(), CliError> {
        let mut seen = self.read().await?;
        let old = seen.key(keys::RESTIC_PASSWORD).ok_or_else(|| CliError::Impossible {
            tried: format!("rotating the key of storage {}", self.at),
            happened: format!("Secret {}/{} has no {}", self.at.namespace, self.secret, keys::RESTIC_PASSWORD),
            remedy: "put the repositories' present password into that Secret".to_owned(),
        })?;
        let new = match (seen.key(NEXT), given) {
            (Some(next), Some(given)) if *next != *given => return Err(self.under_way()),
            (Some(next), _) => next,
            (None, given) => {
                let new = given.unwrap_or_else(generated);
                seen = self.write(&seen, json!({NEXT: &*new})).await?;
                new
            }
        };
        if *old == *new {
            self.write(&seen, json!({NEXT: ""})).await?;
            return Err(CliError::input("--password-file", "it is the present password", "give another one"));
        }
        self.add(&old, &new).await?;
        self.write(&seen, json!({keys::RESTIC_PASSWORD: &*new, PREVIOUS: &*old, NEXT: ""})).await.map(drop)
    }

    /// Step 3: afterwards the old password opens nothing any more.
    async fn retire(&self, timeout: Duration) -> Result<(), CliError> {
        let seen = self.read().await?;
        let (Some(old), Some(new)) = (seen.key(PREVIOUS), seen.key(keys::RESTIC_PASSWORD)) else { return Ok(()) };
        self.add(&old, &new).await?;
        self.executors_ended(timeout).await?;
        self.add(&old, &new).await?;
        let (location, kept, gone) = (self.location.clone(), password(&new)?, password(&old)?);
        let namespace = self.at.namespace.clone();
        let count = interruptible(move |_| {
            let mut count = 0;
            for path in repositories(&location).map_err(|error| failed(tried(), &error, error.retry()))? {
                match remove_password(&location, &path, &kept, &gone) {
                    Ok(_) => count += 1,
                    Err(error) if lvault_storages::is_anothers(&path, &namespace, &error) => {}
                    Err(error) => return Err(told(&error)),
                }
            }
            Ok(count)
        })
        .await?;
        self.write(&seen, json!({PREVIOUS: ""})).await?;
        say::result(&format!(
            "{count} repositories of storage {} open with the new password only; it stands in Secret {}/{}, key {}: keep a copy",
            self.at,
            self.at.namespace,
            self.secret,
            keys::RESTIC_PASSWORD
        ));
        Ok(())
    }

    /// Lets the new password open every repository, but those of other storages in the same place.
    async fn add(&self, old: &str, new: &str) -> Result<(), CliError> {
        let (location, old, new) = (self.location.clone(), password(old)?, password(new)?);
        let namespace = self.at.namespace.clone();
        interruptible(move |progress| {
            let (mut added, mut anothers) = (0, None);
            for path in repositories(&location).map_err(|error| failed(tried(), &error, error.retry()))? {
                if progress.should_stop() {
                    return Err(CliError::Repository {
                        tried: tried(),
                        happened: "it was asked to end".to_owned(),
                        remedy: "give the command again to finish it; until then both passwords are in use".to_owned(),
                    });
                }
                match add_password(&location, &path, &old, &new) {
                    Ok(_) => added += 1,
                    Err(error) if lvault_storages::is_anothers(&path, &namespace, &error) => {
                        anothers.get_or_insert(told(&error));
                    }
                    Err(error) => return Err(told(&error)),
                }
            }
            // A password that opens nothing at all is wrong.
            anothers.filter(|_| added == 0).map_or(Ok(()), Err)
        })
        .await
    }

    /// Waits for executors that may have been handed the old password.
    async fn executors_ended(&self, timeout: Duration) -> Result<(), CliError> {
        let started = Instant::now();
        let mut before: Option<Vec<String>> = None;
        loop {
            let running: Vec<String> = self
                .server
                .volumes()
                .await?
                .iter()
                .filter(|volume| {
                    let online = volume.spec.online_snapshot.as_ref().map(|online| &online.storage);
                    let restore = volume.spec.restore.as_ref().map(|restore| &restore.storage);
                    online.or(restore) == Some(&self.at)
                })
                .filter_map(|volume| {
                    let transfer = transfer(volume)?;
                    let holder = transfer.executor.as_ref().and_then(|executor| executor.name.clone());
                    matches!(transfer.phase, Phase::Pending | Phase::Running)
                        .then(|| holder.unwrap_or_else(|| kube::ResourceExt::name_any(volume)))
                })
                .collect();
            let waited_for = before.get_or_insert_with(|| running.clone());
            waited_for.retain(|holder| running.contains(holder));
            if waited_for.is_empty() {
                return Ok(());
            }
            if started.elapsed() >= timeout {
                return Err(CliError::TimedOut {
                    what: format!("the rotation of storage {}", self.at),
                    waited: started.elapsed(),
                    now: format!("{} executors still use the old password", waited_for.len()),
                    remedy: "the new password is in use; give the command again later to take the old one away"
                        .to_owned(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The Secret as it is now.
    async fn read(&self) -> Result<Seen, CliError> {
        let found = self.server.secret(&self.at.namespace, &self.secret).await?;
        Ok(Seen(found.ok_or_else(|| CliError::NotFound {
            kind: "Secret",
            name: format!("{}/{}", self.at.namespace, self.secret),
            remedy: format!("it belongs to storage {}: put it back, with the repositories' password", self.at),
        })?))
    }

    /// Sets keys of the Secret, all in one write; an empty value takes a key away. Refused where the Secret is not any
    /// more what was seen.
    async fn write(&self, seen: &Seen, values: Value) -> Result<Seen, CliError> {
        let mut data = serde_json::Map::new();
        for (key, value) in values.as_object().into_iter().flatten() {
            let bytes = k8s_openapi::ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec());
            data.insert(key.clone(), if bytes.0.is_empty() { Value::Null } else { json!(bytes) });
        }
        let api: Api<Secret> = Api::namespaced(self.server.client(), &self.at.namespace);
        let patch = json!({"metadata": {"resourceVersion": seen.0.metadata.resource_version}, "data": data});
        let tried = format!("writing Secret {}/{}", self.at.namespace, self.secret);
        self.server.merge(&api, &self.secret, &patch, &tried).await.map(Seen)
    }
}

/// The Secret, read once.
struct Seen(Secret);

impl Seen {
    /// The text under a key; none where it is empty.
    fn key(&self, name: &str) -> Option<Zeroizing<String>> {
        let value = self.0.data.as_ref()?.get(name)?;
        let text = std::str::from_utf8(&value.0).ok().filter(|text| !text.is_empty())?;
        Some(Zeroizing::new(text.to_owned()))
    }
}

fn tried() -> String {
    "rotating the key".to_owned()
}

fn told(error: &OpenError) -> CliError {
    failed(tried(), error, error.retry())
}

fn password(text: &str) -> Result<Password, CliError> {
    Password::new(text).map_err(|error| CliError::input("--password-file", error.to_string(), "give a password"))
}
