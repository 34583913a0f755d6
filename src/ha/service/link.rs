//! A connection to another server.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::control::{AuthError, Client, ClientError};
use crate::ha::{Partner, Peer};

/// Why high availability cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The URL of a server cannot be used.
    #[error("the URL of server {name} cannot be used")]
    Url {
        /// The name of the server.
        name: String,
        /// What is wrong with the URL.
        source: ClientError,
    },
    /// The file with the password for a server cannot be read.
    #[error("the file {path} with the password for server {name} cannot be read", path = path.display())]
    PasswordFile {
        /// The name of the server.
        name: String,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The user for a server, or the password, cannot be sent.
    #[error("the user for server {name} cannot be used")]
    User {
        /// The name of the server.
        name: String,
        /// What is wrong.
        source: AuthError,
    },
    /// The files for TLS of a server cannot be used.
    #[cfg(feature = "control-tls")]
    #[error("the files for TLS of server {name} cannot be used")]
    Tls {
        /// The name of the server.
        name: String,
        /// What is wrong.
        source: crate::control::TlsError,
    },
    /// A thread cannot be started.
    #[error("a thread of high availability cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Why a request was not answered.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    #[error("expected an answer")]
    Client(#[source] ClientError),
    #[error("this server stops")]
    Stopping,
}

/// A connection to another server, with one request at a time.
pub(super) struct Link {
    client: Client,
    stop: Arc<AtomicBool>,
    /// A request was refused because the server stops. The next ones clean up, and are sent.
    is_cut: bool,
}

impl Link {
    /// Creates a connection that is opened with the first request. Each request may take `time`.
    pub(super) fn new(peer: &Peer, time: Duration, stop: &Arc<AtomicBool>) -> Result<Self, ServiceError> {
        let name = || peer.name.clone();
        let client = Client::http(&peer.url.to_string())
            .map_err(|source| ServiceError::Url { name: name(), source })?;
        #[cfg(feature = "control-tls")]
        let client = if let (Some(files), true) = (&peer.tls, peer.url.tls) {
            use crate::control::ClientTls;
            let tls = ClientTls::with_certificate(&files.trust_anchor, &files.cert_file, &files.key_file);
            client.tls(tls.map_err(|source| ServiceError::Tls { name: name(), source })?)
        } else {
            client
        };
        let password = match (&peer.password, &peer.password_file) {
            (Some(password), _) => password.reveal().to_owned(),
            (None, Some(path)) => {
                let text = fs::read_to_string(path);
                let text = text.map_err(|source| ServiceError::PasswordFile {
                    name: name(),
                    path: path.clone(),
                    source,
                })?;
                text.trim_end_matches(['\n', '\r']).to_owned()
            }
            (None, None) => String::new(),
        };
        let mut client = match &peer.user {
            Some(user) => {
                client.user(user, &password).map_err(|source| ServiceError::User { name: name(), source })?
            }
            None => client,
        };
        client.set_time(time);
        Ok(Self { client, stop: Arc::clone(stop), is_cut: false })
    }
}

impl Partner for Link {
    type Error = LinkError;

    fn send(&mut self, body: &[u8]) -> Result<Vec<u8>, LinkError> {
        if self.stop.load(Ordering::Acquire) && !std::mem::replace(&mut self.is_cut, true) {
            return Err(LinkError::Stopping);
        }
        self.client.send(body).map_err(LinkError::Client)
    }
}
