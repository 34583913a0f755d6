//! Opens a session: tries the hosts, sets what the statements rely on, and reads the schema.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use tokio_postgres::config::SslMode as Encryption;
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, SimpleQueryRow};
use tracing::debug;

use super::errors;
use super::link::Link;
use super::stream::{Executor, Limits, Socket, Stream};
use super::tls::{self, Connector, Encrypted, TlsError};
use crate::lease::{LeaseState, LeaseType};
use crate::sql::driver::{DbError, DbErrorKind, Schema};
use crate::sql::options::{SessionTarget, SqlOptions, SslMode};

const DEFAULT_PORT: u16 = 5432;

/// The supported versions of the schema.
const VERSIONS: std::ops::RangeInclusive<u32> = 13..=34;

/// The times of type `timestamptz`: 4714-11-24 BC to 294276-12-31.
const TIMES: (i64, i64) = (-210_866_803_200, 9_224_318_015_999);

/// Maximum number of bytes of a user context: a quarter of the limit of a message.
const MAX_USER_CONTEXT: usize = 1 << 28;

/// What the statements rely on. All of them select rows by an index: plans that read whole tables,
/// or that depend on values or on statistics of tables that have grown since, are not wanted. And
/// a row that was changed since the statement began must be compared as it is now, not refused.
const SETTINGS: &str = "SELECT count(set_config(name, value, false)) FROM (VALUES \
    ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), \
    ('enable_mergejoin', 'off'), ('jit', 'off'), ('client_min_messages', 'error'), \
    ('default_transaction_isolation', 'read committed')) AS wanted (name, value) \
    JOIN pg_catalog.pg_settings USING (name)";

/// Why a session cannot be opened.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("cannot connect to {host}")]
    Host { host: String, source: Box<dyn Error + Send + Sync> },
    #[error("{host} is read-only")]
    ReadOnly { host: String },
    #[error("the database {database} has no schema of Kea; create it with kea-admin db-init pgsql")]
    NoSchema { database: String, source: Option<Box<dyn Error + Send + Sync>> },
    #[error(
        "the schema of the database {database} has version {major}.{minor}, supported are {} to {}",
        VERSIONS.start(),
        VERSIONS.end()
    )]
    Version { database: String, major: u32, minor: u32 },
    #[error("the table {table} of the database {database} has an invalid value")]
    Table { database: String, table: String },
}

/// Opens a session with the first host that accepts it, and executes a statement without parameters.
pub(super) fn connect(options: &SqlOptions, first: &str) -> Result<(Link, Schema), DbError> {
    with_first_host(options, &|link| {
        rows(link, first)?;
        schema(link, &options.database)
    })
}

/// Executes statements without parameters in one transaction.
pub(super) fn execute(options: &SqlOptions, statements: &[String]) -> Result<(), DbError> {
    let sql = format!("BEGIN;\n{};\nCOMMIT", statements.join(";\n"));
    with_first_host(options, &|link| rows(link, &sql)).map(drop)
}

/// Connects to the first host that accepts a session, and begins the session with `begin`.
fn with_first_host<T>(
    options: &SqlOptions,
    begin: &dyn Fn(&mut Link) -> Result<T, DbError>,
) -> Result<(Link, T), DbError> {
    let encryption = tls::config(options).map_err(other)?;
    let mut error = None;
    for host in &options.hosts {
        match session(options, host, encryption.as_ref(), begin) {
            Ok(session) => return Ok(session),
            Err(err) if err.kind == DbErrorKind::NotConnected => {
                debug!(host, error = %crate::with_sources(&err), "the host accepts no session");
                error = Some(err);
            }
            Err(err) => return Err(err),
        }
    }
    Err(error.unwrap_or_else(|| DbError::new(DbErrorKind::NotConnected, "there is no host")))
}

fn other(error: TlsError) -> DbError {
    DbError::new(DbErrorKind::Other, error)
}

/// Opens a session with a host.
fn session<T>(
    options: &SqlOptions,
    host: &str,
    encryption: Option<&Arc<ClientConfig>>,
    begin: &dyn Fn(&mut Link) -> Result<T, DbError>,
) -> Result<(Link, T), DbError> {
    let deadline = Instant::now() + options.connect_timeout;
    let mut link = match link(options, host, encryption, deadline) {
        // The server may know no version of the encryption that is safe, or want none.
        Err(err)
            if options.ssl_mode == SslMode::Prefer
                && (errors::is_tls(&*err.source) || errors::is_refusal(&*err.source)) =>
        {
            link(options, host, None, deadline)
        }
        link => link,
    }
    .map_err(|err| named(err, host))?;
    let opened = |err: DbError| match err.kind {
        // Nothing has been changed yet.
        DbErrorKind::Lost | DbErrorKind::Ended => {
            named(DbError { kind: DbErrorKind::NotConnected, ..err }, host)
        }
        _ => err,
    };
    set_up(&mut link, options, host).map_err(opened)?;
    let begun = begin(&mut link).map_err(opened)?;
    link.wire.set_limits(Limits::Each { read: options.read_timeout, write: options.write_timeout });
    Ok((link, begun))
}

/// Returns an error with the name of the host.
fn named(error: DbError, host: &str) -> DbError {
    DbError::new(error.kind, ConnectError::Host { host: host.to_owned(), source: error.source })
}

