//! Locks that let changes of one address happen one after the other.

use std::hash::BuildHasher;

use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};

/// So many that the addresses of a few threads hardly ever share one; a power of two.
pub(super) const LOCKS: usize = 512;

/// A lock for every address; some share one.
///
/// It is held from the look at the old lease until the new one is in the journal and in memory. So the rows of an address
/// stand in the journal in the order of its changes, while changes of other addresses go on. Each has a cache line of its own: if
/// they shared one, it would wander between processors that change different addresses.
pub(super) struct RowLocks {
    hasher: RandomState,
    locks: Box<[CachePadded<Mutex<()>>]>,
}

impl RowLocks {
    pub(super) fn new() -> Self {
        let locks = std::iter::repeat_with(CachePadded::default).take(LOCKS).collect();
        Self { hasher: RandomState::default(), locks }
    }

    fn number(&self, key: impl std::hash::Hash) -> usize {
        self.hasher.hash_one(key) as usize % LOCKS
    }

    /// Waits for the lock of an address.
    pub(super) fn lock(&self, key: impl std::hash::Hash) -> MutexGuard<'_, ()> {
        self.locks[self.number(key)].lock()
    }

    /// Waits until no lease is being changed, and keeps it so.
    pub(super) fn lock_everything(&self) -> Vec<MutexGuard<'_, ()>> {
        // In the order in which several are locked.
        self.locks.iter().map(|lock| lock.lock()).collect()
    }

    /// Waits for the locks of several addresses.
    pub(super) fn lock_all<K: std::hash::Hash>(
        &self,
        keys: impl Iterator<Item = K>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let mut numbers: Vec<_> = keys.map(|key| self.number(key)).collect();
        // Always in the same order, so that no two wait for each other.
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|n| self.locks[n].lock()).collect()
    }
}
