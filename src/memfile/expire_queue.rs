//! When leases end, in the order in which they do.
//!
//! Every lease that is not infinite stands in one of two queues: of those that are reclaimed already, and of the others. A
//! renewed lease keeps its place: its record says by how many seconds that is too early (the lag), and who comes
//! to the place moves it on. So a renewal changes no queue, and what is not renewed is where it belongs.

use std::cmp::Ordering;
use std::ops::Bound;

use super::ordered::OrderedMap;

/// A place in a queue: the time, in two halves so that it takes no more room than it must, and the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<K> {
    low: u32,
    high: u32,
    pub(super) key: K,
}

impl<K: Ord> Ord for Place<K> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // As one number, which compares faster than two halves.
        self.time().cmp(&other.time()).then_with(|| self.key.cmp(&other.key))
    }
}

impl<K: Ord> PartialOrd for Place<K> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Place<K> {
    pub(super) fn new(time: u64, key: K) -> Self {
        let [a, b, c, d, e, f, g, h] = time.to_le_bytes();
        Self { low: u32::from_le_bytes([a, b, c, d]), high: u32::from_le_bytes([e, f, g, h]), key }
    }

    /// The time, in seconds since the epoch.
    #[inline]
    pub(super) fn time(&self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

/// Addresses by the time at which their leases end, or by an earlier one.
#[derive(Debug)]
pub(super) struct ExpireQueue<K>(OrderedMap<Place<K>, ()>);

impl<K: Copy + Ord> Default for ExpireQueue<K> {
    fn default() -> Self {
        Self(OrderedMap::default())
    }
}

impl<K: Copy + Ord> ExpireQueue<K> {
    pub(super) fn insert(&mut self, time: u64, key: K) {
        self.0.insert(Place::new(time, key), ());
    }

    pub(super) fn remove(&mut self, time: u64, key: K) {
        self.0.remove(Place::new(time, key));
    }

    /// The first `count` places up to a time, from a place on.
    pub(super) fn until(&self, time: u64, after: Option<Place<K>>, count: usize) -> Vec<Place<K>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.0.iter_from(from).map(|(place, ())| place);
        places.take_while(|place| place.time() <= time).take(count).collect()
    }

    /// Puts places in, of which there are none yet.
    pub(super) fn fill(&mut self, mut places: Vec<Place<K>>) {
        places.sort_unstable();
        self.0 = OrderedMap::from_sorted(places.into_iter().map(|place| (place, ())));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.0.memory()
    }
}
