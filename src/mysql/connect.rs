//! Opens sessions: hosts, encryption, and the settings of a session.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ::mysql::consts::CapabilityFlags;
use ::mysql::prelude::Queryable;
use ::mysql::{ClientIdentity, Conn, DriverError, Error, OptsBuilder, SslOpts};
use rustls::crypto::{CryptoProvider, ring};

use super::session::MySqlSession;
use super::{error, schema};
use crate::lease_mgr::ManagedLease;
use crate::panics::contained;
use crate::sql::driver::{DbError, DbErrorKind, Driver};
use crate::sql::options::{SessionTarget, SqlOptions, SslMode};

const PORT: u16 = 3306;
/// Maximum time to wait for an answer if the options have none: a host that is gone without a word
/// must not hold a caller for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of prepared statements that a session keeps.
const PREPARED: usize = 96;

/// The settings that the statements rely on. Times are numbers of seconds on both sides, which are
/// exact without a time zone; a value that does not fit is an error. READ COMMITTED locks no gaps,
/// so that additions next to each other do not wait.
const SETTINGS: [&str; 3] = [
    "SET NAMES utf8mb4",
    "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', autocommit = 1, \
     wait_timeout = 2592000, innodb_lock_wait_timeout = 5",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
];

/// The setting of a session with a node of a cluster: each statement waits until the node has all
/// changes that other nodes have acknowledged. Without it, a statement can read an old version of a
/// row, or find no row for a lease that was just added on another node.
const WAIT_FOR_OTHERS: &str = "SET SESSION wsrep_sync_wait = 7";

/// Opens sessions of MySQL and MariaDB.
#[derive(Debug)]
pub(crate) struct MySql;

/// The options cannot be used.
#[derive(Debug, thiserror::Error)]
enum OptionsError {
    #[error("none of the ciphers is known: {0}")]
    Ciphers(String),
    #[error("a certificate needs a key: both cert-file and key-file must be given")]
    Identity,
    #[error("{}: cannot read a certificate or key", file.display())]
    File { file: PathBuf, source: io::Error },
}

/// The driver has panicked.
#[derive(Debug, thiserror::Error)]
#[error("the server wants a way of authentication that is not supported: {0}")]
struct AuthenticationError(String);

/// No host accepts a session.
#[derive(Debug, thiserror::Error)]
#[error("no host accepts a session: {0}")]
struct NoHostError(String);

/// A host is not used.
#[derive(Debug, thiserror::Error)]
enum NotUsedError {
    #[error("the server is read-only")]
    ReadOnly,
    #[error("the node of the cluster is not ready: {0}")]
    NotReady(String),
    #[error("no session after {0:?}")]
    NoAnswer(Duration),
}

impl<L: ManagedLease> Driver<L> for MySql {
    type Session = MySqlSession<L>;

    const NAME: &'static str = "mysql";

    fn connect(&self, options: &SqlOptions) -> Result<Self::Session, DbError> {
        let (connection, tables) =
            with_first_host(options, |connection| schema::read(connection, L::FAMILY))?;
        Ok(MySqlSession::new(connection, tables))
    }
}

/// Executes statements without parameters, one after the other.
pub(super) fn execute(options: &SqlOptions, statements: &[String]) -> Result<(), DbError> {
    let (mut connection, ()) = with_first_host(options, |_| Ok(()))?;
    statements.iter().try_for_each(|sql| connection.query_drop(sql)).map_err(error::of_statement)
}

/// Connects to the first host that accepts a session, and begins the session with `begin`.
fn with_first_host<T: Send + 'static>(
    options: &SqlOptions,
    begin: fn(&mut Conn) -> Result<T, DbError>,
) -> Result<(Conn, T), DbError> {
    let ssl = ssl(options)?;
    let mut failures: Vec<String> = Vec::new();
    for host in &options.hosts {
        match open_in_time(options, host, ssl.as_ref(), begin) {
            Ok(session) => return Ok(session),
            // Another host may accept what this one cannot; what it refuses, others do as well.
            Err(error) => match error::in_connect(error.kind) {
                DbErrorKind::NotConnected => failures.push(failure(host, &error)),
                kind => return Err(DbError { kind, ..error }),
            },
        }
    }
    Err(DbError::new(DbErrorKind::NotConnected, NoHostError(failures.join("; "))))
}

/// Returns a failure with its causes, which have no place of their own when there are several.
fn failure(host: &str, error: &DbError) -> String {
    format!("{host}: {}", crate::with_sources(error))
}

