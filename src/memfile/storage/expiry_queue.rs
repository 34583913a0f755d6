//! The ends of leases, in order.
//!
//! Every lease that is not infinite is in one of two queues: one for reclaimed leases, and one for
//! the others. A renewed lease keeps its place in the queue, and its record holds the number of
//! seconds by which the place is too early (the lag). A thread that reaches the place moves it on.
//! So a renewal changes no queue, and leases that are not renewed are in their right place.

use std::cmp::Ordering;
use std::ops::Bound;

use super::b_tree::OrderedMap;

/// The epoch as a number in the order of the queues: an offset makes times before it numbers as
/// well.
const EPOCH: u64 = (1 << 63) - (1 << 32);

/// Returns the time at which a lease ends. It must not be infinite.
#[inline]
pub(super) fn end(cltt: i64, valid_lifetime: u32) -> u64 {
    // Ends range from i64::MIN to 2^32 beyond i64::MAX, which exceeds 64 bits: the first 2^32 map
    // to one number.
    let start = cltt.cast_unsigned() ^ (1 << 63);
    start.saturating_sub((1 << 32) - u64::from(valid_lifetime))
}

/// Returns the number for a time in seconds since the epoch.
pub(super) fn moment(time: i64) -> u64 {
    EPOCH.saturating_add_signed(time)
}

/// A place in a queue: the time, in two halves to avoid padding, and the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::memfile) struct Place<K> {
    low: u32,
    high: u32,
    pub(super) key: K,
}

impl<K: Ord> Ord for Place<K> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // One number compares faster than two halves.
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

    /// Returns the time.
    #[inline]
    pub(super) fn time(&self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

/// Addresses by the time at which their leases end, or by an earlier one.
#[derive(Debug)]
pub(super) struct ExpiryQueue<K>(OrderedMap<Place<K>, ()>);

impl<K: Copy + Ord> Default for ExpiryQueue<K> {
    fn default() -> Self {
        Self(OrderedMap::default())
    }
}

impl<K: Copy + Ord> ExpiryQueue<K> {
    pub(super) fn insert(&mut self, time: u64, key: K) {
        self.0.insert(Place::new(time, key), ());
    }

    pub(super) fn remove(&mut self, time: u64, key: K) {
        self.0.remove(Place::new(time, key));
    }

    /// Returns the first `count` places up to a time, after the place `after`.
    pub(super) fn until(&self, time: u64, after: Option<Place<K>>, count: usize) -> Vec<Place<K>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.0.iter_from(from).map(|(place, ())| place);
        places.take_while(|place| place.time() <= time).take(count).collect()
    }

    /// Fills an empty queue.
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LONGEST: u32 = u32::MAX - 1;

    #[rstest]
    #[case(0, 0)]
    #[case(-300, 200)]
    #[case(-300, 301)]
    #[case(1_790_000_000, 3600)]
    #[case(i64::MAX, LONGEST)]
    #[case(i64::MIN + (1 << 32), 1)]
    #[case(i64::MIN, LONGEST)]
    #[case(i64::MIN, 1)]
    fn a_lease_has_ended_from_its_end_on(#[case] cltt: i64, #[case] valid_lifetime: u32) {
        let ends = i128::from(cltt) + i128::from(valid_lifetime);
        for now in [ends - 1, ends, ends + 1, 0, i128::from(i64::MAX), -1_000_000_000_000] {
            // The first 2^32 seconds of the range map to one number.
            if let Ok(now) = i64::try_from(now)
                && now >= i64::MIN + (1 << 32)
            {
                let has_ended = end(cltt, valid_lifetime) <= moment(now);
                assert_eq!(has_ended, ends <= i128::from(now), "at {now}");
            }
        }
    }

    #[test]
    fn ends_are_ordered_as_times_are() {
        let times = [
            (i64::MIN + (1 << 32), 1),
            (-(1 << 40), 0),
            (-301, 1),
            (-300, 200),
            (-1, 0),
            (-10, 10),
            (0, 1),
            (-10, 20),
            (1_790_000_000, 3600),
            (1 << 40, LONGEST),
            (i64::MAX - 10, 5),
            (i64::MAX, 0),
            (i64::MAX, LONGEST),
        ];
        let ends = times.map(|(cltt, valid_lifetime)| end(cltt, valid_lifetime));
        assert!(ends.is_sorted_by(|a, b| a < b), "{ends:?}");
    }
}
