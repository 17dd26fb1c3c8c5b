//! The repository's password. It is wiped from memory when dropped, and no `Debug` or error shows it.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let password = Password::new("hunter2").unwrap();
        assert!(!format!("{password:?}").contains("hunter2"));
    }

    #[test]
    fn an_empty_password_is_refused() {
        assert_eq!(Password::new("").unwrap_err(), PasswordError::Empty);
    }
}
