//! How many leases there are.

use crate::lease::{LeaseState, LeaseType, PoolId, SubnetId};

/// Which subnets are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subnets {
    /// All of them.
    #[default]
    All,
    /// One.
    One(SubnetId),
    /// Those from the first to the last, both included.
    Range(SubnetId, SubnetId),
}

impl Subnets {
    /// The first and the last number of the subnets that are meant.
    #[must_use]
    pub fn bounds(self) -> (SubnetId, SubnetId) {
        match self {
            Self::All => (SubnetId(0), SubnetId(u32::MAX)),
            Self::One(subnet) => (subnet, subnet),
            Self::Range(first, last) => (first, last),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatisticsQuery {
    /// In which subnets.
    pub subnets: Subnets,
    /// Whether each pool is counted on its own.
    pub by_pool: bool,
}

/// How many leases of one kind there are. Rows come in the order of their fields, and only where the count is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatisticsRow {
    /// The subnet.
    pub subnet_id: SubnetId,
    /// The pool, where each one is counted on its own.
    pub pool_id: Option<PoolId>,
    /// What is leased; `None` for DHCPv4.
    pub lease_type: Option<LeaseType>,
    /// The state: of DHCPv4 leases 0 and 1 are counted, of DHCPv6 addresses 0, 1 and 4, of delegated prefixes 0.
    pub state: LeaseState,
    /// How many.
    pub count: u64,
}
