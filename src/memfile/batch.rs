//! Many changes with one write and, where each change is synced, one sync.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::change::check_expected;
use super::storage::packed_lease::{Packed, StoredLease, pack};
use super::storage::{Hashes, NoRoom, Storage};
use super::{STEP, Store};
use crate::lease_mgr::writer::Writer;
use crate::lease_mgr::{Borrowed, Change, CountedAs, Done, LeaseMgrError, Operation, Tracking, check};
use crate::panics::contained;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Changes whose outcome is decided, while the locks of their addresses are held.
pub(super) struct Batch<'a, L: StoredLease> {
    decided: Vec<Decided<'a, L>>,
    /// Packed leases.
    records: Vec<u8>,
    /// Rows for the journal.
    rows: Vec<u8>,
    /// The current lease of each changed address, as a range of `records`; `None` if it was
    /// deleted.
    leases: HashMap<L::AddressKey, Option<Range<usize>>, RandomState>,
    /// Reused buffer for a packed lease.
    buffer: Vec<u8>,
}

/// A change that still has to be applied in memory and reported to the callbacks.
enum Decided<'a, L: StoredLease> {
    Added { lease: &'a L, record: Range<usize>, hashes: Hashes },
    Updated { lease: &'a L, record: Range<usize>, old: Old<L> },
    Deleted { key: L::AddressKey, hashes: Hashes, old: Option<L> },
}

impl<L: StoredLease> Decided<'_, L> {
    /// Deletes a lease, and appends the row of the deletion to `rows`.
    fn deletion(store: &Store<L>, storage: &Storage<L>, packed: &Packed<'_, L>, rows: &mut Vec<u8>) -> Self {
        let hashes = storage.prefetch(packed);
        if store.persistence.is_some() {
            // Writing the row gives the prefetched memory time to arrive.
            L::write_deletion(packed, rows);
        }
        Self::Deleted { key: packed.key(), hashes, old: store.tracking.is_watched().then(|| packed.lease()) }
    }
}

/// The lease before an update, as far as the callbacks and counters need it.
enum Old<L> {
    /// The complete lease, for the callbacks.
    Whole(L),
    Counted(CountedAs),
}

/// Adds the changes of a batch to [`Store::batched`] until it is dropped.
struct BatchedCount<'a>(&'a AtomicUsize, usize);

impl<'a> BatchedCount<'a> {
    fn new(batched: &'a AtomicUsize, count: usize) -> Self {
        batched.fetch_add(count, Ordering::Relaxed);
        Self(batched, count)
    }
}

