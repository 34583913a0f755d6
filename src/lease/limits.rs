//! How many leases client classes and subnets may have, as Kea's limits hook leaves it in user contexts.
//!
//! The hook puts into the context of a lease that is about to be given out
//!
//! * `ISC`/`client-classes`: the names of the classes that the client is in,
//! * `ISC`/`limits`: the limits of these classes and of the subnet, for the lease manager to check.

mod read;

use std::fmt;

pub use read::{LimitsError, client_classes};

use super::{ClientClass, Family, LeaseType, SubnetId};

/// What is counted apart: addresses, and delegated prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum LeaseKind {
    /// A DHCPv4 address, or an IA_NA.
    Address,
    /// An IA_PD.
    Prefix,
}

impl LeaseKind {
    /// What a DHCPv6 lease of this type counts as; an IA_TA is not counted.
    #[must_use]
    pub fn of(lease_type: LeaseType) -> Option<Self> {
        match lease_type {
            LeaseType::NA => Some(Self::Address),
            LeaseType::PD => Some(Self::Prefix),
            _ => None,
        }
    }
}

impl fmt::Display for LeaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::Prefix => "prefix",
        })
    }
}

/// How many leases there may be at a time; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct LeaseLimits {
    /// How many addresses.
    pub addresses: Option<u32>,
    /// How many delegated prefixes.
    pub prefixes: Option<u32>,
}

impl LeaseLimits {
    fn on(self, kind: LeaseKind) -> Option<u32> {
        match kind {
            LeaseKind::Address => self.addresses,
            LeaseKind::Prefix => self.prefixes,
        }
    }
}

/// How many leases the clients of a class may have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct ClassLimit {
    /// The class.
    pub class: ClientClass,
    /// How many.
    pub limits: LeaseLimits,
}

/// How many leases there may be in a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct SubnetLimit {
    /// The subnet.
    pub subnet: SubnetId,
    /// How many.
    pub limits: LeaseLimits,
}

/// The limits that a lease is to be checked against.
///
/// ```
/// use leasemgr::lease::{Family, Limits, UserContext};
///
/// let context = UserContext::parse(
///     br#"{ "ISC": { "limits": { "client-classes": [ { "name": "foo", "address-limit": 2 } ] } } }"#,
/// )?;
/// let limits = Limits::of(&context).unwrap();
/// let exceeded = limits.exceeded(Family::V4, |_class, _kind| 2, |_subnet, _kind| 0);
/// assert_eq!(exceeded.unwrap().to_string(), r#"address limit 2 of client class "foo" reached, current count 2"#);
/// # Ok::<(), leasemgr::lease::JsonError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct Limits {
    /// Those of client classes, in the order of the user context.
    pub classes: Vec<ClassLimit>,
    /// That of the subnet.
    pub subnet: Option<SubnetLimit>,
}

impl Limits {
    /// Whether there are no limits at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.subnet.is_none()
    }

    /// The first limit that has been reached: as many leases as it allows are there already, or more. In
    /// DHCPv4, limits of prefixes do not count.
    ///
    /// The functions tell how many leases of this kind a class and a subnet have now; they are asked only where there is
    /// a limit. A subnet has its assigned leases, declined ones (state 1) included; a class has those in use (state 0):
    /// a declined lease is of no client, and so of no class.
    pub fn exceeded(
        &self,
        family: Family,
        mut count_of_class: impl FnMut(&ClientClass, LeaseKind) -> u64,
        mut count_of_subnet: impl FnMut(SubnetId, LeaseKind) -> u64,
    ) -> Option<LimitExceeded> {
        let kinds: &[LeaseKind] = match family {
            Family::V4 => &[LeaseKind::Address],
            Family::V6 => &[LeaseKind::Address, LeaseKind::Prefix],
        };
        for ClassLimit { class, limits } in &self.classes {
            for &kind in kinds {
                let count = || count_of_class(class, kind);
                if let Some((limit, count)) = reached(limits.on(kind), count) {
                    return Some(LimitExceeded { kind, limit, count, of: Limited::Class(class.clone()) });
                }
            }
        }
        let SubnetLimit { subnet, limits } = self.subnet.as_ref()?;
        for &kind in kinds {
            let count = || count_of_subnet(*subnet, kind);
            if let Some((limit, count)) = reached(limits.on(kind), count) {
                return Some(LimitExceeded { kind, limit, count, of: Limited::Subnet(*subnet) });
            }
        }
        None
    }
}

/// The limit and the count, if there is a limit and it is reached.
fn reached(limit: Option<u32>, count: impl FnOnce() -> u64) -> Option<(u32, u64)> {
    let limit = limit?;
    let count = count();
    (count >= limit.into()).then_some((limit, count))
}

/// Whose limit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Limited {
    /// That of a client class.
    Class(ClientClass),
    /// That of a subnet.
    Subnet(SubnetId),
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "client class \"{class}\""),
            Self::Subnet(subnet) => write!(f, "subnet {subnet}"),
        }
    }
}

