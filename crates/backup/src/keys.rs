//! The passwords that open a repository: adding one and taking one away, without touching any data.
//!
//! Each key file seals the same master key with another password. At every moment at least one of the two passwords of a change
//! opens the repository, whoever is killed in between.

use crate::fault::{Fault, guarded_raw};
use crate::location::{Location, RepositoryPath};
use crate::open::{OpenError, Place, Tried};
use crate::secret::Password;
use rustic_core::KeyOptions;

/// Lets a new password open a repository that an old one opens; both do afterwards. Answers whether it did not before.
///
/// Idempotent. A crash in the middle leaves the old password, or both.
///
/// # Errors
/// See [`OpenError`]; [`OpenError::WrongPassword`] when neither opens it.
pub fn add_password(
    location: &Location,
    path: &RepositoryPath,
    old: &Password,
    new: &Password,
) -> Result<bool, OpenError> {
    let place = Place::existing(location, path)?;
    match place.open(new) {
        Ok(_) => return Ok(false),
        Err(OpenError::WrongPassword { .. }) => {}
        Err(error) => return Err(error),
    }
    let (opened, _) = place.open(old)?;
    let library = |fault| OpenError::Library { repository: place.shown(), fault };
    guarded_raw(|| opened.add_key(new.expose(), &KeyOptions::default()))
        .map_err(library)?
        .map_err(|err| place.of_rustic(&err))?;
    place.open(new)?;
    Ok(true)
}

/// Takes from a repository every key file that opens with `old`, once `kept` was seen to open it. Answers how many went.
///
/// Idempotent. A crash in the middle leaves some of them. Keys of other passwords stay.
///
/// # Errors
/// See [`OpenError`]; nothing is removed when `kept` does not open the repository, or is the same password.
pub fn remove_password(
    location: &Location,
    path: &RepositoryPath,
    kept: &Password,
    old: &Password,
) -> Result<usize, OpenError> {
    let place = Place::existing(location, path)?;
    if kept.expose() == old.expose() {
        let fault = Fault::system("the password to remove is the one to keep");
        return Err(OpenError::Library { repository: place.shown(), fault });
    }
    let (_, others) = place.open(kept)?;
    let mut removed = 0;
    for key in others {
        match place.try_key(key, old)? {
            Tried::Opened(_) => {
                place.remove_key(&key)?;
                removed += 1;
            }
            Tried::WrongPassword | Tried::Misfit(_) | Tried::Unreadable(_) => {}
        }
    }
    Ok(removed)
}
