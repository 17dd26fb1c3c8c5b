//! Authentication: who stands behind a request on the port.
//!
//! Holds: a certificate or a token that is shown is either good or refused; nobody falls back to being anonymous because
//! what was shown was wrong. Without either, only paths that say nothing of objects are open.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};

use super::token::ISSUER;
use super::user::User;
use crate::clients::Shown;
use crate::server::Server;
use crate::tls::Identity;

/// Paths that tell nothing about objects: they are open to everybody, as on a cluster.
const OPEN: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// The user who asks; none: the request is to be answered with 401.
pub(crate) fn user(
    server: &Server,
    identity: &Identity,
    certificate: &Shown,
    headers: &HeaderMap,
    path: &str,
) -> Option<User> {
    let now = server.core.sources.now();
    if let Some(user) = certificate.user(now) {
        return Some(user);
    }
    match headers.get(AUTHORIZATION) {
        Some(header) => {
            let token = bearer(header)?;
            if identity.knows(token) {
                return Some(User::owner());
            }
            let token = std::str::from_utf8(token).ok()?;
            server.user_of_token(token, &[ISSUER]).map(|(user, _)| user)
        }
        None => (certificate.is_none() && OPEN.contains(&path)).then(User::anonymous),
    }
}

fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
