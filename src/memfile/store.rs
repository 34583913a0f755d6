//! The leases in memory and their journal, shared by the users of a memfile and its cleanup thread.

#[cfg(test)]
#[cfg(shuttle)]
mod models;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crossbeam_utils::CachePadded;

use super::journal::Journal;
use super::row_locks::RowLocks;
use super::storage::packed_lease::{Packed, StoredLease};
use super::storage::sharded_lock::{ReadGuard, ShardedLock, WriteGuard};
use super::storage::{ExpiryKind, NoRoom, Storage};
use crate::fs::FileSystem;
use crate::lease_file::LeaseFileSet;
use crate::lease_mgr::{Availability, LeaseMgrError, OnFail, Tracking};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Maximum number of leases that are processed before a waiting change gets its turn.
pub(super) const STEP: usize = 256;

/// The leases in memory and the journal of their changes, shared by the users of a [`Memfile`] and
/// its cleanup thread.
pub(super) struct Store<L: StoredLease> {
    storage: ShardedLock<Storage<L>>,
    /// Number of leases, readable without a lock. Each change writes it, so it is not in a cache
    /// line that each change reads.
    len: CachePadded<AtomicUsize>,
    /// When a change of the storage panicked, which may have left it half changed.
    broken_since: OnceLock<SystemTime>,
    /// Whether the callbacks were notified that changes are refused for good.
    is_notified: AtomicBool,
    pub(super) on_fail: OnFail,
    pub(super) rows: RowLocks,
    /// Number of changes in batches in progress.
    pub(super) batched: AtomicUsize,
    pub(super) tracking: Tracking<L>,
    pub(super) persistence: Option<Persistence>,
}

/// The persistent form of the leases.
pub(super) struct Persistence {
    pub(super) journal: Arc<Journal>,
    pub(super) files: LeaseFileSet,
    pub(super) fs: Arc<dyn FileSystem>,
    /// Whether the lease file had invalid rows when it was opened, which are in no other file.
    pub(super) has_invalid_rows: AtomicBool,
    /// Dropped last, so that the files are owned until everything else has ended.
    pub(super) _owners: Vec<Box<dyn Send + Sync>>,
}

impl<L: StoredLease> Store<L> {
    pub(super) fn new(storage: Storage<L>, on_fail: OnFail, persistence: Option<Persistence>) -> Self {
        let len = CachePadded::new(AtomicUsize::new(storage.len()));
        let (storage, tracking) = (ShardedLock::new(storage), Tracking::default());
        let (broken_since, is_notified) = (OnceLock::new(), AtomicBool::new(false));
        let (rows, batched) = (RowLocks::new(), AtomicUsize::new(0));
        Self { storage, len, broken_since, is_notified, on_fail, rows, batched, tracking, persistence }
    }

    pub(super) fn read(&self) -> ReadGuard<'_, Storage<L>> {
        self.storage.read()
    }

    pub(super) fn write(&self) -> Result<StorageGuard<'_, L>, LeaseMgrError> {
        let storage = self.storage.write();
        self.check()?;
        Ok(StorageGuard { storage, store: self, was_panicking: std::thread::panicking() })
    }

    /// Returns the number of leases, without waiting.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns an error if a change of the storage panicked.
    pub(super) fn check(&self) -> Result<(), LeaseMgrError> {
        if self.broken_since.get().is_some() { Err(LeaseMgrError::Panicked) } else { Ok(()) }
    }

    /// Appends rows to the journal, if there is one.
    pub(super) fn journal(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        self.check()?;
        self.persistence.as_ref().map_or(Ok(()), |persistence| persistence.journal.append(rows))
    }

    /// Makes a change, and notifies the callbacks if changes are refused for good after it.
    /// Callbacks may use the lease manager, so the change holds no lock by then.
    pub(super) fn make_change<T>(
        &self,
        change: impl FnOnce(&Self) -> Result<T, LeaseMgrError>,
    ) -> Result<T, LeaseMgrError> {
        change(self).inspect_err(|_| self.notify_availability())
    }

    pub(super) fn availability(&self) -> Availability {
        let failed = self.persistence.as_ref().and_then(|persistence| persistence.journal.failed_since());
        failed
            .or(self.broken_since.get().copied())
            .map_or(Availability::Up, |since| Availability::GivenUp { since })
    }

    /// Notifies the callbacks, once, that changes are refused for good.
    pub(super) fn notify_availability(&self) {
        let availability = self.availability();
        if availability != Availability::Up && !self.is_notified.swap(true, Ordering::Relaxed) {
            self.tracking.notify_availability(availability);
        }
    }

    /// Returns whether there is room for the leases of all changes that may be in progress.
    pub(super) fn has_room(&self, storage: &Storage<L>) -> bool {
        storage.has_room(self.batched.load(Ordering::Relaxed))
    }

    /// Returns what `of` returns for the leases of a queue that have ended at `time`, at most
    /// `limit`, in the order of their ends.
    pub(super) fn ended<T>(
        &self,
        queue: ExpiryKind,
        time: i64,
        limit: usize,
        of: impl Fn(Packed<'_, L>) -> T,
    ) -> Result<Vec<T>, LeaseMgrError> {
        let mut ended = Vec::new();
        let mut after = None;
        while ended.len() < limit {
            let count = STEP.min(limit - ended.len());
            let step = self.read().ended(queue, time, after, count, &of);
            let Ok(step) = step else {
                self.write()?.fix_places(queue, time, after, count);
                continue;
            };
            let Some((last, _)) = step.last() else {
                break;
            };
            after = Some(*last);
            ended.extend(step.into_iter().map(|(_, of_lease)| of_lease));
        }
        Ok(ended)
    }
}

/// Exclusive access to the storage.
pub(super) struct StorageGuard<'a, L: StoredLease> {
    storage: WriteGuard<'a, Storage<L>>,
    store: &'a Store<L>,
    /// Whether the thread was already unwinding, for another panic, when the access began.
    was_panicking: bool,
}

impl<L: StoredLease> Drop for StorageGuard<'_, L> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            let _ = self.store.broken_since.set(SystemTime::now());
        }
        self.store.len.store(self.storage.len(), Ordering::Relaxed);
    }
}

impl<L: StoredLease> std::ops::Deref for StorageGuard<'_, L> {
    type Target = Storage<L>;

    fn deref(&self) -> &Storage<L> {
        &self.storage
    }
}

impl<L: StoredLease> std::ops::DerefMut for StorageGuard<'_, L> {
    fn deref_mut(&mut self) -> &mut Storage<L> {
        &mut self.storage
    }
}

impl From<NoRoom> for LeaseMgrError {
    fn from(_: NoRoom) -> Self {
        Self::Full { what: "16 GiB of leases" }
    }
}
