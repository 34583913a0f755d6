//! What makes a lease impossible.

use std::net::Ipv6Addr;

use super::{IdentifierError, JsonError, LeaseState};

/// Why a value cannot stand in a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// An identifier that is none.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// Only a declined DHCPv4 lease may have neither a hardware address nor a client id.
    #[error("neither a hardware address nor a client id in state {state}, expected one unless declined (1)")]
    NoIdentity {
        /// The state of the lease.
        state: LeaseState,
    },
    /// Only a declined DHCPv6 lease may have the empty DUID.
    #[error("the empty DUID 00:00:00 in state {state}, expected one of a client unless declined (1)")]
    EmptyDuid {
        /// The state of the lease.
        state: LeaseState,
    },
    /// A prefix length is 0 to 128.
    #[error("a prefix length of {len}, expected 0 to 128")]
    PrefixLength {
        /// The length in bits.
        len: u32,
    },
    /// A prefix that is delegated anew has no bits behind its length.
    #[error("the prefix {address}/{len} has bits set behind its length")]
    PrefixBits {
        /// The address of the prefix.
        address: Ipv6Addr,
        /// The length in bits.
        len: u8,
    },
    /// A user context that is no JSON map as Kea knows it.
    #[error(transparent)]
    UserContext(#[from] JsonError),
}
