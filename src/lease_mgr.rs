//! The lease manager: where a DHCP server keeps its leases, whatever they are kept in.
//!
//! [`LeaseMgr`] is what a backend implements, and what a server shares between its threads as
//! `Arc<dyn LeaseMgr<Lease4>>` or `Arc<dyn LeaseMgr<Lease6>>`. It asks for little: the named questions of a server
//! ([`LeaseMgrExt`], [`LeaseMgrExt4`], [`LeaseMgrExt6`]) are built on it, and are the same for every backend.
//!
//! ```
//! use leasemgr::lease::{HwAddr, Lease4, SubnetId, system_time};
//! use leasemgr::{Added, LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//!
//! // A client without a lease in this subnet gets a free address: the first to add it has it.
//! assert_eq!(leases.by_hwaddr_in_subnet(&client, SubnetId(1))?, None);
//! let now = system_time(1_790_000_000);
//! let lease =
//!     Lease4::builder([192, 0, 2, 1].into()).client(client).subnet(1).lifetime(3600).heard_at(now).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! assert_eq!(leases.add(&lease)?, Added::AddressTaken);
//!
//! // It renews its lease. This fails if another thread or server has changed the lease since.
//! let mut renewed = lease.clone();
//! renewed.set_heard_at(system_time(1_790_001_800));
//! leases.update_if_unchanged(&lease, &renewed)?;
//! assert_eq!(leases.get([192, 0, 2, 1].into())?, Some(renewed));
//!
//! // Time goes by.
//! let later = system_time(1_790_010_000);
//! for expired in leases.list_expired(later, 100)? {
//!     assert!(leases.reclaim(&expired)?);
//! }
//! assert_eq!(leases.list_expired(later, 100)?, []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calling;
mod change;
pub(crate) mod defaults;
mod error;
mod ext;
mod free_range;
#[cfg(feature = "serde")]
mod json;
mod operation;
mod query;
mod rewrite;
mod statistics;
mod status;
mod totals;
mod tracking;

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

pub use change::{Change, ChangeKind, Origin};
pub use error::LeaseMgrError;
pub(crate) use ext::is_reclaimed;
pub use ext::{LeaseMgrExt, LeaseMgrExt4, LeaseMgrExt6};
pub use free_range::FreeRange;
pub(crate) use free_range::Gap;
pub(crate) use operation::{Borrowed, reclaimed_form};
pub use operation::{Done, Operation};
pub use query::{ClientKey, Key, ManagedLease, Query};
pub use statistics::{StatisticsQuery, StatisticsRow, Subnets};
pub use status::{
    Availability, CleanupReport, CleanupRows, CleanupStart, CleanupStatus, CleanupWork, Durability, OnFail,
    Status,
};
pub use totals::{CountedAs, Totals, TotalsRow};
pub use tracking::{AddressLock, CallbackError, Scope, Tracking};

use crate::lease::{ClientClass, HwAddr, LeaseKind, LeaseState, LimitExceeded, SubnetId, UserContext};
use crate::panics::contained;

/// What became of a lease that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lease that was not added must not be given to a client"]
pub enum Added {
    /// The lease is there, as durable as the backend makes it.
    Added,
    /// The address has a lease already, and that is as it was.
    AddressTaken,
}

/// What became of a lease that was to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// There was one, and it is gone.
    Deleted,
    /// The address had none.
    NoSuchLease,
}

/// What became of a lease that was to be added within limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a lease that was not added must not be given to a client"]
pub enum AddedWithin {
    /// The lease was added.
    Added,
    /// The address has a lease already, which is unchanged.
    AddressTaken,
    /// A limit is reached, and nothing was changed.
    LimitReached(LimitExceeded),
}

/// A lease that was given the lowest free address of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claimed<L> {
    /// The lease.
    pub lease: L,
    /// The lease that the address had before, which had ended or was reclaimed.
    pub replaced: Option<L>,
}