/// Why a lease must not be given out: as many as there may be are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[error("{kind} limit {limit} of {of} reached, current count {count}")]
pub struct LimitExceeded {
    /// What is limited.
    pub kind: LeaseKind,
    /// Maximum number of leases.
    pub limit: u32,
    /// Current number of leases: the limit, or more if there were more before it was set.
    pub count: u64,
    /// Whose limit it is.
    pub of: Limited,
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rstest::rstest;

    use super::*;
    use crate::lease::UserContext;

    fn limits(text: &str) -> Limits {
        let context = format!(r#"{{ "ISC": {{ "limits": {text} }} }}"#);
        Limits::of(&UserContext::parse(context.as_bytes()).unwrap()).unwrap()
    }

    /// 10 and 20 leases in the classes A and B, 30 in subnet 7; prefixes one less each.
    fn exceeded(family: Family, limits: &Limits) -> Option<String> {
        let counts = HashMap::from([(ClientClass::from("A"), 10), (ClientClass::from("B"), 20)]);
        let less = |kind| u64::from(kind == LeaseKind::Prefix);
        let of_class =
            |class: &ClientClass, kind| counts.get(class.as_bytes()).map_or(0, |count| count - less(kind));
        let of_subnet = |subnet, kind| if subnet == SubnetId(7) { 30 - less(kind) } else { 0 };
        limits.exceeded(family, of_class, of_subnet).map(|reason| reason.to_string())
    }

    #[rstest]
    #[case::below(
        r#"{ "client-classes": [ { "name": "A", "address-limit": 11, "prefix-limit": 10 } ] }"#,
        None
    )]
    #[case::at(
        r#"{ "client-classes": [ { "name": "A", "address-limit": 10 } ] }"#,
        Some(r#"address limit 10 of client class "A" reached, current count 10"#)
    )]
    #[case::above(
        r#"{ "client-classes": [ { "name": "A", "address-limit": 3 } ] }"#,
        Some(r#"address limit 3 of client class "A" reached, current count 10"#)
    )]
    #[case::prefixes(
        r#"{ "client-classes": [ { "name": "A", "address-limit": 11, "prefix-limit": 9 } ] }"#,
        Some(r#"prefix limit 9 of client class "A" reached, current count 9"#)
    )]
    #[case::zero_is_a_limit(
        r#"{ "client-classes": [ { "name": "C", "address-limit": 0 } ] }"#,
        Some(r#"address limit 0 of client class "C" reached, current count 0"#)
    )]
    #[case::an_unknown_class_has_no_leases(
        r#"{ "client-classes": [ { "name": "C", "address-limit": 1 } ] }"#,
        None
    )]
    #[case::the_first_class(
        r#"{ "client-classes": [ { "name": "A", "address-limit": 11 }, { "name": "B", "address-limit": 1 } ], "subnet": { "id": 7, "address-limit": 1 } }"#,
        Some(r#"address limit 1 of client class "B" reached, current count 20"#)
    )]
    #[case::of_the_subnet(
        r#"{ "subnet": { "id": 7, "address-limit": 30 } }"#,
        Some("address limit 30 of subnet 7 reached, current count 30")
    )]
    #[case::of_the_subnet_for_prefixes(
        r#"{ "subnet": { "id": 7, "prefix-limit": 29 } }"#,
        Some("prefix limit 29 of subnet 7 reached, current count 29")
    )]
    #[case::of_the_subnet_below(
        r#"{ "subnet": { "id": 7, "address-limit": 31, "prefix-limit": 30 } }"#,
        None
    )]
    fn a_limit_is_exceeded_by_as_many_leases_as_it_allows(#[case] text: &str, #[case] reason: Option<&str>) {
        assert_eq!(exceeded(Family::V6, &limits(text)).as_deref(), reason);
    }

    #[test]
    fn dhcpv4_has_no_limits_of_prefixes() {
        let text = r#"{ "client-classes": [ { "name": "A", "prefix-limit": 0 } ], "subnet": { "id": 7, "prefix-limit": 0 } }"#;
        assert_eq!(exceeded(Family::V4, &limits(text)), None);
    }

    #[test]
    fn the_name_of_a_class_cannot_steer_a_terminal() {
        let of = Limited::Class(ClientClass::new(b"\x1b[2J"));
        let reason = LimitExceeded { kind: LeaseKind::Address, limit: 1, count: 3, of };
        assert_eq!(
            reason.to_string(),
            r#"address limit 1 of client class "\x1b[2J" reached, current count 3"#
        );
    }

    #[rstest]
    #[case(LeaseType::NA, Some(LeaseKind::Address))]
    #[case(LeaseType::PD, Some(LeaseKind::Prefix))]
    #[case(LeaseType::TA, None)]
    fn temporary_addresses_are_not_counted(#[case] lease_type: LeaseType, #[case] kind: Option<LeaseKind>) {
        assert_eq!(LeaseKind::of(lease_type), kind);
    }
}
