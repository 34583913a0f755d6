//! Checks the data of relay agents in user contexts, and upgrades old forms of it.

use std::fmt;
use std::net::Ipv6Addr;

use super::{
    ISC, OLD_RELAY_INFO, OPTIONS, RELAY_AGENT_INFO, RELAY_ID, RELAY_INFO, REMOTE_ID, SUB_OPTIONS, hex,
    keep_relay_ids,
};
use crate::lease::{Family, Json, JsonRef, UserContext};

/// How strictly the data of relay agents in user contexts (extended info) is checked. Each level
/// includes the checks of the levels before. Data that fails a check is removed from the user
/// context; the rest stays.
///
/// | level | DHCPv4, `relay-agent-info` | DHCPv6, `relay-info` |
/// |---|---|---|
/// | `none` | is kept as it is | is kept as it is |
/// | `fix` | is a map; hex digits, the old form, become a map | is a list of at least one map, `options` are hex digits; `relays`, the old form, is renamed |
/// | `strict` | `sub-options` are hex digits; `relay-id` and `remote-id` too, without a prefix | each relay has a `link`, an IPv6 address; `relay-id` and `remote-id` are hex digits without a prefix |
/// | `pedantic` | has nothing else but a `comment` | each relay has a `peer`, an IPv6 address, and a `hop`, an integer, and nothing else but a `comment` |
///
/// From `fix` on, an empty user context, and an `ISC` that is empty or not a map, are removed, too.
/// Truncated options are not an error: ids before the truncation are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExtendedInfoChecks {
    /// Nothing is checked or changed.
    None,
    /// Data of another type is removed, and old forms are upgraded.
    #[default]
    Fix,
    /// Data that a search by relay agent cannot use is removed as well.
    Strict,
    /// Data that Kea's servers would not write is removed as well.
    Pedantic,
}

impl ExtendedInfoChecks {
    /// The levels with their names in connection strings.
    pub const NAMES: [(&str, Self); 4] =
        [("none", Self::None), ("fix", Self::Fix), ("strict", Self::Strict), ("pedantic", Self::Pedantic)];
}

/// Why extended info failed its checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} in the user context is {found}, expected {expected}")]
pub struct ExtendedInfoError {
    /// The keys that lead to the value, separated by `/`.
    pub path: String,
    /// The beginning of the value, or `missing`.
    pub found: String,
    /// The expected value.
    pub expected: &'static str,
}

/// The result of checking a user context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedExtendedInfo {
    /// The corrected user context; `None` if nothing is left.
    pub context: Option<UserContext>,
    /// What failed a check and was removed; `None` if an old form was upgraded or an empty map
    /// removed.
    pub problem: Option<ExtendedInfoError>,
}

