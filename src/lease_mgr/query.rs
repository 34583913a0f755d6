//! What leases can be looked for by.

use super::LeaseMgrError;
use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, Iaid, Lease4, Lease6, LeaseState, LeaseType, RelayId, RemoteId,
    SubnetId,
};
use crate::lease_file::FileLease;
use crate::memfile::record::{Packed, StoredLease};

/// A lease that can be managed: [`Lease4`] and [`Lease6`].
pub trait ManagedLease: FileLease + StoredLease {
    /// What names a client: of DHCPv4 its client id, of DHCPv6 [`Client6`].
    type Client<'a>: Copy + std::fmt::Debug + PartialEq;

    /// What is leased; `None` for DHCPv4, which has but one kind.
    fn kind(&self) -> Option<LeaseType>;

    /// Whether leases of this kind in this state are counted in statistics: those in use and declined ones, not
    /// prefixes in any state but in use; addresses that clients registered; never temporary addresses.
    #[must_use]
    fn is_counted(kind: Option<LeaseType>, state: LeaseState) -> bool;

    /// The bytes that name a client, and the number that tells its leases apart, if that is given too.
    #[doc(hidden)]
    fn client_query<'a>(client: &Self::Client<'a>, subnet: Option<SubnetId>) -> (&'a [u8], Option<u32>);

    /// Whether a lease of the client is one of those that a query asks for.
    #[doc(hidden)]
    fn is_asked_for(client: &Self::Client<'_>, packed: &Packed<'_, Self>) -> bool;
}

impl ManagedLease for Lease4 {
    type Client<'a> = &'a ClientId;

    fn kind(&self) -> Option<LeaseType> {
        None
    }

    fn is_counted(_: Option<LeaseType>, state: LeaseState) -> bool {
        matches!(state, LeaseState::DEFAULT | LeaseState::DECLINED)
    }

    fn client_query<'a>(client: &Self::Client<'a>, subnet: Option<SubnetId>) -> (&'a [u8], Option<u32>) {
        (client.as_bytes(), subnet.map(|subnet| subnet.0))
    }

    fn is_asked_for(_: &Self::Client<'_>, _: &Packed<'_, Self>) -> bool {
        true
    }
}

impl ManagedLease for Lease6 {
    type Client<'a> = Client6<'a>;

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

    fn client_query<'a>(client: &Self::Client<'a>, _: Option<SubnetId>) -> (&'a [u8], Option<u32>) {
        (client.duid.as_bytes(), client.iaid.map(|iaid| iaid.0))
    }

    fn is_asked_for(client: &Self::Client<'_>, packed: &Packed<'_, Self>) -> bool {
        client.lease_type.is_none_or(|wanted| Self::kind_in(packed) == Some(wanted))
            && client.iaid.is_none_or(|iaid| Self::client_order(packed) == iaid.0)
    }
}

/// A DHCPv6 client, and which of its leases are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client6<'a> {
    /// Its DUID.
    pub duid: &'a Duid,
    /// Leases in this identity association only.
    pub iaid: Option<Iaid>,
    /// Leases of this type only.
    pub lease_type: Option<LeaseType>,
}

