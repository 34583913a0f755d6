//! The encryption of HTTP, by rustls.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::VerifierBuilderError;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::pem::{PemError, certificates, private_key, trust_anchors};

/// Why connections cannot be encrypted: a file cannot be read, or the certificates and keys do not
/// fit.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TlsError(#[from] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    File(#[from] PemError),
    #[error("the certificate and the key cannot be used")]
    Config(#[from] rustls::Error),
    #[error("{}: the trust anchors cannot be used", file.display())]
    Verifier { file: PathBuf, source: VerifierBuilderError },
}

/// The certificate of a server, and whether clients need one, too. The versions are TLS 1.2 and
/// 1.3.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<ServerConfig>);

impl ServerTls {
    /// Reads the server's certificate, with those that it was signed with, and its key, from files
    /// of the PEM format. Clients need no certificate.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if the key does not fit the certificate.
    pub fn new(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        Ok(Self::build(cert_file, key_file, None)?)
    }

    /// As [`new`](Self::new), but clients need a certificate that is signed with one in the file
    /// `trust_anchor`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if the key does not fit the certificate.
    pub fn with_client_certificates(
        cert_file: &Path,
        key_file: &Path,
        trust_anchor: &Path,
    ) -> Result<Self, TlsError> {
        Ok(Self::build(cert_file, key_file, Some(trust_anchor))?)
    }

    fn build(cert_file: &Path, key_file: &Path, trust_anchor: Option<&Path>) -> Result<Self, Cause> {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions()?;
        let config = match trust_anchor {
            None => config.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(trust_anchors(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
                let verifier = verifier.map_err(|source| Cause::Verifier { file: file.into(), source })?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let config = config.with_single_cert(certificates(cert_file)?, private_key(key_file)?)?;
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0))
    }
}

/// Which servers a client trusts, and the certificate that it shows them. The versions are TLS 1.2
/// and 1.3.
#[derive(Clone, Debug)]
pub struct ClientTls(pub(super) Arc<ClientConfig>);

impl ClientTls {
    /// Reads the certificates that those of servers must be signed with, from a file of the PEM
    /// format. The client has no certificate.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn new(trust_anchor: &Path) -> Result<Self, TlsError> {
        Ok(Self::build(trust_anchor, None)?)
    }

    /// As [`new`](Self::new), but the client has a certificate, with a key.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or if the key does not fit the certificate.
    pub fn with_certificate(
        trust_anchor: &Path,
        cert_file: &Path,
        key_file: &Path,
    ) -> Result<Self, TlsError> {
        Ok(Self::build(trust_anchor, Some((cert_file, key_file)))?)
    }

    fn build(trust_anchor: &Path, own: Option<(&Path, &Path)>) -> Result<Self, Cause> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(trust_anchors(trust_anchor)?);
        let config = match own {
            None => config.with_no_client_auth(),
            Some((cert_file, key_file)) => {
                config.with_client_auth_cert(certificates(cert_file)?, private_key(key_file)?)?
            }
        };
        Ok(Self(Arc::new(config)))
    }
}