/// Checks the data of relay agents in a user context. Returns `None` if there is nothing to change.
///
/// ```
/// use leasemgr::lease::{ExtendedInfoChecks, Family, UserContext, check_extended_info};
///
/// let old = UserContext::parse(br#"{ "ISC": { "relay-agent-info": "0x0202BEEF" } }"#)?;
/// let upgraded = check_extended_info(Family::V4, &old, ExtendedInfoChecks::Fix).unwrap();
/// assert_eq!(
///     upgraded.context.unwrap().as_str(),
///     r#"{ "ISC": { "relay-agent-info": { "remote-id": "BEEF", "sub-options": "0x0202BEEF" } } }"#
/// );
///
/// let nonsense = UserContext::parse(br#"{ "ISC": { "relay-agent-info": 7 }, "rack": 12 }"#)?;
/// let checked = check_extended_info(Family::V4, &nonsense, ExtendedInfoChecks::Fix).unwrap();
/// assert_eq!(checked.context.unwrap().as_str(), r#"{ "rack": 12 }"#);
/// assert_eq!(
///     checked.problem.unwrap().to_string(),
///     "ISC/relay-agent-info in the user context is 7, expected a map or hexadecimal digits"
/// );
/// # Ok::<(), leasemgr::lease::JsonError>(())
/// ```
#[must_use]
pub fn check_extended_info(
    family: Family,
    context: &UserContext,
    checks: ExtendedInfoChecks,
) -> Option<CheckedExtendedInfo> {
    if checks == ExtendedInfoChecks::None {
        return None;
    }
    if is_empty(context.root()) {
        return Some(CheckedExtendedInfo { context: None, problem: None });
    }
    let isc = context.get(ISC)?;
    if isc.as_map().is_none() {
        return Some(without(context, &[ISC], Some(problem(&ISC, Some(isc), "a map"))));
    }
    if is_empty(isc) {
        return Some(without(context, &[ISC], None));
    }
    match family {
        Family::V4 => {
            let info = isc.get(RELAY_AGENT_INFO)?;
            if info.as_bytes().is_some() && is_hex(info) {
                return Some(upgraded(family, context));
            }
            let problem = check_agent(info, checks).err()?;
            Some(without(context, &[ISC, RELAY_AGENT_INFO], Some(problem)))
        }
        Family::V6 => match (isc.get(OLD_RELAY_INFO), isc.get(RELAY_INFO)) {
            (None, None) => None,
            (Some(old), None) => Some(match check_relays(OLD_RELAY_INFO, old, checks) {
                Ok(()) => upgraded(family, context),
                Err(problem) => without(context, &[ISC, OLD_RELAY_INFO], Some(problem)),
            }),
            (None, Some(info)) => {
                let problem = check_relays(RELAY_INFO, info, checks).err()?;
                Some(without(context, &[ISC, RELAY_INFO], Some(problem)))
            }
            (Some(_), Some(info)) => {
                let kept = context.without(&[ISC, OLD_RELAY_INFO]);
                Some(match check_relays(RELAY_INFO, info, checks) {
                    Ok(()) => CheckedExtendedInfo { context: Some(kept), problem: None },
                    Err(problem) => without(&kept, &[ISC, RELAY_INFO], Some(problem)),
                })
            }
        },
    }
}

fn is_empty(value: JsonRef<'_>) -> bool {
    value.as_map().is_some_and(|mut members| members.next().is_none())
}

/// Upgrades an old form.
fn upgraded(family: Family, context: &UserContext) -> CheckedExtendedInfo {
    let context = keep_relay_ids(family, context).unwrap_or_else(|| context.clone());
    CheckedExtendedInfo { context: Some(context), problem: None }
}

/// Removes the value at `path`, and the maps that become empty.
fn without(context: &UserContext, path: &[&str], problem: Option<ExtendedInfoError>) -> CheckedExtendedInfo {
    let mut left = context.without(path);
    if left.get(ISC).is_some_and(is_empty) {
        left = left.without(&[ISC]);
    }
    CheckedExtendedInfo { context: (!is_empty(left.root())).then_some(left), problem }
}

fn problem(path: &dyn fmt::Display, found: Option<JsonRef<'_>>, expected: &'static str) -> ExtendedInfoError {
    /// Maximum length of a value in an error. Values are ASCII.
    const SHOWN: usize = 60;
    let found = match found.map(JsonRef::as_json) {
        None => "missing".to_owned(),
        Some(value) => match value.get(..SHOWN) {
            Some(start) if value.len() > SHOWN => format!("{start}..."),
            _ => value.to_owned(),
        },
    };
    ExtendedInfoError { path: path.to_string(), found, expected }
}

/// Returns whether a value is a string of hex digits in one of the forms of lease files, with at
/// least one byte.
fn is_hex(value: JsonRef<'_>) -> bool {
    hex(value).is_some_and(|bytes| !bytes.is_empty())
}

/// Returns whether a value is a string of two hex digits for each byte, with at least one byte.
fn is_plain_hex(value: JsonRef<'_>) -> bool {
    value
        .as_bytes()
        .is_some_and(|text| !text.is_empty() && text.len() % 2 == 0 && text.iter().all(u8::is_ascii_hexdigit))
}

