//! Totals of leases that were assigned and reclaimed since the manager was opened.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};

use super::{ManagedLease, StatisticsQuery, StatisticsRow};
use crate::lease::{LeaseState, LeaseType, PoolId, SubnetId};

/// The totals of a subnet, or of a pool, and of one kind of leases. Rows are ordered by their first
/// three fields.
///
/// | field | Kea's statistics (`nas` and `pds`: addresses and prefixes of DHCPv6) |
/// |---|---|
/// | `size` | `total-addresses`, `total-nas`, `total-pds` |
/// | `assigned` | `assigned-addresses`, `assigned-nas`, `assigned-pds` |
/// | `declined` | `declined-addresses` |
/// | `registered` | `registered-nas` |
/// | `cumulative_assigned` | `cumulative-assigned-addresses`, `cumulative-assigned-nas`, `cumulative-assigned-pds` |
/// | `reclaimed` | `reclaimed-leases` |
/// | `reclaimed_declined` | `reclaimed-declined-addresses` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct TotalsRow {
    /// The subnet.
    pub subnet_id: SubnetId,
    /// The pool, if pools are counted separately.
    pub pool_id: Option<PoolId>,
    /// The type of the leases; `None` for DHCPv4.
    pub lease_type: Option<LeaseType>,
    /// Number of addresses or prefixes that exist, as set with [`Totals::set_size`]; for a subnet,
    /// the sum of its pools. Numbers beyond the maximum count as the maximum. `None` if it was not
    /// set.
    pub size: Option<u128>,
    /// Number of leases that are assigned now: in use, or declined. Temporary addresses are not
    /// counted.
    pub assigned: u64,
    /// Number of these that are declined.
    pub declined: u64,
    /// Number of addresses that clients have registered.
    pub registered: u64,
    /// Number of assignments of leases.
    pub cumulative_assigned: u64,
    /// Number of leases that were reclaimed, including declined ones.
    pub reclaimed: u64,
    /// Number of declined leases that were reclaimed.
    pub reclaimed_declined: u64,
}

/// The key by which leases are counted.
type Key = (SubnetId, Option<LeaseType>, PoolId);

/// The numbers that are counted for each key.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    assigned: u64,
    reclaimed: u64,
    reclaimed_declined: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.assigned += other.assigned;
        self.reclaimed += other.reclaimed;
        self.reclaimed_declined += other.reclaimed_declined;
    }
}

type Shard = CachePadded<Mutex<HashMap<Key, Counts, RandomState>>>;

/// Number of shards. Threads that use different shards do not wait for each other.
const SHARDS: usize = 8;

/// Totals of leases that were assigned and reclaimed since the manager was opened, for a server to
/// publish. They do not outlive the manager, as in Kea.
///
/// A lease is *assigned* when it becomes in use (state 0): when it is added, or replaces a lease
/// that was in another state or had ended when the client was heard. A renewal is not an
/// assignment. A lease is *reclaimed* by [`LeaseMgrExt::reclaim`](super::LeaseMgrExt::reclaim), or
/// when a lease that has ended and was not reclaimed is assigned again.
///
/// Changes by an operator or a partner server are not assignments; see [`Totals::uncounted`].
///
/// ```
/// use leasemgr::lease::{HwAddr, Lease4, PoolId, SubnetId, system_time};
/// use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory, StatisticsQuery};
///
/// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
/// leases.tracking().totals().set_size(SubnetId(1), PoolId(0), None, Some(191));
/// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
/// let mut lease = Lease4::builder([192, 0, 2, 1].into()).client(client).subnet(1).lifetime(60).build()?;
/// let _ = leases.add(&lease)?;
/// for lease in leases.list_expired(system_time(60), 0)? {
///     leases.reclaim(&lease)?;
/// }
/// // The client returns.
/// lease.set_heard_at(system_time(100));
/// leases.update(&lease)?;
/// let row = leases.totals(&StatisticsQuery::default())?[0];
/// assert_eq!((row.size, row.assigned), (Some(191), 1));
/// assert_eq!((row.cumulative_assigned, row.reclaimed), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Totals {
    shards: [Shard; SHARDS],
    sizes: RwLock<BTreeMap<Key, u128>>,
}

impl Default for Totals {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()), sizes: RwLock::default() }
    }
}

impl fmt::Debug for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totals").field("sizes", &self.sizes.read().len()).finish_non_exhaustive()
    }
}

