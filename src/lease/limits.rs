//! How many leases client classes and subnets may have, as Kea's limits hook leaves it in user contexts.
//!
//! The hook puts into the context of a lease that is about to be given out
//!
//! * `ISC`/`client-classes`: the names of the classes that the client is in,
//! * `ISC`/`limits`: the limits of these classes and of the subnet, for the lease manager to check.

use std::borrow::Cow;
use std::fmt;

use super::{ClientClass, Family, JsonRef, LeaseType, SubnetId, UserContext};

/// What is counted apart: addresses, and delegated prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
pub struct ClassLimit {
    /// The class.
    pub class: ClientClass,
    /// How many.
    pub limits: LeaseLimits,
}

/// How many leases there may be in a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
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
pub struct Limits {
    /// Those of client classes, in the order of the user context.
    pub classes: Vec<ClassLimit>,
    /// That of the subnet.
    pub subnet: Option<SubnetLimit>,
}

/// Why the limits of a user context cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user context: {field} is {found}, expected {expected}")]
pub struct LimitsError {
    /// The keys that lead to the value, with `/` between them; items of lists are counted from 0.
    pub field: String,
    /// The beginning of the JSON text that stands there, or `missing`.
    pub found: String,
    /// What should stand there.
    pub expected: &'static str,
}

impl LimitsError {
    fn new(field: impl fmt::Display, found: Option<JsonRef<'_>>, expected: &'static str) -> Self {
        const MAX_FOUND: usize = 60;
        let found = match found.map(JsonRef::as_json) {
            None => "missing".to_owned(),
            Some(text) => match text.get(..MAX_FOUND) {
                Some(head) if text.len() > MAX_FOUND => format!("{head}..."),
                _ => text.to_owned(),
            },
        };
        Self { field: field.to_string(), found, expected }
    }
}

