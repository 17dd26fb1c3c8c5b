//! Master keys of repositories that were opened before, so that a password is derived (scrypt: a third of a second and 128 MiB)
//! once, and not for each backup.
//!
//! What holds here:
//! - A key is kept sealed with a key made from the password and a salt. That is no scrypt: whoever has the file can try passwords
//!   quickly. So the folder has to be one in which the password itself stands anyway, as it does in the state folder of a single
//!   host, and is nobody's but its owner's.
//! - A key counts only while the key file it came from is in the repository, and only if the config opens with it. A password
//!   that was taken away, or is another, opens nothing.
//! - Keys that appeared since the last derivation are named as untried: what a killed initialiser left must not stay because nobody
//!   tries it any more.
//! - Whatever is wrong with the cache, the password is derived as if there were none.

use crate::backend::{Backend, Gate};
use crate::fault::guarded;
use crate::open::Place;
use crate::repository::{Opened, rustic_on};
use crate::seal::{Seal, hash};
use crate::secret::Password;
use rustic_core::repofile::MasterKey;
use rustic_core::{Credentials, Id};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use zeroize::{Zeroize, Zeroizing};

const SALT: usize = 32;

/// A folder of this machine that holds sealed master keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key_file: Id,
    master: MasterKey,
    /// The other key files that were tried and left where they are.
    #[serde(default)]
    tried: Vec<Id>,
}

/// What opened with a kept key.
pub(crate) struct Found {
    pub(crate) opened: Opened,
    /// Whether there are key files that nobody tried since the key was kept.
    pub(crate) has_untried: bool,
}

impl KeyCache {
    /// A cache in this folder, which is made when the first key is kept.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn file(&self, place: &Place) -> PathBuf {
        let name = Id::new(hash(place.shown().as_bytes()));
        self.folder.join(name.to_hex().as_str())
    }

    /// Opens the repository with the key that was kept; `None` when that cannot be done.
    pub(crate) fn open(&self, place: &Place, password: &Password) -> Option<Found> {
        let stored = std::fs::read(self.file(place)).ok()?;
        let (salt, sealed) = stored.split_at_checked(SALT)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let kept: Kept = serde_json::from_slice(seal(password, salt).open(&mut sealed)?).ok()?;
        let keys = place.keys().ok()?;
        if !keys.contains(&kept.key_file) {
            return None;
        }
        let has_untried = keys.iter().any(|key| *key != kept.key_file && !kept.tried.contains(key));
        let backend = Backend::new(place.storage().clone(), Gate::new());
        let opened = guarded(|| rustic_on(backend)?.open(&Credentials::Masterkey(kept.master))).ok()?;
        Some(Found { opened, has_untried })
    }

    /// Keeps the key of a repository that its password has opened. Best effort: without it the password is derived again.
    pub(crate) fn keep(&self, place: &Place, password: &Password, opened: &Opened, tried: &[Id]) {
        let Some(key_file) = *opened.key_id() else { return };
        let kept = Kept { key_file: key_file.into_inner(), master: opened.key(), tried: tried.to_vec() };
        if let Err(error) = self.write(place, password, &kept) {
            tracing::debug!(folder = %self.folder.display(), %error, "the master key could not be kept");
        }
    }

    fn write(&self, place: &Place, password: &Password, kept: &Kept) -> io::Result<()> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let json = Zeroizing::new(serde_json::to_vec(kept)?);
        let sealed = seal(password, &salt).seal(&json).map_err(io::Error::other)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let (file, staged) = (self.file(place), self.file(place).with_extension(std::process::id().to_string()));
        let mut staging =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        staging.write_all(&salt)?;
        staging.write_all(&sealed)?;
        std::fs::rename(staged, file)
    }
}

