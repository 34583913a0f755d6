//! An index of leases by a byte string: hardware address, client ID or DUID, hostname.
//!
//! The index holds no strings. For the string of a single lease, it holds the block of the lease,
//! which contains the string; for the string of several leases, the number of a set of their
//! addresses, in the order of subnets (or IAIDs). So a client with a hundred thousand leases is
//! found as fast as any other.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::arena::BlockId;
use super::b_tree::OrderedMap;
use super::hash_index::{HashIndex, Hashed};
use super::packed_lease::{Packed, StoredLease};
use super::primary_index::PrimaryIndex;

/// The meaning of a number in the table: a block, or with the highest bit set, a set.
enum Entry {
    Block(BlockId),
    Set(usize),
}

const SET_BIT: u32 = 1 << 31;

impl Entry {
    fn of(number: u32) -> Self {
        if number & SET_BIT == 0 {
            Self::Block(BlockId(number))
        } else {
            Self::Set((number & !SET_BIT) as usize)
        }
    }
}

/// Returns the table entry for a set. There are fewer sets than leases, whose block IDs have 31
/// bits.
fn set_number(n: usize) -> u32 {
    SET_BIT | u32::try_from(n).unwrap_or(0)
}

/// The order of leases in a set: subnet or IAID, and then address.
pub(super) type Member<K> = (u32, K);

/// Returns the string by which a lease is indexed.
pub(super) type KeyOf<L> = for<'a, 'b> fn(&'b Packed<'a, L>) -> &'a [u8];

/// An index of leases by a byte string. Leases whose string is empty are not in it.
pub(super) struct ClientIndex<L: StoredLease> {
    strings: Strings<L>,
    table: HashIndex,
}

/// The strings of the leases, and the sets of leases that share one.
struct Strings<L: StoredLease> {
    key_of: KeyOf<L>,
    order_of: fn(&Packed<'_, L>) -> u32,
    ignore_case: bool,
    hasher: RandomState,
    sets: Vec<Set<L>>,
    free_sets: Vec<usize>,
}

/// The leases with the same string.
type Set<L> = OrderedMap<Member<<L as crate::lease_file::row::private::RowFormat>::AddressKey>, ()>;

/// The leases found for a string.
pub(super) enum Found<'a, K> {
    None,
    One(BlockId),
    Several(&'a OrderedMap<Member<K>, ()>),
}

impl<L: StoredLease> ClientIndex<L> {
    /// Creates an index by the strings of `key_of`, optionally case-insensitive.
    pub(super) fn new(key_of: KeyOf<L>, order_of: fn(&Packed<'_, L>) -> u32, ignore_case: bool) -> Self {
        let (sets, free_sets) = (Vec::new(), Vec::new());
        let hasher = RandomState::default();
        let strings = Strings { key_of, order_of, ignore_case, hasher, sets, free_sets };
        Self { strings, table: HashIndex::new() }
    }

    /// Returns the leases with a string.
    pub(super) fn find(&self, primary: &PrimaryIndex<L>, key: &[u8]) -> Found<'_, L::AddressKey> {
        if key.is_empty() {
            return Found::None;
        }
        let found =
            self.table.find(self.strings.hash(key), |number| self.strings.is_of(primary, number, key));
        match found.map(Entry::of) {
            None => Found::None,
            Some(Entry::Block(id)) => Found::One(id),
            Some(Entry::Set(n)) => Found::Several(&self.strings.sets[n]),
        }
    }

    /// Returns the hash of a lease's string, and prefetches its bucket.
    #[inline]
    pub(super) fn prefetch(&self, packed: &Packed<'_, L>) -> u64 {
        let hash = self.strings.hash((self.strings.key_of)(packed));
        self.table.prefetch(hash);
        hash
    }

    /// Inserts a lease, which its block already contains.
    pub(super) fn insert(&mut self, primary: &PrimaryIndex<L>, id: BlockId) {
        let packed = primary.packed(id);
        let hash = self.strings.hash((self.strings.key_of)(&packed));
        self.insert_hashed(primary, id, hash);
    }

    /// Inserts a lease, which its block already contains, with the hash of its string.
    pub(super) fn insert_hashed(&mut self, primary: &PrimaryIndex<L>, id: BlockId, hash: u64) {
        let Self { strings, table } = self;
        let packed = primary.packed(id);
        let key = (strings.key_of)(&packed);
        if key.is_empty() {
            return;
        }
        let found = table.find(hash, |number| strings.is_of(primary, number, key));
        match found.map(Entry::of) {
            None => table.insert(hash, id.0, &StringHashes { strings, primary }),
            Some(Entry::Set(n)) => {
                let member = strings.member(&packed);
                strings.sets[n].insert(member, ());
            }
            Some(Entry::Block(other)) => {
                let mut set = OrderedMap::default();
                set.insert(strings.member(&primary.packed(other)), ());
                set.insert(strings.member(&packed), ());
                let n = strings.free_sets.pop().unwrap_or(strings.sets.len());
                if n == strings.sets.len() {
                    strings.sets.push(set);
                } else {
                    strings.sets[n] = set;
                }
                table.replace(hash, other.0, set_number(n));
            }
        }
    }

