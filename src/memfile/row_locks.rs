//! Locks that serialize the changes of each address.

use std::hash::BuildHasher;

use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;

use crate::sync::{Mutex, MutexGuard};

#[cfg(test)]
#[cfg(shuttle)]
mod models;

/// Number of locks, a power of two. It is large enough that the addresses of a few threads rarely
/// share a lock; in the models they do.
pub(super) const LOCKS: usize = if cfg!(shuttle) { 4 } else { 512 };

/// A lock for every address; some addresses share one.
///
/// A lock is held from reading the old lease until the new one is in the journal and in memory. So
/// the rows of an address are in the journal in the order of its changes, while changes of other
/// addresses proceed. Each lock has a cache line of its own, to avoid false sharing between
/// processors that change different addresses.
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

    /// Waits until no lease is being changed, and blocks changes.
    pub(super) fn lock_everything(&self) -> Vec<MutexGuard<'_, ()>> {
        // In the order of `lock_all`, to avoid deadlocks.
        self.locks.iter().map(|lock| lock.lock()).collect()
    }

    /// Waits for the locks of several addresses.
    pub(super) fn lock_all<K: std::hash::Hash>(
        &self,
        keys: impl Iterator<Item = K>,
    ) -> Vec<MutexGuard<'_, ()>> {
        let mut numbers: Vec<_> = keys.map(|key| self.number(key)).collect();
        // Always in the same order, to avoid deadlocks.
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|n| self.locks[n].lock()).collect()
    }
}
