//! A lease manager that is correct by its simplicity: a map under a lock, where every query visits
//! all leases.

pub(crate) mod broken;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use leasemgr::lease::{ClientClass, LeaseKind, LeaseState, Lifetime, client_classes};
use leasemgr::{
    Added, Change, Deleted, Key, LeaseMgr, LeaseMgrError, ManagedLease, Query, StatisticsQuery,
    StatisticsRow, Status, Tracking,
};

/// Returns whether a lease is in the subnet, the time window and the range of a query.
pub(crate) fn is_within<L: ManagedLease>(lease: &L, query: &Query<'_, L>) -> bool {
    let mut query = *query;
    (query.key, query.after) = (Key::All, None);
    query.matches(lease)
}

/// Counts leases into statistics rows.
pub(crate) fn count<'a, L: ManagedLease>(
    leases: impl IntoIterator<Item = &'a L>,
    query: &StatisticsQuery,
) -> Vec<StatisticsRow> {
    let (first, last) = query.subnets.bounds();
    let mut counts = BTreeMap::new();
    for lease in leases {
        let data = lease.data();
        if (first..=last).contains(&data.subnet_id) && L::is_counted(lease.kind(), lease.state()) {
            let pool = query.by_pool.then_some(data.pool_id);
            *counts.entry((data.subnet_id, pool, lease.kind(), lease.state())).or_insert(0) += 1;
        }
    }
    let row = |((subnet_id, pool_id, lease_type, state), count)| {
        StatisticsRow::new(subnet_id, pool_id, lease_type, state, count)
    };
    counts.into_iter().map(row).collect()
}

/// Returns the kind as which a lease counts in a class, if it is in use.
pub(crate) fn class_kind<L: ManagedLease>(lease: &L) -> Option<LeaseKind> {
    match lease.kind() {
        _ if lease.state() != LeaseState::DEFAULT => None,
        None => Some(LeaseKind::Address),
        Some(lease_type) => LeaseKind::of(lease_type),
    }
}

/// Returns whether a lease names a class.
pub(crate) fn names_class<L: ManagedLease>(lease: &L, class: &ClientClass) -> bool {
    let context = lease.data().user_context.as_ref();
    context.into_iter().flat_map(client_classes).any(|name| *name == *class.as_bytes())
}

/// Leases by address.
pub(crate) type Leases<L> = BTreeMap<<L as leasemgr::lease::Lease>::Address, L>;

/// Leases in a map, which may be shared with later managers.
#[derive(Debug)]
pub(crate) struct Reference<L: ManagedLease> {
    /// Serializes changes, including their callbacks.
    turn: Mutex<()>,
    leases: Arc<Mutex<Leases<L>>>,
    tracking: Tracking<L>,
}

impl<L: ManagedLease> Reference<L> {
    pub(crate) fn new() -> Self {
        Self::with_leases(Arc::default())
    }

    /// Returns a manager of these leases.
    pub(crate) fn with_leases(leases: Arc<Mutex<Leases<L>>>) -> Self {
        Self { turn: Mutex::default(), leases, tracking: Tracking::default() }
    }

    /// Locks the leases against changes.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Leases<L>> {
        self.leases.lock().unwrap()
    }

    /// Waits for other changes.
    fn turn(&self) -> Result<MutexGuard<'_, ()>, LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        Ok(self.turn.lock().unwrap())
    }

    /// Deletes the leases that match, and returns their number.
    fn remove_where(&self, matches: impl Fn(&L) -> bool) -> Result<u64, LeaseMgrError> {
        let _turn = self.turn()?;
        let matching: Vec<_> = self.lock().values().filter(|lease| matches(lease)).cloned().collect();
        for lease in &matching {
            self.lock().remove(&lease.address());
            self.tracking.notify(&Change::deleted(lease));
        }
        Ok(matching.len() as u64)
    }
}

/// Returns whether a lease is reclaimed and has expired at `until`.
pub(crate) fn is_removable<L: ManagedLease>(lease: &L, until: SystemTime) -> bool {
    lease.is_reclaimed() && lease.is_expired(until)
}

/// Returns an error if the lease is in use and has a valid lifetime of 0, which cannot be stored.
pub(crate) fn check_lifetime<L: ManagedLease>(lease: &L) -> Result<(), LeaseMgrError> {
    if lease.data().valid_lifetime == Lifetime(0) && lease.state() == LeaseState::DEFAULT {
        return Err(LeaseMgrError::ZeroLifetime { address: lease.address().into() });
    }
    Ok(())
}

/// Returns an error if the stored lease is not the expected one.
pub(crate) fn check_expected<L: ManagedLease>(there: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
    if expected.is_some_and(|expected| there != expected) {
        return Err(LeaseMgrError::ChangedMeanwhile { address: there.address().into() });
    }
    Ok(())
}

impl<L: ManagedLease> LeaseMgr<L> for Reference<L> {
    fn status(&self) -> Status {
        let mut status = Status::default();
        status.backend = "reference".to_owned();
        status.leases = Some(self.lock().len() as u64);
        status
    }

    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        let _turn = self.turn()?;
        check_lifetime(lease)?;
        if self.lock().contains_key(&lease.address()) {
            return Ok(Added::AddressTaken);
        }
        self.lock().insert(lease.address(), lease.clone());
        self.tracking.notify(&Change::added(lease));
        Ok(Added::Added)
    }

    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.lock().get(&address).cloned())
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        query.check()?;
        let leases = self.lock();
        let mut found: Vec<_> = leases.values().filter(|lease| query.matches(*lease)).cloned().collect();
        if query.reversed {
            found.reverse();
        }
        found.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(found)
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let leases = self.lock();
        let mut expired: Vec<_> =
            leases.values().filter(|lease| !lease.is_reclaimed() && lease.is_expired(now)).collect();
        expired.sort_by_key(|lease| (lease.end(), lease.address()));
        expired.truncate(if limit == 0 { usize::MAX } else { limit });
        Ok(expired.into_iter().cloned().collect())
    }

    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        let _turn = self.turn()?;
        check_lifetime(lease)?;
        let address = lease.address();
        let Some(old) = self.get(address)? else {
            return Err(LeaseMgrError::NoSuchLease { address: address.into() });
        };
        check_expected(&old, expected)?;
        self.lock().insert(address, lease.clone());
        self.tracking.notify(&Change::updated(&old, lease));
        Ok(())
    }

    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        let _turn = self.turn()?;
        let Some(there) = self.get(address)? else {
            return Ok(Deleted::NoSuchLease);
        };
        check_expected(&there, expected)?;
        self.lock().remove(&address);
        self.tracking.notify(&Change::deleted(&there));
        Ok(Deleted::Deleted)
    }

    fn delete_reclaimed(&self, until: SystemTime) -> Result<u64, LeaseMgrError> {
        self.remove_where(|lease| is_removable(lease, until))
    }

    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        query.check()?;
        Ok(count(self.lock().values(), query))
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        Ok(())
    }

    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        let leases = self.lock();
        let of_class = leases.values().filter(|lease| class_kind(*lease) == Some(kind));
        Ok(of_class.filter(|lease| names_class(*lease, class)).count() as u64)
    }

    fn tracking(&self) -> &Tracking<L> {
        &self.tracking
    }
}
