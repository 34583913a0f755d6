//! Queries for leases.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::SystemTime;

use super::LeaseMgrError;
use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseState, LeaseType, RelayId, RemoteId,
    SubnetId, seconds_since_epoch,
};

/// A lease that can be managed: [`Lease4`] or [`Lease6`]. Other types cannot implement this trait.
///
/// Generic code sees nothing of the internals of backends, so its own traits may have methods with
/// such names:
///
/// ```
/// use leasemgr::ManagedLease;
///
/// trait Own {
///     fn key(&self) -> u8 {
///         1
///     }
///     fn write_row(&self) -> u8 {
///         2
///     }
/// }
/// impl<L: ManagedLease> Own for L {}
///
/// fn sum<L: ManagedLease>(lease: &L) -> u8 {
///     lease.key() + lease.write_row()
/// }
/// ```
/// ```compile_fail,E0599
/// fn row<L: leasemgr::ManagedLease>(lease: &L) {
///     lease.write_row(&mut Vec::new());
/// }
/// ```
/// ```compile_fail,E0599
/// fn client<L: leasemgr::ManagedLease>(lease: &L) -> &[u8] {
///     lease.stored_client()
/// }
/// ```
pub trait ManagedLease: Lease {
    /// Number of bits of an address.
    const ADDRESS_BITS: u32;

    /// Returns an address as a number.
    #[must_use]
    fn bits_of(address: Self::Address) -> u128;

    /// Returns the address for the lowest [`ADDRESS_BITS`](Self::ADDRESS_BITS) bits of a number.
    #[must_use]
    fn address_of_bits(bits: u128) -> Self::Address;

    /// Returns the type of the lease; `None` for DHCPv4, which has only one.
    fn kind(&self) -> Option<LeaseType>;

    /// Returns whether statistics count leases of this kind in this state: DHCPv4 leases and DHCPv6
    /// addresses in use or declined, DHCPv6 addresses that clients registered, and prefixes in use;
    /// never temporary addresses.
    #[must_use]
    fn is_counted(kind: Option<LeaseType>, state: LeaseState) -> bool;

    /// Returns the key of the client of the lease; `None` for a lease without a client id (DHCPv4),
    /// or with an empty DUID (DHCPv6, declined).
    fn client_key(&self) -> Option<ClientKey<'_>>;

    /// Returns whether the lease records a relay agent with this relay id.
    fn has_relay_id(&self, id: &RelayId) -> bool;

    /// Returns whether the lease records this remote id, from any relay agent.
    fn has_remote_id(&self, id: &RemoteId) -> bool;
}

impl ManagedLease for Lease4 {
    const ADDRESS_BITS: u32 = 32;

    fn bits_of(address: Ipv4Addr) -> u128 {
        address.to_bits().into()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest 32 bits are what counts")]
    fn address_of_bits(bits: u128) -> Ipv4Addr {
        Ipv4Addr::from_bits(bits as u32)
    }

    fn kind(&self) -> Option<LeaseType> {
        None
    }

    fn is_counted(_: Option<LeaseType>, state: LeaseState) -> bool {
        matches!(state, LeaseState::DEFAULT | LeaseState::DECLINED)
    }

    fn client_key(&self) -> Option<ClientKey<'_>> {
        self.client_id().map(ClientKey::from)
    }

    fn has_relay_id(&self, id: &RelayId) -> bool {
        self.relay_id().as_ref() == Some(id)
    }

    fn has_remote_id(&self, id: &RemoteId) -> bool {
        self.remote_id().as_ref() == Some(id)
    }
}

impl ManagedLease for Lease6 {
    const ADDRESS_BITS: u32 = 128;

    fn bits_of(address: Ipv6Addr) -> u128 {
        address.to_bits()
    }

    fn address_of_bits(bits: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(bits)
    }

    fn kind(&self) -> Option<LeaseType> {
        Some(self.lease_type())
    }

    fn is_counted(kind: Option<LeaseType>, state: LeaseState) -> bool {
        match kind {
            Some(LeaseType::NA) => {
                matches!(state, LeaseState::DEFAULT | LeaseState::DECLINED | LeaseState::REGISTERED)
            }
            Some(LeaseType::PD) => state == LeaseState::DEFAULT,
            _ => false,
        }
    }

