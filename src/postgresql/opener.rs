//! The backend `postgresql`.

use std::sync::Arc;

use super::PostgreSql;
use crate::connection::ConnectionString;
use crate::factory::{LeaseMgrOpener, OpenerError};
use crate::lease_mgr::{LeaseMgr, ManagedLease};
use crate::sql::options::KEYWORDS;
use crate::sql::opener;

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
        opener::open(PostgreSql, connection)
    }
}