/// Opens a session with one host in the time of the options. A thread opens it, because the driver
/// limits only the time of each read, by a limit that the session then keeps. A thread whose time is
/// over ends when its read does.
fn open_in_time<T: Send + 'static>(
    options: &SqlOptions,
    host: &str,
    ssl: Option<&SslOpts>,
    begin: fn(&mut Conn) -> Result<T, DbError>,
) -> Result<(Conn, T), DbError> {
    let (sender, opened) = mpsc::sync_channel(1);
    let time = options.connect_timeout;
    let (options, host, ssl) = (options.clone(), host.to_owned(), ssl.cloned());
    let open = move || {
        let _ = sender.send(open(&options, &host, ssl.as_ref(), begin));
    };
    let started = thread::Builder::new().name("lease-connect".to_owned()).spawn(open);
    started.map_err(|error| DbError::new(DbErrorKind::NotConnected, error))?;
    opened
        .recv_timeout(time)
        .map_err(|_| DbError::new(DbErrorKind::NotConnected, NotUsedError::NoAnswer(time)))?
}

/// Opens a session with one host.
fn open<T>(
    options: &SqlOptions,
    host: &str,
    ssl: Option<&SslOpts>,
    begin: fn(&mut Conn) -> Result<T, DbError>,
) -> Result<(Conn, T), DbError> {
    let builder = builder(options, host);
    let mut connection = match connection(builder.clone().ssl_opts(ssl.cloned()))? {
        Err(Error::DriverError(DriverError::TlsNotSupported)) if options.ssl_mode == SslMode::Prefer => {
            connection(builder)?
        }
        result => result,
    }
    .map_err(error::of_connect)?;
    for setting in SETTINGS {
        connection.query_drop(setting).map_err(error::of_statement)?;
    }
    if options.readonly {
        connection.query_drop("SET SESSION TRANSACTION READ ONLY").map_err(error::of_statement)?;
    }
    check_usable(&mut connection, options)?;
    let begun = begin(&mut connection)?;
    Ok((connection, begun))
}

/// Connects, and authenticates. The driver panics if the server wants `ed25519` or another way of
/// authentication for which it was not built.
fn connection(options: OptsBuilder) -> Result<Result<Conn, Error>, DbError> {
    contained(|| Conn::new(options))
        .map_err(|message| DbError::new(DbErrorKind::Other, AuthenticationError(message)))
}

fn builder(options: &SqlOptions, host: &str) -> OptsBuilder {
    let builder = OptsBuilder::new()
        .user(Some(&options.user))
        .pass(options.password.clone())
        .db_name(Some(&options.database))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(options.connect_timeout))
        .read_timeout(Some(options.read_timeout.unwrap_or(READ_TIMEOUT)))
        .write_timeout(Some(options.write_timeout.unwrap_or(READ_TIMEOUT)))
        .tcp_user_timeout_ms(options.tcp_user_timeout.map(milliseconds))
        .stmt_cache_size(PREPARED)
        // An update counts the rows that it finds, also those that have the new values already.
        .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS);
    if host.starts_with('/') {
        builder.socket(Some(host))
    } else {
        builder.ip_or_hostname(Some(host)).tcp_port(options.port.unwrap_or(PORT))
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Returns the settings of encryption, or `None` if the connection is not to be encrypted.
fn ssl(options: &SqlOptions) -> Result<Option<SslOpts>, DbError> {
    let refuse = |error: OptionsError| DbError::new(DbErrorKind::Other, error);
    if options.ssl_mode == SslMode::Disable {
        return Ok(None);
    }
    // A program with several providers has to have chosen one.
    if CryptoProvider::get_default().is_none() {
        let _ = ring::default_provider().install_default();
    }
    // The errors of the driver do not name the file, and look like those of a lost connection.
    for file in [&options.trust_anchor, &options.cert_file, &options.key_file].into_iter().flatten() {
        File::open(file).map_err(|source| refuse(OptionsError::File { file: file.clone(), source }))?;
    }
    let mut ssl = SslOpts::default().with_root_cert_path(options.trust_anchor.clone());
    match options.ssl_mode {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            ssl = ssl.with_danger_accept_invalid_certs(true);
        }
        // The client trusts the public authorities besides the trust anchor, which sign certificates
        // for everyone: without the name of the host they prove nothing.
        SslMode::VerifyCa | SslMode::VerifyFull => {}
    }
    match (&options.cert_file, &options.key_file) {
        (Some(certificate), Some(key)) => {
            let identity = ClientIdentity::new(certificate.clone(), key.clone());
            ssl = ssl.with_client_identity(Some(identity));
        }
        (None, None) => {}
        _ => return Err(refuse(OptionsError::Identity)),
    }
    if let Some(list) = &options.cipher_list {
        let ciphers: Vec<_> = ring::ALL_CIPHER_SUITES
            .iter()
            .filter(|suite| {
                let name = suite.suite().as_str().unwrap_or_default();
                list.split(':').any(|given| given == name || given == openssl_name(name))
            })
            .copied()
            .collect();
        if ciphers.is_empty() {
            return Err(refuse(OptionsError::Ciphers(list.clone())));
        }
        ssl = ssl.with_cipher_suites(&ciphers);
    }
    Ok(Some(ssl))
}

