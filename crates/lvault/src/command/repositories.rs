//! The commands that open a storage's repositories themselves, on this machine: prune, unlock, check with data.
//!
//! What holds here: locks in the repositories keep these commands, executors and the controller out of each other's way, and
//! whoever ends one with Ctrl-C waits for a moment and finds everything whole. The password comes from the storage's Secret.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lvault_api::{SnapshotBackupStorage, StorageReference, keys};
use lvault_backup::{
    CheckReport, Damage, Location, LockInfo, Password, Progress, Prune, PruneReport, ReadData, RepairReport,
    Repository, RepositoryPath, Retry, Space, Unfinished, Unlock, repositories,
};
use lvault_core::Bytes;
use lvault_storages::Purpose;

use super::storage::find;
use crate::args::RepositoryArgs;
use crate::error::CliError;
use crate::names;
use crate::say;
use crate::server::Server;

/// So many files are named for one damage.
const NAMED: usize = 5;

/// A storage whose repositories can be opened.
pub(super) struct Place {
    /// Its name.
    pub(super) at: StorageReference,
    /// The object.
    pub(super) storage: SnapshotBackupStorage,
    location: Location,
    password: Password,
}

impl Place {
    /// Finds a storage by its name, and its password in its Secret.
    pub(super) async fn find(server: &Server, name: &str) -> Result<Self, CliError> {
        let at = names::storage_reference("NAME", name)?;
        let storage = find(server, &at).await?;
        let secret = storage.secret_name();
        let found = server.secret(&at.namespace, &secret).await?.and_then(|secret| secret.data).unwrap_or_default();
        let key = |name: &str| found.get(name).and_then(|value| std::str::from_utf8(&value.0).ok());
        let location = lvault_storages::location(&storage.spec, Purpose::BackUp, key)?;
        let text = found.get(keys::RESTIC_PASSWORD).and_then(|password| String::from_utf8(password.0.clone()).ok());
        let password = text.and_then(|text| Password::new(text).ok()).ok_or_else(|| CliError::Impossible {
            tried: format!("opening the repositories of storage {at}"),
            happened: format!("Secret {}/{secret} has no usable {}", at.namespace, keys::RESTIC_PASSWORD),
            remedy: "put the repositories' password into that Secret".to_owned(),
        })?;
        Ok(Self { at, storage, location, password })
    }

    /// The repositories that are meant: the one that was named, or all.
    fn chosen(&self, named: Option<&str>) -> Result<Vec<RepositoryPath>, CliError> {
        let tried = || format!("looking for the repositories of storage {}", self.at);
        let all = repositories(&self.location).map_err(|error| failed(tried(), &error, error.retry()))?;
        let Some(named) = named else { return Ok(all) };
        let path = RepositoryPath::parse(named)
            .map_err(|error| CliError::input("--repository", error.to_string(), "write a path such as default/data"))?;
        if all.contains(&path) {
            return Ok(vec![path]);
        }
        let there: Vec<String> = all.iter().map(ToString::to_string).collect();
        Err(CliError::NotFound { kind: "repository", name: named.to_owned(), remedy: super::instead(there) })
    }

    /// Works on the repositories that are meant, one after the other. Those of another storage in the same place are named and
    /// left alone.
    fn each(
        &self,
        named: Option<&str>,
        mut work: impl FnMut(&RepositoryPath, &Repository) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let (mut opened, mut anothers) = (0, None);
        for path in self.chosen(named)? {
            let error = match Repository::open(&self.location, &path, &self.password) {
                Ok(repository) => {
                    opened += 1;
                    work(&path, &repository)?;
                    continue;
                }
                Err(error) => error,
            };
            let refused = failed(format!("opening repository {path}"), &error, error.retry());
            if named.is_some() || !lvault_storages::is_anothers(&path, &self.at.namespace, &error) {
                return Err(refused);
            }
            say::note(&format!("{path}: it has another storage's password, and is left alone"));
            anothers.get_or_insert(refused);
        }
        // A password that opens nothing at all is wrong.
        anothers.filter(|_| opened == 0).map_or(Ok(()), Err)
    }
}

pub(super) fn failed(tried: String, error: &dyn std::error::Error, retry: Retry) -> CliError {
    let remedy = match retry {
        Retry::Never => "see docs/repositories.md for what can be done about it",
        Retry::AfterRemedy => "put right what is named above, then try again",
        Retry::Later => "try again a little later",
    };
    CliError::Repository { tried, happened: error.to_string(), remedy: remedy.to_owned() }
}

/// Work that was asked to end.
struct Ending(Arc<AtomicBool>);

