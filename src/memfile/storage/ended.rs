//! Finding the leases that have ended.

use super::Storage;
use super::expiry_queue::{Place, moment};
use super::packed_lease::{Packed, StoredLease, set_lag};
use crate::lease::LeaseState;
use crate::lease_file::row::private::RowFormat;

/// The queues of ending leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::memfile) enum ExpiryKind {
    /// The queue of leases that are not reclaimed.
    Expiring,
    /// The queue of reclaimed leases.
    Reclaimed,
}

impl ExpiryKind {
    pub(super) fn of(state: LeaseState) -> Self {
        if state == LeaseState::EXPIRED_RECLAIMED { Self::Reclaimed } else { Self::Expiring }
    }

    /// Returns whether the lease belongs in this queue, and has ended at `time` (seconds since the
    /// epoch).
    pub(in crate::memfile) fn has_ended<L: StoredLease>(self, packed: &Packed<'_, L>, time: i64) -> bool {
        Self::of(packed.state()) == self && packed.end().is_some_and(|end| end <= moment(time))
    }
}

/// What was asked for of leases that have ended, with their places in the queue.
pub(in crate::memfile) type Ended<L, T> = Vec<(Place<<L as RowFormat>::AddressKey>, T)>;

/// Some leases of a queue are in a place that is too early.
#[derive(Debug)]
pub(in crate::memfile) struct Misplaced;

impl<L: StoredLease> Storage<L> {
    /// Returns what `of` returns for the leases of a queue that have ended at `time` (seconds since
    /// the epoch), after the place `after`, at most `count`.
    pub(in crate::memfile) fn ended<T>(
        &self,
        queue: ExpiryKind,
        time: i64,
        after: Option<Place<L::AddressKey>>,
        count: usize,
        of: impl Fn(Packed<'_, L>) -> T,
    ) -> Result<Ended<L, T>, Misplaced> {
        let places = self.queues[queue as usize].until(moment(time), after, count);
        let leases = places.into_iter().filter_map(|place| Some((place, self.primary.get(place.key)?)));
        leases
            .map(|(place, packed)| if packed.lag() == 0 { Ok((place, of(packed))) } else { Err(Misplaced) })
            .collect()
    }

    /// Moves those of the first `count` leases of a queue whose place is too early to their right
    /// place.
    pub(in crate::memfile) fn fix_places(
        &mut self,
        queue: ExpiryKind,
        time: i64,
        after: Option<Place<L::AddressKey>>,
        count: usize,
    ) {
        let queue = &mut self.queues[queue as usize];
        for place in queue.until(moment(time), after, count) {
            let Some(id) = self.primary.block_of(place.key) else {
                continue;
            };
            let lag = self.primary.packed(id).lag();
            if lag > 0 {
                queue.remove(place.time(), place.key);
                queue.insert(place.time().wrapping_add(lag.into()), place.key);
                set_lag(self.primary.arena.get_mut(id), 0);
            }
        }
    }
}