thread_local! {
    /// Index of the shard of the thread.
    static SHARD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
    /// Number of calls of `uncounted` that the thread is in.
    static UNCOUNTED: Cell<usize> = const { Cell::new(0) };
}

/// Until dropped, changes of this thread are not counted.
struct Uncounted;

impl Uncounted {
    fn new() -> Self {
        UNCOUNTED.set(UNCOUNTED.get() + 1);
        Self
    }
}

impl Drop for Uncounted {
    fn drop(&mut self) {
        UNCOUNTED.set(UNCOUNTED.get().saturating_sub(1));
    }
}

/// The fields of a lease that [`Totals`] needs, for backends that do not have the whole lease at
/// hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedAs {
    /// The subnet.
    pub subnet_id: SubnetId,
    /// The pool.
    pub pool_id: PoolId,
    /// The type of the lease; `None` for DHCPv4.
    pub lease_type: Option<LeaseType>,
    /// The state.
    pub state: LeaseState,
    /// When it ends, in seconds since the epoch, negative before it; `None` for an infinite
    /// lifetime.
    pub end: Option<i64>,
}

impl CountedAs {
    /// Returns these fields of a lease.
    pub fn of<L: ManagedLease>(lease: &L) -> Self {
        let data = lease.data();
        let lifetime = data.valid_lifetime;
        Self {
            subnet_id: data.subnet_id,
            pool_id: data.pool_id,
            lease_type: lease.kind(),
            state: lease.state(),
            end: (!lifetime.is_infinite()).then(|| data.cltt.saturating_add(lifetime.0.into())),
        }
    }

    fn key(&self) -> Key {
        (self.subnet_id, self.lease_type, self.pool_id)
    }
}

impl Totals {
    /// Sets the number of addresses or prefixes of a kind (`None` for DHCPv4) in a pool; use pool 0
    /// if pools have no ids. A size of `None` removes the entry.
    pub fn set_size(
        &self,
        subnet: SubnetId,
        pool: PoolId,
        lease_type: Option<LeaseType>,
        size: Option<u128>,
    ) {
        let key = (subnet, lease_type, pool);
        match size {
            Some(size) => self.sizes.write().insert(key, size),
            None => self.sizes.write().remove(&key),
        };
    }

    /// Resets the counts to 0. Sizes stay.
    pub fn reset(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    /// Runs `work`, and does not count the changes that the calling thread makes in it. For changes
    /// by which this server does not assign a lease, such as lease commands of an operator and
    /// updates of a partner server.
    ///
    /// ```
    /// use leasemgr::lease::{HwAddr, Lease4};
    /// use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory, StatisticsQuery};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(60).build()?;
    /// leases.tracking().totals().uncounted(|| leases.add(&lease))?;
    /// let row = leases.totals(&StatisticsQuery::default())?[0];
    /// assert_eq!((row.assigned, row.cumulative_assigned), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn uncounted<T>(&self, work: impl FnOnce() -> T) -> T {
        let _uncounted = Uncounted::new();
        work()
    }

    fn count(&self, key: Key, counts: Counts) {
        if UNCOUNTED.get() == 0 {
            let shard = SHARD.with(|shard| &self.shards[*shard]);
            shard.lock().entry(key).or_default().add(counts);
        }
    }

    /// Counts a lease that was added.
    pub(super) fn added<L: ManagedLease>(&self, lease: &L) {
        if lease.state() == LeaseState::DEFAULT {
            let data = lease.data();
            let key = (data.subnet_id, lease.kind(), data.pool_id);
            self.count(key, Counts { assigned: 1, ..Counts::default() });
        }
    }

    /// Counts a lease that took the place of another one.
    #[inline]
    pub(super) fn replaced<L: ManagedLease>(&self, old: CountedAs, new: &L) {
        if new.state() != LeaseState::DEFAULT {
            return;
        }
        let ended = old.end.is_some_and(|end| end <= new.data().cltt);
        if old.state == LeaseState::DEFAULT && !ended {
            return;
        }
        // The client ended a released lease itself, so it is not reclaimed.
        if ended && !matches!(old.state, LeaseState::EXPIRED_RECLAIMED | LeaseState::RELEASED) {
            self.reclaimed(old);
        }
        self.added(new);
    }

    /// Counts a lease that was reclaimed.
    pub(super) fn reclaimed(&self, lease: CountedAs) {
        let declined = u64::from(lease.state == LeaseState::DECLINED);
        self.count(lease.key(), Counts { reclaimed: 1, reclaimed_declined: declined, assigned: 0 });
    }