    fn client_key(&self) -> Option<ClientKey<'_>> {
        let (iaid, lease_type) = (Some(self.iaid()), Some(self.lease_type()));
        (!self.duid().is_empty()).then(|| ClientKey { id: self.duid().as_bytes(), iaid, lease_type })
    }

    fn has_relay_id(&self, id: &RelayId) -> bool {
        self.relay_ids().any(|other| other == *id)
    }

    fn has_remote_id(&self, id: &RemoteId) -> bool {
        self.remote_ids().any(|other| other == *id)
    }
}

/// A client, and which of its leases to select.
///
/// ```
/// use leasemgr::ClientKey;
/// use leasemgr::lease::{Iaid, LeaseType};
///
/// // DHCPv4: the client id. DHCPv6: the DUID, and what distinguishes the leases of a client.
/// let key = ClientKey::new(&[1, 2, 0, 0, 0, 0, 1]);
/// let prefixes = ClientKey::new(b"\0\x04uuid").iaid(Iaid(7)).lease_type(LeaseType::PD);
/// # let _ = (key, prefixes);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClientKey<'a> {
    /// Bytes of the client id (DHCPv4) or DUID (DHCPv6).
    pub id: &'a [u8],
    /// Selects only leases in this identity association (DHCPv6).
    pub iaid: Option<Iaid>,
    /// Selects only leases of this type (DHCPv6).
    pub lease_type: Option<LeaseType>,
}

impl<'a> ClientKey<'a> {
    /// Selects all leases of the client with these bytes as client id or DUID.
    #[must_use]
    pub fn new(id: &'a [u8]) -> Self {
        Self { id, iaid: None, lease_type: None }
    }

    /// Restricts it to leases in this identity association.
    #[must_use]
    pub fn iaid(self, iaid: Iaid) -> Self {
        Self { iaid: Some(iaid), ..self }
    }

    /// Restricts it to leases of this type.
    #[must_use]
    pub fn lease_type(self, lease_type: LeaseType) -> Self {
        Self { lease_type: Some(lease_type), ..self }
    }

    /// Returns whether the key matches this lease.
    #[must_use]
    pub fn matches<L: ManagedLease>(&self, lease: &L) -> bool {
        lease.client_key().is_some_and(|of_lease| {
            self.id == of_lease.id
                && (self.iaid.is_none() || self.iaid == of_lease.iaid)
                && (self.lease_type.is_none() || self.lease_type == of_lease.lease_type)
        })
    }
}

impl<'a> From<&'a ClientId> for ClientKey<'a> {
    fn from(id: &'a ClientId) -> Self {
        Self::new(id.as_bytes())
    }
}

impl<'a> From<&'a Duid> for ClientKey<'a> {
    fn from(duid: &'a Duid) -> Self {
        Self::new(duid.as_bytes())
    }
}

