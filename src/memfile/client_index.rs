//! An index of leases by a byte string: hardware address, client id or DUID, hostname.
//!
//! It holds no strings: of a string that one lease has, the block of that lease, which has the string; of a string that
//! several leases have, the number of a set of their addresses, in the order of subnets (or IAIDs). So a client with a
//! hundred thousand leases costs as little to look up as any other.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::arena::BlockId;
use super::ordered::OrderedMap;
use super::record::{Packed, StoredLease};
use super::records::Records;

/// How many tables there are. Each grows on its own, so that none of them makes a change wait for long.
const TABLES: usize = 64;
/// The bits of a hash that choose the table. Neither the lowest nor the highest ones, which the tables use.
const CHOICE_BITS: u32 = 12;
const CHOICE_SHIFT: u32 = 32;

/// What is in a table: a block, or with the highest bit set the number of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u32);

const SET: u32 = 1 << 31;

enum Holder {
    Block(BlockId),
    Set(usize),
}

impl Slot {
    fn block(id: BlockId) -> Self {
        Self(id.0)
    }

    fn holder(self) -> Holder {
        if self.0 & SET == 0 { Holder::Block(BlockId(self.0)) } else { Holder::Set((self.0 & !SET) as usize) }
    }
}

/// The order of leases in a set: subnet or IAID, and the address.
pub(super) type Member<K> = (u32, K);

/// The string of a lease that an index is of.
pub(super) type KeyOf<L> = for<'a, 'b> fn(&'b Packed<'a, L>) -> &'a [u8];

/// An index of leases by a byte string. Leases whose string is empty are not in it.
pub(super) struct ClientIndex<L: StoredLease> {
    key_of: KeyOf<L>,
    order_of: fn(&Packed<'_, L>) -> u32,
    ignore_case: bool,
    hasher: RandomState,
    /// Which table a hash belongs to. The tables have different shares, so that they do not grow all at the same time.
    choice: Box<[u8]>,
    tables: Box<[HashTable<Slot>]>,
    sets: Vec<OrderedMap<Member<L::Key>, ()>>,
    free_sets: Vec<usize>,
}

/// The leases that a string has.
pub(super) enum Found<'a, K> {
    None,
    One(BlockId),
    Several(&'a OrderedMap<Member<K>, ()>),
}

impl<L: StoredLease> ClientIndex<L> {
    /// An index by what `key_of` says, also regardless of the case of its letters.
    pub(super) fn new(key_of: KeyOf<L>, order_of: fn(&Packed<'_, L>) -> u32, ignore_case: bool) -> Self {
        Self {
            key_of,
            order_of,
            ignore_case,
            hasher: RandomState::default(),
            choice: shares(),
            tables: std::iter::repeat_with(HashTable::new).take(TABLES).collect(),
            sets: Vec::new(),
            free_sets: Vec::new(),
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        hash(&self.hasher, key, self.ignore_case)
    }

    fn table_of(&self, hash: u64) -> usize {
        let choice = usize::try_from(hash >> CHOICE_SHIFT).unwrap_or(0) & (self.choice.len() - 1);
        self.choice[choice].into()
    }

    /// The leases that have a string.
    pub(super) fn find(&self, records: &Records<L>, key: &[u8]) -> Found<'_, L::Key> {
        if key.is_empty() {
            return Found::None;
        }
        let hash = self.hash(key);
        let table = &self.tables[self.table_of(hash)];
        match table.find(hash, |&slot| self.is_of(records, slot, key)).map(|slot| slot.holder()) {
            None => Found::None,
            Some(Holder::Block(id)) => Found::One(id),
            Some(Holder::Set(n)) => Found::Several(&self.sets[n]),
        }
    }

    /// Takes a lease in, whose block holds it already.
    pub(super) fn insert(&mut self, records: &Records<L>, id: BlockId) {
        let packed = records.packed(id);
        let key = (self.key_of)(&packed);
        if key.is_empty() {
            return;
        }
        let hash = self.hash(key);
        let table = self.table_of(hash);
        let found = self.tables[table].find(hash, |&slot| self.is_of(records, slot, key)).copied();
        match found.map(Slot::holder) {
            None => {
                let Self { tables, sets, hasher, key_of, ignore_case, .. } = self;
                let rehash = |&slot: &Slot| {
                    owner_of(records, sets, slot)
                        .map_or(0, |owner| self::hash(hasher, key_of(&owner), *ignore_case))
                };
                tables[table].insert_unique(hash, Slot::block(id), rehash);
            }
            Some(Holder::Set(n)) => {
                self.sets[n].insert(((self.order_of)(&packed), packed.key()), ());
            }
            Some(Holder::Block(other)) => {
                let other_packed = records.packed(other);
                let mut set = OrderedMap::default();
                set.insert(((self.order_of)(&other_packed), other_packed.key()), ());
                set.insert(((self.order_of)(&packed), packed.key()), ());
                let n = self.free_sets.pop().unwrap_or(self.sets.len());
                if n == self.sets.len() {
                    self.sets.push(set);
                } else {
                    self.sets[n] = set;
                }
                // There are less sets than leases, and these have 31 bits.
                let number = SET | u32::try_from(n).unwrap_or(0);
                self.replace(table, hash, Slot::block(other), Slot(number));
            }
        }
    }

    /// Lets go of a lease, while its block still holds it and the records still find it.
    pub(super) fn remove(&mut self, records: &Records<L>, id: BlockId) {
        let packed = records.packed(id);
        let key = (self.key_of)(&packed);
        if key.is_empty() {
            return;
        }
        let hash = self.hash(key);
        let table = self.table_of(hash);
        let found = self.tables[table].find(hash, |&slot| self.is_of(records, slot, key)).copied();
        match found.map(Slot::holder) {
            Some(Holder::Block(_)) => {
                if let Ok(entry) = self.tables[table].find_entry(hash, |&slot| slot == Slot::block(id)) {
                    entry.remove();
                }
                self.shrink(records, table);
            }
            Some(Holder::Set(n)) => {
                self.sets[n].remove(((self.order_of)(&packed), packed.key()));
                if self.sets[n].len() == 1
                    && let Some(((_, last), ())) = self.sets[n].first()
                    && let Some(last) = records.block_of(last)
                {
                    self.sets[n].clear();
                    self.free_sets.push(n);
                    let number = SET | u32::try_from(n).unwrap_or(0);
                    self.replace(table, hash, Slot(number), Slot::block(last));
                }
            }
            None => {}
        }
    }

    /// Follows a lease, which both blocks hold, to another block.
    pub(super) fn relocate(&mut self, records: &Records<L>, old: BlockId, new: BlockId) {
        let key = (self.key_of)(&records.packed(new));
        if !key.is_empty() {
            let hash = self.hash(key);
            self.replace(self.table_of(hash), hash, Slot::block(old), Slot::block(new));
        }
    }

    /// Makes room for so many strings.
    pub(super) fn reserve(&mut self, records: &Records<L>, additional: usize) {
        let Self { tables, sets, hasher, key_of, ignore_case, choice, .. } = self;
        let rehash = |&slot: &Slot| {
            owner_of(records, sets, slot).map_or(0, |owner| self::hash(hasher, key_of(&owner), *ignore_case))
        };
        for (n, table) in tables.iter_mut().enumerate() {
            let share = choice.iter().filter(|&&table| usize::from(table) == n).count();
            table.reserve(additional * share / choice.len(), rehash);
        }
    }

    /// Whether a lease is in it, or should be.
    pub(super) fn is_in(&self, records: &Records<L>, id: BlockId) -> bool {
        !(self.key_of)(&records.packed(id)).is_empty()
    }

    /// How many leases are in it.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let slots = self.tables.iter().flatten();
        slots
            .map(|slot| match slot.holder() {
                Holder::Block(_) => 1,
                Holder::Set(n) => self.sets[n].len(),
            })
            .sum()
    }

