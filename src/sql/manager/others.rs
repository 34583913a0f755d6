//! The changes that others make: told by the database, or found out by reading all leases again and
//! again.
//!
//! What is told of an address is what its row has at that moment. Meanwhile no thread of the manager
//! changes it, so that callbacks see the changes of an address in their order.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use foldhash::fast::{FixedState, RandomState};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::{PAGE, Shared};
use crate::lease_mgr::{Availability, Change, ChangeKind, LeaseMgrError, ManagedLease, Query};
use crate::sql::driver::{DbError, DbErrorKind, Driver, Listener, Notice};
use crate::sql::queue::MAX_BATCH;
use crate::with_sources::with_sources;

/// Maximum time until a thread notices that the manager was dropped.
const PATIENCE: Duration = Duration::from_millis(200);
/// Time between two attempts to listen again.
const RETRY: Duration = Duration::from_secs(1);

/// The hashes of all leases, as they were told or read last.
#[derive(Debug)]
pub(super) struct Memory<L: ManagedLease>(Mutex<BTreeMap<L::Address, u64>>);

impl<L: ManagedLease> Default for Memory<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: ManagedLease> Memory<L> {
    /// Notes the lease that an address has now.
    pub(super) fn note(&self, address: L::Address, lease: Option<&L>) {
        let mut hashes = self.0.lock();
        match lease {
            Some(lease) => hashes.insert(address, hash(lease)),
            None => hashes.remove(&address),
        };
    }

    /// Returns the addresses after `after`, up to the last lease of a page, or all of them if it is
    /// the last page, whose leases differ from those of the page.
    fn differences(&self, after: Option<L::Address>, page: &[L], is_last: bool) -> Vec<L::Address> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let end = match page.last() {
            Some(last) if !is_last => Bound::Included(last.address()),
            _ => Bound::Unbounded,
        };
        let hashes = self.0.lock();
        let mut known = hashes.range((start, end)).map(|(&address, &hash)| (address, hash)).peekable();
        let mut differences = Vec::new();
        for lease in page {
            let address = lease.address();
            while let Some((gone, _)) = known.next_if(|(known, _)| *known < address) {
                differences.push(gone);
            }
            let there = known.next_if(|(known, _)| *known == address);
            if there.map(|(_, hash)| hash) != Some(hash(lease)) {
                differences.push(address);
            }
        }
        differences.extend(known.map(|(gone, _)| gone));
        differences
    }
}

fn hash<L: ManagedLease>(lease: &L) -> u64 {
    FixedState::default().hash_one(lease.fields())
}

/// Returns the change by which an address has a lease now, or none.
fn change<L: ManagedLease>(kind: ChangeKind, address: L::Address, now: Option<&L>) -> Option<Change<'_, L>> {
    match (kind, now) {
        (ChangeKind::Add, Some(lease)) => Some(Change::added(lease).elsewhere()),
        (_, Some(lease)) => Some(Change::updated_elsewhere(lease)),
        (ChangeKind::Delete, None) => Some(Change::deleted_elsewhere(address)),
        // Its deletion is told next.
        (_, None) => None,
    }
}

impl<L: ManagedLease, D: Driver<L>> Shared<L, D> {
    /// Starts to tell of the changes of others: if the database tells them, or else if they are to
    /// be found out.
    pub(super) fn follow_others(self: &Arc<Self>) -> Result<(), DbError> {
        let own = Arc::downgrade(self);
        if let Some(listener) = self.sessions.listen()? {
            return start(move || listen(&own, listener));
        }
        let (Some(interval), Some(memory)) = (self.sessions.options().poll_interval, &self.memory) else {
            return Ok(());
        };
        // The first reading is what later ones are compared with.
        self.read_all(|_, page, _| {
            page.iter().for_each(|lease| memory.note(lease.address(), Some(lease)));
            Ok(())
        })
        .map_err(|error| DbError::new(DbErrorKind::Other, error))?;
        start(move || poll(&own, interval))
    }

    /// Calls `each` with the pages of all leases: the address after which it begins, the page, and
    /// whether it is the last one.
    fn read_all(
        &self,
        mut each: impl FnMut(Option<L::Address>, &[L], bool) -> Result<(), LeaseMgrError>,
    ) -> Result<(), LeaseMgrError> {
        let mut after = None;
        let addresses = if self.has_text_addresses() { self.addresses_of_text()? } else { None };
        if let Some(addresses) = addresses {
            for addresses in addresses.chunks(PAGE) {
                let page: Vec<_> = self.get_many(addresses)?.into_iter().flatten().collect();
                if !page.is_empty() {
                    each(after, &page, false)?;
                    after = page.last().map(L::address);
                }
            }
            return each(after, &[], true);
        }
        loop {
            let query = after.map_or(Query::all(), |after| Query::all().after(after));
            let page = self.find(&query.limit(PAGE))?;
            let is_last = page.len() < PAGE;
            each(after, &page, is_last)?;
            after = page.last().map(L::address);
            if is_last {
                return Ok(());
            }
        }
    }

    /// Tells of changes that the database has told.
    fn tell_notice(&self, notice: &Notice<L>) -> Result<(), DbError> {
        if !self.tracking.is_watched() {
            return Ok(());
        }
        for addresses in notice.addresses.chunks(MAX_BATCH) {
            let held: Vec<_> = addresses.iter().map(|&address| self.changes.hold(address)).collect();
            let there = self.read(addresses)?;
            for &address in addresses {
                if let Some(change) = change(notice.kind, address, there.get(&address)) {
                    self.tracking.notify(&change);
                }
            }
            drop(held);
        }
        Ok(())
    }