/// Returns whether a value is a string with an IPv6 address.
fn is_ipv6(value: JsonRef<'_>) -> bool {
    let text = value.as_bytes();
    text.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<Ipv6Addr>().ok()).is_some()
}

/// A map that is checked, and its path.
struct Checked<'a> {
    path: String,
    map: JsonRef<'a>,
}

impl Checked<'_> {
    /// Checks that a member is as expected, if it is present or `required`.
    fn member(
        &self,
        key: &str,
        required: bool,
        is_right: impl Fn(JsonRef<'_>) -> bool,
        expected: &'static str,
    ) -> Result<(), ExtendedInfoError> {
        let value = self.map.get(key);
        if value.map_or(!required, is_right) {
            return Ok(());
        }
        Err(problem(&format_args!("{}/{key}", self.path), value, expected))
    }

    fn ids(&self) -> Result<(), ExtendedInfoError> {
        for key in [RELAY_ID, REMOTE_ID] {
            self.member(key, false, is_plain_hex, "two hexadecimal digits for each byte")?;
        }
        Ok(())
    }

    /// Checks that there are no members but these and a comment.
    fn no_others(&self, known: &[&str]) -> Result<(), ExtendedInfoError> {
        let is_known = |key: &[u8]| key == b"comment" || known.iter().any(|known| known.as_bytes() == key);
        let other = self.map.as_map().and_then(|mut members| members.find(|(key, _)| !is_known(key)));
        match other {
            None => Ok(()),
            Some((key, value)) => {
                // The key as in the JSON text, in ASCII.
                let path = format!("{}/{}", self.path, Json::from(&*key));
                Err(problem(&path, Some(value), "no such key"))
            }
        }
    }
}

/// Checks the data of a DHCPv4 relay agent, in the present form.
fn check_agent(info: JsonRef<'_>, checks: ExtendedInfoChecks) -> Result<(), ExtendedInfoError> {
    let agent = Checked { path: format!("{ISC}/{RELAY_AGENT_INFO}"), map: info };
    if info.as_map().is_none() {
        return Err(problem(&agent.path, Some(info), "a map or hexadecimal digits"));
    }
    if checks >= ExtendedInfoChecks::Strict {
        agent.member(SUB_OPTIONS, false, is_hex, "hexadecimal digits")?;
        agent.ids()?;
    }
    if checks >= ExtendedInfoChecks::Pedantic {
        agent.no_others(&[SUB_OPTIONS, RELAY_ID, REMOTE_ID])?;
    }
    Ok(())
}