/// Returns OpenSSL's name of a cipher suite.
fn openssl_name(name: &str) -> String {
    if let Some(name) = name.strip_prefix("TLS13_") {
        return format!("TLS_{name}");
    }
    let name = name.strip_prefix("TLS_").unwrap_or(name).replace("_WITH_", "_").replace("AES_", "AES");
    name.replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305").replace('_', "-")
}

/// Checks that the server accepts changes, and that the node of a cluster is in step with it.
fn check_usable(connection: &mut Conn, options: &SqlOptions) -> Result<(), DbError> {
    let refuse = |error: NotUsedError| DbError::new(DbErrorKind::NotConnected, error);
    // Variables that the server does not have are not in the result.
    let variables: Vec<(String, String)> = connection
        .query(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
             ('read_only', 'innodb_read_only', 'wsrep_on')",
        )
        .map_err(error::of_statement)?;
    let is_on = |name: &str| variables.iter().any(|(variable, value)| variable == name && value == "ON");
    if is_on("wsrep_on") {
        let status: Vec<(String, String)> = connection
            .query(
                "SHOW GLOBAL STATUS WHERE Variable_name IN \
                 ('wsrep_ready', 'wsrep_cluster_status', 'wsrep_local_state_comment')",
            )
            .map_err(error::of_statement)?;
        if let Some(state) = not_ready(&status) {
            return Err(refuse(NotUsedError::NotReady(state)));
        }
        connection.query_drop(WAIT_FOR_OTHERS).map_err(error::of_statement)?;
    }
    let wants_changes = options.target == SessionTarget::ReadWrite && !options.readonly;
    if wants_changes && (is_on("read_only") || is_on("innodb_read_only")) {
        return Err(refuse(NotUsedError::ReadOnly));
    }
    Ok(())
}

/// Returns the state of a Galera node that must not be used.
fn not_ready(status: &[(String, String)]) -> Option<String> {
    let allowed = |name: &str, value: &str| match name {
        "wsrep_ready" => value == "ON",
        "wsrep_cluster_status" => value == "Primary",
        // A donor has all changes.
        "wsrep_local_state_comment" => value == "Synced" || value.starts_with("Donor"),
        _ => true,
    };
    let found = status.iter().find(|(name, value)| !allowed(&name.to_ascii_lowercase(), value));
    found.map(|(name, value)| format!("{name} is {value}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384")]
    #[case("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384")]
    #[case("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305")]
    fn ciphers_have_the_names_of_openssl(#[case] name: &str, #[case] openssl: &str) {
        assert_eq!(openssl_name(name), openssl);
    }

    #[rstest]
    #[case("ON", "Primary", "Synced", None)]
    #[case("ON", "Primary", "Donor/Desynced", None)]
    #[case("ON", "Primary", "Joined", Some("wsrep_local_state_comment is Joined"))]
    #[case("OFF", "non-Primary", "Initialized", Some("wsrep_ready is OFF"))]
    fn nodes_that_are_not_ready_are_not_used(
        #[case] ready: &str,
        #[case] cluster: &str,
        #[case] state: &str,
        #[case] expected: Option<&str>,
    ) {
        let status = [
            ("wsrep_ready".to_owned(), ready.to_owned()),
            ("wsrep_cluster_status".to_owned(), cluster.to_owned()),
            ("wsrep_local_state_comment".to_owned(), state.to_owned()),
        ];
        assert_eq!(not_ready(&status).as_deref(), expected);
    }
}
