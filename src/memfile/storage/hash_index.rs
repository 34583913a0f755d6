//! A hash table of block numbers. It holds no keys: a caller passes the hash, and a closure that
//! recognizes the block.
//!
//! A look-up costs one cache miss: a cache line holds ten numbers and two bytes of the hash of
//! each. The table consists of many small ones, so that growing never takes long. A table usually
//! grows without access to the blocks of its numbers, which are anywhere in memory: one of the two
//! bytes holds the hash bits for the next seven doublings.

use super::prefetch::prefetch;
use crate::simd::Block;

/// Number of places in a bucket.
const WIDTH: usize = 10;
const ALL: u32 = (1 << WIDTH) - 1;
/// Maximum load, in sixteenths of the places, before a table grows.
const FULL: usize = 15;
/// Number of tables.
const TABLES: usize = 64;
/// Number of hash bits that choose the table. The lowest bits choose the bucket, the highest ones
/// are the tag.
const CHOICE_BITS: u32 = 12;
const CHOICE_SHIFT: u32 = 32;

/// Number of hash bits that are kept for when the table grows.
const SPARE_BITS: u32 = 7;
const SPARE: u8 = (1 << SPARE_BITS) - 1;
/// Flag of a number that is in a bucket after its own.
const DISPLACED: u8 = 1 << SPARE_BITS;

/// A bucket in one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// A byte of the hash of each number, 0 for a free place; then the spare bits of each hash,
    /// with the flag `DISPLACED`.
    tags: [u8; 2 * WIDTH],
    /// Count of the numbers that belong into this bucket or one before it, but are in a bucket
    /// after it.
    overflowed: u32,
    numbers: [u32; WIDTH],
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; 2 * WIDTH], overflowed: 0, numbers: [0; WIDTH] };

    /// Returns a bit for each place with this tag.
    #[inline(always)]
    fn places(&self, tag: u8) -> u32 {
        self.tags.first_chunk().map_or(0, |tags| Block::load(tags).is(tag) & ALL)
    }

    #[inline(always)]
    fn spare(&self, place: usize) -> u8 {
        self.tags[WIDTH + place]
    }

    /// Returns the places in use.
    fn in_use(&self) -> impl Iterator<Item = usize> + use<> {
        let mut places = !self.places(0) & ALL;
        std::iter::from_fn(move || {
            let place = (places != 0).then_some(places.trailing_zeros() as usize)?;
            places &= places - 1;
            Some(place)
        })
    }

    /// Returns the numbers in the bucket.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.in_use().map(|place| self.numbers[place])
    }

    /// Returns the numbers that belong into another bucket.
    fn displaced(&self) -> impl Iterator<Item = u32> {
        self.in_use().filter(|&place| self.spare(place) & DISPLACED != 0).map(|place| self.numbers[place])
    }

    /// Adds a number. Returns `false` if the bucket is full.
    #[inline]
    fn put(&mut self, tag: u8, spare: u8, number: u32) -> bool {
        let free = self.places(0);
        if free == 0 {
            return false;
        }
        let place = free.trailing_zeros() as usize;
        (self.tags[place], self.tags[WIDTH + place], self.numbers[place]) = (tag, spare, number);
        true
    }
}

/// Returns the tag of a hash, which is never 0.
#[inline(always)]
fn tag_of(hash: u64) -> u8 {
    let [.., top] = hash.to_le_bytes();
    top.max(1)
}

/// Access to the hashes of the numbers.
pub(super) trait Hashed {
    /// Returns the hash of a number.
    fn hash(&self, number: u32) -> u64;

    /// Prefetches the memory that the hash depends on.
    fn prefetch(&self, number: u32);
}

/// A power-of-two number of buckets, or none.
#[derive(Default)]
#[repr(align(32))]
struct Table {
    buckets: Box<[Bucket]>,
    len: u32,
    /// The first spare bit of the hashes. At least this number of bits choose the bucket.
    spare_from: u32,
}

