//! `lvault storage`: add, list, check, delete; see [`super::repositories`] for what opens repositories.
//!
//! The repositories' password is read from a file, from standard input, or made up here, and a bucket's keys from a file or
//! the environment. They stand in the storage's Secret and nowhere else: in no argument, no output, no log.

mod place;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt};
use lvault_api::{ReadBackPolicy, SnapshotBackupStorage, StoragePhase, StorageReference, keys};
use lvault_backup::ReadData;
use lvault_controller::{CHECK_REQUESTED, check_is_answered};
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use self::place::Asked;
use super::{instead, reference, repositories, rotate};
use crate::args::{AddStorage, StorageCommand, WaitArgs};
use crate::clock::now;
use crate::error::CliError;
use crate::names;
use crate::output::Listing;
use crate::say;
use crate::server::Server;

/// How often a storage is looked at while its check is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// A password's line may not be longer.
const LONGEST_PASSWORD: u64 = 4096;

/// Runs one of the commands.
pub async fn run(server: &Server, command: StorageCommand) -> Result<(), CliError> {
    match command {
        StorageCommand::Add(AddStorage {
            name,
            place,
            read_back_data,
            namespace,
            password_file,
            password_stdin,
            wait,
        }) => {
            let at = StorageReference {
                name: names::object_name("NAME", &name)?,
                namespace: names::namespace("--namespace", &namespace)?,
            };
            let mut place = Asked::of(&place)?;
            let policy = |percent| ReadBackPolicy { data_percent: i32::from(percent) };
            place.spec.read_back = read_back_data.map(policy);
            let password = given_password(password_file.as_deref(), password_stdin)?;
            let added = add(server, &at, place, password).await?;
            say::note(&added.about_password);
            report_added(server, &at, wait).await
        }
        StorageCommand::List { output } => {
            let listing = Listing { storages: Some(server.storages().await?), ..Listing::default() };
            say::result(&listing.render(output.format, now())?);
            Ok(())
        }
        StorageCommand::Check { which, read_data, repair, timeout } => {
            check(server, &which.name, timeout).await?;
            let packs = match read_data {
                None if which.repository.is_none() => return Ok(()),
                given => ReadData::of_percent(given.unwrap_or(0)),
            };
            let then = if repair { repositories::Then::Repair } else { repositories::Then::Nothing };
            repositories::check(server, which, packs, then).await
        }
        StorageCommand::Prune { which, max_unused, dry_run } => {
            repositories::prune(server, which, max_unused, dry_run).await
        }
        StorageCommand::RotateKey { name, password_file, password_stdin, timeout } => {
            let password = given_password(password_file.as_deref(), password_stdin)?;
            rotate::run(server, &name, password, timeout).await
        }
        StorageCommand::Unlock { which, all } => repositories::unlock(server, which, all).await,
        StorageCommand::Delete { name, force } => delete(server, &name, force).await,
    }
}

async fn report_added(server: &Server, at: &StorageReference, wait: WaitArgs) -> Result<(), CliError> {
    if !wait.wait {
        say::result(&format!("storage {at} added; it is being checked: see `lvault storage list`"));
        return Ok(());
    }
    checked(server, at, wait.timeout).await?;
    say::result(&format!("storage {at} added, ready"));
    Ok(())
}

/// What became of a new storage's password, for the user.
#[derive(Debug)]
pub struct Added {
    /// In one sentence, without the password.
    pub about_password: String,
}

/// Adds a storage. Either the storage and its Secret are there afterwards, or nothing new is.
pub async fn add(
    server: &Server,
    at: &StorageReference,
    place: Asked,
    password: Option<Zeroizing<String>>,
) -> Result<Added, CliError> {
    let tried = format!("adding storage {at}");
    if !server.has_namespace(&at.namespace).await? {
        return Err(CliError::NotFound {
            kind: "namespace",
            name: at.namespace.clone(),
            remedy: "use default, or make it first".to_owned(),
        });
    }
    if server.storage(at).await?.is_some() {
        return Err(CliError::Impossible {
            tried,
            happened: "there is one of that name".to_owned(),
            remedy: "choose another name, or look at it with `lvault storage list`".to_owned(),
        });
    }
    let mut storage = SnapshotBackupStorage::new(&at.name, place.spec.clone());
    storage.metadata.namespace = Some(at.namespace.clone());
    let (made, about_password) = ensure_secret(server, at, &place, password, &tried).await?;
    match server.create(&server.storage_api(&at.namespace), &storage, &tried).await {
        Ok(_) => Ok(Added { about_password }),
        Err(error) => {
            if let Some(secret) = made {
                let api: Api<Secret> = Api::namespaced(server.client(), &at.namespace);
                server.remove(&api, &secret, "taking the new Secret back").await?;
            }
            Err(error)
        }
    }
}

