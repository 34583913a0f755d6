//! Numbers of leases.

use super::LeaseMgrError;
use crate::lease::{LeaseState, LeaseType, PoolId, SubnetId};

/// The subnets to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Subnets {
    /// All subnets.
    #[default]
    All,
    /// One subnet.
    One(SubnetId),
    /// The subnets from the first to the last, inclusive.
    Range(SubnetId, SubnetId),
}

impl Subnets {
    /// Returns the first and the last subnet id.
    #[must_use]
    pub fn bounds(self) -> (SubnetId, SubnetId) {
        match self {
            Self::All => (SubnetId(0), SubnetId(u32::MAX)),
            Self::One(subnet) => (subnet, subnet),
            Self::Range(first, last) => (first, last),
        }
    }
}

/// The leases to count.
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
    /// The subnets to count.
    pub subnets: Subnets,
    /// Whether to count each pool separately.
    pub by_pool: bool,
}

impl StatisticsQuery {
    /// Counts leases of all subnets.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Counts leases of one subnet.
    #[must_use]
    pub fn subnet(subnet: SubnetId) -> Self {
        Subnets::One(subnet).into()
    }

    /// Counts leases of the subnets from the first to the last, inclusive.
    #[must_use]
    pub fn range(first: SubnetId, last: SubnetId) -> Self {
        Subnets::Range(first, last).into()
    }

    /// Counts each pool separately.
    #[must_use]
    pub fn by_pool(self) -> Self {
        Self { by_pool: true, ..self }
    }

    /// Checks the subnets. For backends, before they answer a query.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] for subnet 0, which does not exist, and for a range
    /// whose first subnet is greater than its last one.
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
                "a first number of at least 1, and a last one that is not less",
            ),
            Subnets::All | Subnets::One(_) | Subnets::Range(..) => Ok(()),
        }
    }
}

/// Counts whole subnets.
impl From<Subnets> for StatisticsQuery {
    fn from(subnets: Subnets) -> Self {
        Self { subnets, by_pool: false }
    }
}

/// Number of leases of one kind. Rows are ordered by their fields; rows with a count of 0 are left
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct StatisticsRow {
    /// The subnet.
    pub subnet_id: SubnetId,
    /// The pool, if pools are counted separately.
    pub pool_id: Option<PoolId>,
    /// The type of the leases; `None` for DHCPv4.
    pub lease_type: Option<LeaseType>,
    /// The state. Counted are DHCPv4 leases in the states 0 and 1, DHCPv6 addresses in the states
    /// 0, 1 and 4, and delegated prefixes in the state 0.
    pub state: LeaseState,
    /// Number of leases.
    pub count: u64,
}

impl StatisticsRow {
    /// Creates a row for a subnet, or for one of its pools. For backends.
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