/// The key by which leases are selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key<'a> {
    /// Every lease.
    All,
    /// Leases in this state.
    State(LeaseState),
    /// Leases of this hardware address. Its type and source are ignored.
    HwAddr(&'a HwAddr),
    /// Leases of this client.
    Client(ClientKey<'a>),
    /// Leases with this hostname, in any ASCII case. An empty name finds none.
    Hostname(&'a Hostname),
    /// Leases of clients behind the relay agent with this relay id.
    RelayId(&'a RelayId),
    /// Leases of clients for which a relay agent sent this remote id.
    RemoteId(&'a RemoteId),
}

impl Key<'_> {
    /// Returns whether the key matches this lease.
    #[must_use]
    pub fn matches<L: ManagedLease>(&self, lease: &L) -> bool {
        match *self {
            Self::All => true,
            Self::State(state) => lease.state() == state,
            Self::HwAddr(hwaddr) => lease.hwaddr().is_some_and(|own| own.as_bytes() == hwaddr.as_bytes()),
            Self::Client(client) => client.matches(lease),
            Self::Hostname(name) => {
                let (own, name) = (lease.data().hostname.as_bytes(), name.as_bytes());
                !name.is_empty() && own.eq_ignore_ascii_case(name)
            }
            Self::RelayId(id) => lease.has_relay_id(id),
            Self::RemoteId(id) => lease.has_remote_id(id),
        }
    }
}

/// Selects leases by a key, optionally of one subnet, in a range of addresses, in a window of time
/// and up to a maximum number, in the order of their addresses or in reverse order.
///
/// ```
/// use leasemgr::Query;
/// use leasemgr::lease::{ClientId, Lease4, LeaseState, SubnetId};
///
/// let declined = Query::<Lease4>::state(LeaseState::DECLINED).in_subnet(SubnetId(7)).limit(100);
/// let next_page = declined.after([192, 0, 2, 17].into());
/// let of_pool = Query::<Lease4>::all().in_range([192, 0, 2, 1].into()..=[192, 0, 2, 99].into());
/// let id = ClientId::new(&[1, 2, 0, 0, 0, 0, 1])?;
/// let of_client = Query::<Lease4>::client(&id);
/// # let _ = (next_page, of_pool, of_client);
/// # Ok::<(), leasemgr::lease::LeaseError>(())
/// ```
#[derive(Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Query<'a, L: ManagedLease> {
    /// The key of the leases.
    pub key: Key<'a>,
    /// Only leases in this subnet.
    pub subnet: Option<SubnetId>,
    /// Only leases whose client was last heard (cltt, seconds since the epoch) at this time or
    /// later.
    pub heard_since: Option<i64>,
    /// Only leases whose client was last heard (cltt, seconds since the epoch) at this time or
    /// before.
    pub heard_until: Option<i64>,
    /// Only leases that ended at this time (seconds since the epoch) or before, in any state.
    pub ended_by: Option<i64>,
    /// Only leases with this address or greater ones.
    pub first: Option<L::Address>,
    /// Only leases with this address or smaller ones.
    pub last: Option<L::Address>,
    /// Only leases after this address, in the order of the query: with greater addresses, or with
    /// smaller ones if the order is reversed.
    pub after: Option<L::Address>,
    /// Whether leases are ordered from the greatest address to the smallest.
    pub reversed: bool,
    /// Maximum number of leases, at least 1; `None` for all.
    pub limit: Option<usize>,
}

impl<L: ManagedLease> Clone for Query<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: ManagedLease> Copy for Query<'_, L> {}

impl<'a, L: ManagedLease> Query<'a, L> {
    /// Selects leases with this key.
    pub fn new(key: Key<'a>) -> Self {
        Self {
            key,
            subnet: None,
            heard_since: None,
            heard_until: None,
            ended_by: None,
            first: None,
            last: None,
            after: None,
            reversed: false,
            limit: None,
        }
    }

    /// Selects all leases.
    pub fn all() -> Self {
        Self::new(Key::All)
    }

    /// Selects leases in this state.
    pub fn state(state: LeaseState) -> Self {
        Self::new(Key::State(state))
    }

    /// Selects leases of this hardware address.
    pub fn hwaddr(hwaddr: &'a HwAddr) -> Self {
        Self::new(Key::HwAddr(hwaddr))
    }

    /// Selects leases of this client: a [`ClientKey`], or a reference to a client id or DUID.
    pub fn client(client: impl Into<ClientKey<'a>>) -> Self {
        Self::new(Key::Client(client.into()))
    }

    /// Selects leases with this hostname, in any ASCII case.
    pub fn hostname(hostname: &'a Hostname) -> Self {
        Self::new(Key::Hostname(hostname))
    }

    /// Selects leases of clients behind this relay agent.
    pub fn relay_id(id: &'a RelayId) -> Self {
        Self::new(Key::RelayId(id))
    }

    /// Selects leases of clients for which a relay agent sent this remote id.
    pub fn remote_id(id: &'a RemoteId) -> Self {
        Self::new(Key::RemoteId(id))
    }

    /// Restricts the query to leases in this subnet.
    pub fn in_subnet(self, subnet: SubnetId) -> Self {
        Self { subnet: Some(subnet), ..self }
    }

    /// Restricts the query to leases in this range of addresses.
    pub fn in_range(self, range: RangeInclusive<L::Address>) -> Self {
        let (first, last) = range.into_inner();
        Self { first: Some(first), last: Some(last), ..self }
    }

    /// Restricts the query to leases after this address, in the order of the query.
    pub fn after(self, address: L::Address) -> Self {
        Self { after: Some(address), ..self }
    }

    /// Reverses the order: from the greatest address to the smallest.
    pub fn reverse(self) -> Self {
        Self { reversed: !self.reversed, ..self }
    }

    /// Restricts the query to this number of leases, at least 1.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Restricts the query to clients that were last heard (cltt) at this time or later. Fractions
    /// of a second are dropped.
    pub fn heard_since(self, time: SystemTime) -> Self {
        Self { heard_since: Some(seconds_since_epoch(time)), ..self }
    }

    /// Restricts the query to clients that were last heard (cltt) at this time or before. Fractions
    /// of a second are dropped.
    pub fn heard_until(self, time: SystemTime) -> Self {
        Self { heard_until: Some(seconds_since_epoch(time)), ..self }
    }

    /// Restricts the query to leases that ended at this time or before, in any state. Fractions of
    /// a second are dropped.
    pub fn ended_by(self, time: SystemTime) -> Self {
        Self { ended_by: Some(seconds_since_epoch(time)), ..self }
    }

    /// Returns whether the query selects all leases, if its limit is ignored.
    pub(crate) fn is_whole(&self) -> bool {
        *self == Self { reversed: self.reversed, limit: self.limit, ..Self::all() }
    }

    /// Returns whether the query selects this lease, if its limit is ignored. A backend that finds
    /// leases by some of the conditions checks the others with it.
    #[must_use]
    pub fn matches(&self, lease: &L) -> bool {
        let (data, address) = (lease.data(), lease.address());
        self.subnet.is_none_or(|subnet| data.subnet_id == subnet)
            && self.heard_since.is_none_or(|since| data.cltt >= since)
            && self.heard_until.is_none_or(|until| data.cltt <= until)
            && self.ended_by.is_none_or(|time| lease.end().is_some_and(|end| end <= time.into()))
            && self.first.is_none_or(|first| address >= first)
            && self.last.is_none_or(|last| address <= last)
            && self.after.is_none_or(|after| if self.reversed { address < after } else { address > after })
            && self.key.matches(lease)
    }

    /// Checks the bounds. For backends, before they answer a query.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if the limit is 0, if a time is before 1970, or if
    /// the window of time or the range of addresses ends before it begins.
    pub fn check(&self) -> Result<(), LeaseMgrError> {
        // The usual query has nothing else to be checked.
        let has_bounds = self.heard_since.is_some() || self.heard_until.is_some() || self.last.is_some();
        if !has_bounds && self.limit != Some(0) {
            return Ok(());
        }
        let bad =
            |argument, value: String, expected| Err(LeaseMgrError::BadArgument { argument, value, expected });
        if self.limit == Some(0) {
            return bad("the limit of a query", 0.to_string(), "at least 1, or none for all leases");
        }
        for (argument, time) in [("heard_since", self.heard_since), ("heard_until", self.heard_until)] {
            if let Some(time) = time.filter(|&time| time < 0) {
                return bad(argument, time.to_string(), "seconds since the epoch, 0 or more");
            }
        }
        match (self.heard_since, self.heard_until) {
            (Some(since), Some(until)) if until < since => {
                return bad("heard_until", until.to_string(), "a time that is not before heard_since");
            }
            _ => {}
        }
        match (self.first, self.last) {
            (Some(first), Some(last)) if last < first => bad(
                "the last address of a range",
                last.to_string(),
                "one that is not before the first address",
            ),
            _ => Ok(()),
        }
    }
}

impl<'a> Query<'a, Lease6> {
    /// Selects leases of a type that a client has in an identity association.
    pub fn identity(lease_type: LeaseType, duid: &'a Duid, iaid: Iaid) -> Self {
        Self::client(ClientKey::from(duid).iaid(iaid).lease_type(lease_type))
    }
}