/// Makes the Secret with the password and the bucket's keys, or finds the one that an earlier storage of that name has
/// left. Answers with the Secret when it was made here, and with what to tell about the password.
async fn ensure_secret(
    server: &Server,
    at: &StorageReference,
    place: &Asked,
    password: Option<Zeroizing<String>>,
    tried: &str,
) -> Result<(Option<Secret>, String), CliError> {
    let text = format!("Secret {at}, key {}", keys::RESTIC_PASSWORD);
    let given = password.is_some();
    if let Some(secret) = server.secret(&at.namespace, &at.name).await? {
        if !super::has_password(server, &at.namespace, &at.name).await? {
            return Err(CliError::Impossible {
                tried: tried.to_owned(),
                happened: format!("Secret {at} exists without a password in {}", keys::RESTIC_PASSWORD),
                remedy: "put the password into it, or choose another name".to_owned(),
            });
        }
        if given {
            return Err(CliError::Impossible {
                tried: tried.to_owned(),
                happened: format!("there is a password already in {text}, and another one was given"),
                remedy: "leave the password out to use the one that is there, or choose another name".to_owned(),
            });
        }
        place.fits(&secret.data.unwrap_or_default(), at, tried)?;
        return Ok((None, format!("the repositories' password is the one that stands in {text}")));
    }
    place.is_complete()?;
    let password = password.unwrap_or_else(generated);
    let mut data = BTreeMap::from([(keys::RESTIC_PASSWORD.to_owned(), ByteString(password.as_bytes().to_vec()))]);
    data.extend(
        place.credentials.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))),
    );
    let metadata =
        ObjectMeta { name: Some(at.name.clone()), namespace: Some(at.namespace.clone()), ..ObjectMeta::default() };
    let secret = Secret { metadata, data: Some(data), ..Secret::default() };
    let api: Api<Secret> = Api::namespaced(server.client(), &at.namespace);
    let made = server.create(&api, &secret, tried).await?;
    let how = if given { "stands" } else { "was made up and stands" };
    Ok((Some(made), format!("the repositories' password {how} in {text}; without it they cannot be read: keep a copy")))
}

/// 244 bits from the operating system's random source.
pub fn generated() -> Zeroizing<String> {
    Zeroizing::new(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple()))
}

fn given_password(file: Option<&Path>, stdin: bool) -> Result<Option<Zeroizing<String>>, CliError> {
    match (file, stdin) {
        (Some(file), _) => from_file(file).map(Some),
        (None, true) => first_line(std::io::stdin(), "--password-stdin").map(Some),
        (None, false) => Ok(None),
    }
}

fn from_file(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let open = std::fs::File::open(file).map_err(|error| {
        CliError::file(
            "reading the password from",
            file,
            error,
            "name a file that holds the password in its first line",
        )
    })?;
    first_line(open, "--password-file")
}

fn first_line(from: impl Read, field: &str) -> Result<Zeroizing<String>, CliError> {
    let refused = |problem: &str| Err(CliError::input(field, problem, "put the password into the first line"));
    let mut line = Zeroizing::new(String::new());
    if BufReader::new(from.take(LONGEST_PASSWORD)).read_line(&mut line).is_err() {
        return refused("the password cannot be read as UTF-8 text");
    }
    let password = Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned());
    if password.is_empty() {
        return refused("the password is empty");
    }
    if line.len() as u64 >= LONGEST_PASSWORD {
        return refused("the password is longer than 4096 bytes");
    }
    Ok(password)
}

