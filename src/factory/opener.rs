//! The interface through which a backend opens lease managers.

use std::error::Error;
use std::sync::Arc;

use crate::connection::ConnectionString;
use crate::lease_mgr::{LeaseMgr, ManagedLease};

/// Why a backend cannot open a lease manager. Must not contain the password.
///
/// `?` converts [`ConnectionStringError`](crate::connection::ConnectionStringError) and the
/// backend's own error into it.
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
/// /// Keeps leases in memory only.
/// struct Volatile;
///
/// impl LeaseMgrOpener<Lease6> for Volatile {
///     fn name(&self) -> &str {
///         "volatile"
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
/// factory.register(Arc::new(Volatile))?;
/// let leases = factory.open("type=volatile extended-info-tables=true")?;
/// # let _ = leases;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait LeaseMgrOpener<L: ManagedLease>: Send + Sync {
    /// Returns the name of the backend, the value of `type` in connection strings. It must not
    /// change.
    fn name(&self) -> &str;

    /// Returns the version of the backend, for display.
    fn version(&self) -> String;

    /// Returns the keywords that connection strings for this backend may have besides `type` and
    /// `universe`.
    fn keywords(&self) -> &[&str];

    /// Opens a lease manager. The factory has checked that there are no other keywords, and that
    /// `universe` matches the leases. Must not call `create`, `recreate` or `destroy` of the
    /// factory, which would wait for this call.
    ///
    /// # Errors
    /// Returns [`OpenerError`] if a value is invalid, or if the manager cannot be opened.
    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError>;
}
