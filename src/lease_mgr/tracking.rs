//! Callbacks for changes of leases, and address locks.

use std::fmt;
use std::net::IpAddr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dashmap::DashSet;
use parking_lot::{Mutex, RwLock};
use tracing::error;

use super::calling::{Calling, would_wait_for_itself};
use super::{Availability, Change, ChangeKind, CountedAs, LeaseMgrError, ManagedLease, Origin, Totals};
use crate::lease::{Family, LeaseType, SubnetId};
use crate::panics::contained;

/// The leases that a callback is registered for.
///
/// [`SubnetId`], `Option<SubnetId>` and [`LeaseType`] convert into it; `None` stands for all
/// leases.
///
/// ```
/// use leasemgr::Scope;
/// use leasemgr::lease::{LeaseType, SubnetId};
///
/// let prefixes = Scope { subnet: Some(SubnetId(7)), lease_type: Some(LeaseType::PD) };
/// assert_eq!(Scope::from(SubnetId(7)).lease_type(LeaseType::PD), prefixes);
/// assert_eq!(Scope::default(), Scope { subnet: None, lease_type: None });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Only leases of this subnet; `None` for all subnets.
    pub subnet: Option<SubnetId>,
    /// Only DHCPv6 leases of this type; `None` for all types. DHCPv4 leases have no type.
    pub lease_type: Option<LeaseType>,
}

impl Scope {
    /// Restricts the scope to leases of this type.
    #[must_use]
    pub fn lease_type(self, lease_type: LeaseType) -> Self {
        Self { lease_type: Some(lease_type), ..self }
    }

    fn includes(&self, lease: &impl ManagedLease) -> bool {
        self.subnet.is_none_or(|subnet| lease.data().subnet_id == subnet)
            && self.lease_type.is_none_or(|lease_type| lease.kind() == Some(lease_type))
    }

    /// Returns whether the scope includes the lease before or the lease after a change. A change
    /// without either concerns every scope.
    fn is_concerned_by<L: ManagedLease>(&self, change: &Change<'_, L>) -> bool {
        let leases = [change.before(), change.now()];
        leases.iter().flatten().any(|lease| self.includes(*lease)) || change.lease().is_none()
    }

    /// Returns whether each restriction of this scope is also a restriction of the other scope.
    fn has_within(&self, other: &Self) -> bool {
        (self.subnet.is_none() || self.subnet == other.subnet)
            && (self.lease_type.is_none() || self.lease_type == other.lease_type)
    }
}

impl From<SubnetId> for Scope {
    fn from(subnet: SubnetId) -> Self {
        Self { subnet: Some(subnet), lease_type: None }
    }
}

impl From<Option<SubnetId>> for Scope {
    fn from(subnet: Option<SubnetId>) -> Self {
        Self { subnet, lease_type: None }
    }
}

impl From<LeaseType> for Scope {
    fn from(lease_type: LeaseType) -> Self {
        Self { subnet: None, lease_type: Some(lease_type) }
    }
}

/// Why a callback was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// A callback with the same owner, kind and scope is registered already.
    #[error("{owner} has registered a callback for {kind:?} and the same leases already")]
    Registered {
        /// The owner.
        owner: String,
        /// The kind of change.
        kind: ChangeKind,
    },
    /// The scope has a lease type, but DHCPv4 leases have none.
    #[error(
        "a callback of {owner} for leases of type {lease_type}, expected no type: DHCPv4 leases have none"
    )]
    NoTypes {
        /// The owner.
        owner: String,
        /// The type.
        lease_type: LeaseType,
    },
}

