//! Opening lease managers by connection string, and keeping the one that a server uses.

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

/// Opens lease managers, and keeps the one that a server uses.
///
/// It opens a lease manager by a [`ConnectionString`], whose `type` says which [`LeaseMgrOpener`] does it. A server that has
/// one lease manager has the factory keep it:
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
/// // In the end. What is in a static is never dropped, and a lease manager may have something to write still.
/// assert!(LEASES.destroy());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Everything may be called from any number of threads. [`create`](Self::create), [`recreate`](Self::recreate),
/// [`recreate_with`](Self::recreate_with) and [`destroy`](Self::destroy) happen one after the other; the other methods do not wait for them, so there is no current
/// manager while a new one is opened.
pub struct LeaseMgrFactory<L: ManagedLease> {
    backends: RwLock<BTreeMap<String, Arc<dyn LeaseMgrOpener<L>>>>,
    /// Held while the current manager is closed and opened, so that this is not done twice at a time. What is in it is left of
    /// a manager that was closed to be opened again, and could not be.
    turn: Mutex<Option<Closed<L>>>,
    current: RwLock<Option<Current<L>>>,
}

/// The current manager, and what it was opened with.
struct Current<L: ManagedLease> {
    connection: ConnectionString,
    manager: Arc<dyn LeaseMgr<L>>,
}

