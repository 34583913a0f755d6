//! The default methods of [`LeaseMgr`], built on the required ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::import::{self, Tally};
use super::look_up::retain_of_hwaddr;
use super::{
    Added, AddedWithin, Claimed, ClientKey, CountedAs, Cursor, Deleted, FreeRange, Gap, ImportEvent,
    ImportOptions, Imported, LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease, Operation, Query,
    StatisticsQuery, StatisticsRow, is_reclaimed, reclaimed_form,
};
use crate::lease::{
    ClientClass, HwAddr, LeaseKind, LeaseState, LimitExceeded, Limits, SubnetId, UserContext, client_classes,
};

/// Number of leases in a page.
const PAGE: usize = 1000;

/// Calls a function with each lease that a query selects, page by page.
pub(super) fn each<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    query: &Query<'_, L>,
    mut work: impl FnMut(L) -> Result<(), LeaseMgrError>,
) -> Result<(), LeaseMgrError> {
    query.check()?;
    let mut left = query.limit.unwrap_or(usize::MAX);
    let mut query = *query;
    while left > 0 {
        let size = left.min(PAGE);
        let page = mgr.find(&query.limit(size))?;
        left -= page.len().min(left);
        let is_last = page.len() < size;
        if let Some(last) = page.last() {
            query = query.after(last.address());
        }
        page.into_iter().try_for_each(&mut work)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

pub(crate) fn count<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    query: &Query<'_, L>,
) -> Result<u64, LeaseMgrError> {
    let mut count = 0;
    each(mgr, query, |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

pub(super) fn delete_all<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    query: &Query<'_, L>,
) -> Result<u64, LeaseMgrError> {
    mgr.tracking().refuse_in_callback()?;
    let Some(query) = up_to_the_last(mgr, query)? else {
        return Ok(0);
    };
    let mut deleted = 0;
    each(mgr, &query, |lease| {
        deleted += u64::from(delete_matching(mgr, &query, lease)?);
        Ok(())
    })?;
    Ok(deleted)
}

/// Restricts a query to addresses up to the last one that it finds now, so that a walk over its
/// leases ends even while leases are added; `None` if it finds nothing.
pub(crate) fn up_to_the_last<'a, L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    query: &Query<'a, L>,
) -> Result<Option<Query<'a, L>>, LeaseMgrError> {
    let last = mgr.find(&query.reverse().limit(1))?.pop();
    Ok(last.map(|last| Query { last: Some(last.address()), ..*query }))
}

/// Deletes a lease that was read, if the query matches it. If the lease is modified concurrently,
/// checks its new form again. Returns whether a lease was deleted.
pub(crate) fn delete_matching<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    query: &Query<'_, L>,
    lease: L,
) -> Result<bool, LeaseMgrError> {
    let mut there = Some(lease);
    while let Some(lease) = there.take().filter(|lease| query.matches(lease)) {
        match mgr.delete_expecting(lease.address(), Some(&lease)) {
            Ok(done) => return Ok(done == Deleted::Deleted),
            Err(error) if error.is_stale() => there = mgr.get(lease.address())?,
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

pub(crate) fn statistics<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    query: &StatisticsQuery,
) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
    query.check()?;
    let (first, last) = query.subnets.bounds();
    let mut counts = BTreeMap::new();
    each(mgr, &Query::all(), |lease: L| {
        let CountedAs { subnet_id, pool_id, lease_type, state, .. } = CountedAs::of(&lease);
        if (first..=last).contains(&subnet_id) && L::is_counted(lease_type, state) {
            let pool_id = query.by_pool.then_some(pool_id);
            *counts.entry((subnet_id, pool_id, lease_type, state)).or_insert(0) += 1;
        }
        Ok(())
    })?;
    let row = |((subnet_id, pool_id, lease_type, state), count)| {
        StatisticsRow::new(subnet_id, pool_id, lease_type, state, count)
    };
    Ok(counts.into_iter().map(row).collect())
}

pub(super) fn class_leases<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    class: &ClientClass,
    kind: LeaseKind,
) -> Result<u64, LeaseMgrError> {
    let mut count = 0;
    each(mgr, &Query::state(LeaseState::DEFAULT), |lease: L| {
        let is_of_kind = lease.kind().map_or(Some(LeaseKind::Address), LeaseKind::of) == Some(kind);
        let context = lease.data().user_context.as_ref().filter(|_| is_of_kind);
        let is_named =
            context.is_some_and(|context| client_classes(context).any(|name| *name == *class.as_bytes()));
        count += u64::from(is_named);
        Ok(())
    })?;
    Ok(count)
}