type Function<L> = Box<dyn Fn(&Change<'_, L>) + Send + Sync>;

struct Callback<L: ManagedLease> {
    owner: String,
    kind: ChangeKind,
    scope: Scope,
    function: Function<L>,
}

/// Callbacks for changes of leases, and address locks.
///
/// # Callbacks
/// A callback is called after a change, in the thread that made the change, before the call that
/// made it returns. Callbacks see the changes of one address in the order in which they were made.
///
/// * A callback may read leases, and register and unregister callbacks.
/// * It cannot change leases of the manager that calls it ([`LeaseMgrError::InCallback`]), as that
///   would wait for the end of the callback. It can hand the change to another thread, but must not
///   wait for it.
/// * It can change leases of another manager, unless that leads back: if callbacks of two managers
///   change each other's leases at the same time, the second one gets
///   [`LeaseMgrError::InCallback`].
/// * A panic in it is logged (`DHCPSRV_LEASE_MGR_CALLBACK_FAILED`) and fails nothing else: the
///   change is made and acknowledged, and the other callbacks are called. With `panic = "abort"`, a
///   panic still aborts the process.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use leasemgr::lease::{Lease4, SubnetId};
/// use leasemgr::{ChangeKind, LeaseMgr, LeaseMgrFactory};
///
/// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
/// let count = Arc::new(AtomicU64::new(0));
/// let counter = Arc::clone(&count);
/// leases.tracking().register("counter", ChangeKind::Add, Some(SubnetId(1)), move |_| {
///     counter.fetch_add(1, Ordering::Relaxed);
/// })?;
///
/// // The address lock keeps other threads from choosing the same address at the same time.
/// let address = [192, 0, 2, 1].into();
/// let lock = leases.tracking().try_lock(address);
/// assert!(lock.is_some());
/// assert!(leases.tracking().try_lock(address).is_none());
/// drop(lock);
/// assert!(leases.tracking().try_lock(address).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tracking<L: ManagedLease> {
    callbacks: RwLock<Vec<Arc<Callback<L>>>>,
    count: AtomicUsize,
    /// Whether a callback was ever registered: a callback that unregisters the last one is still
    /// running.
    was_watched: AtomicBool,
    /// A sharded set, because the threads that lock addresses share nothing else, and an entry is
    /// there as long as its lock only. `parking_lot` has no lock by a value.
    locked: Arc<DashSet<L::Address>>,
    totals: Totals,
    watchers: RwLock<Vec<(String, Arc<Watcher>)>>,
    /// Held while leases are counted and a lease is added within limits.
    pub(super) limits: Mutex<()>,
}

/// A function that is called when the availability of a lease manager changes.
type Watcher = dyn Fn(Availability) + Send + Sync;

impl<L: ManagedLease> Default for Tracking<L> {
    fn default() -> Self {
        Self {
            callbacks: RwLock::default(),
            count: AtomicUsize::new(0),
            was_watched: AtomicBool::new(false),
            locked: Arc::default(),
            totals: Totals::default(),
            watchers: RwLock::default(),
            limits: Mutex::default(),
        }
    }
}

impl<L: ManagedLease> fmt::Debug for Tracking<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callbacks = self.count.load(Ordering::Relaxed);
        f.debug_struct("Tracking").field("callbacks", &callbacks).field("locked", &self.locked.len()).finish()
    }
}

