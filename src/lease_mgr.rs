//! The lease manager: the leases of a DHCP server, independent of where a backend keeps them.
//!
//! [`LeaseMgr`] is the trait of a backend. A server shares it between its threads as `Arc<dyn
//! LeaseMgr<Lease4>>` or `Arc<dyn LeaseMgr<Lease6>>`. It requires few methods: the named queries of
//! a server ([`LeaseMgrExt`], [`LeaseMgrExt4`], [`LeaseMgrExt6`]) are built on it, and are the same
//! for every backend.
//!
//! ```
//! use leasemgr::lease::{HwAddr, Lease4, SubnetId, system_time};
//! use leasemgr::{Added, LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//!
//! // A client without a lease in this subnet gets a free address, if no other thread is faster.
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
//! // Later, expired leases are reclaimed.
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
pub(crate) mod gathering;
pub(crate) mod import;
#[cfg(feature = "serde")]
mod json;
mod look_up;
mod operation;
mod query;
mod rewrite;
mod statistics;
mod status;
mod totals;
mod tracking;
pub(crate) mod writer;

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

pub use change::{Change, ChangeKind, Origin};
pub use error::LeaseMgrError;
pub(crate) use ext::is_reclaimed;
pub use ext::{LeaseMgrExt, LeaseMgrExt4, LeaseMgrExt6};
pub use free_range::FreeRange;
pub(crate) use free_range::Gap;
pub use import::{ImportEvent, ImportOptions, Imported};
pub use look_up::LookUp;
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

/// The outcome of adding a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lease that was not added must not be given to a client"]
pub enum Added {
    /// The lease was added, and is as durable as the backend makes it.
    Added,
    /// The address already has a lease, which is unchanged.
    AddressTaken,
}

/// The outcome of deleting a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The lease was deleted.
    Deleted,
    /// The address had no lease.
    NoSuchLease,
}

/// The outcome of adding a lease within limits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a lease that was not added must not be given to a client"]
pub enum AddedWithin {
    /// The lease was added.
    Added,
    /// The address already has a lease, which is unchanged.
    AddressTaken,
    /// A limit is reached; nothing was changed.
    LimitReached(LimitExceeded),
}

/// A lease of the lowest free address of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claimed<L> {
    /// The lease.
    pub lease: L,
    /// The previous lease of the address, which had ended or was reclaimed.
    pub replaced: Option<L>,
}

impl<L> Claimed<L> {
    /// Creates a `Claimed`. For backends.
    #[must_use]
    pub fn new(lease: L, replaced: Option<L>) -> Self {
        Self { lease, replaced }
    }
}

/// The position at which a scan of all leases continues. Only the backend that returned it can
/// interpret its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// Creates a cursor from its bytes. For backends, and for cursors that were stored elsewhere.
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

/// Checks that any backend can keep a lease. For backends, before they add or update it.
///
/// A lease that is not in use may be valid for 0 seconds: Kea's servers tell their partners so of a
/// released lease. In a lease file its row deletes the lease, so it does not survive a restart.
///
/// # Errors
/// Returns [`LeaseMgrError::ZeroLifetime`] if the lease is in use (state 0) and valid for 0 seconds.
pub fn check<L: ManagedLease>(lease: &L) -> Result<(), LeaseMgrError> {
    if lease.data().valid_lifetime.0 == 0 && lease.state() == LeaseState::DEFAULT {
        return Err(LeaseMgrError::ZeroLifetime { address: lease.address().into() });
    }
    Ok(())
}

/// Checks that the lease of an address is the expected one, in its kept form. Without an expected
/// lease, every lease passes. For backends, before they update or delete it.
///
/// # Errors
/// Returns [`LeaseMgrError::ChangedMeanwhile`] if the lease differs.
pub fn unchanged<L: ManagedLease>(there: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
    if expected.is_some_and(|expected| there != expected) {
        return Err(LeaseMgrError::ChangedMeanwhile { address: there.address().into() });
    }
    Ok(())
}

/// A function that is called with the result of a submitted change ([`LeaseMgr::submit`]).
pub type Then = Box<dyn FnOnce(Result<Done, LeaseMgrError>) + Send>;

/// A function that is called with the leases of a look-up ([`LeaseMgr::submit_look_up`]).
pub type ThenFound<L> = Box<dyn FnOnce(Result<Vec<L>, LeaseMgrError>) + Send>;

