//! An index of leases by a byte string: hardware address, client id or DUID, hostname.
//!
//! It holds no strings: of a string that one lease has, the block of that lease, which has the string; of a string that
//! several leases have, the number of a set of their addresses, in the order of subnets (or IAIDs). So a client with a
//! hundred thousand leases costs as little to look up as any other.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::arena::BlockId;
use super::b_tree::OrderedMap;
use super::hash_index::{HashIndex, Hashed};
use super::packed_lease::{Packed, StoredLease};
use super::primary_index::PrimaryIndex;

/// What a number in the table stands for: a block, or with the highest bit set a set.
enum Holder {
    Block(BlockId),
    Set(usize),
}

const SET: u32 = 1 << 31;

impl Holder {
    fn of(number: u32) -> Self {
        if number & SET == 0 { Self::Block(BlockId(number)) } else { Self::Set((number & !SET) as usize) }
    }
}

/// The number of a set. There are less sets than leases, and these have 31 bits.
fn set_number(n: usize) -> u32 {
    SET | u32::try_from(n).unwrap_or(0)
}

/// The order of leases in a set: subnet or IAID, and the address.
pub(super) type Member<K> = (u32, K);

/// The string of a lease that an index is of.
pub(super) type KeyOf<L> = for<'a, 'b> fn(&'b Packed<'a, L>) -> &'a [u8];

/// An index of leases by a byte string. Leases whose string is empty are not in it.
pub(super) struct ClientIndex<L: StoredLease> {
    strings: Strings<L>,
    table: HashIndex,
}

/// What is known of the strings.
struct Strings<L: StoredLease> {
    key_of: KeyOf<L>,
    order_of: fn(&Packed<'_, L>) -> u32,
    ignore_case: bool,
    hasher: RandomState,
    sets: Vec<Set<L>>,
    free_sets: Vec<usize>,
}

/// The leases of one string.
type Set<L> = OrderedMap<Member<<L as crate::lease_file::row::private::RowFormat>::AddressKey>, ()>;

/// The leases that a string has.
pub(super) enum Found<'a, K> {
    None,
    One(BlockId),
    Several(&'a OrderedMap<Member<K>, ()>),
}

impl<L: StoredLease> ClientIndex<L> {
    /// An index by what `key_of` says, also regardless of the case of its letters.
    pub(super) fn new(key_of: KeyOf<L>, order_of: fn(&Packed<'_, L>) -> u32, ignore_case: bool) -> Self {
        let (sets, free_sets) = (Vec::new(), Vec::new());
        let hasher = RandomState::default();
        let strings = Strings { key_of, order_of, ignore_case, hasher, sets, free_sets };
        Self { strings, table: HashIndex::new() }
    }

    /// The leases that have a string.
    pub(super) fn find(&self, primary: &PrimaryIndex<L>, key: &[u8]) -> Found<'_, L::AddressKey> {
        if key.is_empty() {
            return Found::None;
        }
        let found =
            self.table.find(self.strings.hash(key), |number| self.strings.is_of(primary, number, key));
        match found.map(Holder::of) {
            None => Found::None,
            Some(Holder::Block(id)) => Found::One(id),
            Some(Holder::Set(n)) => Found::Several(&self.strings.sets[n]),
        }
    }

    /// The hash of a lease's string, and has the processor fetch what is needed for it.
    #[inline]
    pub(super) fn fetch(&self, packed: &Packed<'_, L>) -> u64 {
        let hash = self.strings.hash((self.strings.key_of)(packed));
        self.table.fetch(hash);
        hash
    }

    /// Takes a lease in, whose block holds it already.
    pub(super) fn insert(&mut self, primary: &PrimaryIndex<L>, id: BlockId) {
        let packed = primary.packed(id);
        let hash = self.strings.hash((self.strings.key_of)(&packed));
        self.insert_hashed(primary, id, hash);
    }