impl<L> Claimed<L> {
    /// A lease that was given its address. For backends.
    #[must_use]
    pub fn new(lease: L, replaced: Option<L>) -> Self {
        Self { lease, replaced }
    }
}

/// Where a scan of all leases goes on. Its bytes mean something to the backend that has returned it only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// A cursor with these bytes. For backends, and for cursors that were kept elsewhere.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Checks that a lease can be kept by any backend. For backends, before they add or update it.
///
/// # Errors
/// Returns [`LeaseMgrError::ZeroLifetime`] if it is valid for 0 seconds.
pub fn check<L: ManagedLease>(lease: &L) -> Result<(), LeaseMgrError> {
    if lease.data().valid_lifetime.0 == 0 {
        return Err(LeaseMgrError::ZeroLifetime { address: lease.address().into() });
    }
    Ok(())
}

/// Checks that the lease of an address is the expected one, in its kept form, if one is expected. For backends, before they
/// update or delete it.
///
/// # Errors
/// Returns [`LeaseMgrError::ChangedMeanwhile`] if it is another one.
pub fn unchanged<L: ManagedLease>(there: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
    if expected.is_some_and(|expected| there != expected) {
        return Err(LeaseMgrError::ChangedMeanwhile { address: there.address().into() });
    }
    Ok(())
}

/// What is called with the result of a change that was submitted ([`LeaseMgr::submit`]).
pub type Then = Box<dyn FnOnce(Result<Done, LeaseMgrError>) + Send>;

/// Calls a function with a result, and logs a panic in it. For backends that override [`LeaseMgr::submit`].
pub fn call_then<T>(then: Box<dyn FnOnce(T) + Send>, result: T) {
    if let Err(message) = contained(|| then(result)) {
        tracing::error!(
            id = "DHCPSRV_LEASE_MGR_SUBMIT_FAILED",
            "the function that was to be told of a submitted change panicked: {message}"
        );
    }
}

/// The leases of a DHCP server.
///
/// # What every backend guarantees
/// * There is at most one lease for an address.
/// * All methods can be called from any number of threads. Changes of one address happen one after the other, and a call
///   that begins after a change has ended reads it, or a later one.
/// * A change that was acknowledged with `Ok` is as durable as the backend was told to make it. After an error nothing has
///   changed, apart from two: after [`LeaseMgrError::OutcomeUnknown`] the change was made or not, which the caller finds out by
///   reading; and a backend that cannot tell what it has changed refuses all further changes and says why.
/// * A change that a callback of the manager tries to make is refused with [`LeaseMgrError::InCallback`], and nothing
///   else of the manager waits for the end of a callback ([`Tracking`]).
/// * Leases that a query gives are in the order of their addresses. Each of them is as it was at one moment of the call; a long
///   answer may be put together in several steps, between which others change leases.
///
/// The feature `conformance` has a suite that proves this of a backend.
///
/// # What a backend implements
/// Eight methods are required: [`status`](Self::status), [`tracking`](Self::tracking), [`add`](Self::add), [`get`](Self::get),
/// [`find`](Self::find), [`list_expired`](Self::list_expired), [`update_expecting`](Self::update_expecting) and
/// [`delete_expecting`](Self::delete_expecting). All others have
/// defaults that are built on these, and which a backend overrides where it can save round trips or make one step of several.
/// `examples/sqlite_backend` shows how to write one.
pub trait LeaseMgr<L: ManagedLease>: fmt::Debug + Send + Sync {
    /// Returns what the manager is and in which state. Does no input or output, and waits for no change.
    fn status(&self) -> Status;