/// Calls a function with a result, and logs its panic. For backends that override
/// [`LeaseMgr::submit`] or [`LeaseMgr::submit_look_up`].
pub fn call_then<T>(then: Box<dyn FnOnce(T) + Send>, result: T) {
    if let Err(message) = contained(|| then(result)) {
        tracing::error!(
            id = "DHCPSRV_LEASE_MGR_SUBMIT_FAILED",
            "the function for the result of a submitted change panicked: {message}"
        );
    }
}

/// The leases of a DHCP server.
///
/// # What every backend guarantees
/// * An address has at most one lease.
/// * All methods can be called from any number of threads. Changes of one address are made one
///   after the other. A call that begins after a change has ended sees that change or a later one.
/// * A change that was acknowledged with `Ok` is as durable as the backend is configured to make
///   it. After an error nothing has changed, with two exceptions: after
///   [`LeaseMgrError::OutcomeUnknown`] the change may or may not have been made, which the caller
///   finds out by reading; and a backend that cannot tell what it has changed refuses all further
///   changes and gives the reason.
/// * A change that a callback of the manager tries to make is refused with
///   [`LeaseMgrError::InCallback`]. Nothing else in the manager waits for the end of a callback
///   ([`Tracking`]).
/// * Queries return leases in the order of their addresses. Each lease is as it was at one moment
///   of the call; a long result may be read in several steps, between which other callers change
///   leases.
///
/// The feature `conformance` has a test suite that checks these guarantees.
///
/// # What a backend implements
/// Eight methods are required: [`status`](Self::status), [`tracking`](Self::tracking),
/// [`add`](Self::add), [`get`](Self::get), [`find`](Self::find),
/// [`list_expired`](Self::list_expired), [`update_expecting`](Self::update_expecting) and
/// [`delete_expecting`](Self::delete_expecting). All others have defaults that are built on these.
/// A backend overrides a default where it can save round trips or do several steps in one.
/// `examples/sqlite_backend` shows how to write a backend.
pub trait LeaseMgr<L: ManagedLease>: fmt::Debug + Send + Sync {
    /// Returns the name and the state of the manager. Does no I/O, and does not wait for changes.
    fn status(&self) -> Status;

    /// Adds a lease, unless its address already has one. Of several concurrent calls for an
    /// address, one adds its lease.
    ///
    /// Threads that search for a free address at the same time find the same one; all but one of
    /// their leases are refused, each after waiting for the others. With [`LeaseMgr::claim_first`]
    /// each thread gets another address. A server that chooses addresses itself, without an
    /// [`Allocator`](crate::allocator::Allocator), takes the address lock first
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
    /// Returns [`LeaseMgrError::ZeroLifetime`] if the lease is in use and valid for 0 seconds, and
    /// another error if it could not be written; it was not added then.
    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError>;

    /// Returns the lease of an address.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError>;

    /// Returns the leases that a query selects, in the order of their addresses.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if [`Query::check`] does,
    /// [`LeaseMgrError::Unsupported`] if the backend does not know this kind of query, such as
    /// DHCPv6 leases by relay id in a backend without tables of relay ids, and another error if the
    /// backend cannot be read.
    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError>;

    /// Returns the leases that have ended at `now` and are not reclaimed yet, ordered by their end
    /// and then by their address: at most `limit`, or all if `limit` is 0. A lease that ended
    /// before 1970 has ended ([`Lease::end`](crate::lease::Lease::end)); a lease with an infinite
    /// lifetime never ends.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError>;

    /// Replaces the lease of an address; with `expected`, only if the address still has this lease.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::NoSuchLease`] if the address has no lease,
    /// [`LeaseMgrError::ChangedMeanwhile`] if its lease is not `expected`,
    /// [`LeaseMgrError::ZeroLifetime`] if the new lease is in use and valid for 0 seconds, and
    /// another error if it could not be written.
    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError>;

    /// Deletes the lease of an address; with `expected`, only if the address still has this lease.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::ChangedMeanwhile`] if the lease is not `expected`, and another
    /// error if the deletion could not be written.
    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError>;

    /// Makes several changes, and returns their results in the order of the operations. Each change
    /// succeeds or fails independently, as if its method were called. Changes of one address are
    /// made in their order, and each sees the result of the one before. Other callers may see some
    /// of the changes before the rest are made.
    ///
    /// By default, makes one change after the other. A backend that writes or sends several changes
    /// in one step overrides it. If such a step fails, all its operations fail, and nothing has
    /// changed.
    fn apply(&self, operations: &[Operation<L>]) -> Vec<Result<Done, LeaseMgrError>> {
        operations.iter().map(|operation| operation.run(self)).collect()
    }

