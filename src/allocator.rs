//! Finds free addresses: chooses the address of a pool to offer to a client without a lease.
//!
//! An [`Allocator`] proposes an address, and the lease manager decides: an address is assigned to a
//! client when [`LeaseMgr::add`] returns [`Added`](crate::Added::Added), or when a conditional
//! update has replaced a reclaimed lease. So an address never has two clients, even if the
//! allocator's knowledge is outdated.
//!
//! An offered address is reserved for a while, in memory only: a server offers an address to a
//! DHCPv4 client before the client requests it (RFC 2131 section 3.1), and advertises it to a
//! DHCPv6 client (RFC 8415 section 18.3.9).
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use leasemgr::allocator::{Allocator, Pool, Strategy};
//! use leasemgr::lease::{HwAddr, Lease4};
//! use leasemgr::{Added, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrFactory};
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let pool = Pool::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2))?;
//! let allocator = Arc::new(Allocator::new(pool, Strategy::FreeList, Duration::from_secs(30)));
//! allocator.follow(&leases)?;
//!
//! // An address without a lease, or with a reclaimed one, can be assigned.
//! let is_free = |address| Ok::<_, LeaseMgrError>(leases.get(address)?.is_none_or(|lease| lease.is_reclaimed()));
//! let now = Instant::now();
//! let offered = allocator.offer(&"printer", None, now, is_free)?.unwrap();
//! let other = allocator.offer(&"camera", Some(offered), now, is_free)?.unwrap();
//! assert_ne!(offered, other);
//! assert_eq!(allocator.offer(&"clock", None, now, is_free)?, None);
//!
//! // The client requests the address; the lease manager tells the allocator.
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder(offered).client(client).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! assert_eq!(allocator.offered(&"printer", now), None);
//!
//! // An address is free again after an offer that was not accepted, or when its lease is deleted.
//! let later = now + Duration::from_secs(30);
//! assert_eq!(allocator.offer(&"clock", None, later, is_free)?, Some(other));
//! leases.delete(offered)?;
//! assert_eq!(allocator.offer(&"radio", None, later, is_free)?, Some(offered));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bit_set;
mod offers;
mod permutation;
mod pool;
mod runs;
#[cfg(test)]
#[cfg(feature = "memfile")]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::RangeInclusive;
use std::ptr;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::lease_mgr::{
    CallbackError, Change, ChangeKind, FreeRange, LeaseMgr, LeaseMgrError, ManagedLease, Query,
};
use bit_set::BitSet;
use offers::Offers;
use permutation::Permutation;
pub use pool::{Pool, PoolAddress, PoolError};
use runs::Runs;

/// Number of leases in a page when an allocator begins to follow a lease manager.
const PAGE: usize = 1000;

/// How an [`Allocator`] finds an address.
///
/// # Stores that several servers share
/// Callbacks for changes by other servers come late or not at all ([`LeaseMgr::is_shared`]). If an
/// allocator follows a shared manager, [`FreeList`](Self::FreeList) and
/// [`LowestFirst`](Self::LowestFirst) keep no free addresses themselves, and ask the manager for an
/// address that is neither offered nor excluded: the free list for any
/// ([`LeaseMgr::free_address`]), or for the lowest one ([`LeaseMgr::first_free`]) if the backend
/// has no better way. Addresses whose leases have ended are included as soon as the leases are
/// reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// In an unpredictable order (for the reason, see RFC 7943 section 2) that contains each
    /// address once: the lease manager is asked for one address after the other until one is free.
    /// In a pool that is mostly free this takes one or two queries and no memory; in a full pool,
    /// one query for each address.
    Random,
    /// In ascending order, from where the previous address was found. The cost is that of
    /// [`Random`](Self::Random).
    Iterative,
    /// From a set of the free addresses, near an unpredictable position: in constant time, also in
    /// a full pool. Addresses of reclaimed leases are used only if there is no other, so that
    /// returning clients may find them again. Takes 2 bits of memory for each address of the pool,
    /// whether free or not.
    ///
    /// The allocator follows the lease manager ([`Allocator::follow`]) to know the free addresses.
    /// An address in the set that turned out to be in use, because another program changes the same
    /// leases, is added again when the manager reports that its lease was deleted. Pools of more
    /// than [`FREE_LIST_MAX`](Self::FREE_LIST_MAX) addresses are searched as with
    /// [`Random`](Self::Random) instead: they are never full.
    FreeList,
    /// The lowest free address, without a lease or with a reclaimed one, so that leases stay close
    /// together. In logarithmic time, for pools of any size. Follows the lease manager as
    /// [`FreeList`](Self::FreeList) does, and stores runs of addresses in use, so that memory is
    /// needed only for each gap between them.
    LowestFirst,
}

