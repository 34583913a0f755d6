//! Errors of invalid leases.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};

use super::{Family, IdentifierError, JsonError, LeaseState};

/// Why a value is not valid in a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The identifier is invalid.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// Only a declined or reclaimed DHCPv4 lease may lack both a hardware address and a client id.
    #[error(
        "neither a hardware address nor a client id of a lease that is {state:#}; only a declined or reclaimed one may lack both"
    )]
    NoIdentity {
        /// The state of the lease.
        state: LeaseState,
    },
    /// Only a declined or reclaimed DHCPv6 lease may have the empty DUID.
    #[error(
        "the empty DUID 00:00:00 of a lease that is {state:#}; only a declined or reclaimed one may have it"
    )]
    EmptyDuid {
        /// The state of the lease.
        state: LeaseState,
    },
    /// The prefix length is not 0 to 128.
    #[error("a prefix length of {len}, expected 0 to 128")]
    PrefixLength {
        /// The length in bits.
        len: u32,
    },
    /// A new delegated prefix must not have bits set after its length.
    #[error("the prefix {address}/{len} has bits set after its length")]
    PrefixBits {
        /// The address of the prefix.
        address: Ipv6Addr,
        /// The length in bits.
        len: u8,
    },
    /// The address is of the other family.
    #[error("the address {address}, expected one of {expected}")]
    Family {
        /// The address.
        address: IpAddr,
        /// The family of the lease.
        expected: Family,
    },
    /// The text is neither one of the words nor a number.
    #[error("a text that is not {expected}")]
    Word {
        /// The valid texts.
        expected: &'static str,
    },
    /// The user context is not a JSON map that Kea accepts.
    #[error(transparent)]
    UserContext(#[from] JsonError),
}

/// Allows infallible conversions where others may fail.
impl From<Infallible> for LeaseError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
