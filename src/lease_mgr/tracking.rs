//! Who is told of changes, and who has put a lock on a lease.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashSet;
use parking_lot::RwLock;

use super::ManagedLease;
use crate::lease::{Lease, SubnetId};

/// What kind of change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// A lease was added.
    Add,
    /// A lease was put in the place of another.
    Update,
    /// A lease was deleted.
    Delete,
}

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<'a, L> {
    /// This lease was added.
    Added(&'a L),
    /// A lease was put in the place of another.
    Updated {
        /// The one that was there.
        old: &'a L,
        /// The one that is there now.
        new: &'a L,
    },
    /// This lease was deleted.
    Deleted(&'a L),
}

impl<L: Lease> Change<'_, L> {
    /// What kind of change it is.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        match self {
            Self::Added(_) => ChangeKind::Add,
            Self::Updated { .. } => ChangeKind::Update,
            Self::Deleted(_) => ChangeKind::Delete,
        }
    }

    /// The lease as it is now; as it was, if it was deleted.
    #[must_use]
    pub fn lease(&self) -> &L {
        match self {
            Self::Added(lease) | Self::Updated { new: lease, .. } | Self::Deleted(lease) => lease,
        }
    }

    /// Whether it concerns a subnet: an update that moves a lease concerns both.
    fn concerns(&self, subnet: SubnetId) -> bool {
        let moved_from = match self {
            Self::Updated { old, .. } => old.data().subnet_id == subnet,
            _ => false,
        };
        moved_from || self.lease().data().subnet_id == subnet
    }
}

/// Why a callback was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// There is one with the same owner, kind and subnet.
    #[error("{owner} has registered a callback for {kind:?} and the same subnets already")]
    Registered {
        /// The owner.
        owner: String,
        /// The kind of change.
        kind: ChangeKind,
    },
}

type Function<L> = Arc<dyn Fn(&Change<'_, L>) + Send + Sync>;

struct Callback<L> {
    owner: String,
    kind: ChangeKind,
    subnet: Option<SubnetId>,
    function: Function<L>,
}

/// Who is called when leases change, and which leases are locked.
///
/// A callback is called behind a change, in the thread that made it and before that one's call returns. Of one
/// address, changes are told in the order in which they were made. It must not change leases itself.
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
/// // An allocator makes sure that no other thread offers the same address at the same time.
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
    locked: DashSet<L::Address>,
}

impl<L: ManagedLease> Default for Tracking<L> {
    fn default() -> Self {
        Self { callbacks: RwLock::default(), count: AtomicUsize::new(0), locked: DashSet::new() }
    }
}

impl<L: ManagedLease> fmt::Debug for Tracking<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callbacks = self.count.load(Ordering::Relaxed);
        f.debug_struct("Tracking").field("callbacks", &callbacks).field("locked", &self.locked.len()).finish()
    }
}

impl<L: ManagedLease> Tracking<L> {
    /// Calls `function` from now on behind every change of this kind, in one subnet or in all.
    ///
    /// # Errors
    /// [`CallbackError::Registered`] where this owner has one for the same kind and subnet.
    pub fn register(
        &self,
        owner: &str,
        kind: ChangeKind,
        subnet: Option<SubnetId>,
        function: impl Fn(&Change<'_, L>) + Send + Sync + 'static,
    ) -> Result<(), CallbackError> {
        let mut callbacks = self.callbacks.write();
        if callbacks.iter().any(|c| c.owner == owner && c.kind == kind && c.subnet == subnet) {
            return Err(CallbackError::Registered { owner: owner.to_owned(), kind });
        }
        let owner = owner.to_owned();
        callbacks.push(Arc::new(Callback { owner, kind, subnet, function: Arc::new(function) }));
        self.count.store(callbacks.len(), Ordering::Release);
        Ok(())
    }

    /// Forgets the callbacks of an owner: all, or those for one subnet. Tells how many these were.
    pub fn unregister(&self, owner: &str, subnet: Option<SubnetId>) -> usize {
        let mut callbacks = self.callbacks.write();
        let before = callbacks.len();
        callbacks.retain(|c| c.owner != owner || (subnet.is_some() && c.subnet != subnet));
        self.count.store(callbacks.len(), Ordering::Release);
        before - callbacks.len()
    }

    /// Takes over the callbacks of another manager.
    pub fn adopt(&self, other: &Self) {
        let adopted = other.callbacks.read().clone();
        let mut callbacks = self.callbacks.write();
        callbacks.extend(adopted);
        self.count.store(callbacks.len(), Ordering::Release);
    }

    /// Whether anybody wants to know of changes. Backends need not put a [`Change`] together for nobody.
    pub fn is_watched(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Tells everybody who wants to know of a change. For backends, behind each change.
    pub fn notify(&self, change: &Change<'_, L>) {
        if !self.is_watched() {
            return;
        }
        // Called without the lock, so that a callback can unregister itself.
        let wanted = |c: &&Arc<Callback<L>>| {
            c.kind == change.kind() && c.subnet.is_none_or(|subnet| change.concerns(subnet))
        };
        let wanted: Vec<_> = self.callbacks.read().iter().filter(wanted).cloned().collect();
        for callback in wanted {
            (callback.function)(change);
        }
    }

    /// Locks an address, unless it is locked already: an allocator that holds the lock knows that no
    /// other one that asks for it is at work with the same address. Reading and changing leases needs no lock.
    pub fn try_lock(&self, address: L::Address) -> Option<LeaseLock<'_, L>> {
        // Made only where the address was free: dropping it frees the address.
        self.locked.insert(address).then(|| LeaseLock { tracking: self, address })
    }

    /// Whether an address is locked.
    pub fn is_locked(&self, address: L::Address) -> bool {
        self.locked.contains(&address)
    }
}

/// A locked address. It is free again when this is dropped.
#[must_use = "the address is free again when this is dropped"]
pub struct LeaseLock<'a, L: ManagedLease> {
    tracking: &'a Tracking<L>,
    address: L::Address,
}

impl<L: ManagedLease> LeaseLock<'_, L> {
    /// The address.
    #[must_use]
    pub fn address(&self) -> L::Address {
        self.address
    }
}

impl<L: ManagedLease> fmt::Debug for LeaseLock<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address: IpAddr = self.address.into();
        write!(f, "LeaseLock({address})")
    }
}

impl<L: ManagedLease> Drop for LeaseLock<'_, L> {
    fn drop(&mut self) {
        self.tracking.locked.remove(&self.address);
    }
}
