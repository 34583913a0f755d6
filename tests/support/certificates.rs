//! Certificates for tests of TLS, made by the program `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate and its key, in files of the PEM format.
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// An authority, whose certificate others are verified with.
pub(crate) struct Authority {
    own: Certificate,
    directory: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let own = make(directory, name, &["-addext", "basicConstraints=critical,CA:TRUE"]);
        Self { own, directory: directory.into() }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.own.cert
    }

    /// Makes a certificate for a server on 127.0.0.1, or for a client.
    pub(crate) fn certify(&self, name: &str) -> Certificate {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (cert, key) = (path(&self.own.cert), path(&self.own.key));
        let options = [
            "-CA",
            &cert,
            "-CAkey",
            &key,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ];
        make(&self.directory, name, &options)
    }
}

fn make(directory: &Path, name: &str, options: &[&str]) -> Certificate {
    let certificate = Certificate {
        cert: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", &format!("/CN={name}")])
        .arg("-keyout")
        .arg(&certificate.key)
        .arg("-out")
        .arg(&certificate.cert)
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    certificate
}
