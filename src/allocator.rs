//! Finds free addresses: which one of a pool a client without a lease is to be offered.
//!
//! An [`Allocator`] proposes, and the lease manager decides: an address is a client's when [`LeaseMgr::add`] says
//! [`Added`](crate::Added::Added), or when a conditional update has put the client's lease in the place of a reclaimed one. So an
//! address never has two clients, whatever an allocator believes.
//!
//! An address that was offered is kept from other clients for a while, in memory only: DHCPv4 clients are offered an address
//! before they ask for it (RFC 2131 section 3.1), and DHCPv6 clients have it advertised (RFC 8415 section 18.3.9).
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
//! allocator.follow(leases.as_ref())?;
//!
//! // What is nobody's, or was reclaimed, can be given out.
//! let is_free = |address| Ok::<_, LeaseMgrError>(leases.get(address)?.is_none_or(|lease| lease.is_reclaimed()));
//! let now = Instant::now();
//! let offered = allocator.offer(&"printer", None, now, is_free)?.unwrap();
//! let other = allocator.offer(&"camera", Some(offered), now, is_free)?.unwrap();
//! assert_ne!(offered, other);
//! assert_eq!(allocator.offer(&"clock", None, now, is_free)?, None);
//!
//! // The client takes it; the allocator hears of that from the lease manager.
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder(offered).client(client).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! assert_eq!(allocator.offered(&"printer", now), None);
//!
//! // What was offered and not taken, or is given back, is free again.
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
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::lease_mgr::{CallbackError, Change, ChangeKind, LeaseMgr, LeaseMgrError, ManagedLease, Query};
use bit_set::BitSet;
use offers::Offers;
use permutation::Permutation;
pub use pool::{Pool, PoolAddress, PoolError};

/// So many leases are read at a time when an allocator begins to follow a lease manager.
const PAGE: usize = 1000;

/// How an [`Allocator`] finds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In an order that nobody can foretell (RFC 7943 section 2 tells why), and that has every address once: the lease
    /// manager is asked for one after the other until one is free. In a pool that is mostly free this takes one or two
    /// questions and no memory; in a full one, as many questions as there are addresses.
    Random,
    /// In their order, from where the one before was found. What it takes is as with [`Random`](Self::Random).
    Iterative,
    /// From a set of the free ones, somewhere near a place that nobody can foretell: in constant time, also in a full
    /// pool. Addresses whose leases were reclaimed are taken only where there is no other, so that their clients may find
    /// them again. It takes 2 bits of memory for each address of the pool, whether free or not.
    ///
    /// It knows what is free because it follows the lease manager ([`Allocator::follow`]). An address that it believed to be
    /// free and was not, because somebody else writes to the same leases, comes back when the manager tells that its lease has
    /// gone. Pools of more than [`FREE_LIST_MAX`](Self::FREE_LIST_MAX) addresses are not kept so, but searched as with
    /// [`Random`](Self::Random): they are never full.
    FreeList,
}

impl Strategy {
    /// So many addresses a pool has at most whose free ones are kept as a set of at most 68 MB: 2^28, a DHCPv4 subnet with a
    /// prefix of 4 bits.
    pub const FREE_LIST_MAX: u128 = 1 << 28;
}

/// `random`, `iterative` or `free-list`.
impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Iterative => "iterative",
            Self::FreeList => "free-list",
        })
    }
}

/// The name of no strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no way to find an address, expected random, iterative or free-list")]
pub struct StrategyError {
    /// What was given.
    pub name: String,
}

impl FromStr for Strategy {
    type Err = StrategyError;

    fn from_str(name: &str) -> Result<Self, StrategyError> {
        let all = [Self::Random, Self::Iterative, Self::FreeList];
        let named = all.into_iter().find(|strategy| strategy.to_string() == name);
        named.ok_or_else(|| StrategyError { name: name.to_owned() })
    }
}

