//! The lease: what a server promised to a client, for DHCPv4 and DHCPv6.

mod builder;
mod client;
mod error;
mod extended_info;
mod fields;
mod inherent;
#[cfg(feature = "serde")]
mod json;
mod lease4;
mod lease6;
mod limits;
mod numbers;
mod reclaimed;
mod time;
mod user_context;

use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::SystemTime;

pub use builder::{Builder, WithClient, WithoutClient};
pub use client::Client4;
pub use error::LeaseError;
pub use extended_info::{
    CheckedExtendedInfo, ExtendedInfoChecks, ExtendedInfoError, RelayInfo, Relayed, check_extended_info,
    keep_relay_ids,
};
pub use fields::Fields;
#[cfg(feature = "serde")]
pub use json::Recorded;
pub use lease4::Lease4;
pub use lease6::Lease6;
pub use limits::{
    ClassLimit, LeaseKind, LeaseLimits, LimitExceeded, Limited, Limits, LimitsError, SubnetLimit,
    client_classes,
};
pub use numbers::{LeaseState, LeaseType, Lifetime};
pub use time::{seconds_since_epoch, system_time};
pub use user_context::UserContext;

pub use crate::identifiers::{
    ClientClass, ClientId, Duid, Hostname, HwAddr, HwSource, HwType, Iaid, IdentifierError, IdentifierKind,
    PoolId, RelayId, RemoteId, SubnetId,
};
pub use crate::kea_json::{Json, JsonError, JsonItems, JsonMembers, JsonRef};

/// DHCPv4 or DHCPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Family {
    /// DHCPv4.
    V4,
    /// DHCPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "DHCPv4",
            Self::V6 => "DHCPv6",
        })
    }
}

/// What leases of both families hold, apart from what identifies the client.
///
/// Every combination of these values is a legal lease, so they are open to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseData {
    /// For how long the lease is valid, in seconds from [`LeaseData::cltt`].
    pub valid_lifetime: Lifetime,
    /// Client last transmission time: when the client was last heard, in seconds since the epoch.
    pub cltt: i64,
    /// The subnet that the address is in.
    pub subnet_id: SubnetId,
    /// The pool that the address is from, 0 where pools have no numbers.
    pub pool_id: PoolId,
    /// Whether the server has put the name into the forward zone of the DNS.
    pub fqdn_fwd: bool,
    /// Whether the server has put the name into the reverse zone of the DNS.
    pub fqdn_rev: bool,
    /// The name of the client, empty where it has none.
    pub hostname: Hostname,
    /// What the server and its hooks attach to the lease.
    pub user_context: Option<UserContext>,
}

/// What leases of both families are made of, apart from what identifies the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseBase<A> {
    address: A,
    state: LeaseState,
    data: LeaseData,
}

pub(crate) mod private {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{Fields, LeaseBase, LeaseError};

    /// Proof that a call comes from this crate: the methods that take it can make a lease that must not be.
    #[derive(Debug)]
    pub struct Token(pub(super) ());

    /// An address of one family.
    pub trait Address: Sized {
        /// The address, if it is of this family.
        fn of_ip(address: IpAddr) -> Option<Self>;
    }

    impl Address for Ipv4Addr {
        fn of_ip(address: IpAddr) -> Option<Self> {
            match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }
        }
    }

    impl Address for Ipv6Addr {
        fn of_ip(address: IpAddr) -> Option<Self> {
            match address {
                IpAddr::V4(_) => None,
                IpAddr::V6(address) => Some(address),
            }
        }
    }

    /// What each family does in its own way.
    pub trait Parts<A> {
        /// What both families are made of.
        fn base(&self) -> &LeaseBase<A>;

        /// What both families are made of, to be changed.
        fn base_mut(&mut self, token: Token) -> &mut LeaseBase<A>;

        /// Forgets whose the lease was. It must be declined then.
        fn forget_client(&mut self, token: Token);

        /// The values that are in no [`LeaseBase`].
        fn client_fields<'a>(&'a self, fields: &mut Fields<'a>);

        /// The lease of what both families are made of, and of the values that are not in it.
        fn of_client_fields(base: LeaseBase<A>, fields: &Fields<'_>) -> Result<Self, LeaseError>
        where
            Self: Sized;
    }
}

use private::{Address as _, Token};

