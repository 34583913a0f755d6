//! The backend `mysql`.

use std::sync::Arc;

use super::connect::{self, MySql};
use crate::connection::ConnectionString;
use crate::factory::{LeaseMgrOpener, OpenerError};
use crate::lease_mgr::{LeaseMgr, ManagedLease};
use crate::sql::options::KEYWORDS;
use crate::sql::{opener, schema};

/// Opens the lease managers of the backend `mysql`: leases in a MySQL or MariaDB database with Kea's
/// schema, of the versions of Kea 2.2 (14.0) to Kea 3.3 (35.0). `docs/sql.md` has the keywords.
#[derive(Clone, Copy, Debug, Default)]
pub struct MysqlOpener;

impl<L: ManagedLease> LeaseMgrOpener<L> for MysqlOpener {
    fn name(&self) -> &str {
        "mysql"
    }

    /// Returns the version of this crate and the versions of the schema that it knows.
    fn version(&self) -> String {
        format!("{}, MySQL schema 14.0 to 35.0", env!("CARGO_PKG_VERSION"))
    }

    fn keywords(&self) -> &[&str] {
        KEYWORDS
    }

    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError> {
        opener::open(MySql, connection)
    }
}

/// Makes Kea's tables for leases and hosts in an empty MySQL or MariaDB database, with SQL of this crate:
/// in the version of Kea 2.2 (14) or Kea 3.3 (35, the default). Kea's servers accept exactly
/// their own version.
///
/// # Errors
/// Returns [`OpenerError`] if a value of the connection string is invalid, if the version is
/// another one, or if the database refuses a statement, as when it has such tables.
pub fn create_schema(connection: &ConnectionString, version: Option<u32>) -> Result<(), OpenerError> {
    opener::create_schema(connection, &schema::MYSQL, version, connect::execute)
}