    /// How many bytes are allocated.
    pub(super) fn memory(&self) -> usize {
        let tables: usize = self.tables.iter().map(|table| table.allocation_size()).sum();
        let sets: usize = self.sets.iter().map(OrderedMap::memory).sum();
        tables + sets + self.sets.capacity() * size_of::<OrderedMap<Member<L::Key>, ()>>()
    }

    fn replace(&mut self, table: usize, hash: u64, old: Slot, new: Slot) {
        if let Some(slot) = self.tables[table].find_mut(hash, |&slot| slot == old) {
            *slot = new;
        }
    }

    /// Gives memory back that many strings took which are gone.
    fn shrink(&mut self, records: &Records<L>, table: usize) {
        const LEAST: usize = 64;
        let Self { tables, sets, hasher, key_of, ignore_case, .. } = self;
        let table = &mut tables[table];
        if table.capacity() > LEAST && table.len() < table.capacity() / 8 {
            table.shrink_to(table.len() * 2, |&slot| {
                owner_of(records, sets, slot)
                    .map_or(0, |owner| self::hash(hasher, key_of(&owner), *ignore_case))
            });
        }
    }

    fn is_of(&self, records: &Records<L>, slot: Slot, key: &[u8]) -> bool {
        owner_of(records, &self.sets, slot).is_some_and(|owner| {
            let own = (self.key_of)(&owner);
            own == key || (self.ignore_case && own.eq_ignore_ascii_case(key))
        })
    }
}

/// A lease that a slot stands for.
fn owner_of<'a, L: StoredLease>(
    records: &'a Records<L>,
    sets: &[OrderedMap<Member<L::Key>, ()>],
    slot: Slot,
) -> Option<Packed<'a, L>> {
    match slot.holder() {
        Holder::Block(id) => Some(records.packed(id)),
        Holder::Set(n) => {
            let ((_, key), ()) = sets[n].first()?;
            records.get(key)
        }
    }
}

fn hash(hasher: &RandomState, key: &[u8], ignore_case: bool) -> u64 {
    let key = if ignore_case && key.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(key.to_ascii_lowercase())
    } else {
        Cow::Borrowed(key)
    };
    // Without its length, which a hasher adds for a slice: the string is the whole key.
    let mut hasher = hasher.build_hasher();
    hasher.write(&key);
    hasher.finish()
}

/// Which table each choice goes to: the share of a table is 1.01 times that of the one before, and the last one has twice
/// the share of the first. Tables grow by doubling; so there is always one that has just grown and one that is about to.
fn shares() -> Box<[u8]> {
    let choices = 1_usize << CHOICE_BITS;
    let weight = |n: usize| 2_f64.powf(n as f64 / TABLES as f64);
    let total: f64 = (0..TABLES).map(weight).sum();
    let mut choice = Vec::with_capacity(choices);
    let mut sum = 0.0;
    for n in 0..TABLES {
        sum += weight(n);
        let table = n.to_le_bytes()[0];
        while choice.len() < choices && ((choice.len() + 1) as f64) <= sum / total * choices as f64 + 0.5 {
            choice.push(table);
        }
    }
    let last = (TABLES - 1).to_le_bytes()[0];
    choice.resize(choices, last);
    choice.into_boxed_slice()
}