pub(super) fn import<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    leases: &mut import::Leases<'_, L>,
    options: &ImportOptions,
    report: &mut dyn FnMut(ImportEvent<'_, L>),
) -> Result<Imported<L>, LeaseMgrError> {
    options.check()?;
    mgr.tracking().refuse_in_callback()?;
    import::in_portions(leases, options, Tally::new(report), |portion, tally| {
        import::add_portion(mgr, portion, tally)
    })
}

pub(super) fn check_limits<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    context: &UserContext,
) -> Result<Option<LimitExceeded>, LeaseMgrError> {
    let limits = Limits::of(context)?;
    let of_class = |class: &ClientClass, kind| mgr.class_leases(class, kind);
    let of_subnet = |subnet, kind| {
        let query = StatisticsQuery::subnet(subnet);
        let is_assigned = |row: &StatisticsRow| {
            matches!(row.state, LeaseState::DEFAULT | LeaseState::DECLINED)
                && row.lease_type.map_or(Some(LeaseKind::Address), LeaseKind::of) == Some(kind)
        };
        Ok(mgr.statistics(&query)?.iter().filter(|row| is_assigned(row)).map(|row| row.count).sum())
    };
    let failure = RefCell::new(None);
    let known = |count: Result<u64, LeaseMgrError>| {
        count.unwrap_or_else(|error| {
            *failure.borrow_mut() = Some(error);
            0
        })
    };
    let exceeded = limits.exceeded(
        L::FAMILY,
        |class, kind| known(of_class(class, kind)),
        |subnet, kind| known(of_subnet(subnet, kind)),
    );
    failure.into_inner().map_or(Ok(exceeded), Err)
}

pub(crate) fn add_within<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    lease: &L,
    context: &UserContext,
) -> Result<AddedWithin, LeaseMgrError> {
    let tracking = mgr.tracking();
    tracking.refuse_in_callback()?;
    let _turn = tracking.limits.lock();
    match mgr.check_limits(context)? {
        Some(exceeded) => Ok(AddedWithin::LimitReached(exceeded)),
        None => Ok(match mgr.add(lease)? {
            Added::Added => AddedWithin::Added,
            Added::AddressTaken => AddedWithin::AddressTaken,
        }),
    }
}

pub(super) fn by_client_in_subnet<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    hwaddr: Option<&HwAddr>,
    client: Option<ClientKey<'_>>,
    subnet: SubnetId,
) -> Result<Vec<L>, LeaseMgrError> {
    if let Some(client) = client {
        let leases = mgr.find(&Query::client(client).in_subnet(subnet))?;
        if !leases.is_empty() {
            return Ok(leases);
        }
    }
    let Some(hwaddr) = hwaddr else { return Ok(Vec::new()) };
    let mut leases = mgr.find(&Query::hwaddr(hwaddr).in_subnet(subnet))?;
    retain_of_hwaddr(&mut leases, hwaddr, client.is_some());
    Ok(leases)
}