/// Checks the data of DHCPv6 relays.
fn check_relays(
    name: &str,
    relays: JsonRef<'_>,
    checks: ExtendedInfoChecks,
) -> Result<(), ExtendedInfoError> {
    let mut items = relays.as_list().into_iter().flatten().enumerate().peekable();
    if items.peek().is_none() {
        return Err(problem(&format_args!("{ISC}/{name}"), Some(relays), "a list of at least one map"));
    }
    for (i, map) in items {
        let relay = Checked { path: format!("{ISC}/{name}/{i}"), map };
        if map.as_map().is_none() {
            return Err(problem(&relay.path, Some(map), "a map"));
        }
        relay.member(OPTIONS, false, is_hex, "hexadecimal digits")?;
        if checks >= ExtendedInfoChecks::Strict {
            relay.member("link", true, is_ipv6, "an IPv6 address")?;
            relay.ids()?;
        }
        if checks >= ExtendedInfoChecks::Pedantic {
            relay.member("peer", true, is_ipv6, "an IPv6 address")?;
            let is_integer = |value: JsonRef<'_>| value.as_i64().is_some() || value.as_u64().is_some();
            relay.member("hop", true, is_integer, "an integer")?;
            relay.no_others(&["hop", "link", "peer", OPTIONS, RELAY_ID, REMOTE_ID])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::ExtendedInfoChecks::{Fix, None as Unchecked, Pedantic, Strict};
    use super::*;

    /// Returns the checked user context, and the path of what failed a check, if anything.
    fn check(family: Family, text: &str, checks: ExtendedInfoChecks) -> (String, Option<String>) {
        let context = UserContext::parse(text.as_bytes()).unwrap();
        let Some(checked) = check_extended_info(family, &context, checks) else {
            return (context.as_str().to_owned(), None);
        };
        assert_ne!(checked.context.as_ref(), Some(&context), "the context was not changed");
        let left = checked.context.as_ref();
        // A second check finds nothing to change.
        assert_eq!(left.and_then(|left| check_extended_info(family, left, checks)), None);
        (left.map_or("", UserContext::as_str).to_owned(), checked.problem.map(|problem| problem.path))
    }

    fn canonical(text: &str) -> String {
        if text.is_empty() {
            return String::new();
        }
        UserContext::parse(text.as_bytes()).unwrap().as_str().to_owned()
    }

    const SAME: &str = "the same";

    #[rstest]
    #[case::an_empty_context_is_kept("{}", Unchecked, SAME, None)]
    #[case::an_empty_context("{}", Fix, "", None)]
    #[case::no_extended_info(r#"{"foo":1}"#, Pedantic, SAME, None)]
    #[case::a_number_for_isc_is_kept(r#"{"ISC":1}"#, Unchecked, SAME, None)]
    #[case::a_number_for_isc(r#"{"ISC":1}"#, Fix, "", Some("ISC"))]
    #[case::a_number_for_isc_beside_others(r#"{"ISC":1,"foo":2}"#, Fix, r#"{"foo":2}"#, Some("ISC"))]
    #[case::an_empty_isc_is_kept(r#"{"ISC":{}}"#, Unchecked, SAME, None)]
    #[case::an_empty_isc(r#"{"ISC":{}}"#, Fix, "", None)]
    #[case::an_empty_isc_beside_others(r#"{"ISC":{},"foo":2}"#, Pedantic, r#"{"foo":2}"#, None)]
    fn maps_around_extended_info_are_checked_in_both_families(
        #[values(Family::V4, Family::V6)] family: Family,
        #[case] before: &str,
        #[case] checks: ExtendedInfoChecks,
        #[case] after: &str,
        #[case] problem: Option<&str>,
    ) {
        let after = canonical(if after == SAME { before } else { after });
        assert_eq!(check(family, before, checks), (after, problem.map(str::to_owned)));
    }

    /// Checks `info` as relay agent info, with the remaining value: `SAME`, "" or another value.
    #[rstest]
    #[case::true_is_kept("true", Unchecked, SAME, None)]
    #[case::true_("true", Fix, "", Some(""))]
    #[case::a_list("[]", Fix, "", Some(""))]
    #[case::null("null", Fix, "", Some(""))]
    #[case::an_empty_map("{}", Pedantic, SAME, None)]
    #[case::invalid_hex_is_kept(r#""foo""#, Unchecked, SAME, None)]
    #[case::invalid_hex(r#""foo""#, Fix, "", Some(""))]
    #[case::only_a_prefix(r#""0x""#, Fix, "", Some(""))]
    #[case::an_empty_string(r#""""#, Fix, "", Some(""))]
    #[case::old(r#""0x0202BEEF""#, Fix, r#"{"remote-id":"BEEF","sub-options":"0x0202BEEF"}"#, None)]
    #[case::old_is_kept(r#""0x0202BEEF""#, Unchecked, SAME, None)]
    #[case::old_strict(r#""0x0202BEEF""#, Strict, r#"{"remote-id":"BEEF","sub-options":"0x0202BEEF"}"#, None)]
    #[case::old_pedantic(r#""0202beef""#, Pedantic, r#"{"remote-id":"BEEF","sub-options":"0202beef"}"#, None)]
    #[case::old_without_ids(r#""0x0104AABBCCDD""#, Fix, r#"{"sub-options":"0x0104AABBCCDD"}"#, None)]
    #[case::old_with_both_ids(
        r#""0x02030102030C03AABBCC""#,
        Fix,
        r#"{"sub-options":"0x02030102030C03AABBCC","remote-id":"010203","relay-id":"AABBCC"}"#,
        None
    )]
    #[case::old_with_empty_ids(r#""0x02000C00""#, Fix, r#"{"sub-options":"0x02000C00"}"#, None)]
    #[case::old_truncated(
        r#""0x0202BEEF0C09AA""#,
        Fix,
        r#"{"sub-options":"0x0202BEEF0C09AA","remote-id":"BEEF"}"#,
        None
    )]
    #[case::sub_options_of_another_type(r#"{"sub-options":1}"#, Fix, SAME, None)]
    #[case::sub_options_of_another_type_strict(r#"{"sub-options":1}"#, Strict, "", Some("/sub-options"))]
    #[case::sub_options_invalid_hex(r#"{"sub-options":"foo"}"#, Fix, SAME, None)]
    #[case::sub_options_invalid_hex_strict(r#"{"sub-options":"foo"}"#, Strict, "", Some("/sub-options"))]
    #[case::sub_options_without_ids_stay(r#"{"sub-options":"0x0202BEEF"}"#, Pedantic, SAME, None)]
    #[case::remote_id_of_another_type(r#"{"remote-id":1}"#, Fix, SAME, None)]
    #[case::remote_id_of_another_type_strict(r#"{"remote-id":1}"#, Strict, "", Some("/remote-id"))]
    #[case::remote_id_invalid_hex(r#"{"remote-id":"foo"}"#, Strict, "", Some("/remote-id"))]
    #[case::remote_id_with_a_prefix(r#"{"remote-id":"0xAABB"}"#, Strict, "", Some("/remote-id"))]
    #[case::remote_id_half_a_byte(r#"{"remote-id":"AAB"}"#, Strict, "", Some("/remote-id"))]
    #[case::remote_id_empty(r#"{"remote-id":""}"#, Fix, SAME, None)]
    #[case::remote_id_empty_strict(r#"{"remote-id":""}"#, Strict, "", Some("/remote-id"))]
    #[case::remote_id(r#"{"remote-id":"AABB"}"#, Pedantic, SAME, None)]
    #[case::relay_id_of_another_type(r#"{"relay-id":1}"#, Fix, SAME, None)]
    #[case::relay_id_of_another_type_strict(r#"{"relay-id":1}"#, Strict, "", Some("/relay-id"))]
    #[case::relay_id_invalid_hex(r#"{"relay-id":"foo"}"#, Strict, "", Some("/relay-id"))]
    #[case::relay_id_empty(r#"{"relay-id":""}"#, Strict, "", Some("/relay-id"))]
    #[case::relay_id(r#"{"relay-id":"AABB"}"#, Pedantic, SAME, None)]
    #[case::another_entry(r#"{"foo":1}"#, Strict, SAME, None)]
    #[case::another_entry_pedantic(r#"{"foo":1}"#, Pedantic, "", Some("/\"foo\""))]
    #[case::a_comment(r#"{"comment":"good"}"#, Pedantic, SAME, None)]
    fn data_of_a_dhcpv4_relay_agent_is_checked(
        #[case] info: &str,
        #[case] checks: ExtendedInfoChecks,
        #[case] left: &str,
        #[case] problem: Option<&str>,
        #[values("", r#","foo":1"#)] beside: &str,
    ) {
        let whole = |info: &str| format!(r#"{{"ISC":{{"relay-agent-info":{info}{beside}}}}}"#);
        let after = match (left, beside) {
            ("", "") => String::new(),
            ("", _) => canonical(r#"{"ISC":{"foo":1}}"#),
            (SAME, _) => canonical(&whole(info)),
            _ => canonical(&whole(left)),
        };
        let problem = problem.map(|path| format!("ISC/relay-agent-info{path}"));
        assert_eq!(check(Family::V4, &whole(info), checks), (after, problem));
    }

    const HEAD: &str = r#""link":"2001::2","peer":"2001::3","hop":10"#;

    /// Checks `info` as data of relays, in the old and in the new form, with the remaining value in
    /// the new form.
    #[rstest]
    #[case::true_("true", Fix, "", Some(""))]
    #[case::a_map("{}", Fix, "", Some(""))]
    #[case::an_empty_list("[]", Fix, "", Some(""))]
    #[case::a_list_of_numbers("[1]", Fix, "", Some("/0"))]
    #[case::a_null_after_a_map("[{},null]", Fix, "", Some("/1"))]
    #[case::options_of_another_type(r#"[{"options":1}]"#, Fix, "", Some("/0/options"))]
    #[case::options_invalid_hex(r#"[{},{"options":"foo"}]"#, Fix, "", Some("/1/options"))]
    #[case::options_empty(r#"[{"options":"0x"}]"#, Fix, "", Some("/0/options"))]
    #[case::another_entry_alone(r#"[{"foo":1}]"#, Fix, SAME, None)]
    #[case::no_link(r#"[{"foo":1}]"#, Strict, "", Some("/0/link"))]
    #[case::a_number_for_a_link(r#"[{"link":1}]"#, Strict, "", Some("/0/link"))]
    #[case::an_invalid_link(r#"[{"link":"foo"}]"#, Strict, "", Some("/0/link"))]
    #[case::an_ipv4_link(r#"[{"link":"192.128.1.1"}]"#, Strict, "", Some("/0/link"))]
    #[case::a_link(r#"[{"link":"2001::2"}]"#, Strict, SAME, None)]
    #[case::remote_id_of_another_type(r#"[{"remote-id":1}]"#, Fix, SAME, None)]
    #[case::remote_id_of_another_type_strict(
        r#"[{"remote-id":1,"link":"2001::2"}]"#,
        Strict,
        "",
        Some("/0/remote-id")
    )]
    #[case::remote_id_invalid_hex(
        r#"[{"remote-id":"foo","link":"2001::2"}]"#,
        Strict,
        "",
        Some("/0/remote-id")
    )]
    #[case::remote_id_empty(r#"[{"remote-id":"","link":"2001::2"}]"#, Strict, "", Some("/0/remote-id"))]
    #[case::remote_id(r#"[{"remote-id":"AABB","link":"2001::2"}]"#, Strict, SAME, None)]
    #[case::relay_id_of_another_type_strict(
        r#"[{"relay-id":1,"link":"2001::2"}]"#,
        Strict,
        "",
        Some("/0/relay-id")
    )]
    #[case::relay_id_invalid_hex(r#"[{"relay-id":"foo","link":"2001::2"}]"#, Strict, "", Some("/0/relay-id"))]
    #[case::relay_id_empty(r#"[{"relay-id":"","link":"2001::2"}]"#, Strict, "", Some("/0/relay-id"))]
    #[case::relay_id(r#"[{"relay-id":"AABB","link":"2001::2"}]"#, Strict, SAME, None)]
    #[case::no_peer(r#"[{"link":"2001::2"}]"#, Pedantic, "", Some("/0/peer"))]
    #[case::a_number_for_a_peer(r#"[{"link":"2001::2","peer":1}]"#, Pedantic, "", Some("/0/peer"))]
    #[case::an_invalid_peer(r#"[{"link":"2001::2","peer":"foo"}]"#, Pedantic, "", Some("/0/peer"))]
    #[case::an_ipv4_peer(r#"[{"link":"2001::2","peer":"192.128.1.1"}]"#, Pedantic, "", Some("/0/peer"))]
    #[case::no_hop(r#"[{"link":"2001::2","peer":"2001::3"}]"#, Pedantic, "", Some("/0/hop"))]
    #[case::an_invalid_hop(
        r#"[{"link":"2001::2","peer":"2001::3","hop":false}]"#,
        Pedantic,
        "",
        Some("/0/hop")
    )]
    #[case::a_fraction_for_a_hop(
        r#"[{"link":"2001::2","peer":"2001::3","hop":1.5}]"#,
        Pedantic,
        "",
        Some("/0/hop")
    )]
    #[case::complete(&format!("[{{{HEAD}}}]"), Pedantic, SAME, None)]
    #[case::a_comment(&format!(r#"[{{{HEAD},"comment":[]}}]"#), Pedantic, SAME, None)]
    #[case::another_entry(&format!(r#"[{{{HEAD}}},{{{HEAD},"foo":1}}]"#), Pedantic, "", Some("/1/\"foo\""))]
    fn data_of_dhcpv6_relays_is_checked(
        #[case] info: &str,
        #[case] checks: ExtendedInfoChecks,
        #[case] left: &str,
        #[case] problem: Option<&str>,
        #[values("relays", "relay-info")] name: &str,
        #[values("", r#","a":1"#)] beside: &str,
    ) {
        let whole = |name: &str, info: &str| format!(r#"{{"ISC":{{"{name}":{info}{beside}}}}}"#);
        let after = match (left, beside) {
            ("", "") => String::new(),
            ("", _) => canonical(r#"{"ISC":{"a":1}}"#),
            _ => canonical(&whole("relay-info", info)),
        };
        let problem = problem.map(|path| format!("ISC/{name}{path}"));
        assert_eq!(check(Family::V6, &whole(name, info), checks), (after, problem));
        assert_eq!(check(Family::V6, &whole(name, info), Unchecked), (canonical(&whole(name, info)), None));
    }

    #[rstest]
    #[case::without_ids(r#""options":"0x00C800080102030405060708""#, "")]
    #[case::with_both_ids(
        r#""options":"0x00250006010203040506003500086464646464646464""#,
        r#","remote-id":"010203040506","relay-id":"6464646464646464""#
    )]
    #[case::truncated(r#""options":"0x002500020102003500FF64""#, r#","remote-id":"0102""#)]
    fn old_relays_get_their_ids(
        #[case] options: &str,
        #[case] ids: &str,
        #[values(Fix, Strict, Pedantic)] checks: ExtendedInfoChecks,
    ) {
        let old = format!(r#"{{"ISC":{{"relays":[{{{HEAD},{options}}},{{{HEAD}}}]}}}}"#);
        let new = format!(r#"{{"ISC":{{"relay-info":[{{{HEAD},{options}{ids}}},{{{HEAD}}}]}}}}"#);
        assert_eq!(check(Family::V6, &old, checks), (canonical(&new), None));
        // Data in the present form stays unchanged.
        let today = old.replace("relays", "relay-info");
        assert_eq!(check(Family::V6, &today, checks), (canonical(&today), None));
    }

    #[rstest]
    #[case::valid(r#"[{"foo":1}]"#, r#"{"ISC":{"relay-info":[{"foo":1}]}}"#, None)]
    #[case::invalid("[]", "", Some("ISC/relay-info"))]
    fn the_new_form_takes_precedence_over_the_old_one(
        #[case] info: &str,
        #[case] after: &str,
        #[case] problem: Option<&str>,
    ) {
        let both = format!(r#"{{"ISC":{{"relays":true,"relay-info":{info}}}}}"#);
        assert_eq!(check(Family::V6, &both, Fix), (canonical(after), problem.map(str::to_owned)));
    }

    #[rstest]
    #[case(Family::V4, r#"{"ISC":{"relays":true,"relay-info":true}}"#)]
    #[case(Family::V6, r#"{"ISC":{"relay-agent-info":true}}"#)]
    fn data_of_the_other_family_is_unchanged(#[case] family: Family, #[case] text: &str) {
        assert_eq!(check(family, text, Pedantic), (canonical(text), None));
    }

    #[test]
    fn an_error_shows_the_beginning_of_a_long_value() {
        let text = format!(r#"{{"ISC":{{"relay-agent-info":"{}"}}}}"#, "x".repeat(1000));
        let context = UserContext::parse(text.as_bytes()).unwrap();
        let problem = check_extended_info(Family::V4, &context, Fix).unwrap().problem.unwrap().to_string();
        assert_eq!(
            problem,
            format!(
                "ISC/relay-agent-info in the user context is \"{}..., expected a map or hexadecimal digits",
                "x".repeat(59)
            )
        );
    }
}
