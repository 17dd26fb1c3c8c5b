//! Who the server is, and how a client is known: a certificate with its authority, a token, client certificates, and the
//! kubeconfig for all of them.
//!
//! Holds: the key of the server's authority signs one certificate and is then forgotten, so that it cannot leak; every file is written
//! whole or not at all, and only its owner may read it. Nothing in here is ever logged.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use subtle::ConstantTimeEq as _;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::clients::{self, ClientAuthority};

pub use crate::clients::ClientCertificate;

/// The file with the server's certificate, its authority's certificate, and the server's key.
const TLS_FILE: &str = "tls.pem";
/// The file with the certificate and the key of the authority of client certificates.
const CLIENTS_FILE: &str = "clients.pem";
/// The file with the token.
const TOKEN_FILE: &str = "token";
/// Shorter is no token of ours.
const TOKEN_LENGTH: usize = 64;

/// Why the identity of a server cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or the folder could not be read or written.
    #[error("{}: cannot {what}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there but not usable.
    #[error("{}: {why}; remove it, and a new one is made (clients then need the new kubeconfig)", file.display())]
    Unusable {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Key or certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// The identity of a server.
#[derive(Clone)]
pub struct Identity {
    ca_pem: String,
    token: String,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) clients: Arc<ClientAuthority>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads the identity from the folder, or makes a new one where there is none. The folder is made too, for its owner
    /// only (0700, files 0600). Idempotent; after a crash in the middle the next call completes it.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(folder: &Path) -> Result<Identity, IdentityError> {
        private_folder(folder)?;
        let tls_file = folder.join(TLS_FILE);
        let pem = load_or_make(&tls_file, || Ok(new_certificates()?))?;
        let token_file = folder.join(TOKEN_FILE);
        let token = load_or_make(&token_file, || Ok(new_token()))?;
        let token = String::from(token.trim());
        if token.len() < TOKEN_LENGTH || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(IdentityError::Unusable { file: token_file, why: String::from("it holds no token") });
        }
        let clients_file = folder.join(CLIENTS_FILE);
        let authority = load_or_make(&clients_file, || Ok(clients::new_authority()?))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = ClientAuthority::read(&authority, &provider)
            .map_err(|why| IdentityError::Unusable { file: clients_file, why })?;
        let (config, ca_pem) = read_certificates(&pem, provider, Arc::clone(&clients.verifier))
            .map_err(|why| IdentityError::Unusable { file: tls_file, why })?;
        Ok(Identity { ca_pem, token, config: Arc::new(config), clients: Arc::new(clients) })
    }

    /// A new certificate by which the server knows this user (CN) and this group (O), from a minute ago on for this
    /// long. It cannot be taken back: remove the folder's `clients.pem` and start again to end all of them. A certificate
    /// with several groups (made with the key in `clients.pem`) is understood too.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue(
        &self,
        user: &str,
        group: Option<&str>,
        lifetime: Duration,
    ) -> Result<ClientCertificate, IdentityError> {
        Ok(self.clients.issue(user, group, jiff::Timestamp::now(), lifetime)?)
    }

    /// The certificate of the authority, by which a client knows the server (PEM).
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The token by which the server knows its owner. A secret.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether the token is the right one. Takes the same time whichever byte is wrong.
    pub(crate) fn knows(&self, token: &[u8]) -> bool {
        self.token.as_bytes().ct_eq(token).into()
    }
}

/// How a client shows who it is.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// By a token. A secret.
    Token(&'a str),
    /// By a certificate and its key. A secret.
    Certificate(&'a ClientCertificate),
}

/// The text of a kubeconfig of the owner for kubectl and other clients. It holds the token: a secret.
pub fn kubeconfig(address: SocketAddr, ca_pem: &str, token: &str) -> String {
    kubeconfig_for(address, ca_pem, "owner", Credential::Token(token))
}

/// The text of a kubeconfig for a user under this name. It holds what the user is known by: a secret.
pub fn kubeconfig_for(address: SocketAddr, ca_pem: &str, name: &str, credential: Credential<'_>) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let ca = encode(ca_pem);
    let user = match credential {
        Credential::Token(token) => format!("token: {token}"),
        Credential::Certificate(ClientCertificate { certificate_pem, key_pem }) => {
            format!("client-certificate-data: {}\n    client-key-data: {}", encode(certificate_pem), encode(key_pem))
        }
    };
    // A name is written as JSON, which YAML reads: users of ServiceAccounts have colons in theirs.
    let name = serde_json::Value::from(name);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: embedded\n  cluster:\n    server: https://{address}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: {name}\n  user:\n    {user}\ncontexts:\n- name: embedded\n  \
         context:\n    cluster: embedded\n    user: {name}\n    namespace: default\ncurrent-context: embedded\n"
    )
}

