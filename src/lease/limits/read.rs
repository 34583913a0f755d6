//! Reads limits and client classes from user contexts.

use std::borrow::Cow;
use std::fmt;

use super::{ClassLimit, LeaseLimits, Limits, SubnetLimit};
use crate::lease::{ClientClass, JsonRef, SubnetId, UserContext};

/// Why the limits of a user context are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user context: {field} is {found}, expected {expected}")]
pub struct LimitsError {
    /// The keys that lead to the value, separated by `/`; items of lists are numbered from 0.
    pub field: String,
    /// The beginning of the value as JSON, or `missing`.
    pub found: String,
    /// The expected value.
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
    /// Reads the limits in `ISC`/`limits`; there are none if the key is missing. Unknown keys are
    /// ignored.
    ///
    /// # Errors
    /// Returns [`LimitsError`] if a limit is not a number from 0 to 4294967295, if the name of a
    /// class or the id of the subnet is missing or invalid, or if a map or list has another type.
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

/// Returns the client classes of a lease, `ISC`/`client-classes`. Items that are not strings are
/// skipped.
pub fn client_classes(context: &UserContext) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let classes = context.get("ISC").and_then(|isc| isc.get("client-classes")).and_then(JsonRef::as_list);
    classes.into_iter().flatten().filter_map(JsonRef::as_bytes)
}

#[cfg(test)]
mod tests {
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
    fn an_invalid_limit_is_refused_with_its_field(#[case] text: &str, #[case] error: &str) {
        assert_eq!(limits(text).unwrap_err().to_string(), format!("user context: {error}"));
    }

    #[test]
    fn an_error_shows_only_the_beginning_of_a_long_value() {
        let error = limits(&format!("\"{}\"", "x".repeat(1000))).unwrap_err();
        assert_eq!(error.found, format!("\"{}...", "x".repeat(59)));
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
        fn limits_are_read_if_all_values_are_valid(
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