impl<L: ManagedLease> Tracking<L> {
    /// Calls `function` after every later change of this kind that concerns the scope: all leases
    /// (`None`), those of a subnet, those of a type, or both ([`Scope`]). An update that moves a
    /// lease to another subnet concerns the scopes of both.
    ///
    /// [`Tracking`] describes what the function may do.
    ///
    /// # Errors
    /// Returns [`CallbackError::Registered`] if the owner already has a callback for the same kind
    /// and scope, and [`CallbackError::NoTypes`] if the scope of a DHCPv4 callback has a lease
    /// type.
    pub fn register(
        &self,
        owner: &str,
        kind: ChangeKind,
        scope: impl Into<Scope>,
        function: impl Fn(&Change<'_, L>) + Send + Sync + 'static,
    ) -> Result<(), CallbackError> {
        let scope = scope.into();
        let owner = owner.to_owned();
        if let (Family::V4, Some(lease_type)) = (L::FAMILY, scope.lease_type) {
            return Err(CallbackError::NoTypes { owner, lease_type });
        }
        let callback = Callback { owner, kind, scope, function: Box::new(function) };
        let mut callbacks = self.callbacks.write();
        let same = |c: &Arc<Callback<L>>| {
            c.owner == callback.owner && c.kind == callback.kind && c.scope == callback.scope
        };
        if callbacks.iter().any(same) {
            drop(callbacks);
            return Err(CallbackError::Registered { owner: callback.owner, kind });
        }
        callbacks.push(Arc::new(callback));
        self.set_count(callbacks.len());
        Ok(())
    }

    /// Removes the callbacks of an owner, and returns their number: all of them (`None`), or those
    /// that were registered for a subnet, for a type, or for both.
    pub fn unregister(&self, owner: &str, scope: impl Into<Scope>) -> usize {
        let scope = scope.into();
        self.remove(|callback| callback.owner == owner && scope.has_within(&callback.scope))
    }

    /// Removes the callbacks of all owners, and returns their number: all of them (`None`), or
    /// those that were registered for a subnet, for a type, or for both.
    pub fn unregister_all(&self, scope: impl Into<Scope>) -> usize {
        let scope = scope.into();
        self.remove(|callback| scope.has_within(&callback.scope))
    }

    fn remove(&self, is_meant: impl Fn(&Callback<L>) -> bool) -> usize {
        let mut callbacks = self.callbacks.write();
        let removed: Vec<_> = callbacks.extract_if(.., |callback| is_meant(callback)).collect();
        self.set_count(callbacks.len());
        // Values that a function owns may register and unregister callbacks when they are dropped.
        drop(callbacks);
        removed.len()
    }

    fn set_count(&self, count: usize) {
        self.was_watched.fetch_or(count > 0, Ordering::Release);
        self.count.store(count, Ordering::Release);
    }

    /// Returns the totals of leases that were assigned and reclaimed.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Takes over the callbacks and the totals of another manager.
    pub fn adopt(&self, other: &Self) {
        self.totals.adopt(&other.totals);
        let adopted = other.callbacks.read().clone();
        self.watchers.write().extend(other.watchers.read().iter().cloned());
        let mut callbacks = self.callbacks.write();
        callbacks.extend(adopted);
        self.set_count(callbacks.len());
    }

    /// Calls `function` whenever the availability of the manager changes, with the new one, in the
    /// thread that notices it. The function must not wait for changes of leases. It replaces one
    /// that the same owner registered before.
    ///
    /// A manager that tells changes made elsewhere calls it with [`Availability::Up`], too, after
    /// such changes may have been missed.
    pub fn on_availability(&self, owner: &str, function: impl Fn(Availability) + Send + Sync + 'static) {
        let mut watchers = self.watchers.write();
        let before: Vec<_> = watchers.extract_if(.., |(other, _)| other == owner).collect();
        watchers.push((owner.to_owned(), Arc::new(function)));
        drop(watchers);
        drop(before);
    }

    /// Removes the function that the owner registered for changes of the availability. Returns
    /// whether there was one.
    pub fn forget_availability(&self, owner: &str) -> bool {
        let mut watchers = self.watchers.write();
        let removed: Vec<_> = watchers.extract_if(.., |(other, _)| other == owner).collect();
        drop(watchers);
        !removed.is_empty()
    }

    /// Calls the functions that are registered for changes of the availability. For backends, to
    /// call without a lock that changes or readers wait for. A panic of a function is logged and
    /// caught.
    pub fn notify_availability(&self, availability: Availability) {
        let watchers = self.watchers.read().clone();
        for (owner, function) in watchers {
            if let Err(message) = contained(|| function(availability)) {
                error!(
                    id = "DHCPSRV_LEASE_MGR_CALLBACK_FAILED",
                    "the function of {owner} for changes of the availability panicked: {message}"
                );
            }
        }
    }

    /// Returns whether there are callbacks. If there are none, backends need not construct a
    /// [`Change`]: [`Tracking::count_added`] and [`Tracking::count_updated`] are enough for the
    /// totals.
    pub fn is_watched(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Counts a lease that was added. For backends, instead of [`Tracking::notify`] if there are no
    /// callbacks.
    pub fn count_added(&self, lease: &L) {
        self.totals.added(lease);
    }

    /// Counts a lease that replaced another one. For backends, instead of [`Tracking::notify`] if
    /// there are no callbacks.
    #[inline]
    pub fn count_updated(&self, old: CountedAs, new: &L) {
        self.totals.replaced(old, new);
    }

    /// Counts a change, and calls the callbacks that it concerns. For backends, after each change,
    /// without a lock that readers wait for. A panic of a callback is logged and caught.
    pub fn notify(&self, change: &Change<'_, L>) {
        // Another manager counts the changes that are made elsewhere.
        if change.origin() == Origin::Here {
            match (change.before(), change.now()) {
                (None, Some(new)) => self.count_added(new),
                (Some(old), Some(new)) => self.count_updated(CountedAs::of(old), new),
                _ => {}
            }
        }
        if !self.is_watched() {
            return;
        }
        // Called without the lock, so that a callback can unregister itself.
        let wanted = |c: &&Arc<Callback<L>>| c.kind == change.kind() && c.scope.is_concerned_by(change);
        let wanted: Vec<_> = self.callbacks.read().iter().filter(wanted).cloned().collect();
        let calling = Calling::enter(self.address());
        for callback in wanted {
            let called = contained(|| (callback.function)(change));
            if let Err(message) = called {
                let Callback { owner, kind, .. } = &*callback;
                let address: IpAddr = change.address().into();
                error!(
                    id = "DHCPSRV_LEASE_MGR_CALLBACK_FAILED",
                    "the callback of {owner} for {kind:?} panicked at the lease of {address}: {message}"
                );
            }
            // If the callback was unregistered meanwhile, this drops the last reference to it.
            if let Some(Callback { owner, function, .. }) = Arc::into_inner(callback)
                && let Err(message) = contained(|| drop(function))
            {
                error!(
                    id = "DHCPSRV_LEASE_MGR_CALLBACK_FAILED",
                    "the callback of {owner} panicked when it was dropped: {message}"
                );
            }
        }
        drop(calling);
    }

    /// Refuses a change by a thread that is in a callback of this manager. For backends, at the
    /// beginning of each change, as later the change would wait for the callback.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::InCallback`] if the thread is in a callback of this manager, or in
    /// one of another manager whose leases a callback of this one is changing.
    #[inline]
    pub fn refuse_in_callback(&self) -> Result<(), LeaseMgrError> {
        // Set before the callback can be called.
        if self.was_watched.load(Ordering::Relaxed) && would_wait_for_itself(self.address()) {
            return Err(LeaseMgrError::InCallback);
        }
        Ok(())
    }

    /// Returns an address that identifies the manager as long as it is borrowed.
    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Takes the address lock of an address; `None` if any thread or task holds it already.
    ///
    /// Reading and changing leases neither takes this lock nor waits for it. It is for callers that
    /// choose an address before they change its lease, so that no two of them choose the same one
    /// at the same time. [`LeaseMgr::claim_first`](super::LeaseMgr::claim_first) takes it itself,
    /// and skips addresses whose lock is held.
    pub fn try_lock(&self, address: L::Address) -> Option<AddressLock<L>> {
        // Constructed only if the address was not locked, as dropping it unlocks the address.
        self.locked.insert(address).then(|| AddressLock { locked: Arc::clone(&self.locked), address })
    }

    /// Returns whether the address lock of an address is held.
    pub fn is_locked(&self, address: L::Address) -> bool {
        self.locked.contains(&address)
    }
}

/// The address lock of an address ([`Tracking::try_lock`]), which is released when this is dropped.
///
/// It borrows nothing: a thread can pass it to another one, and an async task can hold it across
/// awaits.
///
/// ```
/// use leasemgr::AddressLock;
/// use leasemgr::lease::{Lease4, Lease6};
///
/// fn can_be_held_by_a_task<T: Send + Sync + 'static>() {}
///
/// can_be_held_by_a_task::<AddressLock<Lease4>>();
/// can_be_held_by_a_task::<AddressLock<Lease6>>();
/// ```
#[must_use = "the address is unlocked when this is dropped"]
pub struct AddressLock<L: ManagedLease> {
    locked: Arc<DashSet<L::Address>>,
    address: L::Address,
}

impl<L: ManagedLease> AddressLock<L> {
    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> L::Address {
        self.address
    }
}

impl<L: ManagedLease> fmt::Debug for AddressLock<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address: IpAddr = self.address.into();
        write!(f, "AddressLock({address})")
    }
}

impl<L: ManagedLease> Drop for AddressLock<L> {
    fn drop(&mut self) {
        self.locked.remove(&self.address);
    }
}
