//! Limits on the leases of client classes and subnets, as Kea's limits hook stores them in user
//! contexts.
//!
//! The hook adds these to the user context of a lease that is about to be assigned:
//!
//! * `ISC`/`client-classes`: the names of the client's classes,
//! * `ISC`/`limits`: the limits of these classes and of the subnet, for the lease manager to check.

mod read;

use std::fmt;

pub use read::{LimitsError, client_classes};

use super::{ClientClass, Family, LeaseType, SubnetId};

/// The kinds of leases that are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum LeaseKind {
    /// A DHCPv4 address, or an IA_NA.
    Address,
    /// An IA_PD.
    Prefix,
}

impl LeaseKind {
    /// Returns the kind of a DHCPv6 lease of this type; `None` for an IA_TA, which is not counted.
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

/// Maximum numbers of leases; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct LeaseLimits {
    /// Maximum number of addresses.
    pub addresses: Option<u32>,
    /// Maximum number of delegated prefixes.
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

/// Maximum numbers of leases of a client class.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct ClassLimit {
    /// The class.
    pub class: ClientClass,
    /// The maximum numbers.
    pub limits: LeaseLimits,
}

/// Maximum numbers of leases in a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct SubnetLimit {
    /// The subnet.
    pub subnet: SubnetId,
    /// The maximum numbers.
    pub limits: LeaseLimits,
}

/// The limits against which a lease is checked.
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
    /// The limits of client classes, in the order of the user context.
    pub classes: Vec<ClassLimit>,
    /// The limit of the subnet.
    pub subnet: Option<SubnetLimit>,
}

impl Limits {
    /// Returns whether there are no limits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.subnet.is_none()
    }

    /// Returns the first limit that is reached, with at least as many leases as it allows. In
    /// DHCPv4, limits of prefixes are ignored.
    ///
    /// The functions return the current number of leases of a class and of a subnet; they are
    /// called only if there is a limit. The leases of a subnet are the assigned ones, including
    /// declined ones (state 1). Those of a class are the ones in use (state 0), as a declined lease
    /// has no client, and so no class.
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

/// Returns the limit and the count, if there is a limit and it is reached.
fn reached(limit: Option<u32>, count: impl FnOnce() -> u64) -> Option<(u32, u64)> {
    let limit = limit?;
    let count = count();
    (count >= limit.into()).then_some((limit, count))
}

/// The owner of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Limited {
    /// A client class.
    Class(ClientClass),
    /// A subnet.
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

/// Why a lease must not be assigned: a limit is reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[error("{kind} limit {limit} of {of} reached, current count {count}")]
pub struct LimitExceeded {
    /// The kind of lease that is limited.
    pub kind: LeaseKind,
    /// Maximum number of leases.
    pub limit: u32,
    /// Current number of leases; it is above the limit if leases were added before the limit was
    /// set.
    pub count: u64,
    /// The owner of the limit.
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
    fn a_limit_is_reached_by_as_many_leases_as_it_allows(#[case] text: &str, #[case] reason: Option<&str>) {
        assert_eq!(exceeded(Family::V6, &limits(text)).as_deref(), reason);
    }

    #[test]
    fn dhcpv4_has_no_limits_of_prefixes() {
        let text = r#"{ "client-classes": [ { "name": "A", "prefix-limit": 0 } ], "subnet": { "id": 7, "prefix-limit": 0 } }"#;
        assert_eq!(exceeded(Family::V4, &limits(text)), None);
    }

    #[test]
    fn control_characters_in_the_name_of_a_class_are_escaped() {
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
