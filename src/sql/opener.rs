//! Opens lease managers that are described by connection strings.

use std::sync::Arc;

use super::driver::Driver;
use super::manager::SqlLeaseMgr;
use super::options::SqlOptions;
use crate::connection::ConnectionString;
use crate::factory::OpenerError;
use crate::lease_mgr::{LeaseMgr, ManagedLease};
use crate::with_sources::with_sources;

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{place}: cannot open the database")]
struct OpenError {
    place: String,
    source: super::driver::DbError,
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