impl Drop for BatchedCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl<L: StoredLease> Store<L> {
    /// Makes changes in steps of [`STEP`], each with one write. If the write fails, all changes of
    /// the step fail.
    pub(super) fn apply<'a>(
        &self,
        operations: impl Iterator<Item = Borrowed<'a, L>>,
    ) -> Vec<Result<Done, LeaseMgrError>>
    where
        L: 'a,
    {
        let operations: Vec<_> = operations.collect();
        let mut results = Vec::with_capacity(operations.len());
        for step in operations.chunks(STEP) {
            match self.tracking.refuse_in_callback() {
                Ok(()) => self.apply_step(step, &mut results),
                Err(error) => results.extend(step.iter().map(|_| Err(repeated(&error)))),
            }
            // No lock is held here.
            self.notify_availability();
        }
        results
    }

    fn apply_step(&self, step: &[Borrowed<'_, L>], results: &mut Vec<Result<Done, LeaseMgrError>>) {
        let _rows = self.rows.lock_all(step.iter().map(|operation| L::key_of(operation.address())));
        results.extend(self.apply_locked(step));
    }

    /// Makes the changes of a step, while the locks of their addresses are held.
    pub(super) fn apply_locked(&self, step: &[Borrowed<'_, L>]) -> Vec<Result<Done, LeaseMgrError>> {
        let _batched = BatchedCount::new(&self.batched, step.len());
        let mut batch = Batch::with_capacity(step.len());
        batch.leases.reserve(step.len());
        let decided: Vec<_> = step.iter().map(|operation| batch.decide(self, operation)).collect();
        match batch.make(self) {
            Ok(()) => {
                batch.notify(&self.tracking);
                decided
            }
            // The other outcomes may depend on changes that were not made.
            Err(error) => {
                let failed = |decided| match decided {
                    Err(invalid @ LeaseMgrError::ZeroLifetime { .. }) => Err(invalid),
                    _ => Err(repeated(&error)),
                };
                decided.into_iter().map(failed).collect()
            }
        }
    }

    /// Returns a writer for the changes that are submitted. Its thread is started with the first of
    /// them.
    pub(super) fn writer(self: &Arc<Self>) -> Writer<Operation<L>, Result<Done, LeaseMgrError>> {
        let store = Arc::clone(self);
        Writer::new(1, move |operations: &[Operation<L>]| {
            let mut results = Vec::new();
            // After a panic, the journal or the storage refuses later changes.
            if contained(|| results = store.apply(operations.iter().map(Operation::borrowed))).is_err() {
                results.extend(operations.iter().map(|_| Err(LeaseMgrError::Panicked)));
            }
            results
        })
    }
}

impl<'a, L: StoredLease> Batch<'a, L> {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            decided: Vec::with_capacity(count),
            records: Vec::new(),
            rows: Vec::new(),
            leases: HashMap::default(),
            buffer: Vec::new(),
        }
    }

    /// Returns the number of changes.
    pub(super) fn len(&self) -> usize {
        self.decided.len()
    }

    /// Deletes a lease that the storage has and that no other change of the batch concerns.
    pub(super) fn delete(&mut self, store: &Store<L>, storage: &Storage<L>, packed: &Packed<'_, L>) {
        self.decided.push(Decided::deletion(store, storage, packed, &mut self.rows));
    }

    /// Decides the outcome of an operation, after those of the batch before it.
    fn decide(&mut self, store: &Store<L>, operation: &Borrowed<'a, L>) -> Result<Done, LeaseMgrError> {
        if let Borrowed::Add(lease) | Borrowed::Update(lease, _) = *operation {
            check(lease)?;
        }
        let key = L::key_of(operation.address());
        let storage = store.read();
        let current = match self.leases.get(&key) {
            Some(changed) => changed.clone().map(|record| Packed::<L>::new(&self.records[record])),
            None => storage.get(key),
        };
        let persists = store.persistence.is_some();
        let is_watched = store.tracking.is_watched();
        match (*operation, current) {
            (Borrowed::Add(_), Some(_)) => Ok(Done::AddressTaken),
            (Borrowed::Add(lease), None) => {
                if !store.has_room(&storage) {
                    return Err(NoRoom.into());
                }
                pack(lease, &mut self.buffer);
                let hashes = storage.prefetch(&Packed::new(&self.buffer));
                let record = self.keep(key, persists.then_some(lease));
                self.decided.push(Decided::Added { lease, record, hashes });
                Ok(Done::Added)
            }
            (Borrowed::Update(lease, _), None) => {
                Err(LeaseMgrError::NoSuchLease { address: lease.address().into() })
            }
            (Borrowed::Update(lease, expected), Some(packed)) => {
                check_expected(&packed, expected, &mut self.buffer)?;
                if !store.has_room(&storage) {
                    return Err(NoRoom.into());
                }
                let old =
                    if is_watched { Old::Whole(packed.lease()) } else { Old::Counted(packed.counted_as()) };
                pack(lease, &mut self.buffer);
                let record = self.keep(key, persists.then_some(lease));
                self.decided.push(Decided::Updated { lease, record, old });
                Ok(Done::Updated)
            }
            (Borrowed::Delete(..), None) => Ok(Done::NoSuchLease),
            (Borrowed::Delete(_, expected), Some(packed)) => {
                check_expected(&packed, expected, &mut self.buffer)?;
                self.decided.push(Decided::deletion(store, &storage, &packed, &mut self.rows));
                self.leases.insert(key, None);
                Ok(Done::Deleted)
            }
        }
    }

    /// Adds the packed lease in the buffer to the records, and writes its row.
    fn keep(&mut self, key: L::AddressKey, row: Option<&L>) -> Range<usize> {
        let start = self.records.len();
        self.records.extend_from_slice(&self.buffer);
        let record = start..self.records.len();
        self.leases.insert(key, Some(record.clone()));
        if let Some(lease) = row {
            lease.write_row(&mut self.rows);
        }
        record
    }

    /// Appends the rows of the changes to the journal, and applies the changes in memory.
    pub(super) fn make(&self, store: &Store<L>) -> Result<(), LeaseMgrError> {
        if self.decided.is_empty() {
            return Ok(());
        }
        store.journal(&self.rows)?;
        let mut storage = store.write()?;
        for decided in &self.decided {
            match decided {
                Decided::Added { record, hashes, .. } => {
                    storage.insert_prefetched(&self.records[record.clone()], hashes)?;
                }
                Decided::Updated { record, .. } => storage.replace(&self.records[record.clone()])?,
                Decided::Deleted { key, hashes, .. } => {
                    storage.remove_prefetched(*key, hashes);
                }
            }
        }
        Ok(())
    }

    /// Notifies the callbacks of the changes, in their order.
    pub(super) fn notify(&self, tracking: &Tracking<L>) {
        for decided in &self.decided {
            match decided {
                Decided::Added { lease, .. } => tracking.notify(&Change::added(lease)),
                Decided::Updated { lease, old: Old::Whole(old), .. } => {
                    tracking.notify(&Change::updated(old, lease));
                }
                Decided::Updated { lease, old: Old::Counted(old), .. } => tracking.count_updated(*old, lease),
                Decided::Deleted { old: Some(old), .. } => tracking.notify(&Change::deleted(old)),
                Decided::Deleted { old: None, .. } => {}
            }
        }
    }
}

/// Copies an error for another change of the batch.
fn repeated(error: &LeaseMgrError) -> LeaseMgrError {
    match error {
        LeaseMgrError::Write { place, action, source } => {
            LeaseMgrError::Write { place: place.clone(), action, source: Arc::clone(source) }
        }
        LeaseMgrError::Refused { place, action, source } => {
            LeaseMgrError::Refused { place: place.clone(), action, source: Arc::clone(source) }
        }
        LeaseMgrError::InCallback => LeaseMgrError::InCallback,
        LeaseMgrError::Full { what } => LeaseMgrError::Full { what },
        // A change in memory fails for no other reason.
        _ => LeaseMgrError::Panicked,
    }
}