/// Connects to a host, and authenticates.
fn link(
    options: &SqlOptions,
    host: &str,
    encryption: Option<&Arc<ClientConfig>>,
    deadline: Instant,
) -> Result<Link, DbError> {
    let port = options.port.unwrap_or(DEFAULT_PORT);
    // What does not leave the machine is not encrypted; the server offers no encryption there.
    let is_local = host.starts_with('/');
    let encryption = encryption.filter(|_| !is_local);
    let socket = if is_local {
        Socket::unix(&Path::new(host).join(format!(".s.PGSQL.{port}")))
    } else {
        Socket::tcp(host, port, deadline, options.tcp_user_timeout)
    };
    let socket = socket.map_err(|err| DbError::new(DbErrorKind::NotConnected, err))?;
    let connector = Connector::new(encryption, host).map_err(other)?;
    let mut config = Config::new();
    config.user(&options.user).dbname(&options.database).application_name("leasemgr");
    if let Some(password) = &options.password {
        config.password(password);
    }
    config.ssl_mode(match options.ssl_mode {
        _ if encryption.is_none() => Encryption::Disable,
        SslMode::Disable => Encryption::Disable,
        SslMode::Prefer => Encryption::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Encryption::Require,
    });
    let executor = Executor::new(socket);
    let limits = Limits::Until(deadline);
    let connecting = config.connect_raw(executor.stream(), connector);
    let connected: Result<(Client, Connection<Stream, Encrypted>), _> = executor
        .run_future(&limits, connecting)
        .map_err(|err| DbError::new(DbErrorKind::NotConnected, err))?;
    let (client, connection) = connected.map_err(errors::connect)?;
    Ok(Link::new(client, connection, executor, limits))
}

/// Returns the rows of statements without parameters.
pub(super) fn rows(link: &mut Link, sql: &str) -> Result<Vec<SimpleQueryRow>, DbError> {
    let messages = link.wire.run(link.client.simple_query(sql))?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

/// Makes the settings of the session, and asks whether it accepts changes.
fn set_up(link: &mut Link, options: &SqlOptions, host: &str) -> Result<(), DbError> {
    let rows = rows(link, "SELECT current_setting('transaction_read_only')")?;
    let is_read_only = rows.first().and_then(|row| row.get(0)) == Some("on");
    if is_read_only && !options.readonly && options.target == SessionTarget::ReadWrite {
        let source = ConnectError::ReadOnly { host: host.to_owned() };
        return Err(DbError::new(DbErrorKind::NotConnected, source));
    }
    let read_only = if options.readonly { "; SET default_transaction_read_only = on" } else { "" };
    self::rows(link, &format!("{SETTINGS}{read_only}"))?;
    Ok(())
}

/// Reads the schema.
fn schema(link: &mut Link, database: &str) -> Result<Schema, DbError> {
    let error = |source: ConnectError| DbError::new(DbErrorKind::Other, source);
    let no_schema = |source| error(ConnectError::NoSchema { database: database.to_owned(), source });
    let tables = rows(link, "SELECT to_regclass('schema_version'), to_regclass('lease4')")?;
    if tables.iter().any(|row| row.get(0).is_none() || row.get(1).is_none()) {
        return Err(no_schema(None));
    }
    let invalid =
        |table: &str| error(ConnectError::Table { database: database.to_owned(), table: table.to_owned() });
    let versions =
        rows(link, "SELECT version, coalesce(minor, 0) FROM schema_version ORDER BY version DESC")?;
    let number = |row: &SimpleQueryRow, index| row.get(index)?.parse::<u32>().ok();
    let version = versions.first().ok_or_else(|| no_schema(None))?;
    let (Some(major), Some(minor)) = (number(version, 0), number(version, 1)) else {
        return Err(invalid("schema_version"));
    };
    if !VERSIONS.contains(&major) {
        return Err(error(ConnectError::Version { database: database.to_owned(), major, minor }));
    }

    let columns = rows(
        link,
        "SELECT attrelid::regclass, attname, format_type(atttypid, NULL) FROM pg_catalog.pg_attribute \
         WHERE attrelid IN (to_regclass('lease4'), to_regclass('lease6'), to_regclass('lease4_pool_stat')) \
         AND attnum > 0 AND NOT attisdropped",
    )?;
    // The name of a table has that of its schema if it is not the first one in the search path.
    let type_of = |table: &str, name: &str| {
        let is_table = |row: &SimpleQueryRow| row.get(0).and_then(|of| of.rsplit('.').next()) == Some(table);
        columns.iter().find(|row| is_table(row) && row.get(1) == Some(name))?.get(2)
    };
    let has = |table: &str, name: &str| type_of(table, name).is_some();
    let mut numbers = |table: &str, column: &str| -> Result<Vec<u32>, DbError> {
        let rows = rows(link, &format!("SELECT {column} FROM {table} ORDER BY {column}"))?;
        rows.iter().map(|row| number(row, 0).ok_or_else(|| invalid(table))).collect()
    };
    let states = numbers("lease_state", "state")?.into_iter().map(LeaseState).collect();
    let lease_types = numbers("lease6_types", "lease_type")?.into_iter();
    let lease_types = lease_types.map(|number| number.try_into().map(LeaseType));
    Ok(Schema {
        version: (major, minor),
        has_relay_ids: has("lease4", "relay_id") && has("lease4", "remote_id"),
        has_pool_ids: ["lease4", "lease6", "lease4_pool_stat"].iter().all(|table| has(table, "pool_id")),
        has_text_addresses: type_of("lease6", "address") != Some("inet"),
        max_client: usize::MAX,
        states,
        lease_types: lease_types.collect::<Result<_, _>>().map_err(|_| invalid("lease6_types"))?,
        // No foreign key refers to the table of sources.
        hwaddr_sources: None,
        // These columns are smallint.
        max_hardware: (i16::MAX.cast_unsigned(), i16::MAX.unsigned_abs().into()),
        times: TIMES,
        max_user_context: MAX_USER_CONTEXT,
    })
}