impl Progress for Ending {
    fn should_stop(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs work that blocks; with Ctrl-C it is asked to end, and waited for.
pub(super) async fn interruptible<T: Send + 'static>(
    work: impl FnOnce(&dyn Progress) -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let asked = Arc::new(AtomicBool::new(false));
    let ending = Ending(Arc::clone(&asked));
    let mut work = tokio::task::spawn_blocking(move || work(&ending));
    let ended = tokio::select! {
        biased;
        ended = &mut work => ended,
        Ok(()) = tokio::signal::ctrl_c() => {
            say::note("ending ...");
            asked.store(true, Ordering::Release);
            work.await
        }
    };
    ended.unwrap_or_else(|error| {
        Err(CliError::Server {
            tried: "working on the repositories",
            happened: error.to_string(),
            remedy: "nothing is lost; try again, and report it as a defect".to_owned(),
        })
    })
}

/// `lvault storage prune`.
pub async fn prune(
    server: &Server,
    which: RepositoryArgs,
    max_unused: Option<u8>,
    dry_run: bool,
) -> Result<(), CliError> {
    let place = Place::find(server, &which.name).await?;
    let policy = place.storage.spec.prune.clone().unwrap_or_default();
    let how = Prune { max_unused: max_unused.unwrap_or_else(|| policy.max_unused()), ..Prune::default() };
    interruptible(move |progress| {
        let mut left = 0;
        place.each(which.repository.as_deref(), |path, repository| {
            let tried = || format!("pruning repository {path}");
            if dry_run {
                let space = repository.space(progress).map_err(|error| failed(tried(), &error, error.retry()))?;
                say::result(&format!("{path}: {}", spare(space)));
                return Ok(());
            }
            let report = repository.prune(&how, progress).map_err(|error| failed(tried(), &error, error.retry()))?;
            left += report.damaged.len();
            report
                .damaged
                .iter()
                .for_each(|damage| say::note(&format!("{path}: damaged, and left as it is: {damage}")));
            say::result(&format!("{path}: {}", pruned(&report)));
            Ok(())
        })?;
        if left == 0 {
            return Ok(());
        }
        Err(CliError::Failed {
            what: format!("the prune of storage {}", place.at),
            code: "Damaged".to_owned(),
            message: format!("{left} packs are damaged and stay as they are"),
            remedy: format!("see what it concerns with `lvault storage check {} --read-data`", place.at),
        })
    })
    .await
}

fn spare(space: Space) -> String {
    format!("{} stored, {} of it not needed", Bytes(space.total), Bytes(space.reclaimable))
}

fn pruned(report: &PruneReport) -> String {
    let freed = report.before.total.saturating_sub(report.after.total);
    let why = match report.unfinished {
        None => "",
        Some(Unfinished::Time) => "; its time was over: prune again for the rest",
        Some(Unfinished::Full) => "; there is no room to write the rest anew",
    };
    format!(
        "{} given back ({} packs removed, {} written anew); {}{why}",
        Bytes(freed),
        report.packs_removed,
        report.packs_repacked,
        spare(report.after)
    )
}

/// `lvault storage unlock`.
pub async fn unlock(server: &Server, which: RepositoryArgs, all: bool) -> Result<(), CliError> {
    let place = Place::find(server, &which.name).await?;
    interruptible(move |_| {
        let (mut removed, mut stay) = (0, 0);
        place.each(which.repository.as_deref(), |path, repository| {
            let tried = || format!("unlocking repository {path}");
            let gone = repository
                .unlock(if all { Unlock::All } else { Unlock::Stale })
                .map_err(|error| failed(tried(), &error, error.retry()))?;
            let left = repository.locks().map_err(|error| failed(tried(), &error, error.retry()))?;
            gone.iter().for_each(|lock| say::result(&format!("{path}: removed {lock}")));
            left.iter().for_each(|lock| say::result(&format!("{path}: kept {}", in_use(lock))));
            removed += gone.len();
            stay += left.len();
            Ok(())
        })?;
        say::result(&match (removed, stay) {
            (0, 0) => "no locks are there".to_owned(),
            (removed, stay) => format!("{removed} locks removed, {stay} in use"),
        });
        Ok(())
    })
    .await
}

fn in_use(lock: &LockInfo) -> String {
    format!("{lock}; it is in use")
}

/// What follows a check that has found damaged packs.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// They stay as they are.
    Nothing,
    /// They are taken out of the index.
    Repair,
}

