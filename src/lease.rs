//! The lease: what a server promised to a client, for DHCPv4 and DHCPv6.

mod error;
mod extended_info;
#[cfg(feature = "serde")]
mod json;
mod lease4;
mod lease6;
mod limits;
mod numbers;
mod user_context;

use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;

pub use error::LeaseError;
pub use extended_info::{
    CheckedExtendedInfo, ExtendedInfoChecks, ExtendedInfoError, RelayInfo, Relayed, check_extended_info,
    keep_relay_ids,
};
#[cfg(feature = "serde")]
pub use json::Recorded;
pub use lease4::Lease4;
pub use lease6::Lease6;
pub use limits::{
    ClassLimit, LeaseKind, LeaseLimits, LimitExceeded, Limited, Limits, LimitsError, SubnetLimit,
    client_classes,
};
pub use numbers::{LeaseState, LeaseType, Lifetime};
pub use user_context::UserContext;

pub use crate::identifiers::{
    ClientClass, ClientId, Duid, Hostname, HwAddr, HwSource, HwType, Iaid, IdentifierError, IdentifierKind,
    PoolId, RelayId, RemoteId, SubnetId,
};
pub use crate::kea_json::{Json, JsonError, JsonItems, JsonMembers, JsonRef};

/// DHCPv4 or DHCPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    use super::LeaseBase;

    /// Proof that a call comes from this crate: the methods that take it can make a lease that must not be.
    #[derive(Debug)]
    pub struct Token(pub(super) ());

    /// What each family does in its own way.
    pub trait Parts<A> {
        /// What both families are made of.
        fn base(&self) -> &LeaseBase<A>;

        /// What both families are made of, to be changed.
        fn base_mut(&mut self, token: Token) -> &mut LeaseBase<A>;

        /// Forgets whose the lease was. It must be declined then.
        fn forget_client(&mut self, token: Token);
    }
}

use private::Token;

/// A lease of either family. Everything that both families have in common is written once, over
/// this trait, which is for [`Lease4`] and [`Lease6`] only.
pub trait Lease:
    private::Parts<Self::Address> + Clone + fmt::Debug + PartialEq + Eq + Send + Sync + 'static
{
    /// The address type of the family.
    type Address: Copy + fmt::Debug + fmt::Display + Hash + Ord + Into<IpAddr> + Send + Sync + 'static;

    /// The family.
    const FAMILY: Family;

    /// The hardware address of the client, where it is known.
    fn hwaddr(&self) -> Option<&HwAddr>;

    /// Whether the lease can be in this state.
    ///
    /// # Errors
    /// [`LeaseError`] where a lease that belongs to no client would be anything but declined.
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

    /// Takes the address out of use for `probation`, because it was found to be in use by a stranger
    /// (RFC 2131 section 3.1, RFC 8415 section 18.3.8): the client is forgotten, name and DNS flags
    /// are cleared, and the lease is declined from `now` on, in seconds since the epoch.
    ///
    /// The user context of a DHCPv4 lease is cleared, as in Kea 3.3 (2.2 keeps it), so no index finds the lease by what it
    /// said of the client. A DHCPv6 lease keeps its user context, as in Kea.
    fn decline(&mut self, now: i64, probation: Lifetime) {
        self.forget_client(Token(()));
        self.base_mut(Token(())).state = LeaseState::DECLINED;
        let data = self.data_mut();
        data.cltt = now;
        data.valid_lifetime = probation;
        data.hostname = Hostname::default();
        data.fqdn_fwd = false;
        data.fqdn_rev = false;
    }

    /// When the lease ends, in seconds since the epoch, as it stands in a lease file: cltt plus valid lifetime, modulo
    /// 2^64. To compare, take [`Lease::end`]: this number is a large one where a lease ended before 1970.
    fn expire(&self) -> u64 {
        self.data().cltt.cast_unsigned().wrapping_add(self.data().valid_lifetime.0.into())
    }

    /// When the lease ends, in seconds since the epoch; negative before 1970. `None` for a lease with an infinite
    /// lifetime, which never ends.
    fn end(&self) -> Option<i128> {
        let LeaseData { cltt, valid_lifetime, .. } = *self.data();
        (!valid_lifetime.is_infinite()).then(|| i128::from(cltt) + i128::from(valid_lifetime.0))
    }

    /// Whether the lease has ended at `now`, in seconds since the epoch. One that ended before 1970 has; one with an
    /// infinite lifetime never does.
    fn is_expired(&self, now: u64) -> bool {
        self.end().is_some_and(|end| end <= now.into())
    }

    /// Whether the lease has expired and its clean-up is done.
    fn is_reclaimed(&self) -> bool {
        self.state() == LeaseState::EXPIRED_RECLAIMED
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