    /// Adds a lease, if its address has none. Of several that try at once, one has it.
    ///
    /// Threads that look for a free address at the same time find the same one, and all but one of their leases are refused,
    /// each after it has waited for the others. With [`LeaseMgr::claim_first`] each gets another address. A server that
    /// chooses addresses by itself, without an [`Allocator`](crate::allocator::Allocator), takes the address lock first
    /// ([`Tracking::try_lock`]):
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use leasemgr::lease::{HwAddr, Lease4};
    /// use leasemgr::{Added, LeaseMgr, LeaseMgrFactory};
    ///
    /// /// Leases the first address that is neither leased nor being leased by another thread.
    /// fn lease_any(
    ///     leases: &dyn LeaseMgr<Lease4>,
    ///     pool: impl Iterator<Item = Ipv4Addr>,
    ///     client: HwAddr,
    /// ) -> Result<Option<Ipv4Addr>, Box<dyn std::error::Error>> {
    ///     for address in pool {
    ///         let Some(_lock) = leases.tracking().try_lock(address) else {
    ///             continue;
    ///         };
    ///         if leases.get(address)?.is_none() {
    ///             let lease = Lease4::builder(address).client(client.clone()).lifetime(3600).build()?;
    ///             if leases.add(&lease)? == Added::Added {
    ///                 return Ok(Some(address));
    ///             }
    ///         }
    ///     }
    ///     Ok(None)
    /// }
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let pool = [1, 2].map(|n| Ipv4Addr::new(192, 0, 2, n));
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let lock = leases.tracking().try_lock(pool[0]);
    /// assert_eq!(lease_any(leases.as_ref(), pool.into_iter(), client)?, Some(pool[1]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseMgrError::ZeroLifetime`] for a lease that is valid for 0 seconds, and others where the lease could not be
    /// written; then it was not added.
    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError>;

    /// The lease of an address.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError>;

    /// The leases that a query asks for, in the order of their addresses.
    ///
    /// # Errors
    /// [`LeaseMgrError::BadArgument`] as [`Query::check`] says, [`LeaseMgrError::Unsupported`] where the backend does not know this query, such as DHCPv6 leases by relay id where
    /// tables of these are not kept, and others where it cannot be asked.
    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError>;

    /// Returns the leases that have ended at `now` and are not reclaimed yet, those that ended first
    /// first, and of the same second in the order of their addresses: at most `limit`, or all with a limit of 0. A lease that
    /// ended before 1970 has ended ([`Lease::end`](crate::lease::Lease::end)), one with an infinite lifetime is never among them.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError>;

    /// Replaces the lease of an address; with `expected`, only if the address has still this lease.
    ///
    /// # Errors
    /// [`LeaseMgrError::NoSuchLease`] where the address has none, [`LeaseMgrError::ChangedMeanwhile`] where it is
    /// another than `expected`, [`LeaseMgrError::ZeroLifetime`] for a lease that is valid for 0 seconds, and others where
    /// the lease could not be written.
    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError>;

    /// Deletes the lease of an address; with `expected`, only if it is still the same.
    ///
    /// # Errors
    /// [`LeaseMgrError::ChangedMeanwhile`] where it is another than `expected`, and others where that could not be
    /// written.
    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError>;

    /// Makes many changes. Returns the result of each in the order of the operations. Each change is made or fails by itself,
    /// as if its method were called; of one address, the changes are made in their order, and each finds what the one before
    /// has left. Other callers may see some of the changes before others are made.
    ///
    /// By default, one after the other. A backend that writes or sends many changes in one step overrides it. If such a step
    /// fails, all its operations fail, and it has changed nothing.
    fn apply(&self, operations: &[Operation<L>]) -> Vec<Result<Done, LeaseMgrError>> {
        operations.iter().map(|operation| operation.run(self)).collect()
    }

    /// Makes a change and calls `then` with its result: in the calling thread before this returns, which is the default, or
    /// later in a thread of the manager ([`LeaseMgr::submits`]).
    ///
    /// * Changes of one address are made in the order in which they were submitted. A change that another method makes
    ///   meanwhile may come before or after those that wait.
    /// * `then` is called exactly once, also if the manager is dropped meanwhile: all that was submitted is made before that.
    ///   It is called with no lock of the manager held, and may read, change and submit.
    /// * `then` must not wait for another submitted change, and should be quick: others wait for the thread that it runs in.
    ///   A panic in it is logged (`DHCPSRV_LEASE_MGR_SUBMIT_FAILED`) and fails nothing else.
    /// * A change that a callback submits is refused with [`LeaseMgrError::InCallback`], which `then` gets at once.
    fn submit(&self, operation: Operation<L>, then: Then) {
        let result = operation.run(self);
        call_then(then, result);
    }