/// `lvault storage check --read-data`, after the storage itself was found usable.
pub(super) async fn check(
    server: &Server,
    which: RepositoryArgs,
    read_data: ReadData,
    then: Then,
) -> Result<(), CliError> {
    let place = Place::find(server, &which.name).await?;
    interruptible(move |progress| {
        let mut damaged = BTreeSet::new();
        place.each(which.repository.as_deref(), |path, repository| {
            let checked = |read_data| {
                let tried = || format!("checking repository {path}");
                repository.check(read_data, progress).map_err(|error| failed(tried(), &error, error.retry()))
            };
            let mut report = checked(read_data)?;
            let space = repository.space(progress).ok();
            told(path, &report, space).iter().for_each(|line| say::result(line));
            match then {
                Then::Repair if !report.broken_packs.is_empty() => {
                    let repair = repository.repair(&report.broken_packs, progress).map_err(|error| {
                        failed(format!("repairing repository {path}"), &error, error.retry())
                    })?;
                    say::result(&format!("{path}: {}", repaired(&repair)));
                    report = checked(ReadData::Nothing)?;
                    told(path, &report, None).iter().for_each(|line| say::result(line));
                }
                Then::Nothing | Then::Repair => {}
            }
            if !report.is_clean() {
                damaged.insert(path.to_string());
            }
            let tried = || format!("looking for locks in repository {path}");
            for lock in repository.locks().map_err(|error| failed(tried(), &error, error.retry()))? {
                if lock.is_stale {
                    say::result(&format!("{path}: there is {lock}; `lvault storage unlock {}` removes it", place.at));
                }
            }
            Ok(())
        })?;
        if damaged.is_empty() {
            return Ok(());
        }
        let remedy = match then {
            Then::Nothing => format!(
                "`lvault storage check {} --read-data --repair` takes damaged packs out of the index, and the next snapshot \
                 stores again what they held; docs/repositories.md says more. Snapshots that are not named are whole",
                place.at
            ),
            Then::Repair => "take a new snapshot of each volume that is named: it stores again what the volume still has; then \
                             check again, and delete the snapshots that are still named"
                .to_owned(),
        };
        Err(CliError::Failed {
            what: format!("the check of storage {}", place.at),
            code: "Damaged".to_owned(),
            message: format!("{} is not whole", damaged.into_iter().collect::<Vec<_>>().join(", ")),
            remedy,
        })
    })
    .await
}

fn repaired(report: &RepairReport) -> String {
    let RepairReport { packs, whole, saved, lost } = report;
    let whole = match whole {
        0 => String::new(),
        whole => {
            format!("; {whole} packs were whole when they were read again: look for faults of this machine's memory")
        }
    };
    format!(
        "{packs} damaged packs are in the index no more; of what they held, {saved} blobs were saved, {lost} are lost{whole}"
    )
}

/// What a check found, in lines.
fn told(path: &RepositoryPath, report: &CheckReport, space: Option<Space>) -> Vec<String> {
    let mut lines = Vec::new();
    let space = space.map(|space| format!("; {}", spare(space))).unwrap_or_default();
    let read = match report.packs_read {
        0 => "structure".to_owned(),
        packs => format!("structure, and the data of {packs} packs"),
    };
    lines.push(match report.damages.len() {
        0 => format!("{path}: whole ({read}){space}"),
        count => format!("{path}: {count} damages ({read}){space}"),
    });
    lines.extend(report.damages.iter().flat_map(|damage| damage_lines(path, damage)));
    lines.extend(report.warnings.iter().map(|warning| format!("{path}: {warning}")));
    lines
}

fn damage_lines(path: &RepositoryPath, damage: &Damage) -> Vec<String> {
    let mut lines = vec![format!("{path}: {}", damage.what)];
    if damage.snapshots.is_empty() {
        lines.push("  no snapshot needs it".to_owned());
        return lines;
    }
    let snapshots: Vec<&str> = damage.snapshots.iter().map(|id| id.as_str().get(..8).unwrap_or_default()).collect();
    lines.push(format!("  snapshots: {}", snapshots.join(", ")));
    let files: Vec<String> = damage.files.iter().take(NAMED).map(|file| format!("{file:?}")).collect();
    let more = damage.files_count.saturating_sub(files.len() as u64);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    lines.push(format!("  files: {}{more}", files.join(", ")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use lvault_backup::SnapshotId;
    use std::path::PathBuf;

    #[test]
    fn damage_is_told_with_its_snapshots_and_files_and_bounded() {
        let path = RepositoryPath::parse("default/data").unwrap();
        let clean = CheckReport { packs_read: 3, ..CheckReport::default() };
        let space = Space { total: 2048, reclaimable: 1024 };
        assert_eq!(
            told(&path, &clean, Some(space)),
            ["default/data: whole (structure, and the data of 3 packs); 2.00 KiB stored, 1.00 KiB of it not needed"]
        );
        let damage = Damage {
            what: "pack ab: it is missing".to_owned(),
            snapshots: vec![SnapshotId::new("0123456789abcdef".repeat(4)).unwrap()],
            files: (0..7).map(|number| PathBuf::from(format!("/f{number}"))).collect(),
            files_count: 9,
        };
        let alone = Damage { snapshots: Vec::new(), files: Vec::new(), files_count: 0, ..damage.clone() };
        let report = CheckReport {
            damages: vec![damage, alone],
            warnings: vec!["odd".to_owned()],
            packs_read: 0,
            broken_packs: Vec::new(),
        };
        assert_eq!(
            told(&path, &report, None),
            [
                "default/data: 2 damages (structure)",
                "default/data: pack ab: it is missing",
                "  snapshots: 01234567",
                "  files: \"/f0\", \"/f1\", \"/f2\", \"/f3\", \"/f4\", and 4 more",
                "default/data: pack ab: it is missing",
                "  no snapshot needs it",
                "default/data: odd",
            ]
        );
    }
}
