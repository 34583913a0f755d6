//! Opens lease managers by connection string, and keeps the current one of a server.

mod error;
mod opener;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tracing::{error, info};

pub use error::FactoryError;
pub use opener::{LeaseMgrOpener, OpenerError};

use crate::connection::{self, ConnectionString};
use crate::lease::Family;
use crate::lease_mgr::{LeaseMgr, ManagedLease, Tracking};
use crate::with_sources::with_sources;

/// Opens lease managers, and keeps the current one of a server.
///
/// The `type` of a [`ConnectionString`] selects the [`LeaseMgrOpener`] that opens the lease
/// manager. A server with one lease manager lets the factory keep it:
///
/// ```
/// use std::sync::LazyLock;
/// use leasemgr::lease::Lease4;
/// use leasemgr::{LeaseMgrExt, LeaseMgrFactory};
///
/// static LEASES: LazyLock<LeaseMgrFactory<Lease4>> = LazyLock::new(LeaseMgrFactory::new);
///
/// LEASES.create("type=memfile universe=4 persist=false")?;
/// // Anywhere in the server:
/// assert_eq!(LEASES.instance()?.all()?, []);
/// // At the end: a static is never dropped, and a lease manager may still have data to write.
/// assert!(LEASES.destroy());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// All methods can be called from any number of threads. Calls of [`create`](Self::create),
/// [`recreate`](Self::recreate), [`recreate_with`](Self::recreate_with) and
/// [`destroy`](Self::destroy) are made one after the other. The other methods do not wait for them,
/// so there is no current manager while a new one is opened.
pub struct LeaseMgrFactory<L: ManagedLease> {
    backends: RwLock<BTreeMap<String, Arc<dyn LeaseMgrOpener<L>>>>,
    /// Held while the current manager is closed and opened, so that only one thread does this at a
    /// time. Contains what is left of a manager that was closed, but could not be reopened.
    closed: Mutex<Option<Closed<L>>>,
    current: RwLock<Option<Current<L>>>,
}

/// The current manager, and its connection string.
struct Current<L: ManagedLease> {
    connection: ConnectionString,
    manager: Arc<dyn LeaseMgr<L>>,
}

/// The connection string and the callbacks of a closed manager.
struct Closed<L: ManagedLease> {
    connection: ConnectionString,
    callbacks: Tracking<L>,
}

impl<L: ManagedLease> fmt::Debug for LeaseMgrFactory<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current.read().as_ref().map(|current| current.connection.clone());
        f.debug_struct("LeaseMgrFactory").field("backends", &self.names()).field("current", &current).finish()
    }
}

impl<L: ManagedLease> LeaseMgrFactory<L> {
    /// Creates a factory with these backends and no current manager. Of several backends with the
    /// same name, the last is used.
    #[must_use]
    pub fn with_backends(backends: impl IntoIterator<Item = Arc<dyn LeaseMgrOpener<L>>>) -> Self {
        let by_name = backends.into_iter().map(|backend| (backend.name().to_owned(), backend));
        Self {
            backends: RwLock::new(by_name.collect()),
            closed: Mutex::new(None),
            current: RwLock::new(None),
        }
    }