/// Why an allocator does not follow a lease manager.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// An allocator for the same pool follows it already.
    #[error(transparent)]
    Followed(#[from] CallbackError),
    /// The leases cannot be read.
    #[error(transparent)]
    Leases(#[from] LeaseMgrError),
}

/// Proposes free addresses of a pool, and remembers for a while which were offered to whom.
///
/// `C` is what the server tells its clients apart by, such as client id or hardware address in DHCPv4, and DUID, IAID and type
/// in DHCPv6. A client has one offer at a time.
///
/// All threads of a server share one. Its lock is never held while the lease manager is asked.
pub struct Allocator<A, C> {
    pool: Pool<A>,
    strategy: Strategy,
    state: Mutex<State<A, C>>,
}

impl<A: PoolAddress, C: Clone + Eq + Hash> Allocator<A, C> {
    /// For a pool whose addresses are all free, as far as is known. What is offered is kept for the client for `offer_time`.
    #[must_use]
    pub fn new(pool: Pool<A>, strategy: Strategy, offer_time: Duration) -> Self {
        let last = pool.last_index();
        let walk = |order| Source::Walk { next: 0, order };
        let (strategy, source) = match (strategy, usize::try_from(last)) {
            (Strategy::Iterative, _) => (Strategy::Iterative, walk(None)),
            (Strategy::FreeList, Ok(small)) if last < Strategy::FREE_LIST_MAX => {
                (Strategy::FreeList, Source::Free(FreeList::new(small + 1)))
            }
            _ => (Strategy::Random, walk(Some(Permutation::new(last)))),
        };
        Self { pool, strategy, state: Mutex::new(State { source, offers: Offers::new(offer_time) }) }
    }

    /// What it finds addresses in.
    pub fn pool(&self) -> &Pool<A> {
        &self.pool
    }

    /// How it finds them: random, if the free list of this pool would be too large.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// An address for a client that has none, which is then kept for it: the one that it was offered before, the one that it
    /// wants, or any; `None` where none is free. `is_free` tells of an address whether this client may have it as far as leases
    /// go. `now` is the present; several threads may differ a little.
    ///
    /// An address of the pool that a client wants is proposed to `is_free` even if the free list does not have it, so a client
    /// can be offered one that it has a lease for.
    ///
    /// # Errors
    /// Those of `is_free`. The client has no offer then.
    pub fn offer<E>(
        &self,
        client: &C,
        wanted: Option<A>,
        now: Instant,
        mut is_free: impl FnMut(A) -> Result<bool, E>,
    ) -> Result<Option<A>, E> {
        let mut search = Search { wanted, left: self.pool.last_index().saturating_add(1), begun: false };
        loop {
            let Some(address) = self.state.lock().propose(&self.pool, client, &mut search, now) else {
                return Ok(None);
            };
            match is_free(address) {
                Ok(true) => return Ok(Some(address)),
                Ok(false) => self.state.lock().reject(&self.pool, client, address),
                Err(error) => {
                    self.state.lock().withdraw(&self.pool, client);
                    return Err(error);
                }
            }
        }
    }

    /// The address that a client was offered, if that is kept for it still.
    pub fn offered(&self, client: &C, now: Instant) -> Option<A> {
        self.state.lock().offers.of_client(client, now)
    }

    /// Whether a client may have an address as far as offers go: it is of the pool, and not kept for another client.
    pub fn may_take(&self, client: &C, address: A, now: Instant) -> bool {
        self.pool.contains(address) && !self.state.lock().offers.is_anothers(address, client, now)
    }

    /// Forgets what a client was offered: it has chosen another server, or has declined the address.
    pub fn withdraw(&self, client: &C) {
        self.state.lock().withdraw(&self.pool, client);
    }

    /// An address has a lease that is not reclaimed now. If it was offered, it is so no more. Of a pool of prefixes, that
    /// is the prefix that the address is in: a server may have recorded a prefix with bits after its length.
    pub fn taken(&self, address: A) {
        if let Some(index) = self.pool.index_around(address) {
            self.state.lock().taken(self.pool.nth(index), index);
        }
    }

    /// An address has no lease any more.
    pub fn released(&self, address: A) {
        self.free(address, Tier::Unused);
    }

    /// The lease of an address was reclaimed: it is free, but its client may come back for it.
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
    /// Learns from a lease manager which addresses are in use, and from now on of every change. To be called before leases are
    /// changed by several threads: of one that changes meanwhile, either news may be the last.
    ///
    /// # Errors
    /// [`FollowError::Followed`] where an allocator for the same pool follows the manager already, and
    /// [`FollowError::Leases`] where leases cannot be read.
    pub fn follow<L: ManagedLease<Address = A>>(
        self: &Arc<Self>,
        leases: &dyn LeaseMgr<L>,
    ) -> Result<(), FollowError> {
        let owner = format!("allocator of {}", self.pool);
        for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
            let allocator = Arc::clone(self);
            leases.tracking().register(&owner, kind, None, move |change| allocator.learn(change))?;
        }
        if self.strategy != Strategy::FreeList {
            return Ok(());
        }
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
            // A renewal is no news.
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

impl<A: fmt::Debug, C> fmt::Debug for Allocator<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, strategy, .. } = self;
        f.debug_struct("Allocator").field("pool", pool).field("strategy", strategy).finish_non_exhaustive()
    }
}