impl Strategy {
    /// Maximum number of addresses in a pool with a set of the free ones, of at most 68 MB: 2^28, a
    /// DHCPv4 subnet with a prefix of 4 bits.
    pub const FREE_LIST_MAX: u128 = 1 << 28;

    /// The strategies with their names.
    pub const NAMES: [(&str, Self); 4] = [
        ("random", Self::Random),
        ("iterative", Self::Iterative),
        ("free-list", Self::FreeList),
        ("lowest-first", Self::LowestFirst),
    ];
}

/// `random`, `iterative`, `free-list` or `lowest-first`.
impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(_, strategy)| strategy == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

/// The name is not that of a strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown strategy {name:?}, expected random, iterative, free-list or lowest-first")]
pub struct StrategyError {
    /// The given name.
    pub name: String,
}

impl FromStr for Strategy {
    type Err = StrategyError;

    fn from_str(name: &str) -> Result<Self, StrategyError> {
        let named = Self::NAMES.iter().find(|(other, _)| *other == name);
        named.map(|(_, strategy)| *strategy).ok_or_else(|| StrategyError { name: name.to_owned() })
    }
}

/// Why an allocator cannot follow a lease manager.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// An allocator for the same pool follows the manager already.
    #[error(transparent)]
    Followed(#[from] CallbackError),
    /// The leases cannot be read.
    #[error(transparent)]
    Leases(#[from] LeaseMgrError),
}

/// Proposes free addresses of a pool, and reserves each offered address for its client for a while.
///
/// `C` is the identity of a client, such as client id or hardware address in DHCPv4, and DUID, IAID
/// and type in DHCPv6. A client has at most one offer.
///
/// All threads of a server share one allocator. Its lock is never held while the lease manager is
/// called. When the allocator is dropped, it stops following lease managers.
pub struct Allocator<A, C> {
    pool: Pool<A>,
    strategy: Strategy,
    offer_time: Duration,
    state: Mutex<State<A, C>>,
    /// The followed lease managers, by the addresses of their trackings, with functions that
    /// unregister the callbacks.
    followed: Mutex<Vec<(usize, Unfollow)>>,
}

type Unfollow = Box<dyn FnOnce() + Send>;

impl<A: PoolAddress, C: Clone + Eq + Hash> Allocator<A, C> {
    /// Creates an allocator for a pool whose addresses are all considered free. Offers are kept for
    /// `offer_time`, unless the caller of [`Allocator::offer_for`] gives another time.
    #[must_use]
    pub fn new(pool: Pool<A>, strategy: Strategy, offer_time: Duration) -> Self {
        let is_small = pool.last_index() < Strategy::FREE_LIST_MAX;
        let strategy = if strategy == Strategy::FreeList && !is_small { Strategy::Random } else { strategy };
        let excluded = Runs::default();
        let source = Source::new(&pool, strategy, &excluded);
        let state = Mutex::new(State { source, offers: Offers::new(), excluded });
        Self { pool, strategy, offer_time, state, followed: Mutex::default() }
    }

    /// Returns the pool.
    pub fn pool(&self) -> &Pool<A> {
        &self.pool
    }

    /// Returns the strategy: random, if the free list of this pool would be too large.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Excludes the addresses of a range permanently, or the prefixes that have an address in it:
    /// none of them is offered any more, whether it has a lease or not, and offers of them end.
    /// Existing leases are not changed.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::net::Ipv4Addr;
    /// use std::time::{Duration, Instant};
    /// use leasemgr::LeaseMgrError;
    /// use leasemgr::allocator::{Allocator, Pool, Strategy};
    ///
    /// let address = |n| Ipv4Addr::new(192, 0, 2, n);
    /// let pool = Pool::new(address(1), address(9))?;
    /// let allocator = Allocator::new(pool, Strategy::LowestFirst, Duration::from_secs(30));
    /// allocator.exclude(address(0)..=address(2));
    /// let is_free = |_| Ok::<_, LeaseMgrError>(true);
    /// assert_eq!(allocator.offer(&"printer", Some(address(2)), Instant::now(), is_free)?, Some(address(3)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exclude(&self, addresses: RangeInclusive<A>) {
        if let Some((first, last)) = self.pool.indexes(&addresses) {
            self.state.lock().exclude(&self.pool, first, last);
        }
    }

    /// Returns an address for a client without one, and reserves it: the address that the client
    /// was offered before, the one that it wants, or any; `None` if no address is free. `is_free`
    /// returns whether this client may have an address according to the leases. `now` is the
    /// present; it may differ a little between threads.
    ///
    /// An address of the pool that a client wants is passed to `is_free` even if it is not in the
    /// free list, so a client can be offered an address that it has a lease for.
    ///
    /// # Errors
    /// Returns the error of `is_free`, and [`LeaseMgrError`] if a shared lease manager
    /// ([`Strategy`]) cannot be read. The client has no offer then.
    pub fn offer<E: From<LeaseMgrError>>(
        &self,
        client: &C,
        wanted: Option<A>,
        now: Instant,
        is_free: impl FnMut(A) -> Result<bool, E>,
    ) -> Result<Option<A>, E> {
        self.offer_for(client, wanted, (now, self.offer_time), is_free)
    }

    /// As [`Allocator::offer`], but keeps the address for the client for this time from `now` on.
    /// The end of an existing offer does not change.
    ///
    /// # Errors
    /// As [`Allocator::offer`].
    pub fn offer_for<E: From<LeaseMgrError>>(
        &self,
        client: &C,
        wanted: Option<A>,
        (now, time): (Instant, Duration),
        mut is_free: impl FnMut(A) -> Result<bool, E>,
    ) -> Result<Option<A>, E> {
        let mut search =
            Search { wanted, left: 0, begun: false, kept: (now, time), rejected: Runs::default() };
        loop {
            let proposal = self.state.lock().propose(&self.pool, client, &mut search);
            let address = match proposal {
                Proposal::Nothing => return Ok(None),
                Proposal::Try(address) => address,
                Proposal::Ask(ask, unwanted) => match ask(&unwanted)? {
                    // The address was excluded, and there is no other.
                    Some(address) if self.pool.index(address).is_none_or(|n| unwanted.contains(n)) => {
                        return Ok(None);
                    }
                    Some(address) if self.state.lock().claim(&self.pool, client, address, &search) => address,
                    Some(_) => continue,
                    None => return Ok(None),
                },
            };
            match is_free(address) {
                Ok(true) => return Ok(Some(address)),
                Ok(false) => {
                    self.state.lock().reject(&self.pool, client, address);
                    if let Some(index) = self.pool.index(address) {
                        search.rejected.insert(index, index);
                    }
                }
                Err(error) => {
                    self.state.lock().withdraw(&self.pool, client);
                    return Err(error);
                }
            }
        }
    }

    /// Returns the address that is offered to a client, if the offer has not ended.
    pub fn offered(&self, client: &C, now: Instant) -> Option<A> {
        self.state.lock().offers.of_client(client, now)
    }

    /// Returns whether the offers let a client have an address: it is in the pool, not excluded,
    /// and not reserved for another client.
    pub fn may_take(&self, client: &C, address: A, now: Instant) -> bool {
        self.pool.index(address).is_some_and(|index| {
            let state = self.state.lock();
            !state.excluded.contains(index) && !state.offers.is_of_other_client(address, client, now)
        })
    }

    /// Ends the offer of a client, as it has chosen another server, or has declined the address.
    pub fn withdraw(&self, client: &C) {
        self.state.lock().withdraw(&self.pool, client);
    }

    /// Records that an address now has a lease that is not reclaimed, which ends its offer. In a
    /// pool of prefixes, this concerns the prefix that contains the address: a server may have
    /// recorded a prefix with bits after its length.
    pub fn taken(&self, address: A) {
        if let Some(index) = self.pool.index_around(address) {
            self.state.lock().taken(self.pool.nth(index), index);
        }
    }

    /// Records that an address has no lease any more.
    pub fn released(&self, address: A) {
        self.free(address, Tier::Unused);
    }

    /// Records that the lease of an address was reclaimed: the address is free, but its client may
    /// return.
    pub fn reclaimed(&self, address: A) {
        self.free(address, Tier::Reclaimed);
    }

    fn free(&self, address: A, tier: Tier) {
        if let Some(index) = self.pool.index_around(address) {
            self.state.lock().free(self.pool.nth(index), index, tier);
        }
    }
}