    /// Opens a lease manager that does not become the current one.
    ///
    /// # Errors
    /// Returns [`FactoryError`] if the connection string is invalid, if it names an unknown
    /// backend, or if the backend cannot open the manager.
    pub fn open(&self, connection: &str) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.opening(connection)?.open()
    }

    /// Returns the backend for a connection string, which is checked as far as possible without the
    /// backend.
    pub(crate) fn opening(&self, connection: &str) -> Result<Opening<L>, FactoryError> {
        let connection = connection.parse()?;
        let opener = self.backend_for(&connection)?;
        Ok(Opening { opener, connection })
    }

    /// Opens a lease manager and makes it the current one.
    ///
    /// The previous one is given up first, with its callbacks, because it may own the same file. If
    /// other owners hold it, it stays open, but is not the current one any more.
    ///
    /// # Errors
    /// As [`open`](Self::open). If the connection string is invalid or names an unknown backend,
    /// the previous manager stays; if the backend cannot open the new one, there is no current
    /// manager any more.
    pub fn create(&self, connection: &str) -> Result<(), FactoryError> {
        let connection: ConnectionString = connection.parse()?;
        let backend = self.backend_for(&connection)?;
        let mut closed = self.closed.lock();
        self.give_up();
        *closed = None;
        let manager = backend.open(&connection)?;
        self.set(connection, manager);
        Ok(())
    }

    /// Returns the current manager. As long as the caller holds it, it stays open, and
    /// [`recreate`](Self::recreate) fails.
    ///
    /// # Errors
    /// Returns [`FactoryError::NoInstance`] if there is no current manager.
    pub fn instance(&self) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.current
            .read()
            .as_ref()
            .map(|current| Arc::clone(&current.manager))
            .ok_or(FactoryError::NoInstance)
    }

    /// Returns whether there is a current manager.
    pub fn have_instance(&self) -> bool {
        self.current.read().is_some()
    }

    /// Gives up the current manager, and returns whether there was one. It is closed when its last
    /// owner drops it.
    pub fn destroy(&self) -> bool {
        let mut closed = self.closed.lock();
        *closed = None;
        self.give_up()
    }

    /// Closes the current manager and reopens it with the same connection string, optionally with
    /// the callbacks that are registered with it. Address locks are released.
    ///
    /// # Errors
    /// Returns [`FactoryError::NoInstance`] if there is no current manager, and
    /// [`FactoryError::InUse`] if there are other owners: the manager must be closed before it is
    /// opened, as a lease file has one owner. It then stays the current one; so it does if its
    /// backend was deregistered. If it cannot be reopened, returns the errors of
    /// [`open`](Self::open): there is then no current manager, but its connection string and
    /// callbacks are kept, and this can be called again until it succeeds.
    pub fn recreate(&self, keep_callbacks: bool) -> Result<(), FactoryError> {
        self.reopen(None, keep_callbacks)
    }

    /// Closes the current manager and opens another one with this connection string, optionally
    /// with the callbacks that are registered with the previous one. Address locks are released.
    /// Leases are not moved: the new manager has those that it finds in its own place.
    ///
    /// # Errors
    /// As [`recreate`](Self::recreate). If the connection string is invalid or names an unknown
    /// backend, the current manager stays. If the backend cannot open the new one, the previous
    /// manager is reopened with its callbacks. If that fails too, which is logged
    /// (`DHCPSRV_LEASE_MGR_REOPEN_FAILED`), there is no current manager, and
    /// [`recreate`](Self::recreate) tries again to open the previous one.
    pub fn recreate_with(&self, connection: &str, keep_callbacks: bool) -> Result<(), FactoryError> {
        self.reopen(Some(connection.parse()?), keep_callbacks)
    }

    fn reopen(&self, new: Option<ConnectionString>, keep_callbacks: bool) -> Result<(), FactoryError> {
        let mut closed = self.closed.lock();
        let connection = match (new.clone(), &*self.current.read(), &*closed) {
            (_, None, None) => return Err(FactoryError::NoInstance),
            (Some(new), _, _) => new,
            (None, Some(Current { connection, .. }), _) | (None, None, Some(Closed { connection, .. })) => {
                connection.clone()
            }
        };
        let backend = self.backend_for(&connection)?;
        if self.have_instance() {
            *closed = Some(self.close()?);
        }
        let opened = backend.open(&connection);
        match opened {
            Ok(manager) => {
                self.install(&mut closed, connection, manager, keep_callbacks);
                Ok(())
            }
            Err(error) => {
                if new.is_some() {
                    self.reopen_closed(&mut closed);
                }
                Err(error)
            }
        }
    }

    /// Makes a manager the current one, in place of a closed one.
    fn install(
        &self,
        closed: &mut Option<Closed<L>>,
        connection: ConnectionString,
        manager: Arc<dyn LeaseMgr<L>>,
        keep_callbacks: bool,
    ) {
        if let Some(closed) = closed.take()
            && keep_callbacks
        {
            manager.tracking().adopt(&closed.callbacks);
        }
        self.set(connection, manager);
    }

    /// Reopens the closed manager, if possible.
    fn reopen_closed(&self, closed: &mut Option<Closed<L>>) {
        let Some(connection) = closed.as_ref().map(|closed| closed.connection.clone()) else {
            return;
        };
        match self.backend_for(&connection).and_then(|backend| backend.open(&connection)) {
            Ok(manager) => self.install(closed, connection, manager, true),
            Err(error) => error!(
                id = "DHCPSRV_LEASE_MGR_REOPEN_FAILED",
                "{} leases: {connection}: the lease manager cannot be reopened: {}",
                L::FAMILY,
                with_sources(&error)
            ),
        }
    }

    /// Registers a backend by its name.
    ///
    /// # Errors
    /// Returns [`FactoryError::Registered`] if the name is taken.
    pub fn register(&self, backend: Arc<dyn LeaseMgrOpener<L>>) -> Result<(), FactoryError> {
        let mut backends = self.backends.write();
        let name = backend.name().to_owned();
        if backends.contains_key(&name) {
            return Err(FactoryError::Registered { name });
        }
        backends.insert(name, backend);
        Ok(())
    }

    /// Removes a backend, and returns whether there was one of this name. Managers that it has
    /// opened stay open.
    pub fn deregister(&self, name: &str) -> bool {
        self.backends.write().remove(name).is_some()
    }

    /// Returns the names and versions of all registered backends, in the order of their names.
    pub fn backends(&self) -> Vec<(String, String)> {
        self.backends.read().iter().map(|(name, backend)| (name.clone(), backend.version())).collect()
    }

    fn names(&self) -> Vec<String> {
        self.backends.read().keys().cloned().collect()
    }

    /// Returns the backend for a connection string, and checks the string as far as possible
    /// without the backend.
    fn backend_for(&self, connection: &ConnectionString) -> Result<Checked<L>, FactoryError> {
        let name = connection.required("type")?;
        let Some(backend) = self.backends.read().get(name).cloned() else {
            let (name, registered) = (name.to_owned(), self.names());
            return Err(if connection::TYPES.contains(&name.as_str()) {
                FactoryError::NotBuilt { name, registered }
            } else {
                FactoryError::UnknownType { name, registered }
            });
        };
        connection.check_keywords(name, backend.keywords())?;
        let universe = match L::FAMILY {
            Family::V4 => "4",
            Family::V6 => "6",
        };
        if connection.get("universe").is_some_and(|given| given != universe) {
            let expected = format!("{universe} for {} leases", L::FAMILY);
            return Err(connection.bad_value("universe", expected).into());
        }
        Ok(Checked(backend))
    }

    fn set(&self, connection: ConnectionString, manager: Arc<dyn LeaseMgr<L>>) {
        info!(id = "DHCPSRV_LEASE_MGR_OPENED", "{} leases: {connection}", L::FAMILY);
        *self.current.write() = Some(Current { connection, manager });
    }

    /// Gives up the current manager, and returns whether there was one.
    fn give_up(&self) -> bool {
        // Dropped without the lock, as closing may take a while.
        let current = self.current.write().take();
        if let Some(Current { connection, .. }) = &current {
            info!(id = "DHCPSRV_LEASE_MGR_GIVEN_UP", "{} leases: {connection}", L::FAMILY);
        }
        current.is_some()
    }

    /// Closes the current manager if it has no other owner.
    fn close(&self) -> Result<Closed<L>, FactoryError> {
        let mut current = self.current.write();
        let holders = current.as_ref().map_or(0, |current| Arc::strong_count(&current.manager) - 1);
        if holders > 0 {
            return Err(FactoryError::InUse { holders });
        }
        let Some(Current { connection, manager }) = current.take() else {
            return Err(FactoryError::NoInstance);
        };
        drop(current);
        let callbacks = Tracking::default();
        callbacks.adopt(manager.tracking());
        // Another thread may still upgrade a weak reference.
        let weak = Arc::downgrade(&manager);
        drop(manager);
        match weak.upgrade() {
            None => Ok(Closed { connection, callbacks }),
            Some(manager) => {
                *self.current.write() = Some(Current { connection, manager });
                Err(FactoryError::InUse { holders: 1 })
            }
        }
    }
}

/// A backend, and the connection string for it.
pub(crate) struct Opening<L: ManagedLease> {
    opener: Checked<L>,
    connection: ConnectionString,
}

impl<L: ManagedLease> Opening<L> {
    /// Returns the name of the backend.
    #[cfg(feature = "tokio")]
    pub(crate) fn backend(&self) -> &str {
        self.opener.0.name()
    }

    pub(crate) fn open(self) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.opener.open(&self.connection)
    }
}

/// A backend for which a connection string has been checked.
struct Checked<L: ManagedLease>(Arc<dyn LeaseMgrOpener<L>>);

impl<L: ManagedLease> Checked<L> {
    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.0.open(connection).map_err(|error| match error.downcast() {
            Ok(error) => FactoryError::ConnectionString(*error),
            Err(source) => FactoryError::Open { backend: self.0.name().to_owned(), source },
        })
    }
}
