//! A hash table of block numbers, which keeps no keys: it is asked with the hash, and with what tells whether a block is the one.
//!
//! A look-up costs one cache miss: ten numbers and two bytes of the hash of each make up a cache line. The table is many
//! small ones, so that growing never takes long. A table mostly grows without a look at what its numbers stand for, which is anywhere
//! in memory: one of the two bytes holds the bits of the hash that the next seven doublings need.

use super::prefetch::prefetch;
use crate::simd::Block;

/// How many numbers a bucket holds.
const WIDTH: usize = 10;
const ALL: u32 = (1 << WIDTH) - 1;
/// So many of 16 places are in use before a table grows.
const FULL: usize = 15;
/// How many tables there are.
const TABLES: usize = 64;
/// The bits of a hash that choose the table; the lowest ones choose the bucket, the highest ones are its tag.
const CHOICE_BITS: u32 = 12;
const CHOICE_SHIFT: u32 = 32;

/// How many bits of the hash are kept for when the table grows.
const SPARE_BITS: u32 = 7;
const SPARE: u8 = (1 << SPARE_BITS) - 1;
/// The number found its place in a bucket behind its own.
const AWAY: u8 = 1 << SPARE_BITS;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// A byte of the hash of each number, 0 where there is none; and then spare bits of the hash of each, and whether it is `AWAY`.
    tags: [u8; 2 * WIDTH],
    /// How many numbers belong here or before, but found their place behind.
    passed: u32,
    numbers: [u32; WIDTH],
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; 2 * WIDTH], passed: 0, numbers: [0; WIDTH] };

    /// A bit for each place with this tag.
    #[inline(always)]
    fn places(&self, tag: u8) -> u32 {
        self.tags.first_chunk().map_or(0, |tags| Block::load(tags).is(tag) & ALL)
    }

    #[inline(always)]
    fn spare(&self, place: usize) -> u8 {
        self.tags[WIDTH + place]
    }

    /// The places in use.
    fn in_use(&self) -> impl Iterator<Item = usize> + use<> {
        let mut places = !self.places(0) & ALL;
        std::iter::from_fn(move || {
            let place = (places != 0).then_some(places.trailing_zeros() as usize)?;
            places &= places - 1;
            Some(place)
        })
    }

    /// Its numbers.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.in_use().map(|place| self.numbers[place])
    }

    /// Those of its numbers that belong to another one.
    fn away(&self) -> impl Iterator<Item = u32> {
        self.in_use().filter(|&place| self.spare(place) & AWAY != 0).map(|place| self.numbers[place])
    }

    /// Puts a number in, if there is a place.
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

/// The tag of a hash: never 0.
#[inline(always)]
fn tag_of(hash: u64) -> u8 {
    let [.., top] = hash.to_le_bytes();
    top.max(1)
}

/// What numbers stand for.
pub(super) trait Hashed {
    /// The hash of what a number stands for.
    fn hash(&self, number: u32) -> u64;

    /// Has the processor fetch what that depends on.
    fn fetch(&self, number: u32);
}

/// Buckets, as many as a power of two; or none.
#[derive(Default)]
#[repr(align(32))]
struct Table {
    buckets: Box<[Bucket]>,
    len: u32,
    /// The spare bits of the hashes begin with this one. No fewer bits choose the bucket.
    spare_from: u32,
}