impl<A: PoolAddress, C: Clone + Eq + Hash + Send + Sync + 'static> Allocator<A, C> {
    /// Reads from a lease manager which addresses are in use, and follows its changes until
    /// [`Allocator::unfollow`] or until the allocator is dropped. Neither keeps the other alive.
    /// Must be called before threads change leases: of a lease that changes during the call, the
    /// allocator may keep the older state.
    ///
    /// If several servers share the leases, the allocator asks the manager from then on: see
    /// [`Strategy`].
    ///
    /// # Errors
    /// Returns [`FollowError::Followed`] if an allocator for the same pool follows the manager
    /// already, and [`FollowError::Leases`] if leases cannot be read. The allocator does not follow
    /// the manager then.
    pub fn follow<L: ManagedLease<Address = A>>(
        self: &Arc<Self>,
        leases: &Arc<dyn LeaseMgr<L>>,
    ) -> Result<(), FollowError> {
        let owner = self.owner();
        for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
            let allocator = Arc::downgrade(self);
            let learn = move |change: &Change<'_, L>| {
                if let Some(allocator) = allocator.upgrade() {
                    allocator.learn(change);
                }
            };
            leases.tracking().register(&owner, kind, None, learn)?;
        }
        let manager = Arc::downgrade(leases);
        let unfollow = move || {
            if let Some(leases) = manager.upgrade() {
                leases.tracking().unregister(&owner, None);
            }
        };
        self.followed.lock().push((ptr::from_ref(leases.tracking()).addr(), Box::new(unfollow)));
        if !matches!(self.strategy, Strategy::FreeList | Strategy::LowestFirst) {
            return Ok(());
        }
        if leases.is_shared() {
            self.state.lock().source = Source::Ask(asker(self.pool, self.strategy, Arc::downgrade(leases)));
            return Ok(());
        }
        let learned = self.learn_all(leases.as_ref());
        if learned.is_err() {
            self.unfollow(leases.as_ref());
        }
        Ok(learned?)
    }

    /// Stops following a lease manager, also one that has taken over the callbacks of another
    /// ([`Tracking::adopt`]). Known free addresses stay; after a shared manager, all addresses
    /// count as free.
    ///
    /// [`Tracking::adopt`]: crate::Tracking::adopt
    pub fn unfollow<L: ManagedLease<Address = A>>(&self, leases: &dyn LeaseMgr<L>) {
        leases.tracking().unregister(&self.owner(), None);
        // Another allocator for the same pool may follow the manager from now on, and must keep its
        // callbacks when this one is dropped.
        let unfollowed = ptr::from_ref(leases.tracking()).addr();
        self.followed.lock().retain(|(followed, _)| *followed != unfollowed);
        let mut state = self.state.lock();
        if matches!(state.source, Source::Ask(_)) {
            state.source = Source::new(&self.pool, self.strategy, &state.excluded);
        }
    }

    /// Returns the owner of its callbacks.
    fn owner(&self) -> String {
        format!("allocator of {}", self.pool)
    }

    fn learn_all<L: ManagedLease<Address = A>>(&self, leases: &dyn LeaseMgr<L>) -> Result<(), LeaseMgrError> {
        let mut query = Query::all().limit(PAGE);
        query.after = self.pool.first().to_bits().checked_sub(1).map(A::from_bits);
        loop {
            let page = leases.find(&query)?;
            for lease in &page {
                self.learn_of(lease);
            }
            match page.last() {
                Some(last) if last.address() < self.pool.end() => query = query.after(last.address()),
                _ => return Ok(()),
            }
        }
    }

    fn learn<L: ManagedLease<Address = A>>(&self, change: &Change<'_, L>) {
        match (change.before(), change.now()) {
            // A renewal does not change what is free.
            (Some(old), Some(new)) if old.is_reclaimed() == new.is_reclaimed() => {}
            (_, Some(new)) => self.learn_of(new),
            (_, None) => self.released(change.address()),
        }
    }

    fn learn_of<L: ManagedLease<Address = A>>(&self, lease: &L) {
        if lease.is_reclaimed() {
            self.reclaimed(lease.address());
        } else {
            self.taken(lease.address());
        }
    }
}