impl Limits {
    /// The limits in `ISC`/`limits`: none where that is missing. Keys other than those known are ignored.
    ///
    /// # Errors
    /// [`LimitsError`] where a limit is no number from 0 to 4294967295, where the name of a class or the
    /// number of the subnet is missing or is none, and where maps and lists are not where they belong.
    pub fn of(context: &UserContext) -> Result<Self, LimitsError> {
        const EXPECTED_MAP: &str = "a map";
        let Some(isc) = context.get("ISC") else {
            return Ok(Self::default());
        };
        isc.as_map().ok_or_else(|| LimitsError::new("ISC", Some(isc), EXPECTED_MAP))?;
        let Some(limits) = isc.get("limits") else {
            return Ok(Self::default());
        };
        limits.as_map().ok_or_else(|| LimitsError::new("ISC/limits", Some(limits), EXPECTED_MAP))?;
        let mut read = Self::default();
        if let Some(classes) = limits.get("client-classes") {
            let field = "ISC/limits/client-classes";
            let items =
                classes.as_list().ok_or_else(|| LimitsError::new(field, Some(classes), "a list of maps"))?;
            for (i, class) in items.enumerate() {
                read.classes.push(class_limit(class, format_args!("{field}/{i}"))?);
            }
        }
        if let Some(subnet) = limits.get("subnet") {
            read.subnet = Some(subnet_limit(subnet, format_args!("ISC/limits/subnet"))?);
        }
        Ok(read)
    }

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

fn class_limit(class: JsonRef<'_>, field: fmt::Arguments<'_>) -> Result<ClassLimit, LimitsError> {
    class.as_map().ok_or_else(|| LimitsError::new(field, Some(class), "a map"))?;
    let name = class.get("name");
    let bytes = name.and_then(JsonRef::as_bytes).filter(|bytes| !bytes.is_empty());
    let bytes =
        bytes.ok_or_else(|| LimitsError::new(format_args!("{field}/name"), name, "the name of a class"))?;
    Ok(ClassLimit { class: ClientClass::new(&bytes), limits: lease_limits(class, field)? })
}

fn subnet_limit(subnet: JsonRef<'_>, field: fmt::Arguments<'_>) -> Result<SubnetLimit, LimitsError> {
    subnet.as_map().ok_or_else(|| LimitsError::new(field, Some(subnet), "a map"))?;
    let id = number(subnet, "id", field)?;
    let id = id.ok_or_else(|| LimitsError::new(format_args!("{field}/id"), None, NUMBER))?;
    Ok(SubnetLimit { subnet: SubnetId(id), limits: lease_limits(subnet, field)? })
}

fn lease_limits(map: JsonRef<'_>, field: fmt::Arguments<'_>) -> Result<LeaseLimits, LimitsError> {
    Ok(LeaseLimits {
        addresses: number(map, "address-limit", field)?,
        prefixes: number(map, "prefix-limit", field)?,
    })
}

const NUMBER: &str = "a number from 0 to 4294967295";

fn number(map: JsonRef<'_>, key: &str, field: fmt::Arguments<'_>) -> Result<Option<u32>, LimitsError> {
    let Some(value) = map.get(key) else {
        return Ok(None);
    };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let number =
        number.ok_or_else(|| LimitsError::new(format_args!("{field}/{key}"), Some(value), NUMBER))?;
    Ok(Some(number))
}

/// Whose limit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The client classes of a lease, `ISC`/`client-classes`. What is no string there is passed over.
pub fn client_classes(context: &UserContext) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let classes = context.get("ISC").and_then(|isc| isc.get("client-classes")).and_then(JsonRef::as_list);
    classes.into_iter().flatten().filter_map(JsonRef::as_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn context(text: &str) -> UserContext {
        UserContext::parse(text.as_bytes()).unwrap()
    }

    fn limits(text: &str) -> Result<Limits, LimitsError> {
        Limits::of(&context(&format!(r#"{{ "ISC": {{ "limits": {text} }} }}"#)))
    }

    const BOTH: &str = r#"{
        "client-classes": [ { "name": "foo", "address-limit": 2, "prefix-limit": 1 }, { "name": "b\u00e4r", "prefix-limit": 0 } ],
        "subnet": { "id": 7, "address-limit": 4294967295 }
    }"#;

    #[test]
    fn limits_of_classes_and_of_the_subnet_are_read() {
        let class = |name: &[u8], addresses, prefixes| ClassLimit {
            class: ClientClass::new(name),
            limits: LeaseLimits { addresses, prefixes },
        };
        let limits = limits(BOTH).unwrap();
        assert_eq!(limits.classes, [class(b"foo", Some(2), Some(1)), class(b"b\xe4r", None, Some(0))]);
        let of_subnet = LeaseLimits { addresses: Some(u32::MAX), prefixes: None };
        assert_eq!(limits.subnet, Some(SubnetLimit { subnet: SubnetId(7), limits: of_subnet }));
    }

    #[rstest]
    #[case("{}")]
    #[case(r#"{ "limits": { "subnet": 1 } }"#)]
    #[case(r#"{ "ISC": {} }"#)]
    #[case(r#"{ "ISC": { "limits": {} } }"#)]
    #[case(r#"{ "ISC": { "limits": { "client-classes": [], "rate-limit": "1 packet per second" } } }"#)]
    fn no_limits_are_no_error(#[case] text: &str) {
        assert!(Limits::of(&context(text)).unwrap().is_empty());
    }

    #[rstest]
    #[case("[]", "ISC/limits is [  ], expected a map")]
    #[case(r#"{ "client-classes": {} }"#, "ISC/limits/client-classes is {  }, expected a list of maps")]
    #[case(r#"{ "client-classes": [ "foo" ] }"#, r#"ISC/limits/client-classes/0 is "foo", expected a map"#)]
    #[case(
        r#"{ "client-classes": [ { "name": "a" }, { "address-limit": 1 } ] }"#,
        "ISC/limits/client-classes/1/name is missing, expected the name of a class"
    )]
    #[case(
        r#"{ "client-classes": [ { "name": "" } ] }"#,
        "ISC/limits/client-classes/0/name is \"\", expected the name of a class"
    )]
    #[case(
        r#"{ "client-classes": [ { "name": "a", "address-limit": "2" } ] }"#,
        "ISC/limits/client-classes/0/address-limit is \"2\", expected a number from 0 to 4294967295"
    )]
    #[case(
        r#"{ "subnet": { "id": 1, "prefix-limit": 4294967296 } }"#,
        "ISC/limits/subnet/prefix-limit is 4294967296, expected a number from 0 to 4294967295"
    )]
    #[case(
        r#"{ "subnet": { "id": 1, "prefix-limit": -1 } }"#,
        "ISC/limits/subnet/prefix-limit is -1, expected a number from 0 to 4294967295"
    )]
    #[case(
        r#"{ "subnet": { "address-limit": 1 } }"#,
        "ISC/limits/subnet/id is missing, expected a number from 0 to 4294967295"
    )]
    #[case(r#"{ "subnet": null }"#, "ISC/limits/subnet is null, expected a map")]
    fn what_is_no_limit_is_refused_by_its_field(#[case] text: &str, #[case] error: &str) {
        assert_eq!(limits(text).unwrap_err().to_string(), format!("user context: {error}"));
    }

    #[test]
    fn an_error_shows_the_beginning_of_a_long_value_only() {
        let error = limits(&format!("\"{}\"", "x".repeat(1000))).unwrap_err();
        assert_eq!(error.found, format!("\"{}...", "x".repeat(59)));
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
        assert_eq!(exceeded(Family::V6, &limits(text).unwrap()).as_deref(), reason);
    }

    #[test]
    fn dhcpv4_has_no_limits_of_prefixes() {
        let text = r#"{ "client-classes": [ { "name": "A", "prefix-limit": 0 } ], "subnet": { "id": 7, "prefix-limit": 0 } }"#;
        assert_eq!(exceeded(Family::V4, &limits(text).unwrap()), None);
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

    #[rstest]
    #[case(r#"{ "ISC": { "client-classes": [ "ALL", "b\u00e4r", 3, "ALL" ] } }"#, &[&b"ALL"[..], b"b\xe4r", b"ALL"])]
    #[case(r#"{ "ISC": { "client-classes": "ALL" } }"#, &[])]
    #[case(r#"{ "client-classes": [ "ALL" ] }"#, &[])]
    #[case("{}", &[])]
    fn the_classes_of_a_lease_are_the_strings_of_its_list(#[case] text: &str, #[case] classes: &[&[u8]]) {
        assert_eq!(client_classes(&context(text)).collect::<Vec<_>>(), classes);
    }

    proptest! {
        #[test]
        fn limits_are_read_where_all_values_are_good(
            name in prop_oneof!["\"[a-z]{1,3}\"", crate::kea_json::tests::json()],
            limit in prop_oneof!["[1-9][0-9]{0,10}", crate::kea_json::tests::json()],
        ) {
            let context = context(&format!(
                r#"{{"ISC":{{"limits":{{"client-classes":[{{"name":{name},"prefix-limit":{limit}}}]}},
                    "client-classes":[{name}]}}}}"#
            ));
            let json: serde_json::Value = serde_json::from_str(context.as_str()).unwrap();
            let class = &json["ISC"]["limits"]["client-classes"][0];
            let bytes: Option<Vec<u8>> =
                class["name"].as_str().map(|name| name.chars().map(|c| u8::try_from(c).unwrap()).collect());
            let of_lease = client_classes(&context).next();
            prop_assert_eq!(of_lease.as_deref(), bytes.as_deref());

            let name = bytes.filter(|name| !name.is_empty());
            let limit = class["prefix-limit"].as_u64().and_then(|limit| u32::try_from(limit).ok());
            let limits = Limits::of(&context);
            prop_assert_eq!(limits.is_ok(), name.is_some() && limit.is_some());
            for ClassLimit { class, limits } in limits.iter().flat_map(|limits| &limits.classes) {
                prop_assert_eq!(Some(class.as_bytes()), name.as_deref());
                prop_assert_eq!(limits, &LeaseLimits { addresses: None, prefixes: limit });
            }
        }
    }
}