/// What leases are looked for by.
#[derive(Debug, PartialEq)]
pub enum Key<'a, L: ManagedLease> {
    /// Every lease.
    All,
    /// What they are used as.
    State(LeaseState),
    /// The hardware address of the client. Its type and source do not matter.
    HwAddr(&'a HwAddr),
    /// The client.
    Client(L::Client<'a>),
    /// The name of the client, in whatever case.
    Hostname(&'a Hostname),
    /// The relay agent that the client was heard through, by its relay id.
    RelayId(&'a RelayId),
    /// The remote id that a relay agent gave for the client.
    RemoteId(&'a RemoteId),
}

/// Which leases are looked for: those that a key names, of one subnet or of all, and of these those behind an
/// address, up to a number.
///
/// ```
/// use leasemgr::Query;
/// use leasemgr::lease::{ClientId, Lease4, LeaseState, SubnetId};
///
/// let declined = Query::<Lease4>::state(LeaseState::DECLINED).in_subnet(SubnetId(7)).limit(100);
/// let next_page = declined.after([192, 0, 2, 17].into());
/// let id = ClientId::new(&[1, 2, 0, 0, 0, 0, 1])?;
/// let of_client = Query::client_id(&id);
/// # let _ = (next_page, of_client);
/// # Ok::<(), leasemgr::lease::LeaseError>(())
/// ```
#[derive(Debug, PartialEq)]
#[must_use]
pub struct Query<'a, L: ManagedLease> {
    /// What the leases are looked for by.
    pub key: Key<'a, L>,
    /// Leases of this subnet only.
    pub subnet: Option<SubnetId>,
    /// Leases whose client was heard at this time (cltt, seconds since the epoch) or later.
    pub heard_since: Option<i64>,
    /// Leases whose client was heard at this time (cltt, seconds since the epoch) or before.
    pub heard_until: Option<i64>,
    /// Leases with greater addresses only.
    pub after: Option<L::Address>,
    /// Not more leases than this, at least 1; `None` for all.
    pub limit: Option<usize>,
}

impl<L: ManagedLease> Clone for Key<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: ManagedLease> Copy for Key<'_, L> {}

impl<L: ManagedLease> Clone for Query<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: ManagedLease> Copy for Query<'_, L> {}

impl<'a, L: ManagedLease> Query<'a, L> {
    /// The leases that a key names.
    pub fn new(key: Key<'a, L>) -> Self {
        Self { key, subnet: None, heard_since: None, heard_until: None, after: None, limit: None }
    }

    /// Every lease.
    pub fn all() -> Self {
        Self::new(Key::All)
    }

    /// Leases in a state.
    pub fn state(state: LeaseState) -> Self {
        Self::new(Key::State(state))
    }

    /// Leases of a hardware address.
    pub fn hwaddr(hwaddr: &'a HwAddr) -> Self {
        Self::new(Key::HwAddr(hwaddr))
    }

    /// Leases of clients with a name.
    pub fn hostname(hostname: &'a Hostname) -> Self {
        Self::new(Key::Hostname(hostname))
    }

    /// Leases of clients behind a relay agent.
    pub fn relay_id(id: &'a RelayId) -> Self {
        Self::new(Key::RelayId(id))
    }

    /// Leases of clients that a relay agent gave this remote id for.
    pub fn remote_id(id: &'a RemoteId) -> Self {
        Self::new(Key::RemoteId(id))
    }

    /// Of this subnet only.
    pub fn in_subnet(self, subnet: SubnetId) -> Self {
        Self { subnet: Some(subnet), ..self }
    }

    /// With greater addresses than this one only.
    pub fn after(self, address: L::Address) -> Self {
        Self { after: Some(address), ..self }
    }

    /// Not more than this many, at least 1.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Checks the bounds. For backends, before they answer a query.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if the limit is 0, if a time is before 1970, and if the window
    /// of time ends before it begins.
    pub fn check(&self) -> Result<(), LeaseMgrError> {
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
                bad("heard_until", until.to_string(), "a time that is not before heard_since")
            }
            _ => Ok(()),
        }
    }

    /// Of clients that were heard at this time (cltt, seconds since the epoch) or later only.
    pub fn heard_since(self, cltt: i64) -> Self {
        Self { heard_since: Some(cltt), ..self }
    }

    /// Of clients that were heard at this time (cltt, seconds since the epoch) or before only.
    pub fn heard_until(self, cltt: i64) -> Self {
        Self { heard_until: Some(cltt), ..self }
    }
}

impl<'a> Query<'a, Lease4> {
    /// Leases of a client id.
    pub fn client_id(client_id: &'a ClientId) -> Self {
        Self::new(Key::Client(client_id))
    }
}

impl<'a> Query<'a, Lease6> {
    /// Leases of a DUID.
    pub fn duid(duid: &'a Duid) -> Self {
        Self::new(Key::Client(Client6 { duid, iaid: None, lease_type: None }))
    }

    /// Leases of a type that a client has in an identity association.
    pub fn identity(lease_type: LeaseType, duid: &'a Duid, iaid: Iaid) -> Self {
        Self::new(Key::Client(Client6 { duid, iaid: Some(iaid), lease_type: Some(lease_type) }))
    }
}
