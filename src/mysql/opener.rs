//! The backend `mysql`.

use std::sync::Arc;

use super::connect::MySql;
use crate::connection::ConnectionString;
use crate::factory::{LeaseMgrOpener, OpenerError};
use crate::lease_mgr::{LeaseMgr, ManagedLease};
use crate::sql::options::KEYWORDS;
use crate::sql::opener;

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