    /// Whether [`LeaseMgr::submit`] returns without having waited for what [`LeaseMgr::may_block`] is about.
    fn submits(&self) -> bool {
        !self.may_block()
    }

    /// Whether a method of the manager may wait for more than memory, other short calls and the page cache of the operating
    /// system: for a disk to sync, or for a network. Async tasks must not call such methods directly.
    fn may_block(&self) -> bool {
        true
    }

    /// Deletes the reclaimed leases that ended at `until` or before, and returns their number.
    /// One with an infinite lifetime never ends.
    ///
    /// # Errors
    /// As [`LeaseMgr::delete_expecting`]; some of the leases may be deleted then.
    fn delete_reclaimed(&self, until: SystemTime) -> Result<u64, LeaseMgrError> {
        defaults::delete_all(self, &Query::state(LeaseState::EXPIRED_RECLAIMED).ended_by(until))
    }

    /// Deletes all leases of a subnet, and returns their number.
    ///
    /// # Errors
    /// As [`LeaseMgr::delete_expecting`]; some of the leases may be deleted then.
    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        defaults::delete_all(self, &Query::all().in_subnet(subnet))
    }

    /// Returns how many leases there are, of each subnet, or each pool, and each state that counts.
    ///
    /// By default, reads all leases.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] as [`StatisticsQuery::check`] says, and others if the backend cannot be asked.
    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        defaults::statistics(self, query)
    }

    /// Counts all leases again, where the figures of [`LeaseMgr::statistics`] and [`LeaseMgr::class_leases`] are kept
    /// beside the leases.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be asked.
    fn recount(&self) -> Result<(), LeaseMgrError> {
        Ok(())
    }

    /// Returns how many leases of this kind are in use (state 0) and name this client class under `ISC` / `client-classes`
    /// in their user context.
    ///
    /// By default, reads all leases in use.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be asked.
    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        defaults::class_leases(self, class, kind)
    }

    /// Returns the lease as it will be read back when it was added: with a hostname in lower case, where the backend keeps
    /// it so. Comparisons with an expected lease are with its kept form.
    ///
    /// # Errors
    /// Returns what [`LeaseMgr::add`] would: [`LeaseMgrError::ZeroLifetime`], and [`LeaseMgrError::CannotKeep`] if a field
    /// would come back as something else, other than documented by the backend.
    fn kept(&self, lease: &L) -> Result<L, LeaseMgrError> {
        check(lease)?;
        Ok(lease.clone())
    }

    /// Returns whether other servers and programs may change the same leases. Their changes are told to the callbacks with
    /// [`Origin::Elsewhere`], if at all and as late as the backend says. An allocator that follows changes cannot know then
    /// which addresses are free, and asks instead ([`LeaseMgr::free_address`]).
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns the leases of several addresses, in the order of these: `None` where there is none.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be asked.
    fn get_many(&self, addresses: &[L::Address]) -> Result<Vec<Option<L>>, LeaseMgrError> {
        addresses.iter().map(|&address| self.get(address)).collect()
    }

    /// Returns the number of leases that a query asks for.
    ///
    /// By default, reads them.
    ///
    /// # Errors
    /// As [`LeaseMgr::find`].
    fn count(&self, query: &Query<'_, L>) -> Result<u64, LeaseMgrError> {
        defaults::count(self, query)
    }

    /// Returns the leases that are of a client in a subnet: those with its client id or DUID or, if there are
    /// none, those with its hardware address that have no client id, or all of these if the client has none. A server
    /// asks it for every packet.
    ///
    /// ```
    /// use leasemgr::lease::{ClientId, HwAddr, Lease, Lease4, LeaseState, Lifetime, SubnetId};
    /// use leasemgr::{ClientKey, LeaseMgr, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let card = HwAddr::new(&[2, 0, 0, 0, 0, 1])?;
    /// let (one, two) = (ClientId::new(b"one")?, ClientId::new(b"two")?);
    /// let mut lease = Lease4::new([192, 0, 2, 1].into(), Some(card.clone()), Some(one.clone()), LeaseState::DEFAULT)?;
    /// lease.data_mut().subnet_id = SubnetId(1);
    /// lease.data_mut().valid_lifetime = Lifetime(3600);
    /// leases.add(&lease)?;
    ///
    /// // By its client id, with any card, and by its card, if it sends no client id.
    /// let of = |card, id: Option<&ClientId>| leases.by_client_in_subnet(card, id.map(ClientKey::from), SubnetId(1));
    /// assert_eq!(of(None, Some(&one))?, [lease.clone()]);
    /// assert_eq!(of(Some(&card), None)?, [lease]);
    /// // Another client on the same card is another client.
    /// assert_eq!(of(Some(&card), Some(&two))?, []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`LeaseMgr::find`].
    fn by_client_in_subnet(
        &self,
        hwaddr: Option<&HwAddr>,
        client: Option<ClientKey<'_>>,
        subnet: SubnetId,
    ) -> Result<Vec<L>, LeaseMgrError> {
        defaults::by_client_in_subnet(self, hwaddr, client, subnet)
    }

    /// Returns up to `limit` leases in no promised order, and the cursor to go on with; `None` at the end. A lease that does
    /// not change during a whole scan comes exactly once. For backends that cannot give leases in the order of their
    /// addresses cheaply; by default, that is the order.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] for a limit of 0 or a cursor of another backend, and others if the backend cannot be asked.
    fn scan(&self, cursor: Option<&Cursor>, limit: usize) -> Result<(Vec<L>, Option<Cursor>), LeaseMgrError> {
        defaults::scan(self, cursor, limit)
    }

    /// Reclaims leases that have ended at `now`, those that ended first first: at most
    /// `limit`, or all with a limit of 0. Returns those that this call has reclaimed, as [`reclaim`](crate::lease::Lease::reclaim) leaves them,
    /// for the server to clean up after; declined leases are deleted, and
    /// returned as they were. Of several servers that reclaim at the same time, each lease is returned to one.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the leases cannot be read, or none could be reclaimed. If only some could, it returns these.
    fn reclaim_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        defaults::reclaim_expired(self, now, limit)
    }

    /// Returns the first limit under `ISC` / `limits` of a user context that is reached already, so that a lease with this
    /// context must not be given out. The limit of a subnet counts leases in use and declined ones, that of a client class
    /// leases in use, as Kea does.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Limits`] if the limits are of another form, [`LeaseMgrError::BadArgument`] for a limit of
    /// subnet 0, and others if the backend cannot be asked.
    fn check_limits(&self, context: &UserContext) -> Result<Option<LimitExceeded>, LeaseMgrError> {
        defaults::check_limits(self, context)
    }

    /// Adds a lease, unless a limit of the user context is reached ([`LeaseMgr::check_limits`]). Of several calls at the same
    /// time, no two take the last lease that a limit allows; a lease that [`LeaseMgr::add`] adds or a change of another
    /// method meanwhile can still go beyond it.
    ///
    /// # Errors
    /// As [`LeaseMgr::check_limits`] and [`LeaseMgr::add`].
    fn add_within(&self, lease: &L, context: &UserContext) -> Result<AddedWithin, LeaseMgrError> {
        defaults::add_within(self, lease, context)
    }

    /// Returns an address of a range that has no lease, or one that has ended at `now` or is
    /// reclaimed; any one of them, so that several servers that ask at the same time are likely to get different ones.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Unsupported`] if the backend has no better way than [`LeaseMgr::first_free`], which is the
    /// default, and others if it cannot be asked.
    fn free_address(
        &self,
        range: &FreeRange<L>,
        now: SystemTime,
    ) -> Result<Option<L::Address>, LeaseMgrError> {
        let _ = (range, now);
        Err(LeaseMgrError::Unsupported {
            backend: self.status().backend,
            operation: "find any free address".to_owned(),
        })
    }

    /// Returns the lowest address of a range that has no lease, or one that has ended at `now` or
    /// is reclaimed; `None` if there is no such address.
    ///
    /// By default, reads the leases of the range from its first address on.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be asked.
    fn first_free(&self, range: &FreeRange<L>, now: SystemTime) -> Result<Option<L::Address>, LeaseMgrError> {
        defaults::first_free(self, range, now)
    }

    /// Gives the lowest free address of a range ([`LeaseMgr::first_free`]) the lease that `make` returns for it, in one step:
    /// of several calls at the same time, each gets another address. An address whose address lock is taken ([`Tracking::try_lock`]) is
    /// passed over. `make` may be called for several addresses, if other calls are faster. Returns `None` if no address is
    /// free.
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use leasemgr::lease::{HwAddr, Lease4, system_time};
    /// use leasemgr::{FreeRange, LeaseMgr, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let range = FreeRange::new(Ipv4Addr::new(192, 0, 2, 10)..=Ipv4Addr::new(192, 0, 2, 11));
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let lease = |address, now| Lease4::builder(address).client(client.clone()).lifetime(60).heard_at(now).build();
    /// let claim = |now: i64| {
    ///     let now = system_time(now);
    ///     leases.claim_first(&range, now, &mut |address| lease(address, now).expect("it has a client"))
    /// };
    /// assert_eq!(claim(0)?.unwrap().lease.address(), Ipv4Addr::new(192, 0, 2, 10));
    /// assert_eq!(claim(30)?.unwrap().lease.address(), Ipv4Addr::new(192, 0, 2, 11));
    /// assert_eq!(claim(59)?, None);
    /// // The first lease has ended.
    /// let claimed = claim(60)?.unwrap();
    /// assert_eq!(claimed.lease.address(), Ipv4Addr::new(192, 0, 2, 10));
    /// assert!(claimed.replaced.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`LeaseMgr::first_free`], [`LeaseMgr::add`] and [`LeaseMgr::update_expecting`]; and [`LeaseMgrError::BadArgument`] if the lease that `make`
    /// returns has another address.
    fn claim_first(
        &self,
        range: &FreeRange<L>,
        now: SystemTime,
        make: &mut dyn FnMut(L::Address) -> L,
    ) -> Result<Option<Claimed<L>>, LeaseMgrError> {
        defaults::claim_first(self, range, now, make)
    }

    /// The callbacks that are called when leases change, the address locks, and how many were assigned and reclaimed.
    fn tracking(&self) -> &Tracking<L>;

    /// Makes durable what was acknowledged so far.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where that fails.
    fn flush(&self) -> Result<(), LeaseMgrError> {
        Ok(())
    }

    /// Writes all leases to the manager's own lease file, in the place of what is in it, if `path` stands for that: further
    /// changes go there. Returns the number of leases; `None` if `path` is another file. This is what writing all leases to a file of that name does.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::OwnFile`] if `path` is another file that the manager keeps, and [`LeaseMgrError`] if the
    /// file cannot be written; then it is as it was.
    fn write_own_file(&self, path: &Path) -> Result<Option<u64>, LeaseMgrError> {
        let _ = path;
        Ok(None)
    }

    /// Has the lease files cleaned up now, where there are such. It does not wait for the end of it.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the manager has come to its end.
    fn clean_up(&self) -> Result<CleanupStart, LeaseMgrError> {
        Ok(CleanupStart::NotNeeded)
    }
}
