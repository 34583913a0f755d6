//! The encryption of a connection, by rustls.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::stream::Stream;
use crate::pem::{PemError, certificates, private_key, trust_anchors};
use crate::sql::options::{SqlOptions, SslMode};

/// Why the options of the encryption cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error(transparent)]
    File(#[from] PemError),
    #[error("cert-file and key-file belong together")]
    HalfOfPair,
    #[error("the ssl-mode needs a trust-anchor")]
    NoAnchor,
    #[error("cipher-list has no cipher that is supported; the supported ones are {supported}")]
    NoCipher { supported: String },
    #[error("{host} is no name of a host that a certificate can have")]
    Host { host: String },
    #[error("the encryption cannot be set up")]
    Config(#[from] rustls::Error),
    #[error("the trust anchors cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Returns how connections are encrypted; `None` if they are not.
pub(super) fn config(options: &SqlOptions) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    if options.ssl_mode == SslMode::Disable {
        return Ok(None);
    }
    let mut provider = ring::default_provider();
    if let Some(list) = &options.cipher_list {
        provider.cipher_suites = ciphers(list, &provider.cipher_suites)?;
    }
    let provider = Arc::new(provider);
    let verifier = Arc::new(Verifier::new(options, &provider)?);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => config.with_client_auth_cert(certificates(cert)?, private_key(key)?)?,
        (None, None) => config.with_no_client_auth(),
        _ => return Err(TlsError::HalfOfPair),
    };
    Ok(Some(Arc::new(config)))
}

/// Returns the ciphers of a list in OpenSSL's form, as far as they are supported, in its order.
fn ciphers(list: &str, supported: &[SupportedCipherSuite]) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let wanted = list.split([':', ',', ' ']).filter(|name| !name.is_empty());
    let found: Vec<_> = wanted
        .filter_map(|wanted| {
            let is_wanted = |suite: &&SupportedCipherSuite| {
                let name = name(suite);
                name.eq_ignore_ascii_case(wanted) || openssl_name(&name).eq_ignore_ascii_case(wanted)
            };
            supported.iter().find(is_wanted).copied()
        })
        .collect();
    if found.is_empty() {
        let supported: Vec<_> = supported.iter().map(name).collect();
        return Err(TlsError::NoCipher { supported: supported.join(", ") });
    }
    Ok(found)
}

/// Returns OpenSSL's name of a cipher of TLS 1.2: `ECDHE-RSA-AES128-GCM-SHA256` for
/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`. OpenSSL names those of TLS 1.3 as all others do.
fn openssl_name(name: &str) -> String {
    let Some((exchange, cipher)) = name.trim_start_matches("TLS_").split_once("_WITH_") else {
        return name.to_owned();
    };
    let cipher = cipher.replace("AES_", "AES").replace("POLY1305_SHA256", "POLY1305");
    format!("{exchange}-{cipher}").replace('_', "-")
}

/// Verifies the certificate of a server as far as the options want.
#[derive(Debug)]
struct Verifier {
    /// Verifies that a trusted authority has signed; `None` if that is not wanted.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the certificate must be of the host.
    is_host_verified: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(options: &SqlOptions, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        // As in the library of PostgreSQL, a trust anchor is used wherever encryption is required.
        let chain = match (&options.trust_anchor, options.ssl_mode) {
            (_, SslMode::Disable | SslMode::Prefer) | (None, SslMode::Require) => None,
            (None, SslMode::VerifyCa | SslMode::VerifyFull) => return Err(TlsError::NoAnchor),
            (Some(file), _) => {
                let roots = Arc::new(trust_anchors(file)?);
                let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
                Some(builder.build()?)
            }
        };
        let is_host_verified = options.ssl_mode == SslMode::VerifyFull;
        Ok(Self { chain, is_host_verified, provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified = chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is compared last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.is_host_verified => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Encrypts a connection to a host, if it has what that needs.
pub(super) struct Connector(Option<(Arc<ClientConfig>, ServerName<'static>)>);

impl Connector {
    pub(super) fn new(config: Option<&Arc<ClientConfig>>, host: &str) -> Result<Self, TlsError> {
        let Some(config) = config else {
            return Ok(Self(None));
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TlsError::Host { host: host.to_owned() })?;
        Ok(Self(Some((Arc::clone(config), name))))
    }
}

impl TlsConnect<Stream> for Connector {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Stream) -> Self::Future {
        Box::pin(async move {
            let Some((config, name)) = self.0 else {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "the connection is not encrypted"));
            };
            let connect = tokio_rustls::TlsConnector::from(config).connect(name, stream);
            Ok(Encrypted(Box::new(connect.await?)))
        })
    }
}

/// An encrypted connection.
pub(super) struct Encrypted(Box<tokio_rustls::client::TlsStream<Stream>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_have_the_names_of_openssl_and_of_the_standard() {
        let supported = ring::default_provider().cipher_suites;
        let list = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:unknown:TLS_AES_256_GCM_SHA384";
        let names: Vec<_> =
            ciphers(list, &supported).unwrap().iter().map(|s| format!("{:?}", s.suite())).collect();
        assert_eq!(
            names,
            [
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS13_AES_256_GCM_SHA384"
            ]
        );
        ciphers("RC4", &supported).unwrap_err();
    }
}
