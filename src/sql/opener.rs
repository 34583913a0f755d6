//! Opens lease managers that are described by connection strings.

use std::sync::Arc;

use super::driver::{DbError, Driver};
use super::manager::SqlLeaseMgr;
use super::options::SqlOptions;
use super::schema::SchemaText;
use crate::connection::ConnectionString;
use crate::factory::OpenerError;
use crate::lease_mgr::{LeaseMgr, ManagedLease};
use crate::with_sources::with_sources;

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{place}: cannot open the database")]
struct OpenError {
    place: String,
    source: DbError,
}

/// Opens the lease manager of a connection string.
///
/// # Errors
/// Returns [`OpenerError`] if a value is invalid, if the database cannot be reached, or if it has no
/// schema of a known version.
pub(crate) fn open<L: ManagedLease, D: Driver<L>>(
    driver: D,
    connection: &ConnectionString,
) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError> {
    let options = SqlOptions::read(connection)?;
    let place = options.place();
    match SqlLeaseMgr::open(driver, options) {
        Ok(manager) => {
            tracing::info!(id = "DHCPSRV_SQL_OPENED", "{place}: opened");
            Ok(Arc::new(manager))
        }
        Err(source) => {
            let error = OpenError { place, source };
            tracing::error!(id = "DHCPSRV_SQL_OPEN_FAILED", "{}", with_sources(&error));
            Err(Box::new(error))
        }
    }
}

/// The schema that was asked for cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("version {version} of the schema cannot be made, expected {} or {}", versions[0], versions[1])]
struct UnknownVersion {
    version: u32,
    versions: [u32; 2],
}

/// Makes a schema in the database of a connection string, in the latest version or another one.
///
/// # Errors
/// Returns [`OpenerError`] if the version cannot be made, or a statement fails.
pub(crate) fn create_schema(
    connection: &ConnectionString,
    text: &SchemaText,
    version: Option<u32>,
    execute: impl FnOnce(&SqlOptions, &[String]) -> Result<(), DbError>,
) -> Result<(), OpenerError> {
    let version = version.unwrap_or(text.versions[1]);
    let statements = text.statements(version).ok_or(UnknownVersion { version, versions: text.versions })?;
    self::execute(connection, &statements, execute)
}

/// Executes statements in the database of a connection string.
///
/// # Errors
/// Returns [`OpenerError`] if a value is invalid, or a statement fails.
pub(crate) fn execute(
    connection: &ConnectionString,
    statements: &[String],
    execute: impl FnOnce(&SqlOptions, &[String]) -> Result<(), DbError>,
) -> Result<(), OpenerError> {
    let options = SqlOptions::read(connection)?;
    execute(&options, statements).map_err(|source| OpenError { place: options.place(), source }.into())
}