impl Table {
    /// Creates an empty table.
    fn new(buckets: usize) -> Self {
        Self { buckets: vec![Bucket::EMPTY; buckets].into(), len: 0, spare_from: buckets.trailing_zeros() }
    }

    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline(always)]
    fn start(&self, hash: u64) -> usize {
        // The number of buckets is far below 2^32.
        hash as u32 as usize & (self.buckets.len() - 1)
    }

    #[inline(always)]
    fn spare(&self, hash: u64) -> u8 {
        (hash >> self.spare_from).to_le_bytes()[0] & SPARE
    }

    #[inline]
    fn find(&self, hash: u64, mut matches: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
        if self.buckets.is_empty() {
            return None;
        }
        let (tag, spare) = (tag_of(hash), self.spare(hash));
        let mut at = self.start(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut places = bucket.places(tag);
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                if bucket.spare(place) & SPARE == spare && matches(bucket.numbers[place]) {
                    return Some((at, place));
                }
                places &= places - 1;
            }
            if bucket.overflowed == 0 {
                return None;
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
        None
    }

    /// Adds a number. There must be a free place.
    #[inline]
    fn put(&mut self, hash: u64, number: u32) {
        let (tag, mut spare) = (tag_of(hash), self.spare(hash));
        let mut at = self.start(hash);
        let last = self.buckets.len() - 1;
        while !self.buckets[at].put(tag, spare, number) {
            spare |= DISPLACED;
            self.buckets[at].overflowed += 1;
            at = (at + 1) & last;
        }
        self.len += 1;
    }

    /// Removes the number with this hash at a place.
    fn remove(&mut self, hash: u64, (found, place): (usize, usize)) {
        let last = self.buckets.len() - 1;
        let mut at = self.start(hash);
        while at != found {
            self.buckets[at].overflowed -= 1;
            at = (at + 1) & last;
        }
        self.buckets[found].tags[place] = 0;
        self.len -= 1;
    }

    /// Returns the number of buckets for `len` numbers.
    fn buckets_for(len: usize) -> usize {
        (len * 16).div_ceil(WIDTH * FULL).next_power_of_two()
    }

    fn grow(&mut self, hashed: &impl Hashed) {
        let half = self.buckets.len();
        let bit = half.trailing_zeros().wrapping_sub(self.spare_from);
        if half == 0 || bit >= SPARE_BITS {
            return self.resize((half * 2).max(1), hashed);
        }
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; half * 2].into());
        // A number in its own bucket goes to the bucket of the same index, or to the one `half`
        // buckets after it.
        for (at, bucket) in old.iter().enumerate() {
            for place in bucket.in_use().filter(|&place| bucket.spare(place) & DISPLACED == 0) {
                let spare = bucket.spare(place);
                let at = at + half * usize::from(spare >> bit & 1);
                let has_place = self.buckets[at].put(bucket.tags[place], spare, bucket.numbers[place]);
                debug_assert!(has_place, "they come from one bucket only");
            }
        }
        // Numbers that are added now may be displaced again. They have been counted already.
        let len = self.len;
        self.put_all(&old, Bucket::displaced, hashed);
        self.len = len;
    }

    /// Adds some numbers of other buckets.
    fn put_all<'a, N: Iterator<Item = u32>>(
        &mut self,
        buckets: &'a [Bucket],
        numbers: impl Fn(&'a Bucket) -> N,
        hashed: &impl Hashed,
    ) {
        /// Number of buckets whose numbers are prefetched together, before their hashes are
        /// computed.
        const STEP: usize = 8;
        for buckets in buckets.chunks(STEP) {
            buckets.iter().flat_map(&numbers).for_each(|number| hashed.prefetch(number));
            for number in buckets.iter().flat_map(&numbers) {
                self.put(hashed.hash(number), number);
            }
        }
    }

    fn resize(&mut self, buckets: usize, hashed: &impl Hashed) {
        let old = std::mem::replace(self, Self::new(buckets)).buckets;
        self.put_all(&old, Bucket::numbers, hashed);
    }
}

/// A hash table of numbers.
pub(super) struct HashIndex {
    /// The table of each choice. The tables have different shares, so that they do not all grow at
    /// the same time.
    choice: Box<[u8]>,
    tables: Box<[Table]>,
}

impl HashIndex {
    pub(super) fn new() -> Self {
        let tables = std::iter::repeat_with(Table::default).take(TABLES).collect();
        Self { choice: shares(), tables }
    }

    #[inline(always)]
    fn table(&self, hash: u64) -> usize {
        let choice = (hash >> CHOICE_SHIFT) as u32 & ((1 << CHOICE_BITS) - 1);
        self.choice[choice as usize].into()
    }