/// Waits until a storage has been checked and can be used.
pub async fn checked(server: &Server, at: &StorageReference, timeout: Option<Duration>) -> Result<(), CliError> {
    let started = Instant::now();
    loop {
        let storage = find(server, at).await?;
        let status = storage.status.as_ref();
        let of_this_spec = status.and_then(|status| status.observed_generation) == storage.metadata.generation;
        let answered = of_this_spec && check_is_answered(&storage);
        let message = status.and_then(|status| status.message.clone()).unwrap_or_default();
        match status.and_then(|status| status.phase) {
            Some(StoragePhase::Ready) if answered => return Ok(()),
            Some(StoragePhase::Error) if answered => {
                return Err(CliError::Failed {
                    what: format!("the check of storage {at}"),
                    code: "Error".to_owned(),
                    message,
                    remedy: format!("put that right, then have it checked again with `lvault storage check {at}`"),
                });
            }
            Some(StoragePhase::Ready | StoragePhase::Error | StoragePhase::Pending) | None => {}
        }
        if timeout.is_some_and(|limit| started.elapsed() >= limit) {
            return Err(CliError::TimedOut {
                what: format!("the check of storage {at}"),
                waited: started.elapsed(),
                now: if message.is_empty() { "no answer yet".to_owned() } else { message },
                remedy: "see whether `lvault up` is running and what it says".to_owned(),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn check(server: &Server, name: &str, timeout: Duration) -> Result<(), CliError> {
    let at = names::storage_reference("NAME", name)?;
    find(server, &at).await?;
    let patch = json!({"metadata": {"annotations": {CHECK_REQUESTED: now().to_string()}}});
    server.merge(&server.storage_api(&at.namespace), &at.name, &patch, &format!("checking storage {at}")).await?;
    checked(server, &at, Some(timeout)).await?;
    say::result(&format!("storage {at}: Ready"));
    Ok(())
}

/// A storage that has to exist.
pub(super) async fn find(server: &Server, at: &StorageReference) -> Result<SnapshotBackupStorage, CliError> {
    if let Some(storage) = server.storage(at).await? {
        return Ok(storage);
    }
    let names = server.storages().await?.iter().map(|storage| reference(storage).to_string()).collect();
    Err(CliError::NotFound { kind: "storage", name: at.to_string(), remedy: instead(names) })
}

async fn delete(server: &Server, name: &str, force: bool) -> Result<(), CliError> {
    let at = names::storage_reference("NAME", name)?;
    let tried = format!("deleting storage {at}");
    let storage = find(server, &at).await?;
    let users: Vec<String> = server
        .volumes()
        .await?
        .iter()
        .filter(|volume| {
            let online = volume.spec.online_snapshot.as_ref().map(|online| &online.storage);
            let restore = volume.spec.restore.as_ref().map(|restore| &restore.storage);
            online == Some(&at) || restore == Some(&at)
        })
        .map(ResourceExt::name_any)
        .collect();
    if !users.is_empty() && !force {
        return Err(CliError::Impossible {
            tried,
            happened: format!("{} still refer to it: {}", users.len(), instead(users).trim_start_matches("there is: ")),
            remedy: "delete those first; with --force their snapshots stay in the repositories for ever".to_owned(),
        });
    }
    server.remove(&server.storage_api(&at.namespace), &storage, &tried).await?;
    let secret = format!("{}/{}", at.namespace, storage.secret_name());
    say::result(&format!("storage {at} deleted; its repositories stay, and so does their password in Secret {secret}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line() {
        let read = |text: &str| first_line(text.as_bytes(), "--password-file").map(|p| p.to_string());
        assert_eq!(read("secret\n").ok().as_deref(), Some("secret"));
        assert_eq!(read(" a b \r\nsecond").ok().as_deref(), Some(" a b "));
        for bad in ["", "\n", "\nsecond", &"a".repeat(5000)] {
            let error = read(bad).expect_err(bad);
            assert!(error.to_string().starts_with("--password-file: "), "{error}");
        }
        assert!(first_line(&b"\xff\n"[..], "f").is_err());
    }

    #[test]
    fn made_up_passwords_are_long_and_never_the_same() {
        let (one, other) = (generated(), generated());
        assert!(one.len() == 64 && one != other);
    }
}