    /// Adds the counts of another manager, and takes over its sizes.
    pub(super) fn adopt(&self, other: &Self) {
        let counted: Vec<_> = other.counted().into_iter().collect();
        for (key, counts) in counted {
            self.shards[0].lock().entry(key).or_default().add(counts);
        }
        let sizes = other.sizes.read().clone();
        self.sizes.write().extend(sizes);
    }

    /// Returns the sum of all shards.
    fn counted(&self) -> BTreeMap<Key, Counts> {
        let mut counted = BTreeMap::<_, Counts>::new();
        for shard in &self.shards {
            for (key, counts) in shard.lock().iter() {
                counted.entry(*key).or_default().add(*counts);
            }
        }
        counted
    }

    /// Returns the rows that a query selects. `now` are the present numbers of leases of each pool
    /// that the query selects.
    pub(super) fn rows(&self, query: &StatisticsQuery, now: &[StatisticsRow]) -> Vec<TotalsRow> {
        let (first, last) = query.subnets.bounds();
        let mut rows = BTreeMap::new();
        let mut change = |(subnet_id, lease_type, pool_id): Key, change: &mut dyn FnMut(&mut TotalsRow)| {
            if !(first..=last).contains(&subnet_id) {
                return;
            }
            let pool_id = query.by_pool.then_some(pool_id);
            change(rows.entry((subnet_id, pool_id, lease_type)).or_insert(TotalsRow {
                subnet_id,
                pool_id,
                lease_type,
                size: None,
                assigned: 0,
                declined: 0,
                registered: 0,
                cumulative_assigned: 0,
                reclaimed: 0,
                reclaimed_declined: 0,
            }));
        };
        for (key, size) in self.sizes.read().iter() {
            change(*key, &mut |row| row.size = Some(row.size.unwrap_or(0).saturating_add(*size)));
        }
        for (key, counts) in self.counted() {
            change(key, &mut |row| {
                row.cumulative_assigned += counts.assigned;
                row.reclaimed += counts.reclaimed;
                row.reclaimed_declined += counts.reclaimed_declined;
            });
        }
        for counted in now {
            let key = (counted.subnet_id, counted.lease_type, counted.pool_id.unwrap_or_default());
            change(key, &mut |row| match counted.state {
                LeaseState::DEFAULT => row.assigned += counted.count,
                LeaseState::DECLINED => {
                    row.assigned += counted.count;
                    row.declined += counted.count;
                }
                LeaseState::REGISTERED => row.registered += counted.count,
                _ => {}
            });
        }
        rows.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::{HwAddr, Lease4, Lifetime};
    use crate::lease_mgr::Subnets;

    const ALL: StatisticsQuery = StatisticsQuery { subnets: Subnets::All, by_pool: false };

    fn lease(state: LeaseState, cltt: i64, lifetime: Lifetime) -> Lease4 {
        let hwaddr = Some(HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap());
        let mut lease = Lease4::new([192, 0, 2, 1].into(), hwaddr, None, state).unwrap();
        lease.data_mut().cltt = cltt;
        lease.data_mut().valid_lifetime = lifetime;
        lease
    }

    fn figures(totals: &Totals) -> [u64; 3] {
        match totals.rows(&ALL, &[])[..] {
            [] => [0; 3],
            [row] => [row.cumulative_assigned, row.reclaimed, row.reclaimed_declined],
            ref rows => panic!("{rows:?}"),
        }
    }

    const HOUR: Lifetime = Lifetime(3600);

    #[rstest]
    #[case::renewal(LeaseState::DEFAULT, HOUR, 3599, [0, 0, 0])]
    #[case::of_an_infinite_lease(LeaseState::DEFAULT, Lifetime::INFINITE, i64::MAX, [0, 0, 0])]
    #[case::one_that_has_ended(LeaseState::DEFAULT, HOUR, 3600, [1, 1, 0])]
    #[case::a_reclaimed_lease(LeaseState::EXPIRED_RECLAIMED, HOUR, 7200, [1, 0, 0])]
    #[case::a_reclaimed_lease_that_has_not_ended(LeaseState::EXPIRED_RECLAIMED, HOUR, 10, [1, 0, 0])]
    #[case::a_declined_lease_whose_probation_is_over(LeaseState::DECLINED, HOUR, 3600, [1, 1, 1])]
    #[case::a_declined_lease(LeaseState::DECLINED, HOUR, 10, [1, 0, 0])]
    #[case::a_released_lease(LeaseState::RELEASED, HOUR, 3600, [1, 0, 0])]
    #[case::a_registered_lease(LeaseState::REGISTERED, HOUR, 10, [1, 0, 0])]
    fn leases_that_become_in_use_are_assigned(
        #[case] state: LeaseState,
        #[case] lifetime: Lifetime,
        #[case] heard: i64,
        #[case] expected: [u64; 3],
    ) {
        let totals = Totals::default();
        totals.replaced(CountedAs::of(&lease(state, 0, lifetime)), &lease(LeaseState::DEFAULT, heard, HOUR));
        assert_eq!(figures(&totals), expected);
    }

    #[rstest]
    fn leases_in_other_states_are_not_assigned(#[values(1, 2, 3, 4, 77)] state: u32) {
        let totals = Totals::default();
        let lease = |state, cltt| lease(LeaseState(state), cltt, HOUR);
        totals.added(&lease(state, 0));
        totals.replaced(CountedAs::of(&lease(2, 0)), &lease(state, 7200));
        assert_eq!(figures(&totals), [0; 3]);
    }

    #[rstest]
    #[case::none(&[], None)]
    #[case::one(&[Some(1 << 127)], Some(1 << 127))]
    #[case::two(&[Some(1 << 126), Some(1 << 126)], Some(1 << 127))]
    #[case::beyond_the_maximum(&[Some(1 << 127), Some(1 << 127)], Some(u128::MAX))]
    #[case::all_addresses(&[Some(u128::MAX), Some(1)], Some(u128::MAX))]
    #[case::one_is_removed(&[Some(5), None], Some(5))]
    fn the_size_of_a_subnet_is_that_of_its_pools(#[case] sizes: &[Option<u128>], #[case] all: Option<u128>) {
        let totals = Totals::default();
        for (&size, pool) in sizes.iter().zip(0..) {
            totals.set_size(SubnetId(1), PoolId(pool), Some(LeaseType::PD), Some(99));
            totals.set_size(SubnetId(1), PoolId(pool), Some(LeaseType::PD), size);
        }
        assert_eq!(totals.rows(&ALL, &[]).first().and_then(|row| row.size), all);
        let by_pool = totals.rows(&StatisticsQuery { by_pool: true, ..ALL }, &[]);
        let found: Vec<_> = by_pool.iter().map(|row| row.size).collect();
        assert_eq!(found, sizes.iter().copied().filter(Option::is_some).collect::<Vec<_>>());
    }

    #[test]
    fn rows_ascend_by_subnet_pool_and_type() {
        let totals = Totals::default();
        for (subnet, pool, kind) in [(2, 0, 2), (1, 7, 0), (1, 3, 2), (1, 3, 0), (256, 0, 1), (1, 3, 1)] {
            totals.set_size(SubnetId(subnet), PoolId(pool), Some(LeaseType(kind)), Some(1));
        }
        let rows = |query: &StatisticsQuery| -> Vec<_> {
            let rows = totals.rows(query, &[]);
            assert!(rows.is_sorted());
            rows.iter()
                .map(|row| (row.subnet_id.0, row.pool_id.map(|p| p.0), row.lease_type.unwrap().0))
                .collect()
        };
        assert_eq!(rows(&ALL), [(1, None, 0), (1, None, 1), (1, None, 2), (2, None, 2), (256, None, 1)]);
        let by_pool = StatisticsQuery { subnets: Subnets::One(SubnetId(1)), by_pool: true };
        let some = Some;
        assert_eq!(rows(&by_pool), [(1, some(3), 0), (1, some(3), 1), (1, some(3), 2), (1, some(7), 0)]);
    }

    #[test]
    fn counts_of_many_threads_are_added() {
        let totals = Totals::default();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        totals.added(&lease(LeaseState::DEFAULT, 0, HOUR));
                    }
                });
            }
        });
        assert_eq!(figures(&totals), [2000, 0, 0]);
        totals.reset();
        assert_eq!(figures(&totals), [0; 3]);
    }

    #[test]
    fn uncounted_work_ends_also_with_a_panic() {
        let totals = Totals::default();
        let add = || totals.added(&lease(LeaseState::DEFAULT, 0, HOUR));
        totals.uncounted(|| totals.uncounted(add));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            totals.uncounted(|| panic!("in the work"));
        }));
        assert!(panicked.is_err());
        assert_eq!(figures(&totals), [0; 3]);
        add();
        assert_eq!(figures(&totals), [1, 0, 0]);
    }
}
