//! The leases in memory and their journal, which the users of a memfile and the thread of its cleanups share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crossbeam_utils::CachePadded;

use super::journal::Journal;
use super::row_locks::RowLocks;
use super::storage::packed_lease::StoredLease;
use super::storage::sharded_lock::{ReadGuard, ShardedLock, WriteGuard};
use super::storage::{ExpiryKind, NoRoom, Storage};
use crate::fs::FileSystem;
use crate::lease_file::LeaseFileSet;
use crate::lease_mgr::{Availability, LeaseMgrError, OnFail, Tracking};

/// Maximum number of leases that are looked at in one go, before a change that waits gets its turn.
pub(super) const STEP: usize = 256;

/// Leases in memory and the journal of their changes: what the users of a [`Memfile`] and the thread of its cleanups share.
pub(super) struct Store<L: StoredLease> {
    storage: ShardedLock<Storage<L>>,
    /// Number of leases, for callers that must not wait. Apart from what each change reads, as each change writes it.
    len: CachePadded<AtomicUsize>,
    /// When a change of the storage ended in a panic, so that it is perhaps half made.
    broken_since: OnceLock<SystemTime>,
    /// Whether it was told that no changes are taken any more.
    is_given_up: AtomicBool,
    pub(super) on_fail: OnFail,
    pub(super) rows: RowLocks,
    /// Number of changes in batches that are being made.
    pub(super) batched: AtomicUsize,
    pub(super) tracking: Tracking<L>,
    pub(super) persistence: Option<Persistence>,
}

/// Where the leases are on disk.
pub(super) struct Persistence {
    pub(super) journal: Arc<Journal>,
    pub(super) files: LeaseFileSet,
    pub(super) fs: Arc<dyn FileSystem>,
    /// Whether the lease file had rows that cannot be read when it was opened, so that they are nowhere else.
    pub(super) has_invalid_rows: AtomicBool,
    /// Given up last.
    pub(super) _owners: Vec<Box<dyn Send + Sync>>,
}

impl<L: StoredLease> Store<L> {
    pub(super) fn new(storage: Storage<L>, on_fail: OnFail, persistence: Option<Persistence>) -> Self {
        let len = CachePadded::new(storage.len().into());
        let (storage, tracking) = (ShardedLock::new(storage), Tracking::default());
        let (broken_since, is_given_up) = (OnceLock::new(), AtomicBool::new(false));
        let (rows, batched) = (RowLocks::new(), AtomicUsize::new(0));
        Self { storage, len, broken_since, is_given_up, on_fail, rows, batched, tracking, persistence }
    }

    pub(super) fn read(&self) -> ReadGuard<'_, Storage<L>> {
        self.storage.read()
    }

    pub(super) fn write(&self) -> Result<Writing<'_, L>, LeaseMgrError> {
        let storage = self.storage.write();
        self.check()?;
        Ok(Writing { storage, store: self, was_panicking: std::thread::panicking() })
    }

    /// The number of leases. Waits for nothing.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether all changes of the storage came to their end.
    pub(super) fn check(&self) -> Result<(), LeaseMgrError> {
        if self.broken_since.get().is_some() { Err(LeaseMgrError::Panicked) } else { Ok(()) }
    }

    /// Writes rows to the journal, where there is one.
    pub(super) fn journal(&self, rows: &[u8]) -> Result<(), LeaseMgrError> {
        self.check()?;
        self.persistence.as_ref().map_or(Ok(()), |persistence| persistence.journal.append(rows))
    }

    /// Makes a change, and tells if no more are taken after it. What is told then may use the lease manager, so it is told when
    /// the change holds no lock any more.
    pub(super) fn watched<T>(
        &self,
        change: impl FnOnce(&Self) -> Result<T, LeaseMgrError>,
    ) -> Result<T, LeaseMgrError> {
        change(self).inspect_err(|_| self.tell_availability())
    }

    pub(super) fn availability(&self) -> Availability {
        let failed = self.persistence.as_ref().and_then(|persistence| persistence.journal.failed_since());
        failed
            .or(self.broken_since.get().copied())
            .map_or(Availability::Up, |since| Availability::GivenUp { since })
    }

    /// Tells that no changes are taken any more, once.
    pub(super) fn tell_availability(&self) {
        let availability = self.availability();
        if availability != Availability::Up && !self.is_given_up.swap(true, Ordering::Relaxed) {
            self.tracking.notify_availability(availability);
        }
    }

    /// Whether the leases of all changes that may be going on find room.
    pub(super) fn has_room(&self, storage: &Storage<L>) -> bool {
        storage.has_room(self.batched.load(Ordering::Relaxed))
    }

    /// Leases of a queue that have ended at `time`, at most `limit`, those that ended first first.
    pub(super) fn ended(&self, queue: ExpiryKind, time: i64, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let mut ended = Vec::new();
        let mut after = None;
        while ended.len() < limit {
            let count = STEP.min(limit - ended.len());
            let step = self.read().ended(queue, time, after, count);
            let Ok(step) = step else {
                self.write()?.put_in_place(queue, time, after, count);
                continue;
            };
            let Some((last, _)) = step.last() else {
                break;
            };
            after = Some(*last);
            ended.extend(step.into_iter().map(|(_, lease)| lease));
        }
        Ok(ended)
    }
}

/// The storage, to be changed.
pub(super) struct Writing<'a, L: StoredLease> {
    storage: WriteGuard<'a, Storage<L>>,
    store: &'a Store<L>,
    /// The change is made while a panic of something else unwinds the thread.
    was_panicking: bool,
}

impl<L: StoredLease> Drop for Writing<'_, L> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            let _ = self.store.broken_since.set(SystemTime::now());
        }
        self.store.len.store(self.storage.len(), Ordering::Relaxed);
    }
}

impl<L: StoredLease> std::ops::Deref for Writing<'_, L> {
    type Target = Storage<L>;

    fn deref(&self) -> &Storage<L> {
        &self.storage
    }
}

impl<L: StoredLease> std::ops::DerefMut for Writing<'_, L> {
    fn deref_mut(&mut self) -> &mut Storage<L> {
        &mut self.storage
    }
}

impl From<NoRoom> for LeaseMgrError {
    fn from(_: NoRoom) -> Self {
        Self::Full { what: "16 GiB of leases" }
    }
}