    /// Makes a change and calls `then` with its result: by default in the calling thread before
    /// this returns, otherwise later in a thread of the manager ([`LeaseMgr::submits`]).
    ///
    /// * Changes of one address are made in the order in which they were submitted. A change that
    ///   another method makes meanwhile may come before or after the waiting ones.
    /// * `then` is called exactly once, also if the manager is dropped meanwhile: all submitted
    ///   changes are made first. It is called with no lock of the manager held, and may read,
    ///   change and submit.
    /// * `then` must not wait for another submitted change, and should be quick: other changes wait
    ///   for the thread that runs it. A panic in it is logged (`DHCPSRV_LEASE_MGR_SUBMIT_FAILED`)
    ///   and fails nothing else.
    /// * A change that a callback submits is refused with [`LeaseMgrError::InCallback`], with which
    ///   `then` is called at once.
    fn submit(&self, operation: Operation<L>, then: Then) {
        let result = operation.run(self);
        call_then(then, result);
    }

    /// Returns whether [`LeaseMgr::submit`] returns without waiting for a disk or a network (see
    /// [`LeaseMgr::may_block`]).
    fn submits(&self) -> bool {
        !self.may_block()
    }

    /// Looks up the lease of an address, or the leases of a client in a subnet, and calls `then` with
    /// them: by default in the calling thread before this returns, otherwise later in a thread of the
    /// manager, where look-ups that wait together go out together. `then` is called exactly once, and
    /// may do what it may in [`LeaseMgr::submit`].
    ///
    /// A look-up sees every change that was answered before it was submitted.
    fn submit_look_up(&self, look_up: LookUp<L>, then: ThenFound<L>) {
        call_then(then, look_up.run(self));
    }

    /// Returns whether [`LeaseMgr::submit_look_up`] returns without waiting for a disk or a network.
    fn submits_look_ups(&self) -> bool {
        !self.may_block()
    }

    /// Returns whether a method of the manager may wait for more than memory, other short calls and
    /// the page cache of the operating system: for the sync of a disk, or for a network. Async
    /// tasks must not call such methods directly.
    fn may_block(&self) -> bool {
        true
    }

    /// Deletes the reclaimed leases that ended at `until` or before, and returns their number. A
    /// lease with an infinite lifetime never ends.
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

