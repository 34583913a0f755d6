//! Data of relay agents about a client, as Kea's servers keep it in the user context of a lease.
//!
//! DHCPv4: `ISC`/`relay-agent-info` is a map. Its `sub-options` are those of the Relay Agent
//! Information option (RFC 3046) in hex. In the old form, the hex string replaces the map.
//!
//! DHCPv6: `ISC`/`relay-info` (in the old form `ISC`/`relays`) is a list with a map for each relay
//! that forwarded the message. Its `options` are those that the relay added, in hex.
//!
//! Beside the options, the map may contain the searchable ids `relay-id` and `remote-id`, in hex.

mod checks;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

pub use checks::{CheckedExtendedInfo, ExtendedInfoChecks, ExtendedInfoError, check_extended_info};

use super::{Duid, Family, Json, JsonRef, Lease4, Lease6, RelayId, RemoteId, UserContext};
use crate::identifiers::octets::octets;

/// The identity of a relay agent, and where it received the client's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct RelayInfo {
    /// The id of the relay agent.
    pub relay_id: Option<RelayId>,
    /// The id of the remote host end of the circuit.
    pub remote_id: Option<RemoteId>,
}

impl RelayInfo {
    /// Returns the ids of each relay agent in a user context: at most one in DHCPv4, and one for
    /// each recorded relay in DHCPv6, in their order.
    ///
    /// An id is taken from its own key or, if that is missing or invalid, from the options. Invalid
    /// hex, a truncated option and an id of invalid length count as no id.
    pub fn all(family: Family, context: &UserContext) -> impl Iterator<Item = Self> {
        relays(family, context).map(move |relay| {
            let relay = Entry::of(family, relay);
            let Self { relay_id, remote_id } = relay.ids_of_keys();
            if relay_id.is_some() && remote_id.is_some() {
                return Self { relay_id, remote_id };
            }
            let options = relay.ids_of_options();
            Self { relay_id: relay_id.or(options.relay_id), remote_id: remote_id.or(options.remote_id) }
        })
    }

    /// Keeps the ids of valid length.
    fn new(family: Family, relay_id: &[u8], remote_id: &[u8]) -> Self {
        let possible: RangeInclusive<usize> = match family {
            Family::V4 => 1..=RelayId::MAX_LEN,
            Family::V6 => Duid::MIN_LEN..=Duid::MAX_LEN,
        };
        let relay_id = Some(relay_id).filter(|id| possible.contains(&id.len()));
        Self {
            relay_id: relay_id.and_then(|id| RelayId::new(id).ok()),
            remote_id: RemoteId::new(remote_id).ok(),
        }
    }
}

const ISC: &str = "ISC";
const RELAY_AGENT_INFO: &str = "relay-agent-info";
const SUB_OPTIONS: &str = "sub-options";
const OPTIONS: &str = "options";
const RELAY_INFO: &str = "relay-info";
const OLD_RELAY_INFO: &str = "relays";
const RELAY_ID: &str = "relay-id";
const REMOTE_ID: &str = "remote-id";

/// Converts data of relay agents to the form that Kea's servers search: the relay id and the remote
/// id in the options get keys of their own beside the options, and old forms are upgraded.
///
/// Returns `None` if there is nothing to change. Ids that have valid keys stay unchanged.
///
/// ```
/// use leasemgr::lease::{Family, UserContext, keep_relay_ids};
///
/// let context = UserContext::parse(br#"{ "ISC": { "relay-agent-info": "0x0104AABBCCDD0204C0000201" } }"#)?;
/// let kept = keep_relay_ids(Family::V4, &context).unwrap();
/// assert_eq!(
///     kept.get("ISC").unwrap().get("relay-agent-info").unwrap().as_json(),
///     r#"{ "remote-id": "C0000201", "sub-options": "0x0104AABBCCDD0204C0000201" }"#
/// );
/// assert_eq!(keep_relay_ids(Family::V4, &kept), None);
/// # Ok::<(), leasemgr::lease::JsonError>(())
/// ```
#[must_use]
pub fn keep_relay_ids(family: Family, context: &UserContext) -> Option<UserContext> {
    let mut kept = upgraded(family, context).map_or(Cow::Borrowed(context), Cow::Owned);
    let mut missing = Vec::new();
    for (i, relay) in relays(family, &kept).enumerate() {
        let relay = Entry::of(family, relay);
        let (keys, options) = (relay.ids_of_keys(), relay.ids_of_options());
        if let (None, Some(id)) = (keys.relay_id, options.relay_id) {
            missing.push((i, RELAY_ID, id.to_string()));
        }
        if let (None, Some(id)) = (keys.remote_id, options.remote_id) {
            missing.push((i, REMOTE_ID, id.to_string()));
        }
    }
    for (i, key, id) in missing {
        let with_id = match family {
            Family::V4 => kept.with(&[ISC, RELAY_AGENT_INFO, key], id.as_str()),
            Family::V6 => kept.with(&[ISC, RELAY_INFO, &i.to_string(), key], id.as_str()),
        };
        kept = Cow::Owned(with_id.ok()?);
    }
    match kept {
        Cow::Owned(kept) => Some(kept),
        Cow::Borrowed(_) => None,
    }
}