impl<A, C> Drop for Allocator<A, C> {
    fn drop(&mut self) {
        for (_, unfollow) in self.followed.get_mut().drain(..) {
            unfollow();
        }
    }
}

impl<A: fmt::Debug, C> fmt::Debug for Allocator<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, strategy, .. } = self;
        f.debug_struct("Allocator").field("pool", pool).field("strategy", strategy).finish_non_exhaustive()
    }
}

/// How an address is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// It has no lease.
    Unused,
    /// It has a reclaimed lease.
    Reclaimed,
}

/// Asks a lease manager for a free address whose index is not in the runs.
type Ask<A> = Arc<dyn Fn(&Runs) -> Result<Option<A>, LeaseMgrError> + Send + Sync>;

/// Returns a function that asks this manager.
fn asker<A: PoolAddress, L: ManagedLease<Address = A>>(
    pool: Pool<A>,
    strategy: Strategy,
    leases: Weak<dyn LeaseMgr<L>>,
) -> Ask<A> {
    let mut all = FreeRange::<L>::new(pool.first()..=pool.last());
    if u32::from(pool.prefix_len()) < A::BITS {
        all = FreeRange::prefixes(pool.first()..=pool.last(), pool.prefix_len());
    }
    // Leases that have ended count as free only when they are reclaimed.
    let now = SystemTime::UNIX_EPOCH;
    Arc::new(move |unwanted| {
        let Some(leases) = leases.upgrade() else {
            let place = "the lease manager that an allocator follows".to_owned();
            return Err(LeaseMgrError::Unavailable { place, since: SystemTime::now(), source: None });
        };
        let runs = unwanted.iter().map(|(first, last)| pool.nth(first)..=pool.nth(last));
        let range = runs.fold(all.clone(), FreeRange::without);
        if strategy == Strategy::FreeList {
            match leases.free_address(&range, now) {
                Err(LeaseMgrError::Unsupported { .. }) => {}
                found => return found,
            }
        }
        leases.first_free(&range, now)
    })
}

