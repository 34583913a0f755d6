//! The backend `memfile`: leases in memory, and a journal of all changes in Kea's file format.
//!
//! A change is first written to the journal and then made in memory; readers never wait for a file.
//! [`Durability`](crate::Durability) determines how durable a change is when it is acknowledged.
//! The journal is cleaned up at intervals ([`crate::lfc`]), while changes proceed.
//!
//! # Files
//! The files of Kea's memfile ([`LeaseFileSet`](crate::lease_file::LeaseFileSet)), and `F.lock`, a
//! lock by which one process owns a lease file.
//!
//! # Cost
//! A lookup takes a fraction of a microsecond, a change about as long as the system takes to write
//! its row. A DHCPv4 lease takes about 130 to 160 bytes of memory with all its indexes. See
//! `docs/performance.md` for figures.

mod batch;
mod change;
mod cleanup;
mod error;
mod journal;
mod load;
mod open;
mod opener;
mod options;
mod restore;
mod row_locks;
mod sanity;
mod scratch;
mod storage;
mod store;
mod sweep;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use cleanup::Cleaner;
pub use error::OpenError;
pub use open::{open, open_on};
pub use opener::MemfileOpener;
pub use options::{LfcProgram, MemfileOptions, OpenRetries};
pub use sanity::{LeaseChecks, LeaseSanity, SubnetMap, SubnetMapError};
use scratch::with_scratch;
use storage::ExpiryKind;
use storage::free_range::Step;
use storage::packed_lease::{Packed, StoredLease, pack};
use store::{STEP, Store};

use crate::lease::{ClientClass, LeaseKind, SubnetId, seconds_since_epoch};
use crate::lease_mgr::writer::{self, Writer};
use crate::lease_mgr::{
    Added, CleanupStart, Deleted, Done, FreeRange, Key, LeaseMgr, LeaseMgrError, Operation, Query,
    StatisticsQuery, StatisticsRow, Status, Then, Tracking, check, defaults,
};
use crate::with_sources::with_sources;

/// Leases in memory, and on disk in Kea's lease files.
///
/// ```no_run
/// use leasemgr::lease::Lease4;
/// use leasemgr::memfile::{Memfile, MemfileOptions};
/// use leasemgr::{Durability, LeaseMgr, LeaseMgrExt};
///
/// let leases = Memfile::<Lease4>::open(
///     MemfileOptions::at("/var/lib/dhcp/leases4.csv").durability(Durability::Synced),
/// )?;
/// for lease in leases.page(None, 100)? {
///     println!("{lease:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Memfile<L: StoredLease> {
    /// Makes the submitted changes where a change waits for a sync. Dropped before the cleaner;
    /// both use the store.
    writer: Option<Writer<Operation<L>, Result<Done, LeaseMgrError>>>,
    cleaner: Option<Cleaner>,
    store: Arc<Store<L>>,
}

impl<L: StoredLease> fmt::Debug for Memfile<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.store.persistence.as_ref().map(|persistence| persistence.files.current_path());
        f.debug_struct("Memfile").field("file", &file).field("leases", &self.store.len()).finish()
    }
}

impl<L: StoredLease> Drop for Memfile<L> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // A callback is called within a change, for which the end would wait.
            writer.end(self.store.tracking.refuse_in_callback().is_ok());
        }
        drop(self.cleaner.take());
        self.store.check_file();
    }
}

impl<L: StoredLease> Memfile<L> {
    /// Returns the number of bytes of memory that the leases and each index take.
    #[must_use]
    pub fn memory(&self) -> Vec<(&'static str, usize)> {
        self.store.read().memory().to_vec()
    }
}

