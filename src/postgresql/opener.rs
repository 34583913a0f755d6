//! The backend `postgresql`.

use std::sync::Arc;

use super::{PostgreSql, connect, notify};
use crate::connection::ConnectionString;
use crate::factory::{LeaseMgrOpener, OpenerError};
use crate::lease_mgr::{LeaseMgr, ManagedLease};
use crate::sql::options::KEYWORDS;
use crate::sql::{opener, schema};

/// Opens the lease managers of the backend `postgresql`: leases in a PostgreSQL database with Kea's
/// schema, of the versions of Kea 2.2 (13.0) to Kea 3.3 (34.0). `docs/sql.md` has the keywords.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresqlOpener;

impl<L: ManagedLease> LeaseMgrOpener<L> for PostgresqlOpener {
    fn name(&self) -> &str {
        "postgresql"
    }

    /// Returns the version of this crate and the versions of the schema that it knows.
    fn version(&self) -> String {
        format!("{}, PostgreSQL schema 13.0 to 34.0", env!("CARGO_PKG_VERSION"))
    }

    fn keywords(&self) -> &[&str] {
        KEYWORDS
    }

    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError> {
        opener::open(PostgreSql::default(), connection)
    }
}

/// Makes Kea's tables for leases and hosts in an empty PostgreSQL database, with SQL of this crate:
/// in the version of Kea 2.2 (13) or Kea 3.3 (34, the default). Kea's servers accept exactly
/// their own version.
///
/// # Errors
/// Returns [`OpenerError`] if a value of the connection string is invalid, if the version is
/// another one, or if the database refuses a statement, as when it has such tables.
pub fn create_schema(connection: &ConnectionString, version: Option<u32>) -> Result<(), OpenerError> {
    opener::create_schema(connection, &schema::POSTGRESQL, version, connect::execute)
}

/// Installs triggers on the lease tables of a PostgreSQL database, by which managers that are opened
/// afterwards learn of the changes of others ([`Origin::Elsewhere`](crate::Origin::Elsewhere)). If
/// they are there already, replaces them. The user must own the tables.
///
/// # Errors
/// Returns [`OpenerError`] if a value of the connection string is invalid, or the database refuses a
/// statement; nothing was changed then.
pub fn install_notify(connection: &ConnectionString) -> Result<(), OpenerError> {
    opener::execute(connection, &notify::install(), connect::execute)
}

/// Removes the triggers of [`install_notify`]. Managers that are open are told nothing any more.
///
/// # Errors
/// As [`install_notify`].
pub fn remove_notify(connection: &ConnectionString) -> Result<(), OpenerError> {
    opener::execute(connection, &notify::remove(), connect::execute)
}