/// The state of all addresses.
struct State<A, C> {
    source: Source<A>,
    offers: Offers<A, C>,
    /// Indexes of addresses that are never offered.
    excluded: Runs,
}

/// The source of proposals.
enum Source<A> {
    /// One address after the other.
    Walk {
        /// The next position, among the addresses that are not excluded.
        next: u128,
        /// The last position; `None` if all addresses are excluded.
        last: Option<u128>,
        /// Maps positions to indexes; without it, they are equal.
        order: Option<Permutation>,
    },
    Free(FreeList),
    /// The lowest index in the pool that is not in these runs, which are in use, offered or
    /// excluded.
    Lowest(Runs),
    Ask(Ask<A>),
}

/// The state of a search for an address.
struct Search<A> {
    wanted: Option<A>,
    /// Number of positions that a walk has left.
    left: u128,
    begun: bool,
    /// The present, and for how long an offer is kept from then on.
    kept: (Instant, Duration),
    /// Indexes of addresses that were not free.
    rejected: Runs,
}

/// The next step of a search.
enum Proposal<A> {
    /// Try this address, which is the client's offer until it is rejected.
    Try(A),
    /// Ask the lease manager for an address whose index is not in the runs.
    Ask(Ask<A>, Runs),
    Nothing,
}

impl<A: PoolAddress, C: Clone + Eq + Hash> State<A, C> {
    fn propose(&mut self, pool: &Pool<A>, client: &C, search: &mut Search<A>) -> Proposal<A> {
        let (now, _) = search.kept;
        if !search.begun {
            search.begun = true;
            if let Source::Walk { last, .. } = self.source {
                search.left = last.map_or(0, |last| last.saturating_add(1));
            }
            while let Some((address, offer)) = self.offers.expire(now) {
                self.put_back(pool, address, offer.tier);
            }
            if let Some(address) = self.offers.of_client(client, now)
                && search.wanted.is_none_or(|wanted| wanted == address)
            {
                return Proposal::Try(address);
            }
        } else if let Some(address) = self.offers.of_client(client, now) {
            // Offered by another thread that serves the same client.
            return Proposal::Try(address);
        }
        self.withdraw(pool, client);
        if let Some(wanted) = search.wanted.take()
            && let Some(index) = pool.index(wanted)
            && !self.offers.is_offered(wanted)
            && !self.excluded.contains(index)
        {
            let tier = self.source.remove(index);
            self.offers.add(client, wanted, tier, search.kept);
            return Proposal::Try(wanted);
        }
        if let Source::Ask(ask) = &self.source {
            let mut unwanted = self.excluded.clone();
            let offered = self.offers.addresses().filter_map(|address| pool.index(address));
            offered.for_each(|index| unwanted.insert(index, index));
            search.rejected.iter().for_each(|(first, last)| unwanted.insert(first, last));
            return Proposal::Ask(Arc::clone(ask), unwanted);
        }
        match self.next(pool, &mut search.left) {
            Some((address, tier)) => {
                self.offers.add(client, address, tier, search.kept);
                Proposal::Try(address)
            }
            None => Proposal::Nothing,
        }
    }