/// Returns the maximum number of leases that a limit allows, where 0 stands for any number.
fn at_most(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

impl<L: StoredLease> LeaseMgr<L> for Memfile<L> {
    fn status(&self) -> Status {
        let store = &*self.store;
        let persistence = store.persistence.as_ref();
        let lease_file = persistence.map(|persistence| persistence.files.current_path().to_owned());
        Status {
            backend: "memfile".to_owned(),
            location: lease_file
                .as_ref()
                .map_or_else(|| "memory only".to_owned(), |path| path.display().to_string()),
            lease_file,
            leases: Some(store.len() as u64),
            refused: match persistence.and_then(|persistence| persistence.journal.refused()) {
                None => store.check().err().map(|error| with_sources(&error).to_string()),
                refused => refused,
            },
            on_fail: Some(store.on_fail),
            durability: persistence.map(|persistence| persistence.journal.durability()),
            availability: store.availability(),
            warning: persistence.and_then(|persistence| persistence.journal.warning()),
            cleanup: self.cleaner.as_ref().map(Cleaner::status),
        }
    }

    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        self.store.make_change(|store| store.add(lease))
    }

    fn kept(&self, lease: &L) -> Result<L, LeaseMgrError> {
        check(lease)?;
        Ok(with_scratch(|scratch| {
            pack(lease, &mut scratch.record);
            Packed::new(&scratch.record).lease()
        }))
    }

    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.store.read().get(L::key_of(address)).map(|packed| packed.lease()))
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        query.check()?;
        if matches!(query.key, Key::RelayId(_) | Key::RemoteId(_)) && !self.store.read().has_relay_tables() {
            return Err(LeaseMgrError::Unsupported {
                backend: "memfile without extended-info-tables".to_owned(),
                operation: "find leases by relay ID or remote ID".to_owned(),
            });
        }
        let limit = query.limit.unwrap_or(usize::MAX);
        let (mut found, mut after) = (Vec::new(), query.after.map(L::key_of));
        let next = |after: &mut Option<L::AddressKey>, found: &mut Vec<L>| {
            let last = self.store.read().find(query, *after, limit, STEP, found);
            *after = last.or(*after);
            last.is_some()
        };
        if matches!(query.key, Key::Client(_) | Key::HwAddr(_) | Key::Hostname(_)) {
            // The leases of a client are examined in one step.
            self.store.read().find(query, after, limit, STEP, &mut found);
            return Ok(found);
        }
        if let (Key::State(state), None) = (query.key, query.subnet) {
            // For a page of a state that many leases have, scanning all leases is faster than
            // searching each subnet.
            let most = if query.limit.is_some() { 2 * self.store.read().subnets() } else { 0 };
            for _ in 0..most.div_ceil(STEP) {
                if !next(&mut after, &mut found) {
                    return Ok(found);
                }
            }
            let keys = self.store.read().in_state(state, query, after);
            if let Some(keys) = keys {
                for step in keys.chunks(STEP) {
                    if self.store.read().find_among(query, step, limit, &mut found) {
                        break;
                    }
                }
                return Ok(found);
            }
        }
        while next(&mut after, &mut found) {}
        Ok(found)
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        self.store
            .ended(ExpiryKind::Expiring, seconds_since_epoch(now), at_most(limit), |lease| lease.lease())
    }

    fn first_free(&self, range: &FreeRange<L>, now: SystemTime) -> Result<Option<L::Address>, LeaseMgrError> {
        /// Number of leaves, of up to 128 leases each, that are searched under one lock.
        const LEAVES: usize = 8;
        let (mut from, now) = (range.first(), seconds_since_epoch(now));
        loop {
            let step = self.store.read().first_free(range, from, now, LEAVES);
            match step {
                Step::Free(address) => return Ok(Some(address)),
                Step::OccupiedTo(address) => from = address,
                Step::Full => return Ok(None),
            }
        }
    }

    fn count(&self, query: &Query<'_, L>) -> Result<u64, LeaseMgrError> {
        if *query == Query::all() {
            return Ok(self.store.len() as u64);
        }
        defaults::count(self, query)
    }

    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        self.store.make_change(|store| store.update(lease, expected))
    }

    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        self.store.make_change(|store| store.delete(address, expected))
    }

    fn delete_reclaimed(&self, until: SystemTime) -> Result<u64, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        self.store.delete_ended(ExpiryKind::Reclaimed, seconds_since_epoch(until))
    }

    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        self.store.wipe(subnet)
    }

    fn reclaim_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        self.store.tracking.refuse_in_callback()?;
        self.store.reclaim(seconds_since_epoch(now), at_most(limit))
    }

    fn apply(&self, operations: &[Operation<L>]) -> Vec<Result<Done, LeaseMgrError>> {
        self.store.apply(operations.iter().map(Operation::borrowed))
    }

    fn submit(&self, operation: Operation<L>, then: Then) {
        writer::submit(self, self.writer.as_ref(), operation, then);
    }

    fn submits(&self) -> bool {
        true
    }

    /// They are answered from memory.
    fn submits_look_ups(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        self.writer.is_some()
    }

    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        query.check()?;
        Ok(self.store.read().statistics(query))
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        self.store.write()?.recount();
        Ok(())
    }

    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        Ok(self.store.read().class_leases(class, kind))
    }

    fn tracking(&self) -> &Tracking<L> {
        &self.store.tracking
    }

    fn flush(&self) -> Result<(), LeaseMgrError> {
        let Some(persistence) = &self.store.persistence else {
            return Ok(());
        };
        self.store.check_file();
        self.store.make_change(|_| persistence.journal.sync())
    }

    fn write_own_file(&self, path: &Path) -> Result<Option<u64>, LeaseMgrError> {
        self.store.write_own_file(path)
    }

    fn clean_up(&self) -> Result<CleanupStart, LeaseMgrError> {
        Ok(self.cleaner.as_ref().map_or(CleanupStart::NotNeeded, Cleaner::request))
    }
}
