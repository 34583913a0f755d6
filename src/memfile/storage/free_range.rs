//! The lowest free address of a range.
//!
//! The leaves of a tree hold the leases in the order of their addresses. Each leaf records when the
//! first of its addresses becomes free, so most full leaves are skipped without looking at their
//! leases. The recorded time is never too late, but may be too early: a renewal does not change it.
//! A search that finds it too early examines the leases of the leaf and corrects it, which happens
//! about once per leaf in the lifetime of its leases.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Storage;
use super::b_tree::Summary;
use super::expiry_queue::moment;
use super::packed_lease::{Packed, StoredLease};
use crate::lease::LeaseState;
use crate::lease_mgr::{FreeRange, Gap};

/// The time at which the first of several addresses becomes free, as a number of the expiry queues.
#[derive(Debug)]
pub(super) struct FreeFrom(AtomicU64);

impl FreeFrom {
    /// Returns the time for the address of a lease: at once if it is reclaimed, else when it ends.
    pub(super) fn of<L: StoredLease>(lease: &Packed<'_, L>) -> Self {
        Self(free_from(lease).into())
    }

    /// Resets the summary to that of unexamined leases.
    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for FreeFrom {
    fn clone(&self) -> Self {
        Self(self.get().into())
    }
}

impl Summary for FreeFrom {
    fn none() -> Self {
        Self(u64::MAX.into())
    }

    fn unknown() -> Self {
        Self(0.into())
    }

    fn join(&self, other: &Self) {
        // A thread that changes the storage has exclusive access.
        self.0.store(self.get().min(other.get()), Ordering::Relaxed);
    }
}

/// Returns the time at which the address of a lease becomes free; `u64::MAX` if its lifetime is
/// infinite.
pub(super) fn free_from<L: StoredLease>(lease: &Packed<'_, L>) -> u64 {
    if lease.state() == LeaseState::EXPIRED_RECLAIMED {
        return 0;
    }
    lease.end().unwrap_or(u64::MAX)
}

fn is_free(from: u64, now: u64) -> bool {
    from <= now && from != u64::MAX
}

/// The result of a step of a search.
pub(in crate::memfile) enum Step<L: StoredLease> {
    /// The address is free.
    Free(L::Address),
    /// All addresses before this one are occupied.
    OccupiedTo(L::Address),
    /// No address is free.
    Full,
}

impl<L: StoredLease> fmt::Debug for Step<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free(address) => write!(f, "Free({address})"),
            Self::OccupiedTo(address) => write!(f, "OccupiedTo({address})"),
            Self::Full => f.write_str("Full"),
        }
    }
}

impl<L: StoredLease> Storage<L> {
    /// Searches a range for the lowest address, not below `from`, that is free at `now` (seconds
    /// since the epoch). Examines the leases of at most `budget` leaves.
    pub(in crate::memfile) fn first_free(
        &self,
        range: &FreeRange<L>,
        from: L::Address,
        now: i64,
        mut budget: usize,
    ) -> Step<L> {
        let now = moment(now);
        let Some(mut next) = range.from(from) else {
            return Step::Full;
        };
        let is_dense = range.step() == 1;
        for leaf in self.primary.leaves_from(L::key_of(next)) {
            let (Some(&first), Some(&last)) = (leaf.keys.first(), leaf.keys.last()) else {
                continue;
            };
            let key = L::key_of(next);
            if last < key {
                continue;
            }
            if first > key {
                return Step::Free(next);
            }
            let is_occupied = !is_free(leaf.summary.get(), now);
            let bits = |key| L::bits_of(L::address_of(key));
            let has_no_gap = is_dense && bits(last) - bits(first) == (leaf.keys.len() - 1) as u128;
            let gap = if is_occupied && has_no_gap {
                range.after(L::address_of(last)).map_or(Gap::None, Gap::After)
            } else if is_occupied {
                range.lowest_gap(next, leaf.keys.iter().map(|&key| L::address_of(key)))
            } else {
                if budget == 0 {
                    return Step::OccupiedTo(next);
                }
                budget -= 1;
                let mut earliest = u64::MAX;
                let mut occupied = leaf.keys.iter().zip(leaf.values).filter_map(|(&key, &id)| {
                    let from = free_from(&self.primary.packed(id));
                    earliest = earliest.min(from);
                    (!is_free(from, now)).then(|| L::address_of(key))
                });
                let gap = range.lowest_gap(next, occupied.by_ref());
                // The remaining leases are examined as well, to correct the recorded time.
                occupied.for_each(drop);
                leaf.summary.0.store(earliest, Ordering::Relaxed);
                gap
            };
            match gap {
                Gap::Found(address) => return Step::Free(address),
                Gap::After(address) => next = address,
                Gap::None => return Step::Full,
            }
        }
        Step::Free(next)
    }
}