    /// Offers the client an address that the lease manager has returned, and returns whether it
    /// did: not if the client or the address has an offer by now, or the address is excluded.
    fn claim(&mut self, pool: &Pool<A>, client: &C, address: A, search: &Search<A>) -> bool {
        let is_excluded = pool.index(address).is_none_or(|index| self.excluded.contains(index));
        let (now, _) = search.kept;
        if is_excluded || self.offers.is_offered(address) || self.offers.of_client(client, now).is_some() {
            return false;
        }
        self.withdraw(pool, client);
        self.offers.add(client, address, None, search.kept);
        true
    }

    /// Returns an address that is not offered, and the tier to which it is put back.
    fn next(&mut self, pool: &Pool<A>, left: &mut u128) -> Option<(A, Option<Tier>)> {
        match &mut self.source {
            Source::Free(free) => {
                let (index, tier) = free.take()?;
                Some((pool.nth(index as u128), Some(tier)))
            }
            Source::Lowest(used) => {
                let index = used.lowest_gap().filter(|&index| index <= pool.last_index())?;
                used.insert(index, index);
                Some((pool.nth(index), Some(Tier::Unused)))
            }
            Source::Walk { next, last, order } => loop {
                *left = left.checked_sub(1)?;
                let place = *next;
                *next = if place >= (*last)? { 0 } else { place + 1 };
                let index = self.excluded.gap_at(order.as_ref().map_or(place, |order| order.at(place)))?;
                let address = pool.nth(index);
                if !self.offers.is_offered(address) {
                    return Some((address, None));
                }
            },
            Source::Ask(_) => None,
        }
    }

    /// Excludes the addresses with these indexes.
    fn exclude(&mut self, pool: &Pool<A>, first: u128, last: u128) {
        let is_meant =
            |address: &A| pool.index(*address).is_some_and(|index| (first..=last).contains(&index));
        let offered: Vec<_> = self.offers.addresses().filter(is_meant).collect();
        for address in offered {
            self.offers.remove(address);
        }
        // The walk continues from its present address.
        let position = match &self.source {
            Source::Walk { next, .. } => self.excluded.gap_at(*next),
            _ => None,
        };
        self.excluded.insert(first, last);
        match &mut self.source {
            Source::Walk { order: None, .. } => {
                self.source = Source::walk(pool, &self.excluded, position.unwrap_or(0), false);
            }
            Source::Walk { order: Some(_), .. } => self.source = Source::walk(pool, &self.excluded, 0, true),
            Source::Free(free) => free.exclude(first, last),
            Source::Lowest(used) => used.insert(first, last),
            Source::Ask(_) => {}
        }
    }

    /// Handles that a proposed address is not free.
    fn reject(&mut self, pool: &Pool<A>, client: &C, address: A) {
        if let Some(offer) = self.offers.remove_if(client, address)
            && offer.tier_changed
        {
            self.put_back(pool, address, offer.tier);
        }
    }

    fn withdraw(&mut self, pool: &Pool<A>, client: &C) {
        if let Some((address, offer)) = self.offers.remove_of(client) {
            self.put_back(pool, address, offer.tier);
        }
    }

    fn put_back(&mut self, pool: &Pool<A>, address: A, tier: Option<Tier>) {
        if let (Some(index), Some(tier)) = (pool.index(address), tier) {
            self.insert(index, tier);
        }
    }

    fn taken(&mut self, address: A, index: u128) {
        self.source.remove(index);
        self.offers.remove(address);
    }

