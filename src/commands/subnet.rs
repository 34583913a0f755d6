//! What commands know of the subnets of a server.

use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::RwLock;

use super::CommandError;
use crate::lease::{Lease6, Lifetime, SubnetId};
use crate::lease_mgr::{
    LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease, Query, StatisticsQuery, TotalsRow,
};

/// A subnet of a server.
///
/// ```
/// use leasemgr::commands::Subnet;
/// use leasemgr::lease::{Lease4, Lease6, SubnetId};
///
/// let subnet = Subnet::<Lease4>::new(1, [192, 0, 2, 0].into(), 24)
///     .pool([192, 0, 2, 10].into()..=[192, 0, 2, 200].into())
///     .valid_lifetime(4000);
/// assert_eq!((subnet.id(), subnet.addresses()), (SubnetId(1), 191));
///
/// let subnet = Subnet::<Lease6>::new(1, "2001:db8:1::".parse()?, 64).prefix_pool(48, 56);
/// assert_eq!(subnet.prefixes(), 256);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet<L: ManagedLease> {
    id: SubnetId,
    first: L::Address,
    last: L::Address,
    addresses: u128,
    prefixes: u128,
    valid_lifetime: Lifetime,
}

impl<L: ManagedLease> Subnet<L> {
    /// Creates a subnet with the addresses of a prefix, whose length is in bits: bits of the
    /// address after it do not matter, and a greater length than that of an address counts as that.
    /// The subnet has no pools, and its valid lifetime is 7200 seconds, as by default in Kea.
    #[must_use]
    pub fn new(id: impl Into<SubnetId>, prefix: L::Address, prefix_len: u8) -> Self {
        let size_bits = L::ADDRESS_BITS.saturating_sub(prefix_len.into());
        let host_bits = 1_u128.checked_shl(size_bits).map_or(u128::MAX, |size| size - 1);
        let bits = L::bits_of(prefix);
        Self {
            id: id.into(),
            first: L::address_of_bits(bits & !host_bits),
            last: L::address_of_bits(bits | host_bits),
            addresses: 0,
            prefixes: 0,
            valid_lifetime: Lifetime(7200),
        }
    }

    /// Adds a pool of addresses, which is empty if its last address is less than its first.
    #[must_use]
    pub fn pool(self, pool: RangeInclusive<L::Address>) -> Self {
        let (first, last) = pool.into_inner();
        let size = match L::bits_of(last).checked_sub(L::bits_of(first)) {
            Some(less) => less.saturating_add(1),
            None => 0,
        };
        Self { addresses: self.addresses.saturating_add(size), ..self }
    }

    /// Sets the lifetime of leases without one in a command, in seconds.
    #[must_use]
    pub fn valid_lifetime(self, lifetime: impl Into<Lifetime>) -> Self {
        Self { valid_lifetime: lifetime.into(), ..self }
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> SubnetId {
        self.id
    }

    /// Returns the number of addresses in the pools. Numbers beyond the maximum count as the
    /// maximum.
    #[must_use]
    pub fn addresses(&self) -> u128 {
        self.addresses
    }

    /// Returns the number of prefixes in the pools (DHCPv6). Numbers beyond the maximum count as
    /// the maximum.
    #[must_use]
    pub fn prefixes(&self) -> u128 {
        self.prefixes
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        self.valid_lifetime
    }

    pub(super) fn contains(&self, address: L::Address) -> bool {
        (self.first..=self.last).contains(&address)
    }
}

impl Subnet<Lease6> {
    /// Adds a pool of prefixes with a length of `delegated_len` bits, which are in a prefix of
    /// `prefix_len` bits; empty if `delegated_len` is less.
    #[must_use]
    pub fn prefix_pool(self, prefix_len: u8, delegated_len: u8) -> Self {
        let size = match delegated_len.checked_sub(prefix_len) {
            Some(bits) => 1_u128.checked_shl(bits.into()).unwrap_or(u128::MAX),
            None => 0,
        };
        Self { prefixes: self.prefixes.saturating_add(size), ..self }
    }
}

/// The leases of one family, and its subnets. A server of the other family has neither.
pub(super) struct Store<L: ManagedLease> {
    pub(super) leases: Option<Arc<dyn LeaseMgr<L>>>,
    /// Ordered by id.
    subnets: RwLock<Arc<[Subnet<L>]>>,
}

impl<L: ManagedLease> Default for Store<L> {
    fn default() -> Self {
        Self { leases: None, subnets: RwLock::new(Arc::new([])) }
    }
}

impl<L: ManagedLease> Store<L> {
    pub(super) fn set_subnets(&self, subnets: impl IntoIterator<Item = Subnet<L>>) {
        let mut subnets: Vec<_> = subnets.into_iter().collect();
        subnets.sort_by_key(|subnet| subnet.id);
        *self.subnets.write() = subnets.into();
    }

    /// Returns the subnets, ordered by their ids.
    pub(super) fn subnets(&self) -> Arc<[Subnet<L>]> {
        Arc::clone(&self.subnets.read())
    }

    /// Returns the leases, to change them.
    pub(super) fn leases(&self) -> Result<&dyn LeaseMgr<L>, CommandError> {
        self.leases.as_deref().ok_or(CommandError::NoLeases { family: L::FAMILY })
    }

    pub(super) fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        self.leases.as_ref().map_or(Ok(Vec::new()), |leases| leases.find(query))
    }

    pub(super) fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        self.leases.as_ref().map_or(Ok(None), |leases| leases.get(address))
    }

    pub(super) fn totals(&self, query: &StatisticsQuery) -> Result<Vec<TotalsRow>, LeaseMgrError> {
        self.leases.as_ref().map_or(Ok(Vec::new()), |leases| leases.totals(query))
    }

    /// Makes changes that do not count as assignments of this server.
    pub(super) fn change<T>(&self, work: impl FnOnce(&dyn LeaseMgr<L>) -> T) -> Result<T, CommandError> {
        let leases = self.leases()?;
        Ok(leases.tracking().totals().uncounted(|| work(leases)))
    }
}

/// Returns the subnet with an id.
pub(super) fn by_id<L: ManagedLease>(subnets: &[Subnet<L>], id: SubnetId) -> Option<&Subnet<L>> {
    subnets.binary_search_by_key(&id, |subnet| subnet.id).ok().and_then(|place| subnets.get(place))
}
