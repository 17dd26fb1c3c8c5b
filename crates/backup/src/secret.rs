//! Passwords and keys. They are wiped from memory when dropped, and no `Debug` or error shows them.

use std::fmt;
use zeroize::Zeroizing;

/// The password of a repository: not empty, wiped when dropped, never printed.
///
/// While a repository is opened, the password is also handed to the key derivation as a plain string of its own, which
/// lives for that call only.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why a string is not a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing was given: restic refuses empty passwords too.
    #[error("the password is empty; put the repository's password into RESTIC_PASSWORD of the storage's Secret")]
    Empty,
}

impl Password {
    /// Takes a password over.
    ///
    /// # Errors
    /// [`PasswordError::Empty`] for an empty one. White space is kept: it is part of the password.
    pub fn new(password: impl Into<String>) -> Result<Self, PasswordError> {
        let password = Zeroizing::new(password.into());
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        Ok(Self(password))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// A key of an object store: wiped when dropped, never printed.
///
/// The object store's client holds a copy of its own for as long as a repository is open.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a key over.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_never_printed() {
        let password = Password::new("hunter2").unwrap();
        assert!(!format!("{password:?} {:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn an_empty_password_is_refused() {
        assert_eq!(Password::new("").unwrap_err(), PasswordError::Empty);
    }
}
