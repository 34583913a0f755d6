//! Certificates and keys in files of the PEM format, for TLS.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a file has no certificate or key that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemError {
    /// It cannot be read, or has no certificate or key.
    #[error("{}: cannot read a certificate or key", file.display())]
    File { file: PathBuf, source: pem::Error },
    /// It is no certificate that others can be verified with.
    #[error("{}: an invalid trust anchor", file.display())]
    Anchor { file: PathBuf, source: rustls::Error },
}

fn read<T>(file: &Path, parse: impl FnOnce(&mut dyn Read) -> Result<T, pem::Error>) -> Result<T, PemError> {
    let error = |source| PemError::File { file: file.into(), source };
    let open = File::open(file).map_err(|err| error(pem::Error::Io(err)))?;
    parse(&mut BufReader::new(open)).map_err(error)
}

/// Reads the certificates of a file.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    read(file, |reader| {
        let certificates: Vec<_> = CertificateDer::pem_reader_iter(reader).collect::<Result<_, _>>()?;
        if certificates.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(certificates) }
    })
}

/// Reads the private key of a file.
pub(crate) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    read(file, |reader| PrivateKeyDer::from_pem_reader(reader))
}

/// Reads the certificates that others are verified with.
pub(crate) fn trust_anchors(file: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|source| PemError::Anchor { file: file.into(), source })?;
    }
    Ok(roots)
}
