//! Why a command is refused.

use std::error::Error;
use std::net::IpAddr;

use super::Answer;
use crate::lease::{Family, JsonError, LeaseError, SubnetId};
use crate::lease_mgr::LeaseMgrError;
use crate::with_sources;

/// Why a command was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("the request is not JSON")]
    Json(#[source] JsonError),
    #[error("the request is {found}, expected a map")]
    NoMap { found: &'static str },
    #[error("the request has the unknown key {key}")]
    UnknownKey { key: String },
    #[error("no arguments, expected a map")]
    NoArguments,
    #[error("no {key}, expected {expected}")]
    Missing { key: &'static str, expected: &'static str },
    #[error("{key} is {found}, expected {expected}")]
    Argument { key: &'static str, found: String, expected: &'static str },
    #[error("{key} is invalid")]
    Value { key: &'static str, source: LeaseError },
    #[error("the lease is invalid")]
    Lease(#[from] LeaseError),
    #[error("{what}")]
    Invalid { what: &'static str },
    #[error("expire is {expire}, expected at least the valid lifetime of {valid} seconds")]
    Expire { expire: i64, valid: u32 },
    #[error("there is no subnet {subnet}")]
    NoSubnet { subnet: SubnetId },
    #[error("no subnet has the address {address}")]
    NoSubnetOf { address: IpAddr },
    #[error("subnet {subnet} does not have the address {address}")]
    OtherSubnet { subnet: SubnetId, address: IpAddr },
    #[error("{address} has a lease")]
    Taken { address: IpAddr },
    #[error("{address} has no lease")]
    NoLease { address: IpAddr },
    #[error("{address} has a lease of another type")]
    OtherType { address: IpAddr },
    #[error("{address} is in use, so it cannot be registered")]
    InUse { address: IpAddr },
    #[error("DNS updates are off")]
    NoDdns,
    #[error("the lease of {address} has no hostname, so there is nothing to update")]
    NoHostname { address: IpAddr },
    #[error("the DNS update of {address} was not accepted")]
    Ddns { address: IpAddr, source: Box<dyn Error + Send + Sync> },
    #[error("this server has no leases of {family}")]
    NoLeases { family: Family },
    #[error("the backend {backend} cannot {operation}")]
    Backend { backend: String, operation: &'static str },
    #[error("a cleanup is running")]
    Cleaning,
    #[error("the leases cannot be read: {text}")]
    Unread { text: String },
    #[error("the leases cannot be read or changed")]
    Leases(#[from] LeaseMgrError),
}

impl CommandError {
    /// Returns the result of the answer.
    fn result(&self) -> u16 {
        match self {
            Self::NoSubnet { .. }
            | Self::NoSubnetOf { .. }
            | Self::OtherSubnet { .. }
            | Self::Taken { .. }
            | Self::NoLease { .. }
            | Self::NoDdns
            | Self::NoHostname { .. } => Answer::CONFLICT,
            Self::Leases(error) if error.is_stale() => Answer::CONFLICT,
            Self::Backend { .. } => Answer::UNSUPPORTED,
            _ => Answer::ERROR,
        }
    }
}

impl From<CommandError> for Answer {
    fn from(error: CommandError) -> Self {
        Self::new(error.result(), with_sources(&error).to_string())
    }
}