/// A relay that forwarded a DHCPv6 message, and the data that it added (RFC 8415 section 9).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub struct Relayed {
    /// Number of relays that had forwarded the message before.
    pub hop_count: u8,
    /// The link of the client, as far as the relay knows it.
    pub link: Ipv6Addr,
    /// The address from which the relay received the message.
    pub peer: Ipv6Addr,
    /// The options of the relay except for the relayed message, encoded as in the message: two
    /// bytes of code, two bytes of length, and the value of each.
    pub options: Vec<u8>,
}

impl UserContext {
    /// Returns the user context with the sub-options of the Relay Agent Information option (RFC
    /// 3046) of a DHCPv4 relay agent, encoded as in the message. Replaces earlier ones.
    ///
    /// ```
    /// use leasemgr::lease::UserContext;
    ///
    /// let context = UserContext::default().with_relay_agent_info(&[1, 2, 0xaa, 0xbb, 2, 1, 0xcc]);
    /// assert_eq!(
    ///     context.as_str(),
    ///     r#"{ "ISC": { "relay-agent-info": { "remote-id": "CC", "sub-options": "0x0102AABB0201CC" } } }"#
    /// );
    /// ```
    #[must_use]
    pub fn with_relay_agent_info(&self, sub_options: &[u8]) -> Self {
        let hex = format!(r#"{{ "{SUB_OPTIONS}": "{}" }}"#, Hex(sub_options));
        self.with_extended_info(Family::V4, RELAY_AGENT_INFO, &hex)
    }

    /// Returns the user context with the relays that forwarded a DHCPv6 message, beginning with the
    /// one next to the server. Replaces earlier ones.
    #[must_use]
    pub fn with_relays(&self, relays: &[Relayed]) -> Self {
        let mut list = String::from("[");
        for (i, Relayed { hop_count, link, peer, options }) in relays.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(list, r#"{comma}{{"hop":{hop_count},"link":"{link}","peer":"{peer}""#);
            if !options.is_empty() {
                let _ = write!(list, r#","{OPTIONS}":"{}""#, Hex(options));
            }
            list.push('}');
        }
        list.push(']');
        self.with_extended_info(Family::V6, RELAY_INFO, &list)
    }

    fn with_extended_info(&self, family: Family, key: &str, json: &str) -> Self {
        let put = || {
            let info = Json::parse(json.as_bytes())?;
            // If `ISC` is not a map, it does not come from a DHCP server, and is replaced.
            self.with(&[ISC, key], info.clone()).or_else(|_| self.without(&[ISC]).with(&[ISC, key], info))
        };
        let context = put().unwrap_or_else(|_| self.clone());
        keep_relay_ids(family, &context).unwrap_or(context)
    }
}

/// Formats bytes as `0x` and two upper-case hex digits for each.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Upgrades an old form.
fn upgraded(family: Family, context: &UserContext) -> Option<UserContext> {
    let isc = context.get(ISC)?;
    match family {
        Family::V4 => {
            let sub_options = isc.get(RELAY_AGENT_INFO)?;
            hex(sub_options)?;
            let map = UserContext::default().with(&[SUB_OPTIONS], sub_options).ok()?;
            context.with(&[ISC, RELAY_AGENT_INFO], map).ok()
        }
        Family::V6 => {
            let relays = isc.get(OLD_RELAY_INFO).filter(|relays| relays.as_list().is_some())?;
            if isc.get(RELAY_INFO).is_some() {
                return None;
            }
            let named = context.with(&[ISC, RELAY_INFO], relays).ok()?;
            Some(named.without(&[ISC, OLD_RELAY_INFO]))
        }
    }
}

/// Converts data of relay agents in the old form to the present one, with the ids that are found in
/// the options. Returns `None`, and changes nothing, if it is not in the old form.
#[cfg(feature = "commands")]
pub(crate) fn with_present_relay_form(family: Family, context: &UserContext) -> Option<UserContext> {
    let upgraded = upgraded(family, context)?;
    Some(keep_relay_ids(family, &upgraded).unwrap_or(upgraded))
}

/// Returns the entry of each relay agent.
fn relays(family: Family, context: &UserContext) -> impl Iterator<Item = JsonRef<'_>> {
    let isc = context.get(ISC);
    let (one, list) = match family {
        Family::V4 => (isc.and_then(|isc| isc.get(RELAY_AGENT_INFO)), None),
        Family::V6 => {
            let relays = isc.and_then(|isc| isc.get(RELAY_INFO).or_else(|| isc.get(OLD_RELAY_INFO)));
            (None, relays.and_then(JsonRef::as_list))
        }
    };
    one.into_iter().chain(list.into_iter().flatten())
}

/// The entry of one relay agent.
struct Entry<'a> {
    family: Family,
    relay_id: Option<JsonRef<'a>>,
    remote_id: Option<JsonRef<'a>>,
    options: Option<JsonRef<'a>>,
}

