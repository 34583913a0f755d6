//! The leases themselves, by address.

use std::hash::BuildHasher;
use std::marker::PhantomData;

use foldhash::fast::RandomState;

use super::arena::{Arena, BlockId};
use super::b_tree::{LeafView, Note, OrderedMap};
use super::free_range::FreeFrom;
use super::hash_index::{HashIndex, Hashed};
use super::packed_lease::{Packed, StoredLease};

/// The leases, by address: in a hash table, for one at a time, and in order.
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

    /// How many leases there are.
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    /// The block of the lease of an address.
    #[inline]
    pub(super) fn block_of(&self, key: L::AddressKey) -> Option<BlockId> {
        self.table
            .find(self.hasher.hash_one(key), |number| self.packed(BlockId(number)).key() == key)
            .map(BlockId)
    }

    /// Has the processor fetch what is needed to look for an address.
    #[inline]
    pub(super) fn fetch(&self, key: L::AddressKey) {
        self.table.fetch(self.hasher.hash_one(key));
    }

    /// The lease of an address.
    #[inline]
    pub(super) fn get(&self, key: L::AddressKey) -> Option<Packed<'_, L>> {
        self.block_of(key).map(|id| self.packed(id))
    }

    /// The lease in a block.
    #[inline]
    pub(super) fn packed(&self, id: BlockId) -> Packed<'_, L> {
        Packed::new(self.arena.get(id))
    }

    /// The addresses and blocks in order, from an address on.
    pub(super) fn iter_from(
        &self,
        from: std::ops::Bound<L::AddressKey>,
    ) -> impl Iterator<Item = (L::AddressKey, BlockId)> {
        self.in_order.iter_from(from)
    }

    /// The addresses and blocks in the reverse order, from an address on.
    pub(super) fn iter_back_from(
        &self,
        from: std::ops::Bound<L::AddressKey>,
    ) -> impl Iterator<Item = (L::AddressKey, BlockId)> {
        self.in_order.iter_back_from(from)
    }

    /// Gives a block to an address that has none.
    pub(super) fn insert(&mut self, key: L::AddressKey, id: BlockId) {
        let Self { arena, table, hasher, in_order } = self;
        table.insert(hasher.hash_one(key), id.0, &Addresses::<L>::new(arena, hasher));
        in_order.insert_noted(key, id, &FreeFrom::of(&Packed::<L>::new(arena.get(id))));
    }

    /// Notes that the address of a lease is free earlier than that of the lease before.
    pub(super) fn note_earlier(&self, lease: &Packed<'_, L>) {
        self.in_order.note(lease.key()).join(&FreeFrom::of(lease));
    }

    /// Forgets when addresses become free. Leases may have been changed without [`PrimaryIndex::note_earlier`].
    pub(super) fn forget_notes(&self) {
        self.leaves_from(L::AddressKey::default()).for_each(|leaf| leaf.note.forget());
    }

    /// The addresses and blocks in order, in leaves, from the one that has the address, if any has.
    pub(super) fn leaves_from(
        &self,
        key: L::AddressKey,
    ) -> impl Iterator<Item = LeafView<'_, L::AddressKey, BlockId, FreeFrom>> {
        self.in_order.leaves_from(key)
    }

    /// Gives another block to an address. Both hold a lease of it.
    pub(super) fn relocate(&mut self, key: L::AddressKey, old: BlockId, new: BlockId) {
        self.table.replace(self.hasher.hash_one(key), old.0, new.0);
        self.in_order.insert(key, new);
    }

    /// Takes the block, which still holds the lease, from an address.
    pub(super) fn remove(&mut self, key: L::AddressKey, id: BlockId) {
        let Self { arena, table, hasher, in_order } = self;
        let is_it = |number| number == id.0;
        let addresses = Addresses::<L>::new(arena, hasher);
        table.find_and_remove(hasher.hash_one(key), is_it, |_| true, &addresses);
        in_order.remove(key);
    }

    /// How many bytes are allocated: for the leases, and for finding them.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.arena.memory(), self.table.memory() + self.in_order.memory())
    }
}

/// The hashes of the addresses of leases.
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

    fn fetch(&self, number: u32) {
        self.arena.fetch(BlockId(number));
    }
}
