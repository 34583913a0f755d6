//! The options of a database, read from a connection string.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs};

use crate::connection::{ConnectionString, ConnectionStringError};
use crate::factory::OpenerError;
use crate::lease_mgr::OnFail;

/// The keywords of both kinds of databases.
pub(crate) const KEYWORDS: &[&str] = &[
    "name",
    "host",
    "port",
    "user",
    "password",
    "password-file",
    "connect-timeout",
    "read-timeout",
    "write-timeout",
    "tcp-user-timeout",
    "max-reconnect-tries",
    "reconnect-wait-time",
    "on-fail",
    "retry-on-startup",
    "readonly",
    "trust-anchor",
    "cert-file",
    "key-file",
    "cipher-list",
    "ssl-mode",
    "pool-size",
    "target-session-attrs",
    "poll-interval",
];

/// To what extent a connection must be encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// Not encrypted.
    Disable,
    /// Encrypted if the server can.
    #[default]
    Prefer,
    /// Encrypted, by whichever server.
    Require,
    /// Encrypted, by a server whose certificate a trusted authority has signed.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate is of this host.
    VerifyFull,
}

impl SslMode {
    const NAMES: [(&str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

/// Which of several hosts accepts a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionTarget {
    /// The first one that can be reached.
    Any,
    /// The first one that accepts changes.
    #[default]
    ReadWrite,
}

impl SessionTarget {
    const NAMES: [(&str, Self); 2] = [("any", Self::Any), ("read-write", Self::ReadWrite)];
}

/// How to reach a database, and what to do when it cannot be reached.
#[derive(Clone)]
pub(crate) struct SqlOptions {
    /// The name of the database.
    pub(crate) database: String,
    /// Names or addresses of hosts, or the absolute directory of a Unix socket (PostgreSQL) or its
    /// absolute file name (MySQL), in the order in which they are tried.
    pub(crate) hosts: Vec<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    /// Maximum number of attempts to reopen a lost connection; `None` for any number.
    pub(crate) max_reconnect_tries: Option<u32>,
    /// Time between two attempts; `None` for one that grows.
    pub(crate) reconnect_wait_time: Option<Duration>,
    pub(crate) on_fail: OnFail,
    pub(crate) retry_on_startup: bool,
    pub(crate) readonly: bool,
    pub(crate) trust_anchor: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) cipher_list: Option<String>,
    pub(crate) ssl_mode: SslMode,
    /// Maximum number of sessions.
    pub(crate) pool_size: usize,
    pub(crate) target: SessionTarget,
    /// Time between two readings of all leases, if changes of others are to be found out so.
    pub(crate) poll_interval: Option<Duration>,
}

impl SqlOptions {
    /// Returns the place of the leases, for display.
    pub(crate) fn place(&self) -> String {
        format!("{}@{}/{}", self.user, self.hosts.join(","), self.database)
    }

    /// Reads the options of a connection string.
    ///
    /// # Errors
    /// Returns [`OpenerError`] if a value is invalid, or the file of the password cannot be read.
    pub(crate) fn read(connection: &ConnectionString) -> Result<Self, OpenerError> {
        let milliseconds = |keyword| -> Result<Option<Duration>, ConnectionStringError> {
            Ok(connection.number(keyword, 0..=u32::MAX.into())?.map(Duration::from_millis))
        };
        // A timeout of 0 means no limit.
        let seconds = |keyword| -> Result<Option<Duration>, ConnectionStringError> {
            let seconds = connection.number(keyword, 0..=u32::MAX.into())?;
            Ok(seconds.filter(|&seconds| seconds > 0).map(Duration::from_secs))
        };
        let file = |keyword| connection.get(keyword).map(PathBuf::from);
        let hosts = connection.get("host").unwrap_or("localhost").split(',');
        let hosts: Vec<_> = hosts.map(|host| host.trim().to_owned()).collect();
        if hosts.iter().any(String::is_empty) {
            return Err(connection
                .bad_value("host", "names or addresses of hosts, separated by commas")
                .into());
        }
        if let (Some(_), Some(_)) = (connection.get("password"), connection.get("password-file")) {
            return Err(connection.bad_value("password-file", "no password beside it").into());
        }
        let port = connection.number("port", 1..=65535)?.and_then(|port| u16::try_from(port).ok());
        let tries = connection.number("max-reconnect-tries", 0..=u32::MAX.into())?;
        let pool_size = connection.number("pool-size", 2..=64)?.unwrap_or(4);
        Ok(Self {
            database: connection.required("name")?.to_owned(),
            hosts,
            port,
            user: connection.required("user")?.to_owned(),
            password: password(connection)?,
            connect_timeout: seconds("connect-timeout")?.unwrap_or(Duration::from_secs(5)),
            read_timeout: seconds("read-timeout")?,
            write_timeout: seconds("write-timeout")?,
            tcp_user_timeout: seconds("tcp-user-timeout")?,
            max_reconnect_tries: tries.and_then(|tries| u32::try_from(tries).ok()),
            reconnect_wait_time: milliseconds("reconnect-wait-time")?,
            on_fail: connection.choice("on-fail", &OnFail::NAMES)?.unwrap_or_default(),
            retry_on_startup: connection.flag("retry-on-startup")?.unwrap_or(false),
            readonly: connection.flag("readonly")?.unwrap_or(false),
            trust_anchor: file("trust-anchor"),
            cert_file: file("cert-file"),
            key_file: file("key-file"),
            cipher_list: connection.get("cipher-list").map(str::to_owned),
            ssl_mode: connection.choice("ssl-mode", &SslMode::NAMES)?.unwrap_or_default(),
            pool_size: usize::try_from(pool_size).unwrap_or(4),
            target: connection.choice("target-session-attrs", &SessionTarget::NAMES)?.unwrap_or_default(),
            poll_interval: seconds("poll-interval")?,
        })
    }
}

/// Returns the password, or the first line of the file of the password.
fn password(connection: &ConnectionString) -> Result<Option<String>, OpenerError> {
    let Some(file) = connection.get("password-file") else {
        return Ok(connection.get("password").map(str::to_owned));
    };
    let text = fs::read_to_string(file).map_err(|source| PasswordFileError { file: file.into(), source })?;
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}

/// The file of a password cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot read the password", file.display())]
struct PasswordFileError {
    file: PathBuf,
    source: std::io::Error,
}

impl fmt::Debug for SqlOptions {
    /// Shows no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlOptions").field("place", &self.place()).finish_non_exhaustive()
    }
}