pub(crate) fn reclaim_expired<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    now: SystemTime,
    limit: usize,
) -> Result<Vec<L>, LeaseMgrError> {
    mgr.tracking().refuse_in_callback()?;
    let expired = mgr.list_expired(now, limit)?;
    let (mut reclaimed, mut failure) = (Vec::new(), None);
    for step in expired.chunks(PAGE) {
        let operations: Vec<_> = step.iter().map(Operation::reclaim).collect();
        for (lease, result) in step.iter().zip(mgr.apply(&operations)) {
            match is_reclaimed(mgr.tracking(), CountedAs::of(lease), result) {
                Ok(true) => reclaimed.push(reclaimed_form(lease).unwrap_or_else(|| lease.clone())),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        if failure.is_some() {
            break;
        }
    }
    // The caller needs the leases that were reclaimed. If the error persists, the next call
    // returns it.
    failure.filter(|_| reclaimed.is_empty()).map_or(Ok(reclaimed), Err)
}

/// Takes up to `size` leases of a list of addresses, of which some may have no lease any longer.
pub(super) fn listed_page<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    addresses: &mut impl Iterator<Item = L::Address>,
    size: usize,
) -> Result<Vec<L>, LeaseMgrError> {
    let mut page = Vec::new();
    while page.len() < size {
        let next: Vec<_> = addresses.take(size - page.len()).collect();
        if next.is_empty() {
            break;
        }
        page.extend(mgr.get_many(&next)?.into_iter().flatten());
    }
    Ok(page)
}

pub(crate) fn scan<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<(Vec<L>, Option<Cursor>), LeaseMgrError> {
    let after = cursor.map(|cursor| match <[u8; 16]>::try_from(cursor.as_bytes()) {
        Ok(bits) => Ok(L::address_of_bits(u128::from_be_bytes(bits))),
        Err(_) => Err(LeaseMgrError::BadArgument {
            argument: "the cursor",
            value: format!("{:02x?}", cursor.as_bytes()),
            expected: "a cursor that a scan of this manager returned",
        }),
    });
    let leases = mgr.page(after.transpose()?, limit)?;
    let next = leases.last().filter(|_| leases.len() == limit);
    let next = next.map(|last| Cursor::new(&L::bits_of(last.address()).to_be_bytes()));
    Ok((leases, next))
}

pub(crate) fn first_free<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    range: &FreeRange<L>,
    now: SystemTime,
) -> Result<Option<L::Address>, LeaseMgrError> {
    let Some(mut next) = range.from(range.first()) else {
        return Ok(None);
    };
    loop {
        let query = Query::all().in_range(next..=range.last()).limit(PAGE);
        let page = mgr.find(&query)?;
        let occupied = page.iter().filter(|lease| !is_replaceable(*lease, now)).map(L::address);
        match range.lowest_gap(next, occupied) {
            Gap::Found(address) => return Ok(Some(address)),
            Gap::After(address) => match page.last().filter(|_| page.len() == PAGE) {
                Some(last) if address <= last.address() => return Ok(Some(address)),
                Some(_) => next = address,
                None => return Ok(Some(address)),
            },
            Gap::None => return Ok(None),
        }
    }
}

/// Returns whether another client can get the address of the lease, as the lease has ended or is
/// reclaimed.
pub(crate) fn is_replaceable<L: ManagedLease>(lease: &L, now: SystemTime) -> bool {
    lease.is_reclaimed() || lease.is_expired(now)
}

pub(super) fn claim_first<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    range: &FreeRange<L>,
    now: SystemTime,
    make: &mut dyn FnMut(L::Address) -> L,
) -> Result<Option<Claimed<L>>, LeaseMgrError> {
    mgr.tracking().refuse_in_callback()?;
    loop {
        let mut free = mgr.first_free(range, now)?;
        let (address, _lock) = loop {
            let Some(address) = free else {
                return Ok(None);
            };
            if let Some(lock) = mgr.tracking().try_lock(address) {
                break (address, lock);
            }
            // Another caller is about to claim this address.
            free = match range.starting_after(address) {
                Some(rest) => mgr.first_free(&rest, now)?,
                None => None,
            };
        };
        let there = mgr.get(address)?;
        if there.as_ref().is_some_and(|lease| !is_replaceable(lease, now)) {
            continue;
        }
        let lease = make(address);
        if lease.address() != address {
            return Err(LeaseMgrError::BadArgument {
                argument: "the address of the new lease",
                value: lease.address().to_string(),
                expected: "the address that was chosen for it",
            });
        }
        let done = match &there {
            None => mgr.add(&lease).map(|added| added == Added::Added),
            Some(old) => mgr.update_expecting(&lease, Some(old)).map(|()| true),
        };
        match done {
            Ok(true) => return Ok(Some(Claimed { lease, replaced: there })),
            Ok(false) => {}
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(error),
        }
    }
}