    /// Removes a lease, while its block still contains it and the primary index still finds it.
    pub(super) fn remove(&mut self, primary: &PrimaryIndex<L>, id: BlockId) {
        let hash = self.strings.hash((self.strings.key_of)(&primary.packed(id)));
        self.remove_hashed(primary, id, hash);
    }

    /// Removes a lease, while its block still contains it and the primary index still finds it,
    /// with the hash of its string.
    pub(super) fn remove_hashed(&mut self, primary: &PrimaryIndex<L>, id: BlockId, hash: u64) {
        let Self { strings, table } = self;
        let packed = primary.packed(id);
        let key = (strings.key_of)(&packed);
        if key.is_empty() {
            return;
        }
        let found = table.find_and_remove(
            hash,
            // Most strings have only one lease, which need not be compared.
            |number| number == id.0 || strings.is_of(primary, number, key),
            |number| number == id.0,
            &StringHashes { strings, primary },
        );
        if let Some(Entry::Set(n)) = found.map(Entry::of) {
            let member = strings.member(&packed);
            strings.sets[n].remove(member);
            if strings.sets[n].len() == 1
                && let Some(((_, last), ())) = strings.sets[n].first()
                && let Some(last) = primary.block_of(last)
            {
                strings.sets[n].clear();
                strings.free_sets.push(n);
                table.replace(hash, set_number(n), last.0);
            }
        }
    }

    /// Records that a lease moves to another block. Both blocks contain it.
    pub(super) fn relocate(&mut self, primary: &PrimaryIndex<L>, old: BlockId, new: BlockId) {
        let key = (self.strings.key_of)(&primary.packed(new));
        if !key.is_empty() {
            self.table.replace(self.strings.hash(key), old.0, new.0);
        }
    }

    /// Reserves memory for this number of strings, in an empty index.
    pub(super) fn reserve(&mut self, len: usize) {
        self.table.reserve(len);
    }

    /// Returns whether a lease has a string, and so belongs into the index.
    pub(super) fn is_in(&self, primary: &PrimaryIndex<L>, id: BlockId) -> bool {
        !(self.strings.key_of)(&primary.packed(id)).is_empty()
    }

    /// Returns the number of indexed leases.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let count = |number| match Entry::of(number) {
            Entry::Block(_) => 1,
            Entry::Set(n) => self.strings.sets[n].len(),
        };
        self.table.iter().map(count).sum()
    }

    /// Returns the number of allocated bytes.
    pub(super) fn memory(&self) -> usize {
        let sets: usize = self.strings.sets.iter().map(OrderedMap::memory).sum();
        self.table.memory() + sets + self.strings.sets.capacity() * size_of::<Set<L>>()
    }
}

impl<L: StoredLease> Strings<L> {
    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        let key = if self.ignore_case && key.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(key.to_ascii_lowercase())
        } else {
            Cow::Borrowed(key)
        };
        // The hash does not include the length, as the string is the whole key.
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&key);
        hasher.finish()
    }

    /// Returns whether a table entry is for the leases of a string.
    #[inline]
    fn is_of(&self, primary: &PrimaryIndex<L>, number: u32, key: &[u8]) -> bool {
        self.owner(primary, number).is_some_and(|owner| {
            let own = (self.key_of)(&owner);
            own == key || (self.ignore_case && own.eq_ignore_ascii_case(key))
        })
    }

    /// Returns a lease of a table entry.
    #[inline]
    fn owner<'a>(&self, primary: &'a PrimaryIndex<L>, number: u32) -> Option<Packed<'a, L>> {
        match Entry::of(number) {
            Entry::Block(id) => Some(primary.packed(id)),
            Entry::Set(n) => {
                let ((_, key), ()) = self.sets[n].first()?;
                primary.get(key)
            }
        }
    }

    fn member(&self, packed: &Packed<'_, L>) -> Member<L::AddressKey> {
        ((self.order_of)(packed), packed.key())
    }
}

/// Hashes the strings of leases, for the table.
struct StringHashes<'a, L: StoredLease> {
    strings: &'a Strings<L>,
    primary: &'a PrimaryIndex<L>,
}

impl<L: StoredLease> Hashed for StringHashes<'_, L> {
    fn hash(&self, number: u32) -> u64 {
        let owner = self.strings.owner(self.primary, number);
        owner.map_or(0, |owner| self.strings.hash((self.strings.key_of)(&owner)))
    }

    fn prefetch(&self, number: u32) {
        if let Entry::Block(id) = Entry::of(number) {
            self.primary.arena.prefetch(id);
        }
    }
}
