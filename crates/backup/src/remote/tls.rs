//! Whom a storage's TLS trusts: the machine's certificates, and those of the storage's Secret; and why it does not.

use super::RemoteOptions;
use ::http::{Method, Request, Uri};
use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// So long it is tried whether a server speaks TLS.
const TRIAL: Duration = Duration::from_secs(5);

/// What TLS is to accept. The error says what is wrong with the certificates that were given.
pub(super) fn config(options: &RemoteOptions) -> Result<ClientConfig, String> {
    let builder = builder()?;
    if options.insecure_tls {
        return any();
    }
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &options.ca_certificates {
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|err| format!("CA_CERT_DATA is no PEM: {err}"))?;
            roots.add(certificate).map_err(|err| format!("a certificate in CA_CERT_DATA cannot be used: {err}"))?;
            found += 1;
        }
        if found == 0 {
            return Err("CA_CERT_DATA holds no certificate in PEM".to_owned());
        }
    }
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine trusts no certificate authority, and CA_CERT_DATA names none".to_owned());
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// For endpoints without TLS: nothing is trusted, and the machine's certificates are not read.
pub(super) fn none() -> Result<ClientConfig, String> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Any certificate is accepted.
fn any() -> Result<ClientConfig, String> {
    let any = Arc::new(AnyCertificate { provider: Arc::new(ring::default_provider()) });
    Ok(builder()?.dangerous().with_custom_certificate_verifier(any).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|err| err.to_string())
}

/// Why a certificate is refused, in words.
pub(super) fn refused(err: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(what) = err else { return err.to_string() };
    let words = if matches!(what, CertificateError::UnknownIssuer) {
        "this machine does not know its authority"
    } else if matches!(what, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        "it has expired and has to be renewed, or this machine's clock is wrong"
    } else if matches!(what, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
        "it is not valid yet, or this machine's clock is wrong"
    } else if matches!(what, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
        "it is another host's"
    } else {
        return what.to_string();
    };
    format!("{words} ({what})")
}

/// Whether a server that was asked without TLS speaks it. Nothing is sent but a request without keys for its root.
pub(super) async fn is_spoken_by(asked: &Uri) -> bool {
    let (Some(authority), Ok(tls)) = (asked.authority(), any()) else { return false };
    let uri = Uri::builder().scheme("https").authority(authority.as_str()).path_and_query("/").build();
    let Ok(uri) = uri else { return false };
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let mut request = Request::new(Empty::new());
    (*request.method_mut(), *request.uri_mut()) = (Method::HEAD, uri);
    match timeout(TRIAL, client.request(request)).await {
        Ok(Ok(_)) => true,
        Ok(Err(err)) => {
            let tls = super::http::bottom(&err).0;
            !err.is_connect() || tls.is_some_and(|err| !matches!(err, rustls::Error::InvalidMessage(_)))
        }
        Err(_) => false,
    }
}

/// Accepts any certificate, and still has the server prove that it holds the certificate's key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