    fn free(&mut self, address: A, index: u128, tier: Tier) {
        match self.offers.get_mut(address) {
            // Put back when the offer ends.
            Some(offer) => (offer.tier, offer.tier_changed) = (Some(tier), true),
            None => self.insert(index, tier),
        }
    }

    /// Adds a free address.
    fn insert(&mut self, index: u128, tier: Tier) {
        if !self.excluded.contains(index) {
            self.source.insert(index, tier);
        }
    }
}

impl<A: PoolAddress> Source<A> {
    /// Creates a source with all addresses free, except for those that are excluded.
    fn new(pool: &Pool<A>, strategy: Strategy, excluded: &Runs) -> Self {
        match (strategy, usize::try_from(pool.last_index())) {
            (Strategy::LowestFirst, _) => Self::Lowest(excluded.clone()),
            (Strategy::FreeList, Ok(last)) => {
                let mut free = FreeList::new(last + 1);
                excluded.iter().for_each(|(first, last)| free.exclude(first, last));
                Self::Free(free)
            }
            _ => Self::walk(pool, excluded, 0, strategy != Strategy::Iterative),
        }
    }

    /// Creates a walk from an address on, in ascending or random order.
    fn walk(pool: &Pool<A>, excluded: &Runs, from: u128, is_random: bool) -> Self {
        // The number of addresses would overflow for the largest pool.
        let last_is_excluded = excluded.contains(pool.last_index());
        let before_last = excluded.gaps_below(pool.last_index());
        let last = if last_is_excluded { before_last.checked_sub(1) } else { Some(before_last) };
        let next = Some(excluded.gaps_below(from)).filter(|next| last.is_some_and(|last| *next <= last));
        let order = last.filter(|_| is_random).map(Permutation::new);
        Self::Walk { next: next.unwrap_or(0), last, order }
    }

    /// Adds a free address that is not excluded.
    fn insert(&mut self, index: u128, tier: Tier) {
        match (self, usize::try_from(index)) {
            (Self::Free(free), Ok(index)) => free.insert(index, tier),
            (Self::Lowest(used), _) => {
                used.remove(index);
            }
            _ => {}
        }
    }

    /// Removes an address. Returns how it was free.
    fn remove(&mut self, index: u128) -> Option<Tier> {
        match (self, usize::try_from(index)) {
            (Self::Free(free), Ok(index)) => free.remove(index),
            (Self::Lowest(used), _) if !used.contains(index) => {
                used.insert(index, index);
                Some(Tier::Unused)
            }
            _ => None,
        }
    }
}

/// The free addresses of a pool, by their indexes.
struct FreeList {
    unused: BitSet,
    reclaimed: BitSet,
    size: usize,
    random: RandomState,
    taken: u64,
}

impl FreeList {
    /// Creates a list in which all addresses are unused.
    fn new(size: usize) -> Self {
        let (unused, reclaimed) = (BitSet::full(size), BitSet::empty(size));
        Self { unused, reclaimed, size, random: RandomState::new(), taken: 0 }
    }

    /// Takes one address.
    fn take(&mut self) -> Option<(usize, Tier)> {
        self.taken = self.taken.wrapping_add(1);
        let place = u128::from(self.random.hash_one(self.taken)) * self.size as u128;
        let place = usize::try_from(place >> u64::BITS).unwrap_or(0);
        for (set, tier) in [(&mut self.unused, Tier::Unused), (&mut self.reclaimed, Tier::Reclaimed)] {
            if let Some(index) = set.first_from(place).or_else(|| set.first_from(0)) {
                set.remove(index);
                return Some((index, tier));
            }
        }
        None
    }

    /// Removes the addresses with these indexes.
    fn exclude(&mut self, first: u128, last: u128) {
        for index in first..=last.min(self.size as u128) {
            if let Ok(index) = usize::try_from(index) {
                self.remove(index);
            }
        }
    }

    fn insert(&mut self, index: usize, tier: Tier) {
        let (of_tier, other) = match tier {
            Tier::Unused => (&mut self.unused, &mut self.reclaimed),
            Tier::Reclaimed => (&mut self.reclaimed, &mut self.unused),
        };
        of_tier.insert(index);
        other.remove(index);
    }

    fn remove(&mut self, index: usize) -> Option<Tier> {
        if self.unused.remove(index) {
            Some(Tier::Unused)
        } else {
            self.reclaimed.remove(index).then_some(Tier::Reclaimed)
        }
    }
}