fn seal(password: &Password, salt: &[u8]) -> Seal {
    let mut raw = [0; 64];
    for (number, half) in raw.chunks_exact_mut(32).enumerate() {
        let number = if number == 0 { b"0" } else { b"1" };
        let parts = [b"lvault key cache 1 ".as_slice(), number, salt, password.expose().as_bytes()];
        half.copy_from_slice(&hash(&Zeroizing::new(parts.concat())));
    }
    let seal = Seal::of_raw(&raw);
    raw.zeroize();
    seal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Location, OpenError, Repository, RepositoryPath, add_password, remove_password};
    use std::os::unix::fs::PermissionsExt;

    /// An initialiser that another was quicker than, and that was killed before it removed its key, in the sight of a cache.
    #[test]
    fn a_dead_key_is_removed_though_the_right_one_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let location = |name: &str| Location::Local { root: folder.path().join(name) };
        ["a", "b"].into_iter().for_each(|name| std::fs::create_dir(folder.path().join(name)).unwrap());
        let (path, cache) = (RepositoryPath::parse("r").unwrap(), KeyCache::new(folder.path().join("state/keys")));
        let password = Password::new("hunter2").unwrap();
        let init = || Repository::open_or_init_cached(&location("a"), &path, &password, Some(&cache)).unwrap();
        let change = || Repository::open_to_change(&location("a"), &path, &password, Some(&cache)).unwrap();
        let keys = |name: &str| -> Vec<PathBuf> {
            let keys = std::fs::read_dir(folder.path().join(name).join("r/keys")).unwrap();
            keys.map(|key| key.unwrap().path()).collect()
        };
        let bury = || {
            Repository::open_or_init(&location("b"), &path, &password).unwrap();
            let dead = keys("b").remove(0);
            std::fs::copy(&dead, folder.path().join("a/r/keys").join(dead.file_name().unwrap())).unwrap();
        };
        init();
        for tidies in [&init as &dyn Fn() -> Repository, &change] {
            bury();
            assert_eq!(keys("a").len(), 2);
            Repository::open_cached(&location("a"), &path, &password, Some(&cache)).unwrap();
            assert_eq!(keys("a").len(), 2, "who only reads removes nothing");
            tidies();
            assert_eq!(keys("a").len(), 1);
        }

        // Another one's key is tried once, and stays.
        add_password(&location("a"), &path, &password, &Password::new("another").unwrap()).unwrap();
        let place = Place::existing(&location("a"), &path).unwrap();
        assert!(cache.open(&place, &password).unwrap().has_untried);
        init();
        assert!(!cache.open(&place, &password).unwrap().has_untried);
        assert_eq!(keys("a").len(), 2);
    }

    #[test]
    fn a_kept_key_opens_what_its_password_opens_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Local { root: folder.path().to_owned() };
        let (path, cache) = (RepositoryPath::parse("r").unwrap(), KeyCache::new(folder.path().join("state/keys")));
        let (password, wrong) = (Password::new("hunter2").unwrap(), Password::new("hunter3").unwrap());
        let id = Repository::open_or_init_cached(&location, &path, &password, Some(&cache)).unwrap().id().to_owned();
        let place = Place::existing(&location, &path).unwrap();
        let file = cache.file(&place);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(cache.open(&place, &password).is_some() && cache.open(&place, &wrong).is_none());
        let opened = Repository::open_cached(&location, &path, &password, Some(&cache)).unwrap();
        assert_eq!(opened.id(), id);
        let refused = Repository::open_cached(&location, &path, &wrong, Some(&cache));
        assert!(matches!(refused, Err(OpenError::WrongPassword { .. })));

        // A password that was taken away opens nothing any more.
        let new = Password::new("another").unwrap();
        add_password(&location, &path, &password, &new).unwrap();
        assert!(cache.open(&place, &password).is_some());
        remove_password(&location, &path, &new, &password).unwrap();
        assert!(cache.open(&place, &password).is_none());
        assert!(Repository::open_cached(&location, &path, &password, Some(&cache)).is_err());

        // Neither does what is damaged, or another repository's.
        Repository::open_cached(&location, &path, &new, Some(&cache)).unwrap();
        let whole = std::fs::read(&file).unwrap();
        for at in [0, SALT, whole.len() - 1] {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            std::fs::write(&file, broken).unwrap();
            assert!(cache.open(&place, &new).is_none(), "{at}");
        }
        std::fs::write(&file, "").unwrap();
        Repository::open_cached(&location, &path, &new, Some(&cache)).unwrap();
        assert!(cache.open(&place, &new).is_some(), "it is kept anew");
    }
}