fn private_folder(folder: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed =
        |what: &'static str| move |source: io::Error| IdentityError::Io { file: folder.to_path_buf(), what, source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create the folder"))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("keep the folder to its owner"))
}

/// The content of the file; made first when it is not there. Of two that make it at once, both use the first one's.
fn load_or_make(file: &Path, make: impl Fn() -> Result<String, IdentityError>) -> Result<String, IdentityError> {
    let failed =
        |what: &'static str| move |source: io::Error| IdentityError::Io { file: file.to_path_buf(), what, source };
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map_err(failed("read it")),
    }
    let content = make()?;
    let aside = file.with_extension(format!("new-{}", uuid::Uuid::new_v4().simple()));
    let linked = write_private(&aside, &content).and_then(|()| match fs::hard_link(&aside, file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&aside);
    linked.and(removed).map_err(failed("write it"))?;
    fs::read_to_string(file).map_err(failed("read it"))
}

fn write_private(file: &Path, content: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    opened.write_all(content.as_bytes())?;
    opened.sync_all()
}

/// 244 random bits of the operating system, in hexadecimal.
fn new_token() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// A server's certificate and key and the certificate of the authority that signed it.
fn new_certificates() -> Result<String, rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name.push(DnType::CommonName, "embedded-api-ca");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec![String::from("localhost")])?;
    server.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    server.subject_alt_names.push(SanType::IpAddress(Ipv6Addr::LOCALHOST.into()));
    server.distinguished_name.push(DnType::CommonName, "embedded-api");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = server.signed_by(&key, &issuer)?;
    Ok(format!("{}{}{}", certificate.pem(), ca_certificate.pem(), key.serialize_pem()))
}

/// The configuration of the listener, and the authority's certificate.
fn read_certificates(
    pem: &str,
    provider: Arc<rustls::crypto::CryptoProvider>,
    clients: Arc<clients::Verifier>,
) -> Result<(ServerConfig, String), String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("its certificates are not readable: {error}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| format!("its key is not readable: {error}"))?;
    let [server, authority] = chain.as_slice() else {
        return Err(format!("it holds {} certificates instead of two", chain.len()));
    };
    let ca_pem = second_certificate(pem).ok_or("it holds no certificate of the authority")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![server.clone(), authority.clone()], key)
        .map_err(|error| format!("key and certificate do not fit: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, ca_pem))
}

/// The second certificate as it stands in the text.
fn second_certificate(pem: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let start = pem.match_indices(BEGIN).nth(1)?.0;
    let rest = pem.get(start..)?;
    let end = rest.find(END)? + END.len();
    Some(format!("{}\n", rest.get(..end)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("is there").permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_stays_the_same_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("tls");
        let first = Identity::load_or_create(&place).expect("made");
        let second = Identity::load_or_create(&place).expect("loaded");
        assert_eq!((first.ca_pem(), first.token()), (second.ca_pem(), second.token()));
        assert_eq!(mode(&place), 0o700);
        let files: Vec<_> =
            fs::read_dir(&place).expect("listed").map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o600));
        assert!(!format!("{first:?}").contains(first.token()));
    }

    #[test]
    fn tokens_are_compared_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity::load_or_create(folder.path()).expect("made");
        assert!(identity.knows(identity.token().as_bytes()));
        assert!(!identity.knows(b""));
        assert!(!identity.knows(identity.token().get(1..).expect("longer").as_bytes()));
        let mut changed = identity.token().as_bytes().to_vec();
        changed[0] ^= 1;
        assert!(!identity.knows(&changed));
    }

    #[test]
    fn files_that_were_damaged_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        Identity::load_or_create(folder.path()).expect("made");
        for file in [TLS_FILE, TOKEN_FILE, CLIENTS_FILE] {
            let path = folder.path().join(file);
            let before = fs::read_to_string(&path).expect("read");
            fs::write(&path, before.get(..40).expect("longer")).expect("cut");
            let error = Identity::load_or_create(folder.path()).expect_err("refused");
            assert!(error.to_string().contains(file), "{error}");
            fs::write(&path, before).expect("restored");
        }
    }
}