    /// Prefetches the buckets of a hash, while the caller does other work.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) {
        let table = &self.tables[self.table(hash)];
        if !table.buckets.is_empty() {
            let at = table.start(hash);
            prefetch(&table.buckets[at]);
            prefetch(&table.buckets[(at + 1) & (table.buckets.len() - 1)]);
        }
    }

    /// Returns the number with this hash that `matches`.
    #[inline]
    pub(super) fn find(&self, hash: u64, matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = &self.tables[self.table(hash)];
        table.find(hash, matches).map(|(bucket, place)| table.buckets[bucket].numbers[place])
    }

    /// Adds a number. `hashed` returns the hashes of the numbers in the table.
    pub(super) fn insert(&mut self, hash: u64, number: u32, hashed: &impl Hashed) {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        if (table.len() + 1) * 16 > table.buckets.len() * WIDTH * FULL {
            table.grow(hashed);
        }
        table.put(hash, number);
    }

    /// Finds the number with this hash that `matches`, and removes it if `removes` returns `true`.
    pub(super) fn find_and_remove(
        &mut self,
        hash: u64,
        matches: impl FnMut(u32) -> bool,
        removes: impl FnOnce(u32) -> bool,
        hashed: &impl Hashed,
    ) -> Option<u32> {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        let place = table.find(hash, matches)?;
        let number = table.buckets[place.0].numbers[place.1];
        if removes(number) {
            table.remove(hash, place);
            // Memory is freed when a sixteenth of it is used: with a higher threshold, deleting
            // many leases would access a third of them again.
            if table.len() * 256 < table.buckets.len() * WIDTH * FULL {
                table.resize(Table::buckets_for(table.len() * 2).min(table.buckets.len()), hashed);
            }
        }
        Some(number)
    }

    /// Replaces a number by another with the same hash.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        if let Some((bucket, place)) = table.find(hash, |number| number == old) {
            table.buckets[bucket].numbers[place] = new;
        }
    }

    /// Reserves memory for `len` numbers, in an empty table.
    pub(super) fn reserve(&mut self, len: usize) {
        if len == 0 {
            return;
        }
        for (n, table) in self.tables.iter_mut().enumerate().filter(|(_, table)| table.len == 0) {
            // The choices are in the order of their tables.
            let before = |n| self.choice.partition_point(|&table| usize::from(table) < n);
            let share = before(n + 1) - before(n);
            *table = Table::new(Table::buckets_for(len * share / self.choice.len()));
        }
    }

    /// Returns all numbers.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.tables.iter().flat_map(|table| table.buckets.iter()).flat_map(Bucket::numbers)
    }

    /// Returns the number of allocated bytes.
    pub(super) fn memory(&self) -> usize {
        self.tables.iter().map(|table| table.buckets.len() * size_of::<Bucket>()).sum()
    }
}

/// Returns the table of each choice: the last table has twice the share of the first. As tables
/// grow by doubling, there is always one that has just grown, and one that is about to grow.
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
    choice.resize(choices, (TABLES - 1).to_le_bytes()[0]);
    choice.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<F: Fn(u32) -> u64> Hashed for F {
        fn hash(&self, number: u32) -> u64 {
            self(number)
        }

        fn prefetch(&self, _: u32) {}
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn the_last_table_has_twice_the_share_of_the_first() {
        let shares = shares();
        let count = |n: u8| shares.iter().filter(|&&table| table == n).count();
        let counts: Vec<_> = (0..64).map(count).collect();
        assert!(counts.windows(2).all(|pair| pair[1] + 1 >= pair[0]), "{counts:?}");
        assert!(counts[63] > counts[0] * 17 / 10 && counts[0] > 30, "{counts:?}");
    }

    #[test]
    fn memory_is_given_back() {
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut index = HashIndex::new();
        for n in 0..100_000 {
            index.insert(hash(n), n, &hash);
        }
        let full = index.memory();
        assert!(full < 100_000 * 12, "{full}");
        for n in 0..100_000 {
            index.find_and_remove(hash(n), |other| other == n, |_| true, &hash);
        }
        assert_eq!(index.iter().count(), 0);
        assert!(index.memory() < full / 10, "{} {full}", index.memory());
    }

    proptest! {
        /// Few different hashes make buckets overflow into each other, also from the last into the
        /// first.
        #[test]
        fn added_numbers_are_found(
            steps in proptest::collection::vec((any::<bool>(), 0..4_u64, 0..3_u64, any::<prop::sample::Index>()), 1..400),
        ) {
            let mut index = HashIndex::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (n, (add, low, high, which)) in (0_u32..).zip(steps) {
                if add || model.is_empty() {
                    let hash = high << 56 | low.wrapping_sub(2) & 0xffff_ffff;
                    model.insert(n, hash);
                    index.insert(hash, n, &|n| model[&n]);
                } else {
                    let n = *model.keys().nth(which.index(model.len())).unwrap();
                    index.find_and_remove(model[&n], |other| other == n, |_| true, &|n| model[&n]);
                    model.remove(&n);
                }
                let mut all: Vec<_> = index.iter().collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.keys().copied().collect::<Vec<_>>());
                for (&n, &hash) in &model {
                    prop_assert_eq!(index.find(hash, |other| other == n), Some(n));
                }
            }
        }
    }
}
