//! Leases: the assignment of an address or prefix to a client, in DHCPv4 and DHCPv6.

mod builder;
mod client;
mod error;
mod extended_info;
mod fields;
mod inherent;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "serde")]
mod kea_text;
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
#[cfg(feature = "commands")]
pub(crate) use extended_info::with_present_relay_form;
pub use extended_info::{
    CheckedExtendedInfo, ExtendedInfoChecks, ExtendedInfoError, RelayInfo, Relayed, check_extended_info,
    keep_relay_ids,
};
pub use fields::Fields;
#[cfg(feature = "serde")]
pub use json::Recorded;
#[cfg(feature = "ha")]
pub(crate) use json::to_ascii;
#[cfg(feature = "commands")]
pub(crate) use kea_text::{type_name, write_kea_text};
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

/// The version of DHCP.
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

/// The fields that leases of both families have, except those that identify the client.
///
/// Every combination of these values is valid, so all fields are public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseData {
    /// For how long the lease is valid, in seconds from [`LeaseData::cltt`].
    pub valid_lifetime: Lifetime,
    /// Client last transmission time: when the client was last heard, in seconds since the epoch.
    pub cltt: i64,
    /// The subnet of the address.
    pub subnet_id: SubnetId,
    /// The pool of the address, 0 if pools have no ids.
    pub pool_id: PoolId,
    /// Whether the server has added the name to the forward zone of the DNS.
    pub fqdn_fwd: bool,
    /// Whether the server has added the name to the reverse zone of the DNS.
    pub fqdn_rev: bool,
    /// The name of the client, empty if it has none.
    pub hostname: Hostname,
    /// Data that the server and its hooks attach to the lease.
    pub user_context: Option<UserContext>,
}

/// The parts that leases of both families have, except those that identify the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseBase<A> {
    address: A,
    state: LeaseState,
    data: LeaseData,
}

pub(crate) mod private {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{Fields, LeaseBase, LeaseError};

    /// Proof that a call comes from this crate: the methods that take it can create an invalid
    /// lease.
    #[derive(Debug)]
    pub struct Token(pub(super) ());

    /// An address of one family.
    pub trait Address: Sized {
        /// Returns the address, if it is of this family.
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

    /// The operations that differ between the families.
    pub trait Parts<A> {
        /// Returns the common parts.
        fn base(&self) -> &LeaseBase<A>;

        /// Returns the common parts, to change them.
        fn base_mut(&mut self, token: Token) -> &mut LeaseBase<A>;

        /// Removes the client. The lease must be declined at the time.
        fn forget_client(&mut self, token: Token);

        /// Sets the values that are not in [`LeaseBase`].
        fn client_fields<'a>(&'a self, fields: &mut Fields<'a>);

        /// Creates a lease from its common parts and the values that are not in them.
        fn of_client_fields(base: LeaseBase<A>, fields: &Fields<'_>) -> Result<Self, LeaseError>
        where
            Self: Sized;
    }
}

use private::{Address as _, Token};

/// A lease of either family, for code that works with both. Implemented for [`Lease4`] and
/// [`Lease6`] only.
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

    /// Returns the hardware address of the client, if known.
    fn hwaddr(&self) -> Option<&HwAddr>;

    /// Checks that the lease can be in this state.
    ///
    /// # Errors
    /// Returns [`LeaseError`] if the lease has no client and the state is neither declined nor
    /// reclaimed.
    fn check_state(&self, state: LeaseState) -> Result<(), LeaseError>;

    /// Returns the address; for a delegated prefix, its first address.
    fn address(&self) -> Self::Address {
        self.base().address
    }

    /// Returns the fields that both families have.
    fn data(&self) -> &LeaseData {
        &self.base().data
    }

    /// Returns the fields that both families have, to change them.
    fn data_mut(&mut self) -> &mut LeaseData {
        &mut self.base_mut(Token(())).data
    }

    /// Returns the state of the lease.
    fn state(&self) -> LeaseState {
        self.base().state
    }

    /// Changes the state of the lease.
    ///
    /// # Errors
    /// As [`Lease::check_state`].
    fn set_state(&mut self, state: LeaseState) -> Result<(), LeaseError> {
        self.check_state(state)?;
        self.base_mut(Token(())).state = state;
        Ok(())
    }