impl<'a> Entry<'a> {
    fn of(family: Family, relay: JsonRef<'a>) -> Self {
        let mut kept = Self { family, relay_id: None, remote_id: None, options: None };
        let Some(members) = relay.as_map() else {
            // The old form.
            if family == Family::V4 {
                kept.options = Some(relay);
            }
            return kept;
        };
        let options = match family {
            Family::V4 => SUB_OPTIONS,
            Family::V6 => OPTIONS,
        };
        for (key, value) in members {
            match &*key {
                key if key == RELAY_ID.as_bytes() => kept.relay_id = Some(value),
                key if key == REMOTE_ID.as_bytes() => kept.remote_id = Some(value),
                key if key == options.as_bytes() => kept.options = Some(value),
                _ => {}
            }
        }
        kept
    }

    fn ids_of_keys(&self) -> RelayInfo {
        let id = |value: Option<JsonRef<'_>>| value.and_then(hex).unwrap_or_default();
        RelayInfo::new(self.family, &id(self.relay_id), &id(self.remote_id))
    }

    fn ids_of_options(&self) -> RelayInfo {
        let Some(options) = self.options.and_then(hex) else {
            return RelayInfo::default();
        };
        let (relay_id, remote_id) = match self.family {
            Family::V4 => (12, 2),
            Family::V6 => (53, 37),
        };
        let option = |code| find_option(self.family, &options, code).unwrap_or_default();
        RelayInfo::new(self.family, option(relay_id), option(remote_id))
    }
}

/// Decodes a string of hex digits.
fn hex(value: JsonRef<'_>) -> Option<Vec<u8>> {
    octets(&value.as_bytes()?).map(|octets| octets.as_slice().to_vec())
}