impl Table {
    /// An empty one.
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
    fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<(usize, usize)> {
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
                if bucket.spare(place) & SPARE == spare && is_it(bucket.numbers[place]) {
                    return Some((at, place));
                }
                places &= places - 1;
            }
            if bucket.passed == 0 {
                return None;
            }
            at = (at + 1) & (self.buckets.len() - 1);
        }
        None
    }

    /// Puts a number in, for which there is a place.
    #[inline]
    fn put(&mut self, hash: u64, number: u32) {
        let (tag, mut spare) = (tag_of(hash), self.spare(hash));
        let mut at = self.start(hash);
        let last = self.buckets.len() - 1;
        while !self.buckets[at].put(tag, spare, number) {
            spare |= AWAY;
            self.buckets[at].passed += 1;
            at = (at + 1) & last;
        }
        self.len += 1;
    }

    /// Takes out the number at a place, which has this hash.
    fn remove(&mut self, hash: u64, (found, place): (usize, usize)) {
        let last = self.buckets.len() - 1;
        let mut at = self.start(hash);
        while at != found {
            self.buckets[at].passed -= 1;
            at = (at + 1) & last;
        }
        self.buckets[found].tags[place] = 0;
        self.len -= 1;
    }

    /// How many buckets so many numbers take.
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
        // Those in their own bucket go to the one of the same number, or as far behind as there were buckets.
        for (at, bucket) in old.iter().enumerate() {
            for place in bucket.in_use().filter(|&place| bucket.spare(place) & AWAY == 0) {
                let spare = bucket.spare(place);
                let at = at + half * usize::from(spare >> bit & 1);
                let has_place = self.buckets[at].put(bucket.tags[place], spare, bucket.numbers[place]);
                debug_assert!(has_place, "they come from one bucket only");
            }
        }
        // What is put in now may be away again. It is counted already.
        let len = self.len;
        self.put_all(&old, Bucket::away, hashed);
        self.len = len;
    }

    /// Puts some numbers of other buckets in.
    fn put_all<'a, N: Iterator<Item = u32>>(
        &mut self,
        buckets: &'a [Bucket],
        numbers: impl Fn(&'a Bucket) -> N,
        hashed: &impl Hashed,
    ) {
        /// Of so many buckets at a time, what their numbers stand for is fetched together before the hashes are asked for one by one.
        const STEP: usize = 8;
        for buckets in buckets.chunks(STEP) {
            buckets.iter().flat_map(&numbers).for_each(|number| hashed.fetch(number));
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
    /// Which table a hash belongs to. The tables have different shares, so that they do not grow all at the same time.
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

    /// Has the processor fetch what is needed for a hash, while other things are done.
    #[inline(always)]
    pub(super) fn fetch(&self, hash: u64) {
        let table = &self.tables[self.table(hash)];
        if !table.buckets.is_empty() {
            let at = table.start(hash);
            prefetch(&table.buckets[at]);
            prefetch(&table.buckets[(at + 1) & (table.buckets.len() - 1)]);
        }
    }

    /// The number with this hash that is the one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = &self.tables[self.table(hash)];
        table.find(hash, is_it).map(|(bucket, place)| table.buckets[bucket].numbers[place])
    }

    /// Adds a number. `hashed` tells the hashes of those that are there.
    pub(super) fn insert(&mut self, hash: u64, number: u32, hashed: &impl Hashed) {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        if (table.len() + 1) * 16 > table.buckets.len() * WIDTH * FULL {
            table.grow(hashed);
        }
        table.put(hash, number);
    }

    /// Finds the number with this hash that is the one, and takes it out if it `goes`.
    pub(super) fn find_and_remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(u32) -> bool,
        goes: impl FnOnce(u32) -> bool,
        hashed: &impl Hashed,
    ) -> Option<u32> {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        let place = table.find(hash, is_it)?;
        let number = table.buckets[place.0].numbers[place.1];
        if goes(number) {
            table.remove(hash, place);
            // Memory that many numbers took is given back, when a sixteenth of it is in use: sooner, deleting many leases
            // would look at a third of them once more.
            if table.len() * 256 < table.buckets.len() * WIDTH * FULL {
                table.resize(Table::buckets_for(table.len() * 2).min(table.buckets.len()), hashed);
            }
        }
        Some(number)
    }

    /// Puts a number in the place of another with the same hash.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let table = self.table(hash);
        let table = &mut self.tables[table];
        if let Some((bucket, place)) = table.find(hash, |number| number == old) {
            table.buckets[bucket].numbers[place] = new;
        }
    }

    /// Makes room for so many numbers, in an empty one.
    pub(super) fn reserve(&mut self, len: usize) {
        for (n, table) in self.tables.iter_mut().enumerate() {
            let share = self.choice.iter().filter(|&&table| usize::from(table) == n).count();
            if len > 0 && table.len == 0 {
                *table = Table::new(Table::buckets_for(len * share / self.choice.len()));
            }
        }
    }

    /// All numbers.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.tables.iter().flat_map(|table| table.buckets.iter()).flat_map(Bucket::numbers)
    }

    /// How many bytes are allocated.
    pub(super) fn memory(&self) -> usize {
        self.tables.iter().map(|table| table.buckets.len() * size_of::<Bucket>()).sum()
    }
}

/// Which table each choice goes to: the last table has twice the share of the first. Tables grow by doubling; so there is always
/// one that has just grown, and one that is about to.
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

        fn fetch(&self, _: u32) {}
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
        /// With hashes of few values, so that buckets overflow into each other, also around the end.
        #[test]
        fn what_was_put_in_is_found(
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