/// A lease of either family. Everything that both families have in common is written once, over
/// this trait, which is for [`Lease4`] and [`Lease6`] only.
pub trait Lease:
    private::Parts<Self::Address> + Clone + fmt::Debug + PartialEq + Eq + Send + Sync + 'static
{
    /// The address type of the family.
    type Address: private::Address
        + Copy
        + fmt::Debug
        + fmt::Display
        + Hash
        + Ord
        + Into<IpAddr>
        + Send
        + Sync
        + 'static;

    /// The family.
    const FAMILY: Family;

    /// The hardware address of the client, where it is known.
    fn hwaddr(&self) -> Option<&HwAddr>;

    /// Whether the lease can be in this state.
    ///
    /// # Errors
    /// Returns [`LeaseError`] if a lease that belongs to no client would be neither declined nor reclaimed.
    fn check_state(&self, state: LeaseState) -> Result<(), LeaseError>;

    /// The address; of a delegated prefix, its first address.
    fn address(&self) -> Self::Address {
        self.base().address
    }

    /// What is common to both families.
    fn data(&self) -> &LeaseData {
        &self.base().data
    }

    /// What is common to both families, to be changed.
    fn data_mut(&mut self) -> &mut LeaseData {
        &mut self.base_mut(Token(())).data
    }

    /// What the lease is used as.
    fn state(&self) -> LeaseState {
        self.base().state
    }

    /// Changes what the lease is used as.
    ///
    /// # Errors
    /// As [`Lease::check_state`].
    fn set_state(&mut self, state: LeaseState) -> Result<(), LeaseError> {
        self.check_state(state)?;
        self.base_mut(Token(())).state = state;
        Ok(())
    }

    /// Takes the address out of use for `probation`, because it was found to be in use by another host
    /// (RFC 2131 section 3.1, RFC 8415 section 18.3.8): the client is forgotten, name and DNS flags
    /// are cleared, and the lease is declined from `now` on.
    ///
    /// The user context of a DHCPv4 lease is cleared, as in Kea 3.3 (2.2 keeps it), so no index finds the lease by what it
    /// said of the client. A DHCPv6 lease keeps its user context, as in Kea.
    fn decline(&mut self, now: SystemTime, probation: Lifetime) {
        self.forget_client(Token(()));
        self.base_mut(Token(())).state = LeaseState::DECLINED;
        let data = self.data_mut();
        data.cltt = seconds_since_epoch(now);
        data.valid_lifetime = probation;
        data.hostname = Hostname::default();
        data.fqdn_fwd = false;
        data.fqdn_rev = false;
    }

    /// Makes the lease a reclaimed one. All else stays, for the client to come back; one that belongs to no client, such
    /// as a declined one, still belongs to none.
    ///
    /// What it was is kept in the user context, as the number `reclaimed-from` in the map `leasemgr`, which Kea keeps like any
    /// other: `{ "leasemgr": { "reclaimed-from": 1 } }`. It is left out for a lease that was assigned
    /// ([`LeaseState::DEFAULT`]). [`Lease::reclaimed_from`] reads it.
    fn reclaim(&mut self) {
        let was = self.state();
        if was == LeaseState::EXPIRED_RECLAIMED {
            return;
        }
        self.base_mut(Token(())).state = LeaseState::EXPIRED_RECLAIMED;
        let context = &mut self.data_mut().user_context;
        if was != LeaseState::DEFAULT || context.is_some() {
            *context = reclaimed::noted(context.take(), was);
        }
    }

    /// What the lease was before it was reclaimed; `None` for one that is not reclaimed. One that was reclaimed by another
    /// program, such as Kea, counts as assigned, or as declined if it belongs to no client.
    fn reclaimed_from(&self) -> Option<LeaseState> {
        if !self.is_reclaimed() {
            return None;
        }
        let noted = self.data().user_context.as_ref().and_then(reclaimed::note);
        let lacks_client = self.check_state(LeaseState::DEFAULT).is_err();
        Some(noted.unwrap_or(if lacks_client { LeaseState::DECLINED } else { LeaseState::DEFAULT }))
    }

    /// When the client was last heard.
    fn heard_at(&self) -> SystemTime {
        system_time(self.data().cltt)
    }

    /// When the lease ends; `None` for one with an infinite lifetime, which never ends.
    fn valid_until(&self) -> Option<SystemTime> {
        let end = self.end()?;
        // Beyond what a point in time can be: the last one that can be.
        Some(system_time(i64::try_from(end).unwrap_or(i64::MAX)))
    }

    /// Makes the lease valid from `now`, when the client was heard, until `end`, or for ever.
    ///
    /// A lifetime is at most 4 294 967 294 seconds; an `end` that is not after `now` makes it 0, which in a lease file is a
    /// deletion.
    fn set_valid_until(&mut self, now: SystemTime, end: impl Into<Option<SystemTime>>)
    where
        Self: Sized,
    {
        let heard = seconds_since_epoch(now);
        self.data_mut().cltt = heard;
        self.data_mut().valid_lifetime = match end.into() {
            None => Lifetime::INFINITE,
            Some(end) => {
                let seconds = i128::from(seconds_since_epoch(end)) - i128::from(heard);
                let longest = Lifetime::INFINITE.0 - 1;
                Lifetime(u32::try_from(seconds.max(0)).map_or(longest, |seconds| seconds.min(longest)))
            }
        };
    }

    /// When the lease ends, in seconds since the epoch, as it stands in a lease file: cltt plus valid lifetime, modulo
    /// 2^64. To compare, take [`Lease::end`]: this number is a large one where a lease ended before 1970.
    fn expires_at(&self) -> u64 {
        self.data().cltt.cast_unsigned().wrapping_add(self.data().valid_lifetime.0.into())
    }

    /// When the lease ends, in seconds since the epoch; negative before 1970. `None` for a lease with an infinite
    /// lifetime, which never ends.
    fn end(&self) -> Option<i128> {
        let LeaseData { cltt, valid_lifetime, .. } = *self.data();
        (!valid_lifetime.is_infinite()).then(|| i128::from(cltt) + i128::from(valid_lifetime.0))
    }

    /// Whether the lease has ended at `now`; one with an infinite lifetime never does.
    fn is_expired(&self, now: SystemTime) -> bool {
        self.end().is_some_and(|end| end <= seconds_since_epoch(now).into())
    }

    /// Whether the lease has expired and its clean-up is done.
    fn is_reclaimed(&self) -> bool {
        self.state() == LeaseState::EXPIRED_RECLAIMED
    }

    /// The values of the lease, one for each column that a backend has.
    fn fields(&self) -> Fields<'_> {
        let data = self.data();
        let mut fields = Fields {
            state: self.state(),
            valid_lifetime: data.valid_lifetime,
            cltt: data.cltt,
            subnet_id: data.subnet_id,
            pool_id: data.pool_id,
            fqdn_fwd: data.fqdn_fwd,
            fqdn_rev: data.fqdn_rev,
            hostname: data.hostname.as_bytes(),
            user_context: data.user_context.as_ref().map(UserContext::as_str),
            ..Fields::new(self.address().into())
        };
        if let Some(hwaddr) = self.hwaddr() {
            fields.hwaddr = Some(hwaddr.as_bytes());
            fields.hwtype = hwaddr.htype;
            fields.hwaddr_source = hwaddr.source;
        }
        self.client_fields(&mut fields);
        fields
    }

    /// The lease of these values, as a server has recorded it: what [`Lease::fields`] was called on, if they are unchanged.
    ///
    /// # Errors
    /// Returns [`LeaseError`] if the address is of the other family, if a value cannot stand in a lease, and if there is no client in a state
    /// that needs one.
    fn from_fields(fields: Fields<'_>) -> Result<Self, LeaseError> {
        let address = Self::Address::of_ip(fields.address)
            .ok_or(LeaseError::Family { address: fields.address, expected: Self::FAMILY })?;
        let data = LeaseData {
            valid_lifetime: fields.valid_lifetime,
            cltt: fields.cltt,
            subnet_id: fields.subnet_id,
            pool_id: fields.pool_id,
            fqdn_fwd: fields.fqdn_fwd,
            fqdn_rev: fields.fqdn_rev,
            hostname: Hostname::new(fields.hostname),
            user_context: fields.user_context.map(|text| UserContext::parse(text.as_bytes())).transpose()?,
        };
        let base = LeaseBase { address, state: fields.state, data };
        let lease = Self::of_client_fields(base, &fields)?;
        lease.check_state(fields.state)?;
        Ok(lease)
    }
}

impl<A> LeaseBase<A> {
    fn new(address: A, state: LeaseState) -> Self {
        Self { address, state, data: LeaseData::default() }
    }

    /// The parts of a lease that was one before.
    pub(crate) fn from_stored(address: A, state: LeaseState, data: LeaseData) -> Self {
        Self { address, state, data }
    }
}
