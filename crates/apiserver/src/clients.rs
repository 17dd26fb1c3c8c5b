//! Client certificates: an authority that signs them, and what one says about whoever shows it.
//!
//! Holds: the authority's key stays in the state folder (0600), for it signs whenever the owner wants one more
//! certificate; whoever can read it can read the owner's token beside it, so that keeping it gives nobody more. A
//! certificate cannot be taken back: it ends with its time, or all end when `clients.pem` is removed. TLS takes any
//! certificate whose key the client holds; whether it is one of ours is asked afterwards, so that a wrong one is answered
//! with 401 and not with a broken connection.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{self, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::access::user::User;

/// How long before its making a certificate begins to be good, for clocks that differ.
const EARLIER: Duration = Duration::from_secs(60);

/// A certificate with its key, both as PEM. The key is a secret.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

/// The authority of client certificates.
#[derive(Debug)]
pub(crate) struct ClientAuthority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) verifier: Arc<Verifier>,
}

fn authority() -> CertificateParams {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority.distinguished_name.push(DnType::CommonName, "embedded-api-client-ca");
    authority
}

/// A new authority: its certificate and its key.
pub(crate) fn new_authority() -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority().self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

impl ClientAuthority {
    /// Reads what [`new_authority`] made.
    pub(crate) fn read(pem: &str, provider: &Arc<CryptoProvider>) -> Result<ClientAuthority, String> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("its certificate is not readable: {error}"))?;
        let key = pem.find("-----BEGIN PRIVATE KEY").and_then(|at| pem.get(at..)).ok_or("it holds no key")?;
        let key = KeyPair::from_pem(key).map_err(|error| format!("its key is not readable: {error}"))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| format!("its certificate is not usable: {error}"))?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| format!("its certificate is not usable: {error}"))?;
        Ok(ClientAuthority { issuer: Issuer::new(authority(), key), verifier: Arc::new(Verifier { inner }) })
    }

    /// A new certificate for this user.
    pub(crate) fn issue(
        &self,
        user: &str,
        group: Option<&str>,
        from: Timestamp,
        lifetime: Duration,
    ) -> Result<ClientCertificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            wanted.distinguished_name.push(DnType::OrganizationName, group);
        }
        let from = Duration::from_secs(u64::try_from(from.as_second()).unwrap_or(0));
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        wanted.not_before = epoch + from.saturating_sub(EARLIER);
        wanted.not_after = epoch + from.saturating_add(lifetime);
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = wanted.signed_by(&key, &self.issuer)?;
        Ok(ClientCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// Takes every certificate whose key the client holds, and says afterwards whether it is one of ours.
#[derive(Debug)]
pub(crate) struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
}

/// What a connection showed.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// No certificate.
    Nothing,
    /// One that is not ours, or names nobody.
    Wrong,
    /// One of ours.
    Known {
        user: User,
        /// The second after which it is no longer good.
        until: i64,
    },
}

impl Shown {
    pub(crate) fn is_none(&self) -> bool {
        match self {
            Shown::Nothing => true,
            Shown::Wrong | Shown::Known { .. } => false,
        }
    }

    /// The user, as long as the certificate is good: a connection may outlive it.
    pub(crate) fn user(&self, now: Timestamp) -> Option<User> {
        match self {
            Shown::Known { user, until } if now.as_second() <= *until => Some(user.clone()),
            Shown::Known { .. } | Shown::Nothing | Shown::Wrong => None,
        }
    }
}

impl Verifier {
    /// What the certificates of a connection say.
    pub(crate) fn shown(&self, chain: Option<&[CertificateDer<'_>]>) -> Shown {
        let Some([own, rest @ ..]) = chain else {
            return Shown::Nothing;
        };
        let known = self.inner.verify_client_cert(own, rest, UnixTime::now()).is_ok();
        known.then(|| read(own)).flatten().unwrap_or(Shown::Wrong)
    }
}

/// Name, groups and end of a certificate.
fn read(certificate: &CertificateDer<'_>) -> Option<Shown> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    let groups: Result<Vec<&str>, _> = parsed.subject().iter_organization().map(|group| group.as_str()).collect();
    let (groups, until) = (groups.ok()?, parsed.validity().not_after.timestamp());
    (!name.is_empty()).then(|| Shown::Known { user: User::named(name, &groups), until })
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> ClientAuthority {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientAuthority::read(&new_authority().expect("made"), &provider).expect("read")
    }

    fn shown(authority: &ClientAuthority, made: &ClientCertificate) -> Shown {
        let der = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).expect("PEM");
        authority.verifier.shown(Some(&[der]))
    }

    #[test]
    fn a_certificate_says_who_somebody_is_until_it_ends() {
        let (own, other) = (new(), new());
        let (now, hour) = (Timestamp::now(), Duration::from_secs(3600));
        let made = own.issue("jane", Some("a"), now, hour).expect("issued");
        let user = shown(&own, &made).user(now).expect("known");
        assert_eq!((user.name.as_str(), user.groups.join(" ")), ("jane", String::from("a system:authenticated")));
        let later = now + Duration::from_secs(3601);
        assert!(shown(&own, &made).user(later).is_none(), "it has ended meanwhile");
        let ended = own.issue("jane", None, now - 2 * hour, hour).expect("issued");
        assert!(matches!(shown(&own, &ended), Shown::Wrong));
        assert!(matches!(shown(&other, &made), Shown::Wrong), "another authority");
        let nobody = own.issue("", Some("a"), now, hour).expect("issued");
        assert!(matches!(shown(&own, &nobody), Shown::Wrong));
        assert!(own.verifier.shown(None).is_none());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
