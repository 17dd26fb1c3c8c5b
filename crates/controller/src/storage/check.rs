//! Trying a storage for real.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use lvault_backup::{Location, Password};

use super::Finding;

/// What is tried: a place, and the password of its repositories.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the storage is.
    pub location: Location,
    /// The password. Its `Debug` shows nothing.
    pub password: Password,
    /// The storage's namespace: repositories below a folder of this name have to open with the password, others may be
    /// those of another storage in the same place.
    pub namespace: String,
}

/// A way to find out whether a storage can be used.
pub trait StorageCheck: Send + Sync + 'static {
    /// Tries the storage. Whoever calls it gives up on the future when it takes too long.
    fn check(&self, target: Target) -> BoxFuture<'static, Finding>;
}

/// Tries a storage with [`lvault_backup::probe`]: writes, reads and deletes a small file, and opens a repository if there is
/// one.
///
/// Each check has a thread of its own. A thread that hangs in a dead filesystem cannot be ended, so no second one is begun
/// for the same place until it is back; it holds up neither the others nor the end of the process.
#[derive(Debug, Default)]
pub struct RepositoryCheck {
    under_way: Arc<Mutex<BTreeSet<String>>>,
}

/// A place that a thread is at; it is free again when this is dropped, also by a panic.
struct UnderWay {
    place: String,
    all: Arc<Mutex<BTreeSet<String>>>,
}

impl UnderWay {
    fn enter(all: &Arc<Mutex<BTreeSet<String>>>, place: &str) -> Option<Self> {
        let entered = all.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned());
        entered.then(|| Self { place: place.to_owned(), all: Arc::clone(all) })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

impl StorageCheck for RepositoryCheck {
    fn check(&self, target: Target) -> BoxFuture<'static, Finding> {
        let shown = target.location.to_string();
        // Storages of several namespaces may be in one place, and are checked at once.
        let place = format!("{shown} for {}", target.namespace);
        let Some(under_way) = UnderWay::enter(&self.under_way, &place) else {
            let message = format!("an earlier check of {shown} has not come back; look whether it answers");
            return std::future::ready(Finding::Unknown(message)).boxed();
        };
        let (answer, answered) = oneshot::channel();
        let thread = std::thread::Builder::new().name("storage-check".to_owned()).spawn(move || {
            let finding = probe(target);
            drop(under_way);
            // Nobody waits any more when the check took too long.
            let _ = answer.send(finding);
        });
        if let Err(error) = thread {
            return std::future::ready(Finding::Unknown(format!("cannot begin a check of {shown}: {error}"))).boxed();
        }
        let ended = move |finding: Result<Finding, oneshot::Canceled>| {
            finding.unwrap_or_else(|_| Finding::Unknown(format!("the check of {shown} broke off; the log says more")))
        };
        answered.map(ended).boxed()
    }
}

fn probe(target: Target) -> Finding {
    let Target { location, password, namespace } = target;
    match lvault_backup::probe(&location, &namespace, &password) {
        Ok(_) => Finding::Usable,
        Err(error) => Finding::Unusable(lasting(&error.to_string())),
    }
}

/// What a check found, without the name of the file it tried to write: that is another one each time, and a status that
/// changes each time is written each time.
fn lasting(message: &str) -> String {
    const PROBE: &str = "lvault-probe-";
    let mut parts = message.split(PROBE);
    let mut lasting = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        lasting.push_str("lvault-probe");
        lasting.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    lasting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_second_thread_goes_to_a_folder_that_has_not_answered() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let other = tempfile::tempdir().expect("a temporary folder");
        let target = |folder: &tempfile::TempDir| Target {
            location: Location::Local { root: folder.path().to_owned() },
            password: Password::new("p").expect("a password"),
            namespace: "default".to_owned(),
        };
        let check = RepositoryCheck::default();
        let place = format!("{} for default", folder.path().display());
        let stuck = UnderWay::enter(&check.under_way, &place).expect("nobody is there");
        let Finding::Unknown(message) = check.check(target(&folder)).await else { panic!("a second one began") };
        assert!(message.contains("has not come back"), "{message}");
        assert_eq!(check.check(target(&other)).await, Finding::Usable);
        drop(stuck);
        assert_eq!(check.check(target(&folder)).await, Finding::Usable);
        assert_eq!(check.check(target(&folder)).await, Finding::Usable, "each check frees the folder again");
    }
}