/// Returns the value of the first option with this code, unless an option before it is truncated.
/// In DHCPv4, code and length are a byte each (RFC 3046), in DHCPv6 two bytes each (RFC 8415
/// section 21.1).
fn find_option(family: Family, mut options: &[u8], code: u16) -> Option<&[u8]> {
    loop {
        let (this, len, rest) = match (family, options) {
            (Family::V4, &[code, len, ref rest @ ..]) => (code.into(), len.into(), rest),
            (Family::V6, &[code, code_low, len, len_low, ref rest @ ..]) => {
                (u16::from_be_bytes([code, code_low]), u16::from_be_bytes([len, len_low]), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len.into())?;
        if this == code {
            return Some(value);
        }
        options = rest;
    }
}

impl Lease4 {
    /// Returns the ids of the relay agent in the user context. See [`RelayInfo::all`].
    #[must_use]
    pub fn relay_info(&self) -> RelayInfo {
        let context = self.data().user_context.as_ref();
        context.and_then(|context| RelayInfo::all(Family::V4, context).next()).unwrap_or_default()
    }

    /// Returns the relay id in the user context.
    #[must_use]
    pub fn relay_id(&self) -> Option<RelayId> {
        self.relay_info().relay_id
    }

    /// Returns the remote id in the user context.
    #[must_use]
    pub fn remote_id(&self) -> Option<RemoteId> {
        self.relay_info().remote_id
    }
}

impl Lease6 {
    /// Returns the ids of each relay agent in the user context. See [`RelayInfo::all`].
    pub fn relay_infos(&self) -> impl Iterator<Item = RelayInfo> {
        let context = self.data().user_context.as_ref();
        context.into_iter().flat_map(|context| RelayInfo::all(Family::V6, context))
    }

    /// Returns the relay ids in the user context.
    pub fn relay_ids(&self) -> impl Iterator<Item = RelayId> {
        self.relay_infos().filter_map(|info| info.relay_id)
    }

    /// Returns the remote ids in the user context.
    pub fn remote_ids(&self) -> impl Iterator<Item = RemoteId> {
        self.relay_infos().filter_map(|info| info.remote_id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::lease::{HwAddr, Iaid, LeaseState, LeaseType};

    fn context(text: &str) -> UserContext {
        UserContext::parse(text.as_bytes()).unwrap()
    }

    /// Returns relay id and remote id in hex, `-` for a missing one.
    fn shown(info: RelayInfo) -> [String; 2] {
        let or_none = |id: Option<String>| id.unwrap_or_else(|| "-".to_owned());
        [or_none(info.relay_id.map(|id| id.to_string())), or_none(info.remote_id.map(|id| id.to_string()))]
    }

    #[rstest]
    #[case::from_sub_options(r#"{ "sub-options": "0x0104AABBCCDD02030102030C0201ff" }"#, "01FF", "010203")]
    #[case::without_0x(r#"{ "sub-options": "0204c0000201" }"#, "-", "C0000201")]
    #[case::from_keys(r#"{ "relay-id": "0A0B", "remote-id": "0x03010203" }"#, "0A0B", "03010203")]
    #[case::keys_before_sub_options(r#"{ "remote-id": "FF", "sub-options": "0x0C010102010A" }"#, "01", "FF")]
    #[case::invalid_key(r#"{ "remote-id": "xy", "sub-options": "0x02010A" }"#, "-", "0A")]
    #[case::key_not_a_string(r#"{ "remote-id": 12, "sub-options": "0x02010A" }"#, "-", "0A")]
    #[case::old_form(r#""0x02010A0C010B""#, "0B", "0A")]
    #[case::first_of_two(r#""0x02010A02010B""#, "-", "0A")]
    #[case::empty_sub_options(r#""0x02000C00""#, "-", "-")]
    #[case::empty_keys(r#"{ "relay-id": "", "remote-id": "0x" }"#, "-", "-")]
    #[case::truncated_value(r#""0x0C010B0204C00002""#, "0B", "-")]
    #[case::truncated_after_the_code(r#""0x0C010B02""#, "0B", "-")]
    #[case::after_a_truncated_option(r#""0x01FF0C010B""#, "-", "-")]
    #[case::invalid_hex(r#""0x0C010B0G""#, "-", "-")]
    #[case::not_a_string(r#"{ "sub-options": [ "0x0C010B" ] }"#, "-", "-")]
    #[case::neither_map_nor_string("12", "-", "-")]
    fn the_ids_of_a_dhcpv4_relay_are_read(
        #[case] info: &str,
        #[case] relay_id: &str,
        #[case] remote_id: &str,
    ) {
        let context =
            context(&format!(r#"{{ "ISC": {{ "client-classes": [ "A" ], "relay-agent-info": {info} }} }}"#));
        let hwaddr = HwAddr::new(&[1; 6]).unwrap();
        let mut lease = Lease4::new(Ipv4Addr::LOCALHOST, Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
        assert_eq!((lease.relay_id(), lease.remote_id()), (None, None));
        lease.data_mut().user_context = Some(context);
        assert_eq!(shown(lease.relay_info()), [relay_id, remote_id]);
        assert_eq!(
            shown(RelayInfo { relay_id: lease.relay_id(), remote_id: lease.remote_id() }),
            [relay_id, remote_id]
        );
    }

    #[rstest]
    #[case::from_options(r#"{ "hop": 1, "options": "0x00120002AABB0035000400030001002500060000000901020304" }"#, &["00030001", "000000090102"])]
    #[case::from_keys(r#"{ "relay-id": "64:64:64", "remote-id": "010203040506" }"#, &["646464", "010203040506"])]
    #[case::one_from_options_one_from_a_key(r#"{ "options": "0x0035000300030001", "remote-id": "01" }"#, &["000300", "01"])]
    #[case::a_relay_id_is_a_duid(r#"{ "relay-id": "0102" }"#, &["-", "-"])]
    #[case::truncated_value(r#"{ "options": "0x003500030003" }"#, &["-", "-"])]
    #[case::truncated_length(r#"{ "options": "0x002500010A003500" }"#, &["-", "0A"])]
    #[case::two_bytes_of_length(r#"{ "options": "0x0001010035" }"#, &["-", "-"])]
    #[case::not_a_map("12", &["-", "-"])]
    fn the_ids_of_each_dhcpv6_relay_are_read(
        #[case] relay: &str,
        #[case] ids: &[&str],
        #[values("relay-info", "relays")] key: &str,
    ) {
        let other = r#"{ "hop": 0, "link": "2001:db8::1", "remote-id": "FF" }"#;
        let context = context(&format!(r#"{{ "ISC": {{ "{key}": [ {relay}, {other} ] }} }}"#));
        let duid = Duid::new(&[1; 4]).unwrap();
        let mut lease =
            Lease6::new(LeaseType::NA, Ipv6Addr::LOCALHOST, duid, Iaid(1), LeaseState::DEFAULT).unwrap();
        assert_eq!(lease.relay_infos().count(), 0);
        lease.data_mut().user_context = Some(context);
        let infos: Vec<_> = lease.relay_infos().map(shown).collect();
        assert_eq!(infos, [[ids[0], ids[1]], ["-", "FF"]]);
        let not_none = |id: &&str| *id != "-";
        let relay_ids: Vec<_> = lease.relay_ids().map(|id| id.to_string()).collect();
        assert_eq!(relay_ids, ids[..1].iter().copied().filter(not_none).collect::<Vec<_>>());
        let remote_ids: Vec<_> = lease.remote_ids().map(|id| id.to_string()).collect();
        assert_eq!(remote_ids, [ids[1], "FF"].into_iter().filter(|id| not_none(id)).collect::<Vec<_>>());
    }

    #[rstest]
    #[case::nothing("{}")]
    #[case::not_a_map(r#"{ "ISC": 1 }"#)]
    #[case::key_of_the_other_family(r#"{ "ISC": { "relay-info": [ { "remote-id": "FF" } ] } }"#)]
    fn without_relays_there_are_no_ids(#[case] text: &str) {
        let context = context(text);
        assert_eq!(RelayInfo::all(Family::V4, &context).next(), None);
        assert_eq!(keep_relay_ids(Family::V4, &context), None);
    }

    #[rstest]
    #[case::beside_the_sub_options(
        r#"{ "sub-options": "0x0104AABBCCDD0204c0ff02010c0164" }"#,
        Some(r#"{ "relay-id": "64", "remote-id": "C0FF0201", "sub-options": "0x0104AABBCCDD0204c0ff02010c0164" }"#)
    )]
    #[case::only_a_missing_id(
        r#"{ "remote-id": "01", "sub-options": "0x0201FF0C0164" }"#,
        Some(r#"{ "relay-id": "64", "remote-id": "01", "sub-options": "0x0201FF0C0164" }"#)
    )]
    #[case::replaces_an_invalid_id(
        r#"{ "remote-id": "x", "sub-options": "0x0201FF" }"#,
        Some(r#"{ "remote-id": "FF", "sub-options": "0x0201FF" }"#)
    )]
    #[case::old_form(r#""0x0201FF""#, Some(r#"{ "remote-id": "FF", "sub-options": "0x0201FF" }"#))]
    #[case::old_form_without_ids(r#""0x0101FF""#, Some(r#"{ "sub-options": "0x0101FF" }"#))]
    #[case::old_form_with_invalid_hex(r#""port 1""#, None)]
    #[case::no_ids(r#"{ "sub-options": "0x0101FF" }"#, None)]
    #[case::ids_already_present(
        r#"{ "relay-id": "64", "remote-id": "01", "sub-options": "0x0201FF0C0165" }"#,
        None
    )]
    fn dhcpv4_ids_are_kept_beside_the_sub_options(#[case] info: &str, #[case] kept: Option<&str>) {
        let whole = |info| {
            context(&format!(
                r#"{{ "ISC": {{ "a": 1, "relay-agent-info": {info}, "z": [] }}, "other": "x" }}"#
            ))
        };
        let before = whole(info);
        let after = keep_relay_ids(Family::V4, &before);
        assert_eq!(after, kept.map(whole));
        let after = after.unwrap_or(before);
        assert_eq!(keep_relay_ids(Family::V4, &after), None);
    }

    #[rstest]
    #[case::in_each_relay(
        r#""relay-info": [ { "hop": 2, "options": "0x002500020A0B" }, { "hop": 1 }, { "options": "0x0035000300030001" } ]"#,
        Some(r#""relay-info": [ { "hop": 2, "options": "0x002500020A0B", "remote-id": "0A0B" }, { "hop": 1 },
            { "options": "0x0035000300030001", "relay-id": "000300" } ]"#)
    )]
    #[case::old_form(
        r#""relays": [ { "options": "0x002500020A0B" } ]"#,
        Some(r#""relay-info": [ { "options": "0x002500020A0B", "remote-id": "0A0B" } ]"#)
    )]
    #[case::old_form_without_ids(r#""relays": [ { "hop": 1 } ]"#, Some(r#""relay-info": [ { "hop": 1 } ]"#))]
    #[case::both_forms(r#""relay-info": [], "relays": [ { "options": "0x002500020A0B" } ]"#, None)]
    #[case::not_a_list(r#""relays": {}"#, None)]
    #[case::no_ids(r#""relay-info": [ { "options": "0x00" }, 3 ]"#, None)]
    fn dhcpv6_ids_are_kept_beside_the_options(#[case] info: &str, #[case] kept: Option<&str>) {
        let whole = |info| context(&format!(r#"{{ "ISC": {{ "a": 1, {info} }} }}"#));
        let before = whole(info);
        let after = keep_relay_ids(Family::V6, &before);
        assert_eq!(after, kept.map(whole));
        let after = after.unwrap_or(before);
        assert_eq!(keep_relay_ids(Family::V6, &after), None);
    }

    #[rstest]
    #[case::first(
        "{}",
        r#"{ "ISC": { "relay-agent-info": { "relay-id": "AA", "sub-options": "0x0C01AA" } } }"#
    )]
    #[case::beside_others(
        r#"{ "ISC": { "client-classes": [ "a" ], "relay-agent-info": { "remote-id": "01" } }, "x": 1 }"#,
        r#"{ "ISC": { "client-classes": [ "a" ], "relay-agent-info": { "relay-id": "AA", "sub-options": "0x0C01AA" } }, "x": 1 }"#
    )]
    #[case::replaces_a_number(
        r#"{ "ISC": 3, "x": 1 }"#,
        r#"{ "ISC": { "relay-agent-info": { "relay-id": "AA", "sub-options": "0x0C01AA" } }, "x": 1 }"#
    )]
    fn sub_options_are_added(#[case] before: &str, #[case] after: &str) {
        assert_eq!(context(before).with_relay_agent_info(&[12, 1, 0xaa]), context(after));
    }

    #[test]
    fn relays_are_added() {
        let relay = |hop_count, options: &[u8]| Relayed {
            hop_count,
            link: Ipv6Addr::LOCALHOST,
            peer: "fe80::1".parse().unwrap(),
            options: options.to_vec(),
        };
        let context = context(r#"{ "ISC": { "relays": [] } }"#);
        let with = context.with_relays(&[relay(1, &[]), relay(0, &[0, 37, 0, 5, 1, 2, 3, 4, 5])]);
        let list = with.get("ISC").unwrap().get("relay-info").unwrap();
        assert_eq!(
            list.as_json(),
            r#"[ { "hop": 1, "link": "::1", "peer": "fe80::1" }, { "hop": 0, "link": "::1", "options": "0x002500050102030405", "peer": "fe80::1", "remote-id": "0102030405" } ]"#
        );
        assert_eq!(with.with_relays(&[]).as_str(), r#"{ "ISC": { "relay-info": [  ], "relays": [  ] } }"#);
    }

    /// Returns the hex of options, without their last `cut` bytes.
    fn hex_of_options(family: Family, options: &[(u16, Vec<u8>)], cut: usize) -> String {
        let mut bytes = Vec::new();
        for (code, value) in options {
            let len = u16::try_from(value.len()).unwrap();
            match family {
                Family::V4 => bytes.extend([*code, len].map(|n| u8::try_from(n).unwrap())),
                Family::V6 => bytes.extend([*code, len].map(u16::to_be_bytes).as_flattened()),
            }
            bytes.extend(value);
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    proptest! {
        #[test]
        fn complete_options_are_found_and_keeping_the_ids_changes_none(
            family in prop_oneof![Just(Family::V4), Just(Family::V6)],
            options in prop::collection::vec(
                (prop_oneof![Just(2), Just(12), Just(37), Just(53), 0..256_u16], prop::collection::vec(any::<u8>(), 0..20)),
                0..6,
            ),
            cut in 0..4_usize,
        ) {
            let hex = hex_of_options(family, &options, cut);
            let before = context(&match family {
                Family::V4 => format!(r#"{{"ISC":{{"relay-agent-info":{{"sub-options":"0x{hex}"}}}}}}"#),
                Family::V6 => format!(r#"{{"ISC":{{"relay-info":[{{"options":"0x{hex}"}}]}}}}"#),
            });
            let info = RelayInfo::all(family, &before).next().unwrap();
            let cut_off = options.iter().rev().scan(cut, |left, (_, value)| {
                let this = *left > 0;
                let header = if family == Family::V4 { 2 } else { 4 };
                *left = left.saturating_sub(value.len() + header);
                Some(this)
            }).filter(|cut| *cut).count();
            let whole = &options[..options.len() - cut_off];
            let first = |code| whole.iter().find(|option| option.0 == code).map(|option| option.1.as_slice());
            let (relay_id, remote_id, shortest) = if family == Family::V4 { (12, 2, 1) } else { (53, 37, 3) };
            prop_assert_eq!(
                info.relay_id.as_ref().map(RelayId::as_bytes),
                first(relay_id).filter(|id| id.len() >= shortest)
            );
            prop_assert_eq!(info.remote_id.as_ref().map(RemoteId::as_bytes), first(remote_id).filter(|id| !id.is_empty()));

            let after = keep_relay_ids(family, &before);
            prop_assert_eq!(after.is_some(), info != RelayInfo::default());
            prop_assert_eq!(RelayInfo::all(family, &after.unwrap_or(before)).next(), Some(info));
        }

        #[test]
        fn no_context_causes_a_panic(
            info in prop_oneof![
                crate::kea_json::tests::json(),
                "\"0x[0-9a-f]{0,40}\"",
                "\\{\"(sub-options|options|relay-id)\":\"0x[0-9a-f]{0,40}\",\"remote-id\":\"[0-9x]{0,5}\"\\}",
            ],
            key in "relay-agent-info|relay-info|relays",
            list in any::<bool>(),
        ) {
            let info = if list { format!("[{info},{info}]") } else { info };
            let context = context(&format!(r#"{{"ISC":{{"{key}":{info}}}}}"#));
            for family in [Family::V4, Family::V6] {
                let ids: Vec<_> = RelayInfo::all(family, &context).collect();
                if let Some(kept) = keep_relay_ids(family, &context) {
                    prop_assert_eq!(&UserContext::parse(kept.as_str().as_bytes()).unwrap(), &kept);
                    prop_assert_eq!(RelayInfo::all(family, &kept).collect::<Vec<_>>(), ids);
                    prop_assert_eq!(keep_relay_ids(family, &kept), None);
                }
            }
        }
    }
}
