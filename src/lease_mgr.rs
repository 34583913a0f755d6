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
//! // It renews its lease. Had another thread or server changed the lease meanwhile, this were an error.
//! let mut renewed = lease.clone();
//! renewed.set_heard_at(system_time(1_790_001_800));
//! leases.update_if_unchanged(&lease, &renewed)?;
//! assert_eq!(leases.get([192, 0, 2, 1].into())?, Some(renewed));
//!
//! // Time goes by.
//! for expired in leases.expired(1_790_010_000, 100)? {
//!     assert!(leases.reclaim(&expired)?);
//! }
//! assert_eq!(leases.expired(1_790_010_000, 100)?, []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calling;
mod change;
mod error;
mod ext;
mod query;
mod rewrite;
mod statistics;
mod status;
mod totals;
mod tracking;

use std::fmt;
use std::path::Path;

pub use change::{Change, ChangeKind, Origin};
pub use error::LeaseMgrError;
pub use ext::{LeaseMgrExt, LeaseMgrExt4, LeaseMgrExt6};
pub use query::{ClientKey, Key, ManagedLease, Query};
pub use statistics::{StatisticsQuery, StatisticsRow, Subnets};
pub use status::{CleanupReport, CleanupRows, CleanupStart, CleanupStatus, CleanupWork, OnFail, Status};
pub use totals::{CountedAs, Totals, TotalsRow};
pub use tracking::{CallbackError, LeaseLock, Scope, Tracking};

use crate::lease::{ClientClass, LeaseKind, SubnetId};

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

/// The leases of a DHCP server.
///
/// # What every backend guarantees
/// * There is at most one lease for an address.
/// * Everything may be called from any number of threads. Changes of one address happen one after the other, and what a call
///   that comes after one of them reads is not older than it.
/// * A change that was acknowledged with `Ok` is as durable as the backend was told to make it. After an error nothing has
///   changed, or the backend refuses all further changes and says why.
/// * A change that a callback of the manager tries to make is refused with [`LeaseMgrError::InCallback`], and nothing
///   else of the manager waits for the end of a callback ([`Tracking`]).
/// * Leases that a query gives are in the order of their addresses. Each of them is as it was at one moment of the call; a long
///   answer may be put together in several steps, between which others change leases.
///
/// Whether a backend does so is what the feature `conformance` is there to prove.
pub trait LeaseMgr<L: ManagedLease>: fmt::Debug + Send + Sync {
    /// What the manager is and how it does. Costs little.
    fn status(&self) -> Status;

    /// Adds a lease, if its address has none. Of several that try at once, one has it.
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

    /// Leases that have ended at `now` (seconds since the epoch) and are not reclaimed yet, those that ended first
    /// first, and of the same second in the order of their addresses: at most `limit`, or all with a limit of 0. A lease that
    /// ended before 1970 has ended ([`Lease::end`](crate::lease::Lease::end)), one with an infinite lifetime is never among them.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn expired(&self, now: u64, limit: usize) -> Result<Vec<L>, LeaseMgrError>;

    /// Puts a lease in the place of the one that its address has; with `expected`, only if that is still the same, address
    /// and all.
    ///
    /// # Errors
    /// [`LeaseMgrError::NoSuchLease`] where the address has none, [`LeaseMgrError::ChangedMeanwhile`] where it is
    /// another than `expected`, [`LeaseMgrError::ZeroLifetime`] for a lease that is valid for 0 seconds, and others where
    /// the lease could not be written.
    fn replace(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError>;

    /// Deletes the lease of an address; with `expected`, only if it is still the same.
    ///
    /// # Errors
    /// [`LeaseMgrError::ChangedMeanwhile`] where it is another than `expected`, and others where that could not be
    /// written.
    fn remove(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError>;

    /// Deletes the reclaimed leases that ended at `until` (seconds since the epoch) or before, and tells how many
    /// these were. One with an infinite lifetime never ends.
    ///
    /// # Errors
    /// As [`LeaseMgr::remove`]; some of the leases may be deleted then.
    fn remove_reclaimed(&self, until: u64) -> Result<u64, LeaseMgrError>;

    /// Deletes all leases of a subnet, and tells how many these were.
    ///
    /// # Errors
    /// As [`LeaseMgr::remove`]; some of the leases may be deleted then.
    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        self.tracking().refuse_in_callback()?;
        let mut deleted = 0;
        let mut query = Query::all().in_subnet(subnet).limit(1000);
        loop {
            let page = self.find(&query)?;
            let Some(last) = page.last() else {
                return Ok(deleted);
            };
            query = query.after(last.address());
            for lease in &page {
                match self.remove(lease.address(), Some(lease)) {
                    Ok(Deleted::Deleted) => deleted += 1,
                    Ok(Deleted::NoSuchLease) => {}
                    // It counts what it is now.
                    Err(LeaseMgrError::ChangedMeanwhile { .. }) => match self.get(lease.address())? {
                        Some(now) if now.data().subnet_id == subnet => {
                            deleted += u64::from(self.remove(lease.address(), None)? == Deleted::Deleted);
                        }
                        _ => {}
                    },
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// How many leases there are, of each subnet, or each pool, and each state that counts.
    ///
    /// # Errors
    /// [`LeaseMgrError::BadArgument`] as [`StatisticsQuery::check`] says, and others where the backend cannot be asked.
    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError>;

    /// Counts all leases again, where the figures of [`LeaseMgr::statistics`] and [`LeaseMgr::class_leases`] are kept
    /// beside the leases.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn recount(&self) -> Result<(), LeaseMgrError>;

    /// How many leases of this kind are in use (state 0) and name this client class under `ISC` / `client-classes` in their
    /// user context.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError>;

    /// The callbacks that are called when leases change, the locks of leases, and how many were assigned and reclaimed.
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