/// Free in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// There is no lease.
    Unused,
    /// There is a reclaimed one.
    Reclaimed,
}

/// What is known of all addresses.
struct State<A, C> {
    source: Source,
    offers: Offers<A, C>,
}

/// Where proposals come from.
enum Source {
    /// One address after the other.
    Walk {
        /// The place of the next one.
        next: u128,
        /// Which address is at a place; without, the one of that number.
        order: Option<Permutation>,
    },
    Free(FreeList),
}

/// How far a search for an address has come.
struct Search<A> {
    wanted: Option<A>,
    /// So many addresses may still be proposed in turn.
    left: u128,
    begun: bool,
}

impl<A: PoolAddress, C: Clone + Eq + Hash> State<A, C> {
    /// The next address to try. It is the client's offer from here on, until it is rejected.
    fn propose(&mut self, pool: &Pool<A>, client: &C, search: &mut Search<A>, now: Instant) -> Option<A> {
        if !search.begun {
            search.begun = true;
            while let Some((address, offer)) = self.offers.expire(now) {
                self.put_back(pool, address, offer.tier);
            }
            if let Some(address) = self.offers.of_client(client, now)
                && search.wanted.is_none_or(|wanted| wanted == address)
            {
                return Some(address);
            }
        } else if let Some(address) = self.offers.of_client(client, now) {
            // Of another thread that serves the same client.
            return Some(address);
        }
        self.withdraw(pool, client);
        if let Some(wanted) = search.wanted.take()
            && let Some(index) = pool.index(wanted)
            && !self.offers.is_offered(wanted)
        {
            let tier = self.source.remove(index);
            self.offers.add(client, wanted, tier, now);
            return Some(wanted);
        }
        let (address, tier) = self.next(pool, &mut search.left)?;
        self.offers.add(client, address, tier, now);
        Some(address)
    }

    /// An address that is not offered, and where it is put back to.
    fn next(&mut self, pool: &Pool<A>, left: &mut u128) -> Option<(A, Option<Tier>)> {
        match &mut self.source {
            Source::Free(free) => {
                let (index, tier) = free.take()?;
                Some((pool.nth(index as u128), Some(tier)))
            }
            Source::Walk { next, order } => loop {
                *left = left.checked_sub(1)?;
                let place = *next;
                *next = if place == pool.last_index() { 0 } else { place + 1 };
                let address = pool.nth(order.as_ref().map_or(place, |order| order.at(place)));
                if !self.offers.is_offered(address) {
                    return Some((address, None));
                }
            },
        }
    }

    /// An address that was proposed to a client turned out not to be free.
    fn reject(&mut self, pool: &Pool<A>, client: &C, address: A) {
        if let Some(offer) = self.offers.remove_if(client, address)
            && offer.is_news
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
            self.source.insert(index, tier);
        }
    }

    fn taken(&mut self, address: A, index: u128) {
        self.source.remove(index);
        self.offers.remove(address);
    }

    fn free(&mut self, address: A, index: u128, tier: Tier) {
        match self.offers.get_mut(address) {
            // When the offer ends.
            Some(offer) => (offer.tier, offer.is_news) = (Some(tier), true),
            None => self.source.insert(index, tier),
        }
    }
}

impl Source {
    /// An address is free.
    fn insert(&mut self, index: u128, tier: Tier) {
        if let (Self::Free(free), Ok(index)) = (self, usize::try_from(index)) {
            free.insert(index, tier);
        }
    }

    /// An address is not to be proposed. Tells in which way it was free.
    fn remove(&mut self, index: u128) -> Option<Tier> {
        match (self, usize::try_from(index)) {
            (Self::Free(free), Ok(index)) => free.remove(index),
            _ => None,
        }
    }
}

/// The free addresses of a pool, by their numbers.
struct FreeList {
    unused: BitSet,
    reclaimed: BitSet,
    size: usize,
    random: RandomState,
    taken: u64,
}

impl FreeList {
    /// All are unused.
    fn new(size: usize) -> Self {
        let (unused, reclaimed) = (BitSet::full(size), BitSet::empty(size));
        Self { unused, reclaimed, size, random: RandomState::new(), taken: 0 }
    }

    /// Takes one out.
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