    /// Takes the address out of use for `probation`, because another host was found to use it (RFC
    /// 2131 section 3.1, RFC 8415 section 18.3.8): removes the client, clears the hostname and the
    /// DNS flags, and declines the lease from `now` on.
    ///
    /// Clears the user context of a DHCPv4 lease, as Kea 3.3 does (2.2 keeps it), so that no index
    /// finds the lease by the client data in it. A DHCPv6 lease keeps its user context, as in Kea.
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

    /// Reclaims the lease. Everything else stays, for a returning client; a lease without a client,
    /// such as a declined one, still has none.
    ///
    /// The former state is kept in the user context, as the number `reclaimed-from` in the map
    /// `leasemgr`, which Kea keeps like any other: `{ "leasemgr": { "reclaimed-from": 1 } }`. It is
    /// left out for a lease that was assigned ([`LeaseState::DEFAULT`]). [`Lease::reclaimed_from`]
    /// reads it.
    fn reclaim(&mut self) {
        let was = self.state();
        if was == LeaseState::EXPIRED_RECLAIMED {
            return;
        }
        self.base_mut(Token(())).state = LeaseState::EXPIRED_RECLAIMED;
        let context = &mut self.data_mut().user_context;
        if was != LeaseState::DEFAULT || context.is_some() {
            *context = reclaimed::with_former_state(context.take(), was);
        }
    }

    /// Returns the state of the lease before it was reclaimed; `None` if it is not reclaimed. A
    /// lease that another program, such as Kea, has reclaimed counts as formerly assigned, or as
    /// declined if it has no client.
    fn reclaimed_from(&self) -> Option<LeaseState> {
        if !self.is_reclaimed() {
            return None;
        }
        let recorded = self.data().user_context.as_ref().and_then(reclaimed::former_state);
        let lacks_client = self.check_state(LeaseState::DEFAULT).is_err();
        Some(recorded.unwrap_or(if lacks_client { LeaseState::DECLINED } else { LeaseState::DEFAULT }))
    }

    /// Returns when the client was last heard.
    fn heard_at(&self) -> SystemTime {
        system_time(self.data().cltt)
    }

    /// Returns when the lease ends; `None` for an infinite lifetime.
    fn valid_until(&self) -> Option<SystemTime> {
        let end = self.end()?;
        // An end beyond the range of `SystemTime` becomes the last time in that range.
        Some(system_time(i64::try_from(end).unwrap_or(i64::MAX)))
    }

    /// Makes the lease valid from `now`, when the client was heard, until `end`, or without an end
    /// (`None`).
    ///
    /// The lifetime is at most 4 294 967 294 seconds. An `end` that is not after `now` makes it 0,
    /// which deletes the lease in a lease file.
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

    /// Returns when the lease ends, in seconds since the epoch, as in a lease file: cltt plus valid
    /// lifetime, modulo 2^64. To compare, use [`Lease::end`]: for a lease that ended before 1970
    /// this is a large number.
    fn expires_at(&self) -> u64 {
        self.data().cltt.cast_unsigned().wrapping_add(self.data().valid_lifetime.0.into())
    }

    /// Returns when the lease ends, in seconds since the epoch, negative before 1970; `None` for an
    /// infinite lifetime.
    fn end(&self) -> Option<i128> {
        let LeaseData { cltt, valid_lifetime, .. } = *self.data();
        (!valid_lifetime.is_infinite()).then(|| i128::from(cltt) + i128::from(valid_lifetime.0))
    }

    /// Returns whether the lease has ended at `now`; never true for an infinite lifetime.
    fn is_expired(&self, now: SystemTime) -> bool {
        self.end().is_some_and(|end| end <= seconds_since_epoch(now).into())
    }

    /// Returns whether the lease is reclaimed: it has expired, and its cleanup is done.
    fn is_reclaimed(&self) -> bool {
        self.state() == LeaseState::EXPIRED_RECLAIMED
    }

    /// Returns the values of the lease, one for each column of a table.
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

    /// Creates the lease with these values, as recorded by a server. The values from
    /// [`Lease::fields`] give an equal lease.
    ///
    /// # Errors
    /// Returns [`LeaseError`] if the address is of the other family, if a value is invalid, or if
    /// there is no client in a state that requires one.
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

    /// Creates the parts of a stored lease, which was valid.
    pub(crate) fn from_stored(address: A, state: LeaseState, data: LeaseData) -> Self {
        Self { address, state, data }
    }
}