    /// Returns the number of leases in each subnet, or in each pool, by kind and by each state that
    /// counts.
    ///
    /// By default, reads all leases.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if [`StatisticsQuery::check`] does, and another error
    /// if the backend cannot be read.
    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        defaults::statistics(self, query)
    }

    /// Recounts all leases, in a backend that stores the figures of [`LeaseMgr::statistics`] and
    /// [`LeaseMgr::class_leases`] beside the leases.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read or written.
    fn recount(&self) -> Result<(), LeaseMgrError> {
        Ok(())
    }

    /// Returns the number of leases of this kind that are in use (state 0) and name this client
    /// class under `ISC` / `client-classes` in their user context.
    ///
    /// By default, reads all leases in use.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        defaults::class_leases(self, class, kind)
    }

    /// Returns the lease as it will be read back after it was added: with a hostname in lower case,
    /// if the backend stores it so. Comparisons with an expected lease use this form.
    ///
    /// # Errors
    /// Returns the errors of [`LeaseMgr::add`]: [`LeaseMgrError::ZeroLifetime`], and
    /// [`LeaseMgrError::CannotKeep`] if a field would be read back with another value, except as
    /// the backend documents.
    fn kept(&self, lease: &L) -> Result<L, LeaseMgrError> {
        check(lease)?;
        Ok(lease.clone())
    }

    /// Returns whether other servers and programs may change the same leases. Callbacks are called
    /// for their changes with [`Origin::Elsewhere`], if at all and as late as the backend says. An
    /// allocator that follows changes then cannot know which addresses are free, and uses
    /// [`LeaseMgr::free_address`] instead.
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns the leases of several addresses, in the order of the addresses: `None` for an
    /// address without a lease.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn get_many(&self, addresses: &[L::Address]) -> Result<Vec<Option<L>>, LeaseMgrError> {
        addresses.iter().map(|&address| self.get(address)).collect()
    }

    /// Returns the number of leases that a query selects.
    ///
    /// By default, reads them.
    ///
    /// # Errors
    /// As [`LeaseMgr::find`].
    fn count(&self, query: &Query<'_, L>) -> Result<u64, LeaseMgrError> {
        defaults::count(self, query)
    }

    /// Returns the leases of a client in a subnet: those with its client id or DUID or, if there
    /// are none, those with its hardware address that have no client id. If the client has no
    /// client id, all leases with its hardware address are returned. A server calls it for every
    /// packet.
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
    /// // By its client id, with any hardware address; by its hardware address, if it sends no
    /// // client id.
    /// let of = |card, id: Option<&ClientId>| leases.by_client_in_subnet(card, id.map(ClientKey::from), SubnetId(1));
    /// assert_eq!(of(None, Some(&one))?, [lease.clone()]);
    /// assert_eq!(of(Some(&card), None)?, [lease]);
    /// // Another client with the same hardware address is another client.
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

    /// Returns up to `limit` leases in an unspecified order, and the cursor to continue with;
    /// `None` at the end. A lease that does not change during a whole scan is returned exactly
    /// once. For backends that cannot list leases cheaply in the order of their addresses; the
    /// default uses that order.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if `limit` is 0 or the cursor is of another backend,
    /// and another error if the backend cannot be read.
    fn scan(&self, cursor: Option<&Cursor>, limit: usize) -> Result<(Vec<L>, Option<Cursor>), LeaseMgrError> {
        defaults::scan(self, cursor, limit)
    }

    /// Returns the addresses of all leases, in their order, if the backend reads them, and then the
    /// leases of many addresses ([`LeaseMgr::get_many`]), with less work than pages of all leases in
    /// the order of their addresses ([`LeaseMgrExt::pages`]). `None`, the default, otherwise.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn address_list(&self) -> Result<Option<Vec<L::Address>>, LeaseMgrError> {
        Ok(None)
    }

    /// Adds many leases, such as those of another lease manager or of a lease file, in portions, and
    /// returns what became of them. Calls `report` after each portion, and for each lease that is not
    /// added because its address has another lease or the backend cannot keep it.
    ///
    /// An import that has ended with an error, or whose process was killed, is completed by another
    /// one: of all leases again, as those that are there already are skipped, or, if they come in the
    /// order of their addresses, of those after [`Imported::last`]. An error of the iterator ends the
    /// import, and is returned; the leases of an incomplete portion are not added.
    ///
    /// The leases are added as by [`LeaseMgr::add`]: other callers see those of a portion as soon as
    /// they are added, callbacks are called for each, and they count as assigned.
    ///
    /// By default, makes a portion with [`LeaseMgr::apply`]. After an error, some of its leases may
    /// have been added then.
    ///
    /// ```
    /// use leasemgr::lease::{HwAddr, Lease4};
    /// use leasemgr::{ImportEvent, ImportOptions, LeaseMgr, LeaseMgrExt, LeaseMgrFactory, Query};
    ///
    /// let factory = LeaseMgrFactory::<Lease4>::new();
    /// let old = factory.open("type=memfile persist=false")?;
    /// let new = factory.open("type=memfile persist=false")?;
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let _ = old.add(&Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build()?)?;
    ///
    /// let mut leases = old.leases(Query::all());
    /// let imported = new.import(&mut leases, &ImportOptions::default(), &mut |event| match event {
    ///     ImportEvent::Portion(imported) => println!("{} leases added", imported.added),
    ///     ImportEvent::Conflict { lease, .. } => println!("{} has another lease", lease.address()),
    ///     ImportEvent::Refused { lease, error } => println!("{} was not added: {error}", lease.address()),
    ///     _ => {}
    /// })?;
    /// assert_eq!((imported.added, imported.last), (1, Some([192, 0, 2, 1].into())));
    /// # use leasemgr::lease::Lease;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if [`ImportOptions::check`] does, an error of the
    /// iterator, and another error if leases could not be added, apart from those that the backend
    /// cannot keep.
    fn import(
        &self,
        leases: &mut dyn Iterator<Item = Result<L, LeaseMgrError>>,
        options: &ImportOptions,
        report: &mut dyn FnMut(ImportEvent<'_, L>),
    ) -> Result<Imported<L>, LeaseMgrError> {
        defaults::import(self, leases, options, report)
    }

    /// Reclaims leases that have ended at `now`, in the order of their ends: at most `limit`, or
    /// all if `limit` is 0. Returns those that this call has reclaimed, in the form that
    /// [`reclaim`](crate::lease::Lease::reclaim) gives them, so that the server can clean up after
    /// them. Declined leases are deleted, and returned as they were. If several servers reclaim at
    /// the same time, each lease is returned to one of them.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the leases cannot be read, or none could be reclaimed. If only
    /// some could, these are returned.
    fn reclaim_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        defaults::reclaim_expired(self, now, limit)
    }

    /// Returns the first limit under `ISC` / `limits` of a user context that is already reached, so
    /// that a lease with this context must not be assigned. The limit of a subnet counts leases in
    /// use and declined leases, that of a client class only leases in use, as in Kea.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Limits`] if the limits have another form,
    /// [`LeaseMgrError::BadArgument`] for a limit of subnet 0, and another error if the backend
    /// cannot be read.
    fn check_limits(&self, context: &UserContext) -> Result<Option<LimitExceeded>, LeaseMgrError> {
        defaults::check_limits(self, context)
    }

    /// Adds a lease, unless a limit of the user context is reached ([`LeaseMgr::check_limits`]).
    /// Concurrent calls never take more leases than a limit allows; leases that [`LeaseMgr::add`]
    /// or other methods change meanwhile can still exceed it.
    ///
    /// # Errors
    /// As [`LeaseMgr::check_limits`] and [`LeaseMgr::add`].
    fn add_within(&self, lease: &L, context: &UserContext) -> Result<AddedWithin, LeaseMgrError> {
        defaults::add_within(self, lease, context)
    }

    /// Returns an address of a range that has no lease, or whose lease has ended at `now` or is
    /// reclaimed. It may be any such address, so that several servers that call this at the same
    /// time are likely to get different ones.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Unsupported`] if the backend has no better way than
    /// [`LeaseMgr::first_free`], which is the default, and another error if it cannot be read.
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

    /// Returns the lowest address of a range that has no lease, or whose lease has ended at `now`
    /// or is reclaimed; `None` if there is no such address.
    ///
    /// By default, reads the leases of the range from its first address on.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn first_free(&self, range: &FreeRange<L>, now: SystemTime) -> Result<Option<L::Address>, LeaseMgrError> {
        defaults::first_free(self, range, now)
    }

    /// Gives the lowest free address of a range ([`LeaseMgr::first_free`]) the lease that `make`
    /// returns for it, in one step: concurrent calls get different addresses. Skips addresses whose
    /// address lock is taken ([`Tracking::try_lock`]). Calls `make` for several addresses if other
    /// calls are faster. Returns `None` if no address is free.
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
    /// As [`LeaseMgr::first_free`], [`LeaseMgr::add`] and [`LeaseMgr::update_expecting`]; and
    /// [`LeaseMgrError::BadArgument`] if the lease that `make` returns has another address.
    fn claim_first(
        &self,
        range: &FreeRange<L>,
        now: SystemTime,
        make: &mut dyn FnMut(L::Address) -> L,
    ) -> Result<Option<Claimed<L>>, LeaseMgrError> {
        defaults::claim_first(self, range, now, make)
    }

    /// Returns the callbacks for changes of leases, the address locks, and the numbers of assigned
    /// and reclaimed leases.
    fn tracking(&self) -> &Tracking<L>;

    /// Makes all acknowledged changes durable.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if that fails.
    fn flush(&self) -> Result<(), LeaseMgrError> {
        Ok(())
    }

    /// If `path` is the manager's own lease file, writes all leases to it in place of its present
    /// content, and appends further changes to the new file. Returns the number of leases; `None`
    /// if `path` is another file. [`WriteLeases`](crate::WriteLeases) calls this when it writes to
    /// a path.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::OwnFile`] if `path` is another file that the manager maintains, and
    /// [`LeaseMgrError`] if the file cannot be written, which leaves it unchanged.
    fn write_own_file(&self, path: &Path) -> Result<Option<u64>, LeaseMgrError> {
        let _ = path;
        Ok(None)
    }

    /// Starts a cleanup of the lease files now, if there are any, and does not wait for its end.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the manager has ended.
    fn clean_up(&self) -> Result<CleanupStart, LeaseMgrError> {
        Ok(CleanupStart::NotNeeded)
    }
}