    /// Takes a lease in, whose block holds it already, and whose string has this hash.
    pub(super) fn insert_hashed(&mut self, primary: &PrimaryIndex<L>, id: BlockId, hash: u64) {
        let Self { strings, table } = self;
        let packed = primary.packed(id);
        let key = (strings.key_of)(&packed);
        if key.is_empty() {
            return;
        }
        let found = table.find(hash, |number| strings.is_of(primary, number, key));
        match found.map(Holder::of) {
            None => table.insert(hash, id.0, &StringsOf { strings, primary }),
            Some(Holder::Set(n)) => {
                let member = strings.member(&packed);
                strings.sets[n].insert(member, ());
            }
            Some(Holder::Block(other)) => {
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

    /// Lets go of a lease, while its block still holds it and the primary index still finds it.
    pub(super) fn remove(&mut self, primary: &PrimaryIndex<L>, id: BlockId) {
        let hash = self.strings.hash((self.strings.key_of)(&primary.packed(id)));
        self.remove_hashed(primary, id, hash);
    }

    /// Lets go of a lease, while its block still holds it and the primary index still finds it, and whose string has this hash.
    pub(super) fn remove_hashed(&mut self, primary: &PrimaryIndex<L>, id: BlockId, hash: u64) {
        let Self { strings, table } = self;
        let packed = primary.packed(id);
        let key = (strings.key_of)(&packed);
        if key.is_empty() {
            return;
        }
        let found = table.find_and_remove(
            hash,
            // Of most strings there is but one lease, which need not be compared.
            |number| number == id.0 || strings.is_of(primary, number, key),
            |number| number == id.0,
            &StringsOf { strings, primary },
        );
        if let Some(Holder::Set(n)) = found.map(Holder::of) {
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

    /// Follows a lease, which both blocks hold, to another block.
    pub(super) fn relocate(&mut self, primary: &PrimaryIndex<L>, old: BlockId, new: BlockId) {
        let key = (self.strings.key_of)(&primary.packed(new));
        if !key.is_empty() {
            self.table.replace(self.strings.hash(key), old.0, new.0);
        }
    }

    /// Makes room for so many strings, in an empty index.
    pub(super) fn reserve(&mut self, len: usize) {
        self.table.reserve(len);
    }

    /// Whether a lease is in it, or should be.
    pub(super) fn is_in(&self, primary: &PrimaryIndex<L>, id: BlockId) -> bool {
        !(self.strings.key_of)(&primary.packed(id)).is_empty()
    }

    /// How many leases are in it.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let count = |number| match Holder::of(number) {
            Holder::Block(_) => 1,
            Holder::Set(n) => self.strings.sets[n].len(),
        };
        self.table.iter().map(count).sum()
    }

    /// How many bytes are allocated.
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
        // Without its length, which a hasher adds for a slice: the string is the whole key.
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&key);
        hasher.finish()
    }

    /// Whether a number stands for leases of a string.
    #[inline]
    fn is_of(&self, primary: &PrimaryIndex<L>, number: u32, key: &[u8]) -> bool {
        self.owner(primary, number).is_some_and(|owner| {
            let own = (self.key_of)(&owner);
            own == key || (self.ignore_case && own.eq_ignore_ascii_case(key))
        })
    }

    /// A lease that a number stands for.
    #[inline]
    fn owner<'a>(&self, primary: &'a PrimaryIndex<L>, number: u32) -> Option<Packed<'a, L>> {
        match Holder::of(number) {
            Holder::Block(id) => Some(primary.packed(id)),
            Holder::Set(n) => {
                let ((_, key), ()) = self.sets[n].first()?;
                primary.get(key)
            }
        }
    }

    fn member(&self, packed: &Packed<'_, L>) -> Member<L::AddressKey> {
        ((self.order_of)(packed), packed.key())
    }
}

/// The hashes of the strings of leases.
struct StringsOf<'a, L: StoredLease> {
    strings: &'a Strings<L>,
    primary: &'a PrimaryIndex<L>,
}

impl<L: StoredLease> Hashed for StringsOf<'_, L> {
    fn hash(&self, number: u32) -> u64 {
        let owner = self.strings.owner(self.primary, number);
        owner.map_or(0, |owner| self.strings.hash((self.strings.key_of)(&owner)))
    }

    fn fetch(&self, number: u32) {
        if let Holder::Block(id) = Holder::of(number) {
            self.primary.arena.fetch(id);
        }
    }
}
