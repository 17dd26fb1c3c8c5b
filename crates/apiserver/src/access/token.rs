//! Tokens of ServiceAccounts: signed, bound to one account, and good for a time.
//!
//! Holds: a token says nothing that is believed before its signature was checked; it ends with its account (by UID), with
//! what it is bound to, and with its time. The key stands in the store's file and nowhere else. No token is ever logged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::user::User;
use crate::metadata;
use crate::registry::{AccessKind, ClusterKind, Nature, Registry};
use crate::store::{Key, State};

/// Who gives tokens out, and for whom they are meant when nobody says otherwise.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";

/// How long an object that is being deleted still vouches for tokens, as on a cluster.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The length of the key.
pub(crate) const KEY_LENGTH: usize = 32;

/// The head of every token.
const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// One object, by name and UID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whose {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Named>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) nbf: i64,
    pub(crate) iat: i64,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) whose: Whose,
}

/// Gives tokens out and knows its own.
pub(crate) struct Tokens {
    key: hmac::Key,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn new(key: &[u8; KEY_LENGTH]) -> Tokens {
        Tokens { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// The token that says this.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let body = serde_json::to_string(claims).unwrap_or_default();
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEAD), URL_SAFE_NO_PAD.encode(body));
        let signature = hmac::sign(&self.key, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// What a token says, if it is one of ours.
    fn read(&self, token: &str) -> Option<Claims> {
        let (text, signature) = token.rsplit_once('.')?;
        let (head, body) = text.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, text.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        (URL_SAFE_NO_PAD.decode(head).ok()? == HEAD.as_bytes() && claims.iss == ISSUER).then_some(claims)
    }

    /// The user a token makes known to somebody of these audiences; none when it is not, or no longer, good.
    pub(crate) fn user(
        &self,
        token: &str,
        audiences: &[&str],
        now: Timestamp,
        registry: &Registry,
        state: &State,
    ) -> Option<(User, Claims)> {
        let claims = self.read(token)?;
        let whose = &claims.whose;
        let in_time = (claims.nbf..claims.exp).contains(&now.as_second());
        if !in_time || !claims.aud.iter().any(|audience| audiences.contains(&audience.as_str())) {
            return None;
        }
        let vouch = |nature: Nature, object: &Named| vouches(registry, state, now, nature, &whose.namespace, object);
        vouch(Nature::Access(AccessKind::ServiceAccount), &whose.serviceaccount)?;
        let mut user = User::service_account(&whose.namespace, &whose.serviceaccount.name);
        user.uid.clone_from(&whose.serviceaccount.uid);
        let mut tell = |key: &str, value: String| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        tell("credential-id", format!("JTI={}", claims.jti));
        if let Some(pod) = &whose.pod {
            vouch(Nature::Cluster(ClusterKind::Pod), pod)?;
            tell("pod-name", pod.name.clone());
            tell("pod-uid", pod.uid.clone());
        }
        if let Some(secret) = &whose.secret {
            vouch(Nature::Secret, secret)?;
        }
        Some((user, claims))
    }
}

/// Whether that object is still there.
fn vouches(
    registry: &Registry,
    state: &State,
    now: Timestamp,
    nature: Nature,
    namespace: &str,
    named: &Named,
) -> Option<()> {
    let resource = registry.find_nature(nature)?;
    let stored = state.get(&Key { resource, namespace: String::from(namespace), name: named.name.clone() })?;
    if stored.uid != named.uid {
        return None;
    }
    let object: Value = stored.object();
    let deleted = metadata::text(&object, "deletionTimestamp").parse::<Timestamp>().ok();
    let over = deleted.is_some_and(|time| time.checked_add(LEEWAY).is_ok_and(|end| end < now));
    (!over).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let serviceaccount = Named { name: String::from("a"), uid: String::from("1") };
        Claims {
            iss: String::from(ISSUER),
            sub: String::from("system:serviceaccount:default:a"),
            aud: vec![String::from(ISSUER)],
            exp: 20,
            nbf: 10,
            iat: 10,
            jti: String::from("x"),
            whose: Whose { namespace: String::from("default"), serviceaccount, pod: None, secret: None },
        }
    }

    #[test]
    fn only_what_was_signed_here_is_read() {
        let tokens = Tokens::new(&[7; KEY_LENGTH]);
        let token = tokens.sign(&claims());
        assert_eq!(tokens.read(&token), Some(claims()));
        assert_eq!(Tokens::new(&[8; KEY_LENGTH]).read(&token), None, "another key");
        let parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_string(&Claims { exp: 9999, ..claims() }).expect("JSON"));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for token in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            String::from(".."),
            String::new(),
        ] {
            assert_eq!(tokens.read(&token), None, "{token}");
        }
        let other = tokens.sign(&Claims { iss: String::from("https://elsewhere"), ..claims() });
        assert_eq!(tokens.read(&other), None, "another issuer");
    }
}
