//! The tokens that requests to Google Cloud Storage carry: signed here with the service account's key, good for an hour
//! (<https://google.aip.dev/auth/4111>), and made anew in time by object_store.
//!
//! Its sense of time is a clock that stands still while a machine sleeps, and does not follow when the machine's clock is
//! set. So a token may have expired for the server that counts here: one that was accepted once and is refused now is
//! thrown away, and the request is made again with a new one. A token that was never accepted is an error, which no new one
//! would mend.

use super::http::TransportError;
use crate::backend::lock;
use crate::storage::CauseKind;
use ::http::{HeaderValue, StatusCode};
use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The tokens of one service account.
pub(super) struct Tokens {
    signer: GoogleCloudStorageBuilder,
    state: Mutex<State>,
}

struct State {
    current: GcpCredentialProvider,
    /// The header with the token that the server accepted last.
    accepted: Option<HeaderValue>,
    /// The one that was thrown away last. Requests that were under way with it are answered after that.
    expired: Option<HeaderValue>,
}

impl Tokens {
    /// Tokens that are signed with the key that this builder was given.
    pub(super) fn new(signer: GoogleCloudStorageBuilder) -> object_store::Result<Arc<Self>> {
        let state = State { current: fresh(&signer)?, accepted: None, expired: None };
        Ok(Arc::new(Self { signer, state: Mutex::new(state) }))
    }

    /// Takes notice of an answer to a request that carried `bearer`. It is an error that may pass where the token has expired.
    pub(super) fn answered(&self, bearer: &HeaderValue, status: StatusCode) -> Result<(), HttpError> {
        let mut state = lock(&self.state);
        let has_expired = state.expired.as_ref() == Some(bearer);
        let was_accepted = state.accepted.as_ref() == Some(bearer);
        if status != StatusCode::UNAUTHORIZED {
            let says_nothing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            if !has_expired && !says_nothing {
                state.accepted = Some(bearer.clone());
            }
            return Ok(());
        }
        if !has_expired && !was_accepted {
            return Ok(());
        }
        if let Ok(fresh) = fresh(&self.signer) {
            *state = State { current: fresh, accepted: None, expired: Some(bearer.clone()) };
        }
        let text = "the server says that the token has expired; a new one is made".to_owned();
        // object_store would send the same token again: whoever called it asks for a new one.
        Err(HttpError::new(HttpErrorKind::Unknown, TransportError::Refused { kind: CauseKind::Busy, text }))
    }
}

/// What makes a token when it is asked for one, and keeps it.
fn fresh(signer: &GoogleCloudStorageBuilder) -> object_store::Result<GcpCredentialProvider> {
    Ok(Arc::clone(signer.clone().build()?.credentials()))
}

#[async_trait]
impl CredentialProvider for Tokens {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let current = Arc::clone(&lock(&self.state).current);
        current.get_credential().await
    }
}

/// Nothing of it: the signer holds the key.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}
