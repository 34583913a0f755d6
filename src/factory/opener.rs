//! The interface by which a backend opens its lease managers.

use std::error::Error;
use std::sync::Arc;

use crate::connection::ConnectionString;
use crate::lease_mgr::{LeaseMgr, ManagedLease};

/// Why a backend cannot open a lease manager. It must not show the password.
///
/// [`ConnectionStringError`](crate::connection::ConnectionStringError) and the backend's own error become one by `?`.
pub type OpenerError = Box<dyn Error + Send + Sync>;

/// Opens the lease managers of a backend.
///
/// ```
/// use std::sync::Arc;
/// use leasemgr::connection::ConnectionString;
/// use leasemgr::lease::Lease6;
/// use leasemgr::memfile::{Memfile, MemfileOptions};
/// use leasemgr::{LeaseMgr, LeaseMgrFactory, LeaseMgrOpener, OpenerError};
///
/// /// Leases that are gone with the process.
/// struct Forgetful;
///
/// impl LeaseMgrOpener<Lease6> for Forgetful {
///     fn name(&self) -> &str {
///         "forgetful"
///     }
///     fn version(&self) -> String {
///         "1".to_owned()
///     }
///     fn keywords(&self) -> &[&str] {
///         &["extended-info-tables"]
///     }
///     fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<Lease6>>, OpenerError> {
///         let extended_info_tables = connection.flag("extended-info-tables")?.unwrap_or(false);
///         Ok(Arc::new(Memfile::open(MemfileOptions::default().extended_info_tables(extended_info_tables))?))
///     }
/// }
///
/// let factory = LeaseMgrFactory::new();
/// factory.register(Arc::new(Forgetful))?;
/// let leases = factory.open("type=forgetful extended-info-tables=true")?;
/// # let _ = leases;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait LeaseMgrOpener<L: ManagedLease>: Send + Sync {
    /// Its name, which a connection string has as `type`. It is always the same.
    fn name(&self) -> &str;

    /// Its version, for people.
    fn version(&self) -> String;

    /// The keywords that a connection string may have for it; besides, it may have `type` and `universe`.
    fn keywords(&self) -> &[&str];

    /// Opens a lease manager. The factory has made sure that there are no other keywords, and that `universe` is the one of
    /// these leases. It must not call back the factory's `create`, `recreate` or `destroy`, which wait for it.
    ///
    /// # Errors
    /// [`OpenerError`] where a value is not right, or the manager cannot be opened.
    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError>;
}