/// A manager that was closed: what it was opened with, and its callbacks.
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
    /// A factory that knows these backends, and has no current manager. Of several with the same name, the last counts.
    #[must_use]
    pub fn with_backends(backends: impl IntoIterator<Item = Arc<dyn LeaseMgrOpener<L>>>) -> Self {
        let by_name = backends.into_iter().map(|backend| (backend.name().to_owned(), backend));
        Self { backends: RwLock::new(by_name.collect()), turn: Mutex::new(None), current: RwLock::new(None) }
    }

    /// Opens a lease manager, which is the caller's and not the current one.
    ///
    /// # Errors
    /// [`FactoryError`] where the connection string is not right, names a backend that is not there, or that backend cannot
    /// open it.
    pub fn open(&self, connection: &str) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.opening(connection)?.open()
    }

    /// What is to be opened, checked as far as that can be done without the backend.
    pub(crate) fn opening(&self, connection: &str) -> Result<Opening<L>, FactoryError> {
        let connection = connection.parse()?;
        let opener = self.backend_for(&connection)?;
        Ok(Opening { opener, connection })
    }

    /// Opens a lease manager and makes it the current one.
    ///
    /// The one before it is given up first, and its callbacks with it, because it may own the same file; if somebody
    /// else still holds it, it lives on without being the current one.
    ///
    /// # Errors
    /// As [`open`](Self::open). Where the connection string is not right or names a backend that is not there, the manager
    /// before it stays; where the backend cannot open it, there is none any more.
    pub fn create(&self, connection: &str) -> Result<(), FactoryError> {
        let connection: ConnectionString = connection.parse()?;
        let backend = self.backend_for(&connection)?;
        let mut turn = self.turn.lock();
        self.give_up();
        *turn = None;
        let manager = backend.open(&connection)?;
        self.set(connection, manager);
        Ok(())
    }

    /// The current manager. Who keeps it keeps it open, and stands in the way of [`recreate`](Self::recreate).
    ///
    /// # Errors
    /// [`FactoryError::NoInstance`] where there is none.
    pub fn instance(&self) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.current
            .read()
            .as_ref()
            .map(|current| Arc::clone(&current.manager))
            .ok_or(FactoryError::NoInstance)
    }

    /// Whether there is a current manager.
    pub fn have_instance(&self) -> bool {
        self.current.read().is_some()
    }

    /// Gives up the current manager, and tells whether there was one. It is closed when nobody else holds it any more.
    pub fn destroy(&self) -> bool {
        let mut turn = self.turn.lock();
        *turn = None;
        self.give_up()
    }

    /// Closes the current manager and opens it again with the same connection string; if asked, with the callbacks that
    /// are registered with it. Locks of leases are gone.
    ///
    /// # Errors
    /// Returns [`FactoryError::NoInstance`] if there is no current manager, [`FactoryError::InUse`] if others hold it: it must be
    /// closed before it is opened, since a lease file has one owner; it stays the current one then, and so it does if its
    /// backend was deregistered. If it cannot be opened again, fails as [`open`](Self::open): then there is no current manager, but
    /// its connection string and callbacks are kept, and this can be called again until it succeeds.
    pub fn recreate(&self, keep_callbacks: bool) -> Result<(), FactoryError> {
        self.reopen(None, keep_callbacks)
    }

    /// Closes the current manager and opens another one with this connection string; if asked, with the callbacks that
    /// are registered with the one before. Locks of leases are gone, and leases stay where they are: those of the new manager are
    /// the ones that it finds.
    ///
    /// # Errors
    /// As [`recreate`](Self::recreate). If the connection string is not right or names a backend that is not there, the current
    /// manager stays. If the backend cannot open the new one, the manager before it is opened again, with its
    /// callbacks; if that fails too, which is logged (`DHCPSRV_LEASE_MGR_REOPEN_FAILED`), there is no current manager, and
    /// [`recreate`](Self::recreate) tries again to open the one before.
    pub fn recreate_with(&self, connection: &str, keep_callbacks: bool) -> Result<(), FactoryError> {
        self.reopen(Some(connection.parse()?), keep_callbacks)
    }

    fn reopen(&self, new: Option<ConnectionString>, keep_callbacks: bool) -> Result<(), FactoryError> {
        let mut turn = self.turn.lock();
        let connection = match (new.clone(), &*self.current.read(), &*turn) {
            (_, None, None) => return Err(FactoryError::NoInstance),
            (Some(new), _, _) => new,
            (None, Some(Current { connection, .. }), _) | (None, None, Some(Closed { connection, .. })) => {
                connection.clone()
            }
        };
        let backend = self.backend_for(&connection)?;
        if self.have_instance() {
            *turn = Some(self.close()?);
        }
        let opened = backend.open(&connection);
        match opened {
            Ok(manager) => {
                self.succeed(&mut turn, connection, manager, keep_callbacks);
                Ok(())
            }
            Err(error) => {
                if new.is_some() {
                    self.bring_back(&mut turn);
                }
                Err(error)
            }
        }
    }

    /// Makes a manager the current one, in place of one that was closed.
    fn succeed(
        &self,
        turn: &mut Option<Closed<L>>,
        connection: ConnectionString,
        manager: Arc<dyn LeaseMgr<L>>,
        keep_callbacks: bool,
    ) {
        if let Some(closed) = turn.take()
            && keep_callbacks
        {
            manager.tracking().adopt(&closed.callbacks);
        }
        self.set(connection, manager);
    }

    /// Opens the manager again that was closed, if that can be done.
    fn bring_back(&self, turn: &mut Option<Closed<L>>) {
        let Some(connection) = turn.as_ref().map(|closed| closed.connection.clone()) else {
            return;
        };
        match self.backend_for(&connection).and_then(|backend| backend.open(&connection)) {
            Ok(manager) => self.succeed(turn, connection, manager, true),
            Err(error) => error!(
                id = "DHCPSRV_LEASE_MGR_REOPEN_FAILED",
                "{} leases: {connection}: the lease manager cannot be opened again: {}",
                L::FAMILY,
                with_sources(&error)
            ),
        }
    }

    /// Makes a backend known by its name.
    ///
    /// # Errors
    /// [`FactoryError::Registered`] where another one has the name.
    pub fn register(&self, backend: Arc<dyn LeaseMgrOpener<L>>) -> Result<(), FactoryError> {
        let mut backends = self.backends.write();
        let name = backend.name().to_owned();
        if backends.contains_key(&name) {
            return Err(FactoryError::Registered { name });
        }
        backends.insert(name, backend);
        Ok(())
    }

    /// Forgets a backend, and tells whether there was one of this name. Managers that it has opened stay open.
    pub fn deregister(&self, name: &str) -> bool {
        self.backends.write().remove(name).is_some()
    }

    /// The names and versions of all backends that are known, in the order of their names.
    pub fn backends(&self) -> Vec<(String, String)> {
        self.backends.read().iter().map(|(name, backend)| (name.clone(), backend.version())).collect()
    }

    fn names(&self) -> Vec<String> {
        self.backends.read().keys().cloned().collect()
    }

    /// The backend that the connection string is for, if that is right as far as can be said without the backend.
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

    /// Gives up the current manager, and tells whether there was one.
    fn give_up(&self) -> bool {
        // It is dropped without the lock: that may take a while.
        let current = self.current.write().take();
        if let Some(Current { connection, .. }) = &current {
            info!(id = "DHCPSRV_LEASE_MGR_GIVEN_UP", "{} leases: {connection}", L::FAMILY);
        }
        current.is_some()
    }

    /// Closes the current manager if nothing else holds it.
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
        // Somebody may get hold of it still who has a weak reference.
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

/// A backend, and the connection string that it is to open.
pub(crate) struct Opening<L: ManagedLease> {
    opener: Checked<L>,
    connection: ConnectionString,
}

impl<L: ManagedLease> Opening<L> {
    /// The name of the backend.
    #[cfg(feature = "tokio")]
    pub(crate) fn backend(&self) -> &str {
        self.opener.0.name()
    }

    pub(crate) fn open(self) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.opener.open(&self.connection)
    }
}

/// A backend that a connection string was found right for.
struct Checked<L: ManagedLease>(Arc<dyn LeaseMgrOpener<L>>);

impl<L: ManagedLease> Checked<L> {
    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, FactoryError> {
        self.0.open(connection).map_err(|error| match error.downcast() {
            Ok(error) => FactoryError::ConnectionString(*error),
            Err(source) => FactoryError::Open { backend: self.0.name().to_owned(), source },
        })
    }
}
