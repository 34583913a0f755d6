//! Changes that are kept for a partner that is cut off.

use std::collections::BTreeMap;

use crate::lease::Lease;

/// A change that is kept for the partner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptChange<L> {
    /// The lease after the change, or the lease that was deleted.
    pub lease: L,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Distinguishes the changes of a lease.
    number: u64,
}

/// The changes of [`Replication::Keep`](super::Replication::Keep): the newest of each lease.
///
/// ```
/// use leasemgr::ha::Kept;
/// use leasemgr::lease::{HwAddr, Lease4};
///
/// let lease = |cltt| {
///     let builder = Lease4::builder([192, 0, 2, 1].into()).client(HwAddr::from([2, 0, 0, 0, 0, 1]));
///     builder.subnet(1).lifetime(3600).cltt(cltt).build()
/// };
/// let mut kept = Kept::new();
/// kept.put(lease(1_790_000_000)?, false);
/// let first = kept.next().cloned();
/// // The client renews its lease while the change is sent.
/// kept.put(lease(1_790_000_900)?, false);
/// kept.sent(&first.unwrap());
/// assert_eq!(kept.next().map(|change| change.lease.cltt()), Some(1_790_000_900));
/// # Ok::<(), leasemgr::lease::LeaseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Kept<L: Lease> {
    changes: BTreeMap<L::Address, KeptChange<L>>,
    last: u64,
}

impl<L: Lease> Default for Kept<L> {
    fn default() -> Self {
        Self { changes: BTreeMap::new(), last: 0 }
    }
}

impl<L: Lease> Kept<L> {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of changes, for [`Machine::keep`](super::Machine::keep) and
    /// [`Event::OutstandingSent`](super::Event::OutstandingSent).
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a change, in place of an earlier one of the lease. A change with an older cltt than
    /// that which is kept is left out: it was sent before, in vain.
    pub fn put(&mut self, lease: L, deleted: bool) {
        let address = lease.address();
        let cltt = lease.data().cltt;
        if self.changes.get(&address).is_none_or(|kept| kept.lease.data().cltt <= cltt) {
            self.last = self.last.wrapping_add(1);
            self.changes.insert(address, KeptChange { lease, deleted, number: self.last });
        }
    }

    /// Returns a change to send, that with the lowest address.
    #[must_use]
    pub fn next(&self) -> Option<&KeptChange<L>> {
        self.changes.values().next()
    }

    /// Removes a change that the partner has. A later one of the lease stays.
    pub fn sent(&mut self, change: &KeptChange<L>) {
        let address = change.lease.address();
        if self.changes.get(&address).is_some_and(|kept| kept.number == change.number) {
            self.changes.remove(&address);
        }
    }

    /// Removes all changes, for [`Action::DropOutstanding`](super::Action::DropOutstanding).
    pub fn clear(&mut self) {
        self.changes.clear();
    }
}
