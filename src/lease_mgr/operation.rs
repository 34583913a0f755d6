//! Changes of leases as values, so that a batch of them can be passed on, or made in another
//! thread.

use super::{Added, Deleted, LeaseMgr, LeaseMgrError, ManagedLease};
use crate::lease::LeaseState;

/// A change of the lease of one address, for [`LeaseMgr::apply`] and [`LeaseMgr::submit`].
///
/// ```
/// use leasemgr::lease::{HwAddr, Lease, Lease4, LeaseState, Lifetime};
/// use leasemgr::{Done, LeaseMgr, LeaseMgrFactory, Operation};
///
/// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
/// let client = HwAddr::new(&[2, 0, 0, 0, 0, 1])?;
/// let mut lease = Lease4::new([192, 0, 2, 1].into(), Some(client), None, LeaseState::DEFAULT)?;
/// lease.data_mut().valid_lifetime = Lifetime(3600);
///
/// // Each operation of a batch sees the results of the earlier ones.
/// let batch = [Operation::Add(lease.clone()), Operation::Add(lease.clone()), Operation::delete_if_unchanged(&lease)];
/// let results = leases.apply(&batch).into_iter().collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(results, [Done::Added, Done::AddressTaken, Done::Deleted]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation<L: ManagedLease> {
    /// Adds a lease, as [`LeaseMgr::add`] does.
    Add(L),
    /// Replaces the lease of an address, as [`LeaseMgr::update_expecting`] does.
    Update {
        /// The new lease.
        lease: L,
        /// The lease that the address must have; `None` for any lease.
        expected: Option<L>,
    },
    /// Deletes the lease of an address, as [`LeaseMgr::delete_expecting`] does.
    Delete {
        /// The address.
        address: L::Address,
        /// The lease that the address must have; `None` for any lease.
        expected: Option<L>,
    },
}

/// The result of an [`Operation`] that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a lease that was not added must not be given to a client"]
pub enum Done {
    /// The lease was added, and is as durable as the backend makes it.
    Added,
    /// The lease was not added: its address already has one, which is unchanged.
    AddressTaken,
    /// The lease has replaced the one that its address had.
    Updated,
    /// The lease of the address was deleted.
    Deleted,
    /// Nothing was deleted: the address had no lease.
    NoSuchLease,
}

impl<L: ManagedLease> Operation<L> {
    /// Replaces the lease of an address, whichever it is.
    #[must_use]
    pub fn update(lease: L) -> Self {
        Self::Update { lease, expected: None }
    }

    /// Replaces a lease that the caller has read, unless it was modified since.
    #[must_use]
    pub fn update_if_unchanged(read: &L, lease: L) -> Self {
        Self::Update { lease, expected: Some(read.clone()) }
    }

    /// Deletes the lease of an address, whichever it is.
    #[must_use]
    pub fn delete(address: L::Address) -> Self {
        Self::Delete { address, expected: None }
    }

    /// Deletes a lease that the caller has read, unless it was modified since.
    #[must_use]
    pub fn delete_if_unchanged(read: &L) -> Self {
        Self::Delete { address: read.address(), expected: Some(read.clone()) }
    }

    /// Reclaims an expired lease that the caller has read, unless it was modified since.
    /// [`LeaseMgrExt::reclaim`](super::LeaseMgrExt::reclaim) also counts it in the totals; this
    /// does not.
    #[must_use]
    pub fn reclaim(expired: &L) -> Self {
        match reclaimed_form(expired) {
            Some(reclaimed) => Self::update_if_unchanged(expired, reclaimed),
            None => Self::delete_if_unchanged(expired),
        }
    }

    /// Returns the address whose lease is changed.
    #[must_use]
    pub fn address(&self) -> L::Address {
        self.borrowed().address()
    }

    /// Makes the change in the calling thread, with the method of the manager for this kind of
    /// operation.
    ///
    /// # Errors
    /// Returns the error of that method.
    pub fn run<M: LeaseMgr<L> + ?Sized>(&self, manager: &M) -> Result<Done, LeaseMgrError> {
        self.borrowed().run(manager)
    }

    pub(crate) fn borrowed(&self) -> Borrowed<'_, L> {
        match self {
            Self::Add(lease) => Borrowed::Add(lease),
            Self::Update { lease, expected } => Borrowed::Update(lease, expected.as_ref()),
            Self::Delete { address, expected } => Borrowed::Delete(*address, expected.as_ref()),
        }
    }
}

/// An [`Operation`] that borrows its leases from the caller.
pub(crate) enum Borrowed<'a, L: ManagedLease> {
    Add(&'a L),
    /// The new lease, and the expected one.
    Update(&'a L, Option<&'a L>),
    /// The address, and the expected lease.
    Delete(L::Address, Option<&'a L>),
}

impl<L: ManagedLease> Clone for Borrowed<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: ManagedLease> Copy for Borrowed<'_, L> {}

impl<L: ManagedLease> Borrowed<'_, L> {
    pub(crate) fn address(&self) -> L::Address {
        match self {
            Self::Add(lease) | Self::Update(lease, _) => lease.address(),
            Self::Delete(address, _) => *address,
        }
    }

    pub(crate) fn run<M: LeaseMgr<L> + ?Sized>(&self, manager: &M) -> Result<Done, LeaseMgrError> {
        match *self {
            Self::Add(lease) => manager.add(lease).map(Done::from),
            Self::Update(lease, expected) => {
                manager.update_expecting(lease, expected).map(|()| Done::Updated)
            }
            Self::Delete(address, expected) => manager.delete_expecting(address, expected).map(Done::from),
        }
    }

    pub(crate) fn to_operation(self) -> Operation<L> {
        match self {
            Self::Add(lease) => Operation::Add(lease.clone()),
            Self::Update(lease, expected) => {
                Operation::Update { lease: lease.clone(), expected: expected.cloned() }
            }
            Self::Delete(address, expected) => Operation::Delete { address, expected: expected.cloned() },
        }
    }
}

/// Returns the form in which an expired lease is kept when it is reclaimed; `None` for a declined
/// lease, which is deleted instead.
pub(crate) fn reclaimed_form<L: ManagedLease>(expired: &L) -> Option<L> {
    (expired.state() != LeaseState::DECLINED).then(|| {
        let mut reclaimed = expired.clone();
        reclaimed.reclaim();
        reclaimed
    })
}

impl From<Added> for Done {
    fn from(added: Added) -> Self {
        match added {
            Added::Added => Self::Added,
            Added::AddressTaken => Self::AddressTaken,
        }
    }
}

impl From<Deleted> for Done {
    fn from(deleted: Deleted) -> Self {
        match deleted {
            Deleted::Deleted => Self::Deleted,
            Deleted::NoSuchLease => Self::NoSuchLease,
        }
    }
}
