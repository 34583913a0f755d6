//! The leases, indexed by address.

use std::hash::BuildHasher;
use std::marker::PhantomData;

use foldhash::fast::RandomState;

use super::arena::{Arena, BlockId};
use super::b_tree::{LeafView, OrderedMap, Summary};
use super::free_range::FreeFrom;
use super::hash_index::{HashIndex, Hashed};
use super::packed_lease::{Packed, StoredLease};

/// The leases by address: in a hash table for single look-ups, and in order.
pub(super) struct PrimaryIndex<L: StoredLease> {
    pub(super) arena: Arena,
    table: HashIndex,
    hasher: RandomState,
    in_order: OrderedMap<L::AddressKey, BlockId, FreeFrom>,
}

impl<L: StoredLease> PrimaryIndex<L> {
    pub(super) fn new() -> Self {
        let (arena, table) = (Arena::default(), HashIndex::new());
        Self { arena, table, hasher: RandomState::default(), in_order: OrderedMap::default() }
    }

    /// Returns the number of leases.
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Returns the block of the lease of an address.
    #[inline]
    pub(super) fn block_of(&self, key: L::AddressKey) -> Option<BlockId> {
        self.table
            .find(self.hasher.hash_one(key), |number| self.packed(BlockId(number)).key() == key)
            .map(BlockId)
    }

    /// Prefetches the memory for the look-up of an address.
    #[inline]
    pub(super) fn prefetch(&self, key: L::AddressKey) {
        self.table.prefetch(self.hasher.hash_one(key));
    }

    /// Returns the lease of an address.
    #[inline]
    pub(super) fn get(&self, key: L::AddressKey) -> Option<Packed<'_, L>> {
        self.block_of(key).map(|id| self.packed(id))
    }

    /// Returns the lease in a block.
    #[inline]
    pub(super) fn packed(&self, id: BlockId) -> Packed<'_, L> {
        Packed::new(self.arena.get(id))
    }

    /// Returns the addresses and blocks in order, from a bound on.
    pub(super) fn iter_from(
        &self,
        from: std::ops::Bound<L::AddressKey>,
    ) -> impl Iterator<Item = (L::AddressKey, BlockId)> {
        self.in_order.iter_from(from)
    }

    /// Returns the addresses and blocks in the reverse order, from a bound on.
    pub(super) fn iter_back_from(
        &self,
        from: std::ops::Bound<L::AddressKey>,
    ) -> impl Iterator<Item = (L::AddressKey, BlockId)> {
        self.in_order.iter_back_from(from)
    }

    /// Inserts an address that is not in the index.
    pub(super) fn insert(&mut self, key: L::AddressKey, id: BlockId) {
        let Self { arena, table, hasher, in_order } = self;
        table.insert(hasher.hash_one(key), id.0, &Addresses::<L>::new(arena, hasher));
        in_order.insert_summarized(key, id, &FreeFrom::of(&Packed::<L>::new(arena.get(id))));
    }

    /// Records that the address of a lease becomes free earlier than before the change.
    pub(super) fn lower_free_from(&self, lease: &Packed<'_, L>) {
        self.in_order.summary(lease.key()).join(&FreeFrom::of(lease));
    }

    /// Forgets when addresses become free, after leases were changed without
    /// [`PrimaryIndex::lower_free_from`].
    pub(super) fn forget_free_from(&self) {
        self.leaves_from(L::AddressKey::default()).for_each(|leaf| leaf.summary.forget());
    }

    /// Returns the addresses and blocks in leaves, in order, from the leaf whose range includes the
    /// address.
    pub(super) fn leaves_from(
        &self,
        key: L::AddressKey,
    ) -> impl Iterator<Item = LeafView<'_, L::AddressKey, BlockId, FreeFrom>> {
        self.in_order.leaves_from(key)
    }

    /// Changes the block of an address. Both blocks contain a lease of it.
    pub(super) fn relocate(&mut self, key: L::AddressKey, old: BlockId, new: BlockId) {
        self.table.replace(self.hasher.hash_one(key), old.0, new.0);
        self.in_order.insert(key, new);
    }

    /// Removes an address. The block still contains the lease.
    pub(super) fn remove(&mut self, key: L::AddressKey, id: BlockId) {
        let Self { arena, table, hasher, in_order } = self;
        let matches = |number| number == id.0;
        let addresses = Addresses::<L>::new(arena, hasher);
        table.find_and_remove(hasher.hash_one(key), matches, |_| true, &addresses);
        in_order.remove(key);
    }

    /// Returns the number of bytes allocated for the leases, and for the indexes.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.arena.memory(), self.table.memory() + self.in_order.memory())
    }
}

/// Hashes the addresses of leases, for the table.
struct Addresses<'a, L> {
    arena: &'a Arena,
    hasher: &'a RandomState,
    lease: PhantomData<L>,
}

impl<'a, L> Addresses<'a, L> {
    fn new(arena: &'a Arena, hasher: &'a RandomState) -> Self {
        Self { arena, hasher, lease: PhantomData }
    }
}

impl<L: StoredLease> Hashed for Addresses<'_, L> {
    fn hash(&self, number: u32) -> u64 {
        self.hasher.hash_one(Packed::<L>::new(self.arena.get(BlockId(number))).key())
    }

    fn prefetch(&self, number: u32) {
        self.arena.prefetch(BlockId(number));
    }
}
