//! How many leases there are.

use super::LeaseMgrError;
use crate::lease::{LeaseState, LeaseType, PoolId, SubnetId};

/// Which subnets are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
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
///
/// ```
/// use leasemgr::lease::SubnetId;
/// use leasemgr::{StatisticsQuery, Subnets};
///
/// let query = StatisticsQuery::range(SubnetId(1), SubnetId(9)).by_pool();
/// assert_eq!((query.subnets, query.by_pool), (Subnets::Range(SubnetId(1), SubnetId(9)), true));
/// assert_eq!(StatisticsQuery::all(), StatisticsQuery::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct StatisticsQuery {
    /// In which subnets.
    pub subnets: Subnets,
    /// Whether each pool is counted on its own.
    pub by_pool: bool,
}

impl StatisticsQuery {
    /// Leases of all subnets.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Leases of one subnet.
    #[must_use]
    pub fn subnet(subnet: SubnetId) -> Self {
        Subnets::One(subnet).into()
    }

    /// Leases of the subnets from the first to the last, both included.
    #[must_use]
    pub fn range(first: SubnetId, last: SubnetId) -> Self {
        Subnets::Range(first, last).into()
    }

    /// Counts each pool on its own.
    #[must_use]
    pub fn by_pool(self) -> Self {
        Self { by_pool: true, ..self }
    }

    /// Checks the subnets. For backends, before they answer a query.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] for subnet 0, which there is none, and for a range whose first subnet is
    /// after its last one.
    pub fn check(&self) -> Result<(), LeaseMgrError> {
        let bad =
            |argument, value: String, expected| Err(LeaseMgrError::BadArgument { argument, value, expected });
        match self.subnets {
            Subnets::One(subnet) if subnet.0 == 0 => {
                bad("the subnet of statistics", subnet.to_string(), "a number from 1 to 4294967295")
            }
            Subnets::Range(first, last) if first.0 == 0 || last < first => bad(
                "the subnet range of statistics",
                format!("{first} to {last}"),
                "a first number of at least 1, and a last one that is not below it",
            ),
            Subnets::All | Subnets::One(_) | Subnets::Range(..) => Ok(()),
        }
    }
}

/// Whole subnets are counted.
impl From<Subnets> for StatisticsQuery {
    fn from(subnets: Subnets) -> Self {
        Self { subnets, by_pool: false }
    }
}

/// How many leases of one kind there are. Rows come in the order of their fields, and only where the count is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
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

impl StatisticsRow {
    /// A row of a subnet, or of one of its pools. For backends.
    #[must_use]
    pub fn new(
        subnet_id: SubnetId,
        pool_id: Option<PoolId>,
        lease_type: Option<LeaseType>,
        state: LeaseState,
        count: u64,
    ) -> Self {
        Self { subnet_id, pool_id, lease_type, state, count }
    }
}