    /// Reads all leases, and tells of those that others have changed since.
    fn find_out_changes(&self, memory: &Memory<L>) -> Result<(), LeaseMgrError> {
        self.read_all(|after, page, is_last| {
            let differences = memory.differences(after, page, is_last);
            for addresses in differences.chunks(MAX_BATCH) {
                // A lease that a thread of this manager is changing is compared the next time.
                let held =
                    addresses.iter().filter_map(|&address| Some((address, self.changes.try_hold(address)?)));
                let held: Vec<_> = held.collect();
                let addresses: Vec<_> = held.iter().map(|(address, _)| *address).collect();
                let there = self.read(&addresses).map_err(|error| self.sessions.failed(error))?;
                addresses.iter().for_each(|&address| self.tell_difference(memory, address, &there));
            }
            Ok(())
        })
    }

    /// Tells of the change of an address, which is held, if the manager has not made it itself.
    fn tell_difference(
        &self,
        memory: &Memory<L>,
        address: L::Address,
        there: &HashMap<L::Address, L, RandomState>,
    ) {
        let now = there.get(&address);
        let before = memory.0.lock().get(&address).copied();
        if before == now.map(hash) {
            return;
        }
        memory.note(address, now);
        let kind = match (before, now) {
            (None, _) => ChangeKind::Add,
            (Some(_), Some(_)) => ChangeKind::Update,
            (Some(_), None) => ChangeKind::Delete,
        };
        if let Some(change) = change(kind, address, now) {
            self.tracking.notify(&change);
        }
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> Result<(), DbError> {
    let started = thread::Builder::new().name("lease-changes".to_owned()).spawn(work);
    started.map(drop).map_err(|error| DbError::new(DbErrorKind::Other, error))
}

/// Waits, and returns whether the manager is still there.
fn pause<T>(own: &Weak<T>, time: Duration) -> bool {
    let until = Instant::now() + time;
    while own.strong_count() > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(PATIENCE));
    }
    false
}

/// Tells of the changes that the database tells, until the manager is dropped.
fn listen<L: ManagedLease, D: Driver<L>>(own: &Weak<Shared<L, D>>, listener: Box<dyn Listener<L>>) {
    let mut listener = Some(listener);
    let mut since = SystemTime::now();
    loop {
        let notices = listener.as_mut().map(|listener| listener.wait(PATIENCE));
        let Some(shared) = own.upgrade() else {
            return;
        };
        let place = shared.sessions.place();
        let result = match notices {
            Some(Ok(notices)) => notices.iter().try_for_each(|notice| shared.tell_notice(notice)),
            Some(Err(error)) => Err(error),
            None => match shared.sessions.listen() {
                Ok(Some(again)) => {
                    listener = Some(again);
                    let seconds = since.elapsed().unwrap_or_default().as_secs();
                    info!(
                        id = "DHCPSRV_SQL_CHANGES_BACK",
                        "{place}: changes of others are told again, and were not for {seconds} seconds"
                    );
                    // What was missed is not known: who remembers leases reads them again.
                    shared.tracking.notify_availability(Availability::Up);
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "cannot listen");
                    Ok(())
                }
            },
        };
        if let Err(error) = result {
            (listener, since) = (None, SystemTime::now());
            let error = with_sources(&error);
            warn!(id = "DHCPSRV_SQL_CHANGES_LOST", "{place}: changes of others are not told: {error}");
        }
        drop(shared);
        if listener.is_none() && !pause(own, RETRY) {
            return;
        }
    }
}

/// Finds out changes again and again, until the manager is dropped.
fn poll<L: ManagedLease, D: Driver<L>>(own: &Weak<Shared<L, D>>, interval: Duration) {
    while pause(own, interval) {
        let Some(shared) = own.upgrade() else {
            return;
        };
        let Some(memory) = &shared.memory else {
            return;
        };
        if let Err(error) = shared.find_out_changes(memory) {
            let (place, error) = (shared.sessions.place(), with_sources(&error));
            error!(id = "DHCPSRV_SQL_POLL_FAILED", "{place}: cannot find out changes of others: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{HwAddr, Lease4};

    fn lease(n: u8, lifetime: u32) -> Lease4 {
        let builder = Lease4::builder([192, 0, 2, n].into()).client(HwAddr::from([2, 0, 0, 0, 0, n]));
        builder.subnet(1).lifetime(lifetime).build().unwrap()
    }

    #[test]
    fn the_differences_of_a_page_are_those_of_its_range() {
        let memory = Memory::<Lease4>::default();
        for n in [1, 2, 3, 5, 8, 9] {
            memory.note([192, 0, 2, n].into(), Some(&lease(n, 60)));
        }
        let numbers = |after: Option<u8>, page: &[Lease4], is_last| {
            let differences = memory.differences(after.map(|n| [192, 0, 2, n].into()), page, is_last);
            differences.iter().map(|address| address.octets()[3]).collect::<Vec<_>>()
        };
        let page = [lease(2, 60), lease(3, 61), lease(4, 60), lease(8, 60)];
        assert_eq!(numbers(None, &page, false), [1, 3, 4, 5]);
        assert_eq!(numbers(None, &page, true), [1, 3, 4, 5, 9]);
        assert_eq!(numbers(Some(1), &page, false), [3, 4, 5]);
        assert_eq!(numbers(Some(5), &[], true), [8, 9]);
        memory.note([192, 0, 2, 9].into(), None);
        assert_eq!(numbers(Some(5), &[], true), [8]);
    }
}
