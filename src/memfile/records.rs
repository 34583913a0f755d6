//! The leases themselves, by address.

use super::arena::{Arena, BlockId};
use super::ordered::OrderedMap;
use super::record::{Packed, StoredLease};

/// The leases, by address.
pub(super) struct Records<L: StoredLease> {
    pub(super) arena: Arena,
    pub(super) addresses: OrderedMap<L::Key, BlockId>,
}

impl<L: StoredLease> Records<L> {
    pub(super) fn new() -> Self {
        Self { arena: Arena::default(), addresses: OrderedMap::default() }
    }

    /// The block of the lease of an address.
    #[inline]
    pub(super) fn block_of(&self, key: L::Key) -> Option<BlockId> {
        self.addresses.get(key)
    }

    /// The lease of an address.
    #[inline]
    pub(super) fn get(&self, key: L::Key) -> Option<Packed<'_, L>> {
        self.block_of(key).map(|id| self.packed(id))
    }

    /// The lease in a block.
    #[inline]
    pub(super) fn packed(&self, id: BlockId) -> Packed<'_, L> {
        Packed::new(self.arena.get(id))
    }
}
